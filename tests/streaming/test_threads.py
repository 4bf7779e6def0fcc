"""Synchronous streams on an event loop: read in threads of their own, which end when their reader leaves."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata

from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM, StreamInterruptedError
from llama_index_resilient_stream.streaming.threads import Channel, Offloaded, joined
from support.readers import QUICK, TEXT


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("resilient-stream-offloaded")]


async def no_threads(seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while threads() and time.monotonic() < until:  # noqa: ASYNC110 - the end of a thread sets no event
        await asyncio.sleep(0.001)
    return not threads()


class Blocking(CustomLLM):
    """What a user writes who writes only the synchronous half. Blocks for as long as `gate` is closed."""

    text: str = TEXT
    cut: int = 0
    gate: Any = None
    calls: int = 0
    seen_in: Any = None

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="blocking")

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.seen_in.append(threading.current_thread())
        if self.gate is not None:
            self.gate.wait(10)
        return CompletionResponse(text=self.text)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[CompletionResponse]:
        self.calls += 1
        text, cut = self.text, self.cut if self.calls == 1 else 0

        def stream() -> Iterator[CompletionResponse]:
            self.seen_in.append(threading.current_thread())
            for at in range(0, len(text), 10):
                if cut and at >= cut:
                    raise ConnectionResetError("cut")
                if self.gate is not None:
                    self.gate.wait(10)
                yield CompletionResponse(text=text[: at + 10], delta=text[at : at + 10], raw={})

        return stream()


def blocking(**fields: Any) -> Blocking:
    return Blocking(seen_in=[], **fields)


async def text_of(stream: Any) -> str:
    return "".join([chunk.delta or "" async for chunk in stream])


@pytest.mark.parametrize("endpoint", ["chat", "complete"])
async def test_an_llm_with_only_a_synchronous_half_does_not_block_the_loop(endpoint: str) -> None:
    inner, gate = blocking(), threading.Event()
    inner.gate = gate
    llm = ResilientLLM(inner, policy=QUICK)
    stream = await getattr(llm, f"astream_{endpoint}")([] if endpoint == "chat" else "Say it.")
    reading = asyncio.ensure_future(text_of(stream))
    for _ in range(20):  # the loop turns while the LLM is silent
        await asyncio.sleep(0.001)
    assert not reading.done()
    gate.set()
    assert await reading == TEXT
    assert threading.current_thread() not in inner.seen_in


@pytest.mark.parametrize("endpoint", ["chat", "complete"])
async def test_calls_without_streaming_do_not_block_the_loop(endpoint: str) -> None:
    inner, gate = blocking(), threading.Event()
    inner.gate = gate
    llm = ResilientLLM(inner, policy=QUICK)
    calling = asyncio.ensure_future(getattr(llm, f"a{endpoint}")([] if endpoint == "chat" else "Say it."))
    await asyncio.sleep(0.02)
    assert not calling.done()
    gate.set()
    answer = await calling
    assert (answer.message.content if endpoint == "chat" else answer.text) == TEXT


async def test_sync_llm_in_a_thread_recovers_from_a_cut() -> None:
    llm = ResilientLLM(blocking(cut=40), policy=QUICK, continuation="restart")
    stream = await llm.astream_complete("Say it.")
    assert await text_of(stream) == TEXT
    assert stream.report.faults == ["transport"]


async def test_silence_of_a_sync_llm_times_out_and_names_the_thread() -> None:
    gate = threading.Event()
    inner = blocking()
    inner.gate = gate
    policy = RecoveryPolicy(max_attempts=1, first_token_timeout=0.05, idle_timeout=0.05)
    stream = await ResilientLLM(inner, policy=policy).astream_complete("Say it.")
    with pytest.raises(StreamInterruptedError):
        await text_of(stream)
    assert stream.report.attempts[0].left_thread
    gate.set()


def counted(upto: int, closed: Callable[[], object] = lambda: None) -> Callable[[], Iterator[int]]:
    def source() -> Iterator[int]:
        try:
            yield from range(upto)
        finally:
            closed()

    return source


async def test_items_come_in_order_and_the_thread_ends() -> None:
    assert [item async for item in Offloaded(counted(500))] == list(range(500))
    assert await no_threads()


async def test_an_error_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("x")

    items, seen = Offloaded(source), []

    async def read() -> None:
        async for item in items:
            seen.append(item)

    with pytest.raises(KeyError):
        await read()
    assert seen == [1]


async def test_thread_sees_the_context_of_the_caller() -> None:
    tag: ContextVar[str] = ContextVar("tag")
    tag.set("caller's")
    assert [item async for item in Offloaded(lambda: iter([tag.get()]))] == ["caller's"]


async def test_thread_reads_no_further_than_its_bound() -> None:
    pulled = []

    def source() -> Iterator[int]:
        for item in range(100):
            pulled.append(item)
            yield item

    items = Offloaded(source)
    assert await anext(items) == 0
    await asyncio.sleep(0.02)
    assert len(pulled) <= 3
    await items.aclose()


async def test_leaving_closes_the_source_in_its_thread() -> None:
    closed = []
    items = Offloaded(counted(1000, lambda: closed.append(threading.current_thread().name)))
    await anext(items)
    await items.aclose()
    assert closed == ["resilient-stream-offloaded"]
    with pytest.raises(StopAsyncIteration):
        await anext(items)


async def test_dropping_the_stream_ends_its_thread() -> None:
    items: AsyncIterator[int] | None = Offloaded(counted(1000))
    assert items is not None
    await anext(items)
    items = None
    gc.collect()
    assert await no_threads()


async def test_leaving_breaks_a_read_that_can_be_broken() -> None:
    gate = threading.Event()

    def source() -> Iterator[int]:
        yield 0
        gate.wait(10)
        raise ConnectionError("broken")

    items = Offloaded(source, gate.set)
    await anext(items)
    await items.aclose()
    assert not items.left_thread


async def test_a_channel_wakes_for_what_arrives_while_it_waits_and_says_when_time_is_over() -> None:
    channel: Channel[int] = Channel()
    assert await channel.take(0.001) == []
    threading.Timer(0.01, channel.push, [1]).start()
    assert await channel.take(5) == [1]


async def test_many_writers_lose_nothing() -> None:
    channel: Channel[int] = Channel(ahead=4)
    writers = [
        threading.Thread(target=lambda base=base: [channel.put(base + i) for i in range(200)])
        for base in range(0, 1000, 200)
    ]
    for writer in writers:
        writer.start()
    taken: list[int] = []
    while len(taken) < 1000:
        taken += await channel.take(5)
    assert sorted(taken) == list(range(1000))
    assert all([await joined(writer, 5) for writer in writers])


async def test_a_writer_waits_for_the_reader_and_is_released_when_it_leaves() -> None:
    channel: Channel[int] = Channel(ahead=2)
    written: list[bool] = []

    async def write() -> None:
        while await channel.aput(1):
            written.append(True)

    writer = asyncio.ensure_future(write())
    await asyncio.sleep(0.01)
    assert len(written) == 2
    assert await channel.take() == [1, 1]
    await asyncio.sleep(0.01)
    assert len(written) == 4
    channel.leave()
    await writer
