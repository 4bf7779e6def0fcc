"""Which way to continue is tried first, and what follows where a joint or an end cannot be trusted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
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


def model(**settings: Any) -> Model:
    return Model("one", sends_finish_reason=True, learned=Learned(), **settings)


def local(server: str, **settings: Any) -> Model:
    return model(prefills_on=SERVERS, **settings)


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
    assert answer(recovery, REST) == REST
    assert recovery.report.status is StreamStatus.COMPLETE
    assert not recovery.report.verified


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
    assert answer(recovery, ANEW) == ""
    recovery.next_delay()
    assert answer(recovery, ANEW) == ""
    with pytest.raises(StreamInterruptedError) as caught:
        recovery.next_delay()
    assert caught.value.partial_text == PARTIAL
    assert recovery.report.reason is GiveUpReason.UNVERIFIED_JOINT


def test_a_new_beginning_goes_to_the_next_model() -> None:
    recovery = Recovery([model(), replace(model(), name="two")], POLICY)
    cut_after(recovery)
    for _ in range(2):
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


# Servers that write on


def test_a_server_that_shows_who_it_is_is_given_the_text_as_it_stands() -> None:
    recovery = Recovery([local("llama.cpp")], POLICY)
    cut_after(recovery, PARTIAL + ":\n\n", server="llama.cpp")
    assert recovery.request.strategy == "prefill"
    assert [turn.text for turn in recovery.request.turns] == [PARTIAL + ":\n\n"]
    recovery.receive(Chunk("- one", progress=True))
    recovery.receive(Chunk("", finish_reason=STOP))
    recovery.receive(Ended())
    assert recovery.answer == PARTIAL + ":\n\n- one"
    assert [joint.certainty for joint in recovery.report.joints] == [Certainty.VERIFIED]


def test_a_server_that_shows_who_it_is_while_it_is_asked_is_given_the_text_next() -> None:
    known = local("llama.cpp")
    recovery = Recovery([known], POLICY)
    cut_after(recovery)
    assert recovery.request.strategy == "ask"
    recovery.receive(Chunk(ANEW, progress=True, server="llama.cpp"))
    assert recovery.next_delay() == 0
    assert recovery.request.strategy == "prefill"
    assert not known.learned.refused_strategies


def test_the_users_own_way_to_continue_stands() -> None:
    recovery = Recovery([model(continuation=Continuation("ask"))], POLICY)
    cut_after(recovery, server="llama.cpp")
    assert recovery.request.strategy == "ask"


def test_a_new_turn_where_a_continuation_was_expected_is_learned() -> None:
    known = local("ollama")
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
        ({"system_fingerprint": "2.4.0-dev0-native"}, None),
        ({"system_fingerprint": "fp_44709d6fcb"}, None),
        ({"system_fingerprint": None, "choices": []}, None),
        ({"choices": [{"model_extra": {"matched_stop": None}}]}, "sglang"),
        (None, None),
    ],
)
def test_servers_are_recognized_by_their_chunks(raw: Any, server: str | None) -> None:
    assert server_of(raw) == server


# Ends that are none


@pytest.mark.parametrize("cut_text", ["2. Choose a", "It is (as far as", "```py\nprint(1)", "and then she said,"])
def test_half_a_sentence_to_which_nothing_was_added_is_no_end(cut_text: str) -> None:
    recovery = Recovery([model()], POLICY)
    cut_after(recovery, cut_text)
    for _ in range(2):
        assert answer(recovery, cut_text) == ""
        recovery.next_delay()
    assert recovery.report.status is StreamStatus.UNKNOWN
    assert strategies(recovery) == ["first", "ask", "ask"]


def test_a_whole_sentence_to_which_nothing_was_added_is_an_end() -> None:
    recovery = Recovery([model()], POLICY)
    cut_after(recovery, "That is all there is.")
    assert answer(recovery, "That is all there is.") == ""
    assert recovery.next_delay() is None
    assert recovery.report.status is StreamStatus.COMPLETE


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
