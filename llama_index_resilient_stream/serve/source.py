"""One answer while it is served: anything that LlamaIndex answers with, as parts on the event loop.

Whatever is synchronous runs in a thread of its own: making the response, and reading it. Whatever is asynchronous runs
in a task. Either way somebody can stop it from outside, and its end is stated.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.chat_engine.types import StreamingAgentChatResponse

from ..callbacks import ResumeEvent
from ..engines.engines import resilient
from ..engines.tokens import atokens, refuse_unreadable, tokens
from ..errors import ConfigurationError, StreamInterruptedError
from ..llm.call_log import CallLog
from ..report import StreamStatus
from ..streaming.threads import Channel, aside, joined

logger = logging.getLogger("llama_index_resilient_stream")

_STOP = 5.0  # seconds that stopping may take; what is left behind then is a daemon thread in a read nothing can break

_WRITE = 1.0  # seconds for what is to be written when the LLM has been stopped


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Recovery:
    """An attempt failed, and another one begins."""

    attempt: int
    """Counts from 1, so the first recovery is attempt 2."""
    reason: str
    """The kind of the fault, as in `FaultEvent.kind`."""


@dataclass(frozen=True, slots=True)
class End:
    """The last part of every answer."""

    status: str
    """A `StreamStatus`, or "lost" or "expired" of an answer that was to be resumed."""
    reason: str = ""
    retryable: bool = False


Part = Text | Recovery | End


@dataclass(frozen=True, slots=True)
class _Heard:
    """A recovery, as soon as it is told: the text before it may still be on its way through a chat engine's queue."""

    recovery: Recovery
    characters: int


class Answer:
    """Reads a source, part by part. Everything but `stop` belongs to one task.

    Args:
        source: a response of an engine or a stream of an LLM, synchronous or not; an awaitable of one; or a function
            that returns one, or an awaitable. A function is called when the answer is first asked for, in a thread
            unless it is a coroutine function: so a synchronous engine may be called in it.

    Raises ConfigurationError at once for a response that cannot be read, with the line that fixes it.
    """

    def __init__(self, source: Any) -> None:
        self._source = _checked(source)
        self._channel: Channel[Part | _Heard] | None = None
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._response: Any = None
        self._stopped = False
        self._over = False
        self._shown = 0  # characters
        self._heard_of: list[_Heard] = []

    def start(self) -> None:
        """Begin to read; the first `take` does it otherwise."""
        if self._channel is not None:
            return
        self._channel = Channel()
        if _is_asynchronous(self._source):
            self._task = asyncio.ensure_future(self._read_in_task(self._source, self._channel))
        else:
            self._read_aside(self._source, self._channel)

    async def take(self, seconds: float | None = None) -> list[Part]:
        """All parts that have come, at least one; nothing when `seconds` are over. The last is an `End`."""
        if self._over:
            raise RuntimeError("This answer has ended.")
        self.start()
        assert self._channel is not None, "start() makes it"
        until = None if seconds is None else asyncio.get_running_loop().time() + seconds
        while True:
            taken = await self._channel.take(seconds)
            parts = list(self._in_order(taken))
            if parts or not taken:
                break
            if until is not None:
                seconds = max(0.0, until - asyncio.get_running_loop().time())
        self._over = bool(parts) and isinstance(parts[-1], End)
        return parts

    def _in_order(self, taken: list[Part | _Heard]) -> Iterator[Part]:
        """A recovery comes after the text that was said before it."""
        for part in taken:
            if isinstance(part, _Heard):
                self._heard_of.append(part)
            elif isinstance(part, Text):
                yield part
                self._shown += len(part.text)
            due = [heard for heard in self._heard_of if heard.characters <= self._shown or isinstance(part, End)]
            for heard in due:
                self._heard_of.remove(heard)
                yield heard.recovery
            if isinstance(part, End):
                yield part

    async def stop(self) -> None:
        """Stop the LLM. The parts so far and an `End` can still be taken. Returns soon, whatever the LLM does."""
        self._stopped = True
        if self._response is None and self._task is not None:
            self._task.cancel()  # what is awaited is the whole answer, or what comes before it
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP):
                await _stop(self._response)

    async def leave(self) -> None:
        """Nobody reads any more: stop, and leave nothing behind."""
        if self._channel is None:
            _discard(self._source)
            return
        self._channel.leave()
        if self._running:
            await self.stop()
        for _ in range(2):  # what begins in a thread may go on in a task, and the other way round
            if self._task is not None and not self._task.done():
                if hasattr(self._response, "acancel"):  # it has been stopped, and may have a memory to write
                    await asyncio.wait([self._task], timeout=_WRITE)
                self._task.cancel()
                await asyncio.wait([self._task], timeout=_STOP)
            if self._thread is not None and not await joined(self._thread, _STOP):
                logger.warning("an answer that nobody reads goes on in a thread, which cannot be stopped from outside")
                return

    def _to_be_left(self, response: Any) -> bool:
        """Whether it was to stop, and is none that ends by itself when its LLM does."""
        if not self._stopped:
            return False
        calls = getattr(response, "calls", None)
        return not isinstance(calls, CallLog) or calls.report is None

    @property
    def _running(self) -> bool:
        in_thread = self._thread is not None and self._thread.is_alive()
        return in_thread or (self._task is not None and not self._task.done())

    def _heard(self, response: Any, channel: Channel[Part | _Heard]) -> Any:
        """Remember the response, to stop it and to be told of its recoveries."""
        refuse_unreadable(response)
        if isinstance(response, StreamingResponse | AsyncStreamingResponse | StreamingAgentChatResponse):
            response = resilient(response)
        calls = getattr(response, "calls", None)
        if isinstance(calls, CallLog):
            calls.at_recovery(partial(_tell_of_recovery, channel, calls))
        self._response = response
        return response

    # Synchronous sources

    def _read_aside(self, source: Any, channel: Channel[Part | _Heard]) -> None:
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()

        def go_on_in_task(response: Any) -> None:
            if channel.left:
                _discard(response)
                return
            self._task = loop.create_task(self._read_in_task(response, channel), context=context)

        def read() -> None:
            try:
                response = source() if callable(source) else source
                if _is_asynchronous(response):
                    loop.call_soon_threadsafe(go_on_in_task, response)
                    return
                self._read_in_thread(response, channel)
            except BaseException as error:
                channel.push(_end(self._response, error, stopped=self._stopped))

        self._thread = threading.Thread(target=context.copy().run, args=(read,), name="resilient-answer", daemon=True)
        self._thread.start()

    def _read_in_thread(self, response: Any, channel: Channel[Part | _Heard]) -> None:
        response = self._heard(response, channel)
        with contextlib.closing(tokens(response)) as texts:
            if self._stopped or channel.left:
                response.cancel() if hasattr(response, "cancel") else _discard(response)
            for text in texts:
                if self._to_be_left(response) or (text and not channel.put(Text(text))):
                    break
        if self._stopped or channel.left:
            _discard(response)  # whoever stopped it could not close what was just being read
        channel.push(_end(response, stopped=self._stopped))

    # Asynchronous sources

    async def _read_in_task(self, source: Any, channel: Channel[Part | _Heard]) -> None:
        try:
            response = source() if callable(source) else source
            response = await response if inspect.isawaitable(response) else response
            if not _is_asynchronous(response):  # core 0.10 has engines whose `aquery` returns such a thing
                self._read_aside(response, channel)
                return
            response = self._heard(response, channel)
            async with contextlib.aclosing(atokens(response)) as texts:
                if self._stopped:
                    await _stop(response)
                async for text in texts:
                    if self._to_be_left(response) or (text and not await channel.aput(Text(text))):
                        break
            if self._stopped or channel.left:
                await _stop(response)
                if not hasattr(response, "acancel") and (aclose := getattr(response, "aclose", None)) is not None:
                    await aclose()
            channel.push(_end(response, stopped=self._stopped))
        except BaseException as error:
            channel.push(_end(self._response, error, stopped=self._stopped))
            if isinstance(error, asyncio.CancelledError):
                raise


def _tell_of_recovery(channel: Channel[Part | _Heard], calls: CallLog, event: ResumeEvent) -> None:
    if event.attempt > 1:  # the first of `llm.resume(...)` goes on as well, and nothing has failed here
        report = calls.report
        shown = report is not None and report.stream_id == event.stream_id  # not what condenses a question
        channel.push(_Heard(Recovery(event.attempt, event.cause or ""), event.characters if shown else 0))


def _checked(source: Any) -> Any:
    if callable(source) or inspect.isawaitable(source):
        return source
    refuse_unreadable(source)
    return source


def _is_asynchronous(source: Any) -> bool:
    """Whether it is to be read, awaited or called on the event loop."""
    return (
        inspect.isawaitable(source)
        or inspect.iscoroutinefunction(source)
        or isinstance(source, AsyncStreamingResponse)
        or hasattr(source, "__aiter__")
        or (isinstance(source, StreamingAgentChatResponse) and source.achat_stream is not None)
    )


async def _stop(response: Any) -> None:
    if (acancel := getattr(response, "acancel", None)) is not None and _is_asynchronous(response):
        await acancel()
    elif (cancel := getattr(response, "cancel", None)) is not None:
        await aside(cancel)  # it may wait for a writer, and for a connection to close


def _discard(source: Any) -> None:
    """Close what was never read."""
    with contextlib.suppress(Exception):
        if inspect.iscoroutine(source):
            source.close()
        elif hasattr(source, "cancel"):
            source.cancel()
        elif hasattr(source, "close"):
            source.close()


def _end(response: Any, error: BaseException | None = None, *, stopped: bool) -> End:
    """How it ended, without a word of what went wrong inside: that is for the log."""
    report = getattr(response, "report", None)
    if error is None:
        status = StreamStatus.UNKNOWN if report is None else report.status
        if stopped and status in (StreamStatus.UNKNOWN, StreamStatus.STREAMING):
            status = StreamStatus.CANCELLED
        elif status is StreamStatus.STREAMING:
            status = StreamStatus.UNKNOWN
        if report is not None and status is StreamStatus.INTERRUPTED:
            return End(status, report.reason or "", report.retryable)
        return End(status)
    if stopped or isinstance(error, asyncio.CancelledError):
        return End(StreamStatus.CANCELLED)
    if isinstance(error, StreamInterruptedError):
        logger.warning("an answer was interrupted: %s", error)
        return End(StreamStatus.INTERRUPTED, error.reason, error.retryable)
    if isinstance(error, ConfigurationError):
        logger.error("an answer could not be read: %s", error)
    else:
        logger.error("an answer failed", exc_info=error)
    return End(StreamStatus.INTERRUPTED, "error")
