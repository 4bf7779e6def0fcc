"""A conversation that several providers have written, as one of them takes it.

LlamaIndex's classes send tool calls and thoughts of a history much as they find them. What one API wrote is not always
what another one reads: arguments as text or as an object, ids of another form or none, thoughts without a signature.
Whatever a class would send in a valid form is left as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.llm import LLM

from ..compat.llama_index import blocks_of, copied

_ID = "tool_call_id"


@dataclass(frozen=True)
class Form:
    """What an API asks of tool calls and thoughts in a history.

    Args:
        ids: What an id of a call has to look like.
        objects: Whether arguments have to be an object, and its class does not parse them.
        signed_thoughts: Whether thoughts have to have a signature.
        written_twice: Where its class puts calls a second time, in `additional_kwargs`. What other classes put there it
            takes for more calls, or stumbles over.
    """

    ids: re.Pattern[str] = re.compile(r".+", re.DOTALL)
    objects: bool = False
    signed_thoughts: bool = False
    written_twice: frozenset[str] = frozenset()


_CALL_KEYS = frozenset({"tool_calls", "tool_call_id", "status"})
_CLAUDE_IDS = re.compile(r"[a-zA-Z0-9_-]{1,64}")

FORMS: dict[str, Form] = {
    "OpenAI": Form(re.compile(r".{1,40}", re.DOTALL), written_twice=frozenset({"tool_calls"})),
    "OpenAIResponses": Form(re.compile(r".{1,64}", re.DOTALL)),
    "Anthropic": Form(_CLAUDE_IDS, objects=True, signed_thoughts=True),
    "BedrockConverse": Form(_CLAUDE_IDS, signed_thoughts=True, written_twice=frozenset({"tool_call_id", "status"})),
    "GoogleGenAI": Form(objects=True),
    "MistralAI": Form(re.compile(r"[a-zA-Z0-9]{9}")),
    "Ollama": Form(objects=True),
}
"""By the names of classes; a subclass has that of its base."""


def readable(messages: Sequence[ChatMessage], llm: LLM) -> Sequence[ChatMessage]:
    """Return a conversation in the form that the API behind an LLM takes. Messages that are so already are the same.

    Args:
        messages: The conversation. It is not changed.
        llm: Who is asked.
    """
    form = next((FORMS[cls.__name__] for cls in type(llm).__mro__ if cls.__name__ in FORMS), None)
    return [_readable(message, form or _ANY) for message in messages]


_ANY = Form(written_twice=_CALL_KEYS)  # of a class that nobody knows, nobody knows what it reads


def _readable(message: ChatMessage, form: Form) -> ChatMessage:
    changes: dict[str, Any] = {}
    blocks = blocks_of(message)
    made = [each for block in blocks if (each := _block(block, form)) is not None]
    if len(made) != len(blocks) or any(old is not new for old, new in zip(blocks, made, strict=True)):
        changes["blocks"] = made
    extra = _extra(message.additional_kwargs, form, blocks, untouched=not changes)
    if extra is not message.additional_kwargs:
        changes["additional_kwargs"] = extra
    return copied(message, **changes) if changes else message


def _extra(extra: dict[str, Any], form: Form, blocks: Sequence[Any], *, untouched: bool) -> dict[str, Any]:
    """The `additional_kwargs`: of a result the id of its call, and of a call nothing that is in its block."""
    if isinstance(of := extra.get(_ID), str):
        name = _fitting(of, form)
        return extra if name == of else {**extra, _ID: name}
    if not any(type(block).__name__ == "ToolCallBlock" for block in blocks):
        return extra
    dropped = (_CALL_KEYS - (form.written_twice if untouched else frozenset())) & extra.keys()
    return {name: value for name, value in extra.items() if name not in dropped} if dropped else extra


def _block(block: Any, form: Form) -> Any:
    """The block, another one in its place, or None where it is left away."""
    make = _BLOCKS.get(type(block).__name__)
    return block if make is None else make(block, form)


def _call(block: Any, form: Form) -> Any:
    changes: dict[str, Any] = {}
    # Classes whose API has no ids take the tool's name for one, and so does what answers the call.
    if (fitting := _fitting(block.tool_call_id or block.tool_name, form)) != block.tool_call_id:
        changes[_ID] = fitting
    if form.objects and isinstance(block.tool_kwargs, str):
        changes["tool_kwargs"] = _object(block.tool_kwargs)
    return copied(block, **changes) if changes else block


def _thought(block: Any, form: Form) -> Any:
    signature = (block.additional_information or {}).get("signature")
    return block if signature or not form.signed_thoughts else None


_BLOCKS: dict[str, Callable[[Any, Form], Any]] = {"ToolCallBlock": _call, "ThinkingBlock": _thought}


def _object(arguments: str) -> Any:
    try:
        made = json.loads(arguments or "{}", strict=False)
    except ValueError:
        return {}
    return made if isinstance(made, dict) else {}


def _fitting(name: str, form: Form) -> str:
    """An id of the right form, always the same for the same one, so that call and result stay together."""
    return name if form.ids.fullmatch(name) else blake2b(name.encode(), digest_size=8).hexdigest()[:9]
