"""Readers, sources and stores for tests of generations."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

from llama_index_resilient_stream.serve.generations import Generations
from llama_index_resilient_stream.serve.protocols.events import event_of
from llama_index_resilient_stream.serve.resumption import EventStreamSetup
from llama_index_resilient_stream.serve.store import StoreUnreachableError
from support.readers import TEXT

COMPLETE = ("done", {"status": "complete"})
UNKNOWN = ("done", {"status": "unknown"})  # how a plain generator ends
EXPIRED = ("error", {"status": "expired", "reason": "", "retryable": False})


def lost(reason: str) -> tuple[str, dict[str, Any]]:
    return "error", {"status": "lost", "reason": reason, "retryable": True}


class Tab:
    """A browser's EventSource: it comes back with the id of the last event, until it is told to stop."""

    def __init__(self, ask: Callable[[], EventStreamSetup], request: Any = None) -> None:
        self._ask, self._request = ask, request
        self.last_id = ""
        self.events: list[Any] = []
        self.times: list[float] = []
        self.status = 200

    @property
    def text(self) -> str:
        return "".join(json.loads(e.data)["text"] for e in self.events if not e.event)

    @property
    def end(self) -> tuple[str, dict[str, Any]]:
        assert [e.event in ("done", "error") for e in self.events].index(True) == len(self.events) - 1
        return self.events[-1].event, json.loads(self.events[-1].data)

    async def read(self, events: int | None = None, *, seconds: float = 30.0) -> Tab:
        """One connection, which breaks behind so many events; whatever was under way then is lost."""
        feed = await self._ask().open(self.last_id, self._request)
        if feed is None:
            self.status = 204
            return self
        left = 10**9 if events is None else events
        try:
            async with asyncio.timeout(seconds):
                while left and not feed.over:
                    for at, part in (await feed.take(0.5))[:left]:
                        self.times.append(asyncio.get_running_loop().time())
                        self.events.append(event_of(part, at))
                        self.last_id = str(at)
                        left -= 1
            self.status = 404 if feed.refused else 200
        finally:
            await feed.leave()
        return self

    @property
    def silence(self) -> float:
        """Seconds, at most, between two events."""
        return max(later - earlier for earlier, later in pairwise(self.times))

    def exact(self, text: str = TEXT) -> bool:
        """Whether it has every event once, to the end."""
        ends_well = self.end in (COMPLETE, UNKNOWN)
        return self.text == text and ends_well and self.numbers() == list(range(1, len(self.events) + 1))

    def numbers(self) -> list[int]:
        return [int(re.sub(r"^.*?\.|\.end$", "", event.id)) for event in self.events]


def tab(home: Generations, key: str, request: Any = None, **get: Any) -> Tab:
    return Tab(lambda: EventStreamSetup(home.get(key, **get)), request)


class Source:
    """Says its pieces, each when it may, and knows how often it was asked, and whether it was stopped."""

    def __init__(self, *pieces: str, open_to: int | None = None) -> None:
        self.pieces = pieces or tuple(TEXT[at : at + 9] for at in range(0, len(TEXT), 9))
        self.asked = 0
        self.closed = asyncio.Event()
        self._gate = asyncio.Semaphore(len(self.pieces) if open_to is None else open_to)

    def let(self, pieces: int = 10**6) -> None:
        for _ in range(min(pieces, len(self.pieces))):
            self._gate.release()

    async def __call__(self) -> AsyncIterator[str]:
        self.asked += 1
        return self._say()

    async def _say(self) -> AsyncIterator[str]:
        try:
            for piece in self.pieces:
                await self._gate.acquire()
                yield piece
        finally:
            self.closed.set()


async def until(truth: Callable[[], Any], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not truth():  # noqa: ASYNC110 - whatever it is, nobody tells
            await asyncio.sleep(0.01)


class Cable:
    """A store, and the line to it, which can be cut."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.shared = store.shared
        self.cut = False
        self.slow = 0.0  # seconds that an answer takes
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.slow and name != "aclose":
                await asyncio.sleep(self.slow)
            if self.cut and name != "aclose":
                raise StoreUnreachableError("cut")
            return await getattr(self._store, name)(*args, **kwargs)

        return call


async def kill(home: Generations) -> None:
    """What is left of a worker that was killed: nothing, at once."""
    for work in list(home._running.values()):
        work._beating.cancel()
        work._handed_on = True
        work.task.cancel()
        await asyncio.wait([work.task])
