"""Thoughts at the beginning of a continuation: skipped however long they are, in pieces of any size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_resilient_stream.recovery.continuation import Continuation
from llama_index_resilient_stream.recovery.seam import Seam
from llama_index_resilient_stream.recovery.seam.thoughts import MARKS
from llama_index_resilient_stream.report import Strategy

SAID = "The ferry leaves at nine. Sit on the left side and look for the"
REST = " lighthouse after twenty minutes."
ANCHOR = Continuation().anchor(SAID)
THOUGHT = "They were interrupted and want me to go on from the last words. "


def joined(said: str, continuation: str, *, size: int = 3, strategy: Strategy = Strategy.ASK) -> str:
    """What a reader sees of this continuation."""
    seam = Seam(said, Continuation(strategy).anchor(said), strategy=strategy)
    shown = "".join(seam.feed(continuation[at : at + size]) for at in range(0, len(continuation), size))
    return shown + seam.finish(complete=True)


@pytest.mark.parametrize("repeats", [0, 1, 40], ids=["empty", "short", "long"])
@pytest.mark.parametrize("gap", ["\n\n", "\n", "", " \n"], ids=repr)
@pytest.mark.parametrize(("opening", "closing"), MARKS, ids=[opening for opening, _ in MARKS])
def test_a_thought_is_skipped(opening: str, closing: str, gap: str, repeats: int) -> None:
    continuation = f"{opening}\n{THOUGHT * repeats}\n{closing}{gap}{ANCHOR}{REST}"
    assert joined(SAID, continuation) == REST


@pytest.mark.parametrize("lead", ["", "\n", " "], ids=repr)
def test_what_goes_on_exactly_behind_a_thought_keeps_its_space(lead: str) -> None:
    assert joined(SAID, f"{lead}<think>hm</think>\n\n{REST}") == REST


@pytest.mark.parametrize("repeats", [1, 40])
def test_a_thought_without_an_opening_mark_is_skipped_where_the_answer_had_one(repeats: int) -> None:
    said = f"{THOUGHT}</think>\n\n{SAID}"
    assert joined(said, f"{THOUGHT * repeats}</think>\n\n{ANCHOR}{REST}") == REST


def test_an_open_thought_is_closed_once() -> None:
    said = "<think>The user asks about the ferry, so"
    shown = joined(said, f"<think>{THOUGHT}</think>\n\nThe ferry leaves at nine.")
    assert (said + shown).count("<think>") == (said + shown).count("</think>") == 1
    assert shown.endswith("The ferry leaves at nine.")


@pytest.mark.parametrize(
    "said",
    ["Write the tag `", "```html\n<p>\n", "The tags are `<a>` and `"],
    ids=["inline", "fence", "second-inline"],
)
def test_marks_that_are_quoted_are_the_answers_own(said: str) -> None:
    assert joined(said, "<think>` around it</think>") == "<think>` around it</think>"


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("said", "rest"),
    [
        pytest.param("◁", "think▷", id="cut in a mark"),
        pytest.param("<", "think> is a tag.", id="cut behind its first character"),
        pytest.param("<think> is the tag", " that DeepSeek uses.", id="a text that begins with a mark"),
        pytest.param("<think>I see, so", " it is nine.</think>\n\nAt nine.", id="the answer's own thought"),
        pytest.param("Use </think> to close", " it. Then <p>.", id="a closing mark in the anchor"),
        pytest.param("[THINK", "] opens, [/THINK] closes.", id="both marks in the rest"),
    ],
)
def test_an_answer_about_marks_goes_on_exactly(said: str, rest: str, size: int) -> None:
    assert joined(said, said + rest, size=size) == rest


@pytest.mark.parametrize("said", ["<", "<think> is the tag"])
def test_a_thought_before_an_anchor_that_looks_like_one_is_skipped(said: str) -> None:
    shown = joined(said, f"◁think▷hm◁/think▷\n{said} and more.")
    assert shown.endswith(" and more.")
    assert "hm" not in shown


def test_an_anchor_that_is_cut_and_looks_like_a_thought_is_a_repeat_that_is_not_over() -> None:
    said = "<think> is the tag"
    seam = Seam(said, Continuation().anchor(said), strategy=Strategy.ASK)
    assert seam.feed(said[:12]) == ""
    assert seam.is_repeating
    assert seam.finish(complete=False) == ""
    assert seam.leftover == ""


def test_marks_later_in_a_continuation_are_the_answers_own() -> None:
    assert joined(SAID, f"{ANCHOR} word <think> and </think>.") == " word <think> and </think>."


@pytest.mark.parametrize("strategy", [Strategy.APPEND])
def test_where_a_model_only_writes_on_nothing_is_skipped(strategy: Strategy) -> None:
    assert joined(SAID, "<think>a</think> b", strategy=strategy) == "<think>a</think> b"


def test_a_thought_that_is_cut_shows_nothing_and_is_no_end() -> None:
    seam = Seam(SAID, ANCHOR, strategy=Strategy.ASK)
    assert seam.feed("<think>" + THOUGHT * 20) == ""
    assert seam.is_repeating
    assert seam.finish(complete=False) == ""
    assert not seam.leftover
    assert seam.dropped > 1000


@given(size=st.integers(1, 60), thought=st.text(max_size=50), rest=st.text(min_size=1, max_size=40))
def test_thoughts_in_pieces_of_any_size(size: int, thought: str, rest: str) -> None:
    if "<" not in thought and max([*thought, *rest, ""]) < "\ud800":
        assert joined(SAID, f"<think>{thought}</think>\n\n{ANCHOR}{rest}", size=size) == rest


@pytest.mark.parametrize("halves", ["\ud83d\ude00", "\ud83d"], ids=["pair", "lone"])
def test_an_answer_told_again_without_what_came_in_halves_is_not_shown_twice(halves: str) -> None:
    assert joined(SAID + halves, SAID + REST) == REST
