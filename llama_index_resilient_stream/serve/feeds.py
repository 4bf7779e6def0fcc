"""What one connection is sent, as parts with the ids that its reader comes back with."""

from __future__ import annotations

from collections.abc import Sequence

from .parts import EndPart, Part
from .source import SourceReader
from .sse import EventId

Sent = tuple[EventId, Part]
"""A part, and the id after it."""


class Feed:
    """Parts for one reader."""

    decided: bool = True
    """Whether it is known that this reader may read. What is not allowed is answered like what is not there."""
    refused: bool = False
    """Whether this reader may not read, or there is nothing: nobody gets to know which."""
    elsewhere: bool = False
    """Whether another process has it too."""

    @property
    def over(self) -> bool:
        """Whether the last part has been taken."""
        raise NotImplementedError

    async def take(self, seconds: float) -> Sequence[Sent]:
        """All parts that have come; none when `seconds` are over."""
        raise NotImplementedError

    async def leave(self) -> None:
        """The reader has gone, or has got everything."""


class LiveFeed(Feed):
    """Of an answer that lives as long as its connection."""

    def __init__(self, answer: SourceReader) -> None:
        self._answer = answer
        self._count = 0

    @property
    def over(self) -> bool:
        return self._answer.over

    async def take(self, seconds: float) -> list[Sent]:
        return [(self._id(part), part) for part in await self._answer.take(seconds)]

    def _id(self, part: Part) -> EventId:
        self._count += 1
        return EventId(self._count, over=isinstance(part, EndPart))

    async def leave(self) -> None:
        await self._answer.leave()


class SinglePartFeed(Feed):
    """The end alone, for whoever comes back to what is not there."""

    def __init__(self, end: EndPart) -> None:
        self._end = end
        self._taken = False

    @property
    def over(self) -> bool:
        return self._taken

    async def take(self, seconds: float) -> list[Sent]:
        self._taken = True
        return [(EventId(0, over=True), self._end)]
