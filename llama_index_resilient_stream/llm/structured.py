"""Structured output: a cut object is asked for again, from its beginning, and never repaired into a whole one.

LlamaIndex parses an object anew with every chunk, and of two objects keeps the one with more fields. After a restart
that may be the cut one. So each telling is parsed by itself: the objects may start over, the last one is right.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage

from ..errors import StreamInterruptedError, TruncatedStreamError
from ..report import StreamReport, StreamStatus


class Tellings:
    """The endpoints of an LLM for one structured answer. Each call after the first reads on where a restart began."""

    def __init__(self, llm: Any) -> None:
        self.over = False
        """Whether the last telling has been read."""
        self._llm = llm
        self._stream: Any = None
        self._first: Any = None

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Iterator[Any]:
        return self._tell(lambda: self._llm.stream_chat(messages, **kwargs))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[Any]:
        return self._tell(lambda: self._llm.stream_complete(prompt, formatted, **kwargs))

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncIterator[Any]:
        if self._stream is None:
            self._stream = await self._llm.astream_chat(messages, **kwargs)
        return self._atell()

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> AsyncIterator[Any]:
        if self._stream is None:
            self._stream = await self._llm.astream_complete(prompt, formatted, **kwargs)
        return self._atell()

    def close(self) -> None:
        """Whoever read the objects has left."""
        if self._stream is not None:
            self._stream.close()

    async def aclose(self) -> None:
        """The same, asynchronously."""
        if self._stream is not None:
            await self._stream.aclose()

    def _tell(self, opened: Callable[[], Any]) -> Iterator[Any]:
        if self._stream is None:
            self._stream = opened()
        attempt = self._begun()
        if self._first is not None:
            yield self._first
        for response in self._stream:
            if attempt and attempt != self._begun():
                self._first = response
                return
            attempt = self._begun()
            yield response
        self._end()

    async def _atell(self) -> AsyncIterator[Any]:
        attempt = self._begun()
        if self._first is not None:
            yield self._first
        async for response in self._stream:
            if attempt and attempt != self._begun():
                self._first = response
                return
            attempt = self._begun()
            yield response
        self._end()

    def _begun(self) -> int:
        return len(self._stream.report.attempts)

    def _end(self) -> None:
        self.over = True
        report: StreamReport = self._stream.report
        if report.status in (StreamStatus.LENGTH, StreamStatus.FILTERED):
            error = TruncatedStreamError(f"An object was cut by the finish reason {report.finish_reason!r}.")
            raise StreamInterruptedError(
                str(error), report=report, retryable=False, code=error.code, reason="cut"
            ) from error
