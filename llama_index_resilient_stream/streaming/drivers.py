"""The two drivers of the state machine: with `reading.py`, the only code that opens, waits, sleeps and closes.

The synchronous one and the asynchronous one stand side by side, same names, same order.

1. `yield` to the consumer stands outside every `try` that turns exceptions into events: the consumer's own bug is not
   a fault of the stream.
2. `Exception` is caught, `BaseException` never: leaving is no fault.
3. No timeout and no cancel scope is held across a `yield`; time counts only while we wait for the provider.
4. Where no limit is set (both watchdogs and the deadline are None) a synchronous stream is read without a thread, and
   `cancel()` takes effect at the next token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import partial
from typing import Protocol, TypeVar

from ..errors import StreamTimeoutError
from ..recovery.events import Chunk, Ended, Request
from ..recovery.machine import Recovery
from ..transport.connection import Upstream
from .watchdog import Alarm, AsyncAttemptReader, AsyncHalt, AttemptReader, Halt, Unwatched, Watched

T = TypeVar("T")

Open = Callable[[Upstream, Request], Iterator[Chunk]]
AsyncOpen = Callable[[Upstream, Request], AsyncIterator[Chunk]]

Show = Callable[[Chunk], T]
"""Makes of a chunk of a healed answer what the reader gets. An untouched chunk's payload is passed on as it came."""


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


def _has_limits(recovery: Recovery) -> bool:
    policy = recovery.policy
    limits = (policy.idle_timeout, policy.deadline, recovery.model.first_token_timeout)
    return any(limit is not None for limit in limits)


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


def drive(
    open_stream: Open,
    recovery: Recovery,
    *,
    show: Show[T],
    observer: Observer,
    halt: Halt,
    sleep: Callable[[float], None] | None = None,
    watched: bool = True,
) -> Generator[T, None, None]:
    """Ask, show, and ask again, until the machine says that it is over."""
    sleep = sleep or halt.sleep
    watched = watched and _has_limits(recovery)
    try:
        while not halt.is_set:
            request = recovery.request
            if request.strategy != "first":
                observer.resume(recovery, request)
            upstream = Upstream()
            opened = partial(open_stream, upstream, request)
            attempt: AttemptReader = Watched(opened, upstream, halt) if watched else Unwatched(opened, upstream)
            try:
                yield from _read(attempt, recovery, show, observer, halt, watched)
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
    finally:
        recovery.cancel()
        observer.end(recovery)


def _read(
    attempt: AttemptReader, recovery: Recovery, show: Show[T], observer: Observer, halt: Halt, watched: bool
) -> Generator[T, None, None]:
    clock, receive, tell = recovery.clock, recovery.receive, observer.watches_tokens
    deadline = recovery.deadline_at
    spent = 0.0
    while not halt.is_set:
        began = clock()
        event = attempt.next(_time_left(recovery, spent, watched, deadline))
        if halt.is_set:
            return
        event = event or _timed_out(recovery)
        # Only progress feeds the watchdog, and only waiting for the provider tires it.
        over = isinstance(event, Ended)
        spent = 0.0 if over or event.progress else spent + clock() - began  # type: ignore[union-attr]
        for chunk in receive(event):
            if tell or chunk.reset:
                observer.token(chunk, recovery)
            yield chunk.payload if chunk.untouched else show(chunk)
        if not recovery.streaming:
            return


async def adrive(
    open_stream: AsyncOpen,
    recovery: Recovery,
    *,
    show: Show[T],
    observer: AsyncObserver,
    halt: AsyncHalt,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    watched: bool = True,
) -> AsyncGenerator[T, None]:
    """Ask, show, and ask again, until the machine says that it is over."""
    alarm = Alarm()
    halt.watch(alarm)
    try:
        while not halt.is_set:
            request = recovery.request
            if request.strategy != "first":
                await observer.resume(recovery, request)
            upstream = Upstream()
            attempt = AsyncAttemptReader(partial(open_stream, upstream, request), upstream, alarm)
            try:
                # What _read does: there is no `yield from` here, and another generator would cost every token.
                clock, receive, tell = recovery.clock, recovery.receive, observer.watches_tokens
                deadline = recovery.deadline_at
                spent = 0.0
                while recovery.streaming:
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
                        yield chunk.payload if chunk.untouched else show(chunk)
            finally:
                await attempt.aclose()
                recovery.report.attempts[-1].left_thread = attempt.left_thread
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
        halt.finished.set()
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
