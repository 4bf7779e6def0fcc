"""What a request for an event stream gets: a new answer, the rest of one, or a refusal."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigurationError
from .answer import Answer, End
from .feed import Farewell, Feed, LiveFeed
from .generations import Generation, Generations, StoredFeed
from .sse import EventId

GONE = 204  # makes an EventSource stop asking (HTML standard, section 9.2.3)
NOT_FOUND = 404  # also for who may not read: that there is such a generation is nobody else's business


class Opening:
    """A source, and how it is to be served: to be opened for a request.

    Raises ConfigurationError for a source that cannot be served in this way.
    """

    def __init__(self, source: Any, resumable: Generations | None = None, owner: str | None = None) -> None:
        self._generation = source if isinstance(source, Generation) else None
        self._resumable, self._owner = resumable, owner
        if resumable is not None and (self._generation is not None or not callable(source)):
            raise ConfigurationError(
                "A resumable stream asks only once, however often its reader comes back. Pass what it shall ask as a "
                "function: SSEResponse(lambda: engine.astream_chat(question), resumable=True)."
            )
        self._source = source
        self._answer = Answer(source) if self._generation is None and resumable is None else None

    async def open(self, last_event_id: str, request: Any) -> Feed | int:
        """What is sent, or the HTTP status that is answered instead."""
        at = EventId.parse(last_event_id)
        if at is not None and at.over:
            await self.discard()
            return GONE
        if self._generation is not None:
            return await _rest(self._generation, at, request)
        if self._resumable is not None:
            return await self._resumed(self._resumable, at, request)
        assert self._answer is not None, "made where there is no generation"
        if at is None:
            return LiveFeed(self._answer)
        await self.discard()
        return Farewell(End("lost", "not resumable", retryable=True))

    async def _resumed(self, home: Generations, at: EventId | None, request: Any) -> Feed | int:
        if at is not None:
            return await _rest(home.get(at.generation, after=at.count), at, request)
        return StoredFeed(home, await home.start(self._source, owner=self._owner), 0)

    async def discard(self) -> None:
        """Nobody shall have it."""
        if self._answer is not None:
            await self._answer.leave()


async def _rest(generation: Generation, at: EventId | None, request: Any) -> Feed | int:
    if at is not None and at.generation == generation.id and at.count > generation.after:
        generation = Generation(generation.generations, generation.id, at.count)
    return await generation.generations.feed(generation, request) or NOT_FOUND
