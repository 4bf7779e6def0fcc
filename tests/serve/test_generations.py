"""Generations outlive their connections: every character once, one generation, and an end that is stated."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis.asyncio as redis
from flask import Flask
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer

from llama_index_resilient_stream import ConfigurationError, ResilientLLM, resilient
from llama_index_resilient_stream.serve import store as stores
from llama_index_resilient_stream.serve.fastapi import SSEResponse
from llama_index_resilient_stream.serve.flask import on_loop, sse_response
from llama_index_resilient_stream.serve.generations import Generations
from llama_index_resilient_stream.serve.parts import EndPart, TextPart
from llama_index_resilient_stream.serve.redis import RedisStore
from llama_index_resilient_stream.serve.resumption import EventStreamSetup
from llama_index_resilient_stream.serve.store import Ticket
from llama_index_resilient_stream.testing import Cut, ScriptedLLM, Stall
from support.generations import (
    COMPLETE,
    EXPIRED,
    UNKNOWN,
    Cable,
    Source,
    Tab,
    kill,
    lost,
    tab,
    until,
)
from support.readers import QUICK, TEXT, question
from support.servers import redis_server


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as running:
        yield running.url


MakeHome = Callable[..., Generations]


@pytest.fixture(params=["memory", "redis"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[MakeHome]:
    """Each home but the first is that of another worker; in memory there is only one."""
    homes: list[Generations] = []
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None

    def home(**terms: Any) -> Generations:
        made = None if url is None else RedisStore(url, prefix=request.node.name)
        homes.append(Generations(made, **{"shutdown": 0, "lease": 1.0, "grace": 5.0, **terms}))
        return homes[-1]

    yield home
    for each in homes:
        await each.aclose()


@pytest.fixture
async def workers(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[MakeHome]:
    """Several homes over one Redis."""
    homes: list[Generations] = []

    def home(store: Any = None, **terms: Any) -> Generations:
        store = store or RedisStore(redis_url, prefix=request.node.name)
        homes.append(Generations(store, **{"shutdown": 0, "lease": 1.0, "grace": 5.0, **terms}))
        return homes[-1]

    yield home
    for each in homes:
        await each.aclose()


# Every character once


async def _cut_at(
    stores: Callable[[], Any], cuts: list[int], size: int, fault: int | None
) -> tuple[Tab, ScriptedLLM, Any]:
    """`stores` makes a store for each of two workers, or None: then there is one."""
    inner = ScriptedLLM(TEXT, [None if fault is None else Cut(fault, ConnectionResetError("x"))], token=size)
    home = Generations(stores(), shutdown=5)
    other = Generations(store, shutdown=5) if (store := stores()) is not None else home
    llm = ResilientLLM(inner, policy=QUICK)
    key = await home.start(lambda: llm.astream_chat(question()))
    places = itertools.cycle([other, home])
    reader = Tab(lambda: EventStreamSetup(next(places).get(key)))
    for cut in cuts:
        await reader.read(cut)
    await reader.read()
    whole = await tab(other, key).read()
    for each in {home, other}:
        await each.aclose()
    return reader, inner, whole


cut_patterns = st.lists(st.integers(0, 12), max_size=14)


def exactly_once(reader: Tab, inner: ScriptedLLM, whole: Tab, *, calls: int) -> None:
    assert reader.text == whole.text == TEXT
    assert reader.numbers() == list(range(1, len(whole.events) + 1))
    assert reader.end == COMPLETE
    assert len(inner.calls) == calls


@given(cut_patterns, st.integers(3, 60), st.none() | st.integers(1, len(TEXT) - 1))
@example([1] * 14, 20, None)
@example([0, 0, 0], len(TEXT), 100)
@settings(max_examples=60)
def test_every_event_comes_once_whatever_the_cuts(cuts: list[int], size: int, fault: int | None) -> None:
    exactly_once(*asyncio.run(_cut_at(lambda: None, cuts, size, fault)), calls=1 if fault is None else 2)


@given(cut_patterns, st.integers(3, 60))
@settings(max_examples=15)
def test_every_event_comes_once_from_redis_whatever_the_cuts(redis_url: str, cuts: list[int], size: int) -> None:
    async def run() -> Any:
        return await _cut_at(lambda: RedisStore(redis_url, prefix="property"), cuts, size, None)

    exactly_once(*asyncio.run(run()), calls=1)


async def test_a_reader_that_follows_it_live_and_one_that_is_cut_off(make: MakeHome) -> None:
    home, source = make(), Source(open_to=0)
    key = await home.start(source)
    live = asyncio.ensure_future(tab(home, key).read())
    cut_off = tab(home, key)
    for _ in range(len(source.pieces)):
        source.let(1)
        await cut_off.read(1)
    await cut_off.read()
    for reader in (await live, cut_off):
        assert reader.text == TEXT
        assert reader.numbers() == list(range(1, len(source.pieces) + 2))
    assert source.asked == 1


@pytest.mark.parametrize("how", ["coroutine function", "function", "synchronous", "response"])
async def test_anything_that_can_be_served_can_be_resumed(make: MakeHome, how: str) -> None:
    llm = ResilientLLM(ScriptedLLM(TEXT, token=20), policy=QUICK)
    home = make()
    sources: dict[str, Any] = {
        "coroutine function": Source(),
        "function": lambda: llm.astream_chat(question()),
        "synchronous": lambda: llm.stream_chat(question()),
        "response": llm.stream_chat(question()),
    }
    reader = tab(home, await home.start(sources[how]))
    await reader.read(3)
    await reader.read()
    assert reader.text == TEXT


async def test_one_request_that_starts_and_comes_back(make: MakeHome) -> None:
    home, source = make(), Source()
    reader = Tab(lambda: EventStreamSetup(source, home))
    for _ in range(5):
        await reader.read(2)
    await reader.read()
    assert reader.text == TEXT
    assert (await reader.read()).status == 204
    assert source.asked == 1


# After the end


async def test_generation_replays_until_it_expires_and_runs_once(make: MakeHome) -> None:
    home, source = make(ttl=0.8, lease=0.1), Source("One", " two")
    reader = Tab(lambda: EventStreamSetup(source, home))
    await reader.read(1)
    key = reader.last_id.partition(".")[0]
    await reader.read()
    assert (await tab(home, key).read()).text == "One two"
    await asyncio.sleep(1)
    assert (await tab(home, key).read()).end == EXPIRED
    late = Tab(lambda: EventStreamSetup(source, home))
    late.last_id = f"{key}.1"
    assert (await late.read()).end == EXPIRED
    assert (await late.read()).status == 204
    assert source.asked == 1


async def test_the_id_of_the_last_event_ends_it_for_an_event_source(make: MakeHome) -> None:
    home = make()
    key = await home.start(Source("One"))
    reader = await tab(home, key).read()
    assert reader.last_id == f"{key}.2.end"
    assert (await reader.read()).status == 204
    assert (await tab(home, key, after=reader.last_id).read()).status == 204
    assert len(reader.events) == 2


async def test_the_number_of_the_last_event_without_its_mark(make: MakeHome) -> None:
    home = make()
    key = await home.start(Source("One"))
    await tab(home, key).read()
    assert (await tab(home, key, after=2).read()).end == EXPIRED


# What readers send


@pytest.mark.parametrize(
    "sent",
    ["", "x", "-1", "1", "7.end", "1.1", "99999999999999999999", "ä.1", "{key}.", "{key}.1x", " {key}.1", "{key}.-1",
     "{key}.1e3", "{key}.1.END", "{other}.1", "{other}.3.end", "\0", "{key}" * 99],
)  # fmt: skip
async def test_foreign_event_id_reads_from_the_beginning(make: MakeHome, sent: str) -> None:
    home = make()
    key, other = [await home.start(Source("One", " two")) for _ in range(2)]
    sent = sent.format(key=key, other=other)
    by_header, by_url = tab(home, key), tab(home, key, after=sent)
    by_header.last_id = sent
    assert (await by_header.read()).text == (await by_url.read()).text == "One two"


@pytest.mark.parametrize("key", ["", "x", "../../etc", "a" * 65, "{x}:parts", "ключ" * 5, "a" * 20 + "\n"])
async def test_impossible_generation_key_has_expired(make: MakeHome, key: str) -> None:
    home = make(lease=60)
    assert (await tab(home, key).read(seconds=2)).end == EXPIRED
    assert not await home.stop(key)
    assert not await home.allows(None, key)


@pytest.mark.parametrize("sent", ["7", "{x}.1", "0"])
async def test_foreign_event_id_starts_nothing(make: MakeHome, sent: str) -> None:
    home, source = make(lease=0.1), Source()
    reader = Tab(lambda: EventStreamSetup(source, home))
    reader.last_id = sent.format(x="x" * 32)
    assert (await reader.read()).end == EXPIRED
    assert source.asked == 0


async def test_an_id_beyond_the_end(make: MakeHome) -> None:
    home = make()
    key = await home.start(Source("One"))
    reader = tab(home, key)
    reader.last_id = f"{key}.999999999999999"
    assert (await reader.read()).end == EXPIRED


async def test_a_page_that_was_loaded_again_goes_on_behind_what_it_has_kept(make: MakeHome) -> None:
    home = make()
    key = await home.start(Source())
    before = await tab(home, key).read(4)
    after = tab(home, key, after=before.last_id)
    await after.read(3)
    await after.read()  # its Last-Event-ID is later than what its URL says, and counts
    assert before.text + after.text == TEXT
    assert (await tab(home, key, after=4).read()).text == after.text
    assert (await tab(home, key, after=-4).read()).text == (await tab(home, key, after=None).read()).text == TEXT


async def test_ids_cannot_be_guessed(caplog: pytest.LogCaptureFixture) -> None:
    home = Generations(shutdown=0)
    keys = [await home.start(Source("x")) for _ in range(200)]
    assert len(set(keys)) == 200
    assert all(re.fullmatch(r"[\w-]{32,}", key, re.ASCII) for key in keys), "192 bits"
    assert len({key[:6] for key in keys}) == 200
    await home.aclose()
    assert not any(key in caplog.text for key in keys)


# Who may read


async def sync_or_async(kind: str, seen: list[Any]) -> Any:
    def may(request: Any, ticket: Ticket) -> bool:
        seen.append(ticket)
        return bool(request.user == ticket.owner)

    async def amay(request: Any, ticket: Ticket) -> bool:
        await asyncio.sleep(0)
        return may(request, ticket)

    return may if kind == "sync" else amay


ANN, BOB = SimpleNamespace(user="ann"), SimpleNamespace(user="bob")


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_application_decides_who_may_read(make: MakeHome, kind: str) -> None:
    seen: list[Ticket] = []
    home = make(may_read=await sync_or_async(kind, seen))
    key = await home.start(Source(), owner="ann", payload={"question": [1]})
    assert (await tab(home, key, BOB).read()).status == 404
    assert (await tab(home, key, ANN).read()).text == TEXT
    assert seen == [Ticket(key, "ann", {"question": [1]})] * 2
    assert await home.allows(ANN, key)
    assert not await home.allows(BOB, key)
    assert not await home.allows(ANN, key[::-1])


async def test_starter_may_read_and_returning_readers_are_authorised(make: MakeHome) -> None:
    home = make(may_read=lambda request, ticket: request is ticket.owner or request.user == ticket.owner)
    reader = Tab(lambda: EventStreamSetup(Source(), home, "ann"), BOB)
    await reader.read(2)
    assert reader.text
    assert (await reader.read()).status == 404


async def test_generation_missing_from_the_store_is_authorised_again(workers: MakeHome, redis_url: str) -> None:
    home = workers(may_read=lambda request, ticket: request.user == ticket.owner)
    source = Source(open_to=3)
    key = await home.start(source, owner="ann")
    await tab(home, key, ANN).read(3)
    async with redis.from_url(redis_url) as client:
        await client.flushall()
    bob, ann = (asyncio.ensure_future(tab(home, key, who).read()) for who in (BOB, ANN))
    await asyncio.sleep(0)
    source.let()
    assert (await bob).end == EXPIRED
    assert (await ann).text == TEXT


# Leaving, stopping, bounds


async def test_a_reader_that_has_gone_for_good_stops_it_and_the_memory_keeps_the_rest(
    make: MakeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "PRESENCE", 0.3)
    monkeypatch.setattr("llama_index_resilient_stream.serve.redis.PRESENCE", 0.3)
    inner = ScriptedLLM(TEXT, [Stall(after=100)], token=10)
    memory = ChatMemoryBuffer.from_defaults(token_limit=100_000)
    engine = resilient(SimpleChatEngine.from_defaults(llm=ResilientLLM(inner, policy=QUICK), memory=memory))
    home = make(grace=0.5)
    key = await home.start(lambda: engine.astream_chat("Why?"))
    await tab(home, key).read(10)
    await until(lambda: inner.closed_streams == 1)
    reader = await tab(home, key).read()
    assert reader.end == ("done", {"status": "cancelled"})
    assert TEXT.startswith(reader.text)
    assert reader.text
    user, assistant = engine.chat_history
    assert (user.content, assistant.content) == ("Why?", reader.text)
    assert "resilient_partial" in assistant.additional_kwargs


async def test_returning_within_the_grace_finds_the_generation_running(make: MakeHome) -> None:
    home, source = make(grace=2.0), Source(open_to=2)
    reader = tab(home, await home.start(source))
    for _ in range(3):
        await reader.read(1 if len(reader.events) < 2 else 0)
        await asyncio.sleep(0.7)
    source.let()
    assert (await reader.read()).text == TEXT


async def test_a_silent_source_with_a_reader_is_not_stopped(make: MakeHome) -> None:
    home, source = make(grace=0.4, lease=0.6), Source(open_to=2)
    reading = asyncio.ensure_future(tab(home, await home.start(source)).read())
    await asyncio.sleep(3.5)  # longer than a reader counts as there
    source.let()
    assert (await reading).text == TEXT


async def test_stopping_it(make: MakeHome) -> None:
    home, source = make(), Source(open_to=3)
    key = await home.start(source)
    reading = asyncio.ensure_future(tab(home, key).read())
    await until(lambda: source._gate.locked())
    assert await home.stop(key)
    reader = await reading
    assert reader.end == ("done", {"status": "cancelled"})
    assert TEXT.startswith(reader.text)
    await asyncio.wait_for(source.closed.wait(), 10)
    assert not await home.stop(key)


async def test_generation_is_stopped_from_another_worker(workers: MakeHome) -> None:
    here, there = workers(), workers()
    source = Source(open_to=3)
    key = await here.start(source)
    reading = asyncio.ensure_future(tab(there, key).read())
    assert await there.stop(key)
    assert (await reading).end == ("done", {"status": "cancelled"})
    await asyncio.wait_for(source.closed.wait(), 10)


async def test_stopping_what_does_not_heed_it(make: MakeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does the lease lapse while the source takes its time, nor do the readers wait for ever."""
    monkeypatch.setattr("llama_index_resilient_stream.serve.source._STOP", 2.5)
    home, gate = make(lease=0.5), threading.Event()

    def stubborn() -> Iterator[str]:
        yield "So"
        gate.wait(20)

    key = await home.start(stubborn)
    reading = asyncio.ensure_future(tab(home, key).read())
    await asyncio.sleep(0.3)
    stopping = asyncio.ensure_future(home.stop(key))
    try:
        assert (await reading).end == ("done", {"status": "cancelled"})
    finally:
        gate.set()
    assert await stopping
    assert (await reading).text == "So"


async def test_generation_length_is_bounded(make: MakeHome) -> None:
    async def endless() -> AsyncIterator[str]:
        while True:
            await asyncio.sleep(0)
            yield "x"

    home = make(limit=50)
    reader = await tab(home, await home.start(endless)).read()
    assert reader.end == ("error", {"status": "interrupted", "reason": "too_long", "retryable": False})
    assert len(reader.events) == 50


async def test_a_source_that_fails_says_so_and_nothing_of_why(make: MakeHome, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        raise ValueError("secret")

    home = make()
    key = await home.start(broken)
    for _ in range(2):
        reader = await tab(home, key).read()
        assert reader.end == ("error", {"status": "interrupted", "reason": "error", "retryable": False})
        assert "secret" not in str(reader.events)
    assert "secret" in caplog.text


# Shutting down


async def test_lifespan_lets_generations_finish() -> None:
    home, source = Generations(shutdown=20), Source(open_to=3)
    async with home.lifespan():
        reading = asyncio.ensure_future(tab(home, await home.start(source)).read())
        await until(lambda: source._gate.locked())
        asyncio.get_running_loop().call_later(0.3, source.let)
    assert (await reading).text == TEXT
    assert (await reading).end == UNKNOWN


async def test_answer_cut_by_shutdown_ends_with_a_stated_event(make: MakeHome) -> None:
    home, source = make(shutdown=0.1), Source(open_to=3)
    reading = asyncio.ensure_future(tab(home, await home.start(source)).read())
    await until(lambda: source._gate.locked())
    await home.aclose()
    assert (await reading).end == ("error", {"status": "interrupted", "reason": "server", "retryable": True})
    assert source.closed.is_set()


async def test_shut_down_and_used_again(make: MakeHome) -> None:
    """As by tests that enter the lifespan of one application many times."""
    home = make()
    for _ in range(2):
        async with home.lifespan():
            assert (await tab(home, await home.start(Source())).read()).text == TEXT


# Several workers


def taking_over(inner: ScriptedLLM, texts: list[str]) -> Any:
    llm = ResilientLLM(inner, policy=QUICK)

    def take_over(ticket: Ticket, text: str) -> Any:
        texts.append(text)
        return llm.aresume(question(ticket.payload["question"]), text)

    return take_over


async def test_what_a_dead_worker_leaves_is_lost_in_so_many_words(workers: MakeHome) -> None:
    here, there = workers(), workers()
    key = await here.start(Source(open_to=5))
    reader = tab(there, key)
    await reader.read(5)
    await kill(here)
    begun = asyncio.get_running_loop().time()
    await reader.read()
    assert asyncio.get_running_loop().time() - begun < 1 + 1 + 1.5  # the lease, a look, and a busy machine
    assert reader.end == lost("worker_lost")
    assert (await tab(there, key).read()).text == reader.text == TEXT[:45]


async def test_what_a_dead_worker_leaves_is_taken_over_by_one(workers: MakeHome) -> None:
    here, inner, texts = workers(), ScriptedLLM(TEXT, token=7), list[str]()
    there = [workers(take_over=taking_over(inner, texts)) for _ in range(3)]
    key = await here.start(Source(open_to=20), payload={"question": "Why?"})
    readers = [tab(home, key) for home in there]
    await readers[0].read(20)
    await kill(here)
    await asyncio.gather(*(reader.read() for reader in readers))
    for reader in readers:
        assert reader.text == TEXT
        assert reader.end == COMPLETE
        assert [json.loads(e.data) for e in reader.events if e.event == "recovery"] == [
            {"attempt": 2, "reason": "worker_lost"}
        ]
    assert texts == [TEXT[:180]]
    assert len(inner.calls) == 1


async def test_taken_over_at_the_very_beginning_and_at_the_very_end(workers: MakeHome) -> None:
    for said in (0, len(TEXT)):
        here, texts = workers(), list[str]()
        there = workers(take_over=taking_over(ScriptedLLM(TEXT), texts))
        key = await here.start(Source(TEXT[:said], "x", open_to=1 if said else 0), payload={"question": "Why?"})
        await tab(here, key).read(1 if said else 0)
        await kill(here)
        assert (await tab(there, key).read()).text == TEXT
        assert texts == [TEXT[:said]]


async def test_stopped_generation_of_a_dead_worker_is_not_taken_over(workers: MakeHome) -> None:
    here, texts = workers(), list[str]()
    there = workers(take_over=taking_over(ScriptedLLM(TEXT), texts))
    key = await here.start(Source(open_to=5), payload={"question": "Why?"})
    await tab(here, key).read(5)
    await kill(here)
    assert await there.stop(key)
    assert (await tab(there, key).read()).end == ("done", {"status": "cancelled"})
    assert texts == []


async def test_a_take_over_that_fails_says_so(workers: MakeHome) -> None:
    def take_over(ticket: Ticket, text: str) -> Any:
        raise KeyError("question")

    here, there = workers(), workers(take_over=take_over)
    key = await here.start(Source(open_to=5))
    await tab(here, key).read(5)
    await kill(here)
    reader = await tab(there, key).read()
    assert reader.end == ("error", {"status": "interrupted", "reason": "error", "retryable": False})


async def test_a_worker_that_shuts_down_hands_on(workers: MakeHome) -> None:
    inner, texts = ScriptedLLM(TEXT, token=7), list[str]()
    take_over = taking_over(inner, texts)
    here, there = (workers(take_over=take_over, shutdown=0.1, lease=30) for _ in range(2))
    source = Source(open_to=20)
    key = await here.start(source, payload={"question": "Why?"})
    reading = asyncio.ensure_future(tab(there, key).read())
    await until(lambda: source._gate.locked())
    await here.aclose()
    reader = await asyncio.wait_for(reading, 10)  # not after the lease
    assert reader.text == TEXT
    assert reader.end == COMPLETE
    assert len(inner.calls) == 1


async def test_answer_that_finishes_during_shutdown_is_whole(workers: MakeHome) -> None:
    here, there = workers(shutdown=10), workers()
    source = Source(open_to=20)
    key = await here.start(source)
    reading = asyncio.ensure_future(tab(there, key).read())
    closing = asyncio.ensure_future(here.aclose())
    await asyncio.sleep(0.1)
    source.let()
    await closing
    assert (await reading).text == TEXT
    assert (await reading).end == UNKNOWN


async def test_an_older_worker_that_comes_to_itself_writes_nothing(workers: MakeHome) -> None:
    """Its line was cut: it does not know that its lease is over, and goes on."""
    inner, texts = ScriptedLLM(TEXT, token=7), list[str]()
    there = workers(take_over=taking_over(inner, texts))
    cable = Cable(there.store)
    here, source = workers(cable), Source(open_to=20)
    key = await here.start(source, payload={"question": "Why?"})
    reader = tab(there, key)
    await reader.read(20)
    cable.cut = True
    source.let()
    await reader.read(22)  # a lease later it is taken over
    cable.cut = False
    await reader.read()
    await until(lambda: not here._running)
    assert reader.text == (await tab(there, key).read()).text == TEXT
    assert source.closed.is_set()
    assert len(inner.calls) == 1


# The store goes away, or forgets


async def test_a_store_that_was_away_for_a_while(make: MakeHome) -> None:
    cable = Cable(make().store)
    home, source = Generations(cable, shutdown=0, lease=1.0, grace=5.0), Source(open_to=10)
    key = await home.start(source)
    reader, back = tab(home, key), tab(home, key)
    await back.read(5)
    reading = asyncio.ensure_future(reader.read())
    await until(lambda: source._gate.locked())
    cable.cut = True
    source.let()  # it finishes meanwhile
    coming_back = asyncio.ensure_future(back.read())
    await asyncio.sleep(1.5)
    cable.cut = False
    assert (await reading).text == (await coming_back).text == TEXT
    assert source.asked == 1
    await home.aclose()


async def test_first_look_after_a_store_outage_takes_nothing_over(workers: MakeHome) -> None:
    """The lease is over, and its worker was only cut off."""
    texts = list[str]()
    there = workers(take_over=taking_over(ScriptedLLM(TEXT), texts))
    cable = Cable(there.store)
    here, source = workers(cable), Source(open_to=10)
    key = await here.start(source)
    await tab(there, key).read(10)
    cable.cut = True
    await asyncio.sleep(1.2)
    reading = asyncio.ensure_future(tab(there, key).read())
    await asyncio.sleep(0.05)
    cable.cut = False
    source.let()
    assert (await reading).text == TEXT
    assert texts == []


@pytest.mark.parametrize("when", ["in the middle", "silent"])
async def test_a_redis_that_has_forgotten_everything(workers: MakeHome, redis_url: str, when: str) -> None:
    here, there = workers(), workers()
    source = Source(open_to=10)
    key = await here.start(source, owner="ann")
    reading = [asyncio.ensure_future(tab(home, key).read()) for home in (here, there)]
    late = tab(there, key)
    await late.read(10)
    async with redis.from_url(redis_url) as client:
        for _ in range(3):
            source.let(3)
            await client.flushall()
            if when == "silent":
                await asyncio.sleep(0.5)
    source.let()
    await late.read()
    for reader in [*await asyncio.gather(*reading), late]:
        assert (reader.text, reader.end[0]) == (TEXT, "done")
        assert reader.numbers() == list(range(1, len(source.pieces) + 2))
    assert source.asked == 1


async def test_a_redis_that_has_forgotten_and_a_worker_that_is_dead(workers: MakeHome, redis_url: str) -> None:
    here, there = workers(), workers(lease=0.5)
    key = await here.start(Source(open_to=10))
    reading = asyncio.ensure_future(tab(there, key).read())
    await until(lambda: here._running[key]._parts[9:])
    await asyncio.sleep(0.2)
    await kill(here)
    async with redis.from_url(redis_url) as client:
        await client.flushall()
    assert (await reading).end == lost("store_lost")


async def test_a_gap_is_never_passed_over(workers: MakeHome) -> None:
    home = workers()
    await home.store.create(
        Ticket("x" * 32), 1, [TextPart("a"), TextPart("b"), TextPart("c"), EndPart("complete")], lease=5, ttl=60
    )
    await home.store._redis.xdel(home.store._keys("x" * 32)[1], "2-0")
    reader = await tab(home, "x" * 32, after=1).read()
    assert reader.text == ""
    assert reader.end == lost("store_lost")


# With the frameworks


class Connection:
    """ASGI: what a server does for one request."""

    def __init__(self, last_event_id: str = "", user: str = "") -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": b"",
            "headers": [(b"last-event-id", last_event_id.encode()), (b"x-user", user.encode())],
            "asgi": {"spec_version": "2.4"},
        }
        self.status = 0
        self.body = b""
        self.gone = asyncio.Event()
        self.leave_after: int | None = None

    async def serve(self, app: Any) -> Connection:
        await app(self.scope, self._receive, self._send)
        return self

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")
        if self.leave_after is not None and len(self.ids) >= self.leave_after:
            self.gone.set()

    @property
    def ids(self) -> list[str]:
        return re.findall(r"^id: (.+)$", self.body.decode(), re.M)

    @property
    def text(self) -> str:
        return "".join(
            json.loads(data).get("text", "") for data in re.findall(r"^data: (.+)$", self.body.decode(), re.M)
        )


async def read_in_pieces(response: Callable[[], Any], piece: int = 7) -> tuple[str, list[str]]:
    text, ids = "", list[str]()
    while not ids or not ids[-1].endswith(".end"):
        connection = Connection(ids[-1] if ids else "")
        connection.leave_after = piece
        await connection.serve(response())
        assert connection.status == 200
        text, ids = text + connection.text, ids + connection.ids
    assert (await Connection(ids[-1]).serve(response())).status == 204
    return text, ids


@pytest.mark.parametrize("own", [False, True])
async def test_sse_response(own: bool) -> None:
    home = Generations(shutdown=0)
    source = Source()
    text, ids = await read_in_pieces(lambda: SSEResponse(source, resumable=home if own else True))
    assert text == TEXT
    assert len(set(ids)) == len(ids) == len(source.pieces) + 1
    assert source.asked == 1
    await home.aclose()


def test_the_default_is_one_for_each_loop() -> None:
    """pytest has a loop for each test, Starlette's TestClient one for each request without its lifespan."""

    async def whole() -> str:
        source = Source()
        return (await read_in_pieces(lambda: SSEResponse(source, resumable=True)))[0]

    async def begin() -> str:
        connection = Connection()
        connection.leave_after = 2
        await connection.serve(SSEResponse(Source(open_to=2), resumable=True))
        return connection.ids[-1]

    async def come_back(last_id: str) -> str:
        return (await Connection(last_id).serve(SSEResponse(Source(), resumable=True))).body.decode()

    assert [asyncio.run(whole()) for _ in range(3)] == [TEXT] * 3
    assert '"expired"' in asyncio.run(come_back(asyncio.run(begin())))


async def test_may_read_is_given_the_request() -> None:
    home = Generations(shutdown=0, may_read=lambda request, ticket: request.headers["x-user"] == ticket.owner)
    key = await home.start(Source(), owner="ann")
    assert (await Connection(user="bob").serve(SSEResponse(home.get(key)))).status == 404
    assert (await Connection(user="ann").serve(SSEResponse(home.get(key)))).text == TEXT
    await home.aclose()


async def test_a_server_that_ends_the_request_says_so_where_nobody_else_has_it(make: MakeHome) -> None:
    home, source = make(), Source(open_to=3)
    connection = Connection()
    serving = asyncio.ensure_future(connection.serve(SSEResponse(source, resumable=home)))
    await until(lambda: len(connection.ids) == 3)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert ('"reason":"server"' in connection.body.decode()) is not home.store.shared
    source.let()


@pytest.mark.parametrize("own", [False, True])
def test_flask(own: bool) -> None:
    async def made() -> tuple[Generations, Source]:
        seen = Generations(shutdown=0, may_read=lambda request, ticket: request.args["user"] == ticket.owner)
        return seen, Source()

    home, source = on_loop(made())
    app = Flask(__name__)

    @app.get("/ask")
    def ask() -> Any:
        return sse_response(source, resumable=home if own else True, owner="ann")

    client = app.test_client()

    def get(last_id: str, user: str = "ann") -> Any:
        return client.get(f"/ask?user={user}", headers={"Last-Event-ID": last_id} if last_id else {}, buffered=False)

    body, last_id = "", ""
    while '"status":' not in body:
        response = get(last_id)
        for _, chunk in zip(range(3), response.response, strict=False):
            body += chunk.decode()
        response.close()
        last_id = ([last_id, *re.findall(r"^id: (.+)$", body, re.M)])[-1]
    texts = [json.loads(data).get("text", "") for data in re.findall(r"^data: (.+)$", body, re.M)]
    assert "".join(texts) == TEXT
    assert source.asked == 1
    assert get(last_id).status_code == 204
    if own:
        assert get(last_id.replace(".end", ""), user="bob").status_code == 404
    on_loop(home.aclose())


# Misuse


@pytest.mark.parametrize("term", ["ttl", "grace", "lease", "limit"])
def test_terms_that_make_no_sense(term: str) -> None:
    for value in (0, -1, float("nan")):
        with pytest.raises(ConfigurationError, match=rf"{term} is .*Generations\({term}="):
            Generations(**{term: value})
    with pytest.raises(ConfigurationError, match="shutdown"):
        Generations(shutdown=-1)


async def test_sources_that_cannot_be_asked_only_once() -> None:
    home = Generations()
    llm = ResilientLLM(ScriptedLLM(TEXT))
    for source in (llm.stream_chat(question()), home.get("x" * 32)):
        for resumable in (home, True):
            with pytest.raises(ConfigurationError, match="Pass what it shall ask as a function"):
                SSEResponse(source, resumable=resumable)
    with pytest.raises(ConfigurationError, match="resumable=generations, owner="):
        SSEResponse(Source(), owner="ann")
    with pytest.raises(ConfigurationError):
        await home.start("a text")
    assert not home._running


async def test_a_payload_that_cannot_be_kept(make: MakeHome) -> None:
    home, source = make(), Source()
    with pytest.raises(ConfigurationError, match=r"payload=\{'question': question\}"):
        await home.start(source, payload=object())
    assert source.asked == 0
