"""Several who wait for the same thing on one event loop."""

from __future__ import annotations

import asyncio


class Waiting:
    """Wakes all who wait, as often as there is something new."""

    def __init__(self) -> None:
        self._futures: set[asyncio.Future[None]] = set()

    async def wait(self, seconds: float) -> None:
        """Until somebody wakes, or `seconds` are over."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        self._futures.add(woken)
        timer = loop.call_later(seconds, _set, woken)
        try:
            await woken
        finally:
            timer.cancel()
            self._futures.discard(woken)

    def wake(self) -> None:
        """Wake all who wait now."""
        for woken in self._futures:
            _set(woken)


def _set(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
