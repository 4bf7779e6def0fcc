"""What people and machines get to see of an answer that was given up, and what they never get to see."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import openai
import pytest
from llama_index.llms.openai import OpenAI
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import ConfigurationError, RecoveryPolicy, ResilientLLM, StreamInterruptedError
from llama_index_resilient_stream.testing import FAULTS, Cut, Fail, ScriptedLLM, WireFault
from llama_index_resilient_stream.testing.faults import http_error
from support.readers import QUICK, READERS, TEXT, Reader, openai_like, question

RESET = ConnectionResetError("reset")
TWO_TRIES = RecoveryPolicy(stop=stop_after_attempt(2), wait=wait_none())
KEY = "sk-PLANTEDKEY0123456789abcdef"
HEADER = "hdr-PLANTEDHEADER-987"
PROMPT = "PLANTEDPROMPT tell me of the harbour"


def interrupted(reader: Reader, script: Any = (), **kwargs: Any) -> StreamInterruptedError:
    inner = ScriptedLLM(TEXT, script or [Cut(50, RESET), *[Fail(RESET)] * 8])
    error = reader(ResilientLLM(inner, policy=TWO_TRIES), **kwargs).error
    assert error is not None
    return error


# Copies and pickles


COPIES: dict[str, Callable[[StreamInterruptedError], StreamInterruptedError]] = {
    "pickle-0": lambda error: pickle.loads(pickle.dumps(error, 0)),
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_of_an_error_keeps_what_arrived_and_why_it_ended(reader: Reader, copied: Any) -> None:
    error = interrupted(reader)
    other = copied(error)
    assert type(other) is StreamInterruptedError
    for name in ("partial_text", "retryable", "code", "reason", "restart_only", "args"):
        assert getattr(other, name) == getattr(error, name), name
    assert str(other) == str(error)
    assert other.report.to_dict() == error.report.to_dict()
    assert other.partial_text == TEXT[:50]


def _raise(error: StreamInterruptedError) -> None:
    raise error


def test_an_error_comes_back_from_another_process() -> None:
    error = interrupted(READERS["sync"])
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(StreamInterruptedError) as caught:
        pool.apply(_raise, (error,))
    assert (str(caught.value), caught.value.partial_text) == (str(error), TEXT[:50])


@pytest.mark.parametrize("endpoint", ["chat", "complete"])
def test_no_key_and_no_prompt_travels_with_an_error(reader: Reader, endpoint: str) -> None:
    error = interrupted(
        reader,
        endpoint=endpoint,
        extra_headers={"Authorization": f"Bearer {KEY}"},
        user=PROMPT,
    )
    shown = [repr(error), str(error), repr(vars(error)), repr(error.question), repr(error.report)]
    pickled = [pickle.dumps(thing, n) for thing in (error, error.report) for n in range(pickle.HIGHEST_PROTOCOL + 1)]
    for each in (*shown, *(data.decode("latin-1") for data in pickled)):
        assert "PLANTED" not in each
        assert "mended" not in each, "the question of the fixture"


def test_an_error_can_be_resumed_in_the_process_that_raised_it(reader: Reader) -> None:
    inner = ScriptedLLM(TEXT, [Cut(50, RESET), Fail(RESET)])
    llm = ResilientLLM(inner, policy=TWO_TRIES)
    error = reader(llm).error
    assert error is not None
    pickle.dumps(error)
    assert error.partial_text + "".join(chunk.delta for chunk in llm.resume(error)) == TEXT
    assert inner.calls[-1].messages[0].content == question()[0].content


@pytest.mark.parametrize("copied", [COPIES["pickle"], copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
async def test_an_error_from_elsewhere_says_how_to_resume_it(copied: Any) -> None:
    inner = ScriptedLLM(TEXT, [Cut(50, RESET), Fail(RESET)])
    llm = ResilientLLM(inner, policy=TWO_TRIES)
    with pytest.raises(StreamInterruptedError) as caught:
        list(llm.stream_chat(question()))
    other = copied(caught.value)
    with pytest.raises(ConfigurationError, match=r"llm\.resume\(messages, error\.partial_text\)"):
        llm.resume(other)
    with pytest.raises(ConfigurationError, match=r"llm\.resume\(messages, error\.partial_text\)"):
        await llm.aresume(other)
    rest = "".join(chunk.delta for chunk in llm.resume(question(), other.partial_text))
    assert other.partial_text + rest == TEXT


def test_the_original_exception_is_the_cause(reader: Reader) -> None:
    assert interrupted(reader).__cause__ is RESET
    assert QUICK.on_exhausted == "raise"


# What the provider said


def said(reader: Reader, serve: Any, fault: WireFault, **kwargs: Any) -> StreamInterruptedError:
    server = serve(TEXT, [fault] * 20)
    inner = openai_like(server, default_headers={"X-Secret": HEADER}, **kwargs)
    inner.api_key = KEY
    error = reader(
        ResilientLLM(inner, policy=TWO_TRIES), extra_headers={"X-Other": f"Basic {HEADER}"}, user=PROMPT
    ).error
    assert error is not None
    return error


REFUSALS = {
    "key": (401, "Incorrect API key provided"),
    "model": (404, "The model `scripted` does not exist"),
    "parameter": (400, "Invalid value for 'temperature'"),
    "quota": (429, "You exceeded your current quota, please check your plan and billing details"),
    "down": (503, "The engine is currently overloaded, please try again later"),
}


@pytest.mark.parametrize(("status", "words"), REFUSALS.values(), ids=REFUSALS)
def test_an_error_says_what_the_provider_said(reader: Reader, serve: Any, status: int, words: str) -> None:
    error = said(reader, serve, http_error(status, words))
    assert f"HTTP {status}" in str(error)
    assert f": {words}. Gave up after " in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("status", [400, 401, 418, 429, 500])
@pytest.mark.parametrize("where", ["status", "event"])
def test_an_echo_of_key_header_and_prompt_is_left_out(reader: Reader, serve: Any, where: str, status: int) -> None:
    words = f"Not accepted: key {KEY}, header {HEADER}, user {PROMPT}; you wrote: How was it mended?"
    in_stream = replace(FAULTS["error_event"], message=words, code=status)
    error = said(reader, serve, http_error(status, words) if where == "status" else in_stream)
    assert "Not accepted: key …, header …" in str(error)
    shown = [str(error), repr(error), str(error.report), repr(error.report), pickle.dumps(error).decode("latin-1")]
    for each in shown:
        assert "PLANTED" not in each
        assert "mended" not in each


def test_the_text_so_far_is_no_part_of_a_message(reader: Reader, serve: Any) -> None:
    refusal = http_error(400, "Roles must alternate after 'The first transatlantic cable carried ninety-eight words'")
    server = serve(TEXT, [replace(FAULTS["reset"], after=80), *[refusal] * 9])
    error = reader(ResilientLLM(openai_like(server), policy=TWO_TRIES)).error
    assert error is not None
    assert "transatlantic" not in str(error)


def test_a_missing_key_is_said(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    bare = OpenAI(model="gpt-4o-mini")
    try:
        bare._get_client()
    except openai.OpenAIError:
        error = reader(ResilientLLM(bare, policy=TWO_TRIES)).error
    else:
        pytest.skip("this llms-openai asks without a key")
    assert error is not None
    assert "OPENAI_API_KEY" in str(error)
    assert "environment variable" in str(error)
