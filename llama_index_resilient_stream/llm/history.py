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
    """

    ids: re.Pattern[str] = re.compile(r".+", re.DOTALL)
    objects: bool = False
    signed_thoughts: bool = False


_CLAUDE_IDS = re.compile(r"[a-zA-Z0-9_-]{1,64}")

FORMS: dict[str, Form] = {
    "OpenAI": Form(re.compile(r".{1,40}", re.DOTALL)),
    "OpenAIResponses": Form(re.compile(r".{1,64}", re.DOTALL)),
    "Anthropic": Form(_CLAUDE_IDS, objects=True, signed_thoughts=True),
    "BedrockConverse": Form(_CLAUDE_IDS, signed_thoughts=True),
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
    form = next((FORMS[cls.__name__] for cls in type(llm).__mro__ if cls.__name__ in FORMS), Form())
    return [_readable(message, form) for message in messages]


def _readable(message: ChatMessage, form: Form) -> ChatMessage:
    changes: dict[str, Any] = {}
    blocks = blocks_of(message)
    made = [each for block in blocks if (each := _block(block, form)) is not None]
    if len(made) != len(blocks) or any(old is not new for old, new in zip(blocks, made, strict=True)):
        changes["blocks"] = made
    if isinstance(of := message.additional_kwargs.get(_ID), str) and (name := _fitting(of, form)) != of:
        changes["additional_kwargs"] = {**message.additional_kwargs, _ID: name}
    return copied(message, **changes) if changes else message


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
