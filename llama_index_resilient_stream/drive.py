"""The two drivers of the state machine: the only code that opens, waits, sleeps and closes.

The synchronous one and the asynchronous one stand side by side, same names, same order.

1. `yield` to the consumer stands outside every `try` that turns exceptions into events: the consumer's own bug is not
   a fault of the stream.
2. `Exception` is caught, `BaseException` never: leaving is no fault.
3. No timeout and no cancel scope is held across a `yield`; time counts only while we wait for the provider.
4. A wait for a blocked synchronous read must be able to end. The read happens in a daemon thread, in lock-step: the
   thread reads one event when asked for one, so nothing is read ahead, and when the reader leaves between two tokens,
   as readers do, the upstream connection is closed at once. A read that blocks is broken where the socket is in reach
   (`upstream.py`); where it is not, the thread stays behind until the client's own timeout, knows the wrapped LLM and
   nothing of ours, and the report names it. With both watchdogs switched off there is no thread, and `cancel()` takes
   effect at the next token.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from .errors import StreamTimeoutError
from .recovery.events import Chunk, Ended, Request
from .recovery.machine import Recovery
from .report import StreamReport
from .upstream import Upstream

T = TypeVar("T")

Open = Callable[[Upstream, Request], Iterator[Chunk]]
AsyncOpen = Callable[[Upstream, Request], AsyncIterator[Chunk]]

_GRACE = 0.05  # seconds that a thread gets to leave a read before the report calls it left behind
_JOIN = 2.0  # seconds that closing an upstream may take that nobody reads, or whose read was broken

logger = logging.getLogger(__name__)


class Observer(Protocol):
    """Is told what happens. Without `watches_tokens` it hears of tokens only when they are a reset."""

    watches_tokens: bool

    def token(self, chunk: Chunk, recovery: Recovery) -> None: ...
    def fault(self, recovery: Recovery) -> None: ...
    def resume(self, recovery: Recovery, request: Request) -> None: ...
    def end(self, recovery: Recovery) -> None: ...


class AsyncObserver(Protocol):
    """The same for asynchronous streams."""

    watches_tokens: bool

    async def token(self, chunk: Chunk, recovery: Recovery) -> None: ...
    async def fault(self, recovery: Recovery) -> None: ...
    async def resume(self, recovery: Recovery, request: Request) -> None: ...
    async def end(self, recovery: Recovery) -> None: ...


def _time_left(recovery: Recovery, spent: float, watched: bool, deadline: float | None) -> float | None:
    """Seconds that the next wait may last. None: as long as it takes."""
    left = recovery.limit - spent if watched and recovery.limit is not None else None
    if deadline is not None:
        until_deadline = deadline - recovery.clock()
        left = until_deadline if left is None else min(left, until_deadline)
    return left


def _timed_out(recovery: Recovery) -> Ended:
    deadline = recovery.deadline_at
    if deadline is not None and recovery.clock() >= deadline:
        what = f"The deadline of {recovery.policy.deadline:g} s passed."
    elif recovery.report.attempts[-1].first_token is None:
        what = f"No first token within {recovery.limit:g} s."
    else:
        what = f"No progress for {recovery.limit:g} s."
    return Ended(StreamTimeoutError(what))


# ---------------------------------------------------------------- synchronous


class _Cancelled(BaseException):
    """Ends a wait that nobody waits for any more. Never leaves this module."""


class Halt:
    """Lets any thread stop a stream, also one that waits."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._answers: queue.SimpleQueue[object] | None = None

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()
        if (answers := self._answers) is not None:
            answers.put(_Cancelled())

    def watch(self, answers: queue.SimpleQueue[object] | None) -> None:
        """Whoever waits for these answers is to be woken too."""
        self._answers = answers

    def sleep(self, seconds: float) -> None:
        """Sleep, or less if stopped."""
        self._event.wait(seconds)


class _Direct:
    """An attempt read in the caller's own thread."""

    left_thread = False

    def __init__(self, open_stream: Callable[[], Iterator[Chunk]]) -> None:
        self._open = open_stream
        self._chunks: Iterator[Chunk] | None = None

    def next(self, timeout: float | None) -> Chunk | Ended | None:
        """One event; None when `timeout` is over before the wait began."""
        if timeout is not None and timeout <= 0:
            return None
        try:
            if self._chunks is None:
                self._chunks = self._open()
            return next(self._chunks)
        except StopIteration:
            return Ended()
        except Exception as error:
            return Ended(error)

    def close(self) -> None:
        if self._chunks is not None:
            _close(self._chunks)


class _Watched:
    """An attempt read by a thread of its own, so that a wait for it can end."""

    def __init__(self, open_stream: Callable[[], Iterator[Chunk]], upstream: Upstream, halt: Halt) -> None:
        self._upstream = upstream
        self._asks: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._reading = False
        self.left_thread = False
        halt.watch(self._answers)
        # A copied context: spans and tags of the caller's belong to the wrapped LLM's events too.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(_read, open_stream, self._asks, self._answers),
            name="resilient-stream-reader",
            daemon=True,
        )
        self._thread.start()

    def next(self, timeout: float | None) -> Chunk | Ended | None:
        """One event; None when `timeout` is over."""
        if timeout is not None and timeout <= 0:
            return None
        self._reading = True
        self._asks.put(True)
        try:
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(answer, BaseException):
            raise answer
        self._reading = False
        return answer  # type: ignore[no-any-return]  # the queue is shared with the halt

    def close(self) -> None:
        self._asks.put(False)
        if self._reading:
            self._upstream.break_read()
        if threading.current_thread() is not self._thread:
            stuck = self._reading and not self._upstream.can_break
            self._thread.join(_GRACE if stuck else _JOIN)
        self.left_thread = self._thread.is_alive()


def _read(
    open_stream: Callable[[], Iterator[Chunk]], asks: queue.SimpleQueue[bool], answers: queue.SimpleQueue[Any]
) -> None:
    """Read one event whenever asked. Module level on purpose: a bound method would keep its stream alive for ever."""
    chunks: Iterator[Chunk] | None = None
    event: object = None
    while asks.get():
        try:
            if chunks is None:
                chunks = open_stream()
            event = next(chunks)
        except StopIteration:
            event = Ended()
        except Exception as error:
            event = Ended(error)
        except BaseException as error:
            event = error
        answers.put(event)
        event = None  # an idle thread keeps nothing alive
    if chunks is not None:
        _close(chunks)


def _close(chunks: Iterator[Chunk]) -> None:
    try:
        if (close := getattr(chunks, "close", None)) is not None:
            close()
    except Exception as error:
        logger.debug("closing the upstream stream failed: %s", type(error).__name__)


def drive(
    open_stream: Open,
    recovery: Recovery,
    *,
    observer: Observer,
    halt: Halt,
    sleep: Callable[[float], None] | None = None,
    watched: bool = True,
) -> Generator[Chunk, None, None]:
    """Ask, show, and ask again, until the machine says that it is over."""
    sleep = sleep or halt.sleep
    policy = recovery.policy
    in_thread = watched and (policy.idle_timeout is not None or recovery.model.first_token_timeout is not None)
    try:
        while not halt.is_set:
            request = recovery.request
            if request.strategy != "first":
                observer.resume(recovery, request)
            upstream = Upstream()
            opened = partial(open_stream, upstream, request)
            attempt = _Watched(opened, upstream, halt) if in_thread else _Direct(opened)
            try:
                yield from _show(attempt, recovery, observer, halt, watched)
            finally:
                attempt.close()
                recovery.report.attempts[-1].left_thread = attempt.left_thread
            if halt.is_set:
                return
            if recovery.fault is not None:
                observer.fault(recovery)
            delay = recovery.next_delay()
            if delay is None:
                return
            if delay:
                sleep(delay)
    except _Cancelled:
        return
    finally:
        recovery.cancel()
        observer.end(recovery)


def _show(
    attempt: _Watched | _Direct, recovery: Recovery, observer: Observer, halt: Halt, watched: bool
) -> Generator[Chunk, None, None]:
    clock, receive, tell = recovery.clock, recovery.receive, observer.watches_tokens
    deadline = recovery.deadline_at
    spent = 0.0
    while not halt.is_set:
        began = clock()
        event = attempt.next(_time_left(recovery, spent, watched, deadline)) or _timed_out(recovery)
        # Only progress feeds the watchdog, and only waiting for the provider tires it.
        over = isinstance(event, Ended)
        spent = 0.0 if over or event.progress else spent + clock() - began  # type: ignore[union-attr]
        for chunk in receive(event):
            if tell or chunk.reset:
                observer.token(chunk, recovery)
            yield chunk
        if over:
            return


class ResilientStream(Generator[T, None, None], Generic[T]):
    """What `stream_chat` and `stream_complete` return: a generator with two more names, `report` and `cancel()`."""

    def __init__(
        self, chunks: Generator[Chunk, None, None], recovery: Recovery, show: Callable[[Chunk], T], halt: Halt
    ):
        self._recovery = recovery
        self._halt = halt
        self._items = _presented(chunks, show)

    @property
    def report(self) -> StreamReport:
        """What happened so far; the whole story once the stream is over."""
        return self._recovery.report

    def cancel(self) -> None:
        """Stop, from any thread: no retry, the upstream connection is closed, a waiting reader is released."""
        self._halt.set()
        self.close()

    def __next__(self) -> T:
        return next(self._items)

    def send(self, value: None) -> T:
        return self._items.send(value)

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> T:
        return self._items.throw(typ if val is None else val)

    def close(self) -> None:
        try:
            self._items.close()
        except ValueError:  # another thread is inside it: it stops there
            self._halt.set()
            return
        self._recovery.cancel()  # a generator that never started has no code that could


def _presented(chunks: Generator[Chunk, None, None], show: Callable[[Chunk], T]) -> Generator[T, None, None]:
    with contextlib.closing(chunks):
        for chunk in chunks:
            yield chunk.payload if chunk.untouched else show(chunk)


# ---------------------------------------------------------------- asynchronous


class Alarm:
    """Ends a wait when its time is over, or when somebody stops the stream.

    One timer serves the whole stream: arming `asyncio.timeout` for every token would cost more than the token.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._due = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self.rang = False

    @property
    def waiting(self) -> bool:
        """Whether some task waits just now."""
        return self._task is not None

    def arm(self, seconds: float | None) -> None:
        """The current task begins to wait."""
        self._task = task = asyncio.current_task()
        self._cancelling = task.cancelling() if task is not None else 0
        self.rang = False
        if seconds is None:
            self._due = float("inf")
            return
        self._due = due = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > due:
            self.stop()
            self._timer = self._loop.call_at(due, self._tick)

    def disarm(self) -> None:
        """The wait is over."""
        if self.rang and self._task is not None:
            self._task.uncancel()  # whatever waited swallowed it
        self._task = None

    def ring(self) -> None:
        """End the wait now, if there is one."""
        if self._task is not None and not self.rang:
            self.rang = True
            self._task.cancel()

    def took_over(self) -> bool:
        """Whether the cancellation that just arrived is ours alone, and not the task's end."""
        if not self.rang or self._task is None:
            return False
        self.rang = False
        return self._task.uncancel() <= self._cancelling

    def stop(self) -> None:
        """No timer is left behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        if self._task is None or self._due == float("inf"):
            return  # the next arm() sets a new one
        if self._loop.time() >= self._due:
            self.ring()
        else:
            self._timer = self._loop.call_at(self._due, self._tick)


class AsyncHalt:
    """Lets any task or thread stop a stream, also one that waits."""

    def __init__(self) -> None:
        self.is_set = False
        self._alarm: Alarm | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Future[None] | None = None  # the loop itself holds tasks weakly

    def watch(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self._loop = asyncio.get_running_loop()

    def set(self, close: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Stop; `close` is called where nobody waits who would."""
        self.is_set = True
        if self._alarm is None or self._loop is None or self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._wake, self._alarm, close)

    def _wake(self, alarm: Alarm, close: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        if alarm.waiting:
            alarm.ring()
        elif close is not None:
            self._closing = asyncio.ensure_future(close())


class _AsyncWatched:
    """An attempt whose waits can end."""

    def __init__(self, open_stream: Callable[[], AsyncIterator[Chunk]], alarm: Alarm) -> None:
        self._alarm = alarm
        self._open = open_stream
        self._chunks: AsyncIterator[Chunk] | None = None

    async def next(self, seconds: float | None) -> Chunk | Ended | None:
        """One event; None when `seconds` are over."""
        if seconds is not None and seconds <= 0:
            return None
        alarm = self._alarm
        alarm.arm(seconds)
        try:
            if self._chunks is None:
                self._chunks = self._open()
            return await anext(self._chunks)
        except StopAsyncIteration:
            return Ended()
        except asyncio.CancelledError:
            if alarm.took_over():
                return None
            raise
        except Exception as error:
            return None if alarm.took_over() else Ended(error)
        finally:
            alarm.disarm()

    async def aclose(self) -> None:
        try:
            if (aclose := getattr(self._chunks, "aclose", None)) is not None:
                await aclose()
        except Exception as error:
            logger.debug("closing the upstream stream failed: %s", type(error).__name__)


async def adrive(
    open_stream: AsyncOpen,
    recovery: Recovery,
    *,
    observer: AsyncObserver,
    halt: AsyncHalt,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    watched: bool = True,
) -> AsyncGenerator[Chunk, None]:
    """Ask, show, and ask again, until the machine says that it is over."""
    alarm = Alarm()
    halt.watch(alarm)
    try:
        while not halt.is_set:
            request = recovery.request
            if request.strategy != "first":
                await observer.resume(recovery, request)
            attempt = _AsyncWatched(partial(open_stream, Upstream(), request), alarm)
            try:
                # What _show does: there is no `yield from` here, and another generator would cost every token.
                clock, receive, tell = recovery.clock, recovery.receive, observer.watches_tokens
                deadline = recovery.deadline_at
                spent, over = 0.0, False
                while not over:
                    began = clock()
                    event = await attempt.next(_time_left(recovery, spent, watched, deadline))
                    if halt.is_set:
                        return
                    event = event or _timed_out(recovery)
                    over = isinstance(event, Ended)
                    spent = 0.0 if over or event.progress else spent + clock() - began  # type: ignore[union-attr]
                    for chunk in receive(event):
                        if tell or chunk.reset:
                            await observer.token(chunk, recovery)
                        yield chunk
            finally:
                await attempt.aclose()
            if recovery.fault is not None:
                await observer.fault(recovery)
            delay = recovery.next_delay()
            if delay is None:
                return
            if delay:
                await _asleep(delay, sleep, alarm)
    finally:
        alarm.stop()
        recovery.cancel()
        await observer.end(recovery)


async def _asleep(seconds: float, sleep: Callable[[float], Awaitable[None]], alarm: Alarm) -> None:
    alarm.arm(None)
    try:
        await sleep(seconds)
    except asyncio.CancelledError:
        if not alarm.took_over():
            raise
    finally:
        alarm.disarm()


class ResilientAsyncStream(AsyncGenerator[T, None], Generic[T]):
    """What `astream_chat` and `astream_complete` return: an async generator with `report`, `cancel()`, `acancel()`."""

    def __init__(
        self,
        chunks: AsyncGenerator[Chunk, None],
        recovery: Recovery,
        show: Callable[[Chunk], T],
        halt: AsyncHalt,
    ):
        self._recovery = recovery
        self._halt = halt
        self._items = _apresented(chunks, show)

    @property
    def report(self) -> StreamReport:
        """What happened so far; the whole story once the stream is over."""
        return self._recovery.report

    def cancel(self) -> None:
        """Stop, from any task or thread: no retry, the upstream connection is closed, a waiting reader is released."""
        self._halt.set(self.aclose)

    async def acancel(self) -> None:
        """Stop, and return when the upstream connection is closed."""
        self._halt.set()
        await self.aclose()

    def __anext__(self) -> Coroutine[Any, Any, T]:
        return self._items.__anext__()

    def asend(self, value: None) -> Coroutine[Any, Any, T]:
        return self._items.asend(value)

    async def athrow(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> T:
        return await self._items.athrow(typ if val is None else val)

    async def aclose(self) -> None:
        try:
            await self._items.aclose()
        except RuntimeError:  # another task is inside it: it stops there
            self._halt.set()
            return
        self._recovery.cancel()  # a generator that never started has no code that could


async def _apresented(chunks: AsyncGenerator[Chunk, None], show: Callable[[Chunk], T]) -> AsyncGenerator[T, None]:
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            yield chunk.payload if chunk.untouched else show(chunk)
