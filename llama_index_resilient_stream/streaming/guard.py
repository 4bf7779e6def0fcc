"""One thread for all streams of the process that shuts down reads which last too long."""

from __future__ import annotations

import os
import threading
import time

from .scope import Scope

_LONGEST_NAP = 1.0  # seconds between two looks at the clock


class GuardedRead:
    """A read in somebody's own thread, and when it has lasted too long.

    Args:
        scope: the attempt's, which is cancelled then.
        timeout: seconds that the first read may last; the others last about as long.
    """

    def __init__(self, scope: Scope, timeout: float | None) -> None:
        self.due: float | None = None
        """On time.monotonic(); None while nobody waits."""
        self.scope = scope
        self.nap = _LONGEST_NAP if timeout is None else min(_LONGEST_NAP, timeout / 10)
        """Seconds, at most, until the guard shall look again."""


class Guard:
    """Cancels attempts whose read lasts too long. Its thread only looks at the clock, and ends when none is left."""

    def __init__(self) -> None:
        self._reads: set[GuardedRead] = set()
        # The garbage collector may close a stream, and so get here, while this very thread is in here.
        self._lock = threading.RLock()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, read: GuardedRead) -> None:
        """Begin to look after a read; the first one starts the thread."""
        started: threading.Thread | None = None
        with self._lock:
            self._reads.add(read)
            if self._thread is None:
                self._changed = threading.Event()
                self._thread = started = threading.Thread(
                    target=self._run, args=(self._changed,), name="resilient-stream-guard", daemon=True
                )
        if started is not None:
            started.start()  # without the lock: the collector may close a stream in the new thread before it is there
        self._changed.set()

    def unwatch(self, read: GuardedRead) -> None:
        """Look after it no more; the last one ends the thread."""
        with self._lock:
            self._reads.discard(read)
            if not self._reads:
                self._thread = None
                self._changed.set()

    def _run(self, changed: threading.Event) -> None:
        while True:
            changed.clear()
            with self._lock:
                if self._changed is not changed or self._thread is None:
                    return
                reads = list(self._reads)
            changed.wait(min(map(self._look, reads), default=_LONGEST_NAP))

    def _look(self, read: GuardedRead) -> float:
        """Seconds until the next look at this read."""
        left = read.nap if (due := read.due) is None else due - time.monotonic()
        if left > 0:
            return min(read.nap, left)
        with self._lock:
            self._reads.discard(read)
        read.scope.cancel()
        return _LONGEST_NAP


_guard = Guard()


def guard() -> Guard:
    """The guard of this process."""
    return _guard


def _forget_guard() -> None:
    """A forked process has none of its parent's threads, and may have its locks as they were held."""
    global _guard
    _guard = Guard()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_guard)
