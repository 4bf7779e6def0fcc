"""Whom a chain asks: circuits that are open are passed over, models that cannot take the question are not asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed, wait_none

from llama_index_resilient_stream import CircuitBreaker, RecoveryPolicy, StreamInterruptedError, retry_if_fault
from llama_index_resilient_stream.recovery.events import Chunk, Ended, Learned, Model
from llama_index_resilient_stream.recovery.finish_reasons import FinishMeaning, FinishReason
from llama_index_resilient_stream.recovery.machine import Recovery
from llama_index_resilient_stream.report import CircuitState, PassReason

STOP = FinishReason(FinishMeaning.COMPLETE, "stop")
RESET = ConnectionResetError("reset")
QUICK = RecoveryPolicy(stop=stop_after_attempt(1), wait=wait_none(), breaker=CircuitBreaker(failures=2, seconds=30))


class StatusError(Exception):
    def __init__(self, status_code: int, **headers: str) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


Outcome = Exception | str
"""What a model does when it is asked: fails, or says this and is done."""


@dataclass
class Process:
    """The models of a process, what they do now, and the time on its clock."""

    doing: list[Outcome]
    policy: RecoveryPolicy = QUICK
    now: float = 0.0
    unfit: dict[int, Callable[..., PassReason | None]] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    recovery: Recovery = field(init=False)

    def __post_init__(self) -> None:
        self.learned = [Learned() for _ in self.doing]

    def models(self) -> Sequence[Model]:
        made = []
        for number, learned in enumerate(self.learned):
            model = Model(f"model {number}", sends_finish_reason=True, learned=learned)
            made.append(replace(model, unfit=self.unfit[number]) if number in self.unfit else model)
        return made

    def answer(self, **options: Any) -> str:
        """One answer; which models were asked for it."""
        self.asked = []
        self.recovery = Recovery(self.models(), self.policy, clock=lambda: self.now, **options)
        while True:
            request = self.recovery.request
            self.asked.append(request.model)
            doing = self.doing[request.model]
            if isinstance(doing, str):
                self.recovery.receive(Chunk(doing, progress=True))
                self.recovery.receive(Chunk("", finish_reason=STOP))
                self.recovery.receive(Ended())
            else:
                self.recovery.receive(Ended(doing))
            if (delay := self.recovery.next_delay()) is None:
                return "".join(map(str, self.asked))
            self.now += delay

    @property
    def passed_over(self) -> list[tuple[str, str]]:
        return [(each.model, str(each.reason)) for each in self.recovery.report.passed_over]

    @property
    def circuits(self) -> list[tuple[str, str]]:
        return [(each.model, str(each.state)) for each in self.recovery.report.circuits]


def test_a_dead_primary_is_asked_until_its_circuit_opens_then_once_in_an_interval() -> None:
    process = Process([RESET, "Well."])
    asked = []
    for _ in range(100):
        asked.append(process.answer())
        process.now += 1
    assert asked[:4] == ["01", "01", "1", "1"]
    assert asked.count("01") == 2 + 3, "in 98 seconds three intervals of 30 pass"
    assert set(asked) == {"01", "1"}


def waited(process: Process) -> list[bool]:
    process.answer()
    return [attempt.waited > 0 for attempt in process.recovery.report.attempts]


def test_nobody_waits_for_a_model_that_has_another_behind_it() -> None:
    assert waited(Process([RESET, "Well."], RecoveryPolicy())) == [False, False, False]


LATER = StatusError(503, retry_after="20")
RATE_LIMIT = StatusError(429)


@pytest.mark.parametrize(
    ("error", "policy", "asked", "seconds"),
    [
        pytest.param(LATER, RecoveryPolicy(), "01", 0, id="says-when"),
        pytest.param(RATE_LIMIT, RecoveryPolicy(), "01", 0, id="too-often"),
        pytest.param(StatusError(503, retry_after="0"), RecoveryPolicy(), "001", 0, id="says-now"),
        pytest.param(LATER, RecoveryPolicy(wait=wait_fixed(1)), "001", 20, id="own-wait"),
        pytest.param(LATER, RecoveryPolicy(fallback_on=retry_if_fault("auth")), "00", 20, id="not-for-the-next"),
        pytest.param(RESET, RecoveryPolicy(fallback_on=retry_if_fault("auth")), "00", 0.5, id="nor-this"),
    ],
)
def test_who_asks_for_time_is_left_to_the_next_model(
    error: Exception, policy: RecoveryPolicy, asked: str, seconds: float
) -> None:
    process = Process([error, "Well."], policy)
    if asked.endswith("1"):
        assert process.answer() == asked
    else:
        with pytest.raises(StreamInterruptedError):
            process.answer()
        assert "".join(map(str, process.asked)) == asked
    assert process.now <= seconds
    assert (process.now > 0) == (seconds > 0)


def test_a_dead_primary_is_sent_five_requests_and_one_in_each_interval() -> None:
    process = Process([RESET, "Well."], RecoveryPolicy())
    requests = 0
    for number in range(1000):
        process.now = number / 10
        requests += process.answer().count("0")
        assert not any(attempt.waited for attempt in process.recovery.report.attempts)
    assert requests == 5 + 3, "in 100 seconds three intervals of 30 pass"


@pytest.mark.parametrize(
    "policy",
    [RecoveryPolicy(wait=wait_fixed(1)), RecoveryPolicy(stop=stop_after_attempt(2))],
    ids=["own-wait", "own-stop"],
)
def test_it_is_waited_for_where_the_user_says_so(policy: RecoveryPolicy) -> None:
    assert waited(Process([RESET, "Well."], policy)) == [False, True, False]


def test_the_last_one_is_waited_for() -> None:
    process = Process([RESET, RESET], RecoveryPolicy())
    with pytest.raises(StreamInterruptedError):
        process.answer()
    assert [attempt.waited > 0 for attempt in process.recovery.report.attempts] == [False, False, False, *[True] * 3]


def test_it_is_seen_in_the_report() -> None:
    process = Process([RESET, "Well."])
    process.answer()
    assert process.circuits == []
    process.answer()
    assert process.circuits == [("model 0", "open")]
    assert process.passed_over == []
    process.answer()
    assert process.passed_over == [("model 0", "circuit_open")]
    assert "model 0 was passed over: circuit open" in str(process.recovery.report)
    assert "| 1 model passed over" in repr(process.recovery.report)
    assert "1 model passed over" in process.recovery.report.to_svg()
    assert process.recovery.report.to_dict()["passed_over"][0]["reason"] == "circuit_open"
    process.now += 30
    process.answer()
    assert process.circuits == [("model 0", "half_open"), ("model 0", "open")]
    process.now += 30
    process.doing[0] = "Back."
    assert process.answer() == "0"
    assert process.circuits == [("model 0", "half_open"), ("model 0", "closed")]
    assert process.recovery.report.to_dict()["circuits"][0]["state"] == CircuitState.HALF_OPEN


def test_the_last_model_is_never_cut_off() -> None:
    process = Process([RESET, RESET])
    for _ in range(5):
        with pytest.raises(StreamInterruptedError):
            process.answer()
    assert process.asked == [1]


def test_a_model_alone_has_no_breaker() -> None:
    process = Process([RESET])
    for _ in range(5):
        with pytest.raises(StreamInterruptedError):
            process.answer()
    assert process.asked == [0]
    assert process.circuits == []
    assert process.learned[0].circuit.state is CircuitState.CLOSED


def test_the_last_that_can_be_asked_is_never_cut_off() -> None:
    process = Process([RESET, RESET, "Short."], unfit={2: lambda _: PassReason.NO_TOOLS})
    for _ in range(5):
        with pytest.raises(StreamInterruptedError):
            process.answer()
    assert process.asked == [1]
    assert process.passed_over == [("model 0", "circuit_open"), ("model 2", "no_tools")]


def test_none_switches_it_off() -> None:
    process = Process([RESET, "Well."], replace(QUICK, breaker=None))
    assert [process.answer() for _ in range(9)] == ["01"] * 9


def test_a_circuit_that_others_opened_ends_the_patience_with_a_model() -> None:
    process = Process([RESET, "Well."], replace(QUICK, stop=stop_after_attempt(9), wait=wait_fixed(1)))
    assert process.answer() == "001"
    assert process.now == 1, "nobody waits for a model that is not asked"


def test_a_delay_beyond_the_interval_is_waited_for() -> None:
    process = Process([RESET, "Well."], replace(QUICK, stop=stop_after_attempt(4), wait=wait_fixed(31)))
    assert process.answer() == "00001"


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        pytest.param(RESET, "1", id="transport"),
        pytest.param(StatusError(503), "1", id="server"),
        pytest.param(StatusError(529), "1", id="overloaded"),
        pytest.param(StatusError(429), "1", id="rate-limit"),
        pytest.param(StatusError(401), "1", id="auth"),
        pytest.param(TimeoutError("late"), "1", id="timeout"),
        pytest.param(StatusError(400), "01", id="bad-request"),
        pytest.param(KeyError("a bug of somebody"), "01", id="unknown"),
    ],
)
def test_which_faults_count(error: Exception, asked: str) -> None:
    process = Process([error, "Well."])
    for _ in range(2):
        process.answer()
    assert process.answer() == asked


def test_faults_that_the_user_keeps_to_one_model_do_not_count() -> None:
    process = Process([RESET, "Well."], replace(QUICK, fallback_on=retry_if_fault("rate_limit")))
    for _ in range(9):
        with pytest.raises(StreamInterruptedError):
            process.answer()
        assert process.asked == [0]


def test_an_answer_that_broke_off_shows_that_the_model_is_there() -> None:
    process = Process([RESET, "Well."], replace(QUICK, stop=stop_after_attempt(2)))
    for _ in range(6):
        recovery = Recovery(process.models(), process.policy, clock=lambda: 0.0)
        assert recovery.request.model == 0
        recovery.receive(Chunk("Once upon a time, ", progress=True))
        recovery.receive(Ended(RESET))
        assert recovery.request.model == 0, "it goes on where it was"


def test_a_probe_whose_reader_left_is_not_the_last_one() -> None:
    process = Process([RESET, "Well."])
    process.answer(), process.answer()
    process.now += 30
    recovery = Recovery(process.models(), process.policy, clock=lambda: process.now)
    assert recovery.request.model == 0
    recovery.cancel()
    assert process.answer() == "1"
    process.now += 30
    assert process.answer() == "01"


# What a model can take


def test_a_window_that_is_too_small_is_seen_before_the_model_is_asked() -> None:
    counted: list[int] = []

    def unfit(tokens: Callable[[], int]) -> PassReason | None:
        counted.append(tokens())
        return PassReason.CONTEXT_WINDOW if counted[-1] > 50 else None

    process = Process([RESET, "Short.", "Long."], unfit={1: unfit})
    assert process.answer(question_tokens=lambda: 51) == "02"
    assert process.passed_over == [("model 1", "context_window")]
    assert process.answer(question_tokens=lambda: 50) == "01"
    assert process.passed_over == []


def test_what_was_said_counts_too() -> None:
    def unfit(tokens: Callable[[], int]) -> PassReason | None:
        return PassReason.CONTEXT_WINDOW if tokens() > 50 else None

    process = Process([RESET, "Short."], unfit={1: unfit})
    recovery = Recovery(process.models(), QUICK, question_tokens=lambda: 40)
    assert recovery.request
    recovery.receive(Chunk("word " * 20, progress=True))
    recovery.receive(Ended(RESET))
    with pytest.raises(StreamInterruptedError):
        recovery.next_delay()
    assert [each.reason for each in recovery.report.passed_over] == ["context_window"]


def test_nothing_is_counted_for_a_healthy_answer() -> None:
    def never(tokens: Callable[[], int]) -> PassReason | None:
        raise AssertionError("nobody has to know")

    assert Process(["Well.", "Short."], unfit={1: never}).answer() == "0"


def test_a_model_with_nobody_fit_behind_it_has_the_patience_of_one_alone() -> None:
    policy = RecoveryPolicy(wait=wait_none())
    process = Process([RESET, "Short."], policy, unfit={1: lambda _: PassReason.NO_TOOLS})
    with pytest.raises(StreamInterruptedError):
        process.answer()
    assert process.asked == [0, 0, 0, 0]


# When all fail


@pytest.mark.parametrize(
    ("first", "second", "retryable"),
    [
        pytest.param(StatusError(503), StatusError(401), True, id="asking-later-may-help"),
        pytest.param(StatusError(401), StatusError(503), False, id="a-wrong-key-stays-wrong"),
        pytest.param(StatusError(400), RESET, False, id="a-bad-question-stays-bad"),
        pytest.param(RESET, KeyError("a bug"), True, id="what-a-fallback-trips-over-is-not-the-cause"),
    ],
)
@pytest.mark.parametrize("partial_text", ["", "Once upon a time, "])
def test_the_error_is_that_of_the_fault_that_began_it(
    first: Exception, second: Exception, retryable: bool, partial_text: str
) -> None:
    process = Process([first, second])
    with pytest.raises(StreamInterruptedError) as caught:
        process.answer(partial_text=partial_text)
    error, report = caught.value, process.recovery.report
    assert error.__cause__ is first
    assert error.retryable is report.retryable is retryable
    assert error.reason == report.reason == ("attempts" if retryable else "not_retryable")
    assert list(dict.fromkeys(attempt.model for attempt in report.attempts)) == ["model 0", "model 1"]
    assert all(attempt.detail for attempt in report.attempts)


def test_after_new_text_it_is_the_fault_that_came_after_it() -> None:
    process = Process(["", "", ""])
    recovery = Recovery(process.models(), QUICK)
    third = StatusError(503)
    for text, error in (("Once ", RESET), ("Once upon a time, ", third), ("", StatusError(401))):
        assert recovery.request
        if text:
            recovery.receive(Chunk(text, progress=True))
        recovery.receive(Ended(error))
    with pytest.raises(StreamInterruptedError) as caught:
        recovery.next_delay()
    assert caught.value.__cause__ is third
    assert caught.value.retryable
