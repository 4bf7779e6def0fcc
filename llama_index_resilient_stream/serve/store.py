"""Where the parts of a generation are kept for readers who come back, and who is at work on it.

`MemoryStore` is for one process. For several there is `serve.redis.RedisStore`. A generation belongs to one worker at a
time: it holds a lease, renews it with every `beat`, and writes under an epoch. A worker that was taken for dead and is
not is fenced off: its epoch is past.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from ..errors import ConfigurationError, ResilientStreamError
from .parts import EndPart, Part, TextPart, to_json
from .waiting import Waiting

__all__ = [
    "FencedError",
    "GenerationState",
    "MemoryStore",
    "MissingError",
    "Pulse",
    "Store",
    "StoreError",
    "StoreFullError",
    "StoreUnreachableError",
    "Ticket",
]

PRESENCE = 2.5  # seconds that a reader counts as present after it was last heard of


@dataclass(frozen=True, slots=True)
class Ticket:
    """What is known of a generation besides its text. `owner` and `payload` are the application's own."""

    id: str
    owner: str | None = None
    payload: Any = field(default=None, repr=False)
    """JSON-able: what another worker needs to go on with it."""


class GenerationState(StrEnum):
    """How a generation stands, as a reader sees it."""

    RUNNING = "running"
    ORPHANED = "orphaned"
    """Not over, and nobody holds its lease."""
    OVER = "over"
    MISSING = "missing"
    """Expired, or never there."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a worker learns when it renews its lease."""

    stop: bool
    """Somebody asked to stop."""
    attended: bool
    """A reader is there."""


class StoreError(ResilientStreamError):
    """Base of what a store raises."""


class StoreUnreachableError(StoreError):
    """For now: trying again may help."""


class StoreFullError(StoreUnreachableError):
    """It takes no more parts for now. What is there can be read."""


class FencedError(StoreError):
    """Another worker has taken this generation over."""


class MissingError(StoreError):
    """The store has lost, or never had, this generation."""


class Store(Protocol):
    """Every method but `read` answers at once. All may raise StoreUnreachableError.

    Parts are numbered from 1. Times are in seconds.
    """

    shared: bool
    """Whether other processes see it."""

    async def open(self) -> None:
        """Make sure that it can be used; called when the application starts.

        Raises ConfigurationError for what never will do, and StoreUnreachableError.
        """

    async def create(self, ticket: Ticket, epoch: int, parts: Sequence[Part] = (), *, lease: float, ttl: float) -> None:
        """Begin; or put back, all at once, what the store has lost. What is there of this epoch stays.

        Raises FencedError.
        """

    async def append(self, key: str, epoch: int, first: int, parts: Sequence[Part]) -> Pulse:
        """Add parts, `first` being the number of the first; what is there already is not added twice. Renew the lease.

        After an `EndPart` the generation is over and lives for its time to live. Raises FencedError and MissingError;
        the latter also where a gap would be left, and what is there is older than `epoch`: then it is to be put back.
        """

    async def beat(self, key: str, epoch: int) -> Pulse:
        """Renew the lease. Raises FencedError and MissingError."""

    async def release(self, key: str, epoch: int) -> None:
        """Give the lease up, for another worker to take. The epoch is past with it."""

    async def claim(self, key: str) -> int | None:
        """Take the lease of a generation that nobody holds: the new epoch. None: somebody does, or it is over."""

    async def ticket(self, key: str) -> Ticket | None:
        """What is known of a generation; None where it expired or never was."""

    async def read(self, key: str, after: int, seconds: float) -> list[tuple[int, Part]]:
        """The parts after number `after`; waits up to `seconds` for the next one."""

    async def attend(self, key: str) -> GenerationState:
        """A reader is there. Raises StoreFullError where that cannot be noted; what is there can be read even then."""

    async def stop(self, key: str) -> bool:
        """Ask whoever is at work to stop. Whether there is such a generation, and it goes on."""

    async def aclose(self) -> None:
        """Let go of connections and of what is kept in this process. Nothing is called after it."""


@dataclass
class _Stored:
    ticket: Ticket
    epoch: int
    lease: float
    ttl: float
    parts: list[Part] = field(default_factory=list)
    size: int = 0
    lease_until: float = 0.0
    seen_until: float = 0.0
    lives_until: float = 0.0
    stop: bool = False
    expiry: asyncio.TimerHandle | None = None
    waiting: Waiting = field(default_factory=Waiting)

    @property
    def over(self) -> bool:
        return bool(self.parts) and isinstance(self.parts[-1], EndPart)


class MemoryStore(Store):
    """Everything in this process, on one event loop at a time.

    Args:
        max_bytes: of all answers together. Above it finished ones are forgotten, the oldest first; answers that are
            still being generated go on, and cannot be read again at their end where nothing is left to forget.
    """

    shared = False

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        if not max_bytes > 0:
            raise ConfigurationError(f"max_bytes is {max_bytes!r}. It is more than 0: MemoryStore(max_bytes=2**28).")
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: dict[str, _Stored] = {}

    async def open(self) -> None:
        pass

    async def create(self, ticket: Ticket, epoch: int, parts: Sequence[Part] = (), *, lease: float, ttl: float) -> None:
        kept = self._find(ticket.id)
        if kept is not None and kept.epoch > epoch:
            raise FencedError("Another worker has taken this generation over.")
        if kept is None or kept.epoch < epoch:
            self._forget(ticket.id)
            kept = self._kept[ticket.id] = _Stored(ticket, epoch, lease, ttl)
        kept.lease_until = _now() + lease
        self._add(kept, 1, parts)

    async def append(self, key: str, epoch: int, first: int, parts: Sequence[Part]) -> Pulse:
        kept = self._held(key, epoch)
        if first > len(kept.parts) + 1:
            raise MissingError("What comes before this part is not in the store.")
        self._add(kept, first, parts)
        return self._renewed(kept)

    def _add(self, kept: _Stored, first: int, parts: Sequence[Part]) -> None:
        new = parts[len(kept.parts) + 1 - first :]
        size = sum(map(_size, new))
        if self._bytes + size > self._max_bytes:
            self._make_room(size)
        self._bytes += size
        kept.size += size
        kept.parts += new
        kept.waiting.wake()
        self._keep(kept)

    def _make_room(self, size: int) -> None:
        for key in [key for key, kept in self._kept.items() if kept.over]:
            if self._bytes + size <= self._max_bytes:
                return
            self._forget(key)
        if self._bytes + size > self._max_bytes:
            raise StoreFullError(f"The answers in memory have {self._max_bytes} bytes: MemoryStore(max_bytes=...).")

    def _renewed(self, kept: _Stored) -> Pulse:
        kept.lease_until = _now() + kept.lease
        return Pulse(kept.stop, kept.seen_until > _now())

    async def beat(self, key: str, epoch: int) -> Pulse:
        kept = self._held(key, epoch)
        self._keep(kept)
        return self._renewed(kept)

    async def release(self, key: str, epoch: int) -> None:
        kept = self._held(key, epoch)
        kept.epoch += 1
        kept.lease_until = 0.0

    async def claim(self, key: str) -> int | None:
        kept = self._find(key)
        if kept is None or kept.over or kept.lease_until > _now():
            return None
        kept.epoch += 1
        kept.lease_until = _now() + kept.lease
        return kept.epoch

    async def ticket(self, key: str) -> Ticket | None:
        kept = self._find(key)
        return None if kept is None else kept.ticket

    async def read(self, key: str, after: int, seconds: float) -> list[tuple[int, Part]]:
        kept = self._find(key)
        if kept is None:
            await asyncio.sleep(seconds)
            return []
        if len(kept.parts) <= after and not kept.over and seconds:
            await kept.waiting.wait(seconds)
        return list(enumerate(kept.parts[after:], after + 1))

    async def attend(self, key: str) -> GenerationState:
        kept = self._find(key)
        if kept is None:
            return GenerationState.MISSING
        kept.seen_until = _now() + PRESENCE
        if kept.over:
            return GenerationState.OVER
        return GenerationState.RUNNING if kept.lease_until > _now() else GenerationState.ORPHANED

    async def stop(self, key: str) -> bool:
        kept = self._find(key)
        if kept is None or kept.over:
            return False
        kept.stop = True
        return True

    async def aclose(self) -> None:
        for key in list(self._kept):
            self._forget(key)

    def _find(self, key: str) -> _Stored | None:
        kept = self._kept.get(key)
        return kept if kept is not None and kept.lives_until > _now() else None

    def _held(self, key: str, epoch: int) -> _Stored:
        kept = self._find(key)
        if kept is None or kept.epoch < epoch:
            raise MissingError("This generation is not in the store.")
        if kept.epoch > epoch:
            raise FencedError("Another worker has taken this generation over.")
        return kept

    def _keep(self, kept: _Stored) -> None:
        kept.lives_until = _now() + kept.ttl
        if kept.expiry is None:
            kept.expiry = asyncio.get_running_loop().call_later(kept.ttl, self._expire, kept)

    def _expire(self, kept: _Stored) -> None:
        """One timer for all of its life: what is kept longer with every part would be put off with every part."""
        if (left := kept.lives_until - _now()) > 0:
            kept.expiry = asyncio.get_running_loop().call_later(left, self._expire, kept)
        else:
            self._forget(kept.ticket.id)

    def _forget(self, key: str) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        self._bytes -= kept.size
        if kept.expiry is not None:
            kept.expiry.cancel()


def _size(part: Part) -> int:
    """Bytes in memory, roughly."""
    written = part.text if isinstance(part, TextPart) else to_json(part)
    return 64 + sys.getsizeof(written)


_now = time.monotonic  # the clocks of two loops may differ
