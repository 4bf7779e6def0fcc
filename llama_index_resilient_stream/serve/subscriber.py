"""What is kept of a generation, and what is added to it, for one reader who may be anywhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from ..streaming.scope import Scope
from .feeds import Feed, Sent
from .parts import EXPIRED, LOST, EndPart, EndReason, Part
from .permission import Permission
from .producer import BEAT, GenerationSettings
from .sse import EventId
from .store import FencedError, GenerationState, MissingError, StoreUnreachableError

LOOK = 0.4  # seconds, at most, between two signs of life of a reader


class StoredFeed(Feed):
    """Parts from some point on.

    Args:
        after: how many parts the reader has.
        adopt: looks after a generation whose worker is gone.
        permission: whether this reader may read; None: it may.
    """

    def __init__(
        self,
        settings: GenerationSettings,
        key: str,
        after: int,
        *,
        adopt: Callable[[str], Awaitable[None]],
        permission: Permission | None = None,
    ) -> None:
        self._settings, self._key, self._after = settings, key, after
        self._adopt, self._permission = adopt, permission
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
    def elsewhere(self) -> bool:  # type: ignore[override]
        """Whether another process has it too."""
        return self._settings.store.shared

    @property
    def decided(self) -> bool:  # type: ignore[override]
        """Whether it is known that this reader may read."""
        return self._permission is None

    async def take(self, seconds: float) -> Sequence[Sent]:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            try:
                sent = await self._look(min(left, LOOK))
            except StoreUnreachableError:
                sent = await self._unreachable(min(left, BEAT))
            if sent:
                return sent
        return []

    async def _look(self, seconds: float) -> list[Sent]:
        if self._permission is not None and not await self._may_read(self._permission, seconds):
            return self._last_part(EndPart(EXPIRED)) if self.refused else []
        return await self._read(seconds)

    async def _read(self, seconds: float) -> list[Sent]:
        state = await self._attend()
        if state is GenerationState.MISSING:
            return await self._missing(seconds)
        self._missing_since, self._state = None, state
        if state is GenerationState.ORPHANED:
            seconds = await self._orphaned(seconds)
        else:
            self._orphaned_since = None
        entries = await self._settings.store.read(self._key, self._after, seconds)
        if not entries:
            self._looked_at = float("-inf")  # look again, before anything is read again
        if not entries and state is GenerationState.OVER:
            return self._last_part(EndPart(EXPIRED))  # the reader has had all of it
        if entries and entries[0][0] != self._after + 1:
            return self._last_part(EndPart(LOST, EndReason.STORE_LOST, retryable=True))
        return [(self._id(number, part), part) for number, part in entries]

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

    async def _may_read(self, permission: Permission, seconds: float) -> bool:
        granted = await permission.granted(seconds)
        if granted is not None:
            self._permission = None
            self.refused = not granted
        return bool(granted)

    def _id(self, number: int, part: Part) -> EventId:
        self._after = number
        if isinstance(part, EndPart):
            self._scope.finish(part.status)
        return EventId(number, self._key, self.over)

    async def _missing(self, seconds: float) -> list[Sent]:
        """A store that was restarted empty is filled again by the worker with its next beat, if the worker lives."""
        now = asyncio.get_running_loop().time()
        self._missing_since = self._missing_since or now
        if not self.elsewhere or now - self._missing_since > max(self._settings.lease, 3 * BEAT):
            lost = self._state is not None and self._state is not GenerationState.OVER
            return self._last_part(EndPart(LOST, EndReason.STORE_LOST, retryable=True) if lost else EndPart(EXPIRED))
        await asyncio.sleep(min(seconds, BEAT / 2))
        return []

    async def _unreachable(self, seconds: float) -> list[Sent]:
        now = asyncio.get_running_loop().time()
        self._unreachable_since = self._unreachable_since or now
        if now - self._unreachable_since > self._settings.grace:
            return self._last_part(EndPart(LOST, EndReason.STORE_UNREACHABLE, retryable=True))
        await asyncio.sleep(seconds)
        return []

    def _last_part(self, end: EndPart) -> list[Sent]:
        self._scope.finish(end.status)
        return [(EventId(self._after, self._key, True), end)]

    async def leave(self) -> None:
        """The generation goes on: its worker will notice when nobody comes back."""
        if self._permission is not None:
            await self._permission.leave()
