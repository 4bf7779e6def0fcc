"""Generations in Redis, for applications with several workers: `Generations(RedisStore("redis://localhost:6379/0"))`.

A generation has four keys, which expire together, and share a slot in a cluster:

    resilient:{id}         hash     ticket, epoch, last (the number of the last part), over, stop
    resilient:{id}:parts   stream   the parts; the id of an entry is the part's number
    resilient:{id}:lease   string   while a worker is at work on it
    resilient:{id}:seen    string   while a reader is there

Whatever depends on the epoch runs as a script, which Redis executes as a whole: a worker that was taken for dead writes
nothing any more, and a part that is sent again after a time-out is not there twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError
from .parts import EndPart, Part, to_json
from .store import (
    PRESENCE,
    FencedError,
    GenerationState,
    MissingError,
    Pulse,
    Store,
    StoreFullError,
    StoreUnreachableError,
    Ticket,
)

try:
    import redis.asyncio as redis
    from redis import exceptions
    from redis.asyncio.cluster import RedisCluster
except ImportError as error:
    raise ImportError(
        'RedisStore needs redis-py, which is not installed: pip install "llama-index-resilient-stream[redis]"'
    ) from error

from . import redis_scripts as scripts
from .redis_lane import Lane, Tail, client_of, read

__all__ = ["RedisStore"]

_STATES = (GenerationState.MISSING, GenerationState.OVER, GenerationState.RUNNING, GenerationState.ORPHANED)
_NOT_NOTED = 10


@dataclass
class _Line:
    """What one event loop has to talk to Redis with. Neither of its two lanes ever waits for the other."""

    client: Any
    writing: Lane
    reading: Lane
    tail: Tail

    @classmethod
    def through(cls, client: Any) -> _Line:
        reading = Lane(client)
        return cls(client, Lane(client), reading, Tail(reading, one_by_one=isinstance(client, RedisCluster)))


class RedisStore(Store):
    """Everything in Redis 6.2 or newer, or what speaks like it.

    A process takes two connections of the client, however many answers and readers it has.

    Args:
        url: of the server, as `redis.asyncio.from_url` takes it; or a client of your own, which stays yours to close,
            and belongs to one event loop. For a cluster, pass `redis.asyncio.cluster.RedisCluster.from_url(url)`.
        prefix: what all keys begin with.

    Raises:
        ConfigurationError: for a URL that is none, and for a client that is synchronous.
    """

    shared = True

    def __init__(self, url: str | redis.Redis | RedisCluster, *, prefix: str = "resilient") -> None:
        self._url = url
        self._prefix = prefix
        self._lines: dict[asyncio.AbstractEventLoop, _Line] = {}
        self._check(url)

    def _check(self, url: Any) -> None:
        if isinstance(url, str):
            try:
                client_of(url)
            except ValueError as error:
                raise ConfigurationError(
                    f'This is no URL of a Redis: {error}. Write RedisStore("redis://localhost:6379/0").'
                ) from None
        elif not isinstance(url, redis.Redis | RedisCluster):
            kind = f"{type(url).__module__}.{type(url).__qualname__}"
            raise ConfigurationError(
                f"RedisStore takes a URL or an asynchronous client, and this is {kind}: "
                'RedisStore("redis://localhost:6379/0"), or RedisStore(redis.asyncio.from_url(url)).'
            )

    @property
    def _line(self) -> _Line:
        """A client belongs to the loop that it was first used on."""
        loop = asyncio.get_running_loop()
        if (line := self._lines.get(loop)) is None:
            self._lines = {other: line for other, line in self._lines.items() if not other.is_closed()}
            client = client_of(self._url) if isinstance(self._url, str) else self._url
            line = self._lines[loop] = _Line.through(client)
        return line

    @property
    def _redis(self) -> Any:
        return self._line.client

    async def open(self) -> None:
        """Ask Redis what will be asked of it, and whether it is a part of something.

        Raises:
            ConfigurationError: it refuses, and will do so tomorrow; or it is part of a cluster.
            StoreUnreachableError: it does not answer.
        """
        try:
            await self.attend("0" * 32)
            about = await self._line.reading.run("INFO", "cluster")
        except StoreUnreachableError as error:
            cause = error.__cause__
            if isinstance(cause, exceptions.MovedError | exceptions.ClusterError) or "MOVED" in str(cause):
                about = {"cluster_enabled": 1}
            elif isinstance(cause, exceptions.NoPermissionError) and "info" in str(cause).lower():
                about = {}
            elif _is_refusal(cause):
                raise ConfigurationError(
                    f"Redis refuses RedisStore ({type(cause).__name__}). Look at the user, the password and the number "
                    'of the database: RedisStore("redis://user:password@host:6379/0").'
                ) from None
            else:
                raise StoreUnreachableError(f"{error}. Look at the URL of RedisStore: {self._place}.") from cause
        if isinstance(self._redis, redis.Redis) and _is_cluster(about):
            raise ConfigurationError(
                "This Redis is part of a cluster. Pass a client for clusters: "
                "RedisStore(redis.asyncio.cluster.RedisCluster.from_url(url))."
            )

    @property
    def _place(self) -> str:
        """Where Redis is looked for, without the password."""
        settings = getattr(getattr(self._redis, "connection_pool", None), "connection_kwargs", {})
        return str(settings.get("path") or f"{settings.get('host')}:{settings.get('port')}")

    def _keys(self, key: str) -> list[str]:
        base = f"{self._prefix}:{{{key}}}"
        return [base, f"{base}:parts", f"{base}:lease", f"{base}:seen"]

    async def create(self, ticket: Ticket, epoch: int, parts: Sequence[Part] = (), *, lease: float, ttl: float) -> None:
        known = json.dumps({"owner": ticket.owner, "payload": ticket.payload})
        times = _ms(lease), _ms(ttl)
        await self._held(scripts.CREATE, ticket.id, epoch, known, *times, _over(parts), *map(to_json, parts))

    async def append(self, key: str, epoch: int, first: int, parts: Sequence[Part]) -> Pulse:
        return _pulse(await self._held(scripts.APPEND, key, epoch, first, _over(parts), *map(to_json, parts)))

    async def beat(self, key: str, epoch: int) -> Pulse:
        return _pulse(await self._held(scripts.BEAT, key, epoch))

    async def release(self, key: str, epoch: int) -> None:
        await self._held(scripts.RELEASE, key, epoch)

    async def claim(self, key: str) -> int | None:
        return await self._line.writing.evaluate(scripts.CLAIM, self._keys(key)) or None

    async def ticket(self, key: str) -> Ticket | None:
        known = await self._line.reading.run("HGET", self._keys(key)[0], "ticket")
        if known is None:
            return None
        about = json.loads(known)
        return Ticket(key, about["owner"], about["payload"])

    async def read(self, key: str, after: int, seconds: float) -> list[tuple[int, Part]]:
        parts = self._keys(key)[1]
        return await (
            self._line.tail.wait(parts, after, seconds) if seconds else read(self._line.reading, parts, after)
        )

    async def attend(self, key: str) -> GenerationState:
        found = await self._line.reading.evaluate(scripts.ATTEND, self._keys(key), _ms(PRESENCE))
        if found >= _NOT_NOTED:
            raise StoreFullError("Redis is full, and cannot note that a reader is there.")
        return _STATES[found]

    async def stop(self, key: str) -> bool:
        return bool(await self._line.reading.evaluate(scripts.STOP, self._keys(key)))

    async def aclose(self) -> None:
        line = self._lines.pop(asyncio.get_running_loop(), None)
        if line is not None and isinstance(self._url, str):
            await line.client.aclose()

    async def _held(self, script: scripts.Script, key: str, *arguments: Any) -> int:
        outcome = await self._line.writing.evaluate(script, self._keys(key), *arguments)
        if outcome == -1:
            raise MissingError("This generation is not in Redis.")
        if outcome == -2:
            raise FencedError("Another worker has taken this generation over.")
        return outcome


def _is_refusal(error: BaseException | None) -> bool:
    """Whether the same would be answered tomorrow."""
    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError | exceptions.InvalidResponse):
        return True
    return isinstance(error, exceptions.ResponseError) and not isinstance(
        error, exceptions.BusyLoadingError | exceptions.ReadOnlyError | exceptions.OutOfMemoryError
    )


def _is_cluster(about: Any) -> bool:
    return isinstance(about, dict) and str(about.get("cluster_enabled", 0)) == "1"


def _pulse(found: int) -> Pulse:
    return Pulse(stop=bool(found & 1), attended=bool(found & 2))


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _over(parts: Sequence[Part]) -> int:
    return int(bool(parts) and isinstance(parts[-1], EndPart))
