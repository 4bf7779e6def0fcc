"""P5: an answer that was given up, left or cancelled is freed like any other."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tenacity import stop_after_attempt

from llama_index_resilient_stream import ResilientLLM, StreamInterruptedError, atokens, resilient
from llama_index_resilient_stream.testing import Cut, ScriptedLLM
from support.engines import MODE, MODES_OF_CHAT, chat_engine, query_engine
from support.readers import QUICK, TEXT, question

ONE_TRY = replace(QUICK, stop=stop_after_attempt(1))
PARTIAL = replace(ONE_TRY, on_exhausted="partial")
MANY = 10

Asked = tuple[Any, StreamInterruptedError | None]
"""What the LLM or the engine returned, and the error that its reader got."""


def llm_of(script: Any, policy: Any = ONE_TRY) -> ResilientLLM:
    return ResilientLLM(ScriptedLLM(TEXT, script, token=20), policy=policy)


def reset() -> ConnectionResetError:
    """A new one each time: an error that somebody keeps holds on to the frames that it came through."""
    return ConnectionResetError("reset")


def read(response: Any, take: int | None) -> StreamInterruptedError | None:
    items = iter(response.response_gen if hasattr(response, "response_gen") else response)
    try:
        for count, _ in enumerate(items):
            if take is not None and count >= take:
                break
    except StreamInterruptedError as error:
        return error
    return None


async def aread(response: Any, take: int | None) -> StreamInterruptedError | None:
    items = atokens(response) if hasattr(response, "source_nodes") else response
    count = 0
    try:
        async for _ in items:
            count += 1
            if take is not None and count > take:
                break
    except StreamInterruptedError as error:
        return error
    finally:
        await items.aclose()
    return None


def ask(name: str, llm: ResilientLLM, take: int | None) -> Asked:
    match name.split("-"):
        case ["stream"]:
            response = llm.stream_chat(question())
        case ["query"]:
            response = resilient(query_engine(llm, MODE)).query("?")
        case ["chat", mode]:
            response = resilient(chat_engine(llm, mode)).stream_chat("?")
        case _:
            return asyncio.run(aask(name, llm, take))
    return response, read(response, take)


async def aask(name: str, llm: ResilientLLM, take: int | None) -> Asked:
    match name.split("-"):
        case ["astream"]:
            response: Any = await llm.astream_chat(question())
        case ["aquery"]:
            response = await resilient(query_engine(llm, MODE)).aquery("?")
        case ["achat", mode]:
            response = await resilient(chat_engine(llm, mode)).astream_chat("?")
    return response, await aread(response, take)


WAYS = ["stream", "astream", "query", "aquery", *(f"{a}chat-{mode}" for mode in MODES_OF_CHAT for a in ("", "a"))]
FATES: dict[str, tuple[Callable[[], Any], Any, int | None]] = {
    "interrupted": (lambda: [Cut(60, reset())], ONE_TRY, None),
    "interrupted-at-once": (lambda: [Cut(0, reset())], ONE_TRY, None),
    "interrupted-and-partial": (lambda: [Cut(60, reset())], PARTIAL, None),
    "left": (lambda: [], ONE_TRY, 1),
    "healed": (lambda: [Cut(60, reset())], QUICK, None),
    "complete": (lambda: [], ONE_TRY, None),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # LlamaIndex's writer raises it too
@pytest.mark.parametrize(("script", "policy", "take"), FATES.values(), ids=FATES)
@pytest.mark.parametrize("way", WAYS)
def test_an_answer_is_freed_however_it_ended(way: str, script: Any, policy: Any, take: int | None) -> None:
    answers = [weakref.ref(ask(way, llm_of(script(), policy), take)[0]) for _ in range(MANY)]
    gc.collect()
    assert sum(answer() is not None for answer in answers) == 0
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("resilient-stream")]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("way", ["stream", "astream", "query", "aquery", "chat-simple", "achat-simple"])
def test_a_hundred_interrupted_answers_are_freed(way: str) -> None:
    answers = [weakref.ref(ask(way, llm_of([Cut(60, reset())]), None)[0]) for _ in range(100)]
    gc.collect()
    assert sum(answer() is not None for answer in answers) == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("way", WAYS)
def test_an_error_that_is_kept_holds_its_answer_by_its_traceback_alone(way: str) -> None:
    response, error = ask(way, llm_of([Cut(60, reset())]), None)
    assert error is not None
    answer = weakref.ref(response)
    del response
    each: BaseException | None = error
    while each is not None:
        each = each.with_traceback(None).__cause__
    gc.collect()
    assert answer() is None
    assert error.partial_text == TEXT[:60]
