"""One generation while this process is at work on it: from the source into the store, and to the readers here.

Readers in this process are given the parts from here, and not from the store. They see a part when the store has it: a
worker that takes over goes on from what is stored, and must not contradict what somebody has read. Where the store does
not take parts, because it is away, full or slow, they see them all the same, and the store gets them later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..report import StreamStatus
from ..streaming.scope import Scope
from ..streaming.sleeper import Sleeper
from .parts import EndPart, EndReason, Part, RecoveryPart
from .source import SourceReader
from .store import FencedError, MissingError, Pulse, Store, StoreError, StoreUnreachableError, Ticket

logger = logging.getLogger("llama_index_resilient_stream")

BEAT = 0.5  # seconds, at most, until a request to stop is heard by another worker
_HEED = 1.0  # seconds that a source gets to end when it has been stopped
_END = 5.0  # seconds that the end of it gets to reach the store when the process ends
_HOLD = 1.0  # seconds that a part is held back for a store that takes its time


@dataclass(frozen=True)
class GenerationSettings:
    """On which a generation runs; see `Generations`."""

    store: Store
    ttl: float
    grace: float
    lease: float
    limit: int

    @property
    def beat(self) -> float:
        """Seconds between two signs of life of a worker."""
        return min(BEAT, self.lease / 3, self.grace)


class Producer:
    """`run()` is its task; everything else may be called beside it.

    Args:
        parts: what is in the store already, of a generation that is taken over.
    """

    def __init__(
        self,
        settings: GenerationSettings,
        ticket: Ticket,
        source: SourceReader,
        epoch: int,
        parts: Sequence[Part] = (),
    ) -> None:
        self.ticket = ticket
        self._settings, self._source, self._epoch = settings, source, epoch
        self._parts = list(parts)
        self._stored = self._visible = len(self._parts)
        self._attempts = sum(isinstance(part, RecoveryPart) for part in parts)
        self._writing = asyncio.Lock()
        self._outage: StoreUnreachableError | None = None
        self._ending: EndPart | None = None
        self._lease = Scope()  # cancelled when it is somebody else's: nothing is written any more
        self._stopping: asyncio.Task[None] | None = None
        self._heed_until = float("inf")
        self._readers: set[Sleeper] = set()
        self._loop = asyncio.get_running_loop()
        self._attended = self._heard = self._loop.time()
        self._task = asyncio.ensure_future(self._run())
        self._beating = asyncio.ensure_future(self._beat())

    @property
    def task(self) -> asyncio.Task[None]:
        """Done when the generation is over, here."""
        return self._task

    # For readers in this process

    @property
    def over(self) -> bool:
        """Whether the last part is there."""
        return bool(self._parts) and isinstance(self._parts[-1], EndPart)

    @property
    def gone(self) -> bool:
        """Whether no more of it comes from here, and the store knows better."""
        return self._lease.cancelled or (self._task.done() and not self.over)

    @property
    def count(self) -> int:
        """How many parts there are."""
        return len(self._parts)

    @property
    def stored(self) -> int:
        """How many parts the store has."""
        return self._stored

    def join(self, reader: Sleeper) -> None:
        """A reader is there, until it leaves."""
        self._readers.add(reader)

    def leave(self, reader: Sleeper) -> None:
        """A reader that had joined is gone."""
        self._readers.discard(reader)
        self._attended = self._loop.time()

    async def read(self, reader: Sleeper, after: int, seconds: float) -> list[Part]:
        """The parts after number `after`; waits up to `seconds` for the next one."""
        if self._visible <= after and not self.gone:
            await reader.wait(self._loop.time() + seconds)
        return self._parts[after : self._visible]

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()

    def _show(self, count: int) -> None:
        if count > self._visible:
            self._visible = count
            self._wake()

    # For whoever runs it

    async def stop(self) -> None:
        """Stop the source. Returns when it has been told so."""
        await asyncio.wait([self._tell_to_stop()])

    def _tell_to_stop(self) -> asyncio.Task[None]:
        # Beside whoever asks: a beat that waited for a source that is slow to stop would lose the lease meanwhile.
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        return self._stopping

    async def _stop(self) -> None:
        try:
            await self._source.stop()
        except Exception:
            logger.exception("generation %s... could not be stopped", self.ticket.id[:4])
        self._heed_until = self._loop.time() + _HEED

    async def end(self, *, hand_on: bool) -> None:
        """The process ends: with a word to the readers, or by leaving the rest to another worker."""
        if self._task.done():
            return
        self._ending = EndPart(StreamStatus.INTERRUPTED, EndReason.SERVER, retryable=True)
        if hand_on:
            self._let_go()
            with contextlib.suppress(StoreError):
                await self._settings.store.release(self.ticket.id, self._epoch)
        await self.stop()
        if not hand_on:
            await asyncio.wait([self._task], timeout=_END)
        self._task.cancel()
        await asyncio.wait([self._task])

    def _let_go(self) -> None:
        """It is another worker's now."""
        self._lease.cancel()
        self._beating.cancel()
        self._wake()

    async def _run(self) -> None:
        name = f"{self.ticket.id[:4]}..."
        try:
            while not self.over:
                if parts := await self._take():
                    self._parts += parts
                    if self._outage is None:
                        await self._write()
                    else:
                        self._show(len(self._parts))
            await self._source.leave()  # what it holds is not needed, however long the store takes
            await self._written()
        except FencedError:
            self._let_go()
            logger.warning("generation %s went on elsewhere", name)
        except StoreError as error:
            logger.error("generation %s is given up: %s", name, error)
        except Exception:
            logger.exception("generation %s failed", name)
        finally:
            self._beating.cancel()
            self._wake()
            await self._source.leave()

    async def _take(self) -> list[Part]:
        parts = await self._source.take(BEAT)
        if not parts and self._loop.time() > self._heed_until:
            parts = [EndPart(StreamStatus.CANCELLED)]  # the source does not end; its readers need not wait for that
        if not parts:
            return []
        if self._attempts:  # those of the workers before are attempts as well
            parts = [self._counted(part) for part in parts]
        last = parts[-1]
        room = max(0, self._settings.limit - 1 - len(self._parts))
        if len(parts) - isinstance(last, EndPart) > room:
            return [*parts[:room], EndPart(StreamStatus.INTERRUPTED, EndReason.TOO_LONG)]
        if isinstance(last, EndPart):
            parts[-1] = self._end_of(last)
        return parts

    def _end_of(self, last: EndPart) -> EndPart:
        """What stopped a source that was stopped may be that the process ends."""
        return self._ending if self._ending is not None and last.status == StreamStatus.CANCELLED else last

    def _counted(self, part: Part) -> Part:
        return replace(part, attempt=part.attempt + self._attempts) if isinstance(part, RecoveryPart) else part

    # The store

    async def _write(self) -> None:
        """Give the store what it has not got yet; where it does not take it, the readers here need not wait for it."""
        async with self._writing:
            if self._lease.cancelled:
                raise FencedError("This worker has handed the generation on.")
            upto = len(self._parts)
            try:
                if self._settings.store.shared and self._outage is None:
                    async with asyncio.timeout(_HOLD):
                        await self._append(upto)
                else:
                    await self._append(upto)
            except StoreUnreachableError as error:
                self._missed(error)
            except TimeoutError:
                self._missed(StoreUnreachableError("The store takes its time."))
            else:
                self._stored = upto
                self._show(upto)

    async def _append(self, upto: int) -> None:
        try:
            parts = self._parts[self._stored : upto]
            pulse = await self._settings.store.append(self.ticket.id, self._epoch, self._stored + 1, parts)
        except MissingError:  # the store has forgotten, and we have not
            await self._put_back(upto)
        else:
            self._listen(pulse)

    async def _put_back(self, upto: int) -> None:
        settings = self._settings
        parts = self._parts[:upto]
        await settings.store.create(self.ticket, self._epoch, parts, lease=settings.lease, ttl=settings.ttl)
        self._listen(Pulse(stop=False, attended=True))  # who reads is not known yet

    async def _written(self) -> None:
        """Wait until the store has all of it; for no longer than `grace` when nobody reads any more."""
        while self._stored < len(self._parts):
            self._check_attendance()
            if self._outage is not None and self._loop.time() - self._attended > self._settings.grace:
                raise self._outage
            await asyncio.sleep(self._settings.beat / 2)  # the beat writes

    def _missed(self, error: StoreUnreachableError) -> None:
        """The store does not take parts: nobody can tell whether somebody reads elsewhere, and gets a `grace` anew."""
        if self._outage is None:
            self._attended = self._loop.time()
        self._outage = error
        self._show(len(self._parts))

    def _listen(self, pulse: Pulse) -> None:
        """What the store says, which is there."""
        self._heard = self._loop.time()
        if pulse.attended or self._outage is not None:
            self._attended = self._heard
        self._outage = None
        if pulse.stop:
            self._tell_to_stop()

    def _check_attendance(self) -> None:
        if self._readers:
            self._attended = self._loop.time()

    async def _beat(self) -> None:
        """Renew the lease; stop when somebody asks to, or when nobody reads any more."""
        settings = self._settings
        while True:
            await asyncio.sleep(self._until_next_beat())
            try:
                await self._give_sign_of_life()
            except FencedError:
                self._lease.cancel()
                self._wake()
                self._tell_to_stop()
                return
            self._check_attendance()
            if self._loop.time() - self._attended > settings.grace:
                self._tell_to_stop()

    def _until_next_beat(self) -> float:
        beat = self._settings.beat
        return beat if self._outage is not None else max(beat / 5, self._heard + beat - self._loop.time())

    async def _give_sign_of_life(self) -> None:
        """Writing is one. So is catching up after an outage."""
        if self._writing.locked():
            return
        if self._stored < len(self._parts):
            await self._write()
        elif self._loop.time() - self._heard >= self._settings.beat:
            try:
                self._listen(await self._settings.store.beat(self.ticket.id, self._epoch))
            except StoreUnreachableError as error:
                self._missed(error)
            except MissingError:
                async with self._writing:
                    with contextlib.suppress(StoreUnreachableError):
                        await self._put_back(self._stored)
