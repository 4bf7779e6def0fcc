"""What some classes get wrong on healthy streams, made right.

LlamaIndex's readers, agents before all, take the message of the last chunk for the whole answer. MistralAI puts a block
for every chunk into it, each with the whole text so far; OpenAIResponses only what is new, and nothing at the end of an
answer that hit its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatResponse

from ..compat.llama_index import assistant_message, blocks_of, copied, message_text
from ..recovery.attributes import read


class MendedContent:
    """Gives each chunk a message with the whole text so far in one block, and with everything else that it had."""

    def __init__(self) -> None:
        self._text = ""

    def __call__(self, response: ChatResponse, text: str) -> ChatResponse:
        """Return the chunk that brings this text, mended; the chunk itself where its message is right.

        Args:
            response: as the class gave it. It is not changed.
            text: what is new in it.
        """
        self._text += text
        message = response.message
        if message_text(message) == self._text and len(blocks_of(message)) < 2:
            return response
        made = assistant_message(self._text, message)
        if hasattr(made, "blocks"):
            made.blocks = _without_older_thoughts(made.blocks)
        return copied(response, message=made)


def _without_older_thoughts(blocks: Sequence[Any]) -> list[Any]:
    """Of thoughts that begin with those before them, the longest alone: they are the same ones, told once per chunk."""
    kept: list[Any] = []
    for block in blocks:
        before: Any = kept[-1] if kept else None
        if _is_thought(block) and _is_thought(before) and (block.content or "").startswith(before.content or ""):
            kept[-1] = block
        else:
            kept.append(block)
    return kept


def _is_thought(block: Any) -> bool:
    return type(block).__name__ == "ThinkingBlock"


def annotations_of(payload: Any) -> list[Any]:
    """Return the citations that a chunk carries: OpenAIResponses collects them there."""
    found = (getattr(payload, "additional_kwargs", None) or {}).get("annotations")
    return list(found) if isinstance(found, list) else []


_POSITIONS = ("start_index", "end_index", "index")


def moved(annotations: Sequence[Any], by: int) -> list[Any]:
    """Return copies of citations whose positions in the text are so many characters further on."""
    return [_moved(each, by) for each in annotations] if by else list(annotations)


def _moved(annotation: Any, by: int) -> Any:
    changes = {name: at + by for name in _POSITIONS if isinstance(at := read(annotation, name), int)}
    if isinstance(annotation, dict):
        return {**annotation, **changes}
    try:
        return copied(annotation, **changes) if changes else annotation
    except Exception:  # no model of pydantic's: its positions stay those in its own part
        return annotation
