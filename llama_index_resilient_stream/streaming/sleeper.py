"""Waiting on an event loop, again and again, for what nearly always comes before the time is over."""

from __future__ import annotations

import asyncio


class Sleeper:
    """Waits until somebody wakes it, or until some time. One timer serves many waits: most are over before it rings.

    sleeper = Sleeper()
    while not items:
        await sleeper.wait(loop.time() + 15)     # elsewhere on this loop: sleeper.wake()
    sleeper.close()
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[None] | None = None
        self._until: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, until: float | None) -> None:
        """Until `wake()`, or this time on the loop's clock; None: without a limit."""
        woken = self._woken = self._loop.create_future()
        self._until = until
        if until is not None and (self._timer is None or self._timer.when() > until):
            self._set_timer(until)
        await woken

    def wake(self) -> None:
        """Wake who waits now, if anybody does."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def close(self) -> None:
        """Nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, until: float) -> None:
        self.close()
        self._timer = self._loop.call_at(until, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._until is None or self._woken is None or self._woken.done():
            return
        if self._loop.time() >= self._until:
            self.wake()
        else:
            self._set_timer(self._until)
