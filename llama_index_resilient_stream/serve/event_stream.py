"""What one connection is sent: events, as they come, and nothing in between but heartbeats."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from ..errors import ConfigurationError, StreamInterruptedError
from ..report import StreamStatus
from .parts import EndPart, Part, TextPart
from .source import SourceReader
from .sse import HEARTBEAT, EventId, ServerSentEvent, event_of


class Feed(Protocol):
    """Events for one reader."""

    @property
    def over(self) -> bool:
        """Whether the last event has been taken."""

    async def take(self, seconds: float) -> Sequence[ServerSentEvent]:
        """All events that have come; none when `seconds` are over."""

    async def leave(self) -> None:
        """The reader has gone, or has got everything."""


class LiveFeed:
    """Of an answer that lives as long as its connection."""

    def __init__(self, answer: SourceReader) -> None:
        self._answer = answer
        self._count = 0

    @property
    def over(self) -> bool:
        """Whether the last event has been taken."""
        return self._answer.over

    async def take(self, seconds: float) -> list[ServerSentEvent]:
        return [self._event(part) for part in await self._answer.take(seconds)]

    def _event(self, part: Part) -> ServerSentEvent:
        self._count += 1
        return event_of(part, EventId(self._count, over=isinstance(part, EndPart)))

    async def leave(self) -> None:
        await self._answer.leave()


class SingleEventFeed:
    """One event, for whoever comes back to what is not there."""

    def __init__(self, end: EndPart) -> None:
        self._end = end
        self.over = False

    async def take(self, seconds: float) -> list[ServerSentEvent]:
        self.over = True
        return [event_of(self._end, EventId(0, over=True))]

    async def leave(self) -> None:
        pass


async def written(feed: Feed, heartbeat: float, retry: int | None = None) -> AsyncGenerator[bytes, None]:
    """The bytes of an event stream, beginning at once: what proxies hold back until the first byte, they let go."""
    yield HEARTBEAT if retry is None else f"retry: {retry}\n".encode() + HEARTBEAT
    while not feed.over:
        events = await feed.take(heartbeat)
        yield b"".join(event.encode() for event in events) or HEARTBEAT


async def texts(answer: SourceReader, note: str) -> AsyncGenerator[bytes, None]:
    """The bytes of a plain text. Raises StreamInterruptedError, after the note, for an answer that is not whole."""
    while True:
        parts = await answer.take()
        if text := "".join(part.text for part in parts if isinstance(part, TextPart)):
            yield text.encode("utf-8", "replace")
        if isinstance(end := parts[-1], EndPart):
            break
    if end.status == StreamStatus.INTERRUPTED:
        yield note.encode()
        raise StreamInterruptedError("The answer was interrupted, and so is its transfer.", reason=end.reason)


def check_heartbeat(seconds: float) -> None:
    """Raises ConfigurationError."""
    if not seconds > 0:
        raise ConfigurationError(f"heartbeat is {seconds!r}. It is in seconds, and more than 0: heartbeat=15.")
