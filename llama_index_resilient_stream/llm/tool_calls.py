"""Tool calls as the model wrote them, before LlamaIndex repairs what was cut.

LlamaIndex's OpenAI classes parse arguments leniently (`{"amount": 10` becomes `{"amount": 10}`), so whether a call is
whole can only be seen in its raw arguments. They are a string, or a mapping where the integration has parsed them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse

from ..compat.llama_index import blocks_of, copied
from ..recovery.attributes import read


class RepairedArguments(dict[str, Any]):
    """Arguments of a call that is still being written, as LlamaIndex repaired them. Equal to a plain dict of them."""


def arguments_are_whole(arguments: Any) -> bool:
    """Whether the raw arguments of a call are a JSON object, or nothing at all for a tool without parameters.

        arguments_are_whole(' {"a": 1} ')   # True
        arguments_are_whole("")             # True
        arguments_are_whole('{"a": ')       # False

    Args:
        arguments: a JSON text, a mapping, or None.

    Returns:
        False also for JSON that is no object, such as `3` or `[1]`, and for `RepairedArguments`.
    """
    if isinstance(arguments, (str, bytes)):
        if not arguments.strip():
            return True
        try:
            arguments = json.loads(arguments, strict=False)
        except ValueError:
            return False
    return arguments is None or (isinstance(arguments, Mapping) and not isinstance(arguments, RepairedArguments))


def with_repaired_calls(response: ChatResponse, ids: Collection[Any]) -> ChatResponse:
    """Return a copy of a chunk in which the arguments of the calls with these ids are known to be repaired ones.

    Nothing that can be seen or compared is different in it. The chunk of the wrapped class is not changed: its blocks
    are in later chunks, too.

    Args:
        response: a chunk of a stream.
        ids: the `tool_call_id` of calls that are still being written.
    """
    message = response.message
    changes: dict[str, Any] = {}
    if calls := message.additional_kwargs.get("tool_calls"):  # before there were blocks for them
        calls = [_repaired(call) if _id_of(call) in ids else call for call in calls]
        changes["additional_kwargs"] = {**message.additional_kwargs, "tool_calls": calls}
    if blocks := blocks_of(message):
        changes["blocks"] = [_repaired(block) if _id_of(block) in ids else block for block in blocks]
    return copied(response, message=copied(message, **changes))


def _repaired(call: Any) -> Any:
    for name in ("tool_kwargs", "input"):
        if isinstance(arguments := read(call, name), Mapping):
            repaired = {name: RepairedArguments(arguments)}
            return {**call, **repaired} if isinstance(call, dict) else copied(call, **repaired)
    return call


def last_call_id(message: ChatMessage) -> Any:
    """Return the id of the last call in a message, which is the one that is being written; None where it has none."""
    calls = [*(message.additional_kwargs.get("tool_calls") or ()), *filter(_is_call_block, blocks_of(message))]
    return _id_of(calls[-1]) if calls else None


def _id_of(call: Any) -> Any:
    return read(call, "tool_call_id") or read(call, "id")


def has_cut_calls(message: ChatMessage) -> bool:
    """Whether some tool call of a message has arguments that are no JSON object."""
    return not all(_is_whole(call) for call in _calls(message))


def without_cut_calls(response: ChatResponse) -> ChatResponse:
    """A response without the calls whose arguments are no JSON object. The response itself where all are whole.

    Args:
        response: a whole answer, or any chunk of a stream.

    Returns:
        What may be handed to `get_tool_calls_from_response` of an LLM class that repairs arguments.
    """
    message = response.message
    if not has_cut_calls(message):
        return response
    changes: dict[str, Any] = {"additional_kwargs": _whole_ones(message.additional_kwargs)}
    if blocks := blocks_of(message):
        changes["blocks"] = [block for block in blocks if not _is_call_block(block) or _is_whole(block)]
    return copied(response, message=copied(message, **changes))


def _calls(message: ChatMessage) -> Sequence[Any]:
    extra = message.additional_kwargs
    legacy = extra.get("function_call")
    blocks = [block for block in blocks_of(message) if _is_call_block(block)]
    return [*(extra.get("tool_calls") or ()), *blocks, *([legacy] if legacy else [])]


def _whole_ones(extra: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(extra)
    if calls := kept.get("tool_calls"):
        kept["tool_calls"] = [call for call in calls if _is_whole(call)]
    if (legacy := kept.get("function_call")) and not _is_whole(legacy):
        del kept["function_call"]
    return kept


def _is_call_block(block: Any) -> bool:
    return type(block).__name__ == "ToolCallBlock"


def _is_whole(call: Any) -> bool:
    inside = read(call, "function") or call
    for name in ("arguments", "tool_kwargs", "input"):
        if (arguments := read(inside, name)) is not None:
            return arguments_are_whole(arguments)
    return True
