"""Responses: read in any order, failed for good once failed, and left at once. Every line of what LlamaIndex gets wrong."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from conftest import QUICK, TEXT
from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.chat_engine.types import StreamingAgentChatResponse
from llama_index.core.llms import ChatMessage
from tenacity import stop_after_attempt, wait_fixed
from test_engines import CHATS, NODES, RESET, aask, ask, chat_engine, query_engine

from llama_index_resilient_stream import (
    ConfigurationError,
    RecoveryPolicy,
    ResilientAsyncStreamingResponse,
    ResilientLLM,
    ResilientStreamingAgentChatResponse,
    ResilientStreamingResponse,
    StreamInterruptedError,
    StreamStatus,
    resilient,
)
from llama_index_resilient_stream.messages import PARTIAL_KEY
from llama_index_resilient_stream.testing import Cut, Fail, ScriptedLLM, Stall

ONE_TRY = replace(QUICK, stop=stop_after_attempt(1))
PARTIAL = replace(ONE_TRY, on_exhausted="partial")
SLEEPY = replace(QUICK, wait=wait_fixed(60))
SHORT = "0123456789"
GIVEN_UP = [Cut(5, RESET)]


def scripted(script: Any = (), text: str = SHORT, **kwargs: Any) -> ScriptedLLM:
    return ScriptedLLM(text, script, **{"token": 1, **kwargs})


def queried(inner: ScriptedLLM, policy: RecoveryPolicy = QUICK) -> ResilientStreamingResponse:
    response: ResilientStreamingResponse = resilient(query_engine(ResilientLLM(inner, policy=policy))).query("?")
    return response


async def aqueried(inner: ScriptedLLM, policy: RecoveryPolicy = QUICK) -> ResilientAsyncStreamingResponse:
    engine = resilient(query_engine(ResilientLLM(inner, policy=policy)))
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
    return "".join(next(tokens) for _ in range(count))


async def atake(tokens: Any, count: int) -> str:
    return "".join([await anext(tokens) for _ in range(count)])


SYNC = {"query": queried, **{mode: (lambda *args, mode=mode: chatted(*args, mode=mode)) for mode in CHATS}}
ASYNC = {"query": aqueried, **{mode: (lambda *args, mode=mode: achatted(*args, mode=mode)) for mode in CHATS}}
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
    response = answer(scripted(text=""), replace(QUICK, completeness="lenient"))
    assert str(response) == ""
    assert "".join(response.response_gen) == ""


def test_a_response_that_nobody_holds_is_read_to_its_end() -> None:
    engine = resilient(query_engine(ResilientLLM(scripted())))
    assert "".join(token for token in engine.query("?").response_gen) == SHORT
    chat = resilient(chat_engine(ResilientLLM(scripted()), "simple"))
    assert "".join(token for token in chat.stream_chat("?").response_gen) == SHORT


async def test_an_asynchronous_response_that_nobody_holds_is_read_to_its_end() -> None:
    engine = resilient(query_engine(ResilientLLM(scripted())))
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


@sync
def test_every_token_comes_before_the_error_and_the_response_stays_failed(answer: Any) -> None:
    response = answer(scripted(GIVEN_UP), ONE_TRY)
    if not isinstance(response, ResilientStreamingResponse):
        assert eventually(lambda: response.report.status is StreamStatus.INTERRUPTED or not response.queue.qsize())
    got = []
    with pytest.raises(StreamInterruptedError) as caught:
        got.extend(iter(response.response_gen.__next__, None))
    del got
    assert caught.value.partial_text == SHORT[:5]
    assert caught.value.__cause__ is RESET
    for again in (str, lambda each: list(each.response_gen), lambda each: each.get_response()):
        if again is not str and not hasattr(response, "get_response") and again.__code__.co_names == ("get_response",):
            continue
        with pytest.raises(StreamInterruptedError):
            again(response)
    assert getattr(response, "response_txt", None) is None
    assert response.report.status is StreamStatus.INTERRUPTED
