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
from collections.abc import Callable, Iterator
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
from ..report import StreamReport, StreamStatus
from ..streaming.scope import Scope, call_on
from ..streaming.threads import Channel, aside, joined, read_iterator, start_thread
from .parts import EndPart, EndReason, Part, RecoveryPart, TextPart

logger = logging.getLogger("llama_index_resilient_stream")

_STOP = 5.0  # seconds that stopping may take; what is left behind then is a daemon thread in a read nothing can break

_WRITE = 1.0  # seconds for what is to be written when the LLM has been stopped


@dataclass(frozen=True, slots=True)
class _EarlyRecovery:
    """A recovery, as soon as it begins: the text before it may still be on its way through a chat engine's queue."""

    part: RecoveryPart
    characters: int
    """How many characters come before it."""


class SourceReader:
    """Reads a source, part by part. Everything but `stop` belongs to one task.

        reader = SourceReader(lambda: engine.query("..."))
        while not reader.over:
            for part in await reader.take():
                ...
        await reader.leave()

    Args:
        source: a response of an engine or a stream of an LLM, synchronous or not; an awaitable of one; or a function
            that returns one, or an awaitable. A function is called when the answer is first asked for, in a thread
            unless it is a coroutine function: so a synchronous engine may be called in it.

    Raises:
        ConfigurationError: at once, for a response that cannot be read, with the line that fixes it.
    """

    def __init__(self, source: Any) -> None:
        self._source = _checked(source)
        self._scope = Scope()  # cancelled when nobody takes parts any more
        self._asking = Scope(self._scope)  # cancelled also when the LLM shall stop, and the rest is taken
        self._channel: Channel[Part | _EarlyRecovery] | None = None
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._response: Any = None
        self._shown = 0  # characters
        self._early: list[_EarlyRecovery] = []

    @property
    def over(self) -> bool:
        """Whether the last part has been taken."""
        return self._scope.over

    def start(self) -> None:
        """Begin to read; the first `take` does it otherwise."""
        if self._channel is not None:
            return
        self._channel = Channel(scope=Scope(self._scope))
        if _is_asynchronous(self._source):
            self._read_in_task(self._source, self._channel)
        else:
            self._read_in_thread(self._source, self._channel)

    async def take(self, seconds: float | None = None) -> list[Part]:
        """Take all parts that have come, at least one; nothing when `seconds` are over. The last is an `EndPart`."""
        if self.over:
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
        if parts and isinstance(end := parts[-1], EndPart):
            self._scope.finish(end.status)
        return parts

    def _in_order(self, taken: list[Part | _EarlyRecovery]) -> Iterator[Part]:
        """A recovery comes after the text that was said before it."""
        for part in taken:
            if isinstance(part, _EarlyRecovery):
                self._early.append(part)
            elif isinstance(part, TextPart):
                yield part
                self._shown += len(part.text)
            due = [early for early in self._early if early.characters <= self._shown or isinstance(part, EndPart)]
            for early in due:
                self._early.remove(early)
                yield early.part
            if isinstance(part, EndPart):
                yield part

    async def stop(self) -> None:
        """Stop the LLM. The parts so far and an `EndPart` can still be taken. Returns soon, whatever the LLM does."""
        self._asking.cancel()
        if self._response is None and self._task is not None:
            self._task.cancel()  # what is awaited is the whole answer, or what comes before it
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP):
                await _stop(self._response)

    async def leave(self) -> None:
        """Nobody reads any more: stop, and leave nothing behind."""
        if self._channel is None:
            self._scope.cancel()
            _discard(self._source)
            return
        self._channel.leave()
        self._scope.cancel()
        if self._running:
            await self.stop()
        for _ in range(2):  # what begins in a thread may go on in a task, and the other way round
            if self._task is not None and not self._task.done():
                await self._end_task(self._task)
            if self._thread is not None and not await joined(self._thread, _STOP):
                logger.warning("an answer that nobody reads goes on in a thread, which cannot be stopped from outside")
                return

    async def _end_task(self, task: asyncio.Task[None]) -> None:
        if hasattr(self._response, "acancel"):  # it has been stopped, and may have a memory to write
            await asyncio.wait([task], timeout=_WRITE)
        task.cancel()
        await asyncio.wait([task], timeout=_STOP)

    @property
    def _running(self) -> bool:
        in_thread = self._thread is not None and self._thread.is_alive()
        return in_thread or (self._task is not None and not self._task.done())

    def _goes_on(self, response: Any) -> bool:
        """Whether to read another token: not of what was stopped, unless it ends by itself when its LLM does."""
        if not self._asking.cancelled:
            return True
        calls = getattr(response, "calls", None)
        return isinstance(calls, CallLog) and calls.report is not None

    def _adopt(self, response: Any, channel: Channel[Part | _EarlyRecovery]) -> Any:
        """Take over a response: what stops this reader stops it, and its recoveries become parts."""
        refuse_unreadable(response)
        if isinstance(response, StreamingResponse | AsyncStreamingResponse | StreamingAgentChatResponse):
            response = resilient(response)
        calls = getattr(response, "calls", None)
        self._response = response
        if isinstance(calls, CallLog):
            calls.at_recovery(partial(_announce_recovery, channel, calls))
            self._asking.adopt(calls.scope)
        return response

    def _end(self, error: BaseException | None = None) -> EndPart:
        return _end(self._response, error, stopped=self._asking.cancelled)

    # Synchronous sources

    def _read_in_thread(self, source: Any, channel: Channel[Part | _EarlyRecovery]) -> None:
        """Read in a thread: making the response, and every token of it."""
        loop, go_on = asyncio.get_running_loop(), partial(self._go_on_in_task, contextvars.copy_context(), channel)
        parts = partial(self._parts, source, channel, lambda response: call_on(loop, partial(go_on, response)))
        self._thread = start_thread("resilient-answer", read_iterator, parts, _PartSink(channel))

    def _go_on_in_task(self, context: contextvars.Context, channel: Channel[Any], response: Any) -> None:
        if channel.scope.cancelled:
            _discard(response)
        else:
            self._read_in_task(response, channel, context)

    def _parts(
        self,
        source: Any,
        channel: Channel[Part | _EarlyRecovery],
        go_on_in_task: Callable[[Any], object],
    ) -> Iterator[Part | _EarlyRecovery]:
        try:
            response = source() if callable(source) else source
            if _is_asynchronous(response):
                go_on_in_task(response)
                return
            response = self._adopt(response, channel)
            if self._asking.cancelled:
                _discard(response)
            with contextlib.closing(tokens(response)) as texts:
                for text in texts:
                    if not self._goes_on(response):
                        break
                    if text:
                        yield TextPart(text)
            if self._asking.cancelled:
                _discard(response)  # whoever stopped it could not close what was just being read
            yield self._end()
        except GeneratorExit:
            _discard(self._response)
            raise
        except BaseException as error:
            yield self._end(error)

    # Asynchronous sources

    def _read_in_task(
        self, source: Any, channel: Channel[Part | _EarlyRecovery], context: contextvars.Context | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._aread(source, channel), context=context)

    async def _aread(self, source: Any, channel: Channel[Part | _EarlyRecovery]) -> None:
        try:
            response = source() if callable(source) else source
            response = await response if inspect.isawaitable(response) else response
            if not _is_asynchronous(response):  # core 0.10 has engines whose `aquery` returns such a thing
                self._read_in_thread(response, channel)
                return
            response = self._adopt(response, channel)
            if self._asking.cancelled:
                await _stop(response)
            await self._aread_tokens(response, channel)
            if self._asking.cancelled:
                await _stop(response)
                await _close(response)
            channel.push(self._end())
        except BaseException as error:
            channel.push(self._end(error))
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _aread_tokens(self, response: Any, channel: Channel[Part | _EarlyRecovery]) -> None:
        async with contextlib.aclosing(atokens(response)) as texts:
            async for text in texts:
                if not self._goes_on(response) or (text and not await channel.aput(TextPart(text))):
                    break


class _PartSink:
    """Puts parts into a channel; the end is a part itself."""

    def __init__(self, channel: Channel[Part | _EarlyRecovery]) -> None:
        self.put = channel.put

    def end(self, error: BaseException | None) -> None:
        pass

    def take_over(self, source: Any) -> bool:
        return False


def _announce_recovery(channel: Channel[Part | _EarlyRecovery], calls: CallLog, event: ResumeEvent) -> None:
    if event.attempt > 1:  # the first of `llm.resume(...)` goes on as well, and nothing has failed here
        report = calls.report
        shown = report is not None and report.stream_id == event.stream_id  # not what condenses a question
        channel.push(_EarlyRecovery(RecoveryPart(event.attempt, event.cause), event.characters if shown else 0))


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


async def _close(response: Any) -> None:
    """Close what has no other way to be stopped."""
    if not hasattr(response, "acancel") and (aclose := getattr(response, "aclose", None)) is not None:
        await aclose()


def _discard(source: Any) -> None:
    """Close what was never read."""
    with contextlib.suppress(Exception):
        if inspect.iscoroutine(source):
            source.close()
        elif hasattr(source, "cancel"):
            source.cancel()
        elif hasattr(source, "close"):
            source.close()


def _end(response: Any, error: BaseException | None, *, stopped: bool) -> EndPart:
    """How it ended, without a word of what went wrong inside: that is for the log."""
    if error is None:
        return _end_as_reported(getattr(response, "report", None), stopped=stopped)
    if stopped or isinstance(error, asyncio.CancelledError):
        return EndPart(StreamStatus.CANCELLED)
    if isinstance(error, StreamInterruptedError):
        logger.warning("an answer was interrupted: %s", error)
        return EndPart(StreamStatus.INTERRUPTED, error.reason, error.retryable)
    if isinstance(error, ConfigurationError):
        logger.error("an answer could not be read: %s", error)
    else:
        logger.error("an answer failed", exc_info=error)
    return EndPart(StreamStatus.INTERRUPTED, EndReason.ERROR)


def _end_as_reported(report: StreamReport | None, *, stopped: bool) -> EndPart:
    status = StreamStatus.UNKNOWN if report is None else report.status
    if stopped and status in (StreamStatus.UNKNOWN, StreamStatus.STREAMING):
        status = StreamStatus.CANCELLED
    elif status is StreamStatus.STREAMING:
        status = StreamStatus.UNKNOWN
    if report is not None and status is StreamStatus.INTERRUPTED:
        return EndPart(status, report.reason, report.retryable)
    return EndPart(status)
