"""Which way to continue is tried first, and what follows where a joint or an end cannot be trusted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from openai.types.chat import ChatCompletionChunk
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import RecoveryPolicy, StreamInterruptedError
from llama_index_resilient_stream.providers import SERVERS, server_of
from llama_index_resilient_stream.recovery.continuation import Continuation
from llama_index_resilient_stream.recovery.ending import is_unfinished
from llama_index_resilient_stream.recovery.events import Chunk, Ended, Learned, Model
from llama_index_resilient_stream.recovery.finish_reasons import FinishMeaning, FinishReason
from llama_index_resilient_stream.recovery.machine import Recovery
from llama_index_resilient_stream.report import Certainty, FaultKind, GiveUpReason, StreamStatus

STOP = FinishReason(FinishMeaning.COMPLETE, "stop")
LENGTH = FinishReason(FinishMeaning.LENGTH, "length")
RESET = ConnectionResetError("reset")
POLICY = RecoveryPolicy(wait=wait_none(), stop=stop_after_attempt(3))
PARTIAL = "The keeper of the lighthouse is called Ada Morn, and she"
REST = " lives there alone."
ANEW = "The keeper of the lighthouse is called Ada. She is old and has a cat that she loves."
OTHERWISE = "Long ago there lived a woman by the sea, and nobody knew her name."


def model(**settings: Any) -> Model:
    return Model("one", sends_finish_reason=True, learned=Learned(), **settings)


def local() -> Model:
    return model(prefills_on=SERVERS)


def answer(
    recovery: Recovery, text: str, *, reason: FinishReason | None = STOP, server: str | None = None, cut: bool = False
) -> str:
    """One attempt. Returns what the reader sees of it."""
    assert recovery.request
    shown = [*recovery.receive(Chunk(text, progress=True, server=server))] if text else []
    if recovery.streaming and reason is not None and not cut:
        shown += recovery.receive(Chunk("", finish_reason=reason))
    if recovery.streaming:
        shown += recovery.receive(Ended(RESET if cut else None))
    return "".join(chunk.text for chunk in shown)


def cut_after(recovery: Recovery, text: str = PARTIAL, server: str | None = None) -> None:
    assert answer(recovery, text, server=server, cut=True) == text
    assert recovery.next_delay() is not None


def tell_otherwise(recovery: Recovery) -> None:
    """The question is asked again, and answered in other words: nothing of that is shown."""
    assert (recovery.request.strategy, recovery.request.turns) == ("restart", ())
    assert answer(recovery, OTHERWISE) == ""
    assert recovery.next_delay() in (0, None)


def strategies(recovery: Recovery) -> list[str]:
    return [str(attempt.strategy) for attempt in recovery.report.attempts]


# Unverified joints


def test_an_unverified_joint_is_asked_for_again_with_a_longer_anchor() -> None:
    recovery = Recovery([model()], POLICY)
    cut_after(recovery, PARTIAL * 3)
    short = recovery.request.turns[-1].text
    assert [*recovery.receive(Chunk(" Something else entirely was written here by it.", progress=True))] == []
    assert recovery.report.attempts[-1].fault is FaultKind.UNVERIFIED_JOINT
    assert recovery.next_delay() == 0
    tell_otherwise(recovery)
    again = recovery.request.turns[-1].text
    assert len(again) > len(short)
    anchor = again.rsplit("\n\n", 1)[1]
    assert "".join(chunk.text for chunk in recovery.receive(Chunk(anchor + REST, progress=True))) == REST
    recovery.receive(Chunk("", finish_reason=STOP))
    recovery.receive(Ended())
    assert recovery.report.status is StreamStatus.COMPLETE
    assert [joint.certainty for joint in recovery.report.joints] == [Certainty.VERIFIED]
    assert recovery.report.verified


def test_an_unverified_joint_on_the_last_rung_is_shown_and_flagged() -> None:
    recovery = Recovery([model()], POLICY)
    cut_after(recovery)
    assert answer(recovery, REST) == ""
    assert recovery.next_delay() == 0
    tell_otherwise(recovery)
    assert answer(recovery, REST) == REST
    assert recovery.report.status is StreamStatus.COMPLETE
    assert not recovery.report.verified


def test_who_was_asked_in_vain_may_tell_the_answer_again() -> None:
    recovery = Recovery([model()], POLICY)
    cut_after(recovery)
    assert answer(recovery, REST) == ""
    assert recovery.next_delay() == 0
    assert (recovery.request.strategy, recovery.request.turns, recovery.request.spent_tokens) == ("restart", (), 0)
    assert answer(recovery, PARTIAL + REST) == REST
    assert recovery.report.status is StreamStatus.COMPLETE
    assert [(joint.strategy, joint.certainty) for joint in recovery.report.joints] == [("restart", Certainty.ALIGNED)]


def sent_again(recovery: Recovery) -> int:
    return recovery.report.extra_tokens - recovery.report.wasted_tokens


def test_telling_it_again_sends_nothing_but_the_question() -> None:
    recovery = Recovery([model(continuation=Continuation("restart"))], POLICY, question_tokens=lambda: 1000)
    cut_after(recovery)
    assert sent_again(recovery) == 1000
    recovery = Recovery([model()], POLICY, question_tokens=lambda: 1000)
    cut_after(recovery)
    asked = sent_again(recovery)
    assert answer(recovery, REST) == ""
    assert recovery.next_delay() == 0
    assert (recovery.request.strategy, sent_again(recovery) - asked) == ("restart", 1000)


def test_an_answer_that_lost_its_end_only_is_whole_when_it_is_told_again() -> None:
    recovery = Recovery([model()], POLICY)
    cut_after(recovery, "That is all there is to say.")
    add_nothing(recovery, "That is all there is to say.", 2)
    assert (strategies(recovery), recovery.report.status) == (["first", "ask", "restart"], StreamStatus.COMPLETE)


@pytest.mark.parametrize("said", ["0", "茶是一", PARTIAL])
def test_what_is_told_again_goes_on_however_little_was_shown(said: str) -> None:
    recovery = Recovery([model()], POLICY)
    cut_after(recovery, said)
    add_nothing(recovery, said, 1)
    assert answer(recovery, said + REST) == REST
    assert recovery.report.status is StreamStatus.COMPLETE


@pytest.mark.parametrize("told", ["", PARTIAL[:20], "Ada", PARTIAL.upper()])
def test_what_is_told_otherwise_is_not_shown(told: str) -> None:
    recovery = Recovery([model()], POLICY)
    cut_after(recovery)
    add_nothing(recovery, PARTIAL, 1)
    assert answer(recovery, told) == ""
    assert recovery.next_delay() == 0
    assert recovery.request.strategy == "ask"


def test_who_tells_it_again_up_to_the_limit_is_asked_in_another_way() -> None:
    recovery = Recovery([model()], POLICY)
    cut_after(recovery)
    assert answer(recovery, PARTIAL[:40], reason=LENGTH) == ""
    assert recovery.next_delay() == 0
    assert answer(recovery, PARTIAL + REST, reason=LENGTH) == REST
    assert recovery.report.status is StreamStatus.LENGTH


def test_who_only_tells_it_again_up_to_the_limit_was_cut_by_the_limit() -> None:
    recovery = Recovery([model()], POLICY)
    cut_after(recovery)
    for told in (PARTIAL[:40], OTHERWISE, PARTIAL[:40]):
        assert answer(recovery, told, reason=LENGTH) == ""
        assert recovery.next_delay() in (0, None)
    assert (recovery.report.status, recovery.answer) == (StreamStatus.LENGTH, PARTIAL)


@pytest.mark.parametrize(("said", "told"), [("0", "0"), (PARTIAL, PARTIAL[:1]), (PARTIAL, PARTIAL), (PARTIAL, "It")])
def test_what_is_told_again_and_cut_is_not_shown(said: str, told: str) -> None:
    recovery = Recovery([model()], replace(POLICY, max_attempts=3))
    cut_after(recovery, said)
    assert answer(recovery, OTHERWISE[:20]) == ""
    recovery.next_delay()
    assert recovery.request.strategy == "restart"
    assert answer(recovery, told, cut=True) == ""
    assert (recovery.over, recovery.answer) == (True, said)


def test_an_unverified_joint_is_shown_at_once_where_the_policy_says_so() -> None:
    recovery = Recovery([model()], replace(POLICY, unverified="show"))
    cut_after(recovery)
    assert answer(recovery, REST) == REST
    assert strategies(recovery) == ["first", "ask"]
    assert not recovery.report.verified


@pytest.mark.parametrize("unverified", ["retry", "show"])
def test_a_new_beginning_that_differs_is_never_shown(unverified: Any) -> None:
    recovery = Recovery([model()], replace(POLICY, unverified=unverified))
    cut_after(recovery)
    for _ in range(3):
        assert answer(recovery, ANEW) == ""
        assert recovery.over or recovery.next_delay() == 0
    with pytest.raises(StreamInterruptedError) as caught:
        recovery.next_delay()
    assert caught.value.partial_text == PARTIAL
    assert recovery.report.reason is GiveUpReason.UNVERIFIED_JOINT


def test_a_new_beginning_goes_to_the_next_model() -> None:
    recovery = Recovery([model(), replace(model(), name="two")], POLICY)
    cut_after(recovery)
    for _ in range(3):
        assert answer(recovery, ANEW) == ""
        recovery.next_delay()
    assert recovery.model.name == "two"


def test_what_goes_on_after_the_limit_and_begins_anew_ends_with_the_limit() -> None:
    recovery = Recovery([model()], replace(POLICY, continue_on_length=3))
    answer(recovery, PARTIAL, reason=LENGTH)
    for _ in range(2):
        recovery.next_delay()
        assert answer(recovery, ANEW, reason=LENGTH) == ""
    assert recovery.next_delay() is None
    assert recovery.report.status is StreamStatus.LENGTH
    assert recovery.answer == PARTIAL


def test_what_was_held_back_when_the_answer_was_given_up_is_flagged() -> None:
    recovery = Recovery([model()], POLICY)
    cut_after(recovery)
    assert [answer(recovery, "keep", cut=True) for _ in range(2) if recovery.next_delay() is not None] == ["", "keep"]
    assert recovery.report.status is StreamStatus.INTERRUPTED
    assert not recovery.report.verified
    assert [joint.certainty for joint in recovery.report.joints] == [Certainty.UNVERIFIED]


# Servers that write on


def test_a_server_that_shows_who_it_is_is_given_the_text_as_it_stands() -> None:
    recovery = Recovery([local()], POLICY)
    cut_after(recovery, PARTIAL + ":\n\n", server="llama.cpp")
    assert recovery.request.strategy == "prefill"
    assert [turn.text for turn in recovery.request.turns] == [PARTIAL + ":\n\n"]
    recovery.receive(Chunk("- one", progress=True))
    recovery.receive(Chunk("", finish_reason=STOP))
    recovery.receive(Ended())
    assert recovery.answer == PARTIAL + ":\n\n- one"
    assert [joint.certainty for joint in recovery.report.joints] == [Certainty.VERIFIED]


def test_a_server_that_shows_who_it_is_while_it_is_asked_is_given_the_text_next() -> None:
    known = local()
    recovery = Recovery([known], POLICY)
    cut_after(recovery)
    assert recovery.request.strategy == "ask"
    recovery.receive(Chunk(ANEW, progress=True, server="llama.cpp"))
    assert recovery.next_delay() == 0
    assert recovery.request.strategy == "prefill"
    assert not known.learned.refused_strategies


@pytest.mark.parametrize("known_at_the_cut", [True, False])
def test_no_way_to_continue_is_tried_twice_as_it_was(known_at_the_cut: bool) -> None:
    """Whether the server shows who it is before the cut, or only when it is asked."""
    recovery = Recovery([local()], POLICY)
    cut_after(recovery, server="ollama" if known_at_the_cut else None)
    asked: list[Any] = []
    while not recovery.over and len(asked) < 9:
        asked.append((recovery.request.strategy, recovery.request.turns))
        recovery.receive(Chunk(ANEW, progress=True, server="ollama"))
    assert sorted(strategy for strategy, _ in asked) == ["ask", "ask", "prefill", "restart"]
    assert len(set(asked)) == 4


def test_the_users_own_way_to_continue_stands() -> None:
    recovery = Recovery([model(continuation=Continuation("ask"))], POLICY)
    cut_after(recovery, server="llama.cpp")
    assert recovery.request.strategy == "ask"


def test_a_new_turn_where_a_continuation_was_expected_is_learned() -> None:
    known = local()
    recovery = Recovery([known], POLICY)
    cut_after(recovery, server="ollama")
    assert answer(recovery, ANEW) == ""
    assert recovery.next_delay() == 0
    assert recovery.request.strategy == "ask"
    later = Recovery([known], POLICY)
    cut_after(later)
    assert later.request.strategy == "ask"


@pytest.mark.parametrize(
    ("raw", "server"),
    [
        ({"system_fingerprint": "b4719-0f2bbe65"}, "llama.cpp"),
        ({"system_fingerprint": "b0-unknown"}, "llama.cpp"),
        ({"system_fingerprint": "fp_ollama"}, "ollama"),
        ({"system_fingerprint": "3.0.1-sha-bb9095a"}, "tgi"),
        ({"system_fingerprint": "2.4.0-dev0-native"}, "tgi"),
        ({"system_fingerprint": "2.4.0-preview"}, None),
        ({"system_fingerprint": "fp_44709d6fcb"}, None),
        ({"system_fingerprint": None, "choices": []}, None),
        (None, None),
    ],
)
def test_servers_are_recognized_by_their_chunks(raw: Any, server: str | None) -> None:
    assert server_of(raw) == server


def test_a_server_is_recognized_by_a_field_that_openai_does_not_have() -> None:
    choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": None}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    theirs = ChatCompletionChunk.model_validate({**chunk, "choices": [{**choice, "matched_stop": None}]})
    openai = ChatCompletionChunk.model_validate({**chunk, "choices": [choice]})
    assert (server_of(theirs), server_of(openai)) == ("sglang", None)


# Ends that are none


ENDS = [
    "That is all there is.",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "1. Bread is baked.\n",
    "founded in 1945.",
    '{"a": 1}',
]
HALVES = [
    "2. Choose a",
    "It is (as far as",
    "```py\nprint(1)",
    "and then she said,",
    "| a | b |\n|---|---|",
    "2. a\n3.",
]
NOTHING = {
    "the anchor": "{text}",
    "nothing at all": "",
    "the anchor and a line break": "{text}\n",
    "the anchor in quotation marks": '"{text}"',
    "the anchor between marks": "<<<{text}>>>",
    "a courtesy and the anchor": "Sure! Here is the rest:\n\n{text}",
}


def add_nothing(recovery: Recovery, text: str, rounds: int) -> None:
    for _ in range(rounds):
        assert not answer(recovery, text).strip()
        assert recovery.next_delay() in (0, None)


@pytest.mark.parametrize("nothing", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("cut_text", [*ENDS, *HALVES])
def test_what_adds_nothing_when_asked_is_asked_once_more_and_then_unknown(cut_text: str, nothing: str) -> None:
    recovery = Recovery([model()], POLICY)
    cut_after(recovery, cut_text)
    for _ in range(2):
        assert recovery.request.strategy == "ask"
        assert not answer(recovery, nothing.replace("{text}", recovery.answer)).strip()
        assert recovery.next_delay() in (0, None)
        if not recovery.over:
            tell_otherwise(recovery)
    assert recovery.report.status is StreamStatus.UNKNOWN
    assert strategies(recovery) == ["first", "ask", "restart", "ask"]
    assert recovery.answer.strip() == cut_text.strip()


def test_who_never_says_that_it_is_done_is_asked_once_more_too() -> None:
    recovery = Recovery([replace(model(), sends_finish_reason=False)], POLICY)
    cut_after(recovery, "That is all there is.")
    for _ in range(2):
        assert answer(recovery, "That is all there is.", reason=None) == ""
        assert recovery.next_delay() in (0, None)
        if not recovery.over:
            tell_otherwise(recovery)
    assert (recovery.report.status, len(recovery.report.attempts)) == (StreamStatus.UNKNOWN, 4)


@pytest.mark.parametrize("cut_text", [*ENDS, *HALVES])
def test_the_second_way_may_tell_the_rest(cut_text: str) -> None:
    recovery = Recovery([model()], POLICY)
    cut_after(recovery, cut_text)
    add_nothing(recovery, cut_text, 1)
    tell_otherwise(recovery)
    assert answer(recovery, cut_text + " And more.") == " And more."
    assert recovery.report.status is StreamStatus.COMPLETE


@pytest.mark.parametrize("cut_text", ENDS)
def test_a_server_that_writes_on_is_believed_where_a_text_can_end(cut_text: str) -> None:
    recovery = Recovery([local()], POLICY)
    cut_after(recovery, cut_text, server="llama.cpp")
    add_nothing(recovery, "", 1)
    assert recovery.report.status is StreamStatus.COMPLETE
    assert strategies(recovery) == ["first", "prefill"]


@pytest.mark.parametrize("cut_text", ENDS)
def test_a_completion_model_is_believed_where_a_text_can_end(cut_text: str) -> None:
    recovery = Recovery([model(continuation=Continuation("append"))], POLICY)
    cut_after(recovery, cut_text)
    add_nothing(recovery, "", 1)
    assert (recovery.report.status, len(recovery.report.attempts)) == (StreamStatus.COMPLETE, 2)


@pytest.mark.parametrize("cut_text", HALVES)
def test_a_server_that_writes_on_is_not_believed_in_the_middle(cut_text: str) -> None:
    recovery = Recovery([local()], POLICY)
    cut_after(recovery, cut_text, server="llama.cpp")
    add_nothing(recovery, "", 1)
    add_nothing(recovery, cut_text, 1)
    tell_otherwise(recovery)
    add_nothing(recovery, cut_text, 1)
    assert recovery.report.status is StreamStatus.UNKNOWN
    assert strategies(recovery) == ["first", "prefill", "ask", "restart", "ask"]


def test_a_server_that_may_write_on_is_not_believed() -> None:
    recovery = Recovery([local()], POLICY)
    cut_after(recovery, "That is all there is.", server="ollama")
    add_nothing(recovery, "", 1)
    add_nothing(recovery, "That is all there is.", 1)
    assert recovery.report.status is StreamStatus.UNKNOWN
    assert strategies(recovery) == ["first", "prefill", "ask"]


@pytest.mark.parametrize(("cut_text", "asked"), [("2. Choose a", ["one"] * 4 + ["two"] * 3),
                                                 ("That is all.", ["one"] * 4)])  # fmt: skip
def test_half_a_sentence_is_taken_to_the_next_model(cut_text: str, asked: list[str]) -> None:
    recovery = Recovery([model(), replace(model(), name="two")], POLICY)
    cut_after(recovery, cut_text)
    while recovery.state != "over":
        add_nothing(recovery, OTHERWISE if recovery.request.strategy == "restart" else cut_text, 1)
    assert recovery.report.status is StreamStatus.UNKNOWN
    assert [attempt.model for attempt in recovery.report.attempts] == asked


def test_new_text_makes_up_for_a_continuation_that_added_nothing() -> None:
    recovery = Recovery([local()], POLICY)
    cut_after(recovery, "One thing.", server="ollama")
    add_nothing(recovery, "", 1)
    assert answer(recovery, "One thing. Two things.", cut=True) == " Two things."
    assert recovery.next_delay() is not None
    add_nothing(recovery, "One thing. Two things.", 1)
    tell_otherwise(recovery)
    add_nothing(recovery, "One thing. Two things.", 1)
    assert strategies(recovery) == ["first", "prefill", "ask", "ask", "restart", "ask"]


@pytest.mark.parametrize("budget", [{"max_attempts": 2}, {"max_extra_tokens": 60}])
def test_another_way_is_bounded_by_the_budgets(budget: dict[str, int]) -> None:
    recovery = Recovery([model()], replace(POLICY, **budget))
    cut_after(recovery, "That is all there is.")
    add_nothing(recovery, "That is all there is.", 1)
    assert (recovery.report.status, len(recovery.report.attempts)) == (StreamStatus.UNKNOWN, 2)


def test_what_the_users_own_function_calls_whole_is_whole() -> None:
    recovery = Recovery([model()], replace(POLICY, completeness=lambda end: end.text.endswith("END") or None))
    cut_after(recovery, "That is all. END")
    add_nothing(recovery, "That is all. END", 1)
    assert (recovery.report.status, len(recovery.report.attempts)) == (StreamStatus.COMPLETE, 2)


def test_what_adds_nothing_after_the_limit_ends_with_the_limit() -> None:
    recovery = Recovery([model()], replace(POLICY, continue_on_length=3))
    answer(recovery, PARTIAL, reason=LENGTH)
    recovery.next_delay()
    add_nothing(recovery, PARTIAL, 2)
    assert recovery.report.status is StreamStatus.LENGTH


@pytest.mark.parametrize(
    ("text", "unfinished"),
    [
        ("That is all.", False),
        ("Is it?", False),
        ("终わり。", False),
        ('He said "no."', False),
        ("**Done.**", False),
        ("(That is all)", False),
        ("```py\nprint(1)\n```", False),
        ("| a | b |\n|---|---|\n| 1 | 2 |", False),
        ("| a | b |\n|---|---|", True),
        ("| --- |", True),
        ("One.\n2.", True),
        ("It is 3.", False),
        ("", False),
        ("2. Choose a", True),
        ("The keeper of the l", True),
        ("which,", True),
        ("as follows:", True),
        ("It is (as far. ", True),
        ("```py\nprint(1)\n", True),
        ('{"a": [1, 2', True),
    ],
)
def test_a_text_that_can_end_where_it_ends(text: str, unfinished: bool) -> None:
    assert is_unfinished(text) is unfinished
