"""What a request for a stream gets: a new answer, the rest of one, or a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..errors import ConfigurationError
from .feeds import Feed, LiveFeed, SinglePartFeed
from .generations import Generation, Generations
from .parts import LOST, EndPart, EndReason, Part
from .source import SourceReader
from .sse import EventId

GONE = 204  # makes an EventSource stop asking (HTML standard, section 9.2.3)
NOT_FOUND = 404  # for who may not read, and does not get to know why

Select = Callable[[Part], Part | None]
"""What of an answer is sent: a part as it is, another one in its place, or None."""


class EventStreamSetup:
    """A source, and how it is to be served: to be opened for a request.

    Args:
        source: as for `SSEResponse`.
        resumable: whether the answer outlives its connection, or where it is kept.
        owner: whose answer it is, where it is resumable.
        payload: what another worker needs to go on with it, where it is resumable.
        replays: whether a reader who comes back gets all of it again.

    Raises:
        ConfigurationError: for a source that cannot be served in this way.
    """

    def __init__(
        self,
        source: Any,
        resumable: bool | Generations | None = False,
        owner: str | None = None,
        payload: Any = None,
        *,
        replays: bool = False,
    ) -> None:
        resumable = resumable or False
        self._generation = source if isinstance(source, Generation) else None
        self._resumable, self._owner, self._payload, self._replays = resumable, owner, payload, replays
        self._check(source)
        self._source = source
        self._answer = SourceReader(source) if self._generation is None and resumable is False else None

    def _check(self, source: Any) -> None:
        if self._resumable is not False and (self._generation is not None or not callable(source)):
            raise ConfigurationError(
                "A resumable stream asks only once, however often its reader comes back. Pass what it shall ask as a "
                "function: SSEResponse(lambda: engine.astream_chat(question), resumable=True)."
            )
        if self._resumable is False and not (self._owner is None and self._payload is None):
            raise ConfigurationError(
                "owner and payload belong to a resumable stream: SSEResponse(..., resumable=generations, owner=...), "
                "or generations.start(..., owner=...)."
            )

    async def open(self, last_event_id: str, request: Any) -> Feed | None:
        """What is sent; None where the reader has had the last of it."""
        at = EventId.parse(last_event_id)
        if self._generation is not None:
            if self._replays:
                return _rest(Generation(self._generation.generations, self._generation.id), request)
            return _rest(self._generation.later(at), request)
        if at is not None and at.over:
            await self.discard()
            return None
        if self._resumable is not False:
            return await self._resumed(at, request)
        assert self._answer is not None, "made where there is no generation"
        if at is None:
            return LiveFeed(self._answer)
        await self.discard()
        return SinglePartFeed(EndPart(LOST, EndReason.NOT_RESUMABLE, retryable=True))

    async def _resumed(self, at: EventId | None, request: Any) -> Feed | None:
        home = self._resumable if isinstance(self._resumable, Generations) else _kept_here()
        if at is None:
            return home.whole(await home.start(self._source, owner=self._owner, payload=self._payload))
        return _rest(Generation(home, at.generation, at), request)

    async def discard(self) -> None:
        """Nobody shall have it."""
        if self._answer is not None:
            await self._answer.leave()


def _rest(generation: Generation, request: Any) -> Feed | None:
    return None if generation.read else generation.generations.feed(generation, request)


_kept: dict[asyncio.AbstractEventLoop, Generations] = {}


def _kept_here() -> Generations:
    """Of this loop: what runs on one that is closed is gone with it, as in tests, which have a loop each."""
    loop = asyncio.get_running_loop()
    if loop not in _kept:
        for other in [other for other in _kept if other.is_closed()]:
            del _kept[other]
        _kept[loop] = Generations()
    return _kept[loop]
