"""How one attempt is read: with an end to every wait, and nothing left behind.

The two kinds of waiting stand side by side, synchronous first.

A wait for a blocked synchronous read must be able to end, and nothing in Python ends it from outside. So the first
event of an attempt is read in a daemon thread; with our own HTTP client its socket is known as soon as the request is
sent, and that read can be broken, too. From then on, where the socket behind the stream is in reach
(`transport.connection`), the caller's own thread reads, and a guard, one thread for all streams of the process, shuts
the socket down when a read lasts too long. Where it is not, the thread goes on reading, in lock-step: one event when
asked for one, so nothing is read ahead, and when the reader leaves between two tokens, as readers do, the upstream
connection is closed at once. A thread that is stuck in a read nothing can break stays behind until the client's own
timeout; it knows the wrapped LLM and nothing of ours, and the report names it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal, Protocol

from ..recovery.events import Chunk, Ended
from ..transport.connection import ReaderLeftError, Upstream
from .guard import GuardedRead, guard
from .scope import Scope, call_on
from .threads import GRACE, JOIN, close_quietly, read_iterator, start_thread

logger = logging.getLogger("llama_index_resilient_stream")


# ---------------------------------------------------------------- synchronous


class AttemptReader(Protocol):
    """One attempt, from its opening to its close."""

    left_thread: bool

    def next(self, timeout: float | None) -> Chunk | Ended | None:
        """Read one event; None when `timeout` (seconds) is over, or the scope was cancelled."""

    def close(self) -> None: ...


class PlainReader:
    """Reads in the caller's own thread; a wait lasts as long as the wrapped LLM lets it."""

    left_thread = False

    def __init__(self, open_stream: Callable[[], Iterator[Chunk]], upstream: Upstream, scope: Scope) -> None:
        self._open = open_stream
        self._upstream = upstream
        self._scope = scope
        self._chunks: Iterator[Chunk] | None = None

    def next(self, timeout: float | None) -> Chunk | Ended | None:
        if self._scope.cancelled or (timeout is not None and timeout <= 0):
            return None
        try:
            if self._chunks is None:
                self._chunks = self._open()
            return next(self._chunks)
        except StopIteration:
            return self._upstream.ended()
        except ReaderLeftError:
            return None
        except Exception as error:
            return self._upstream.ended(error)

    def close(self) -> None:
        close_quietly(self._chunks)


class WatchedReader:
    """Reads so that every wait can end.

    Args:
        open_stream: opens the attempt's stream, in the thread that reads its first event.
        upstream: the connection behind it.
        scope: the attempt's. Cancelling it releases `next`, and breaks the read where that is possible.
    """

    def __init__(self, open_stream: Callable[[], Iterator[Chunk]], upstream: Upstream, scope: Scope) -> None:
        self._open = open_stream
        self._upstream = upstream
        self._scope = scope
        self._lock_step = _LockStep()
        self._thread: threading.Thread | None = None
        self._reading = False
        self._guarded: GuardedRead | None = None
        self._chunks: Iterator[Chunk] | None = None
        self._context = contextvars.copy_context()
        self.left_thread = False
        self._stop_waking = scope.on_cancel(self._lock_step.wake)
        scope.on_cancel(upstream.break_read)

    def next(self, timeout: float | None) -> Chunk | Ended | None:
        if self._scope.cancelled or (timeout is not None and timeout <= 0):
            return None
        if self._chunks is None:
            return self._read_in_thread(timeout)
        guarded = self._guarded or self._begin_guard(timeout)
        guarded.due = None if timeout is None else time.monotonic() + timeout
        try:
            # The context that the stream began in: what it set there it finds again, and can reset.
            return self._context.run(next, self._chunks)
        except StopIteration:
            error: BaseException | None = None
        except (Exception, ReaderLeftError) as raised:
            error = raised
        finally:
            guarded.due = None
        return None if self._scope.cancelled else self._ended(error)

    def _read_in_thread(self, timeout: float | None) -> Chunk | Ended | None:
        self._reading = True
        if self._thread is None:
            self._thread = start_thread(
                "resilient-stream-reader", read_iterator, self._open, self._lock_step, context=self._context
            )
        else:
            self._lock_step.ask("next")
        answer = self._lock_step.answer(timeout)
        if isinstance(answer, _Over):
            self._reading = False
            return self._ended(answer.error)
        self._reading = answer is None
        if answer is not None and self._upstream.can_break:
            self._take_over()
        return answer  # type: ignore[no-any-return]

    def _ended(self, error: BaseException | None) -> Ended | None:
        if isinstance(error, ReaderLeftError):
            return None
        if error is not None and not isinstance(error, Exception):
            raise error
        return self._upstream.ended(error)

    def _take_over(self) -> None:
        """Go on reading in this thread; the one that read so far ends."""
        assert self._thread is not None, "it has just read"
        self._chunks = self._lock_step.hand_over()
        self._thread.join()  # it must have left the context that we go on in
        self._stop_waking()

    def _begin_guard(self, timeout: float | None) -> GuardedRead:
        self._guarded = guarded = GuardedRead(self._scope, timeout)
        guard().watch(guarded)
        return guarded

    def close(self) -> None:
        self._stop_waking()
        if self._guarded is not None:
            guard().unwatch(self._guarded)
        if self._chunks is not None:
            self._context.run(close_quietly, self._chunks)
            return
        if self._thread is None:
            return
        self._lock_step.ask("close")
        if self._reading:
            self._upstream.break_read()
        if threading.current_thread() is not self._thread:
            stuck = self._reading and not self._upstream.can_break
            self._thread.join(GRACE if stuck else JOIN)
        self.left_thread = self._thread.is_alive()


class _Over:
    """How the reading in a thread ended."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _LockStep:
    """Two queues between a thread and whoever asks it for one event after the other."""

    def __init__(self) -> None:
        self._asks: queue.SimpleQueue[Literal["next", "hand over", "close"]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._handing_over = False

    # The thread's side

    def put(self, item: Chunk) -> bool:
        self._answers.put(item)
        del item
        ask = self._asks.get()
        self._handing_over = ask == "hand over"
        return ask == "next"

    def take_over(self, source: Any) -> bool:
        if self._handing_over:
            self._answers.put(_HandedOver(source))
        return self._handing_over

    def end(self, error: BaseException | None) -> None:
        self._answers.put(_Over(error))

    # The other side

    def ask(self, what: Literal["next", "hand over", "close"]) -> None:
        self._asks.put(what)

    def answer(self, timeout: float | None) -> Any:
        """Wait for the answer; None when `timeout` (seconds) is over, or somebody called `wake`."""
        try:
            return self._answers.get(timeout=timeout)
        except queue.Empty:
            return None

    def hand_over(self) -> Any:
        self.ask("hand over")
        while not isinstance(answer := self._answers.get(), _HandedOver):  # `wake` may have come in between
            pass
        return answer.source

    def wake(self) -> None:
        self._answers.put(None)


class _HandedOver:
    def __init__(self, source: Any) -> None:
        self.source = source


# ---------------------------------------------------------------- asynchronous


class InterruptibleWait:
    """Ends the wait of a task when its time is over, or when the scope is cancelled.

    One timer serves the whole stream: arming `asyncio.timeout` for every token would cost more than the token.

    Args:
        scope: the stream's. Its cancellation, from any thread, ends the wait.
    """

    def __init__(self, scope: Scope) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop that the stream is read on, once it is."""
        self._scope = scope
        self._task: asyncio.Task[Any] | None = None
        self._reader: asyncio.Task[Any] | None = None  # the task that waits, or waited last
        self._cancelling = 0
        self._due = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._interrupted = False

    def start(self) -> None:
        """Reading begins, on the running loop."""
        self.loop = loop = asyncio.get_running_loop()
        self._scope.on_cancel(lambda: call_on(loop, self.interrupt))

    @property
    def is_in_current_task(self) -> bool:
        """Whether the current task is the one that reads the stream."""
        return self._reader is not None and self._reader is asyncio.current_task()

    def begin(self, seconds: float | None) -> None:
        """The current task begins to wait, for at most so many seconds."""
        self._task = self._reader = task = asyncio.current_task()
        self._cancelling = task.cancelling() if task is not None else 0
        self._interrupted = False
        if seconds is None:
            self._due = float("inf")
            return
        assert self.loop is not None, "start() comes first"
        self._due = due = self.loop.time() + seconds
        if due < self._timer_at:
            self.stop_timer()
            self._set_timer(due)

    def end(self) -> None:
        """The wait is over."""
        if self._interrupted and self._task is not None:
            self._task.uncancel()  # whatever waited swallowed it
        self._task = None

    def interrupt(self) -> None:
        """End the wait now, if there is one."""
        if self._task is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()

    def absorb(self) -> bool:
        """Whether the cancellation that just arrived is ours alone, and not the task's end; if so, it is undone."""
        if not self._interrupted or self._task is None:
            return False
        self._interrupted = False
        return self._task.uncancel() <= self._cancelling

    def stop_timer(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, float("inf")

    def _set_timer(self, at: float) -> None:
        assert self.loop is not None, "start() comes first"
        self._timer, self._timer_at = self.loop.call_at(at, self._tick), at

    def _tick(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        if self.loop is None or self._task is None or self._due == float("inf"):
            return  # the next begin() sets a new one
        if self.loop.time() >= self._due:
            self.interrupt()
        else:
            self._set_timer(self._due)


class AsyncAttemptReader:
    """Reads an attempt in the caller's task; every wait can end."""

    def __init__(
        self, open_stream: Callable[[], AsyncIterator[Chunk]], upstream: Upstream, wait: InterruptibleWait
    ) -> None:
        self._upstream = upstream
        self._wait = wait
        self._open = open_stream
        self._chunks: AsyncIterator[Chunk] | None = None
        self.left_thread = False

    async def next(self, seconds: float | None) -> Chunk | Ended | None:
        """Read one event; None when `seconds` are over, or the scope was cancelled."""
        if seconds is not None and seconds <= 0:
            return None
        wait = self._wait
        wait.begin(seconds)
        try:
            if self._chunks is None:
                self._chunks = self._open()
            return await anext(self._chunks)
        except StopAsyncIteration:
            return self._upstream.ended()
        except asyncio.CancelledError:
            if wait.absorb():
                return None
            raise
        except ReaderLeftError:
            return None
        except Exception as error:
            return None if wait.absorb() else self._upstream.ended(error)
        finally:
            wait.end()

    async def aclose(self) -> None:
        try:
            if (aclose := getattr(self._chunks, "aclose", None)) is not None:
                await aclose()
        except Exception as error:
            logger.debug("closing the upstream stream failed: %s", type(error).__name__)
        self.left_thread = getattr(self._chunks, "left_thread", False)
