"""What a chat memory keeps of an answer that did not end well: the text so far, under a mark."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from ..compat.llama_index import copied, message_text
from ..llm.call_log import CallLog
from ..llm.chunks import PARTIAL_KEY, UNVERIFIED_KEY
from ..report import StreamStatus

_UNFINISHED = (StreamStatus.INTERRUPTED, StreamStatus.CANCELLED)


class MarkingMemory:
    """Stands in front of a chat memory while an engine writes one answer, and marks it if it is not whole.

    Marking it on its way in is the only way that needs neither a second look at the memory, which other answers write
    to as well, nor anything of a memory class but what the engine itself uses.
    """

    def __init__(self, memory: Any, calls: CallLog, *, mark: bool) -> None:
        self._memory = memory
        self._calls = calls
        self._mark = mark

    def put(self, message: ChatMessage) -> None:
        if (kept := self._kept(message)) is not None:
            self._memory.put(kept)

    async def aput(self, message: ChatMessage) -> None:
        if (kept := self._kept(message)) is not None:
            await self._memory.aput(kept)

    def _kept(self, message: ChatMessage) -> ChatMessage | None:
        """The message as it is to be written. None: not at all."""
        report = self._calls.report
        if message.role != MessageRole.ASSISTANT or report is None:
            return message
        if report.status not in _UNFINISHED:
            return message if report.verified or not self._mark else _marked(message, UNVERIFIED_KEY, "true")
        if not message_text(message).strip() and not message.additional_kwargs.get("tool_calls"):
            return None  # the engine writes down an empty answer too
        if not self._mark:
            return message
        return _marked(message, PARTIAL_KEY, str(report.status))

    def __getattr__(self, name: str) -> Any:
        if name == "_memory":
            raise AttributeError(name)
        return getattr(self._memory, name)


def _marked(message: ChatMessage, key: str, value: str) -> ChatMessage:
    return copied(message, additional_kwargs={**message.additional_kwargs, key: value})
