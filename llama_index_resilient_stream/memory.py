"""What a chat memory keeps of an answer that did not end well: the text so far, under a mark."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from .calls import Calls
from .compat import message_text
from .messages import PARTIAL_KEY
from .report import StreamStatus

_UNFINISHED = (StreamStatus.INTERRUPTED, StreamStatus.CANCELLED)


class Memory:
    """The memory that an engine writes one answer to."""

    def __init__(self, memory: Any, calls: Calls, *, mark: bool) -> None:
        self._memory = memory
        self._calls = calls
        self._mark = mark

    def after_end(self) -> None:
        """Mark the partial answer that the engine wrote. May be called twice."""
        if self._is_unfinished and (messages := self._amended(list(self._memory.get_all()))) is not None:
            self._memory.set(messages)

    async def aafter_end(self) -> None:
        """The same in a loop: the newest memory class cannot be asked synchronously from there."""
        if not hasattr(self._memory, "aget_all"):  # core < 0.12.8
            self.after_end()
        elif self._is_unfinished and (messages := self._amended(list(await self._memory.aget_all()))) is not None:
            await self._memory.aset(messages)

    @property
    def _is_unfinished(self) -> bool:
        report = self._calls.report
        return self._memory is not None and report is not None and report.status in _UNFINISHED

    def _amended(self, messages: list[ChatMessage]) -> list[ChatMessage] | None:
        if not messages or messages[-1].role != MessageRole.ASSISTANT:
            return None
        last = messages[-1]
        if not message_text(last).strip() and not last.additional_kwargs.get("tool_calls"):
            return messages[:-1]  # the engine writes down an empty answer too
        if not self._mark or PARTIAL_KEY in last.additional_kwargs:
            return None
        report = self._calls.report
        last.additional_kwargs[PARTIAL_KEY] = str(report.status) if report is not None else ""
        return messages
