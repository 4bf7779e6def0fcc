"""One generation while this process is at work on it: from the source into the store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from ..report import StreamStatus
from ..streaming.scope import Scope
from .parts import EndPart, EndReason, Part, RecoveryPart
from .source import SourceReader
from .store import FencedError, MissingError, Pulse, Store, StoreError, StoreUnreachableError, Ticket

logger = logging.getLogger("llama_index_resilient_stream")

BEAT = 0.5  # seconds, at most, until a request to stop is heard by another worker
_HEED = 1.0  # seconds that a source gets to end when it has been stopped
_END = 5.0  # seconds that the end of it gets to reach the store when the process ends


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
        self._settings, self._ticket, self._source, self._epoch = settings, ticket, source, epoch
        self._parts = list(parts)
        self._attempts = sum(isinstance(part, RecoveryPart) for part in parts)
        self._writing = asyncio.Lock()
        self._ending: EndPart | None = None
        self._lease = Scope()  # cancelled when it was handed on: nothing is written any more
        self._stopping: asyncio.Task[None] | None = None
        self._heed_until = float("inf")
        self._task = asyncio.ensure_future(self._run())
        self._beating = asyncio.ensure_future(self._beat())

    @property
    def task(self) -> asyncio.Task[None]:
        """Done when the generation is over, here."""
        return self._task

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
            logger.exception("generation %s... could not be stopped", self._ticket.id[:4])
        self._heed_until = asyncio.get_running_loop().time() + _HEED

    async def end(self, *, hand_on: bool) -> None:
        """The process ends: with a word to the readers, or by leaving the rest to another worker."""
        if self._task.done():
            return
        self._ending = EndPart(StreamStatus.INTERRUPTED, EndReason.SERVER, retryable=True)
        if hand_on:
            self._lease.cancel()
            self._beating.cancel()
            with contextlib.suppress(StoreError):
                await self._settings.store.release(self._ticket.id, self._epoch)
        await self.stop()
        if not hand_on:
            await asyncio.wait([self._task], timeout=_END)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        name = f"{self._ticket.id[:4]}..."
        try:
            while not (self._parts and isinstance(self._parts[-1], EndPart)):
                if parts := await self._take():
                    await self._append(parts)
        except FencedError:
            logger.warning("generation %s went on elsewhere", name)
        except StoreError as error:
            logger.error("generation %s is given up: %s", name, error)
        except Exception:
            logger.exception("generation %s failed", name)
        finally:
            self._beating.cancel()
            await self._source.leave()

    async def _take(self) -> list[Part]:
        parts = await self._source.take(BEAT)
        if not parts and asyncio.get_running_loop().time() > self._heed_until:
            parts = [EndPart(StreamStatus.CANCELLED)]  # the source does not end; its readers need not wait for that
        if not parts:
            return []
        # Those of the workers before are attempts as well.
        parts = [replace(p, attempt=p.attempt + self._attempts) if isinstance(p, RecoveryPart) else p for p in parts]
        last = parts[-1]
        room = max(0, self._settings.limit - 1 - len(self._parts))
        if len(parts) - isinstance(last, EndPart) > room:
            return [*parts[:room], EndPart(StreamStatus.INTERRUPTED, EndReason.TOO_LONG)]
        if self._ending is not None and isinstance(last, EndPart) and last.status == StreamStatus.CANCELLED:
            parts[-1] = self._ending
        return parts

    async def _append(self, parts: list[Part]) -> None:
        async with self._writing:
            if self._lease.cancelled:
                raise FencedError("This worker has handed the generation on.")
            first = len(self._parts) + 1
            self._parts += parts
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(StoreUnreachableError),
                wait=wait_random_exponential(0.1, max=2),
                stop=stop_after_delay(self._settings.ttl),
                reraise=True,
            ):
                with attempt:
                    try:
                        await self._settings.store.append(self._ticket.id, self._epoch, first, parts)
                    except MissingError:  # the store has forgotten, and we have not
                        await self._put_back()

    async def _put_back(self) -> None:
        settings = self._settings
        await settings.store.create(self._ticket, self._epoch, self._parts, lease=settings.lease, ttl=settings.ttl)

    async def _beat(self) -> None:
        """Renew the lease; stop when somebody asks to, or when nobody reads any more."""
        loop, settings = asyncio.get_running_loop(), self._settings
        attended = loop.time()
        while True:
            await asyncio.sleep(settings.beat)
            try:
                pulse = await self._pulse()
            except FencedError:
                self._tell_to_stop()
                return
            attended = loop.time() if pulse.attended else attended
            if pulse.stop or loop.time() - attended > settings.grace:
                self._tell_to_stop()

    async def _pulse(self) -> Pulse:
        """While the store is away nobody can tell whether somebody reads: that time does not count."""
        try:
            return await self._settings.store.beat(self._ticket.id, self._epoch)
        except StoreUnreachableError:
            return Pulse(stop=False, attended=True)
        except MissingError:
            async with self._writing:
                with contextlib.suppress(StoreUnreachableError):
                    await self._put_back()
            return Pulse(stop=False, attended=True)
