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

import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

from .answer import End, Part, Recovery, Text
from .store import PRESENCE, FencedError, MissingError, Pulse, State, StoreUnreachableError, Ticket

try:
    import redis.asyncio as redis
    from redis import exceptions
except ImportError as error:
    raise ImportError(
        'RedisStore needs redis-py, which is not installed: pip install "llama-index-resilient-stream[redis]"'
    ) from error

_UNREACHABLE = (
    exceptions.ConnectionError,  # also BusyLoadingError: it has just started
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,  # the primary has moved
    OSError,
)

_HELD = """
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then return -1 end
if epoch ~= ARGV[1] then return -2 end
"""

_APPEND = (
    _HELD
    + """
local last = tonumber(redis.call('HGET', KEYS[1], 'last'))
local number = tonumber(ARGV[2])
for i = 4, #ARGV do
    if number > last then
        redis.call('XADD', KEYS[2], number .. '-0', 'part', ARGV[i])
        last = number
    end
    number = number + 1
end
redis.call('HSET', KEYS[1], 'last', last)
if ARGV[3] == '1' then redis.call('HSET', KEYS[1], 'over', 1) end
local ttl = redis.call('HGET', KEYS[1], 'ttl')
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[2], ttl)
return 1
"""
)

_BEAT = (
    _HELD
    + """
local ttl = redis.call('HGET', KEYS[1], 'ttl')
redis.call('SET', KEYS[3], epoch, 'PX', redis.call('HGET', KEYS[1], 'lease'))
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[2], ttl)
return redis.call('HEXISTS', KEYS[1], 'stop') + 2 * redis.call('EXISTS', KEYS[4])
"""
)

_RELEASE = _HELD + "return redis.call('DEL', KEYS[3])"

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


class RedisStore:
    """Everything in Redis 6.2 or newer, or what speaks like it.

    Args:
        url: of the server, as `redis.asyncio.from_url` takes it; or a client of your own, which stays yours to close.
        prefix: what all keys begin with.
    """

    shared = True

    def __init__(self, url: str | redis.Redis, *, prefix: str = "resilient") -> None:
        self._ours = isinstance(url, str)
        self._redis: Any = redis.from_url(url, health_check_interval=15) if isinstance(url, str) else url
        self._prefix = prefix
        self._append, self._beat, self._release, self._claim, self._stop = (
            self._redis.register_script(script) for script in (_APPEND, _BEAT, _RELEASE, _CLAIM, _STOP)
        )

    def _keys(self, key: str) -> list[str]:
        base = f"{self._prefix}:{{{key}}}"
        return [base, f"{base}:parts", f"{base}:lease", f"{base}:seen"]

    async def create(self, ticket: Ticket, epoch: int, *, lease: float, ttl: float) -> None:
        about, parts, leased, _ = self._keys(ticket.id)
        known = json.dumps({"owner": ticket.owner, "payload": ticket.payload})
        fields = {"ticket": known, "epoch": epoch, "last": 0, "lease": _ms(lease), "ttl": _ms(ttl)}
        async with _reaching(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(about, parts)
            pipeline.hset(about, mapping=fields)
            pipeline.pexpire(about, _ms(ttl))
            pipeline.set(leased, epoch, px=_ms(lease))
            await pipeline.execute()

    async def append(self, key: str, epoch: int, first: int, parts: Sequence[Part]) -> None:
        over = int(bool(parts) and isinstance(parts[-1], End))
        await self._held(self._append, key, epoch, first, over, *map(_written, parts))

    async def beat(self, key: str, epoch: int) -> Pulse:
        found = await self._held(self._beat, key, epoch)
        return Pulse(stop=bool(found & 1), attended=bool(found & 2))

    async def release(self, key: str, epoch: int) -> None:
        await self._held(self._release, key, epoch)

    async def claim(self, key: str) -> int | None:
        async with _reaching():
            return await self._claim(keys=self._keys(key)) or None

    async def ticket(self, key: str) -> Ticket | None:
        if (known := await self._about(key, "ticket")) is None:
            return None
        about = json.loads(known)
        return Ticket(key, about["owner"], about["payload"])

    async def read(self, key: str, after: int, seconds: float) -> list[tuple[int, Part]]:
        async with _reaching():
            # 0 would mean for ever
            wait = max(1, _ms(seconds)) if seconds else None
            found = await self._redis.xread({self._keys(key)[1]: f"{after}-0"}, block=wait)
        # RESP 3 answers with a mapping to lists of lists, RESP 2 with pairs; nothing new is empty, or None.
        (entries,) = found.popitem()[1] if isinstance(found, dict) and found else [e for _, e in found or [(0, [])]]
        return [(int(number.split(b"-")[0]), _read(fields[b"part"])) for number, fields in entries]

    async def attend(self, key: str) -> State:
        about, _, leased, seen = self._keys(key)
        async with _reaching(), self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hmget(about, "epoch", "over")
            pipeline.exists(leased)
            pipeline.set(seen, 1, px=_ms(PRESENCE))
            (epoch, over), held, _ = await pipeline.execute()
        if epoch is None:
            return State.MISSING
        if over is not None:
            return State.OVER
        return State.RUNNING if held else State.ORPHANED

    async def stop(self, key: str) -> bool:
        async with _reaching():
            return bool(await self._stop(keys=self._keys(key)))

    async def aclose(self) -> None:
        if self._ours:
            await self._redis.aclose()

    async def _about(self, key: str, field: str) -> bytes | None:
        async with _reaching():
            return cast(bytes | None, await self._redis.hget(self._keys(key)[0], field))

    async def _held(self, script: Any, key: str, *arguments: Any) -> int:
        async with _reaching():
            outcome = int(await script(keys=self._keys(key), args=arguments))
        if outcome == -1:
            raise MissingError("This generation is not in Redis.")
        if outcome == -2:
            raise FencedError("Another worker has taken this generation over.")
        return outcome


@contextlib.asynccontextmanager
async def _reaching() -> AsyncGenerator[None, None]:
    try:
        yield
    except _UNREACHABLE as error:
        raise StoreUnreachableError(f"Redis cannot be reached: {type(error).__name__}") from error


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _written(part: Part) -> str:
    match part:
        case Text(text):
            return json.dumps(text)
        case Recovery(attempt, reason):
            return json.dumps([attempt, reason])
        case End(status, reason, retryable):
            return json.dumps({"status": status, "reason": reason, "retryable": retryable})


def _read(written: bytes) -> Part:
    match json.loads(written):
        case str(text):
            return Text(text)
        case [attempt, reason]:
            return Recovery(attempt, reason)
        case end:
            return End(**end)
