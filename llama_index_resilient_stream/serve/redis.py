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
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from .parts import EndPart, Part, from_json, to_json
from .store import PRESENCE, FencedError, GenerationState, MissingError, Pulse, Store, StoreUnreachableError, Ticket

try:
    import redis.asyncio as redis
    from redis import exceptions
except ImportError as error:
    raise ImportError(
        'RedisStore needs redis-py, which is not installed: pip install "llama-index-resilient-stream[redis]"'
    ) from error

__all__ = ["RedisStore"]

PATIENCE = 5.0  # seconds that an answer of Redis may take, whatever the client's own limits and retries are
_BLOCK = 2.0  # seconds, at most, that a read waits in Redis

_HELD = """
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0')
local ours = tonumber(ARGV[1])
if epoch > ours then return -2 end
local last = tonumber(redis.call('HGET', KEYS[1], 'last') or '0')
if epoch < ours or (last > 0 and redis.call('EXISTS', KEYS[2]) == 0) then return -1 end
"""

# The parts begin at ARGV[i]; the first has the number `number`.
_ADD = """
while ARGV[i] do
    if number > last then
        redis.call('XADD', KEYS[2], number .. '-0', 'part', ARGV[i])
        last = number
    end
    number = number + 1
    i = i + 1
end
redis.call('HSET', KEYS[1], 'last', last)
"""

_KEEP = """
local ttl = redis.call('HGET', KEYS[1], 'ttl')
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[2], ttl)
"""

_CREATE = f"""
local found = redis.call('HGET', KEYS[1], 'epoch')
if found and tonumber(found) > tonumber(ARGV[1]) then return -2 end
local last = tonumber(redis.call('HGET', KEYS[1], 'last') or '0')
if found ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('DEL', KEYS[1], KEYS[2])
    last = 0
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'ticket', ARGV[2], 'lease', ARGV[3], 'ttl', ARGV[4])
local number, i = 1, 6
{_ADD}
if ARGV[5] == '1' then redis.call('HSET', KEYS[1], 'over', 1) end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[3])
{_KEEP}
return 1
"""

_APPEND = f"""
{_HELD}
local number, i = tonumber(ARGV[2]), 4
if number > last + 1 then return -1 end
{_ADD}
if ARGV[3] == '1' then redis.call('HSET', KEYS[1], 'over', 1) end
{_KEEP}
return 1
"""

_BEAT = f"""
{_HELD}
redis.call('SET', KEYS[3], epoch, 'PX', redis.call('HGET', KEYS[1], 'lease'))
{_KEEP}
return redis.call('HEXISTS', KEYS[1], 'stop') + 2 * redis.call('EXISTS', KEYS[4])
"""

# With the epoch, whatever of this worker is still under way is fenced off as well.
_RELEASE = f"""
{_HELD}
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
return redis.call('DEL', KEYS[3])
"""

_CLAIM = """
local lease = redis.call('HMGET', KEYS[1], 'lease', 'over')
if not lease[1] or lease[2] or redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('SET', KEYS[3], epoch, 'PX', lease[1])
return epoch
"""

_STOP = """
local found = redis.call('HMGET', KEYS[1], 'epoch', 'over')
if not found[1] or found[2] then return 0 end
return redis.call('HSET', KEYS[1], 'stop', 1) + 1
"""


class RedisStore(Store):
    """Everything in Redis 6.2 or newer, or what speaks like it.

    Each reader that waits holds a connection, and the pool keeps it. What bounds them is Redis's own `maxclients`.

    Args:
        url: of the server, as `redis.asyncio.from_url` takes it; or a client of your own, which stays yours to close,
            belongs to one event loop, and is limited by its own `max_connections`.
        prefix: what all keys begin with.
    """

    shared = True

    def __init__(self, url: str | redis.Redis, *, prefix: str = "resilient") -> None:
        self._url = url
        self._prefix = prefix
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}

    @property
    def _redis(self) -> Any:
        """A client belongs to the loop that it was first used on."""
        if not isinstance(self._url, str):
            return self._url
        loop = asyncio.get_running_loop()
        if (client := self._clients.get(loop)) is None:
            self._clients = {other: client for other, client in self._clients.items() if not other.is_closed()}
            client = self._clients[loop] = redis.from_url(
                self._url,
                health_check_interval=15,
                max_connections=2**31,  # each reader has one; 100 are the default of some versions
                socket_timeout=PATIENCE,
                socket_connect_timeout=PATIENCE,
            )
        return client

    def _keys(self, key: str) -> list[str]:
        base = f"{self._prefix}:{{{key}}}"
        return [base, f"{base}:parts", f"{base}:lease", f"{base}:seen"]

    async def create(self, ticket: Ticket, epoch: int, parts: Sequence[Part] = (), *, lease: float, ttl: float) -> None:
        known = json.dumps({"owner": ticket.owner, "payload": ticket.payload})
        times = _ms(lease), _ms(ttl)
        await self._held(_CREATE, ticket.id, epoch, known, *times, _over(parts), *map(to_json, parts))

    async def append(self, key: str, epoch: int, first: int, parts: Sequence[Part]) -> None:
        await self._held(_APPEND, key, epoch, first, _over(parts), *map(to_json, parts))

    async def beat(self, key: str, epoch: int) -> Pulse:
        found = await self._held(_BEAT, key, epoch)
        return Pulse(stop=bool(found & 1), attended=bool(found & 2))

    async def release(self, key: str, epoch: int) -> None:
        await self._held(_RELEASE, key, epoch)

    async def claim(self, key: str) -> int | None:
        return await self._run(_CLAIM, key) or None

    async def ticket(self, key: str) -> Ticket | None:
        async with _reaching():
            known = await self._redis.hget(self._keys(key)[0], "ticket")
        if known is None:
            return None
        about = json.loads(known)
        return Ticket(key, about["owner"], about["payload"])

    async def read(self, key: str, after: int, seconds: float) -> list[tuple[int, Part]]:
        client = self._redis
        limit = client.connection_pool.connection_kwargs.get("socket_timeout")
        wait = min(seconds, _BLOCK, limit / 2 if limit else _BLOCK)
        async with _reaching(wait):
            # 0 would mean for ever
            found = await client.xread({self._keys(key)[1]: f"{after}-0"}, block=max(1, _ms(wait)) if wait else None)
        # RESP 3 answers with a mapping to lists of lists, RESP 2 with pairs; nothing new is empty, or None.
        (entries,) = found.popitem()[1] if isinstance(found, dict) and found else [e for _, e in found or [(0, [])]]
        return [(int(_text(number).split("-")[0]), from_json(*fields.values())) for number, fields in entries]

    async def attend(self, key: str) -> GenerationState:
        about, _, leased, seen = self._keys(key)
        async with _reaching(), self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hmget(about, "epoch", "over")
            pipeline.exists(leased)
            pipeline.set(seen, 1, px=_ms(PRESENCE))
            (epoch, over), held, _ = await pipeline.execute()
        if epoch is None:
            return GenerationState.MISSING
        if over is not None:
            return GenerationState.OVER
        return GenerationState.RUNNING if held else GenerationState.ORPHANED

    async def stop(self, key: str) -> bool:
        return bool(await self._run(_STOP, key))

    async def aclose(self) -> None:
        if (client := self._clients.pop(asyncio.get_running_loop(), None)) is not None:
            await client.aclose()

    async def _held(self, script: str, key: str, *arguments: Any) -> int:
        outcome = await self._run(script, key, *arguments)
        if outcome == -1:
            raise MissingError("This generation is not in Redis.")
        if outcome == -2:
            raise FencedError("Another worker has taken this generation over.")
        return outcome

    async def _run(self, script: str, key: str, *arguments: Any) -> int:
        async with _reaching():
            return int(await self._redis.register_script(script)(keys=self._keys(key), args=arguments))


@contextlib.asynccontextmanager
async def _reaching(seconds: float = 0.0) -> AsyncGenerator[None, None]:
    """Something that takes so many seconds, and not for ever."""
    try:
        async with asyncio.timeout(PATIENCE + seconds):
            yield
    except (exceptions.RedisError, OSError) as error:  # also when it loads, is full, or has become a replica
        raise StoreUnreachableError(f"Redis cannot be reached: {type(error).__name__}") from error


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _over(parts: Sequence[Part]) -> int:
    return int(bool(parts) and isinstance(parts[-1], EndPart))


def _text(answered: bytes | str) -> str:
    """A client of one's own may decode what Redis answers."""
    return answered if isinstance(answered, str) else answered.decode()
