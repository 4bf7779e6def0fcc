"""The scope of one answer: whether it goes on, was cancelled, or is over.

Everybody who works on an answer shares its scope: the driver that reads it, the connection it comes from, the engine's
calls, the channel to the event loop, the route that serves it. Scopes nest, as trio's and anyio's cancel scopes do:
what cancels a served answer cancels the engine's call, its streams, and the attempt that is being read. Unlike theirs,
this one is used from any thread and any task, and never raises: it wakes whoever waits, and they look at `cancelled`.

    served answer  >  engine call  >  stream  >  attempt
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("llama_index_resilient_stream")

Callback = Callable[[], object]


class Scope:
    """Cancellation, deadline and outcome of one answer, or of a part of it.

        scope = Scope()
        withdraw = scope.on_cancel(wake)      # called by whoever cancels
        while not scope.cancelled:
            ...
        withdraw()
        scope.finish("complete")

    Args:
        parent: a scope whose cancellation cancels this one, too.
        deadline: when the total time is over, in seconds on `clock`. None: never.
        clock: what `deadline` is measured on.
    """

    def __init__(
        self, parent: Scope | None = None, *, deadline: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.cancelled = False
        """Whether somebody has asked to stop. Never taken back."""
        self.outcome: str | None = None
        """How it ended; None while something of it goes on, or is still to be closed."""
        self.deadline = deadline
        self._clock = clock
        # The garbage collector may drop an answer, and so cancel it, while this very thread is in here.
        self._lock = threading.RLock()
        self._on_cancel: dict[object, Callback] = {}
        self._on_finish: dict[object, Callback] = {}
        if parent is not None:
            parent.adopt(self)

    @property
    def over(self) -> bool:
        """Whether it has ended, and everything of it is closed."""
        return self.outcome is not None

    def cancel(self) -> None:
        """Ask to stop, from any thread or task. Returns at once; may be called again."""
        with self._lock:
            if self.cancelled or self.over:
                return
            self.cancelled = True
            callbacks = list(self._on_cancel.values())
            self._on_cancel.clear()
        _call(callbacks)

    def finish(self, outcome: str) -> None:
        """State how it ended. What comes first counts; nobody is woken by a cancellation after it."""
        with self._lock:
            if self.over:
                return
            self.outcome = outcome
            callbacks = list(self._on_finish.values())
            self._on_finish.clear()
            self._on_cancel.clear()
        _call(callbacks)

    def on_cancel(self, callback: Callback) -> Callback:
        """Call this when the scope is cancelled, in the thread that cancels; now, if it has been.

        Args:
            callback: wakes whoever waits. It must not wait for anything itself.

        Returns:
            A function that withdraws it.
        """
        with self._lock:
            if not self.cancelled:
                return self._kept(self._on_cancel, callback)
        _call([] if self.over else [callback])
        return _nothing

    def on_finish(self, callback: Callback) -> Callback:
        """Call this when the scope is over; now, if it is.

        Returns:
            A function that withdraws it.
        """
        with self._lock:
            if not self.over:
                return self._kept(self._on_finish, callback)
        _call([callback])
        return _nothing

    def adopt(self, child: Scope) -> None:
        """Cancel `child`, too, when this scope is cancelled; at once, if it has been."""
        child.on_finish(self.on_cancel(child.cancel))

    def time_left(self, seconds: float | None = None) -> float | None:
        """Shorten a wait of so many seconds (None: without a limit) to what the deadline leaves of it."""
        if self.deadline is None:
            return seconds
        left = self.deadline - self._clock()
        return left if seconds is None else min(left, seconds)

    def sleep(self, seconds: float) -> None:
        """Sleep, or less if cancelled meanwhile."""
        woken = threading.Event()
        withdraw = self.on_cancel(woken.set)
        woken.wait(seconds)
        withdraw()

    async def finished(self) -> None:
        """Wait until it is over."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        withdraw = self.on_finish(lambda: call_on(loop, over.set))
        try:
            await over.wait()
        finally:
            withdraw()

    def _kept(self, callbacks: dict[object, Callback], callback: Callback) -> Callback:
        if callbacks is self._on_cancel and self.over:
            return _nothing
        key = object()
        callbacks[key] = callback
        return lambda: callbacks.pop(key, None)


def call_on(loop: asyncio.AbstractEventLoop, function: Callback) -> bool:
    """Call a function on an event loop, from any thread. False: the loop is closed, and nothing runs on it any more."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        return False
    return True


def _call(callbacks: list[Callback]) -> None:
    """One that fails keeps nobody else from being woken."""
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("waking somebody who waits for an answer failed")


def _nothing() -> None:
    pass
