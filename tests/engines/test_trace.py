"""`trace(response)`: the tokens unchanged, and beside them what they took. Never a word of the text."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from tenacity import stop_after_attempt

from llama_index_resilient_stream import (
    ConfigurationError,
    RecoveryPolicy,
    ResilientLLM,
    StreamInterruptedError,
    Trace,
    resilient,
    trace,
)
from llama_index_resilient_stream.testing import Cut, ScriptedLLM
from support.engines import RESET, chat_engine, query_engine
from support.readers import QUICK, question

TEXT = "0123456789"


class Clock:
    """Time passes when somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def llm(*cuts: Cut, policy: RecoveryPolicy = QUICK) -> ResilientLLM:
    return ResilientLLM(ScriptedLLM(TEXT, list(cuts), token=1), policy=policy)


class Slow:
    """A stream whose tokens each take their time."""

    def __init__(self, clock: Clock, *waits: tuple[float, str], error: Exception | None = None) -> None:
        self._clock, self._waits, self._error = clock, waits, error

    def sync(self) -> Iterator[str]:
        for wait, token in self._waits:
            self._clock.now += wait
            yield token
        if self._error:
            raise self._error

    async def asynchronous(self) -> AsyncIterator[str]:
        for each in self.sync():
            yield each


def read(traced: Trace, asynchronous: bool) -> list[str]:
    if not asynchronous:
        return list(traced)

    async def collect() -> list[str]:
        return [token async for token in traced]

    return asyncio.run(collect())


def slow(stream: Slow, asynchronous: bool) -> Any:
    if asynchronous:
        return AsyncStreamingResponse(stream.asynchronous())
    return StreamingResponse(stream.sync())


BOTH = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@BOTH
def test_counts_and_gaps(asynchronous: bool) -> None:
    clock, lines = Clock(), []
    stream = Slow(clock, (2.0, "ab"), (0.5, "c"), (3.0, "d"), (0.1, "e"))
    traced = trace(slow(stream, asynchronous), logger=lines.append, clock=clock)
    assert read(traced, asynchronous) == ["ab", "c", "d", "e"]
    summary = traced.summary
    assert (summary.tokens, summary.characters) == (4, 5)
    assert summary.first_token == 2.0
    assert (summary.longest_gap, summary.gap_before) == (3.0, 3)
    assert summary.seconds == pytest.approx(5.6)
    assert summary.ended == "unknown"  # a plain response does not tell
    said = [line.partition(": ")[2] for line in lines]
    assert said == [
        "first token after 2.00 s",
        "streaming | 3 tokens, 4 characters | 5.50 s | first after 2.00 s | longest gap 3.00 s, before token 3",
        "unknown | 4 tokens, 5 characters | 5.60 s | first after 2.00 s | longest gap 3.00 s, before token 3",
    ]


def test_empty_tokens_pass_and_do_not_count() -> None:
    clock = Clock()
    traced = trace(StreamingResponse(Slow(clock, (1.0, ""), (1.0, "a"), (1.0, ""), (1.0, "b")).sync()), clock=clock)
    assert list(traced) == ["", "a", "", "b"]
    assert traced.summary.tokens == 2
    assert traced.summary.first_token == 2.0
    assert (traced.summary.longest_gap, traced.summary.gap_before) == (2.0, 2)


def test_the_reader_is_no_gap() -> None:
    clock = Clock()
    traced = trace(StreamingResponse(Slow(clock, (0.1, "a"), (0.2, "b"), (0.1, "c")).sync()), clock=clock)
    for _ in traced:
        clock.now += 10
    assert traced.summary.longest_gap == pytest.approx(0.2)
    assert traced.summary.seconds == pytest.approx(30.4)


@pytest.mark.parametrize(("every", "told"), [(1.0, 4), (2.0, 2), (60.0, 0)])
def test_progress_comes_every_so_many_seconds(every: float, told: int) -> None:
    clock, lines = Clock(), []
    stream = Slow(clock, *[(1.0, "x")] * 4)
    list(trace(StreamingResponse(stream.sync()), logger=lines.append, every=every, clock=clock))
    assert sum("streaming" in line for line in lines) == told


@BOTH
def test_an_exception_is_named_not_quoted(asynchronous: bool, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    stream = Slow(clock, (1.0, "secret text"), error=RuntimeError("secret text"))
    with caplog.at_level(logging.INFO), pytest.raises(RuntimeError, match="secret text"):
        read(trace(slow(stream, asynchronous), clock=clock), asynchronous)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert "RuntimeError | 1 token, 11 characters" in caplog.text
    assert "secret" not in caplog.text


@BOTH
def test_the_report_has_the_word_on_how_it_ended(asynchronous: bool) -> None:
    engine = resilient(query_engine(llm(Cut(4, RESET))))
    response = asyncio.run(engine.aquery("?")) if asynchronous else engine.query("?")
    traced = trace(response)
    assert "".join(read(traced, asynchronous)) == TEXT
    assert traced.summary.ended == "complete"
    assert traced.summary.characters == len(TEXT)


def test_a_stream_of_an_llm() -> None:
    traced = trace(llm(Cut(4, RESET)).stream_chat(question()))
    assert "".join(traced) == TEXT
    assert traced.summary.ended == "complete"


def test_a_chat() -> None:
    traced = trace(resilient(chat_engine(llm(), "simple")).stream_chat("?"))
    assert "".join(traced) == TEXT
    assert traced.summary.ended == "complete"


def test_trace_of_a_given_up_stream_says_why(caplog: pytest.LogCaptureFixture) -> None:
    policy = RecoveryPolicy(stop=stop_after_attempt(1))
    traced = trace(llm(Cut(4, RESET), policy=policy).stream_chat(question()))
    with pytest.raises(StreamInterruptedError):
        list(traced)
    assert traced.summary.ended == "StreamInterruptedError (llm/stream-interrupted: attempts)"
    assert "WARNING" in caplog.text


@BOTH
def test_a_reader_who_leaves(asynchronous: bool) -> None:
    closed = []

    def source() -> Iterator[str]:
        try:
            yield from TEXT
        finally:
            closed.append(True)

    async def asource() -> AsyncIterator[str]:
        for each in source():
            yield each

    lines: list[str] = []
    traced = trace(
        AsyncStreamingResponse(asource()) if asynchronous else StreamingResponse(source()), logger=lines.append
    )

    async def leave() -> None:
        tokens = aiter(traced)
        await anext(tokens)
        await tokens.aclose()

    if asynchronous:
        asyncio.run(leave())
    else:
        tokens = iter(traced)
        next(tokens)
        tokens.close()
    assert traced.summary.ended == "left"
    assert "left | 1 token" in lines[-1]


def test_a_mistake_is_answered_as_elsewhere() -> None:
    with pytest.raises(ConfigurationError, match="plain string"):
        list(trace("text"))


async def test_the_wrong_loop_is_answered_as_elsewhere() -> None:
    with pytest.raises(ConfigurationError, match="synchronous"):
        await anext(aiter(trace(StreamingResponse(iter(TEXT)))))
