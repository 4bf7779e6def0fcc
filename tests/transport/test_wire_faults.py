"""Every fault on a real socket, through LlamaIndex's OpenAI client, sync and async."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tenacity import stop_after_attempt

from llama_index_resilient_stream import (
    RecoveryPolicy,
    ResilientLLM,
    StreamInterruptedError,
    StreamStatus,
    TruncatedStreamError,
)
from llama_index_resilient_stream.testing import (
    FATAL,
    FAULTS,
    HARMLESS,
    NO_FINISH_REASON,
    RETRYABLE,
    STATED_INCOMPLETE,
    TOOL_CALLS,
    FaultServer,
    http_error,
)
from support.readers import QUICK, READERS, TEXT, Reader, openai_like

Serve = Callable[..., FaultServer]

# "slow" and "stall_then_answer" must survive this, on a busy machine too.
WATCHED = replace(QUICK, first_token_timeout=3.0, idle_timeout=3.0)
# For what only the watchdogs end. A busy machine takes half a second to a first token.
IMPATIENT = replace(QUICK, first_token_timeout=1.2, idle_timeout=1.2)


def resilient(server: FaultServer, policy: RecoveryPolicy = WATCHED, **kwargs: Any) -> ResilientLLM:
    return ResilientLLM(openai_like(server), policy=policy, **kwargs)


def watched(fault: str) -> RecoveryPolicy:
    return IMPATIENT if FAULTS[fault].kind.startswith(("stall", "comments")) else WATCHED


@pytest.mark.parametrize("fault", RETRYABLE)
def test_a_fault_is_survived(reader: Reader, serve: Serve, fault: str) -> None:
    server = serve(TEXT, [fault])
    result = reader(resilient(server, watched(fault)))
    assert result.text == TEXT
    assert result.whole == TEXT
    assert result.report.status is StreamStatus.COMPLETE
    assert result.report.finish_reason == "stop"
    assert len(server.requests) == len(result.report.attempts) == 2
    assert result.report.attempts[0].fault


@pytest.mark.parametrize("after", [0, 1, 40, 200, None])
@pytest.mark.parametrize("fault", [f for f in RETRYABLE if FAULTS[f].after])
def test_fault_is_survived_wherever_it_strikes(reader: Reader, serve: Serve, fault: str, after: int | None) -> None:
    server = serve(TEXT, [FAULTS[fault].at(after)])
    result = reader(resilient(server, watched(fault)))
    assert result.text == TEXT
    assert result.report.status is StreamStatus.COMPLETE
    # A model that is asked for the rest, and has none, may as well have stopped early: so it tells all of it again.
    assert (result.report.attempts[-1].strategy == "restart") is (after is None or after == 0)


@pytest.mark.parametrize("fault", FATAL)
def test_permanent_faults_are_not_retried(reader: Reader, serve: Serve, fault: str) -> None:
    server = serve(TEXT, [fault])
    result = reader(resilient(server))
    assert len(server.requests) == 1
    assert isinstance(result.error, StreamInterruptedError)
    assert not result.error.retryable
    assert result.error.__cause__ is not None
    assert result.report.status is StreamStatus.INTERRUPTED
    assert result.report.reason in ("not_retryable", "context_window")
    assert result.error.partial_text == result.text


@pytest.mark.parametrize("fault", HARMLESS)
def test_harmless_oddities_are_no_faults(reader: Reader, serve: Serve, fault: str) -> None:
    server = serve(TEXT, [fault])
    result = reader(resilient(server))
    assert result.text == TEXT
    assert result.report.status is StreamStatus.COMPLETE
    assert len(server.requests) == 1
    assert not result.report.faults


@pytest.mark.parametrize(
    ("completeness", "status", "requests"),
    [
        ("lenient", StreamStatus.UNKNOWN, 1),
        ("strict", StreamStatus.COMPLETE, 3),
        ("auto", StreamStatus.COMPLETE, 3),
    ],
)
@pytest.mark.parametrize("fault", NO_FINISH_REASON)
def test_an_answer_whose_end_nobody_announced(
    reader: Reader, serve: Serve, fault: str, completeness: Any, status: StreamStatus, requests: int
) -> None:
    # The class is known to tell, so "auto" asks again; the next answer adds nothing, and the one after it is the same.
    server = serve(TEXT, [fault])
    result = reader(resilient(server, replace(WATCHED, completeness=completeness)))
    assert result.text == TEXT
    assert result.report.status is status
    assert len(server.requests) == requests


@pytest.mark.parametrize("fault", STATED_INCOMPLETE)
def test_an_end_that_the_provider_states_is_reported_and_not_retried(reader: Reader, serve: Serve, fault: str) -> None:
    server = serve(TEXT, [fault])
    result = reader(resilient(server))
    assert TEXT.startswith(result.text)
    assert len(server.requests) == 1
    assert result.report.status is (StreamStatus.LENGTH if fault == "length" else StreamStatus.FILTERED)
    assert result.report.finish_reason == FAULTS[fault].finish_reason


def test_length_is_continued_where_that_was_asked_for(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, [FAULTS["length"].at(40), FAULTS["length"].at(120)])
    result = reader(resilient(server, replace(WATCHED, continue_on_length=5)))
    assert result.text == TEXT
    assert result.report.status is StreamStatus.COMPLETE
    assert len(server.requests) == 3
    assert not result.report.faults


def test_an_output_limit_is_granted_anew_after_each_length_stop(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT * 3, respect_max_tokens=True)
    inner = openai_like(server, max_tokens=60)
    result = reader(ResilientLLM(inner, policy=replace(WATCHED, continue_on_length=20)))
    assert result.text == TEXT * 3
    assert {record.body["max_tokens"] for record in server.requests} == {60}


def test_length_is_continued_no_more_often_than_allowed(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, [FAULTS["length"].at(100)] * 5)
    result = reader(resilient(server, replace(WATCHED, continue_on_length=2)))
    assert TEXT.startswith(result.text)
    assert result.report.status is StreamStatus.LENGTH
    assert len(server.requests) == 3


def test_length_without_a_word_is_not_continued(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, [FAULTS["length"].at(0)] * 5, thinking="Let me think about it for a long time.")
    result = reader(resilient(server, replace(WATCHED, continue_on_length=4)))
    assert result.text == ""
    assert result.report.status is StreamStatus.LENGTH
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [name for name in TOOL_CALLS if name != "tool_call"])
def test_a_cut_tool_call_is_restarted(reader: Reader, serve: Serve, fault: str) -> None:
    server = serve(TEXT, [FAULTS[fault], FAULTS["tool_call"]])
    tools = [{"type": "function", "function": {"name": "transfer", "parameters": {}}}]
    result = reader(resilient(server), tools=tools)
    if fault == "tool_call_length":  # it would be cut there again
        assert result.error is not None
        assert len(server.requests) == 1
        return
    assert result.error is None
    assert len(server.requests) == 2
    assert not server.requests[1].partial_text
    calls = result.chunks[-1].message.additional_kwargs["tool_calls"]
    assert calls[0].function.arguments == FAULTS["tool_call"].tool_call[1]


def test_a_whole_tool_call_is_not_asked_for_twice(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, [FAULTS["tool_call"]])
    result = reader(resilient(server), tools=[{"type": "function", "function": {"name": "transfer"}}])
    assert result.report.status is StreamStatus.COMPLETE
    assert len(server.requests) == 1


def test_a_silent_cut_that_is_given_up_says_what_people_search_for(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, ["clean_eof"] * 3)
    policy = replace(WATCHED, stop=stop_after_attempt(1))
    result = reader(resilient(server, policy))
    error = result.error
    assert isinstance(error, StreamInterruptedError)
    assert "Incomplete stream response - expected more data but connection closed unexpectedly." in str(error)
    assert error.code == "llm/truncated-response-in-streaming-mode"
    assert isinstance(error.__cause__, TruncatedStreamError)
    assert error.retryable
    assert error.partial_text == result.text == TEXT[:12]


def test_a_continuation_that_outgrows_the_context_window_keeps_what_was_said(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, [FAULTS["reset"].at(80), "context_length"])
    result = reader(resilient(server))
    assert result.error is not None
    assert result.error.reason == result.report.reason == "context_window"
    assert result.error.partial_text == result.text == TEXT[:80]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("retry_after", "form", "waits"),
    [(3, "seconds", 3.0), (0.25, "ms", 0.25), (500, "seconds", 5.0)],
    ids=["seconds", "milliseconds", "capped"],
)
def test_retry_after_is_obeyed_up_to_a_bound(
    serve: Serve, retry_after: float, form: Any, waits: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(TEXT, [http_error(429, "slow down", retry_after=retry_after, retry_form=form)])
    slept: list[float] = []
    monkeypatch.setattr(
        "llama_index_resilient_stream.streaming.scope.Scope.sleep", lambda self, delay: slept.append(delay)
    )
    llm = resilient(server, replace(WATCHED, max_retry_after=5.0))
    assert READERS["sync"](llm, endpoint="complete").text == TEXT
    assert slept == [waits]


def test_retry_after_may_be_a_date(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(TEXT, [http_error(503, "later", retry_after=20, retry_form="date")])
    slept: list[float] = []
    monkeypatch.setattr(
        "llama_index_resilient_stream.streaming.scope.Scope.sleep", lambda self, delay: slept.append(delay)
    )
    assert READERS["sync"](resilient(server), endpoint="complete").text == TEXT
    assert 15 < slept[0] <= 21


def test_prefill_is_used_where_told(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, [FAULTS["reset"].at(60)])
    result = reader(resilient(server, continuation="prefill"))
    assert result.text == TEXT
    assert server.requests[1].parsed.kind == "prefill"
    assert server.requests[1].body["continue_final_message"] is True


def test_a_refused_prefill_becomes_a_question_without_using_up_an_attempt(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, [FAULTS["reset"].at(60), FAULTS["reset"].at(120)], refuse_prefill=True)
    policy = replace(WATCHED, max_attempts=3, stop=stop_after_attempt(2))
    llm = resilient(server, policy, continuation="prefill")
    result = reader(llm)
    assert result.text == TEXT
    assert [record.parsed.kind for record in server.requests] == ["answer", "prefill", "ask", "ask"]


def test_several_cuts_in_one_answer(reader: Reader, serve: Serve) -> None:
    faults = [FAULTS[name].at(after) for name, after in [("reset", 30), ("clean_eof", 90), ("half_event", 70)]]
    server = serve(TEXT, [*faults, FAULTS["broken_json"].at(60), FAULTS["fin_in_chunk"].at(100)])
    result = reader(resilient(server))
    assert result.text == TEXT
    assert len(server.requests) == 6


def test_a_cut_inside_the_repeated_anchor(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, [FAULTS["reset"].at(100), FAULTS["reset"].at(8), FAULTS["clean_eof"].at(16)])
    result = reader(resilient(server))
    assert result.text == TEXT
    assert result.report.status is StreamStatus.COMPLETE


@pytest.mark.parametrize("kind", ["chat", "complete"])
def test_completions_of_a_chat_model_go_on_as_a_chat(reader: Reader, serve: Serve, kind: str) -> None:
    server = serve(TEXT, [FAULTS["reset"].at(60)])
    result = reader(resilient(server), endpoint=kind)
    assert result.text == result.whole == TEXT
    assert server.requests[1].parsed.kind == "ask"


@pytest.mark.parametrize("kind", ["chat", "complete"])
def test_a_completion_model_is_given_its_own_words_to_go_on_from(reader: Reader, serve: Serve, kind: str) -> None:
    server = serve(TEXT, [FAULTS["reset"].at(60)])
    llm = ResilientLLM(openai_like(server, is_chat_model=False), policy=WATCHED)
    result = reader(llm, endpoint=kind)
    try:
        reader(openai_like(serve(TEXT), is_chat_model=False), endpoint=kind)
    except TypeError:  # llms-openai 0.1.31, sync: the bare LLM forgets the model's name. That is nothing to try again.
        assert result.error is not None
        assert isinstance(result.error.__cause__, TypeError)
        assert len(result.report.attempts) == 1
        return
    assert result.text == result.whole == TEXT
    assert server.requests[1].parsed.kind == "append"
    assert server.requests[1].path.endswith("/completions")


def test_the_output_limit_is_reduced_by_what_was_said(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, [FAULTS["reset"].at(200)])
    inner = openai_like(server, max_tokens=500)
    assert reader(ResilientLLM(inner, policy=WATCHED)).text == TEXT
    assert server.requests[0].body["max_tokens"] == 500
    assert 450 <= server.requests[1].body["max_tokens"] < 480
    assert inner.max_tokens == 500


def test_usage_of_all_attempts_is_merged_and_marked_as_an_estimate(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, [FAULTS["reset"].at(200), "usage_after_finish"])
    result = reader(resilient(server))
    assert result.text == TEXT
    counted = result.report.attempts[1].usage
    assert result.report.usage_estimated
    assert result.report.usage["completion_tokens"] == counted["completion_tokens"] + 50
    last = result.chunks[-1].additional_kwargs
    assert last["completion_tokens"] == result.report.usage["completion_tokens"]
    assert last["usage_estimated"] is True


def test_keep_alive_comments_do_not_feed_the_watchdog(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, [FAULTS["comments"].at(60)])
    result = reader(resilient(server, IMPATIENT))
    assert result.text == TEXT
    assert result.report.faults == ["timeout"]


def test_the_deadline_ends_even_a_stream_that_trickles(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, [replace(FAULTS["slow"], seconds=0.05)])
    result = reader(resilient(server, replace(WATCHED, deadline=1.5)))
    assert result.error is not None
    assert result.error.reason == "deadline"
    assert 0 < len(result.text) < len(TEXT)
    assert result.report.seconds < 1.5 + 1.7


def test_the_original_error_is_the_cause(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, ["http_503"] * 9)
    result = reader(resilient(server))
    assert result.error is not None
    assert type(result.error.__cause__).__name__ == "InternalServerError"
    assert result.error.retryable
    assert len(server.requests) == 4
