"""Responses: read in any order, failed for good once failed, and left at once."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from llama_index.core.base.response.schema import Response, StreamingResponse
from tenacity import stop_after_attempt, wait_fixed

from llama_index_resilient_stream import (
    ConfigurationError,
    RecoveryPolicy,
    ResilientAsyncStreamingResponse,
    ResilientLLM,
    ResilientStreamingAgentChatResponse,
    ResilientStreamingResponse,
    StreamInterruptedError,
    StreamReport,
    StreamStatus,
    resilient,
)
from llama_index_resilient_stream.engines.chat_writer import has_writer
from llama_index_resilient_stream.llm.chunks import PARTIAL_KEY, UNVERIFIED_KEY
from llama_index_resilient_stream.testing import Cut, Fail, ScriptedLLM, Stall
from support.engines import CHATS, MODE, MODES_OF_CHAT, NODES, RESET, aask, ask, chat_engine, query_engine
from support.readers import QUICK

ONE_TRY = replace(QUICK, stop=stop_after_attempt(1))
PARTIAL = replace(ONE_TRY, on_exhausted="partial")
SLEEPY = replace(QUICK, wait=wait_fixed(60))
SHORT = "0123456789"
GIVEN_UP = [Cut(5, RESET)]


def scripted(script: Any = (), text: str = SHORT, **kwargs: Any) -> ScriptedLLM:
    return ScriptedLLM(text, script, **{"token": 1, **kwargs})


def queried(inner: ScriptedLLM, policy: RecoveryPolicy = QUICK) -> ResilientStreamingResponse:
    response: ResilientStreamingResponse = resilient(query_engine(ResilientLLM(inner, policy=policy), MODE)).query("?")
    return response


async def aqueried(inner: ScriptedLLM, policy: RecoveryPolicy = QUICK) -> ResilientAsyncStreamingResponse:
    engine = resilient(query_engine(ResilientLLM(inner, policy=policy), MODE))
    response: ResilientAsyncStreamingResponse = await engine.aquery("?")
    return response


def chatted(inner: ScriptedLLM, policy: RecoveryPolicy = QUICK, mode: str = "simple") -> Any:
    return resilient(chat_engine(ResilientLLM(inner, policy=policy), mode)).stream_chat("?")


async def achatted(inner: ScriptedLLM, policy: RecoveryPolicy = QUICK, mode: str = "simple") -> Any:
    return await resilient(chat_engine(ResilientLLM(inner, policy=policy), mode)).astream_chat("?")


def eventually(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.002)
    return condition()


async def aeventually(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
    return await asyncio.to_thread(eventually, condition, seconds)


def take(tokens: Iterator[str], count: int) -> str:
    return "".join(next(tokens, "") for _ in range(count))  # fewer where LlamaIndex collects (core 0.14.22, 0.14.23)


async def atake(tokens: Any, count: int) -> str:
    return "".join([await anext(tokens, "") for _ in range(count)])


SYNC = {"query": queried, **{mode: (lambda *args, mode=mode: chatted(*args, mode=mode)) for mode in MODES_OF_CHAT}}
ASYNC = {"query": aqueried, **{mode: (lambda *args, mode=mode: achatted(*args, mode=mode)) for mode in MODES_OF_CHAT}}
sync = pytest.mark.parametrize("answer", SYNC.values(), ids=SYNC)
asynchronous = pytest.mark.parametrize("answer", ASYNC.values(), ids=ASYNC)


# In any order (A1, A6, A8, A9, A10, B1, B5, B7, B11)


def text_first(response: Any) -> tuple[str, ...]:
    return str(response), "".join(response.response_gen), str(response)


def tokens_first(response: Any) -> tuple[str, ...]:
    return "".join(response.response_gen), str(response), str(response)


def text_during(response: Any) -> tuple[str, ...]:
    tokens = response.response_gen
    head = take(tokens, 3)
    whole = str(response)
    return whole, head + "".join(tokens), str(response)


def in_two_goes(response: Any) -> tuple[str, ...]:
    tokens = response.response_gen
    head = take(tokens, 2)
    return head + "".join(response.response_gen) + "".join(tokens), str(response)


@pytest.mark.parametrize("order", [text_first, tokens_first, text_during, in_two_goes])
@sync
def test_text_and_tokens_in_any_order(answer: Any, order: Any) -> None:
    response = answer(scripted([Cut(4, RESET)]))
    assert set(order(response)) == {SHORT}
    assert "".join(response.response_gen) == "", "what was given is not given again"
    if hasattr(response, "response_txt"):
        assert response.response_txt == SHORT
        assert response.get_response().response == SHORT
    else:
        assert response.response == SHORT


@asynchronous
@pytest.mark.parametrize("tokens_first", [True, False])
async def test_asynchronous_text_and_tokens_in_any_order(answer: Any, tokens_first: bool) -> None:
    response = await answer(scripted([Cut(4, RESET)]))
    tokens = response.async_response_gen()
    head = await atake(tokens, 3)
    if not tokens_first and hasattr(response, "get_response"):
        assert (await response.get_response()).response == SHORT
    assert head + "".join([token async for token in tokens]) == SHORT
    assert str(response) == SHORT
    assert [token async for token in response.async_response_gen()] == []
    if hasattr(response, "response_txt"):
        assert response.response_txt == SHORT


async def test_the_field_of_an_asynchronous_response_can_be_read_too() -> None:
    response = await aqueried(scripted())
    assert "".join([token async for token in response.response_gen]) == SHORT
    assert (await response.get_response()).response == SHORT


def test_the_text_of_an_asynchronous_response_without_a_loop() -> None:
    response = asyncio.run(aqueried(scripted()))
    assert str(response) == SHORT


@sync
def test_an_empty_answer_is_an_empty_text(answer: Any) -> None:
    response = answer(scripted(text=""), PARTIAL)
    assert str(response) == ""
    assert "".join(response.response_gen) == ""
    assert response.report.status is StreamStatus.INTERRUPTED


def test_a_response_that_nobody_holds_is_read_to_its_end() -> None:
    engine = resilient(query_engine(ResilientLLM(scripted()), MODE))
    assert "".join(token for token in engine.query("?").response_gen) == SHORT
    chat = resilient(chat_engine(ResilientLLM(scripted()), "simple"))
    assert "".join(token for token in chat.stream_chat("?").response_gen) == SHORT


async def test_an_asynchronous_response_that_nobody_holds_is_read_to_its_end() -> None:
    engine = resilient(query_engine(ResilientLLM(scripted()), MODE))
    assert "".join([token async for token in (await engine.aquery("?")).response_gen]) == SHORT
    assert "".join([token async for token in (await engine.aquery("?")).async_response_gen()]) == SHORT
    chat = resilient(chat_engine(ResilientLLM(scripted()), "simple"))
    assert "".join([token async for token in (await chat.astream_chat("?")).async_response_gen()]) == SHORT


def test_printing(capsys: pytest.CaptureFixture[str]) -> None:
    queried(scripted()).print_response_stream()
    chatted(scripted()).print_response_stream()
    assert capsys.readouterr().out == SHORT * 2


async def test_asynchronous_printing(capsys: pytest.CaptureFixture[str]) -> None:
    await (await aqueried(scripted())).print_response_stream()
    await (await achatted(scripted())).aprint_response_stream()
    assert capsys.readouterr().out.replace("\n", "") == SHORT * 2


# Failed for good (A2, A3, A4, A7, B1, B7)


def read_until_error(tokens: Iterator[str]) -> tuple[str, StreamInterruptedError]:
    got = ""
    with pytest.raises(StreamInterruptedError) as caught:  # noqa: PT012
        for token in tokens:
            got += token
    return got, caught.value


async def aread_until_error(tokens: Any) -> tuple[str, StreamInterruptedError]:
    got = ""
    with pytest.raises(StreamInterruptedError) as caught:  # noqa: PT012
        async for token in tokens:
            got += token
    return got, caught.value


@sync
@pytest.mark.parametrize("late", [True, False])
def test_every_token_comes_before_the_error_and_the_response_stays_failed(answer: Any, late: bool) -> None:
    inner = scripted(GIVEN_UP)
    response = answer(inner, ONE_TRY)
    if late and isinstance(response, ResilientStreamingAgentChatResponse) and has_writer(response):
        assert eventually(lambda: inner.calls and inner.calls[-1].state == "broken")
    got, error = read_until_error(response.response_gen)
    assert got == error.partial_text == SHORT[:5]
    assert error.__cause__ is RESET
    asked_again: list[Any] = [lambda each: list(each.response_gen)]
    if isinstance(response, ResilientStreamingResponse):
        asked_again.append(lambda each: each.get_response())
        assert response.response_txt is None
    for again in asked_again:
        with pytest.raises(StreamInterruptedError):
            again(response)
    assert_shown_as_interrupted(response)
    assert response.report.status is StreamStatus.INTERRUPTED


@asynchronous
@pytest.mark.parametrize("late", [True, False])
async def test_async_tokens_come_before_the_error_and_the_response_stays_failed(answer: Any, late: bool) -> None:
    inner = scripted(GIVEN_UP)
    response = await answer(inner, ONE_TRY)
    if late and isinstance(response, ResilientStreamingAgentChatResponse) and has_writer(response):
        assert await aeventually(lambda: bool(inner.calls) and inner.calls[-1].state == "broken")
    got, error = await aread_until_error(response.async_response_gen())
    assert got == error.partial_text == SHORT[:5]
    assert (await aread_until_error(response.async_response_gen()))[0] == ""
    assert_shown_as_interrupted(response)
    if isinstance(response, ResilientAsyncStreamingResponse):
        assert response.response_txt is None
        for _ in range(2):
            with pytest.raises(StreamInterruptedError):
                await response.get_response()


def assert_shown_as_interrupted(response: Any, text: str = SHORT[:5]) -> None:
    """By everything that shows it to people, and nothing of that raises."""
    why = "ConnectionResetError: reset. Gave up after 1 attempt (attempts)."
    for shown in (str(response), f"{response}", response._repr_markdown_()):
        assert shown == f"{text}\n\n[interrupted: {why}]"
    assert repr(response)
    if hasattr(response, "get_formatted_sources"):
        assert isinstance(response.get_formatted_sources(), str)
    assert response.partial_text == text
    assert isinstance(response.error, StreamInterruptedError)
    assert response.error.partial_text == text


@sync
def test_the_text_of_an_interrupted_answer_says_so_and_raises_nothing(answer: Any) -> None:
    response = answer(scripted(GIVEN_UP), ONE_TRY)
    for _ in range(2):
        assert_shown_as_interrupted(response)
    assert read_until_error(response.response_gen)[0] == SHORT[:5], "what was said can still be read"


def test_the_text_of_an_interrupted_asynchronous_answer_without_a_loop() -> None:
    response = asyncio.run(aqueried(scripted(GIVEN_UP), ONE_TRY))
    assert_shown_as_interrupted(response)


@sync
@pytest.mark.parametrize("read", [0, 2, 5])
def test_printing_an_interrupted_answer(answer: Any, read: int, capsys: pytest.CaptureFixture[str]) -> None:
    response = answer(scripted(GIVEN_UP), ONE_TRY)
    tokens = response.response_gen  # a chat whose reader goes away is stopped
    read = len(take(tokens, read))
    response.print_response_stream()
    out = capsys.readouterr().out
    assert out.startswith(SHORT[read:5] + "\n\n[interrupted: ConnectionResetError")
    print(response)
    assert capsys.readouterr().out.startswith(SHORT[:5] + "\n\n[interrupted: ")


@asynchronous
async def test_printing_an_interrupted_asynchronous_answer(answer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    response = await answer(scripted(GIVEN_UP), ONE_TRY)
    await getattr(response, "aprint_response_stream", getattr(response, "print_response_stream", None))()
    assert capsys.readouterr().out.startswith(SHORT[:5] + "\n\n[interrupted: ConnectionResetError")


@sync
def test_an_answer_without_a_word_is_a_note(answer: Any) -> None:
    response = answer(scripted([Fail(RESET)]), ONE_TRY)
    assert str(response).startswith("[interrupted: ConnectionResetError")
    assert response.partial_text == ""


@sync
def test_a_whole_answer_has_no_error(answer: Any) -> None:
    response = answer(scripted([Cut(4, RESET)]))
    assert response.error is None
    assert str(response) == response.partial_text == SHORT
    assert response.error is None


@sync
def test_partial_policy_raises_nothing(answer: Any) -> None:
    response = answer(scripted(GIVEN_UP), PARTIAL)
    assert str(response) == SHORT[:5]
    assert response.report.status is StreamStatus.INTERRUPTED
    assert response.report.reason
    assert isinstance(response.error, StreamInterruptedError)


async def test_a_cancelled_reading_is_no_whole_answer_and_no_deadlock() -> None:
    response = await aqueried(scripted([Stall(3)]))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(response.get_response(), 0.05)
    assert response.response_txt is None
    for _ in range(2):
        with pytest.raises(StreamInterruptedError, match="cancelled"):
            await asyncio.wait_for(response.get_response(), 1)
    assert (await aread_until_error(response.async_response_gen()))[0] == SHORT[:3]


async def test_an_abandoned_iteration_holds_up_nobody() -> None:
    response = await aqueried(scripted())
    tokens = response.async_response_gen()
    assert await atake(tokens, 2) == SHORT[:2]
    assert (await asyncio.wait_for(response.get_response(), 1)).response == SHORT
    await tokens.aclose()
    assert str(response) == SHORT


# A writer that dies (B6, B9)


class Unwell(ScriptedLLM):
    """Says three tokens, and then what no `except Exception` catches."""

    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        yield from _three(super().stream_chat(messages, **kwargs))
        raise SystemExit("out")

    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        async def chunks() -> Any:
            for chunk in _three(super(Unwell, self).stream_chat(messages, **kwargs)):
                yield chunk
            raise asyncio.CancelledError

        return chunks()


def _three(stream: Any) -> Iterator[Any]:
    for _ in range(3):
        yield next(stream)
    stream.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@sync
def test_a_base_exception_in_the_llm_hangs_no_reader(answer: Any) -> None:
    response = answer(Unwell(SHORT, token=1))
    began = time.monotonic()
    got = ""
    with pytest.raises((SystemExit, StreamInterruptedError)):  # noqa: PT012
        for token in response.response_gen:
            got += token
    assert got == SHORT[:3]
    assert time.monotonic() - began < 5
    assert str(response).startswith(f"{SHORT[:3]}\n\n[interrupted: ")


async def test_a_cancelled_writer_hangs_no_reader() -> None:
    response = await achatted(scripted([Stall(3)]))
    tokens = response.async_response_gen()
    assert await atake(tokens, 3) == SHORT[:3]
    writers = asyncio.all_tasks() - {asyncio.current_task()}
    assert writers
    for writer in writers:
        writer.cancel()
    got, error = await asyncio.wait_for(aread_until_error(tokens), 5)
    assert got == ""
    assert error.partial_text == SHORT[:3]
    assert str(response).startswith(f"{SHORT[:3]}\n\n[interrupted: ")


# Leaving (A5, A11, B3, B8, B10)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage collector comes by: whoever drops something shall not have to wait for it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@sync
@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("leave", ["cancel", "with", "drop"])
def test_leaving_stops_the_llm_at_once(answer: Any, leave: str) -> None:
    inner = scripted(text=SHORT * 20, delay=0.01)
    response = answer(inner)
    tokens = response.response_gen
    assert take(tokens, 2) == "01"
    began = time.monotonic()
    if leave == "cancel":
        response.cancel()
    elif leave == "with":
        with response:
            pass
    report = response.report
    if leave == "drop":
        del tokens, response
    assert time.monotonic() - began < 0.5
    assert eventually(lambda: inner.open_streams == 0, 1)
    assert len(inner.calls) == 1
    assert len(inner.calls[0].sent) < 20
    assert eventually(lambda: report.status is StreamStatus.CANCELLED, 1)


@asynchronous
@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("leave", ["acancel", "cancel", "with", "drop", "aclose", "task"])
async def test_leaving_an_asynchronous_one_stops_the_llm_at_once(answer: Any, leave: str) -> None:
    inner = scripted(text=SHORT * 20, delay=0.01)
    response = await answer(inner)
    tokens = response.async_response_gen()
    assert await atake(tokens, 2) == "01"
    report = response.report
    began = time.monotonic()
    if leave == "acancel":
        await response.acancel()
    elif leave == "cancel":
        response.cancel()
    elif leave == "with":
        async with response:
            pass
    elif leave == "aclose":
        await tokens.aclose()
    elif leave == "task":
        task = asyncio.ensure_future(atake(tokens, 100))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert time.monotonic() - began < 0.5
    if leave in ("drop", "aclose"):
        del tokens, response
    assert await aeventually(lambda: inner.open_streams == 0, 1)
    assert len(inner.calls) == 1
    assert len(inner.calls[0].sent) < 20
    assert await aeventually(lambda: report.status is StreamStatus.CANCELLED, 1)


def begin_to_read(answer: Any, inner: ScriptedLLM) -> StreamReport:
    response = answer(inner)
    for _ in response.response_gen:
        break
    report: StreamReport = response.report
    return report


async def abegin_to_read(answer: Any, inner: ScriptedLLM) -> StreamReport:
    response = await answer(inner)
    async for _ in response.async_response_gen():
        break
    report: StreamReport = response.report
    return report


@sync
@pytest.mark.usefixtures("uncollected")
def test_returning_from_the_function_that_asked_stops_the_llm(answer: Any) -> None:
    inner = scripted(text=SHORT * 20, delay=0.01)
    report = begin_to_read(answer, inner)
    assert eventually(lambda: inner.open_streams == 0)
    assert len(inner.calls[0].sent) < 20
    assert eventually(lambda: report.status is StreamStatus.CANCELLED)


@asynchronous
@pytest.mark.usefixtures("uncollected")
async def test_returning_from_the_coroutine_that_asked_stops_the_llm(answer: Any) -> None:
    inner = scripted(text=SHORT * 20, delay=0.01)
    report = await abegin_to_read(answer, inner)
    assert await aeventually(lambda: inner.open_streams == 0)
    assert len(inner.calls[0].sent) < 20
    assert await aeventually(lambda: report.status is StreamStatus.CANCELLED)


@pytest.mark.parametrize("steps", range(6))
async def test_cancelling_a_reader_just_when_a_token_comes(steps: int) -> None:
    """On Python 3.11 `asyncio.wait_for` swallows a cancellation in one of these steps of the event loop."""
    response = await achatted(scripted([Stall(2)]))
    tokens = response.async_response_gen()
    assert await atake(tokens, 2) == "01"
    reading = asyncio.ensure_future(anext(tokens))
    await asyncio.sleep(0.01)
    assert not reading.done()
    response.aqueue.put_nowait("2")
    for _ in range(steps):
        await asyncio.sleep(0)
    if reading.cancel():
        with pytest.raises(asyncio.CancelledError):
            await reading
    await response.acancel()


@sync
def test_leaving_does_not_wait_for_a_back_off(answer: Any) -> None:
    inner = scripted([Cut(3, RESET)])
    response = answer(inner, SLEEPY)
    tokens = response.response_gen
    assert take(tokens, 3) == SHORT[:3]
    timer = threading.Timer(0.05, response.cancel)
    timer.start()
    began = time.monotonic()
    assert "".join(tokens) == ""
    timer.join()
    assert time.monotonic() - began < 3
    assert len(inner.calls) == 1
    assert response.report.status is StreamStatus.CANCELLED


@asynchronous
async def test_leaving_an_asynchronous_one_does_not_wait_for_a_back_off(answer: Any) -> None:
    inner = scripted([Cut(3, RESET)])
    response = await answer(inner, SLEEPY)
    tokens = response.async_response_gen()
    assert await atake(tokens, 3) == SHORT[:3]
    asyncio.get_running_loop().call_later(0.05, response.cancel)
    began = time.monotonic()
    assert [token async for token in tokens] == []
    assert time.monotonic() - began < 3
    assert len(inner.calls) == 1
    assert response.report.status is StreamStatus.CANCELLED


@sync
def test_cancelled_before_the_first_token(answer: Any) -> None:
    inner = scripted(text=SHORT * 20, delay=0.005)
    response = answer(inner)
    response.cancel()
    assert len("".join(response.response_gen)) < 10
    assert inner.open_streams == 0


def test_breaking_off_a_query_loses_nothing() -> None:
    response = queried(scripted())
    for token in response.response_gen:
        if token == "2":
            break
    assert str(response) == SHORT


def test_breaking_off_a_chat_leaves_it() -> None:
    inner = scripted(text=SHORT * 20, delay=0.005)
    response = chatted(inner)
    for token in response.response_gen:
        if token == "2":
            break
    assert eventually(lambda: inner.open_streams == 0, 1)
    assert str(response).startswith("012")
    assert len(str(response)) < 20
    assert response.report.status is StreamStatus.CANCELLED


# The memory (B4, B5)


ENDINGS: dict[str, tuple[Any, str | None, str | None]] = {
    "complete": ([], SHORT, None),
    "healed": ([Cut(5, RESET), None], SHORT, None),
    "interrupted": ([Cut(5, RESET), Fail(RESET), Fail(RESET)], SHORT[:5], "interrupted"),
    "interrupted-without-a-word": ([Fail(RESET)] * 9, None, None),
    "filtered": ([Cut(5, finish_reason="content_filter")], SHORT[:5], None),
    "length": ([Cut(5, finish_reason="length")], SHORT[:5], None),
}


def turns(engine: Any) -> list[tuple[str, str]]:
    return [(message.role.value, str(message.content)) for message in engine.chat_history]


def marks(engine: Any) -> list[str | None]:
    return [message.additional_kwargs.get(PARTIAL_KEY) for message in engine.chat_history]


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("mode", CHATS)
@pytest.mark.parametrize("mark", [True, False], ids=["marked", "unmarked"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_memory_after_every_ending(mode: str, ending: Any, mark: bool, is_async: bool) -> None:
    script, kept, status = ending
    if is_async and kept is None and mode not in MODES_OF_CHAT:
        pytest.skip("where LlamaIndex collects, it takes an answer without a word for one that was not to be streamed")
    policy = replace(QUICK, stop=stop_after_attempt(2), on_exhausted="partial")
    original = chat_engine(ResilientLLM(scripted(script), policy=policy), mode)
    engine = resilient(original, mark=mark)
    ask_it = (lambda question: asyncio.run(aask(engine, question))) if is_async else (lambda q: ask(engine, q))
    assert ask_it("First?").text == (kept or "")
    expected = [("user", "First?"), *([("assistant", kept)] if kept else [])]
    assert turns(original) == expected
    assert marks(original) == ([None, status if mark else None] if kept else [None])
    if kept and kept != SHORT:
        assert ask_it("Second?").text  # the model goes on from what it knows it said, or says it all again
        assert turns(original)[:2] == expected
        assert marks(original) == [None, status if mark else None, None, None]


@pytest.mark.parametrize("mode", MODES_OF_CHAT)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_memory_after_leaving_on_the_second_turn(mode: str, is_async: bool) -> None:
    inner = scripted(text=SHORT * 9, delay=0.003)
    engine = resilient(chat_engine(ResilientLLM(inner, policy=QUICK), mode))
    ask(engine, "First?")

    async def leave() -> None:
        response = await engine.astream_chat("Second?")
        await atake(response.async_response_gen(), 3)
        await response.acancel()

    if is_async:
        asyncio.run(leave())
    else:
        response = engine.stream_chat("Second?")
        take(response.response_gen, 3)
        response.cancel()
    assert turns(engine)[:3] == [("user", "First?"), ("assistant", SHORT * 9), ("user", "Second?")]
    assert marks(engine)[:3] == [None] * 3
    assert marks(engine)[3:] == ["cancelled"]
    assert SHORT.startswith(turns(engine)[3][1][:4])


def test_the_next_turn_knows_and_the_mark_stays_at_home() -> None:
    inner = scripted(GIVEN_UP)
    engine = resilient(chat_engine(ResilientLLM(inner, policy=PARTIAL), "simple"))
    ask(engine, "First?")
    ask(engine, "Second?")
    sent = inner.calls[-1].messages
    assert [str(message.content) for message in sent] == ["First?", SHORT[:5], "Second?"]
    assert all(PARTIAL_KEY not in message.additional_kwargs for message in sent)
    assert marks(engine) == [None, "interrupted", None, None]


@pytest.mark.parametrize("mark", [True, False], ids=["marked", "unmarked"])
def test_the_memory_says_where_nothing_shows_that_the_parts_belong_together(mark: bool) -> None:
    inner = scripted([Cut(5, RESET), None], continuation_style="exact")
    engine = resilient(chat_engine(ResilientLLM(inner, policy=replace(QUICK, unverified="show")), "simple"), mark=mark)
    ask(engine, "First?")
    ask(engine, "Second?")
    marks = [UNVERIFIED_KEY in message.additional_kwargs for message in engine.chat_history]
    assert marks == [False, mark, False, False]
    assert all(UNVERIFIED_KEY not in message.additional_kwargs for message in inner.calls[-1].messages)


# After the fact


def test_resilient_after_the_fact() -> None:
    response = query_engine(ResilientLLM(scripted([Cut(4, RESET)]), policy=QUICK)).query("?")
    ours = resilient(response)
    assert isinstance(ours, ResilientStreamingResponse)
    assert "".join(ours.response_gen) == str(ours) == SHORT
    assert [each.node.text for each in ours.source_nodes] == list(NODES)
    assert resilient(ours) is ours


async def test_resilient_after_the_fact_asynchronously() -> None:
    engine = query_engine(ResilientLLM(scripted([Cut(4, RESET)]), policy=QUICK))
    ours = resilient(await engine.aquery("?"))
    assert isinstance(ours, ResilientAsyncStreamingResponse)
    assert "".join([token async for token in ours.async_response_gen()]) == SHORT
    assert (await ours.get_response()).response == SHORT


@pytest.mark.parametrize("mode", CHATS)
def test_resilient_after_the_fact_for_a_chat(mode: str) -> None:
    engine = chat_engine(ResilientLLM(scripted([Cut(4, RESET)]), policy=QUICK), mode)
    ours = resilient(engine.stream_chat("?"))
    assert isinstance(ours, ResilientStreamingAgentChatResponse)
    assert "".join(ours.response_gen) == str(ours) == SHORT
    assert turns(engine) == [("user", "?"), ("assistant", SHORT)]


@pytest.mark.parametrize("mode", CHATS)
async def test_resilient_after_the_fact_for_an_asynchronous_chat(mode: str) -> None:
    engine = chat_engine(ResilientLLM(scripted([Cut(4, RESET)]), policy=QUICK), mode)
    ours = resilient(await engine.astream_chat("?"))
    assert "".join([token async for token in ours.async_response_gen()]) == str(ours) == SHORT


MANY_TOKENS = SHORT * 20
AFTER = {
    "query": lambda llm: query_engine(llm, MODE),
    **{m: (lambda llm, m=m: chat_engine(llm, m)) for m in MODES_OF_CHAT},
}
after_the_fact = pytest.mark.parametrize("make", AFTER.values(), ids=AFTER)


def paced(script: Any = (), **kwargs: Any) -> ScriptedLLM:
    """Slow enough that `resilient` comes before the end."""
    return scripted(script, text=MANY_TOKENS, delay=0.005, **kwargs)


def plainly(make: Any, inner: ScriptedLLM, policy: RecoveryPolicy = QUICK) -> Any:
    engine = make(ResilientLLM(inner, policy=policy))
    return engine.query("?") if hasattr(engine, "query") else engine.stream_chat("?")


async def aplainly(make: Any, inner: ScriptedLLM, policy: RecoveryPolicy = QUICK) -> Any:
    engine = make(ResilientLLM(inner, policy=policy))
    return await (engine.aquery("?") if hasattr(engine, "query") else engine.astream_chat("?"))


@after_the_fact
def test_the_report_is_found_after_the_fact(make: Any) -> None:
    response = resilient(plainly(make, paced([Cut(60, RESET)])))
    heard: list[Any] = []
    response.calls.at_recovery(heard.append)
    assert "".join(response.response_gen) == MANY_TOKENS
    assert response.report.status is StreamStatus.COMPLETE
    assert response.report.faults == ["transport"]
    assert [(event.attempt, event.cause) for event in heard] == [(2, "transport")]


@after_the_fact
async def test_async_report_is_found_after_the_fact(make: Any) -> None:
    response = resilient(await aplainly(make, paced([Cut(60, RESET)])))
    heard: list[Any] = []
    response.calls.at_recovery(heard.append)
    assert "".join([token async for token in response.async_response_gen()]) == MANY_TOKENS
    assert response.report.status is StreamStatus.COMPLETE
    assert response.report.faults == ["transport"]
    assert [(event.attempt, event.cause) for event in heard] == [(2, "transport")]


def test_a_recovery_from_before_it_was_found_is_told_too() -> None:
    inner = paced([Cut(3, RESET)])
    response = plainly(AFTER["simple"], inner)
    assert eventually(lambda: len(inner.calls) == 2 and len(inner.calls[1].sent) > 3)
    heard: list[Any] = []
    resilient(response).calls.at_recovery(heard.append)
    assert [(event.attempt, event.cause, event.characters) for event in heard] == [(2, "transport", 3)]
    response.chat_stream.cancel()


@after_the_fact
@pytest.mark.parametrize("read", [0, 2])
def test_cancelling_stops_the_llm_after_the_fact(make: Any, read: int) -> None:
    inner = paced()
    response = resilient(plainly(make, inner))
    assert take(response.response_gen, read) == MANY_TOKENS[:read]
    response.cancel()
    assert eventually(lambda: inner.open_streams == 0, 1)
    assert len("".join(call.sent for call in inner.calls)) < 50
    if inner.calls:
        assert eventually(lambda: response.report.status is StreamStatus.CANCELLED)


@after_the_fact
@pytest.mark.parametrize("read", [0, 2])
async def test_cancelling_an_asynchronous_one_after_the_fact(make: Any, read: int) -> None:
    inner = paced()
    response = resilient(await aplainly(make, inner))
    tokens = response.async_response_gen()
    assert await atake(tokens, read) == MANY_TOKENS[:read]
    await response.acancel()
    assert await aeventually(lambda: inner.open_streams == 0, 1)
    assert len("".join(call.sent for call in inner.calls)) < 50
    if inner.calls:
        assert response.report.status is StreamStatus.CANCELLED
    await tokens.aclose()


@after_the_fact
def test_cancelling_from_another_thread_after_the_fact(make: Any) -> None:
    """Also while the LLM is silent, before the first token or in a back-off, and nothing passes through our hands."""
    inner = paced([Fail(RESET)])
    response = resilient(plainly(make, inner, SLEEPY))
    reader = threading.Thread(target=lambda: list(response.response_gen))
    reader.start()
    assert eventually(lambda: bool(inner.calls) and inner.calls[0].state == "broken")
    response.cancel()
    reader.join(3)
    assert not reader.is_alive()
    assert len(inner.calls) == 1
    assert eventually(lambda: response.report.status is StreamStatus.CANCELLED)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # LlamaIndex's writer raises it too
@after_the_fact
def test_giving_up_after_the_fact(make: Any) -> None:
    others = set(threading.enumerate())
    response = resilient(plainly(make, paced(GIVEN_UP), ONE_TRY))
    assert read_until_error(response.response_gen)[0] == SHORT[:5]
    assert response.report.status is StreamStatus.INTERRUPTED
    response = resilient(plainly(make, paced(GIVEN_UP), PARTIAL))
    assert "".join(response.response_gen) == SHORT[:5]
    assert response.report.status is StreamStatus.INTERRUPTED
    for writer in set(threading.enumerate()) - others:  # what it raises is this test's, not the next one's
        writer.join(5)


def test_looking_at_a_report_after_the_fact_stops_nothing() -> None:
    response = plainly(AFTER["simple"], paced())
    assert resilient(response).report.status is StreamStatus.STREAMING
    assert "".join(response.response_gen) == MANY_TOKENS


@after_the_fact
def test_an_llm_that_is_not_ours_has_no_report(make: Any) -> None:
    engine = make(paced())
    response = resilient(engine.query("?") if hasattr(engine, "query") else engine.stream_chat("?"))
    assert "".join(response.response_gen) == MANY_TOKENS
    assert response.report.status is StreamStatus.UNKNOWN


def test_a_response_whose_text_was_asked_for_has_it() -> None:
    response = StreamingResponse(iter(["a", "b"]))
    assert str(response) == "ab"
    assert str(resilient(response)) == "ab"


@pytest.mark.parametrize(
    "wrong", ["text", None, 3, ScriptedLLM("x"), Response("x")], ids=["text", "none", "number", "llm", "response"]
)
def test_objects_that_cannot_be_made_resilient(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"resilient\(index\.as_query_engine"):
        resilient(wrong)


# Notebooks


@pytest.mark.parametrize("answer", [queried, chatted], ids=["query", "chat"])
@pytest.mark.parametrize(
    ("script", "policy", "note"),
    [
        ([], QUICK, ""),
        ([Cut(4, RESET)], QUICK, "\n\n*healed: 1 fault, 2 attempts*"),
        ([Cut(4, RESET), Cut(2)], QUICK, "\n\n*healed: 2 faults, 3 attempts*"),
        (GIVEN_UP, PARTIAL, "\n\n*interrupted: attempts*"),
    ],
    ids=["whole", "healed", "healed-twice", "given-up"],
)
def test_a_notebook_shows_the_text_and_a_discreet_note(answer: Any, script: Any, policy: Any, note: str) -> None:
    shown = answer(scripted(script), policy)._repr_markdown_()
    assert shown == (SHORT[:5] if script is GIVEN_UP else SHORT) + note


async def test_a_notebook_shows_an_asynchronous_one() -> None:
    response = await aqueried(scripted([Cut(4, RESET)]))
    await response.get_response()
    assert response._repr_markdown_() == SHORT + "\n\n*healed: 1 fault, 2 attempts*"
