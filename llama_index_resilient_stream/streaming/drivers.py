"""The two drivers of the state machine: with `watchdog.py`, the only code that opens, waits, sleeps and closes.

The synchronous one and the asynchronous one stand side by side, same names, same order.

1. `yield` to the consumer stands outside every `try` that turns exceptions into events: the consumer's own bug is not
   a fault of the stream.
2. `Exception` is caught, `BaseException` never: leaving is no fault.
3. No `asyncio.timeout` is held across a `yield`; time counts only while we wait for the provider.
4. A stream that its server keeps is handed on to the attempt that reads it on. In any other case the server is told
   to stop it: closing the connection does not.
5. Where no limit is set (both watchdogs and the deadline are None) a synchronous stream is read without a thread, and
   `cancel()` takes effect at the next token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import partial
from typing import Protocol, TypeVar

from ..errors import StreamTimeoutError
from ..providers import server_owning
from ..recovery.events import Chunk, Ended, Request
from ..recovery.machine import Recovery
from ..transport.connection import Upstream
from ..transport.kept_stream import KeptStream
from .scope import Scope
from .side_requests import aowner_of_models, astop_kept, owner_of_models, stop_kept
from .watchdog import AsyncAttemptReader, AttemptReader, InterruptibleWait, PlainReader, WatchedReader

T = TypeVar("T")


Open = Callable[[Upstream, Request], Iterator[Chunk]]
AsyncOpen = Callable[[Upstream, Request], AsyncIterator[Chunk]]

Show = Callable[[Chunk], T]
"""Makes of a chunk of a healed answer what the reader gets. An untouched chunk's payload is passed on as it came."""


class Observer(Protocol):
    """Is told what happens. Without `watches_tokens` it hears of chunks without text, and of resets, but no text."""

    watches_tokens: bool

    def token(self, chunk: Chunk, recovery: Recovery) -> None: ...
    def fault(self, recovery: Recovery) -> None: ...
    def resume(self, recovery: Recovery, request: Request) -> None: ...
    def end(self, recovery: Recovery) -> None: ...


class AsyncObserver(Protocol):
    """Is told what happens to an asynchronous stream, as `Observer` is of a synchronous one."""

    watches_tokens: bool

    async def token(self, chunk: Chunk, recovery: Recovery) -> None: ...
    async def fault(self, recovery: Recovery) -> None: ...
    async def resume(self, recovery: Recovery, request: Request) -> None: ...
    async def end(self, recovery: Recovery) -> None: ...


def _is_more_than_text(chunk: Chunk) -> bool:
    """Whether observers hear of it in any case: it may be a thought, or take back what was shown."""
    return chunk.reset or not chunk.text


def _has_limits(recovery: Recovery) -> bool:
    policy = recovery.policy
    limits = (policy.idle_timeout, policy.deadline, recovery.model.first_token_timeout)
    return any(limit is not None for limit in limits)


class _Patience:
    """How long one attempt may go on without progress. Only waiting for the provider counts."""

    def __init__(self, recovery: Recovery, upstream: Upstream, scope: Scope, watched: bool) -> None:
        self._recovery = recovery
        self._attempt = recovery.attempt
        self._upstream = upstream
        self._scope = scope
        self._watched = watched
        self._clock = recovery.clock
        self._spent = self._began = 0.0

    def begin(self) -> float | None:
        """A wait begins: the seconds that it may last. None: as long as it takes."""
        self._began = self._clock()
        limit = self._attempt.limit if self._watched else None
        left = None if limit is None else limit - self._spent
        return left if self._scope.deadline is None else self._scope.time_left(left)

    def end(self, event: Chunk | Ended | None) -> Chunk | Ended:
        """The wait is over: the event that it brought, or that it lasted too long."""
        if event is None:
            return self._timed_out()
        if isinstance(event, Ended) or event.progress:
            self._spent = 0.0
        else:
            self._spent += self._clock() - self._began
        return event

    def _timed_out(self) -> Ended:
        recovery = self._recovery
        left = self._scope.time_left()
        if left is not None and left <= 0:
            what = f"The deadline of {recovery.policy.deadline:g} s passed."
        elif recovery.report.attempts[-1].first_token is None:
            what = f"No first token within {self._attempt.limit:g} s."
        else:
            what = f"No progress for {self._attempt.limit:g} s."
        return self._upstream.ended(StreamTimeoutError(what))  # the terminator may have passed by


class _Outcome:
    """Sees to it that an answer has one, also where its generator is dropped before it began, or its loop is closed.

    The generator alone holds it.
    """

    def __init__(self, recovery: Recovery, scope: Scope) -> None:
        self._recovery = recovery
        self._scope = scope

    def settle(self) -> None:
        self._recovery.cancel()  # unless it has another one
        self._scope.finish(self._recovery.report.status)

    __del__ = settle


# ---------------------------------------------------------------- synchronous


def drive(
    open_stream: Open,
    recovery: Recovery,
    *,
    show: Show[T],
    observer: Observer,
    scope: Scope,
    sleep: Callable[[float], None] | None = None,
    watched: bool = True,
) -> Generator[T, None, None]:
    """Ask, show, and ask again, until the machine says that it is over.

    Args:
        open_stream: asks the wrapped LLM, in the thread that reads its first event.
        recovery: the machine that decides.
        show: makes what the reader gets.
        observer: is told what happens.
        scope: the stream's; whoever cancels it stops the stream.
        sleep: waits between two attempts; the scope's own `sleep` unless said otherwise.
        watched: whether the limits of the policy are kept while an event is waited for.

    Raises:
        StreamInterruptedError: it was given up.
    """
    sleep = scope.sleep if sleep is None else sleep
    watched = watched and _has_limits(recovery)
    return _drive(open_stream, recovery, show, observer, scope, sleep, watched, _Outcome(recovery, scope))


def _drive(
    open_stream: Open,
    recovery: Recovery,
    show: Show[T],
    observer: Observer,
    scope: Scope,
    sleep: Callable[[float], None],
    watched: bool,
    outcome: _Outcome,
) -> Generator[T, None, None]:
    receive, tell = recovery.receive, observer.watches_tokens
    make_reader: Callable[..., AttemptReader] = WatchedReader if watched else PlainReader
    kept: KeptStream | None = None
    try:
        while not scope.cancelled:
            request = _begin(recovery, observer)
            part = Scope(scope)
            upstream = Upstream(part, kept)
            attempt = make_reader(partial(open_stream, upstream, request), upstream, part)
            try:
                patience = _Patience(recovery, upstream, scope, watched)
                while recovery.streaming:
                    event = attempt.next(patience.begin())
                    if scope.cancelled:
                        return
                    for chunk in receive(patience.end(event)):
                        if tell or _is_more_than_text(chunk):
                            observer.token(chunk, recovery)
                        yield chunk.payload if chunk.untouched else show(chunk)
            finally:
                attempt.close()
                part.finish("closed")
                record = recovery.report.attempts[-1]
                record.left_thread, record.continued_below = attempt.left_thread, upstream.continued_below
                kept = _handed_on(upstream.kept, recovery)
            if not _goes_on(recovery, observer, sleep):
                return
            _learn_server(recovery, upstream, scope)
    finally:
        stop_kept(kept)
        outcome.settle()
        observer.end(recovery)


def _begin(recovery: Recovery, observer: Observer) -> Request:
    request = recovery.request
    if request.strategy != "first":
        observer.resume(recovery, request)
    return request


def _handed_on(kept: KeptStream | None, recovery: Recovery) -> KeptStream | None:
    """The stream that the next attempt reads on. Any other one is stopped."""
    if recovery.reads_on:
        return kept
    stop_kept(kept)
    return None


def _learn_server(recovery: Recovery, upstream: Upstream, scope: Scope) -> None:
    if recovery.wants_owner:
        recovery.learn_server(server_owning(owner_of_models(upstream.inquiry, scope)))


def _goes_on(recovery: Recovery, observer: Observer, sleep: Callable[[float], None]) -> bool:
    """Wait for the next attempt. False: there is none."""
    if recovery.fault is not None:
        observer.fault(recovery)
    delay = recovery.next_delay()
    if delay:
        sleep(delay)
    return delay is not None


# ---------------------------------------------------------------- asynchronous


def adrive(
    open_stream: AsyncOpen,
    recovery: Recovery,
    *,
    show: Show[T],
    observer: AsyncObserver,
    scope: Scope,
    wait: InterruptibleWait | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    watched: bool = True,
) -> AsyncGenerator[T, None]:
    """The asynchronous twin of `drive`, with the same arguments.

    Args:
        wait: knows the loop and the task that read the stream, once they do.
    """
    wait = InterruptibleWait(scope) if wait is None else wait
    return _adrive(open_stream, recovery, show, observer, scope, wait, sleep, watched, _Outcome(recovery, scope))


async def _adrive(
    open_stream: AsyncOpen,
    recovery: Recovery,
    show: Show[T],
    observer: AsyncObserver,
    scope: Scope,
    wait: InterruptibleWait,
    sleep: Callable[[float], Awaitable[None]],
    watched: bool,
    outcome: _Outcome,
) -> AsyncGenerator[T, None]:
    wait.start()
    receive, tell = recovery.receive, observer.watches_tokens
    kept: KeptStream | None = None
    try:
        while not scope.cancelled:
            request = await _abegin(recovery, observer)
            part = Scope(scope)
            upstream = Upstream(part, kept)
            attempt = AsyncAttemptReader(partial(open_stream, upstream, request), upstream, wait)
            try:
                patience = _Patience(recovery, upstream, scope, watched)
                while recovery.streaming:
                    event = await attempt.next(patience.begin())
                    if scope.cancelled:
                        return
                    for chunk in receive(patience.end(event)):
                        if tell or _is_more_than_text(chunk):
                            await observer.token(chunk, recovery)
                        yield chunk.payload if chunk.untouched else show(chunk)
            finally:
                await attempt.aclose()
                part.finish("closed")
                record = recovery.report.attempts[-1]
                record.left_thread, record.continued_below = attempt.left_thread, upstream.continued_below
                kept = await _ahanded_on(upstream.kept, recovery)
            if not await _agoes_on(recovery, observer, sleep, wait):
                return
            await _alearn_server(recovery, upstream, scope, wait)
    finally:
        wait.stop_timer()
        try:
            await astop_kept(kept)
        finally:
            outcome.settle()
            await observer.end(recovery)


async def _ahanded_on(kept: KeptStream | None, recovery: Recovery) -> KeptStream | None:
    if recovery.reads_on:
        return kept
    await astop_kept(kept)
    return None


async def _alearn_server(recovery: Recovery, upstream: Upstream, scope: Scope, wait: InterruptibleWait) -> None:
    if recovery.wants_owner:
        recovery.learn_server(server_owning(await aowner_of_models(upstream.inquiry, scope, wait)))


async def _abegin(recovery: Recovery, observer: AsyncObserver) -> Request:
    request = recovery.request
    if request.strategy != "first":
        await observer.resume(recovery, request)
    return request


async def _agoes_on(
    recovery: Recovery, observer: AsyncObserver, sleep: Callable[[float], Awaitable[None]], wait: InterruptibleWait
) -> bool:
    if recovery.fault is not None:
        await observer.fault(recovery)
    delay = recovery.next_delay()
    if delay:
        await _asleep(delay, sleep, wait)
    return delay is not None


async def _asleep(seconds: float, sleep: Callable[[float], Awaitable[None]], wait: InterruptibleWait) -> None:
    wait.begin(None)
    try:
        await sleep(seconds)
    except asyncio.CancelledError:
        if not wait.absorb():
            raise
    finally:
        wait.end()
