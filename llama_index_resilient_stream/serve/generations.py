"""Generations that outlive their connections: whoever was cut off comes back and misses nothing.

generations = Generations()                          # several workers: Generations(RedisStore("redis://..."))
app = FastAPI(lifespan=generations.lifespan)         # at shutdown, lets them finish

@app.post("/answers")
async def start(question: str) -> str:
    return await generations.start(lambda: engine.astream_chat(question))

@app.get("/answers/{id}")
async def read(key: str):
    return SSEResponse(generations.get(id))

@app.delete("/answers/{id}")
async def stop(key: str):
    await generations.stop(id)
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from ..errors import ConfigurationError
from ..report import StreamStatus
from .answer import Answer, End, Part, Recovery, Text
from .feed import Farewell, Feed
from .sse import EventId, ServerSentEvent, event_of, is_generation
from .store import FencedError, MemoryStore, MissingError, State, Store, StoreUnreachableError, Ticket

logger = logging.getLogger("llama_index_resilient_stream")

_BEAT = 0.5  # seconds, at most, until a request to stop is heard by another worker
_LOOK = 1.0  # seconds, at most, between two signs of life of a reader

MayRead = Callable[[Any, Ticket], bool | Awaitable[bool]]
TakeOver = Callable[[Ticket, str], Any]


class Generations:
    """The generations of an application, wherever its workers run.

    Args:
        store: where their text is kept. In this process's memory unless said otherwise.
        ttl: seconds that a finished generation can be read again.
        grace: seconds that one goes on without a reader.
        shutdown: seconds that a worker which is shut down lets its generations go on.
        lease: seconds after which a worker that says nothing is taken for dead.
        limit: parts of one generation, above which it is stopped.
        may_read: called with the framework's request and the `Ticket` whenever somebody wants to read. Ids cannot be
            guessed, but they can be passed on.
        take_over: called with the `Ticket` and the text so far when the worker of a generation has died; returns a
            source (as for `SSEResponse`) of the rest. Without it, the readers are told that the answer is lost.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        ttl: float = 600.0,
        grace: float = 30.0,
        shutdown: float = 20.0,
        lease: float = 5.0,
        limit: int = 100_000,
        may_read: MayRead | None = None,
        take_over: TakeOver | None = None,
    ) -> None:
        for name, value in {"ttl": ttl, "grace": grace, "lease": lease, "limit": limit}.items():
            if not value > 0:
                raise ConfigurationError(f"{name} is {value!r}, and must be more than 0: Generations({name}=30).")
        self.store: Store = MemoryStore() if store is None else store
        self.ttl, self.grace, self.lease, self.limit = ttl, grace, lease, limit
        self._shutdown, self._may_read, self._take_over = shutdown, may_read, take_over
        self._running: dict[str, _Work] = {}

    async def start(self, source: Any, *, owner: str | None = None, payload: Any = None) -> str:
        """Begin to generate, and return the id under which the answer can be read. It cannot be guessed.

        Raises StoreUnreachableError.
        """
        ticket = Ticket(secrets.token_urlsafe(24), owner, payload)
        await self.store.create(ticket, 1, lease=self.lease, ttl=self.ttl)
        self._work(ticket, Answer(source), 1, [])
        return ticket.id

    def get(self, key: str, *, after: str | int = 0) -> Generation:
        """What `SSEResponse` serves. `after`: the id of the last event that the reader has, or how many it has."""
        at = EventId.parse(str(after))
        if at is None:
            raise ConfigurationError(f"after is {after!r}, and must be an event's id: after=event.lastEventId.")
        return Generation(self, key if is_generation(key) else "", at.count)  # it may come straight from a URL

    async def stop(self, key: str) -> bool:
        """Stop it, wherever it runs. Its readers get a `done` event with the status "cancelled"."""
        known = await self.store.stop(key)
        if (work := self._running.get(key)) is not None:
            await work.answer.stop()
        return known

    async def feed(self, generation: Generation, request: Any) -> Feed | None:
        """What a reader gets; None if this reader may not."""
        try:
            ticket = await self.store.ticket(generation.id)
        except StoreUnreachableError:
            return Farewell(End("lost", "store unreachable", retryable=True))
        if ticket is not None and self._may_read is not None:
            allowed = self._may_read(request, ticket)
            if not (await allowed if inspect.isawaitable(allowed) else allowed):
                return None
        return StoredFeed(self, generation.id, generation.after)

    async def adopt(self, key: str) -> None:
        """Look after a generation whose worker has died. Any number of readers may call it; one of them will do it."""
        if (epoch := await self.store.claim(key)) is None:
            return
        parts = [part for _, part in await self.store.read(key, 0, 0)]
        ticket = await self.store.ticket(key)
        if ticket is None:
            return
        if self._take_over is None:
            await self.store.append(key, epoch, len(parts) + 1, [End("lost", "worker lost", retryable=True)])
            return
        logger.warning("generation %s... is taken over: its worker is gone", key[:4])
        text = "".join(part.text for part in parts if isinstance(part, Text))
        take_over = self._take_over
        await self.store.append(key, epoch, len(parts) + 1, [note := Recovery(epoch, "worker lost")])
        self._work(ticket, Answer(lambda: take_over(ticket, text)), epoch, [*parts, note])

    def _work(self, ticket: Ticket, answer: Answer, epoch: int, parts: list[Part]) -> None:
        work = _Work(self, ticket, answer, epoch, parts)
        self._running[ticket.id] = work
        work.task = asyncio.ensure_future(work.run())
        work.task.add_done_callback(lambda _: self._running.pop(ticket.id, None))

    async def aclose(self) -> None:
        """Let what runs here finish, for as long as `shutdown` says; what is left ends with a word to its readers."""
        works = list(self._running.values())
        tasks = [work.task for work in works if work.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._shutdown)
            await asyncio.gather(*(work.end(hand_on=self.hands_on) for work in works))
        await self.store.aclose()

    @property
    def hands_on(self) -> bool:
        """Whether another worker can go on where this one has to stop."""
        return self.store.shared and self._take_over is not None

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Any = None) -> AsyncGenerator[None, None]:
        """For `FastAPI(lifespan=generations.lifespan)`; or `async with generations.lifespan():` inside of your own."""
        try:
            yield
        finally:
            await self.aclose()


@dataclass(frozen=True)
class Generation:
    """One generation, from some point on."""

    generations: Generations
    id: str
    after: int


class _Work:
    """One generation while this process generates it."""

    def __init__(self, home: Generations, ticket: Ticket, answer: Answer, epoch: int, parts: list[Part]) -> None:
        self.answer = answer
        self.task: asyncio.Task[None] | None = None
        self._home, self._ticket, self._epoch, self._parts = home, ticket, epoch, parts
        self._ending: End | None = None
        self._abandoned = False

    async def run(self) -> None:
        self.answer.start()
        beating = asyncio.ensure_future(self._beat())
        try:
            while not (self._parts and isinstance(self._parts[-1], End)):
                await self._append(self._fitting(await self.answer.take()))
        except FencedError:
            logger.warning("generation %s... went on elsewhere", self._ticket.id[:4])
        except (MissingError, StoreUnreachableError):
            logger.error("generation %s... is given up: its store cannot be reached", self._ticket.id[:4])
        finally:
            beating.cancel()
            await self.answer.leave()

    def _fitting(self, parts: list[Part]) -> list[Part]:
        if self._ending is not None and isinstance(parts[-1], End):
            return [*parts[:-1], self._ending]
        if len(self._parts) + len(parts) > self._home.limit:
            return [End(StreamStatus.INTERRUPTED, "too long")]
        return parts

    async def _append(self, parts: list[Part]) -> None:
        if self._abandoned:
            raise FencedError("This worker has handed the generation on.")
        first = len(self._parts) + 1
        self._parts += parts
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(StoreUnreachableError),
            wait=wait_random_exponential(0.1, max=2),
            stop=stop_after_delay(self._home.ttl),
            reraise=True,
        ):
            with attempt:
                try:
                    await self._home.store.append(self._ticket.id, self._epoch, first, parts)
                except MissingError:  # the store has forgotten, and we have not
                    await self._restore()

    async def _restore(self) -> None:
        home = self._home
        await home.store.create(self._ticket, self._epoch, lease=home.lease, ttl=home.ttl)
        await home.store.append(self._ticket.id, self._epoch, 1, self._parts)

    async def _beat(self) -> None:
        """Renew the lease; stop when somebody asks to, or when nobody reads any more."""
        home, loop = self._home, asyncio.get_running_loop()
        attended = loop.time()
        while True:
            await asyncio.sleep(min(_BEAT, home.lease / 3, home.grace))
            try:
                pulse = await home.store.beat(self._ticket.id, self._epoch)
            except StoreUnreachableError:
                continue
            except MissingError:
                with contextlib.suppress(StoreUnreachableError):
                    await self._restore()
                continue
            except FencedError:
                await self.answer.stop()
                return
            attended = loop.time() if pulse.attended else attended
            if pulse.stop or loop.time() - attended > home.grace:
                await self.answer.stop()

    async def end(self, *, hand_on: bool) -> None:
        """The process ends: with a word to the readers, or by leaving the rest to another worker."""
        if self.task is None or self.task.done():
            return
        self._ending = End(StreamStatus.INTERRUPTED, "server", retryable=True)
        if hand_on:
            self._abandoned = True
            with contextlib.suppress(FencedError, MissingError, StoreUnreachableError):
                await self._home.store.release(self._ticket.id, self._epoch)
        await self.answer.stop()
        await asyncio.wait([self.task], timeout=self._home.lease)
        self.task.cancel()


class StoredFeed:
    """What is kept of a generation, and what is added to it, for one reader."""

    def __init__(self, home: Generations, key: str, after: int) -> None:
        self._home, self._key, self._after = home, key, after
        self._missing_since: float | None = None
        self._unreachable_since: float | None = None
        self.over = False

    async def take(self, seconds: float) -> list[ServerSentEvent]:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            try:
                events = await self._look(min(left, _LOOK))
                self._unreachable_since = None
            except StoreUnreachableError:
                events = await self._unreachable(min(left, _BEAT))
            if events:
                return events
        return []

    async def _look(self, seconds: float) -> list[ServerSentEvent]:
        store = self._home.store
        state = await store.attend(self._key)
        if state is State.MISSING:
            return await self._missing(seconds)
        self._missing_since = None
        if state is State.ORPHANED:
            with contextlib.suppress(FencedError, MissingError):  # others may be quicker
                await self._home.adopt(self._key)
        entries = await store.read(self._key, self._after, seconds)
        if not entries and state is State.OVER:
            return self._farewell(End("expired"))  # the reader has had all of it
        return [self._event(number, part) for number, part in entries]

    def _event(self, number: int, part: Part) -> ServerSentEvent:
        self._after = number
        self.over = isinstance(part, End)
        return event_of(part, EventId(number, self._key, self.over))

    async def _missing(self, seconds: float) -> list[ServerSentEvent]:
        """A store that was restarted empty is filled again by the worker, if it lives, with its next beat or two."""
        loop = asyncio.get_running_loop()
        self._missing_since = self._missing_since or loop.time()
        if not self._home.store.shared or loop.time() - self._missing_since > 3 * _BEAT:
            return self._farewell(End("expired"))
        await asyncio.sleep(min(seconds, _BEAT / 2))
        return []

    async def _unreachable(self, seconds: float) -> list[ServerSentEvent]:
        loop = asyncio.get_running_loop()
        self._unreachable_since = self._unreachable_since or loop.time()
        if loop.time() - self._unreachable_since > self._home.grace:
            return self._farewell(End("lost", "store unreachable", retryable=True))
        await asyncio.sleep(seconds)
        return []

    def _farewell(self, end: End) -> list[ServerSentEvent]:
        self.over = True
        return [event_of(end, EventId(self._after, self._key, True))]

    async def leave(self) -> None:
        """The generation goes on: its worker will notice when nobody comes back."""
