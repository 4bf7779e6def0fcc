"""The store is away, slow, full, or another process's: the LLM is stopped in time, and readers are told the truth."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis.asyncio as redis

from llama_index_resilient_stream import ConfigurationError
from llama_index_resilient_stream.serve.generations import Generations
from llama_index_resilient_stream.serve.processes import is_of_another_process, marked, process_mark
from llama_index_resilient_stream.serve.redis import RedisStore
from llama_index_resilient_stream.serve.store import MemoryStore, StoreUnreachableError, Ticket
from support.generations import EXPIRED, UNKNOWN, Cable, Source, Tab, kill, lost, tab, until
from support.readers import TEXT
from support.servers import redis_server

CANCELLED = ("done", {"status": "cancelled"})


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as running:
        yield running.url


Make = Callable[..., Generations]


@pytest.fixture
async def homes(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Workers over one Redis, each with a line of its own that can be cut."""
    made: list[Generations] = []

    def home(**terms: Any) -> Generations:
        store = Cable(RedisStore(redis_url, prefix=request.node.name))
        made.append(Generations(store, **{"shutdown": 0, "lease": 1.0, "grace": 5.0, **terms}))
        return made[-1]

    yield home
    for each in made:
        await each.aclose()


@pytest.fixture(params=["memory", "redis"])
async def home_of(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """One worker, whose line to its store can be cut."""
    made: list[Generations] = []
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None

    def home(**terms: Any) -> Generations:
        store = Cable(MemoryStore() if url is None else RedisStore(url, prefix=request.node.name))
        made.append(Generations(store, **{"shutdown": 0, "lease": 1.0, "grace": 5.0, **terms}))
        return made[-1]

    yield home
    for each in made:
        await each.aclose()


def begin(reader: Tab) -> asyncio.Future[Tab]:
    return asyncio.ensure_future(reader.read())


def now() -> float:
    return asyncio.get_running_loop().time()


# Away


async def test_readers_on_the_worker_go_on_without_the_store(home_of: Make) -> None:
    home, source = home_of(grace=0.5), Source(open_to=10)
    key = await home.start(source)
    reading = begin(reader := tab(home, key))
    await until(lambda: len(reader.events) == 10)
    home.store.cut = True
    for _ in source.pieces[10:]:
        await asyncio.sleep(0.05)  # longer than the grace, all in all
        source.let(1)
    assert (await reading).exact()
    assert reader.silence < 2
    await until(lambda: not home._running)  # nor is its end kept for ever


async def test_readers_elsewhere_are_told_of_an_outage_after_the_grace(homes: Make) -> None:
    here, there = homes(), homes(grace=0.5)
    key = await here.start(Source(open_to=10))
    reading = begin(reader := tab(there, key))
    await until(lambda: len(reader.events) == 10)
    there.store.cut = True
    began = now()
    assert (await reading).end == lost("store_unreachable")
    assert 0.5 < now() - began < 3
    assert (await tab(there, key).read()).end == lost("store_unreachable")


async def test_what_was_made_during_an_outage_is_there_for_everybody_after_it(homes: Make) -> None:
    here, there, source = homes(), homes(), Source(open_to=10)
    key = await here.start(source)
    reading = [begin(tab(home, key)) for home in (here, there)]
    await until(lambda: source._gate.locked())
    here.store.cut = True
    source.let()
    assert (await reading[0]).exact()
    assert not reading[1].done()
    here.store.cut = False
    assert (await reading[1]).exact()
    assert (await tab(there, key).read()).exact()
    assert source.asked == 1


@pytest.mark.parametrize("readers", [0, 1])
async def test_an_outage_ends_what_nobody_reads_after_the_grace(home_of: Make, readers: int) -> None:
    home, source = home_of(grace=0.6, ttl=600), Source(open_to=3)
    key = await home.start(source)
    for _ in range(readers):
        await tab(home, key).read(3)
    home.store.cut = True
    began = now()
    await asyncio.wait_for(source.closed.wait(), 10)
    assert 0.5 < now() - began < 3
    await until(lambda: not home._running)


async def test_an_outage_begins_a_grace_anew(home_of: Make) -> None:
    """While the store is away nobody can tell whether somebody reads: the time before it does not count."""
    home, source = home_of(lease=0.9, grace=1.5), Source(open_to=10)
    reader = tab(home, await home.start(source))
    await reader.read(10)
    for cut in (False, True, False):
        home.store.cut = cut
        await asyncio.sleep(1)
    source.let()
    assert (await reader.read()).exact()


async def test_stopping_without_the_store(homes: Make) -> None:
    here, there = homes(), homes()
    source = Source(open_to=3)
    key = await here.start(source, owner="ann")
    reading = begin(reader := tab(here, key))
    await until(lambda: len(reader.events) == 3)
    here.store.cut = there.store.cut = True
    assert await here.allows(None, key)
    began = now()
    assert await here.stop(key)
    assert (await reading).end == CANCELLED
    await asyncio.wait_for(source.closed.wait(), 1)
    assert now() - began < 3
    assert not await here.stop(key)
    for ask in (here.start(source), there.stop(key), there.allows(None, key)):
        with pytest.raises(StoreUnreachableError):
            await ask


async def test_a_store_that_takes_its_time_holds_nobody_up(homes: Make) -> None:
    home, source = homes(), Source(open_to=5)
    key = await home.start(source)
    reading = begin(reader := tab(home, key))
    await until(lambda: len(reader.events) == 5)
    home.store.slow = 4.0
    source.let()
    await asyncio.wait_for(asyncio.shield(reading), 3)
    assert reader.exact()
    home.store.slow = 0.0
    await until(lambda: not home._running)
    assert (await tab(homes(), key).read()).exact()


async def test_what_only_a_dead_worker_has_shown_is_not_contradicted(homes: Make) -> None:
    """During an outage its readers saw more than is stored. Who goes on goes on from what is stored."""

    async def take_over(ticket: Ticket, text: str) -> AsyncIterator[str]:
        async def say() -> AsyncIterator[str]:
            await asyncio.sleep(30)
            yield "something else"

        return say()

    here, there, source = homes(), homes(take_over=take_over, lease=0.5), Source(open_to=10)
    key = await here.start(source)
    reader = tab(here, key)
    await reader.read(10)
    here.store.cut = True
    source.let(10)
    await reader.read(10)
    assert reader.text == TEXT[:180]
    await kill(here)
    back = tab(there, key)
    back.last_id = reader.last_id
    assert (await back.read()).end == lost("store_lost")
    assert back.text == ""


async def test_a_worker_that_comes_to_itself_keeps_what_it_runs(homes: Make) -> None:
    """Its loop was blocked for longer than its lease. Its own readers are not told that it is dead."""
    taken: list[str] = []

    def take_over(ticket: Ticket, text: str) -> Any:
        taken.append(ticket.id)
        return Source()()

    home, source = homes(lease=0.4, take_over=take_over), Source(open_to=5)
    key = await home.start(source)
    reading = [begin(tab(home, key)) for _ in range(5)]
    await until(lambda: source._gate.locked())
    time.sleep(1)  # noqa: ASYNC251 - as a synchronous engine does on the loop
    source.let()
    assert all([(await each).exact() for each in reading])
    assert taken == []


# Full


@pytest.fixture
async def full_redis(redis_url: str) -> AsyncIterator[Callable[[bool], Any]]:
    async with redis.from_url(redis_url) as client:

        async def fill(full: bool) -> None:
            await client.config_set("maxmemory", 1 if full else 0)

        yield fill
        await fill(False)


async def test_a_full_redis_is_told_as_what_it_is(
    homes: Make, full_redis: Callable[[bool], Any], caplog: pytest.LogCaptureFixture
) -> None:
    finished, running = Source(), Source(open_to=10)
    here, there = homes(grace=1.0, lease=0.6), homes(grace=1.0, lease=0.6, take_over=lambda ticket, text: Source()())
    before = await here.start(finished)
    await tab(here, before).read()
    key = await here.start(running)
    readers = [tab(home, key) for home in (here, there)]
    reading = [begin(reader) for reader in readers]
    await until(lambda: all(len(reader.events) == 10 for reader in readers))
    await full_redis(True)
    await asyncio.sleep(1.0)  # longer than a lease
    running.let()
    assert (await reading[0]).exact()
    assert (await reading[1]).end == lost("store_full")
    assert (await tab(there, before).read()).exact()
    with pytest.raises(StoreUnreachableError, match="Redis is full"):
        await here.start(Source())
    await until(lambda: not here._running)
    assert "is given up: Redis is full" in caplog.text
    assert "recovery" not in [event.event for reader in readers for event in reader.events]


async def test_a_redis_that_was_full_has_everything_again(homes: Make, full_redis: Callable[[bool], Any]) -> None:
    here, there = homes(lease=0.6), homes(lease=0.6)
    source = Source(open_to=10)
    key = await here.start(source)
    reading = begin(tab(there, key))
    await until(lambda: source._gate.locked())
    await full_redis(True)
    source.let()
    await asyncio.sleep(1.5)
    assert here._running
    await full_redis(False)
    assert (await reading).exact()


async def test_memory_has_a_bound_in_bytes() -> None:
    home = Generations(MemoryStore(max_bytes=100_000), shutdown=0, grace=0.5)
    big = [Source("x" * 30_000) for _ in range(4)]
    keys = [await home.start(source) for source in big[:3]]
    for key in keys:
        assert (await tab(home, key).read()).text == "x" * 30_000
    running = Source("y" * 30_000, open_to=0)
    keys.append(await home.start(running))
    reading = begin(tab(home, keys[3]))
    running.let()
    assert (await reading).text == "y" * 30_000
    ends = [(await tab(home, key).read()).end for key in keys]
    assert ends == [EXPIRED, UNKNOWN, UNKNOWN, UNKNOWN]  # the oldest is forgotten
    await home.aclose()


async def test_what_is_larger_than_the_memory_has_is_read_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    home = Generations(MemoryStore(max_bytes=10_000), shutdown=0, grace=0.5)
    source = Source(*["z" * 3_000] * 9, open_to=0)
    key = await home.start(source)
    reading = begin(tab(home, key))
    source.let()
    assert (await reading).text == "z" * 27_000
    await until(lambda: not home._running)
    assert "MemoryStore(max_bytes=...)" in caplog.text
    await home.aclose()


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_bound_that_makes_no_sense(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"MemoryStore\(max_bytes="):
        MemoryStore(max_bytes=value)


# Several workers, and no Redis


async def test_an_answer_in_the_memory_of_another_worker(caplog: pytest.LogCaptureFixture) -> None:
    for may_read in (None, lambda request, ticket: False):
        caplog.clear()
        home = Generations(shutdown=0, may_read=may_read)
        key = await home.start(Source())
        foreign = marked(key[:32], "A" * 6)
        for _ in range(3):
            reader = tab(home, foreign)
            reader.last_id = f"{foreign}.3"
            assert (await reader.read()).end == lost("another_worker")
        assert caplog.text.count("RedisStore(") == 1
        assert foreign not in caplog.text
        for never in (key[::-1], foreign[:-1] + "?", key[:32] + foreign[32:-1] + "_"):
            assert (await tab(home, never).read()).events[-1].data.count("another_worker") == 0
        await home.aclose()


def _mark(answer: Any) -> None:
    answer.put(process_mark())


def test_processes_have_marks_of_their_own_after_a_fork() -> None:
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    mine = process_mark()
    process = context.Process(target=_mark, args=(answer,))
    process.start()
    process.join(10)
    assert process_mark() == mine
    assert is_of_another_process(marked("k" * 32, answer.get()))
    assert not is_of_another_process(marked("k" * 32, mine))
