"""What some classes get wrong on healthy streams, made right.

LlamaIndex's readers, agents before all, take the message of the last chunk for the whole answer. MistralAI puts a block
for every chunk into it, each with the whole text so far; OpenAIResponses puts nothing into the last one of an answer
that hit its limit. On the way there its messages say what is new, which is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatResponse

from ..compat.llama_index import assistant_message, blocks_of, copied, is_text, message_text
from ..recovery.attributes import read


class MendedContent:
    """Sees to it that messages have the whole text so far in one block at the end, and never more than one block of it.

    Everything else that they had is kept.
    """

    def __init__(self) -> None:
        self._text = ""
        self._over = False

    def __call__(self, response: ChatResponse, text: str, *, over: bool) -> ChatResponse:
        """Return the chunk that brings this text, mended; the chunk itself where its message is right.

        Args:
            response: as the class gave it. It is not changed.
            text: what is new in it.
            over: whether it has the finish reason.
        """
        self._text += text
        self._over = self._over or over
        message = response.message
        if _says_it_once(blocks_of(message)) and (not self._over or message_text(message) == self._text):
            return response
        made = assistant_message(self._text, message)
        if hasattr(made, "blocks"):
            made.blocks = _without_older_thoughts(made.blocks)
        return copied(response, message=made)


def _says_it_once(blocks: Sequence[Any]) -> bool:
    return sum(map(is_text, blocks)) < 2 and len(_without_older_thoughts(blocks)) == len(blocks)


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
