"""The state machine, without any stream: events in, chunks and decisions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tenacity import (
    RetryCallState,
    stop_after_attempt,
    stop_after_delay,
    stop_any,
    stop_before_delay,
    stop_never,
    wait_chain,
    wait_combine,
    wait_exponential,
    wait_fixed,
    wait_none,
)

from llama_index_resilient_stream import RecoveryPolicy, StreamInterruptedError, StreamStatus
from llama_index_resilient_stream.recovery.continuation import Continuation
from llama_index_resilient_stream.recovery.events import Chunk, Ended, Learned, Model
from llama_index_resilient_stream.recovery.finish_reasons import FinishMeaning, FinishReason
from llama_index_resilient_stream.recovery.machine import Recovery
from llama_index_resilient_stream.recovery.usage import estimate_tokens

STOP = FinishReason(FinishMeaning.COMPLETE, "stop")
LENGTH = FinishReason(FinishMeaning.LENGTH, "length")
RESET = ConnectionResetError("reset")
NO_WAIT = RecoveryPolicy(wait=wait_none())
MODEL = Model("one", sends_finish_reason=True)


@pytest.fixture(autouse=True)
def nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test teaches of a model, its circuit breaker too, is unknown to the next one."""
    monkeypatch.setitem(globals(), "MODEL", Model("one", sends_finish_reason=True))


def fresh(**settings: Any) -> Model:
    """A model that has not taught anything yet."""
    return replace(MODEL, learned=Learned(), **settings)


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def feed(
    recovery: Recovery, *texts: str, end: Exception | None = None, reason: FinishReason | None = None
) -> list[Chunk]:
    """One attempt, from the request to its end."""
    assert recovery.request
    shown: list[Chunk] = []
    for text in texts:
        shown += recovery.receive(Chunk(text, progress=bool(text)))
    if reason is not None:
        shown += recovery.receive(Chunk("", finish_reason=reason))
    shown += recovery.receive(Ended(end))
    return shown


def text_of(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_a_complete_answer() -> None:
    recovery = Recovery([MODEL], NO_WAIT)
    assert text_of(feed(recovery, "Hello ", "world", reason=STOP)) == "Hello world"
    assert recovery.next_delay() is None
    assert recovery.over
    assert recovery.report.status is StreamStatus.COMPLETE
    assert recovery.answer == "Hello world"


def test_a_cut_is_continued_at_the_anchor() -> None:
    recovery = Recovery([MODEL], NO_WAIT)
    feed(recovery, "Once upon a ", "time", end=RESET)
    assert recovery.next_delay() == 0.0
    request = recovery.request
    assert request.strategy == "ask"
    assert [turn.role for turn in request.turns] == ["assistant", "user"]
    assert request.turns[0].text == "Once upon a time"
    assert "Once upon a time" in request.turns[1].text
    assert text_of(feed(recovery, "Once upon a t", "ime there was", reason=STOP)) == " there was"
    assert recovery.answer == "Once upon a time there was"


def test_an_attempt_begins_when_the_request_is_read() -> None:
    clock = Clock()
    recovery = Recovery([MODEL], replace(NO_WAIT, wait=wait_fixed(7)), clock=clock)
    feed(recovery, end=RESET)
    assert recovery.next_delay() == 7.0
    clock.now += 7
    assert len(recovery.report.attempts) == 1
    assert recovery.request
    assert [(a.started, a.waited) for a in recovery.report.attempts] == [(0.0, 0.0), (7.0, 7.0)]


def test_a_stream_left_during_the_back_off_made_no_further_attempt() -> None:
    recovery = Recovery([MODEL], replace(NO_WAIT, wait=wait_fixed(7)))
    feed(recovery, "Hi", end=RESET)
    recovery.cancel()
    assert recovery.report.status is StreamStatus.CANCELLED
    assert len(recovery.report.attempts) == 1
    recovery.cancel()  # leaving twice is leaving once
    assert recovery.report.status is StreamStatus.CANCELLED


def failures_until_given_up(policy: RecoveryPolicy, clock: Clock, models: int = 1, **kwargs: Any) -> list[float]:
    """The delays between attempts that all fail at once."""
    recovery = Recovery([replace(MODEL, name=str(i)) for i in range(models)], policy, clock=clock, **kwargs)
    delays = []
    while True:
        feed(recovery, end=RESET)
        try:
            delay = recovery.next_delay()
        except StreamInterruptedError as error:
            assert error.__cause__ is RESET  # noqa: PT017
            return delays
        assert delay is not None
        delays.append(delay)
        clock.now += delay


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        pytest.param(RecoveryPolicy(wait=wait_fixed(1)), [1, 1, 1], id="default-stop-is-four-failures"),
        pytest.param(RecoveryPolicy(stop=stop_after_attempt(1)), [], id="stop-after-one"),
        pytest.param(RecoveryPolicy(stop=stop_after_attempt(4), wait=wait_exponential(1)), [1, 2, 4], id="exponential"),
        pytest.param(RecoveryPolicy(stop=stop_after_delay(10), wait=wait_fixed(4)), [4, 4, 4], id="stop-after-delay"),
        pytest.param(RecoveryPolicy(stop=stop_before_delay(10), wait=wait_fixed(4)), [4, 4], id="stop-before-delay"),
        pytest.param(
            RecoveryPolicy(stop=stop_any(stop_after_attempt(9), stop_after_delay(3)), wait=wait_fixed(2)),
            [2, 2],
            id="either-of-two",
        ),
        pytest.param(
            RecoveryPolicy(
                stop=stop_after_attempt(3) | stop_after_delay(99), wait=wait_combine(wait_fixed(1), wait_fixed(2))
            ),
            [3, 3],
            id="operators",
        ),
        pytest.param(RecoveryPolicy(wait=wait_chain(wait_fixed(1), wait_fixed(5))), [1, 5, 5], id="chain"),
        pytest.param(RecoveryPolicy(stop=stop_never, wait=wait_fixed(1), max_attempts=6), [1] * 5, id="max-attempts"),
        pytest.param(RecoveryPolicy(stop=stop_never, wait=wait_fixed(3), deadline=10), [3, 3, 3], id="deadline"),
        pytest.param(
            RecoveryPolicy(
                stop=lambda state: state.attempt_number >= 2 and isinstance(state.outcome.exception(), OSError),
                wait=lambda state: state.attempt_number * 10.0,
            ),
            [10],
            id="plain-functions",
        ),
    ],
)
def test_tenacity_s_whole_vocabulary(policy: RecoveryPolicy, delays: list[float]) -> None:
    assert failures_until_given_up(policy, Clock()) == delays


def test_idle_time_and_the_upcoming_sleep_are_told() -> None:
    seen: list[tuple[int, float, float, float | None]] = []

    def stop(state: RetryCallState) -> bool:
        seen.append((state.attempt_number, state.seconds_since_start or 0, state.idle_for, state.upcoming_sleep))
        return state.attempt_number >= 3

    failures_until_given_up(RecoveryPolicy(stop=stop, wait=wait_fixed(2)), Clock())
    assert seen == [(1, 0.0, 0.0, 2.0), (2, 2.0, 2.0, 2.0), (3, 4.0, 4.0, 2.0)]


def test_progress_restarts_patience() -> None:
    recovery = Recovery([MODEL], RecoveryPolicy(stop=stop_after_attempt(2), wait=wait_none(), max_attempts=99))
    partial_text = ""
    for word in ["this", "answer", "is", "cut", "after", "each", "and", "every", "word", "of", "it"]:
        feed(recovery, partial_text[-80:] + word + " ", end=RESET)  # repeats everything: longer than any anchor
        partial_text += word + " "
        assert recovery.next_delay() == 0.0
    assert recovery.answer == partial_text
    feed(recovery, end=RESET)
    with pytest.raises(StreamInterruptedError):
        recovery.next_delay()


@pytest.mark.parametrize("empties", [1, 2, 5])
def test_clean_ends_without_a_word_are_faults_like_others(empties: int) -> None:
    policy = RecoveryPolicy(stop=stop_after_attempt(12), wait=wait_none())
    recovery = Recovery([MODEL], policy)
    feed(recovery, "Something was said", end=RESET)
    for _ in range(empties):
        feed(recovery, "")
    assert text_of(feed(recovery, "Something was said, and more.", reason=STOP)) == ", and more."
    assert recovery.report.status is StreamStatus.COMPLETE


def test_with_a_fallback_behind_it_a_model_gets_two_failures() -> None:
    assert len(failures_until_given_up(NO_WAIT, Clock(), models=3)) == 2 + 2 + 4 - 1


def test_a_fallback_goes_on_in_the_middle_of_an_answer() -> None:
    recovery = Recovery([MODEL, Model("two", sends_finish_reason=True)], NO_WAIT)
    feed(recovery, "The first half ", end=RESET)  # progress, and a first failure
    feed(recovery, end=RESET)
    request = recovery.request
    assert request.model == 1
    assert request.strategy == "ask"
    assert text_of(feed(recovery, "The first half and the second", reason=STOP)) == "and the second"
    assert recovery.report.models == ["one", "two"]
    assert [attempt.model for attempt in recovery.report.attempts] == ["one", "one", "two"]


def test_a_fatal_error_goes_to_the_fallback_at_once() -> None:
    class Unauthorized(Exception):
        status_code = 401

    recovery = Recovery([MODEL, Model("two", sends_finish_reason=True)], NO_WAIT)
    feed(recovery, end=Unauthorized())
    assert recovery.next_delay() == 0.0
    assert recovery.request.model == 1


@pytest.mark.parametrize("fallbacks", [0, 1])
def test_a_long_retry_after_moves_on_to_the_next_model(fallbacks: int) -> None:
    class Busy(Exception):
        status_code = 429
        headers = {"retry-after": "90"}  # noqa: RUF012

    recovery = Recovery([MODEL, replace(MODEL, name="two")][: fallbacks + 1], NO_WAIT)
    feed(recovery, end=Busy())
    assert recovery.next_delay() == (0.0 if fallbacks else 60.0)
    assert recovery.request.model == fallbacks


def test_the_output_limit_shrinks_by_what_was_said() -> None:
    recovery = Recovery([MODEL], NO_WAIT)
    feed(recovery, *["word " * 4] * 200, end=RESET)
    assert 180 <= recovery.request.spent_tokens <= 200  # a chunk has at least a token


def test_few_chunks_take_little_of_the_output_limit() -> None:
    recovery = Recovery([MODEL], NO_WAIT)
    feed(recovery, "supercalifragilistic " * 20, end=RESET)
    assert recovery.request.spent_tokens == 0


def test_tokens_are_counted_by_the_users_counter() -> None:
    recovery = Recovery([MODEL], NO_WAIT, count_tokens=lambda text: len(text.split()), question_tokens=lambda: 1000)
    feed(recovery, *(f"word{number} " for number in range(50)), end=RESET)
    sent = 50 + len(MODEL.continuation.turns(recovery.answer)[1].text.split())
    assert recovery.report.extra_tokens == 1000 + sent


def test_extra_tokens_are_a_budget() -> None:
    said = "word " * 20
    price = 100 + estimate_tokens("".join(turn.text for turn in MODEL.continuation.turns(said)))
    recovery = Recovery([MODEL], replace(NO_WAIT, max_extra_tokens=price + 50), question_tokens=lambda: 100)
    feed(recovery, said, end=RESET)
    assert recovery.next_delay() == 0.0
    feed(recovery, end=RESET)
    with pytest.raises(StreamInterruptedError) as caught:
        recovery.next_delay()
    assert caught.value.reason == "extra_tokens"
    assert recovery.report.extra_tokens == price


def test_a_plain_retry_costs_the_question_alone() -> None:
    recovery = Recovery([MODEL], NO_WAIT, question_tokens=lambda: 100)
    feed(recovery, end=RESET)
    assert recovery.report.extra_tokens == 100


def test_partial_text_instead_of_an_error() -> None:
    recovery = Recovery([MODEL], replace(NO_WAIT, stop=stop_after_attempt(1), on_exhausted="partial"))
    shown = feed(recovery, "Half an ans", end=RESET)
    assert recovery.next_delay() is None
    assert text_of(shown) == "Half an ans"
    assert shown[-1].payload is None
    assert recovery.report.status is StreamStatus.INTERRUPTED


def test_text_held_back_is_shown_before_giving_up() -> None:
    recovery = Recovery([MODEL], replace(NO_WAIT, stop=stop_after_attempt(2), unverified="show"))
    feed(recovery, "The quick brown fox jumps over the lazy dog", end=RESET)
    assert recovery.request
    recovery.receive(Chunk(" Su", progress=True))  # may become a courtesy, may be new
    shown = [*recovery.receive(Ended(RESET))]
    feed(recovery, end=RESET)
    with pytest.raises(StreamInterruptedError):
        recovery.next_delay()
    assert recovery.answer.startswith("The quick brown fox jumps over the lazy dog")
    assert recovery.answer.endswith(text_of(shown))


# Turns with tools or structured output


def test_a_restart_that_tells_the_same_shows_only_what_is_new() -> None:
    recovery = Recovery([MODEL], NO_WAIT, restart_only=True)
    feed(recovery, "Let me look ", "that up", end=RESET)
    assert recovery.request.strategy == "restart"
    assert not recovery.request.turns
    shown = feed(recovery, "Let me ", "look that", " up for you", reason=STOP)
    assert text_of(shown) == " for you"
    assert recovery.answer == "Let me look that up for you"
    assert recovery.report.resets == 0


@pytest.mark.parametrize(
    ("retold", "shown"),
    [
        (("Let me ask ", "somebody"), "\n\nLet me ask somebody"),
        (("Let me",), "\n\nLet me"),
        ((), "\n\n"),
        (("No.",), "\n\nNo."),
    ],
    ids=["differs-midway", "shorter", "silent", "differs-at-once"],
)
def test_a_restart_that_tells_it_differently_is_announced_once(retold: tuple[str, ...], shown: str) -> None:
    recovery = Recovery([MODEL], NO_WAIT, restart_only=True)
    feed(recovery, "Let me look that up", end=RESET)
    chunks = feed(recovery, *retold, reason=STOP)
    assert text_of(chunks) == shown
    assert [chunk.reset for chunk in chunks].count(True) == 1
    assert recovery.answer == "".join(retold)
    assert recovery.report.resets == 1
    assert recovery.report.characters == len("".join(retold))


def test_after_a_reset_the_new_telling_is_the_one_to_be_retold() -> None:
    recovery = Recovery([MODEL], NO_WAIT, restart_only=True)
    feed(recovery, "First telling", end=RESET)
    feed(recovery, "Second telling", end=RESET)
    assert text_of(feed(recovery, "Second telling, whole", reason=STOP)) == ", whole"
    assert recovery.report.resets == 1


def test_a_tool_call_turns_continuing_into_restarting() -> None:
    recovery = Recovery([MODEL], NO_WAIT)
    assert recovery.request
    recovery.receive(Chunk("I will pay. ", progress=True))
    recovery.receive(Chunk("", progress=True, tools="pay:5"))
    recovery.receive(Chunk("", progress=True, tools="pay:9"))
    recovery.receive(Ended(RESET))
    assert recovery.request.strategy == "restart"


@pytest.mark.parametrize(
    ("prints", "status"),
    [
        (["pay:9"], StreamStatus.UNKNOWN),
        (["pay:9", "pay:9"], StreamStatus.UNKNOWN),
        (["pay:9", "pay:9|ask:4"], StreamStatus.UNKNOWN),
        (["pay:4", "pay:9"], StreamStatus.STREAMING),
        (["pay:4", "pay:9", "pay:9|ask:4"], StreamStatus.STREAMING),
    ],
    ids=["whole", "repeated", "two-whole", "in-pieces", "in-pieces-and-whole"],
)
def test_a_call_that_came_whole_counts_as_closed_in_a_class_that_never_tells(
    prints: list[str], status: StreamStatus
) -> None:
    recovery = Recovery([replace(MODEL, sends_finish_reason=False)], NO_WAIT)
    assert recovery.request
    for tools in prints:
        recovery.receive(Chunk("", progress=True, tools=tools))
    recovery.receive(Ended())
    assert recovery.report.status is status


# The watchdogs' limits, and other details


def test_limits_before_and_after_the_first_progress_and_after_the_end() -> None:
    recovery = Recovery([replace(MODEL, first_token_timeout=60.0)], replace(NO_WAIT, idle_timeout=20.0))
    assert recovery.request
    assert recovery.attempt.limit == 60.0
    recovery.receive(Chunk(""))  # a role header is no progress
    assert recovery.attempt.limit == 60.0
    recovery.receive(Chunk("", progress=True))  # a thought is
    assert recovery.attempt.limit == 20.0
    recovery.receive(Chunk("Word", progress=True))
    recovery.receive(Chunk("", finish_reason=STOP))
    assert recovery.attempt.limit == 5.0


def test_wait_is_not_shortened_before_the_first_token() -> None:
    recovery = Recovery([fresh(first_token_timeout=60.0)], replace(NO_WAIT, idle_timeout=20.0))
    assert recovery.request
    recovery.receive(Chunk("", finish_reason=STOP))
    assert recovery.attempt.limit == 60.0
    recovery.receive(Chunk("", progress=True, finish_reason=STOP))  # a thought
    assert recovery.attempt.limit == 20.0
    recovery.receive(Chunk("Word", progress=True, finish_reason=STOP))
    assert recovery.attempt.limit == 20.0


def test_wait_is_restored_after_a_finish_reason() -> None:
    recovery = Recovery([fresh()], replace(NO_WAIT, idle_timeout=20.0))
    assert recovery.request
    recovery.receive(Chunk("One ", progress=True))
    recovery.receive(Chunk("", finish_reason=STOP))
    recovery.receive(Chunk("two ", progress=True))
    assert recovery.attempt.limit == 20.0
    recovery.receive(Chunk("", finish_reason=STOP))
    assert recovery.attempt.limit == 20.0  # the word is not trusted any more


def test_an_error_after_the_finish_signal_is_no_fault() -> None:
    recovery = Recovery([MODEL], NO_WAIT)
    feed(recovery, "All is said.", reason=STOP, end=RESET)
    assert recovery.report.status is StreamStatus.COMPLETE
    assert not recovery.report.faults


def test_a_finish_word_that_lies_proves_nothing() -> None:
    liar = Model("liar", sends_finish_reason=False, untrusted_finish_reasons=frozenset({"stop"}))
    recovery = Recovery([liar], NO_WAIT)
    feed(recovery, "Perhaps whole", reason=STOP)
    assert recovery.report.status is StreamStatus.UNKNOWN
    assert not liar.learned.sends_finish_reason


def test_a_later_signal_only_upgrades() -> None:
    recovery = Recovery([MODEL], NO_WAIT)
    assert recovery.request
    recovery.receive(Chunk("Text", progress=True, finish_reason=STOP))
    recovery.receive(Chunk("", finish_reason=LENGTH))
    recovery.receive(Chunk("", finish_reason=STOP))
    recovery.receive(Ended())
    assert recovery.report.status is StreamStatus.LENGTH


def test_own_retries_of_the_client_count_before_the_first_token() -> None:
    model = replace(MODEL, own_retries=3)
    recovery = Recovery([model], replace(NO_WAIT, stop=stop_never, max_attempts=8))
    feed(recovery, end=RESET)
    assert recovery.report.requests == 4
    feed(recovery, end=RESET)
    with pytest.raises(StreamInterruptedError):
        recovery.next_delay()
    assert recovery.report.requests == 8


def test_a_restart_is_what_the_user_asked_for() -> None:
    recovery = Recovery([Model("one", Continuation("restart"), sends_finish_reason=True)], NO_WAIT)
    feed(recovery, "Once upon", end=RESET)
    assert recovery.request.strategy == "restart"
    assert text_of(feed(recovery, "Once upon a time", reason=STOP)) == " a time"


def test_taken_up_again_from_a_partial_text() -> None:
    recovery = Recovery([MODEL], NO_WAIT, partial_text="The text so far")
    assert recovery.request.strategy == "ask"
    assert text_of(feed(recovery, "The text so far and on", reason=STOP)) == " and on"
    assert recovery.answer == "The text so far and on"
