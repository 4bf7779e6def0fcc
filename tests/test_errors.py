"""What people and machines get to see of an answer that was given up, and what they never get to see."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from conftest import QUICK, READERS, TEXT, Reader, question
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import ConfigurationError, RecoveryPolicy, ResilientLLM, StreamInterruptedError
from llama_index_resilient_stream.testing import Cut, Fail, ScriptedLLM

RESET = ConnectionResetError("reset")
TWO_TRIES = RecoveryPolicy(stop=stop_after_attempt(2), wait=wait_none())
KEY = "sk-PLANTEDKEY0123456789abcdef"
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
