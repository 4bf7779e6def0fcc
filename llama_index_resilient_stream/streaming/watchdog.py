"""How one attempt is read: with an end to every wait, and nothing left behind.

The two kinds of waiting stand side by side, synchronous first.

A wait for a blocked synchronous read must be able to end, and nothing in Python ends it from outside. So the first
event of an attempt is read in a daemon thread; with our own HTTP client its socket is known as soon as the request is
sent, and that read can be broken, too. From then on, where the socket behind the stream is in reach (`upstream.py`),
the caller reads by itself, and a guard that only looks at the clock shuts the socket down when a read
lasts too long. Where it is not, the thread goes on reading, in lock-step: one event when asked for one, so nothing is
read ahead, and when the reader leaves between two tokens, as readers do, the upstream connection is closed at once. A
thread that is stuck in a read nothing can break stays behind until the client's own timeout; it knows the wrapped LLM
and nothing of ours, and the report names it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Literal, Protocol

from ..recovery.events import Chunk, Ended
from ..transport.connection import Upstream

_GRACE = 0.05  # seconds that a thread gets to leave a read before the report calls it left behind
_JOIN = 2.0  # seconds that closing an upstream may take that nobody reads, or whose read was broken
_LONGEST_NAP = 1.0  # seconds between two looks of a guard at the clock

logger = logging.getLogger("llama_index_resilient_stream")


# ---------------------------------------------------------------- synchronous


class Halt:
    """Lets any thread stop a stream, also one that waits."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._wake: Callable[[], None] | None = None

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()
        if self._wake is not None:
            self._wake()

    def watch(self, wake: Callable[[], None]) -> None:
        """What ends the wait that begins now."""
        self._wake = wake

    def sleep(self, seconds: float) -> None:
        """Sleep, or less if stopped."""
        self._event.wait(seconds)


class AttemptReader(Protocol):
    """One attempt, from its opening to its close."""

    left_thread: bool

    def next(self, timeout: float | None) -> Chunk | Ended | None:
        """One event; None when `timeout` (seconds) is over, or the stream was stopped."""

    def close(self) -> None: ...


class Unwatched:
    """Read in the caller's own thread; a wait lasts as long as the wrapped LLM lets it."""

    left_thread = False

    def __init__(self, open_stream: Callable[[], Iterator[Chunk]], upstream: Upstream) -> None:
        self._open = open_stream
        self._upstream = upstream
        self._chunks: Iterator[Chunk] | None = None

    def next(self, timeout: float | None) -> Chunk | Ended | None:
        if timeout is not None and timeout <= 0:
            return None
        try:
            if self._chunks is None:
                self._chunks = self._open()
            return next(self._chunks)
        except StopIteration:
            return self._upstream.ended()
        except Exception as error:
            return self._upstream.ended(error)

    def close(self) -> None:
        _close(self._chunks)


_Ask = Literal["next", "hand over", "close"]


class Watched:
    """Read so that every wait can end."""

    def __init__(self, open_stream: Callable[[], Iterator[Chunk]], upstream: Upstream, halt: Halt) -> None:
        self._upstream = upstream
        self._halt = halt
        self._asks: queue.SimpleQueue[_Ask] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._reading = False
        self._guard: _Guard | None = None
        self._chunks: Iterator[Chunk] | None = None
        self.left_thread = False
        halt.watch(lambda answers=self._answers: answers.put(None))  # type: ignore[misc]
        # A copied context: spans and tags of the caller's belong to the wrapped LLM's events too.
        self._context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=self._context.run,
            args=(_read, open_stream, upstream, self._asks, self._answers),
            name="resilient-stream-reader",
            daemon=True,
        )
        self._thread.start()

    def next(self, timeout: float | None) -> Chunk | Ended | None:
        if timeout is not None and timeout <= 0:
            return None
        if self._chunks is not None:
            return self._read_guarded(self._chunks, timeout)
        event = self._read_in_thread(timeout)
        if isinstance(event, Chunk) and self._upstream.can_break:
            self._take_over()
        return event

    def _read_in_thread(self, timeout: float | None) -> Chunk | Ended | None:
        self._reading = True
        self._asks.put("next")
        try:
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(answer, BaseException):
            raise answer
        self._reading = answer is None
        return answer  # type: ignore[no-any-return]

    def _take_over(self) -> None:
        self._asks.put("hand over")
        while (chunks := self._answers.get()) is None:  # a halt may have put its word in between
            pass
        self._thread.join()  # it has handed over, and must have left the context that we go on in
        self._chunks = chunks
        self._halt.watch(self._upstream.break_read)

    def _read_guarded(self, chunks: Iterator[Chunk], timeout: float | None) -> Chunk | Ended | None:
        event: Chunk | Ended
        if (guard := self._guard) is None:
            nap = _LONGEST_NAP if timeout is None else min(_LONGEST_NAP, timeout / 10)
            guard = self._guard = _Guard(self._upstream, nap)
        guard.due = None if timeout is None else time.monotonic() + timeout
        try:
            # The context that the stream began in: what it set there it finds again, and can reset.
            event = self._context.run(next, chunks)
        except StopIteration:
            event = self._upstream.ended()
        except Exception as error:
            event = self._upstream.ended(error)
        guard.due = None
        return None if guard.rang and isinstance(event, Ended) else event

    def close(self) -> None:
        self._halt.watch(lambda: None)
        if self._guard is not None:
            self._guard.close()
        if self._chunks is not None:
            self._context.run(_close, self._chunks)
            return
        self._asks.put("close")
        if self._reading:
            self._upstream.break_read()
        if threading.current_thread() is not self._thread:
            stuck = self._reading and not self._upstream.can_break
            self._thread.join(_GRACE if stuck else _JOIN)
        self.left_thread = self._thread.is_alive()


def _read(
    open_stream: Callable[[], Iterator[Chunk]],
    upstream: Upstream,
    asks: queue.SimpleQueue[_Ask],
    answers: queue.SimpleQueue[Any],
) -> None:
    """Read one event whenever asked. Module level on purpose: a bound method would keep its stream alive for ever."""
    chunks: Iterator[Chunk] | None = None
    event: object = None
    while (ask := asks.get()) == "next":
        try:
            if chunks is None:
                chunks = open_stream()
            event = next(chunks)
        except StopIteration:
            event = upstream.ended()
        except Exception as error:
            event = upstream.ended(error)
        except BaseException as error:
            event = error
        answers.put(event)
        event = None  # an idle thread keeps nothing alive
    if ask == "hand over":
        answers.put(chunks)
    else:
        _close(chunks)


class _Guard:
    """Breaks a read that lasts too long. Its thread only looks at the clock, which costs a stream nothing."""

    def __init__(self, upstream: Upstream, nap: float) -> None:
        self.due: float | None = None  # on time.monotonic(); None: nobody waits
        self.rang = False
        self._upstream = upstream
        self._nap = nap
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="resilient-stream-guard", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _watch(self) -> None:
        nap = self._nap
        while not self._closed.wait(nap):
            due = self.due
            left = self._nap if due is None else due - time.monotonic()
            if left <= 0:
                self.rang = True
                self._upstream.break_read()
                return
            nap = min(self._nap, left)


def _close(chunks: Iterator[Chunk] | None) -> None:
    try:
        if (close := getattr(chunks, "close", None)) is not None:
            close()
    except Exception as error:
        logger.debug("closing the upstream stream failed: %s", type(error).__name__)


# ---------------------------------------------------------------- asynchronous


class Alarm:
    """Ends a wait when its time is over, or when somebody stops the stream.

    One timer serves the whole stream: arming `asyncio.timeout` for every token would cost more than the token.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self.reader: asyncio.Task[Any] | None = None  # the task that waits, or waited last
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
        self._task = self.reader = task = asyncio.current_task()
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
        self.finished = asyncio.Event()  # everything is closed
        self._alarm: Alarm | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Future[None] | None = None  # the loop itself holds tasks weakly

    def is_reader(self) -> bool:
        """Whether the current task is the one that reads the stream."""
        return self._alarm is not None and self._alarm.reader is asyncio.current_task()

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


class AsyncAttemptReader:
    """An attempt whose waits can end."""

    def __init__(self, open_stream: Callable[[], AsyncIterator[Chunk]], upstream: Upstream, alarm: Alarm) -> None:
        self._upstream = upstream
        self._alarm = alarm
        self._open = open_stream
        self._chunks: AsyncIterator[Chunk] | None = None
        self.left_thread = False

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
            return self._upstream.ended()
        except asyncio.CancelledError:
            if alarm.took_over():
                return None
            raise
        except Exception as error:
            return None if alarm.took_over() else self._upstream.ended(error)
        finally:
            alarm.disarm()

    async def aclose(self) -> None:
        try:
            if (aclose := getattr(self._chunks, "aclose", None)) is not None:
                await aclose()
        except Exception as error:
            logger.debug("closing the upstream stream failed: %s", type(error).__name__)
        self.left_thread = getattr(self._chunks, "left_thread", False)
