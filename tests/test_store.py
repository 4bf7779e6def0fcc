"""What a store promises, over every store there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from servers import redis_server

from llama_index_resilient_stream.serve import store as stores
from llama_index_resilient_stream.serve.answer import End, Part, Recovery, Text
from llama_index_resilient_stream.serve.redis import RedisStore
from llama_index_resilient_stream.serve.store import FencedError, MemoryStore, MissingError, State, Store, Ticket

PARTS: list[Part] = [
    Text("Say \"it\": 'ja' – 是的, \u2028 \U0001f600\n"),
    Text("\ud83d"),  # half an emoji
    Recovery(2, "transport"),
    Text("."),
]
END = End("interrupted", "no progress", True)
TICKET = Ticket("key-of-a-generation", "somebody", {"question": "Why?"})


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as running:
        yield running.url


@pytest.fixture(params=["memory", "redis", "redis-resp3"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made: Store
    if request.param == "memory":
        made = MemoryStore()
    else:
        url = request.getfixturevalue("redis_url")
        made = RedisStore(f"{url}/0?protocol={3 if request.param.endswith('3') else 2}", prefix=request.node.name)
    yield made
    await made.aclose()


async def begun(store: Store, **times: Any) -> str:
    await store.create(TICKET, 1, **{"lease": 5.0, "ttl": 60.0, **times})
    return TICKET.id


async def test_what_is_written_is_read_from_any_point_on(store: Store) -> None:
    key = await begun(store)
    await store.append(key, 1, 1, PARTS[:1])
    await store.append(key, 1, 2, [*PARTS[1:], END])
    numbered = list(enumerate([*PARTS, END], 1))
    for after in range(len(numbered) + 1):
        assert await store.read(key, after, 0) == numbered[after:]
    assert await store.ticket(key) == TICKET


async def test_a_reader_is_woken_by_the_next_part(store: Store) -> None:
    key = await begun(store)
    reading = asyncio.ensure_future(store.read(key, 0, 10))
    await asyncio.sleep(0.05)
    await store.append(key, 1, 1, PARTS[:1])
    assert await asyncio.wait_for(reading, 5) == [(1, PARTS[0])]


async def test_a_reader_waits_no_longer_than_told(store: Store) -> None:
    assert await store.read(await begun(store), 0, 0.05) == []


async def test_parts_that_are_sent_again_are_there_once(store: Store) -> None:
    key = await begun(store)
    await store.append(key, 1, 1, PARTS[:2])
    await store.append(key, 1, 1, PARTS[:3])
    await store.append(key, 1, 2, PARTS[1:2])
    assert [part for _, part in await store.read(key, 0, 0)] == PARTS[:3]


async def test_whoever_was_taken_over_is_fenced_off(store: Store) -> None:
    key = await begun(store, lease=0.5)
    await store.append(key, 1, 1, PARTS[:1])
    assert await store.attend(key) is State.RUNNING
    await asyncio.sleep(0.6)
    assert await store.attend(key) is State.ORPHANED
    assert await store.claim(key) == 2
    assert await store.claim(key) is None
    for act in (store.append(key, 1, 2, PARTS[1:]), store.beat(key, 1), store.release(key, 1)):
        with pytest.raises(FencedError):
            await act
    await store.append(key, 2, 2, [END])
    assert [part for _, part in await store.read(key, 0, 0)] == [PARTS[0], END]
    assert await store.claim(key) is None


async def test_a_beat_keeps_the_lease_and_a_release_gives_it_up(store: Store) -> None:
    key = await begun(store, lease=1)
    for _ in range(4):
        await asyncio.sleep(0.3)
        await store.beat(key, 1)
    assert await store.claim(key) is None
    await store.release(key, 1)
    assert await store.claim(key) == 2


async def test_the_worker_hears_of_readers_and_of_a_stop(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PRESENCE", 0.05)
    monkeypatch.setattr("llama_index_resilient_stream.serve.redis.PRESENCE", 0.05)
    key = await begun(store)
    assert await store.beat(key, 1) == stores.Pulse(stop=False, attended=False)
    await store.attend(key)
    assert await store.beat(key, 1) == stores.Pulse(stop=False, attended=True)
    await asyncio.sleep(0.08)
    assert await store.stop(key)
    assert await store.stop(key)
    assert await store.beat(key, 1) == stores.Pulse(stop=True, attended=False)


async def test_what_is_over_is_over(store: Store) -> None:
    key = await begun(store)
    await store.append(key, 1, 1, [*PARTS, END])
    assert await store.attend(key) is State.OVER
    assert not await store.stop(key)
    assert await store.claim(key) is None


async def test_it_expires(store: Store) -> None:
    key = await begun(store, ttl=0.1, lease=0.05)
    await store.append(key, 1, 1, [*PARTS, END])
    await asyncio.sleep(0.2)
    assert await store.attend(key) is State.MISSING
    assert await store.read(key, 0, 0.01) == []
    assert await store.ticket(key) is None
    assert not await store.stop(key)
    for act in (store.append(key, 1, 1, PARTS), store.beat(key, 1)):
        with pytest.raises(MissingError):
            await act


async def test_while_it_is_written_it_does_not_expire(store: Store) -> None:
    key = await begun(store, ttl=1)
    for number, part in enumerate(PARTS, 1):
        await asyncio.sleep(0.1)
        await store.append(key, 1, number, [part])
    for _ in range(4):
        await asyncio.sleep(0.1)
        await store.beat(key, 1)
    assert len(await store.read(key, 0, 0)) == len(PARTS)


async def test_nothing_is_left_in_redis_when_it_has_expired(redis_url: str) -> None:
    store = RedisStore(redis_url, prefix="left")
    key = await begun(store, ttl=0.1, lease=0.05)
    await store.attend(key)
    await store.append(key, 1, 1, [*PARTS, END])
    keys = [k async for k in store._redis.scan_iter("left*")]
    assert keys
    assert all([await store._redis.pttl(k) > 0 for k in keys])
    await store.aclose()


async def test_a_redis_that_is_not_there_is_named_and_its_url_is_not() -> None:
    store = RedisStore("redis://:secret@127.0.0.1:1/0")
    with pytest.raises(stores.StoreUnreachableError) as caught:
        await store.attend("x")
    assert "secret" not in str(caught.value)
    await store.aclose()
