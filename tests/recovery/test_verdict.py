"""What ends a stream, and what does not: chunks and an end in, an outcome out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import RecoveryPolicy, StreamInterruptedError
from llama_index_resilient_stream.errors import ErrorBodyError
from llama_index_resilient_stream.policy import StreamEnd
from llama_index_resilient_stream.recovery.continuation import Continuation
from llama_index_resilient_stream.recovery.events import Chunk, Ended, Learned, Model
from llama_index_resilient_stream.recovery.finish_reasons import FinishMeaning, FinishReason, meaning_of
from llama_index_resilient_stream.recovery.machine import Recovery

RESET = ConnectionResetError("reset")
WRONG = TypeError("can only concatenate str (not 'list') to str")
STOP = FinishReason(FinishMeaning.COMPLETE, "stop")
TOOL = FinishReason(FinishMeaning.TOOL, "tool_calls")
LENGTH = FinishReason(FinishMeaning.LENGTH, "length")
FILTER = FinishReason(FinishMeaning.FILTER, "content_filter")
ODD = FinishReason(FinishMeaning.UNKNOWN, "weird_word")
PAUSE = FinishReason(FinishMeaning.PAUSE, "pause_turn")
ERROR = FinishReason(FinishMeaning.ERROR, "error")
WHOLE, CUT, TWO_WHOLE, SECOND_CUT, BARE = "pay:10", "pay:9…", "pay:10|pay:11", "pay:10|pay:4…", "pay:0"


def text(delta: str, reason: FinishReason | None = None) -> Chunk:
    return Chunk(delta, progress=True, finish_reason=reason)


def thought(reason: FinishReason | None = None) -> Chunk:
    return Chunk("", progress=True, finish_reason=reason)


def calls(print_: str, reason: FinishReason | None = None) -> Chunk:
    return Chunk("", progress=True, tools=print_, finish_reason=reason)


def word(reason: FinishReason | None = None) -> Chunk:
    return Chunk("", finish_reason=reason)


@dataclass
class Case:
    """One attempt and its outcome: a status, or the kind of the fault."""

    chunks: list[Chunk]
    outcome: str
    end: Ended = field(default_factory=Ended)
    sends: bool | None = True
    untrusted: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


def stamped(*deltas: str, reason: FinishReason = STOP) -> list[Chunk]:
    return [text(delta, reason) for delta in deltas]


BROKEN = Ended(RESET)
CASES = {
    "stop": Case([text("Hi"), word(STOP)], "complete"),
    "stop-on-the-last-text": Case([text("Hi "), text("there", STOP)], "complete"),
    "stop-then-reset": Case([text("Hi"), word(STOP)], "complete", BROKEN),
    "length": Case([text("Hi"), word(LENGTH)], "length"),
    "filter": Case([text("Hi"), word(FILTER)], "filtered"),
    "stop-then-length": Case([text("Hi"), word(STOP), word(LENGTH)], "length"),
    "error-word": Case([text("Hi"), word(ERROR)], "error_finish"),
    "error-that-passes": Case([text("Hi"), word(meaning_of("response.failed: rate_limit_exceeded"))], "rate_limit"),
    "error-that-stays": Case([text("Hi"), word(meaning_of("response.failed: insufficient_quota"))], "quota"),
    "error-of-the-window": Case([text("Hi"), word(meaning_of("error: context_length_exceeded"))], "length"),
    "error-that-is-a-filter": Case([text("Hi"), word(meaning_of("failed: content_policy_violation"))], "filtered"),
    "pause-is-no-end": Case([text("Hi"), word(PAUSE)], "truncated"),
    "silent": Case([text("Hi")], "truncated"),
    "silent-in-a-class-that-never-tells": Case([text("Hi")], "unknown", sends=False),
    "silent-terminated": Case([text("Hi")], "truncated", Ended(terminated=True)),
    "silent-terminated-nobody-knows": Case([text("Hi")], "complete", Ended(terminated=True), sends=None),
    "silent-terminated-in-a-class-that-never-tells": Case(
        [text("Hi")], "complete", Ended(terminated=True), sends=False
    ),
    "silent-not-terminated-in-a-class-that-never-tells": Case(
        [text("Hi")], "truncated", Ended(terminated=False), sends=False
    ),
    "reset-in-a-class-that-never-tells": Case([text("Hi")], "transport", BROKEN, sends=False),
    "reset-behind-the-terminator": Case([text("Hi")], "complete", Ended(RESET, True), sends=False),
    # a reason that more followed
    "stamped-then-reset": Case(stamped("a", "b", "c"), "transport", BROKEN),
    "stamped-once-then-reset": Case(stamped("a"), "transport", BROKEN),
    "stamped-clean": Case(stamped("a", "b", "c"), "unknown"),
    "stamped-clean-and-terminated": Case(stamped("a", "b"), "complete", Ended(terminated=True)),
    "stamped-clean-not-terminated": Case(stamped("a", "b"), "truncated", Ended(terminated=False)),
    "stamped-learned-before": Case([text("a", STOP)], "unknown", untrusted=("stop",)),
    "stamped-learned-then-reset": Case([text("a"), word(STOP)], "transport", BROKEN, untrusted=("stop",)),
    "stamped-then-length": Case([*stamped("a", "b"), word(LENGTH)], "length"),
    "stamped-length-then-reset": Case(stamped("a", "b", reason=LENGTH), "transport", BROKEN),
    "stamped-length-clean": Case(stamped("a", "b", reason=LENGTH), "length"),
    "stamped-length-terminated": Case(stamped("a", "b", reason=LENGTH), "length", Ended(terminated=True)),
    "stamped-length-not-terminated": Case(stamped("a", "b", reason=LENGTH), "truncated", Ended(terminated=False)),
    "stamped-filter-then-reset": Case(stamped("a", "b", reason=FILTER), "transport", BROKEN),
    "stamped-filter-clean": Case(stamped("a", "b", reason=FILTER), "filtered"),
    "text-after-length": Case([text("a"), word(LENGTH), text("b")], "unknown"),
    "stop-on-thoughts-then-cut": Case([thought(STOP), thought(STOP), text("Hi")], "truncated"),
    "stop-before-the-text": Case([word(STOP), text("Hi"), word(STOP)], "unknown"),
    "words-after-stop": Case([text("a"), word(STOP), text("b")], "unknown"),
    "words-after-stop-then-reset": Case([text("a"), word(STOP), text("b")], "transport", BROKEN),
    "words-after-stop-terminated": Case([text("a"), word(STOP), text("b")], "complete", Ended(terminated=True)),
    # words that nobody knows
    "unknown-word": Case([text("Hi"), word(ODD)], "unknown"),
    "unknown-word-then-reset": Case([text("Hi"), word(ODD)], "transport", BROKEN),
    # calls
    "call": Case([calls(WHOLE), word(TOOL)], "complete"),
    "call-in-pieces": Case([calls(CUT), calls(WHOLE), word(TOOL)], "complete"),
    "call-without-arguments": Case([calls(BARE), word(TOOL)], "complete"),
    "call-under-stop": Case([calls(WHOLE), word(STOP)], "complete"),
    **{
        f"{name}-under-{reason.word}": Case([calls(print_), word(reason)], "truncated")
        for name, print_ in {"cut-call": CUT, "second-call-cut": SECOND_CUT}.items()
        for reason in (TOOL, STOP, ODD, LENGTH)
    },
    "call-in-pieces-without-a-word": Case([calls(CUT), calls(WHOLE)], "truncated", sends=False),
    "cut-call-stamped": Case([calls(CUT, TOOL), calls(SECOND_CUT, TOOL)], "truncated"),
    # what passed by on the wire
    "filter-on-the-wire": Case([text("Hi")], "filtered", Ended(finish_reason=FILTER)),
    "filter-on-the-wire-alone": Case([], "filtered", Ended(finish_reason=FILTER)),
    "stop-on-the-wire": Case([text("Hi")], "complete", Ended(finish_reason=STOP)),
    "stop-on-the-wire-untrusted": Case([text("Hi")], "truncated", Ended(finish_reason=STOP), untrusted=("stop",)),
    "stop-on-the-wire-then-reset": Case([text("Hi")], "complete", Ended(RESET, True, STOP)),
    "stop-on-the-wire-before-the-first-word-failed": Case([], "corrupt", Ended(WRONG, True, STOP, answered=True)),
    "stop-on-the-wire-behind-an-event-that-failed": Case([text("Hi")], "corrupt", Ended(WRONG, True, STOP)),
    "stop-on-the-wire-behind-an-error": Case([text("Hi")], "server", Ended(ErrorBodyError({"error": "x"}), True, STOP)),
    "length-on-the-wire-behind-an-event-that-failed": Case([text("Hi")], "corrupt", Ended(WRONG, True, LENGTH)),
    "stop-on-the-very-event-that-failed": Case(
        [text("Hi"), text(" you")], "complete", Ended(WRONG, True, STOP, events_before_reason=2)
    ),
    "length-on-the-very-event-that-failed": Case(
        [text("Hi")], "length", Ended(WRONG, True, LENGTH, events_before_reason=1)
    ),
    "stop-behind-another-event-that-failed": Case(
        [text("Hi")], "corrupt", Ended(WRONG, True, STOP, events_before_reason=2)
    ),
    "filter-on-an-event-that-failed": Case([text("Hi")], "filtered", Ended(WRONG, True, FILTER)),
    "failed-in-front-of-the-terminator": Case([text("Hi")], "corrupt", Ended(WRONG, True), sends=False),
    "usage-behind-stop-failed": Case([text("Hi"), word(STOP)], "complete", Ended(WRONG, True, STOP)),
    "failed-over-an-answer": Case([], "corrupt", Ended(WRONG, answered=True)),
    "failed-before-an-answer": Case([], "unknown", Ended(WRONG)),
    # empty answers and refusals
    "empty": Case([word(STOP)], "empty"),
    "empty-accepted": Case([word(STOP)], "complete", settings={"policy": RecoveryPolicy(empty="accept")}),
    "empty-after-a-tool": Case([word(STOP)], "complete", settings={"answers_tool_result": True}),
    "empty-whole": Case([word(STOP)], "empty", settings={"streamed": False}),
    "empty-whole-after-a-tool": Case(
        [word(STOP)], "complete", settings={"streamed": False, "answers_tool_result": True}
    ),
    "nothing-at-all": Case([], "truncated"),
    "refusal": Case([Chunk("", refusal="I can"), Chunk("", refusal="not."), word(STOP)], "filtered"),
    "refusal-without-a-word": Case([Chunk("", refusal="No.")], "filtered", sends=False),
    # called, not streamed
    "whole": Case([text("Hi", STOP)], "complete", settings={"streamed": False}),
    "whole-without-a-word": Case([text("Hi")], "unknown", settings={"streamed": False}),
    "whole-cut-call": Case([calls(CUT, TOOL)], "truncated", settings={"streamed": False}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_outcome_of_an_attempt(case: Case) -> None:
    learned = Learned(untrusted_finish_reasons=set(case.untrusted))
    settings = {"policy": RecoveryPolicy(stop=stop_after_attempt(9), wait=wait_none()), **case.settings}
    recovery = Recovery([Model("m", sends_finish_reason=case.sends, learned=learned)], **settings)
    assert recovery.request
    for chunk in case.chunks:
        recovery.receive(chunk)
    recovery.receive(case.end)
    attempt = recovery.report.attempts[0]
    assert (attempt.fault or recovery.report.status) == case.outcome


def test_a_cut_call_is_never_taken_for_whole_however_often_it_comes() -> None:
    recovery = Recovery([Model("m", sends_finish_reason=True)], RecoveryPolicy(wait=wait_none()))
    for _ in range(4):
        assert recovery.request
        recovery.receive(calls(CUT))
        recovery.receive(word(TOOL))
        recovery.receive(Ended())
    with pytest.raises(StreamInterruptedError, match="Incomplete stream response"):
        recovery.next_delay()


@pytest.mark.parametrize("sends", [True, False])
def test_an_empty_answer_is_asked_for_again_once(sends: bool) -> None:
    recovery = Recovery([Model("m", sends_finish_reason=sends)], RecoveryPolicy(wait=wait_none()))
    for _ in range(2):
        assert recovery.request
        recovery.receive(word(STOP))
        recovery.receive(Ended())
    assert recovery.next_delay() is None
    assert recovery.report.status == "complete"
    assert recovery.report.faults == ["empty"]


def test_a_refusal_is_in_the_report() -> None:
    recovery = Recovery([Model("m", sends_finish_reason=True)], RecoveryPolicy())
    assert recovery.request
    recovery.receive(Chunk("", refusal="I cannot help"))
    recovery.receive(Chunk("", refusal=" with that."))
    recovery.receive(word(STOP))
    recovery.receive(Ended())
    assert recovery.report.refusal == "I cannot help with that."


@pytest.mark.parametrize(
    ("answer", "reason", "says", "outcome"),
    [
        ("ends with </done>", None, True, "complete"),
        ("half of it", STOP, False, "truncated"),
        ("left to the rules", STOP, None, "complete"),
        ("left to the rules", None, None, "truncated"),
    ],
)
def test_completeness_as_a_function(answer: str, reason: FinishReason | None, says: bool | None, outcome: str) -> None:
    ends: list[StreamEnd] = []

    def whole(end: StreamEnd) -> bool | None:
        ends.append(end)
        return says

    recovery = Recovery([Model("m", sends_finish_reason=True)], RecoveryPolicy(completeness=whole, wait=wait_none()))
    assert recovery.request
    recovery.receive(text(answer))
    if reason:
        recovery.receive(word(reason))
    recovery.receive(Ended())
    assert (recovery.report.attempts[0].fault or recovery.report.status) == outcome
    assert ends == [StreamEnd(answer, reason.word if reason else None, None)]


@pytest.mark.parametrize("sends", [True, False, None])
@pytest.mark.parametrize("repeated", [1, 7, 20])
def test_a_continuation_cut_inside_the_repeated_anchor_shows_nothing_of_it(sends: bool | None, repeated: int) -> None:
    said = "One two three four five six seven eight nine ten eleven twel"
    rest = "ve thirteen fourteen."
    recovery = Recovery([Model("m", sends_finish_reason=sends)], RecoveryPolicy(wait=wait_none()))
    assert recovery.request
    shown = list(recovery.receive(text(said)))
    shown += recovery.receive(BROKEN)
    anchor = recovery.request.turns and Continuation().anchor(said)
    assert anchor
    shown += recovery.receive(text(anchor[:repeated]))
    shown += recovery.receive(Ended())
    assert recovery.request
    shown += recovery.receive(text(anchor + rest))
    shown += recovery.receive(word(STOP))
    shown += recovery.receive(Ended())
    assert "".join(chunk.text for chunk in shown) == said + rest
