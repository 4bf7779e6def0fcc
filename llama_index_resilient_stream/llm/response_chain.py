"""Keeps the chain of responses of OpenAIResponses(track_previous_responses=True) free of broken ones.

That class keeps the id of a response as soon as it is created, and chains the next request to it, whatever became of
it. So each stream is asked of a copy, and the id is handed to the user's LLM when the response is complete.
"""

from __future__ import annotations

from typing import Any, TypeVar

from llama_index.core.llms.llm import LLM

from ..compat.llama_index import copied
from ..recovery.finish_reasons import FinishMeaning
from .chunks import Read

L = TypeVar("L", bound=LLM)

_ID = "_previous_response_id"
_COMPLETE = (FinishMeaning.COMPLETE, FinishMeaning.TOOL)


def unchained(llm: L, asked: L) -> L:
    """Return whom to ask so that `llm` learns of no response: `asked`, or a copy of it where that is `llm` itself."""
    return copied(asked) if asked is llm and getattr(llm, "track_previous_responses", False) else asked


def keeping_response(read: Read, llm: Any, asked: Any) -> Read:
    """Return `read`, and at the end of a complete response hand its id over to `llm`.

    Args:
        read: reads a chunk.
        llm: the user's.
        asked: its copy that was asked.
    """
    if asked is llm or not getattr(llm, "track_previous_responses", False):
        return read

    def read_and_keep(response: Any) -> Any:
        chunk = read(response)
        if chunk.finish_reason is not None and chunk.finish_reason.kind in _COMPLETE:
            setattr(llm, _ID, getattr(asked, _ID, None))
        return chunk

    return read_and_keep
