"""Answers on their way out: whatever LlamaIndex answers with, read whole, stoppable, and with a stated end."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from llama_index.core.base.response.schema import Response, StreamingResponse
from llama_index.core.chat_engine.types import StreamingAgentChatResponse
from tenacity import stop_after_attempt

from llama_index_resilient_stream import ConfigurationError, ResilientLLM, resilient
from llama_index_resilient_stream.llm.chunks import PARTIAL_KEY
from llama_index_resilient_stream.serve.parts import EndPart, Part, RecoveryPart, SourcesPart, TextPart
from llama_index_resilient_stream.serve.source import SourceReader
from llama_index_resilient_stream.testing import Cut, Fail, FaultServer, ScriptedLLM, Stall
from support.engines import CHATS, MODE, MODES_OF_CHAT, chat_engine, index, query_engine
from support.readers import QUICK, TEXT, openai_like, question

RESET = ConnectionResetError("sk-secret was refused by 10.0.0.1")
ONE_TRY = replace(QUICK, stop=stop_after_attempt(1))
LONG = "0123456789" * 20
MANY = 60


async def parts_of(answer: SourceReader, patience: float = 20.0) -> list[Part]:
    parts: list[Part] = []
    async with asyncio.timeout(patience):
        while not parts or not isinstance(parts[-1], EndPart):
            parts += await answer.take()
    await answer.leave()
    return parts


async def first_text(answer: SourceReader) -> list[Part]:
    """What comes up to the first text."""
    parts: list[Part] = []
    while not any(isinstance(part, TextPart | EndPart) for part in parts):
        parts += await answer.take()
    return parts


def text_of(parts: list[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def recoveries_of(parts: list[Part]) -> list[RecoveryPart]:
    return [part for part in parts if isinstance(part, RecoveryPart)]


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:  # noqa: ASYNC110 - what threads do sets no event
        await asyncio.sleep(0.005)
    return condition()


def our_threads() -> set[threading.Thread]:
    """Without the one that a process keeps for Flask's answers."""
    threads = (thread for thread in threading.enumerate() if thread.name != "resilient-answers")
    return {thread for thread in threads if thread.name.startswith("resilient-")}


@pytest.fixture(autouse=True)
async def _nothing_is_left() -> AsyncIterator[None]:
    yield
    assert await eventually(lambda: not our_threads()), our_threads()
    assert await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()}), asyncio.all_tasks()


# Every kind of source

Make = Callable[[ResilientLLM], Any]
"""Makes a source, as somebody would who writes a route."""


def _query(engine: Callable[[Any], Any], how: str) -> Make:
    def make(llm: ResilientLLM) -> Any:
        made = engine(llm)
        if hasattr(made, "stream_chat"):
            ask, aask = made.stream_chat, made.astream_chat
        else:
            ask, aask = made.query, made.aquery

        async def coroutine_function() -> Any:
            return await aask("?")

        def function() -> Any:
            return ask("?")

        ways: dict[str, Callable[[], Any]] = {
            "response": lambda: ask("?"),
            "coroutine": lambda: aask("?"),
            "function": lambda: function,
            "lambda": lambda: lambda: ask("?"),
            "lambda-of-a-coroutine": lambda: lambda: aask("?"),
            "coroutine-function": lambda: coroutine_function,
        }
        return ways[how]()

    return make


WAYS = ("response", "coroutine", "function", "lambda", "lambda-of-a-coroutine", "coroutine-function")
ENGINES: dict[str, Callable[[Any], Any]] = {
    "query": lambda llm: query_engine(llm, MODE),
    **{f"chat-{mode}": (lambda llm, mode=mode: chat_engine(llm, mode)) for mode in MODES_OF_CHAT},
}
RESILIENT = {f"resilient-{name}": (lambda llm, make=make: resilient(make(llm))) for name, make in ENGINES.items()}
STREAMING: dict[str, Make] = {
    **{f"{name}-{way}": _query(make, way) for name, make in (ENGINES | RESILIENT).items() for way in WAYS},
    "llm-stream_chat": lambda llm: llm.stream_chat(question()),
    "llm-stream_complete": lambda llm: llm.stream_complete("?"),
    "llm-astream_chat": lambda llm: llm.astream_chat(question()),
    "llm-astream_complete": lambda llm: llm.astream_complete("?"),
    "llm-lambda": lambda llm: lambda: llm.stream_chat(question()),
    "llm-lambda-of-a-coroutine": lambda llm: lambda: llm.astream_chat(question()),
}
WHOLE: dict[str, Make] = {
    "query": lambda llm: index().as_query_engine(llm=llm).query("?"),
    "aquery": lambda llm: index().as_query_engine(llm=llm).aquery("?"),
    "resilient-query": lambda llm: lambda: resilient(index().as_query_engine(llm=llm)).query("?"),
    "chat": lambda llm: lambda: chat_engine(llm, "simple").chat("?"),
    "achat": lambda llm: resilient(chat_engine(llm, "simple")).achat("?"),
    "complete": lambda llm: lambda: Response(llm.complete("?").text),
}
streaming = pytest.mark.parametrize("make", STREAMING.values(), ids=STREAMING)


def paced(script: Any = (), text: str = TEXT, **kwargs: Any) -> ScriptedLLM:
    """What is made resilient after the fact must not have ended by then."""
    return ScriptedLLM(text, script, **{"delay": 0.001, "token": 8, **kwargs})


@streaming
async def test_every_answer_arrives_whole_over_a_fault_and_says_so(make: Make) -> None:
    inner = paced([Cut(200, RESET)])
    parts = await parts_of(SourceReader(make(ResilientLLM(inner, policy=QUICK))))
    assert text_of(parts) == TEXT
    assert recoveries_of(parts) == [RecoveryPart(2, "transport")]
    assert parts[-1] == EndPart("complete")
    assert inner.open_streams == 0


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
async def test_an_answer_that_is_not_streamed_is_one_piece(make: Make) -> None:
    parts = await parts_of(SourceReader(make(ResilientLLM(ScriptedLLM(TEXT, [Cut(9, RESET)]), policy=QUICK))))
    *sources, text, end = parts
    assert [type(part) for part in sources] in ([], [SourcesPart])
    assert text == TextPart(TEXT)
    assert isinstance(end, EndPart)
    assert end.status in ("complete", "unknown")


def letters() -> Iterator[str]:
    yield from "abc"


async def aletters() -> AsyncIterator[str]:
    for letter in "abc":
        yield letter


GENERATORS = {
    "generator": letters,
    "generator-made": lambda: letters,
    "async-generator": aletters,
    "async-generator-made": lambda: aletters,
}


@pytest.mark.parametrize("make", GENERATORS.values(), ids=GENERATORS)
async def test_generators_of_strings_are_read(make: Callable[[], Any]) -> None:
    parts = await parts_of(SourceReader(make()))
    assert text_of(parts) == "abc"
    assert parts[-1] == EndPart("unknown"), "nobody says whether that was all"


# How it ends

ENDINGS: dict[str, tuple[Any, str, EndPart]] = {
    "complete": ([], TEXT, EndPart("complete")),
    "length": ([Cut(40, finish_reason="length")], TEXT[:40], EndPart("length")),
    "filtered": ([Cut(40, finish_reason="content_filter")], TEXT[:40], EndPart("filtered")),
    "interrupted": ([Cut(40, RESET)], TEXT[:40], EndPart("interrupted", "attempts", retryable=True)),
    "not-retryable": ([Fail(ValueError("no"))], "", EndPart("interrupted", "not_retryable")),
}


@pytest.mark.parametrize(("script", "text", "end"), ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize(
    "make",
    [STREAMING[name] for name in STREAMING if "response" in name or "llm" in name or name.endswith("coroutine")],
    ids=[name for name in STREAMING if "response" in name or "llm" in name or name.endswith("coroutine")],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # LlamaIndex's writer raises it too
async def test_every_ending_is_stated(make: Make, script: Any, text: str, end: EndPart) -> None:
    parts = await parts_of(SourceReader(make(ResilientLLM(paced(script), policy=ONE_TRY))))
    assert text_of(parts) == text
    assert isinstance(parts[-1], EndPart)
    assert (parts[-1].status, parts[-1].retryable) == (end.status, end.retryable)
    assert parts[-1].reason == end.reason


@pytest.mark.parametrize("make", [ENGINES["query"], RESILIENT["resilient-query"]], ids=["plain", "resilient"])
async def test_a_partial_answer_that_the_policy_allows_is_interrupted_all_the_same(make: Any) -> None:
    llm = ResilientLLM(paced([Cut(40, RESET)]), policy=replace(ONE_TRY, on_exhausted="partial"))
    parts = await parts_of(SourceReader(lambda: make(llm).query("?")))
    assert text_of(parts) == TEXT[:40]
    assert parts[-1] == EndPart("interrupted", "attempts", retryable=True)


async def test_a_model_that_never_tells_is_not_called_complete() -> None:
    llm = ResilientLLM(paced(sends_finish_reason=False))
    parts = await parts_of(SourceReader(lambda: resilient(query_engine(llm, MODE)).query("?")))
    assert parts[-1] == EndPart("unknown")


# Errors of the user's own


def _raise() -> Any:
    raise LookupError("the password is swordfish")


async def _araise() -> Any:
    raise LookupError("the password is swordfish")


def _raising() -> Iterator[str]:
    yield "a"
    _raise()


async def _araising() -> AsyncIterator[str]:
    yield "a"
    await _araise()


FAILING: dict[str, tuple[Callable[[], Any], str]] = {
    "function": (lambda: _raise, ""),
    "coroutine-function": (lambda: _araise, ""),
    "coroutine": (lambda: _araise(), ""),
    "lambda-of-a-coroutine": (lambda: lambda: _araise(), ""),
    "generator": (lambda: _raising, "a"),
    "async-generator": (lambda: _araising, "a"),
    "response": (lambda: StreamingResponse(_raising()), "a"),
}


@pytest.mark.parametrize(("make", "text"), FAILING.values(), ids=FAILING)
async def test_an_error_of_ones_own_is_for_the_log(
    make: Callable[[], Any], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    parts = await parts_of(SourceReader(make()))
    assert text_of(parts) == text
    assert parts[-1] == EndPart("interrupted", "error")
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert "swordfish" in str(record.exc_info[1])
    assert "raise LookupError" in caplog.text, "the traceback"
    assert "swordfish" not in repr(parts)


# Wrong objects


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "string": (lambda: "an answer", "plain string"),
    "query-engine": (lambda: query_engine(ScriptedLLM(TEXT)), r"engine\.query"),
    "chat-engine": (lambda: chat_engine(ScriptedLLM(TEXT), "simple"), r"engine\.stream_chat"),
    "resilient-engine": (lambda: resilient(query_engine(ScriptedLLM(TEXT))), r"engine\.query"),
    "number": (lambda: 3, "int"),
    "nothing": (lambda: None, "NoneType"),
    "consumed": (lambda: _consumed(), "read before"),
    "consumed-generator": (lambda: _consumed().response_gen, "read before"),
    "consumed-stream": (lambda: _consumed_stream(), "read before"),
    "consumed-resilient": (lambda: _consumed_resilient(), "read before"),
}


def _consumed() -> StreamingResponse:
    response = StreamingResponse(letters())
    for _ in response.response_gen:
        pass
    return response


def _consumed_resilient() -> Any:
    response = resilient(StreamingResponse(letters()))
    for _ in response.response_gen:
        pass
    return response


def _consumed_stream() -> Any:
    stream = ResilientLLM(ScriptedLLM(TEXT)).stream_chat(question())
    for _ in stream:
        pass
    return stream


@pytest.mark.parametrize(("make", "words"), WRONG.values(), ids=WRONG)
async def test_wrong_objects_fail_loudly(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        SourceReader(make())


@pytest.mark.parametrize(("make", "words"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine"])
async def test_wrong_objects_from_a_function_are_in_the_log(
    make: Callable[[], Any], words: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = make()

    async def coroutine() -> Any:
        return wrong

    parts = await parts_of(SourceReader(coroutine if is_async else lambda: wrong))
    assert parts == [EndPart("interrupted", "error")]
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert words.replace("\\", "") in record.getMessage()


async def test_unused_source_is_closed_without_a_warning() -> None:
    llm = ResilientLLM(paced())
    stream = llm.stream_chat(question())
    coroutine = query_engine(llm).aquery("?")
    for source in (coroutine, stream, lambda: 1 / 0, aletters(), letters()):
        await SourceReader(source).leave()
    gc.collect()  # a coroutine that nobody awaited would warn, and a warning is an error here
    assert llm.llm.open_streams == 0  # type: ignore[attr-defined]
    assert stream.report.status == "cancelled"  # type: ignore[attr-defined]


# Silence


async def test_a_silent_source_lets_its_reader_beat_from_the_beginning() -> None:
    gate = threading.Event()

    def retrieve_and_ask() -> Iterator[str]:
        gate.wait(10)
        return letters()

    answer = SourceReader(retrieve_and_ask)
    assert [await answer.take(0.01) for _ in range(3)] == [[], [], []]
    gate.set()
    assert text_of(await parts_of(answer)) == "abc"


async def test_asking_twice_after_the_end_is_an_error() -> None:
    answer = SourceReader(letters())
    await parts_of(answer)
    with pytest.raises(RuntimeError, match="has ended"):
        await first_text(answer)


# Stopping and leaving


def _live(inner: ScriptedLLM) -> int:
    return sum(len(call.sent) for call in inner.calls)


@streaming
async def test_stopping_takes_effect_within_a_token_and_what_was_said_can_be_taken(make: Make) -> None:
    inner = ScriptedLLM(LONG, token=1, delay=0.02)
    answer = SourceReader(make(ResilientLLM(inner, policy=QUICK)))
    parts = await first_text(answer)
    said = _live(inner)
    await answer.stop()
    parts += await parts_of(answer)
    assert _live(inner) <= said + 3
    assert parts[-1] == EndPart("cancelled")
    assert LONG.startswith(text_of(parts))
    assert await eventually(lambda: inner.open_streams == 0)


@streaming
async def test_leaving_leaves_nothing_behind(make: Make) -> None:
    inner = ScriptedLLM(LONG, token=1, delay=0.02)
    answer = SourceReader(make(ResilientLLM(inner, policy=QUICK)))
    await first_text(answer)
    said = _live(inner)
    await answer.leave()
    assert await eventually(lambda: inner.open_streams == 0, 1)
    assert _live(inner) <= said + 3
    assert len(inner.calls) == 1


@pytest.mark.parametrize("stop", ["stop", "leave"])
@pytest.mark.parametrize("way", ["response", "coroutine"])
@pytest.mark.parametrize("mode", MODES_OF_CHAT)
async def test_the_memory_keeps_what_was_said_under_a_mark(mode: str, way: str, stop: str) -> None:
    inner = ScriptedLLM(LONG, token=1, delay=0.02)
    engine = resilient(chat_engine(ResilientLLM(inner, policy=QUICK), mode))
    answer = SourceReader(_query(lambda _: engine, way)(ResilientLLM(inner)))
    parts = await first_text(answer)
    await getattr(answer, stop)()
    if stop == "stop":
        await parts_of(answer)
    assert await eventually(lambda: len(engine.chat_history) == 2)
    user, assistant = engine.chat_history
    assert str(user.content) == "?"
    assert str(assistant.content).startswith(text_of(parts))
    assert LONG.startswith(str(assistant.content))
    assert assistant.additional_kwargs == {PARTIAL_KEY: "cancelled"}


@pytest.mark.parametrize("stop", ["stop", "leave"])
@pytest.mark.parametrize("name", ["query-response", "resilient-query-lambda", "llm-stream_chat", "llm-astream_chat"])
async def test_leaving_before_the_first_token(name: str, stop: str) -> None:
    inner = ScriptedLLM(LONG, [Stall(0, 0.2)], token=1, delay=0.02)
    answer = SourceReader(STREAMING[name](ResilientLLM(inner, policy=QUICK)))
    assert text_of(await answer.take(0.05)) == ""
    await getattr(answer, stop)()
    if stop == "stop":
        assert (await parts_of(answer))[-1] == EndPart("cancelled")
    assert await eventually(lambda: inner.open_streams == 0)
    assert _live(inner) <= 1


@pytest.mark.parametrize("stop", ["stop", "leave"])
async def test_stopping_what_is_not_streamed_cancels_it(stop: str) -> None:
    inner = ScriptedLLM(LONG, token=1, delay=0.02)
    answer = SourceReader(index().as_query_engine(llm=ResilientLLM(inner)).aquery("?"))
    assert await answer.take(0.1) == []
    await getattr(answer, stop)()
    if stop == "stop":
        assert await parts_of(answer) == [EndPart("cancelled")]
    assert await eventually(lambda: inner.open_streams == 0, 1)
    assert _live(inner) < 50


async def test_a_coroutine_may_return_what_is_synchronous() -> None:
    threads: list[threading.Thread] = []

    def noted() -> Iterator[str]:
        threads.append(threading.current_thread())
        yield from "abc"

    async def ask() -> Any:
        return StreamingResponse(noted())

    assert text_of(await parts_of(SourceReader(ask))) == "abc"
    assert threading.current_thread() not in threads, "nothing synchronous is read on the event loop"


async def test_leaving_while_the_source_is_being_made() -> None:
    gate, made = threading.Event(), []

    def slow() -> Iterator[str]:
        gate.wait(10)
        made.append(letters())
        return iter(made[0])

    answer = SourceReader(slow)
    assert await answer.take(0.01) == []
    leaving = asyncio.ensure_future(answer.leave())
    await asyncio.sleep(0.02)
    assert not leaving.done(), "it does not know yet whether there will be something to close"
    gate.set()
    await leaving
    assert made[0].gi_frame is None, "closed, not left to the garbage collector"


async def test_a_reader_that_does_not_read_holds_back_the_llm() -> None:
    pulled: list[int] = []

    def endless() -> Iterator[str]:
        while True:
            pulled.append(1)
            yield "x"

    answer = SourceReader(endless())
    await first_text(answer)
    await asyncio.sleep(0.1)
    assert len(pulled) < 200
    await answer.leave()


async def test_sixty_silent_sources_wait_side_by_side() -> None:
    """A framework's pool has forty threads. None of ours is one of them."""
    gate, started = threading.Event(), threading.Semaphore(0)

    def silent() -> Iterator[str]:
        started.release()
        gate.wait(20)
        return letters()

    answers = [SourceReader(silent) for _ in range(MANY)]
    beats = await asyncio.gather(*(answer.take(0.05) for answer in answers))
    assert beats == [[]] * MANY
    for _ in answers:
        assert await asyncio.to_thread(started.acquire, timeout=10)
    gate.set()
    assert [text_of(each) for each in await asyncio.gather(*map(parts_of, answers))] == ["abc"] * MANY


def test_the_tables_are_about_what_they_say() -> None:
    assert len(CHATS) == 4
    assert isinstance(chat_engine(ScriptedLLM("x"), "simple").stream_chat("?"), StreamingAgentChatResponse)


# Of a plain engine's asynchronous writer that never waits, nothing is left to be found when it has written.
IN_ORDER = [name for name in STREAMING if name.endswith("-lambda")]


@pytest.mark.parametrize("name", [*IN_ORDER, *(f"resilient-chat-{mode}-coroutine" for mode in MODES_OF_CHAT)])
async def test_a_recovery_comes_after_the_text_before_it(name: str) -> None:
    """Also where the answer waits in a chat engine's queue, and the next attempt begins at once."""
    llm = ResilientLLM(ScriptedLLM(LONG, [Cut(40, RESET), Cut(100, RESET)]), policy=QUICK)
    shown, places = 0, []
    for part in await parts_of(SourceReader(STREAMING[name](llm))):
        if isinstance(part, TextPart):
            shown += len(part.text)
        elif isinstance(part, RecoveryPart):
            places.append(shown)
    assert places == [40, 100]


FOREIGN: dict[str, Callable[[ScriptedLLM], Any]] = {
    "stream": lambda llm: llm.stream_complete("?"),
    "function": lambda llm: lambda: llm.stream_complete("?"),
    "async-function": lambda llm: lambda: llm.astream_complete("?"),
    "query": lambda llm: query_engine(llm, MODE).query("?"),
    "aquery": lambda llm: query_engine(llm, MODE).aquery("?"),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
async def test_foreign_source_can_be_stopped(make: Callable[[ScriptedLLM], Any]) -> None:
    inner = ScriptedLLM(LONG, token=1, delay=0.02)
    answer = SourceReader(make(inner))
    parts = await first_text(answer)
    await answer.stop()
    parts += await parts_of(answer)
    assert parts[-1] == EndPart("cancelled")
    assert len(text_of(parts)) < 50
    assert await eventually(lambda: inner.open_streams == 0)


async def test_a_partial_answer_says_whether_asking_again_may_help() -> None:
    for fault, retryable in ((RESET, True), (PermissionError("no"), False)):
        policy = replace(ONE_TRY, on_exhausted="partial")
        llm = ResilientLLM(ScriptedLLM(LONG, [Fail(fault)] * 2), policy=policy)
        parts = await parts_of(SourceReader(lambda llm=llm: llm.stream_complete("?")))
        assert parts[-1] == EndPart("interrupted", llm_reason(retryable), retryable)


def llm_reason(retryable: bool) -> str:
    return "attempts" if retryable else "not_retryable"


# Threads


def of_our_threads() -> list[str]:
    return sorted(thread.name for thread in our_threads())


@pytest.mark.parametrize("count", [1, 5])
async def test_a_synchronous_answer_reads_its_llm_in_the_thread_that_it_has(
    count: int, serve: Callable[..., FaultServer]
) -> None:
    """Where the socket is in reach. One guard, for all of them, looks at the clock."""
    llm = openai_like(serve(TEXT, delay=0.01))
    engine = resilient(query_engine(ResilientLLM(llm, policy=QUICK), MODE))
    readers = [SourceReader(lambda: engine.query("?")) for _ in range(count)]
    for reader in readers:
        while not text_of(await reader.take()):
            pass
    assert await eventually(lambda: of_our_threads() == ["resilient-answer"] * count + ["resilient-stream-guard"])
    assert [text_of(await parts_of(reader)) for reader in readers] != [""] * count
    assert await eventually(lambda: of_our_threads() == [])
    llm._client.close()


async def test_what_stops_an_answer_stops_everything_below_it() -> None:
    made: list[Any] = []

    def ask() -> Any:
        made.append(
            resilient(query_engine(ResilientLLM(ScriptedLLM(LONG, token=1, delay=0.02), policy=QUICK), MODE)).query("?")
        )
        return made[0]

    reader = SourceReader(ask)
    await first_text(reader)
    (stream,) = made[0].calls._live()
    scopes = [made[0].calls.scope, stream.scope]
    await reader.stop()
    assert [scope.cancelled for scope in scopes] == [True, True]
    assert (await parts_of(reader))[-1] == EndPart("cancelled")
    assert reader.over
    assert scopes[1].outcome == "cancelled"
