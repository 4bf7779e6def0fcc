"""The way to Redis of one process: what is to be done piles up while Redis answers, and then goes at once.

So however many answers and readers a process has, it takes one connection for its writing and one for its reading.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import redis.asyncio as redis
from redis import exceptions
from redis.asyncio.cluster import RedisCluster

from .parts import Part, from_json
from .redis_scripts import Script
from .store import StoreFullError, StoreUnreachableError

PATIENCE = 5.0  # seconds that an answer of Redis may take, whatever the client's own limits and retries are
TICK = 0.05  # seconds between two looks for what the readers of this process wait for
_AT_ONCE = 256  # commands that are sent together
_IN_CLUSTER = 16  # commands that are under way in a cluster, each of which has a connection
_BUSY = 0.02  # seconds until a pool, or a Redis, that has no connection left is asked again

Command = tuple[Any, ...]


class Lane:
    """Sends commands of many callers over one connection at a time, in the order in which they come."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._queue: deque[tuple[asyncio.Future[Any], Command]] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def run(self, *command: Any) -> Any:
        """What Redis answers.

        Raises:
            StoreUnreachableError: nothing, within `PATIENCE`; or that it cannot do anything now.
            StoreFullError: that it has no memory left.
        """
        answered = asyncio.get_running_loop().create_future()
        self._queue.append((answered, command))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._send())
        try:
            return await answered
        except asyncio.CancelledError:
            if not answered.cancelled() and answered.done():
                answered.exception()  # nobody else asks for it
            raise
        except (exceptions.RedisError, OSError) as error:  # also when it loads, or has become a replica
            raise _told(error) from error

    async def evaluate(self, script: Script, keys: Sequence[str], *arguments: Any) -> int:
        """What a script returns, which is a number."""
        try:
            return int(await self._call("EVALSHA", script.sha, keys, arguments))
        except StoreUnreachableError as error:
            if not isinstance(error.__cause__, exceptions.NoScriptError):
                raise
        return int(await self._call("EVAL", script.text, keys, arguments))

    async def _call(self, command: str, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return await self.run(command, script, len(keys), *keys, *arguments)

    async def _send(self) -> None:
        while self._queue:
            batch = self._next()
            try:
                async with asyncio.timeout(PATIENCE):
                    results = await self._execute([command for _, command in batch])
            except Exception as error:
                batch += self._queue  # they have waited as long
                self._queue.clear()
                results = [error] * len(batch)
            except asyncio.CancelledError:
                for answered, _ in [*batch, *self._queue]:
                    answered.cancel()
                self._queue.clear()
                raise
            for (answered, _), result in zip(batch, results, strict=True):
                _settle(answered, result)

    def _next(self) -> list[tuple[asyncio.Future[Any], Command]]:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), _AT_ONCE))]
        return [(answered, command) for answered, command in batch if not answered.done()]

    async def _execute(self, commands: Sequence[Command]) -> list[Any]:
        while True:
            try:
                return await self._attempt(commands)
            except exceptions.ConnectionError as error:
                if not _is_busy(error):
                    raise
            await asyncio.sleep(_BUSY)

    async def _attempt(self, commands: Sequence[Command]) -> list[Any]:
        if isinstance(self._client, RedisCluster):  # its pipelines refuse scripts
            results: list[Any] = []
            for at in range(0, len(commands), _IN_CLUSTER):
                under_way = [self._client.execute_command(*each) for each in commands[at : at + _IN_CLUSTER]]
                results += await asyncio.gather(*under_way, return_exceptions=True)
            return results
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answered: list[Any] = await pipeline.execute(raise_on_error=False)
            return answered


def _settle(answered: asyncio.Future[Any], result: Any) -> None:
    if answered.done():
        return
    if isinstance(result, Exception):
        answered.set_exception(result)
    else:
        answered.set_result(result)


def _is_busy(error: Exception) -> bool:
    """Whether all connections are taken: of the pool, or of the server, which says so to new ones."""
    return type(error).__name__ == "MaxConnectionsError" or any(
        text in str(error) for text in ("Too many connections", "max number of clients")
    )


def _told(error: Exception) -> StoreUnreachableError:
    name = type(error).__name__
    if isinstance(error, exceptions.OutOfMemoryError) or "OOM" in str(error)[:80]:
        return StoreFullError(f"Redis is full ({name}): give it more than its maxmemory, or answers a shorter ttl.")
    return StoreUnreachableError(f"Redis cannot be reached: {name}")


Numbered = list[tuple[int, Part]]


class Tail:
    """Looks for the next parts of all generations that somebody in this process waits for, with one command."""

    def __init__(self, lane: Lane, *, one_by_one: bool) -> None:
        self._lane, self._one_by_one = lane, one_by_one
        self._waiting: dict[str, list[tuple[int, asyncio.Future[Numbered]]]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, key: str, after: int, seconds: float) -> Numbered:
        """The parts after number `after`, as soon as there are any; none when `seconds` are over."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Numbered] = loop.create_future()
        mine = (after, found)
        self._waiting.setdefault(key, []).append(mine)
        timer = loop.call_later(seconds, _answer, found, [])
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        try:
            return await found
        finally:
            timer.cancel()
            if mine in (others := self._waiting.get(key, [])):
                others.remove(mine)
                if not others:
                    del self._waiting[key]

    async def _look(self) -> None:
        while self._waiting:
            began = asyncio.get_running_loop().time()
            try:
                for key, parts in (await self._read()).items():
                    self._hand_out(key, parts)
            except StoreUnreachableError as error:
                for _, found in [each for waiting in self._waiting.values() for each in waiting]:
                    if not found.done():
                        found.set_exception(error)
            await asyncio.sleep(max(0.0, began + TICK - asyncio.get_running_loop().time()))

    async def _read(self) -> dict[str, Numbered]:
        after = {key: min(number for number, _ in waiting) for key, waiting in self._waiting.items()}
        if self._one_by_one:
            parts = await asyncio.gather(*(read(self._lane, key, number) for key, number in after.items()))
            return dict(zip(after, parts, strict=True))
        answer = await self._lane.run("XREAD", "STREAMS", *after, *(f"{number}-0" for number in after.values()))
        # RESP 3 answers with a mapping to lists of lists, RESP 2 with pairs; nothing new is empty, or None.
        if isinstance(answer, dict):
            return {_text(key): numbered(entries[0]) for key, entries in answer.items()}
        return {_text(key): numbered(entries) for key, entries in answer or []}

    def _hand_out(self, key: str, parts: Numbered) -> None:
        for after, found in self._waiting.get(key, []):
            if news := parts[_first_after(parts, after) :]:
                _answer(found, news)


async def read(lane: Lane, key: str, after: int) -> Numbered:
    """The parts after number `after` that are there, of the stream with this key."""
    return numbered(await lane.run("XRANGE", key, f"{after + 1}-0", "+"))


def numbered(entries: Sequence[Any] | None) -> Numbered:
    """The entries of a stream as parts with their numbers."""
    return [(int(_text(number).split("-")[0]), from_json(*fields.values())) for number, fields in entries or ()]


def _first_after(parts: Numbered, after: int) -> int:
    return next((at for at, (number, _) in enumerate(parts) if number > after), len(parts))


def _answer(found: asyncio.Future[Numbered], parts: Numbered) -> None:
    if not found.done():
        found.set_result(parts)


def _text(answered: bytes | str) -> str:
    """A client of one's own may decode what Redis answers."""
    return answered if isinstance(answered, str) else answered.decode()


def client_of(url: str) -> redis.Redis:
    """A client with what it needs to notice that a connection is dead."""
    made: redis.Redis = redis.from_url(
        url,
        health_check_interval=15,
        socket_timeout=PATIENCE,
        socket_connect_timeout=PATIENCE,
    )
    return made
