"""What users decide: which failures are worth another try, which go to the next model, which beginnings are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tenacity import (
    RetryCallState,
    retry_any,
    retry_if_exception_type,
    retry_if_not_exception_type,
    retry_if_result,
    stop_after_attempt,
    wait_none,
)

from llama_index_resilient_stream import ConfigurationError, RecoveryPolicy, StreamInterruptedError
from llama_index_resilient_stream.policy import AttemptResult, retry_if_fault, retry_if_outcome
from llama_index_resilient_stream.recovery.events import Chunk, Ended, Learned, Model
from llama_index_resilient_stream.recovery.finish_reasons import FinishMeaning, FinishReason
from llama_index_resilient_stream.recovery.machine import Recovery

STOP = FinishReason(FinishMeaning.COMPLETE, "stop")
FILTER = FinishReason(FinishMeaning.FILTER, "content_filter")
RESET = ConnectionResetError("reset")
QUICK = RecoveryPolicy(stop=stop_after_attempt(3), wait=wait_none())


class GatewayError(Exception):
    """Of somebody's own gateway: nothing in it tells whether it may be tried again."""


class UnauthorizedError(Exception):
    status_code = 401


class BusyError(Exception):
    status_code = 429


def models(count: int) -> list[Model]:
    return [Model(f"model {number}", sends_finish_reason=True, learned=Learned()) for number in range(count)]


def attempts(policy: RecoveryPolicy, error: Exception, count: int = 1) -> list[str]:
    """Which models are asked when every attempt ends in this error."""
    recovery = Recovery(models(count), policy)
    while True:
        assert recovery.request
        recovery.receive(Ended(error))
        try:
            recovery.next_delay()
        except StreamInterruptedError:
            return [attempt.model[-1] for attempt in recovery.report.attempts]


@pytest.mark.parametrize(
    ("retry", "error", "asked"),
    [
        pytest.param(retry_if_fault(), GatewayError(), "0", id="unknown-is-not-retried"),
        pytest.param(GatewayError, GatewayError(), "000", id="a-type"),
        pytest.param((KeyError, GatewayError), GatewayError(), "000", id="types"),
        pytest.param(GatewayError, RESET, "0", id="a-type-and-nothing-else"),
        pytest.param(retry_if_exception_type(GatewayError), GatewayError(), "000", id="tenacity-type"),
        pytest.param(retry_if_fault() | retry_if_exception_type(GatewayError), GatewayError(), "000", id="or"),
        pytest.param(retry_if_fault() | retry_if_exception_type(GatewayError), RESET, "000", id="or-keeps-the-rest"),
        pytest.param(retry_any(retry_if_fault(), retry_if_exception_type(GatewayError)), RESET, "000", id="any"),
        pytest.param(retry_if_fault() & retry_if_not_exception_type(ConnectionResetError), RESET, "0", id="and"),
        pytest.param(retry_if_fault("rate_limit"), BusyError(), "000", id="a-kind"),
        pytest.param(retry_if_fault("rate_limit"), RESET, "0", id="a-kind-and-nothing-else"),
        pytest.param(lambda state: state.fault.status == 401, UnauthorizedError(), "000", id="a-function-of-the-fault"),
        pytest.param(
            lambda state: isinstance(state.outcome.exception(), GatewayError), GatewayError(), "000", id="a-function"
        ),
    ],
)
def test_retry_says_what_is_worth_another_try(retry: Any, error: Exception, asked: str) -> None:
    assert "".join(attempts(replace(QUICK, retry=retry), error)) == asked


@pytest.mark.parametrize(
    ("fallback_on", "error", "asked"),
    [
        pytest.param(None, UnauthorizedError(), "01", id="default"),
        pytest.param(retry_if_fault("rate_limit"), UnauthorizedError(), "0", id="not-this-kind"),
        pytest.param(retry_if_fault("auth"), UnauthorizedError(), "01", id="this-kind"),
        pytest.param(GatewayError, UnauthorizedError(), "0", id="another-type"),
        pytest.param(lambda state: True, UnauthorizedError(), "01", id="always"),
    ],
)
def test_fallback_on_says_what_the_next_model_is_asked_for(fallback_on: Any, error: Exception, asked: str) -> None:
    assert "".join(attempts(replace(QUICK, fallback_on=fallback_on), error, count=2)) == asked


OUTCOMES = {
    "filtered": [Chunk("", finish_reason=FILTER)],
    "refused": [Chunk("", refusal="No."), Chunk("", finish_reason=STOP)],
    "empty": [Chunk("", finish_reason=STOP)],
}


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("wanted", ["filtered", "refused", "empty", None])
def test_outcomes_go_to_the_next_model_only_where_asked(outcome: str, wanted: Any) -> None:
    fallback_on = None if wanted is None else retry_if_fault() | retry_if_outcome(wanted)
    recovery = Recovery(models(2), replace(QUICK, fallback_on=fallback_on, empty="accept"))
    assert recovery.request
    for chunk in OUTCOMES[outcome]:
        recovery.receive(replace(chunk))
    recovery.receive(Ended())
    assert recovery.over is (wanted != outcome)
    if wanted == outcome:
        assert recovery.request.model == 1


def test_outcomes_by_tenacitys_own_predicate() -> None:
    def too_short(result: object) -> bool:
        return isinstance(result, AttemptResult) and len(result.text) < 5

    recovery = Recovery(models(2), replace(QUICK, fallback_on=retry_if_result(too_short)))
    assert recovery.request
    recovery.receive(Chunk("Hm.", progress=True))
    recovery.receive(Chunk("", finish_reason=STOP))
    recovery.receive(Ended())
    assert recovery.request.model == 1


@pytest.mark.parametrize("pieces", [["I cannot ", "do that, for reasons"], ["I cannot do that"], list("I cannot")])
def test_a_rejected_beginning_is_not_shown(pieces: list[str]) -> None:
    policy = replace(QUICK, reject=lambda head: head.startswith("I cannot"), reject_characters=16)
    recovery = Recovery(models(2), policy)
    shown = []
    assert recovery.request
    for piece in pieces:
        if not recovery.streaming:
            break
        shown += recovery.receive(Chunk(piece, progress=True))
    if recovery.streaming:
        shown += recovery.receive(Chunk("", finish_reason=STOP))
    assert not recovery.streaming
    assert "".join(chunk.text for chunk in shown) == ""
    assert recovery.request.model == 1
    assert recovery.report.faults == ["rejected"]
    assert "".join(chunk.text for chunk in recovery.receive(Chunk("Gladly: here it is.", progress=True))) == (
        "Gladly: here it is."
    )


def test_a_beginning_that_is_not_rejected_is_shown_whole() -> None:
    recovery = Recovery(models(1), replace(QUICK, reject=lambda head: "cannot" in head, reject_characters=10))
    assert recovery.request
    shown = [c.text for piece in ("Yes, ", "with ", "pleasure.") for c in recovery.receive(Chunk(piece, progress=True))]
    assert "".join(shown) == "Yes, with pleasure."


def test_when_every_model_is_rejected_the_answer_is_given_up() -> None:
    recovery = Recovery(models(1), replace(QUICK, reject=lambda head: True, reject_characters=1))
    assert recovery.request
    recovery.receive(Chunk("Hm", progress=True))
    with pytest.raises(StreamInterruptedError, match="rejected"):
        recovery.next_delay()
    assert recovery.answer == ""


def test_the_state_is_tenacitys_and_has_the_fault() -> None:
    states: list[RetryCallState] = []

    def look(state: RetryCallState) -> bool:
        states.append(state)
        return False

    attempts(replace(QUICK, retry=look), BusyError())
    (state,) = states
    assert isinstance(state, RetryCallState)
    assert state.attempt_number == 1
    assert state.outcome is not None
    assert isinstance(state.outcome.exception(), BusyError)
    assert getattr(state, "fault").kind == "rate_limit"  # noqa: B009


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"stop": stop_after_attempt}, "stop=tenacity.stop_after_attempt(4)"),
        ({"retry": stop_after_attempt}, "retry=retry_if_fault()"),
        ({"retry": "always"}, "retry=retry_if_fault()"),
        ({"fallback_on": 3}, "fallback_on=retry_if_fault()"),
        ({"reject": "I cannot"}, "reject=lambda head"),
        ({"empty": "never"}, "'retry', 'accept'"),
        ({"completeness": "maybe"}, "'auto', 'strict', 'lenient'"),
        ({"max_held_characters": 0}, "from 1"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(settings: Any, line: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RecoveryPolicy(**settings)
    assert line in str(caught.value)


@pytest.mark.parametrize("make", [lambda: retry_if_fault("rate limit"), lambda: retry_if_outcome("bad")])  # type: ignore[arg-type]
def test_words_that_do_not_exist_are_refused(make: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Use some of|takes some of"):
        make()
