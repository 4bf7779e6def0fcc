"""Generations that outlive their connections: whoever was cut off comes back and misses nothing.

    generations = Generations()                          # several workers: Generations(RedisStore("redis://..."))
    app = FastAPI(lifespan=generations.lifespan)         # at shutdown, lets them finish

    @app.post("/answers")
    async def start(question: str) -> str:
        return await generations.start(lambda: engine.astream_chat(question))

    @app.get("/answers/{id}")
    async def read(id: str, after: str = ""):
        return SSEResponse(generations.get(id, after=after))

    @app.delete("/answers/{id}")
    async def stop(id: str) -> bool:
        return await generations.stop(id)

docs/coming_back.md has the page that belongs to it, several workers, and who may read.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import ConfigurationError
from ..report import StreamStatus
from ..streaming.threads import aside
from .feeds import Feed, SinglePartFeed
from .parts import EXPIRED, LOST, EndPart, EndReason, Part, RecoveryPart, TextPart
from .permission import Permission
from .processes import is_of_another_process, new_key, new_key_of_this_process
from .producer import GenerationSettings, Producer
from .source import SourceReader
from .sse import EventId, is_generation
from .store import MemoryStore, Store, Ticket
from .subscriber import Look, StoredFeed
from .types import Answerable, Source

__all__ = ["Generation", "Generations", "MayRead", "TakeOver"]

logger = logging.getLogger("llama_index_resilient_stream")

MayRead = Callable[[Any, Ticket], bool | Awaitable[bool]]
"""Whether a request may read a generation: `may_read(request, ticket)`, with the framework's own request."""
TakeOver = Callable[[Ticket, str], Answerable | Awaitable[Answerable]]
"""The rest of a generation whose worker died: `take_over(ticket, text_so_far)`."""


class Generations:
    """The generations of an application, wherever its workers run.

    Args:
        store: where their text is kept. In this process's memory unless said otherwise.
        ttl: seconds that a finished generation can be read again.
        grace: seconds that one goes on without a reader.
        shutdown: seconds that a worker which is shut down lets its generations go on.
        lease: seconds after which a worker that says nothing is taken for dead.
        limit: parts of one generation, above which it is stopped.
        may_read: called with the framework's request and the `Ticket` whenever somebody wants to read, in a thread
            unless it is a coroutine function. Ids cannot be guessed, but they can be passed on.
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
        if not shutdown >= 0:
            raise ConfigurationError(f"shutdown is {shutdown!r}. It is in seconds: Generations(shutdown=20).")
        for hook, function in {"may_read": may_read, "take_over": take_over}.items():
            if function is not None and not callable(function):
                raise ConfigurationError(f"{hook} is {function!r}. Pass a function: Generations({hook}={hook}).")
        self.store: Store = MemoryStore() if store is None else store
        self._settings = GenerationSettings(self.store, ttl, grace, lease, limit)
        self._shutdown, self._may_read, self._take_over = shutdown, may_read, take_over
        self._running: dict[str, Producer] = {}
        self._looks: weakref.WeakValueDictionary[str, Look] = weakref.WeakValueDictionary()
        self._warned = False

    async def start(self, source: Source, *, owner: str | None = None, payload: Any = None) -> str:
        """Begin to generate, and return the id under which the answer can be read. It cannot be guessed.

        `source` is what `SSEResponse` takes. `owner` and `payload` (JSON-able) are kept with the answer, in the
        `Ticket` that `may_read` and `take_over` get to see.

        Raises StoreUnreachableError, and ConfigurationError for what cannot be read, or kept.
        """
        try:
            json.dumps(payload)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"payload is kept as JSON, and this one cannot be: {error}. Keep what the answer can be asked for "
                "with: generations.start(source, payload={'question': question})."
            ) from error
        answer = SourceReader(source)
        ticket = Ticket(new_key() if self.store.shared else new_key_of_this_process(), owner, payload)
        try:
            await self.store.create(ticket, 1, lease=self._settings.lease, ttl=self._settings.ttl)
        except BaseException:
            await answer.leave()
            raise
        self._produce(ticket, answer, 1, [])
        return ticket.id

    def get(self, key: str, *, after: str | int | None = None) -> Generation:
        """What `SSEResponse` serves. Key and `after` may come straight from a URL.

        `after` is the id of the last event that the reader has, for a page that has kept the text and was loaded again.
        A `Last-Event-ID` counts by itself, and more. Whatever is no id of this generation means: from the beginning.
        """
        at = EventId(max(0, after), key) if isinstance(after, int) else EventId.parse(after or "")
        return Generation(self, key if is_generation(key) else "", at)

    async def allows(self, request: Any, key: str) -> bool:
        """Whether there is such a generation, and `may_read` lets this request read it. For routes that do not read:

            if not await generations.allows(request, id):
                raise HTTPException(404)
            await generations.stop(id)

        Raises StoreUnreachableError.
        """
        ticket = await self._ticket(key) if is_generation(key) else None
        if ticket is not None:
            return await self._allows(request, ticket)
        with contextlib.suppress(Exception):  # asked all the same: the time it takes does not tell what there is
            await self._allows(request, Ticket(key))
        return False

    async def stop(self, key: str) -> bool:
        """Stop it, wherever it runs. Its readers get a `done` event with the status "cancelled".

        Whoever calls this may: ask `allows` before, where that is not clear.
        Returns whether there was something to stop. Raises StoreUnreachableError, unless it runs in this process.
        """
        if not is_generation(key):
            return False
        if (producer := self._running.get(key)) is None:
            return await self.store.stop(key)
        is_running = not producer.over
        await producer.stop()
        return is_running

    def feed(self, generation: Generation, request: Any) -> Feed:
        """What a reader gets, who may turn out not to be allowed."""
        key = generation.id
        if not key and self._may_read is None:
            return SinglePartFeed(EndPart(EXPIRED))
        if not self.store.shared and is_of_another_process(key):
            self._warn_of_workers()
            return SinglePartFeed(EndPart(LOST, EndReason.ANOTHER_WORKER, retryable=True))
        permission = None
        if self._may_read is not None:
            permission = Permission(self._ticket, key, partial(self._allows, request), shared=self.store.shared)
        return self._stored(key, generation.after, permission)

    def whole(self, key: str) -> Feed:
        """What the reader gets who has started it, and may read it for that reason."""
        return self._stored(key, 0, None)

    def _stored(self, key: str, after: int, permission: Permission | None) -> Feed:
        if (look := self._looks.get(key)) is None:
            look = self._looks[key] = Look(self.store, key)
        here, adopt = self._running.get, self._adopt
        return StoredFeed(self._settings, key, after, look=look, here=here, adopt=adopt, permission=permission)

    def _warn_of_workers(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "a reader has come for an answer that another process had in its memory. Several workers, and one that "
                'is started again, need a store beside them: Generations(RedisStore("redis://localhost:6379/0"))'
            )

    async def _ticket(self, key: str) -> Ticket | None:
        """What is known of a generation. What runs here is known here, whatever the store does."""
        producer = self._running.get(key)
        return await self.store.ticket(key) if producer is None else producer.ticket

    async def _allows(self, request: Any, ticket: Ticket) -> bool:
        if self._may_read is None:
            return True
        # In a thread unless it is a coroutine function: it may ask a database.
        ask = partial(self._may_read, request, ticket)
        allowed = ask() if inspect.iscoroutinefunction(self._may_read) else await aside(ask)
        if inspect.isawaitable(allowed):
            allowed = await allowed
        if allowed is None:
            raise ConfigurationError("may_read returned None, which says neither yes nor no. Return True or False.")
        return bool(allowed)

    async def _adopt(self, key: str) -> None:
        """Look after a generation whose worker has died. Any number of readers may call it; one of them will do it."""
        if key in self._running:  # it lives
            return
        if (epoch := await self.store.claim(key)) is None:
            return
        asked_to_stop = (await self.store.beat(key, epoch)).stop
        parts = [part for _, part in await self.store.read(key, 0, 0)]
        ticket = await self.store.ticket(key)
        if ticket is None:
            return
        take_over = self._take_over
        last = self._after_worker(parts, asked_to_stop=asked_to_stop)
        await self.store.append(key, epoch, len(parts) + 1, [last])
        if take_over is not None and not asked_to_stop:
            logger.warning("generation %s... is taken over: its worker is gone", key[:4])
            text = "".join(part.text for part in parts if isinstance(part, TextPart))
            self._produce(ticket, SourceReader(partial(take_over, ticket, text)), epoch, [*parts, last])

    def _after_worker(self, parts: list[Part], *, asked_to_stop: bool) -> Part:
        """The part that follows those of a worker that has died."""
        if asked_to_stop:
            return EndPart(StreamStatus.CANCELLED)
        if self._take_over is None:
            return EndPart(LOST, EndReason.WORKER_LOST, retryable=True)
        return RecoveryPart(2 + sum(isinstance(part, RecoveryPart) for part in parts), EndReason.WORKER_LOST)

    def _produce(self, ticket: Ticket, answer: SourceReader, epoch: int, parts: list[Part]) -> None:
        producer = self._running[ticket.id] = Producer(self._settings, ticket, answer, epoch, parts)
        producer.task.add_done_callback(lambda _: self._over(ticket.id, producer))

    def _over(self, key: str, producer: Producer) -> None:
        if self._running.get(key) is producer:  # and not the next one, where this very process took it over from itself
            del self._running[key]

    async def aclose(self) -> None:
        """Let what runs here finish, for as long as `shutdown` says; what is left ends with a word to its readers."""
        producers = list(self._running.values())
        if producers:
            await asyncio.wait([producer.task for producer in producers], timeout=self._shutdown)
            await asyncio.gather(*(producer.end(hand_on=self.hands_on) for producer in producers))
        await self.store.aclose()

    @property
    def hands_on(self) -> bool:
        """Whether another worker can go on where this one has to stop."""
        return self.store.shared and self._take_over is not None

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Any = None) -> AsyncGenerator[None, None]:
        """For `FastAPI(lifespan=generations.lifespan)`; or `async with generations.lifespan():` inside of your own.

        Raises:
            ConfigurationError: at the start, for a store that cannot be used.
            StoreUnreachableError: at the start, for one that does not answer.
        """
        try:
            await self.store.open()
            yield
        finally:
            await self.aclose()


@dataclass(frozen=True)
class Generation:
    """One generation, from some point on."""

    generations: Generations
    id: str
    at: EventId | None = None

    def __post_init__(self) -> None:
        if self.at is not None and self.at.generation != self.id:
            object.__setattr__(self, "at", None)  # somebody else's

    @property
    def after(self) -> int:
        """How many events the reader has."""
        return self.at.count if self.at is not None else 0

    @property
    def read(self) -> bool:
        """The reader has had the last one."""
        return self.at is not None and self.at.over

    def later(self, at: EventId | None) -> Generation:
        """From there on, if that is later."""
        other = Generation(self.generations, self.id, at)
        return other if other.read or other.after > self.after else self
