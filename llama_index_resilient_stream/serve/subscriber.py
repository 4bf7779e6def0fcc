"""What is kept of a generation, and what is added to it, for one reader who may be anywhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from ..streaming.scope import Scope
from .parts import EXPIRED, LOST, EndPart, EndReason, Part
from .producer import BEAT, GenerationSettings
from .sse import EventId, ServerSentEvent, event_of
from .store import FencedError, GenerationState, MissingError, StoreUnreachableError, Ticket

LOOK = 0.4  # seconds, at most, between two signs of life of a reader


class StoredFeed:
    """Events from some point on.

    Args:
        after: how many events the reader has.
        adopt: looks after a generation whose worker is gone.
        may: whether this reader may read, where that could not be asked yet: its ticket was not to be found.
    """

    def __init__(
        self,
        settings: GenerationSettings,
        key: str,
        after: int,
        *,
        adopt: Callable[[str], Awaitable[None]],
        may: Callable[[Ticket], Awaitable[bool]] | None = None,
    ) -> None:
        self._settings, self._key, self._after = settings, key, after
        self._adopt, self._may = adopt, may
        self._state: GenerationState | None = None
        self._looked_at = 0.0
        self._missing_since: float | None = None
        self._unreachable_since: float | None = None
        self._orphaned_since: float | None = None
        self._settled_at = 0.0
        self._scope = Scope()

    @property
    def over(self) -> bool:
        """Whether the last event has been taken."""
        return self._scope.over

    @property
    def elsewhere(self) -> bool:
        """Whether another process has it too."""
        return self._settings.store.shared

    async def take(self, seconds: float) -> list[ServerSentEvent]:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            try:
                events = await self._look(min(left, LOOK))
            except StoreUnreachableError:
                events = await self._unreachable(min(left, BEAT))
            if events:
                return events
        return []

    async def _look(self, seconds: float) -> list[ServerSentEvent]:
        state = await self._attend()
        if state is GenerationState.MISSING:
            return await self._missing(seconds)
        self._missing_since, self._state = None, state
        if not await self._allowed():
            return self._last_event(EndPart(EXPIRED))  # as for whoever asks for what is not there
        if state is GenerationState.ORPHANED:
            seconds = await self._orphaned(seconds)
        else:
            self._orphaned_since = None
        entries = await self._settings.store.read(self._key, self._after, seconds)
        if not entries:
            self._looked_at = float("-inf")  # look again, before anything is read again
        if not entries and state is GenerationState.OVER:
            return self._last_event(EndPart(EXPIRED))  # the reader has had all of it
        if entries and entries[0][0] != self._after + 1:
            return self._last_event(EndPart(LOST, EndReason.STORE_LOST, retryable=True))
        return [self._event(number, part) for number, part in entries]

    async def _attend(self) -> GenerationState:
        """Not for every token."""
        now = asyncio.get_running_loop().time()
        if self._state is GenerationState.RUNNING and now - self._looked_at < LOOK:
            return self._state
        state = await self._settings.store.attend(self._key)
        if self._unreachable_since is not None:
            self._unreachable_since, self._settled_at = None, now + self._settings.lease
        if state is GenerationState.RUNNING:
            self._looked_at = now
        return state

    async def _orphaned(self, seconds: float) -> float:
        """How long to wait for news. A worker could not renew its lease while the store was away: it goes first."""
        now = asyncio.get_running_loop().time()
        self._orphaned_since = self._orphaned_since or now
        left = max(self._orphaned_since + self._settings.beat, self._settled_at) - now
        if left <= 0:
            with contextlib.suppress(FencedError, MissingError):  # others may be quicker
                await self._adopt(self._key)
        return min(seconds, left) if left > 0 else seconds

    async def _allowed(self) -> bool:
        if self._may is None:
            return True
        ticket = await self._settings.store.ticket(self._key)
        if ticket is None or not await self._may(ticket):
            return False
        self._may = None
        return True

    def _event(self, number: int, part: Part) -> ServerSentEvent:
        self._after = number
        if isinstance(part, EndPart):
            self._scope.finish(part.status)
        return event_of(part, EventId(number, self._key, self.over))

    async def _missing(self, seconds: float) -> list[ServerSentEvent]:
        """A store that was restarted empty is filled again by the worker with its next beat, if the worker lives."""
        now = asyncio.get_running_loop().time()
        self._missing_since = self._missing_since or now
        if not self.elsewhere or now - self._missing_since > max(self._settings.lease, 3 * BEAT):
            lost = self._state is not None and self._state is not GenerationState.OVER
            return self._last_event(EndPart(LOST, EndReason.STORE_LOST, retryable=True) if lost else EndPart(EXPIRED))
        await asyncio.sleep(min(seconds, BEAT / 2))
        return []

    async def _unreachable(self, seconds: float) -> list[ServerSentEvent]:
        now = asyncio.get_running_loop().time()
        self._unreachable_since = self._unreachable_since or now
        if now - self._unreachable_since > self._settings.grace:
            return self._last_event(EndPart(LOST, EndReason.STORE_UNREACHABLE, retryable=True))
        await asyncio.sleep(seconds)
        return []

    def _last_event(self, end: EndPart) -> list[ServerSentEvent]:
        self._scope.finish(end.status)
        return [event_of(end, EventId(self._after, self._key, True))]

    async def leave(self) -> None:
        """The generation goes on: its worker will notice when nobody comes back."""
