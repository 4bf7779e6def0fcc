"""What is kept of a generation, and what is added to it, for one reader who may be anywhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from ..streaming.scope import Scope
from ..streaming.sleeper import Sleeper
from .feeds import Feed, Sent
from .parts import EXPIRED, LOST, EndPart, EndReason, Part
from .permission import Permission
from .producer import BEAT, GenerationSettings, Producer
from .sse import EventId
from .store import FencedError, GenerationState, MissingError, Store, StoreFullError, StoreUnreachableError

LOOK = 0.4  # seconds, at most, between two signs of life of the readers here


class Look:
    """How a generation stands, for all of its readers in this process."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._state: GenerationState | None = None
        self._looked_at = 0.0
        self._looking = asyncio.Lock()

    async def state(self) -> GenerationState:
        """It, and the readers are there. The store is not asked for every token, nor by every reader."""
        if self._is_fresh():
            return GenerationState.RUNNING
        async with self._looking:
            if not self._is_fresh():
                self._state = await self._store.attend(self._key)
                self._looked_at = asyncio.get_running_loop().time()
            assert self._state is not None, "the store says so"
            return self._state

    def _is_fresh(self) -> bool:
        is_recent = asyncio.get_running_loop().time() - self._looked_at < LOOK
        return is_recent and self._state is GenerationState.RUNNING


class StoredFeed(Feed):
    """Parts from some point on: from the process that makes them, if it is this one, and from the store else.

    Args:
        look: how the generation stands.
        after: how many parts the reader has.
        here: who makes it, if that is in this process.
        adopt: looks after a generation whose worker is gone.
        permission: whether this reader may read; None: it may.
    """

    def __init__(
        self,
        settings: GenerationSettings,
        key: str,
        after: int,
        *,
        look: Look,
        here: Callable[[str], Producer | None],
        adopt: Callable[[str], Awaitable[None]],
        permission: Permission | None = None,
    ) -> None:
        self._settings, self._key, self._after, self._shared_look = settings, key, after, look
        self._here, self._adopt, self._permission = here, adopt, permission
        self._producer: Producer | None = None
        self._sleeper = Sleeper()
        self._is_known = after == 0
        self._ahead_since: float | None = None
        self._was_there = False
        self._missing_since: float | None = None
        self._outage: StoreUnreachableError | None = None
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
                sent = await self._look(left)
            except StoreUnreachableError as error:
                sent = await self._unreachable(error, min(left, BEAT))
            if sent:
                return sent
        return []

    async def _look(self, seconds: float) -> list[Sent]:
        if self._permission is not None and not await self._may_read(self._permission, min(seconds, LOOK)):
            return self._last_part(EndPart(EXPIRED)) if self.refused else []
        if (producer := self._join()) is not None:
            return await self._read_here(producer, seconds)
        return await self._read(min(seconds, LOOK))

    # In this process

    def _join(self) -> Producer | None:
        if self._producer is None and (found := self._here(self._key)) is not None and not found.gone:
            self._producer = found
            found.join(self._sleeper)
        return self._producer

    async def _read_here(self, producer: Producer, seconds: float) -> list[Sent]:
        parts = await producer.read(self._sleeper, self._after, seconds)
        if parts:
            return [(self._id(number, part), part) for number, part in enumerate(parts, self._after + 1)]
        if producer.gone:
            self._part_from(producer)
            if self._after > producer.stored:  # whoever goes on does not know what this reader has been shown
                return self._lost(EndReason.STORE_LOST)
        elif producer.over and self._after >= producer.count:
            return self._last_part(EndPart(EXPIRED))  # the reader has had all of it
        elif self._after > producer.count:
            return self._lost(EndReason.STORE_LOST)
        return []

    def _part_from(self, producer: Producer) -> None:
        self._producer = None
        producer.leave(self._sleeper)
        self._sleeper.close()

    # From the store

    async def _read(self, seconds: float) -> list[Sent]:
        full: StoreUnreachableError | None = None
        try:
            state = await self._shared_look.state()
        except StoreFullError as error:
            state, full = GenerationState.RUNNING, error
        self._settle()
        if state is GenerationState.MISSING:
            return await self._missing(seconds)
        self._missing_since, self._was_there = None, state is not GenerationState.OVER
        if state is GenerationState.ORPHANED:
            seconds = await self._orphaned(seconds)
        else:
            self._orphaned_since = None
        if not await self._has_reader_at():
            return await self._ahead(state, seconds)
        entries = await self._settings.store.read(self._key, self._after, seconds)
        if not entries and full is not None:
            raise full
        self._outage = self._unreachable_since = None
        return self._sent(entries, state)

    def _sent(self, entries: Sequence[tuple[int, Part]], state: GenerationState) -> list[Sent]:
        if not entries and state is GenerationState.OVER:
            return self._last_part(EndPart(EXPIRED))  # the reader has had all of it
        if entries and entries[0][0] != self._after + 1:
            return self._lost(EndReason.STORE_LOST)
        return [(self._id(number, part), part) for number, part in entries]

    async def _has_reader_at(self) -> bool:
        """Whether what the reader has seen is stored: a worker shows it all the same while the store is away."""
        if not self._is_known:
            self._is_known = bool(await self._settings.store.read(self._key, self._after - 1, 0))
        return self._is_known

    async def _ahead(self, state: GenerationState, seconds: float) -> list[Sent]:
        """The reader has seen more than is stored. Its worker has the rest, unless it is gone."""
        now = asyncio.get_running_loop().time()
        self._ahead_since = self._ahead_since or now
        if state is GenerationState.OVER:
            return self._last_part(EndPart(EXPIRED))
        if now - self._ahead_since > max(self._settings.lease, 3 * BEAT):
            return self._lost(EndReason.STORE_LOST)
        await asyncio.sleep(min(seconds, BEAT / 2))
        return []

    def _settle(self) -> None:
        """The store is there again, and the worker comes first."""
        if self._unreachable_since is not None and not isinstance(self._outage, StoreFullError):
            self._settled_at = asyncio.get_running_loop().time() + self._settings.lease
            self._outage = self._unreachable_since = None

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
            return self._lost(EndReason.STORE_LOST) if self._was_there else self._last_part(EndPart(EXPIRED))
        await asyncio.sleep(min(seconds, BEAT / 2))
        return []

    async def _unreachable(self, error: StoreUnreachableError, seconds: float) -> list[Sent]:
        now = asyncio.get_running_loop().time()
        self._outage = error
        self._unreachable_since = self._unreachable_since or now
        if now - self._unreachable_since > self._settings.grace:
            is_full = isinstance(error, StoreFullError)
            return self._lost(EndReason.STORE_FULL if is_full else EndReason.STORE_UNREACHABLE)
        await asyncio.sleep(seconds)
        return []

    def _lost(self, reason: EndReason) -> list[Sent]:
        return self._last_part(EndPart(LOST, reason, retryable=True))

    def _last_part(self, end: EndPart) -> list[Sent]:
        self._scope.finish(end.status)
        return [(EventId(self._after, self._key, True), end)]

    async def leave(self) -> None:
        """The generation goes on: its worker will notice when nobody comes back."""
        if self._producer is not None:
            self._part_from(self._producer)
        if self._permission is not None:
            await self._permission.leave()
