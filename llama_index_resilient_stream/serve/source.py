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
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from functools import partial
from typing import Any

from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.chat_engine.types import StreamingAgentChatResponse

from ..callbacks import ResumeEvent
from ..engines.engines import resilient
from ..engines.tokens import atokens, refuse_unreadable, tokens
from ..llm.call_log import AROUND, CallLog
from ..report import Joint, StreamReport
from ..streaming.scope import Scope, call_on
from ..streaming.threads import Channel, aside, joined, read_iterator, start_thread
from .endings import end_of
from .items import ItemReader, is_answer, sources_of, usage_of
from .ordering import Early, PartOrder
from .parts import EndPart, Part, RecoveryPart, ResetPart, ThinkingPart
from .workflows import cancel_run, events_of, handler_behind, is_handler, needs_a_loop

logger = logging.getLogger("llama_index_resilient_stream")

_STOP = 5.0  # seconds that stopping may take; what is left behind then is a daemon thread in a read nothing can break

_WRITE = 1.0  # seconds for what is to be written when the LLM has been stopped

_RESPONSES = StreamingResponse | AsyncStreamingResponse | StreamingAgentChatResponse

PartChannel = Channel[Part | Early]


class SourceReader:
    """Reads a source, part by part. Everything but `stop` belongs to one task.

        reader = SourceReader(lambda: engine.query("..."))
        while not reader.over:
            for part in await reader.take():
                ...
        await reader.leave()

    Args:
        source: a response of an engine, a stream of an LLM, a run of an agent or a workflow, synchronous or not; an
            awaitable of one; or a function that returns one, or an awaitable. A function is called when the answer is
            first asked for, in a thread unless it is a coroutine function: so a synchronous engine may be called in it.
            A generator may yield text, parts, and whole answers, which are read in their place.

    Raises:
        ConfigurationError: at once, for a response that cannot be read, with the line that fixes it.
    """

    def __init__(self, source: Any) -> None:
        self._source = _checked(source)
        self._scope = Scope()  # cancelled when nobody takes parts any more
        self._asking = Scope(self._scope)  # cancelled also when the LLM shall stop, and the rest is taken
        self._channel: PartChannel | None = None
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._response: Any = None
        self._run = _RunListener()
        self._reports: list[StreamReport] = []  # of the answers that are over
        self._joints_told: set[tuple[str, int]] = set()
        self._order = PartOrder(self._joint_of)

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
            parts = list(self._order.sort(taken))
            if parts or not taken:
                break
            if until is not None:
                seconds = max(0.0, until - asyncio.get_running_loop().time())
        if parts and isinstance(end := parts[-1], EndPart):
            self._scope.finish(end.status)
        return parts

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
            await _adiscard(self._source)
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

    def _goes_on(self) -> bool:
        """Whether to read another item: not of what was stopped, unless it ends by itself when its LLM does."""
        if not self._asking.cancelled:
            return True
        calls = getattr(self._response, "calls", None)
        return isinstance(calls, CallLog) and calls.report is not None

    def _joint_of(self, attempt: int) -> Joint | None:
        """That of a continuation, each once: the calls of a run count their attempts each for itself."""
        for report in self._run.reports or [each for each in [self._report] if each is not None]:
            for joint in list(report.joints):
                if joint.attempt == attempt and (report.stream_id, joint.position) not in self._joints_told:
                    self._joints_told.add((report.stream_id, joint.position))
                    return joint
        return None

    @property
    def _report(self) -> StreamReport | None:
        """That of the call that writes the answer, or wrote it; None where nobody knows."""
        if is_handler(self._response):
            return self._reports[-1] if self._reports else self._run.report
        found = getattr(self._response, "report", None)
        if isinstance(found, StreamReport):
            return found
        return self._reports[-1] if self._reports else None

    # What is read

    def _adopt(self, response: Any, channel: PartChannel) -> Any:
        """Take over a response: what stops this reader stops it, and its recoveries become parts."""
        if (handler := handler_behind(response)) is not None:
            response = handler
        if is_handler(response):
            self._run.listen(channel)
            self._response = response
            return response
        refuse_unreadable(response)
        if isinstance(response, _RESPONSES):
            response = resilient(response)
        calls = getattr(response, "calls", None)
        self._response = response
        if isinstance(calls, CallLog):
            _listen(calls, channel, to_thoughts=isinstance(response, _RESPONSES))
            self._asking.adopt(calls.scope)
        return response

    def _over(self, response: Any, items: ItemReader, around: Any, *, told: bool) -> list[Part]:
        """What is told at the end of a response, after which that around it goes on."""
        if isinstance(report := getattr(response, "report", None), StreamReport):
            self._reports.append(report)
        elif is_handler(response) and not is_answer(items.result):
            # Nobody listened where it had begun before.
            self._reports.append(self._run.report or StreamReport(status=items.status))
        if around is not None:
            self._response = around
        return [*items.rest(), *([] if told else sources_of(response))]

    def _last(self, error: BaseException | None = None) -> list[Part]:
        """What every answer ends with."""
        report = self._report
        end = end_of(report, error, stopped=self._asking.cancelled)
        known = {id(each): each for each in [*self._reports, *([report] if report is not None else [])]}
        with_calls = {id(each): each for report in known.values() for each in (report, *report.calls)}
        return [*usage_of(self._run.reports or with_calls.values()), end]

    # Synchronous sources

    def _read_in_thread(self, source: Any, channel: PartChannel) -> None:
        """Read in a thread: making the response, and every token of it."""
        loop, go_on = asyncio.get_running_loop(), partial(self._go_on_in_task, contextvars.copy_context(), channel)
        parts = partial(self._parts, source, channel, lambda response: call_on(loop, partial(go_on, response)))
        self._thread = start_thread("resilient-answer", read_iterator, parts, _PartSink(channel))

    def _go_on_in_task(self, context: contextvars.Context, channel: PartChannel, response: Any) -> None:
        if channel.scope.cancelled:
            _discard(response)
        else:
            self._read_in_task(response, channel, context)

    def _parts(
        self, source: Any, channel: PartChannel, go_on_in_task: Callable[[Any], object]
    ) -> Iterator[Part | Early]:
        try:
            response = _called_in_thread(source)
            if _is_asynchronous(response):
                go_on_in_task(response)
                return
            yield from self._parts_of(response, channel)
            if self._asking.cancelled:
                _discard(self._response)  # whoever stopped it could not close what was just being read
            yield from self._last()
        except GeneratorExit:
            _discard(self._response)
            raise
        except BaseException as error:
            yield from self._last(error)

    def _parts_of(self, response: Any, channel: PartChannel) -> Iterator[Part | Early]:
        """Of one answer, and of those that a generator yields in its place."""
        around, response = self._response, self._adopt(response, channel)
        if self._asking.cancelled:
            _discard(response)
        yield from (sources := sources_of(response))
        reader = ItemReader()
        with contextlib.closing(_items(response)) as items:
            for item in items:
                if not self._goes_on():
                    break
                yield from self._parts_of(item, channel) if is_answer(item) else reader.parts(item)
        yield from self._over(response, reader, around, told=bool(sources))

    # Asynchronous sources

    def _read_in_task(self, source: Any, channel: PartChannel, context: contextvars.Context | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._aread(source, channel), context=context)

    async def _aread(self, source: Any, channel: PartChannel) -> None:
        AROUND.set(self._run)  # for streams that begin in a run: they are told of while it lasts
        try:
            response = source.call() if isinstance(source, _OnLoop) else source() if callable(source) else source
            if inspect.isawaitable(response) and not is_handler(response):
                response = await response
            if not _is_asynchronous(response):  # core 0.10 has engines whose `aquery` returns such a thing
                self._read_in_thread(response, channel)
                return
            await self._aread_answer(response, channel)
            if self._asking.cancelled:
                await _stop(self._response)
                await _close(self._response)
            self._push(channel, self._last())
        except BaseException as error:
            self._push(channel, self._last(error))
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _aread_answer(self, response: Any, channel: PartChannel) -> None:
        """One answer, and those that a generator yields in its place."""
        around, response = self._response, self._adopt(response, channel)
        if self._asking.cancelled:
            await _stop(response)
        self._push(channel, sources := sources_of(response))
        reader = ItemReader()
        async with contextlib.aclosing(_aitems(response)) as items:
            async for item in items:
                if not self._goes_on() or not await self._aput(item, reader, channel):
                    break
        if reader.result is not None and is_answer(reader.result):
            await self._aread_answer(reader.result, channel)
        self._push(channel, self._over(response, reader, around, told=bool(sources)))

    async def _aput(self, item: Any, reader: ItemReader, channel: PartChannel) -> bool:
        """False: nobody reads any more."""
        if is_answer(item):
            await self._aread_answer(item, channel)
            return not channel.scope.cancelled
        for part in reader.parts(item):
            if not channel.offer(part) and not await channel.aput(part):
                return False
        return True

    def _push(self, channel: PartChannel, parts: list[Part]) -> None:
        for part in parts:
            channel.push(part)


class _OnLoop:
    """A function that has to be called on the event loop."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.call = function


class _RunListener:
    """Is told of the LLM streams that a run of an agent begins, which nobody can bind."""

    def __init__(self) -> None:
        self.reports: list[StreamReport] = []
        self._channel: PartChannel | None = None

    @property
    def report(self) -> StreamReport | None:
        """That of the last call."""
        return self.reports[-1] if self.reports else None

    def listen(self, channel: PartChannel) -> None:
        """From now on: this answer is a run."""
        self._channel = channel

    def on_resume(self, event: ResumeEvent) -> None:
        if self._channel is not None and event.attempt > 1:
            self._channel.push(Early(RecoveryPart(event.attempt, event.cause), event.characters))

    def begins(self, report: StreamReport) -> None:
        if self._channel is not None:
            self.reports.append(report)


class _PartSink:
    """Puts parts into a channel; the end is a part itself."""

    def __init__(self, channel: PartChannel) -> None:
        self.put = channel.put

    def end(self, error: BaseException | None) -> None:
        pass

    def take_over(self, source: Any) -> bool:
        return False


def _listen(calls: CallLog, channel: PartChannel, *, to_thoughts: bool) -> None:
    """What happens to the calls becomes parts. An LLM's own stream has its thoughts and resets in its chunks."""
    calls.at_recovery(partial(_announce_recovery, channel, calls))
    if to_thoughts:
        calls.at_thinking(lambda thought, characters: channel.push(Early(ThinkingPart(thought), characters)))
        calls.at_reset(lambda characters: channel.push(Early(ResetPart(), characters)))


def _announce_recovery(channel: PartChannel, calls: CallLog, event: ResumeEvent) -> None:
    if event.attempt > 1:  # the first of `llm.resume(...)` goes on as well, and nothing has failed here
        report = calls.report
        shown = report is not None and report.stream_id == event.stream_id  # not what condenses a question
        channel.push(Early(RecoveryPart(event.attempt, event.cause), event.characters if shown else 0))


def _checked(source: Any) -> Any:
    if callable(source) or inspect.isawaitable(source):
        return source
    refuse_unreadable(source)
    return source


def _called_in_thread(source: Any) -> Any:
    """What a function returns. One that begins a run is to be called again, on the loop."""
    if not callable(source):
        return source
    try:
        return source()
    except RuntimeError as error:
        if not needs_a_loop(error):
            raise
    return _OnLoop(source)


def _is_asynchronous(source: Any) -> bool:
    """Whether it is to be read, awaited or called on the event loop."""
    return (
        isinstance(source, AsyncStreamingResponse | _OnLoop)
        or inspect.isawaitable(source)
        or inspect.iscoroutinefunction(source)
        or hasattr(source, "__aiter__")
        or (isinstance(source, StreamingAgentChatResponse) and source.achat_stream is not None)
    )


def _items(response: Any) -> Generator[Any, None, None]:
    """Its tokens; of a generator or an LLM's own stream, what it gives. Closing it closes the response."""
    if not isinstance(response, Iterator):
        return tokens(response)
    opened: Any = response
    closable: Generator[Any, None, None] = opened if hasattr(opened, "close") else (item for item in opened)
    return closable


def _aitems(response: Any) -> AsyncGenerator[Any, None]:
    if is_handler(response):
        return events_of(response)
    if isinstance(response, _RESPONSES) or not hasattr(response, "__aiter__"):
        return atokens(response)
    opened: Any = aiter(response)
    closable: AsyncGenerator[Any, None] = opened if hasattr(opened, "aclose") else _each(opened)
    return closable


async def _each(items: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    async for item in items:
        yield item


async def _stop(response: Any) -> None:
    if is_handler(response):
        await cancel_run(response)
    elif (acancel := getattr(response, "acancel", None)) is not None and _is_asynchronous(response):
        await acancel()
    elif (cancel := getattr(response, "cancel", None)) is not None:
        await aside(cancel)  # it may wait for a writer, and for a connection to close


async def _close(response: Any) -> None:
    """Close what has no other way to be stopped."""
    if not hasattr(response, "acancel") and (aclose := getattr(response, "aclose", None)) is not None:
        await aclose()


async def _adiscard(source: Any) -> None:
    """Close what was never read."""
    source = handler_behind(source) or source
    if is_handler(source):
        await cancel_run(source)
    else:
        _discard(source)


def _discard(source: Any) -> None:
    """Close what was never read, from any thread."""
    with contextlib.suppress(Exception):
        if inspect.iscoroutine(source):
            source.close()
        elif hasattr(source, "cancel"):
            source.cancel()
        elif hasattr(source, "close"):
            source.close()
