"""What a store promises, over every store there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis.asyncio as redis

from llama_index_resilient_stream.serve import store as stores
from llama_index_resilient_stream.serve.parts import EndPart, Part, RecoveryPart, TextPart
from llama_index_resilient_stream.serve.redis import RedisStore
from llama_index_resilient_stream.serve.store import (
    FencedError,
    GenerationState,
    MemoryStore,
    MissingError,
    Store,
    Ticket,
)
from support.servers import redis_server

PARTS: list[Part] = [
    TextPart("Say \"it\": 'ja' – 是的, \u2028 \U0001f600\n"),
    TextPart("\ud83d"),  # half an emoji
    RecoveryPart(2, "transport"),
    TextPart("."),
]
END = EndPart("interrupted", "no_progress", True)
TICKET = Ticket("key-of-a-generation", "somebody", {"question": "Why?"})


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as running:
        yield running.url


OPTIONS = {"redis": "protocol=2", "redis-resp3": "protocol=3", "redis-decoding": "decode_responses=true"}


@pytest.fixture(params=["memory", *OPTIONS])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made: Store
    if request.param == "memory":
        made = MemoryStore()
    else:
        url = request.getfixturevalue("redis_url")
        made = RedisStore(f"{url}/0?{OPTIONS[request.param]}", prefix=request.node.name)
    yield made
    await made.aclose()


async def begun(store: Store, **times: Any) -> str:
    await store.create(TICKET, 1, **{"lease": 5.0, "ttl": 60.0, **times})
    return TICKET.id


async def test_events_are_read_from_any_point_on(store: Store) -> None:
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


async def test_worker_that_was_taken_over_is_fenced_off(store: Store) -> None:
    key = await begun(store, lease=0.5)
    await store.append(key, 1, 1, PARTS[:1])
    assert await store.attend(key) is GenerationState.RUNNING
    await asyncio.sleep(0.6)
    assert await store.attend(key) is GenerationState.ORPHANED
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
    assert await store.attend(key) is GenerationState.ORPHANED
    assert await store.claim(key) is not None


async def test_released_generation_is_not_written_any_more(store: Store) -> None:
    """A beat that was under way, or a part, would keep the next worker from it for another lease, or be told twice."""
    key = await begun(store)
    await store.release(key, 1)
    for act in (store.beat(key, 1), store.append(key, 1, 1, PARTS)):
        with pytest.raises(FencedError):
            await act
    assert await store.attend(key) is GenerationState.ORPHANED


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


async def test_finished_generation_stays_finished(store: Store) -> None:
    key = await begun(store)
    await store.append(key, 1, 1, [*PARTS, END])
    assert await store.attend(key) is GenerationState.OVER
    assert not await store.stop(key)
    assert await store.claim(key) is None


async def test_generation_expires(store: Store) -> None:
    key = await begun(store, ttl=0.1, lease=0.05)
    await store.append(key, 1, 1, [*PARTS, END])
    await asyncio.sleep(0.2)
    assert await store.attend(key) is GenerationState.MISSING
    assert await store.read(key, 0, 0.01) == []
    assert await store.ticket(key) is None
    assert not await store.stop(key)
    for act in (store.append(key, 1, 1, PARTS), store.beat(key, 1)):
        with pytest.raises(MissingError):
            await act


async def test_generation_does_not_expire_while_it_is_written(store: Store) -> None:
    key = await begun(store, ttl=1)
    for number, part in enumerate(PARTS, 1):
        await asyncio.sleep(0.1)
        await store.append(key, 1, number, [part])
    for _ in range(4):
        await asyncio.sleep(0.1)
        await store.beat(key, 1)
    assert len(await store.read(key, 0, 0)) == len(PARTS)


async def test_a_part_that_would_leave_a_gap_is_refused(store: Store) -> None:
    """What the store has lost comes back whole, or not at all: a reader in the gap would miss it without a word."""
    key = await begun(store)
    await store.append(key, 1, 1, PARTS[:1])
    with pytest.raises(MissingError):
        await store.append(key, 1, 3, PARTS[2:])
    assert [part for _, part in await store.read(key, 0, 0)] == PARTS[:1]


async def test_lost_events_are_put_back_at_once(store: Store) -> None:
    await store.create(TICKET, 3, [*PARTS, END], lease=5, ttl=60)
    assert await store.read(TICKET.id, 2, 0) == list(enumerate([*PARTS, END], 1))[2:]
    assert await store.attend(TICKET.id) is GenerationState.OVER


async def test_putting_back_keeps_what_is_there(store: Store) -> None:
    key = await begun(store)
    await store.append(key, 1, 1, PARTS)
    assert await store.stop(key)
    await store.create(TICKET, 1, PARTS[:2], lease=5, ttl=60)
    assert [part for _, part in await store.read(key, 0, 0)] == PARTS
    assert (await store.beat(key, 1)).stop


async def test_an_older_worker_puts_nothing_back(store: Store) -> None:
    await store.create(TICKET, 2, PARTS[:2], lease=5, ttl=60)
    with pytest.raises(FencedError):
        await store.create(TICKET, 1, PARTS, lease=5, ttl=60)
    assert [part for _, part in await store.read(TICKET.id, 0, 0)] == PARTS[:2]


async def test_a_newer_worker_replaces_what_an_older_one_has_put_back(store: Store) -> None:
    key = await begun(store)
    await store.append(key, 1, 1, PARTS[:2])
    for act in (store.beat(key, 2), store.append(key, 2, 3, PARTS[2:])):
        with pytest.raises(MissingError):
            await act
    await store.create(TICKET, 2, PARTS[1:], lease=5, ttl=60)
    assert [part for _, part in await store.read(key, 0, 0)] == PARTS[1:]
    with pytest.raises(FencedError):
        await store.beat(key, 1)


def test_one_store_on_one_loop_after_another(request: pytest.FixtureRequest) -> None:
    """As in tests with a loop for each, and with Starlette's TestClient, which has one for each request."""
    url = request.getfixturevalue("redis_url")
    for made in (MemoryStore(), RedisStore(url, prefix="loops")):

        async def use(store: Store, first: int) -> list[tuple[int, Part]]:
            if first == 1:
                await begun(store)
            await store.append(TICKET.id, 1, first, [PARTS[0]])
            reading = asyncio.ensure_future(store.read(TICKET.id, first, 0.05))
            assert await reading == []
            found = await store.read(TICKET.id, 0, 0)
            if isinstance(store, RedisStore):
                await store.aclose()
            return found

        for first in (1, 2, 3):
            assert asyncio.run(use(made, first)) == list(enumerate([PARTS[0]] * first, 1))


async def test_more_readers_than_a_pool_of_redis_py_has_connections(redis_url: str) -> None:
    store = RedisStore(redis_url, prefix="many")
    key = await begun(store)
    reading = [asyncio.ensure_future(store.read(key, 0, 10)) for _ in range(150)]
    await asyncio.sleep(0.5)
    await store.append(key, 1, 1, PARTS[:1])
    assert await asyncio.gather(*reading) == [[(1, PARTS[0])]] * 150
    await store.aclose()


async def test_a_long_wait_is_no_time_out_of_the_connection(redis_url: str) -> None:
    store = RedisStore(f"{redis_url}?socket_timeout=0.4", prefix="waits")
    key = await begun(store)
    for _ in range(3):
        assert await store.read(key, 0, 1) == []
    await store.aclose()


async def test_the_parts_alone_were_evicted(redis_url: str) -> None:
    store = RedisStore(redis_url, prefix="evicted")
    key = await begun(store)
    await store.append(key, 1, 1, PARTS[:2])
    await store._redis.delete(store._keys(key)[1])
    for act in (store.append(key, 1, 3, PARTS[2:]), store.beat(key, 1)):
        with pytest.raises(MissingError):
            await act
    await store.create(TICKET, 1, PARTS, lease=5, ttl=60)
    assert [part for _, part in await store.read(key, 0, 0)] == PARTS
    await store.aclose()


async def test_redis_errors_are_store_errors(redis_url: str) -> None:
    store = RedisStore(redis_url, prefix="full")
    key = await begun(store)
    await store._redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(stores.StoreFullError, match="Redis is full"):
            await store.append(key, 1, 1, PARTS)
    finally:
        await store._redis.config_set("maxmemory", 0)
    await store.append(key, 1, 1, PARTS)
    await store.aclose()


async def test_a_redis_that_hangs_is_not_waited_for(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_index_resilient_stream.serve.redis_lane.PATIENCE", 0.2)
    client = redis.from_url(redis_url, socket_timeout=None)
    store = RedisStore(client, prefix="hangs")
    key = await begun(store)
    async with redis.from_url(redis_url) as other:
        await other.client_pause(600)
        with pytest.raises(stores.StoreUnreachableError):
            await store.append(key, 1, 1, PARTS)
        await other.client_unpause()
    await store.append(key, 1, 1, PARTS)
    assert [part for _, part in await store.read(key, 0, 0)] == PARTS
    await client.aclose()


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
