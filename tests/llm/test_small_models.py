"""What small models do when they are asked to go on, on a real socket: the reader gets the text, or a warning."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM
from llama_index_resilient_stream.report import Certainty, StreamStatus
from llama_index_resilient_stream.testing import FAULTS, FaultServer
from llama_index_resilient_stream.testing.stray_styles import STRAYING
from support.readers import Reader, openai_like
from support.sdk_clients import needs_observed_sdk_clients

pytestmark = needs_observed_sdk_clients

LIST = (
    "Four things that a keeper of a lighthouse does, morning after morning:\n\n"
    "1. She winds the clockwork that turns the lamp, and oils it.\n"
    "2. She polishes the lens with a soft cloth until nothing is seen of it.\n"
    "3. She writes down the weather, and every ship that went by.\n"
    "4. She makes tea.\n"
)
LITANY = "Row the boat, row the boat,\nover the sea and home again.\n" * 5 + "And that was all."
CUTS = {"behind a word": (LIST, 41), "in a word": (LIST, 42), "in a text that repeats itself": (LITANY, 30)}
POLICY = RecoveryPolicy(wait=wait_none(), stop=stop_after_attempt(2))  # no patience for a second fault


@pytest.mark.parametrize("style", ["closing_mark", "shortened_anchor", "thoughts_first"])
@pytest.mark.parametrize(("text", "after"), CUTS.values(), ids=CUTS)
def test_what_stands_around_the_anchor_is_not_shown(
    reader: Reader, serve: Callable[..., FaultServer], text: str, after: int, style: str
) -> None:
    server = serve(text, [FAULTS["reset"].at(after)], continuation_style=style)
    result = reader(ResilientLLM(openai_like(server), policy=POLICY))
    assert result.text == result.whole == text
    assert (result.report.status, result.report.verified) == (StreamStatus.COMPLETE, True)


@pytest.mark.parametrize("style", sorted(STRAYING))
@pytest.mark.parametrize(("text", "after"), CUTS.values(), ids=CUTS)
def test_who_strays_is_asked_the_question_again(
    reader: Reader, serve: Callable[..., FaultServer], text: str, after: int, style: str
) -> None:
    server = serve(text, [FAULTS["reset"].at(after)], continuation_style=style)
    result = reader(ResilientLLM(openai_like(server), policy=POLICY))
    assert result.text == result.whole == text
    assert result.report.status is StreamStatus.COMPLETE
    if style != "next_number" or text == LIST:
        assert [str(attempt.strategy) for attempt in result.report.attempts] == ["first", "ask", "restart"]
        assert [joint.certainty for joint in result.report.joints] == [Certainty.ALIGNED]


@pytest.mark.parametrize("style", sorted(STRAYING - {"next_number"}))
def test_an_answer_from_which_every_continuation_strays_is_not_called_whole(
    reader: Reader, serve: Callable[..., FaultServer], style: str
) -> None:
    """Nor is the question answered in the same words again."""
    faults = [FAULTS["reset"].at(41), None, FAULTS["error_event"].at(3), None, None]
    policy = RecoveryPolicy(wait=wait_none(), stop=stop_after_attempt(1), on_exhausted="partial")
    server = serve(LIST, faults, continuation_style=style)
    result = reader(ResilientLLM(openai_like(server), policy=policy))
    assert LIST.startswith(result.text) or not result.report.verified
    assert result.report.status is not StreamStatus.COMPLETE or not result.report.verified


def test_a_new_turn_costs_no_patience_and_is_learned(reader: Reader, serve: Callable[..., FaultServer]) -> None:
    reset = FAULTS["reset"].at(41)
    styles = ["new_turn", "anchor", "anchor"]
    server = serve(LIST, [reset, None, None, reset], continuation_style=styles, owned_by="organization_owner")
    llm = ResilientLLM(openai_like(server), policy=POLICY)
    for tried in (["first", "prefill", "ask"], ["first", "ask"]):
        result = reader(llm)
        assert result.text == result.whole == LIST
        assert [str(attempt.strategy) for attempt in result.report.attempts] == tried
        assert (result.report.status, result.report.verified) == (StreamStatus.COMPLETE, True)
