"""The table of states: every transition is drawn, and every one is walked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import RecoveryPolicy
from llama_index_resilient_stream.recovery import machine
from llama_index_resilient_stream.recovery.continuation import Continuation
from llama_index_resilient_stream.recovery.events import Chunk, Ended, Model
from llama_index_resilient_stream.recovery.finish_reasons import FinishMeaning, FinishReason
from llama_index_resilient_stream.recovery.machine import Recovery
from llama_index_resilient_stream.recovery.states import TRANSITIONS, State, Step
from llama_index_resilient_stream.report import Strategy

STOP = FinishReason(FinishMeaning.COMPLETE, "stop")
LENGTH = FinishReason(FinishMeaning.LENGTH, "length")
RESET = ConnectionResetError("reset")
ONCE = RecoveryPolicy(stop=stop_after_attempt(1), wait=wait_none())
TWICE = RecoveryPolicy(stop=stop_after_attempt(2), wait=wait_none())
ONE = Model("one", sends_finish_reason=True)
TWO = Model("two", sends_finish_reason=True)

Setup = Callable[[], Recovery]


class Refused(Exception):
    status_code = 400


def ready(policy: RecoveryPolicy = TWICE, *models: Model) -> Recovery:
    return Recovery(models or (ONE,), policy)


def streaming(policy: RecoveryPolicy = TWICE, *models: Model, text: str = "Some text ") -> Recovery:
    recovery = ready(policy, *models)
    assert recovery.request
    recovery.receive(Chunk(text, progress=True))
    return recovery


def waiting(policy: RecoveryPolicy = TWICE, *models: Model) -> Recovery:
    recovery = streaming(policy, *models)
    recovery.receive(Ended(RESET))
    return recovery


def continuing_by_prefill() -> Recovery:
    recovery = waiting(TWICE, Model("one", Continuation(Strategy.PREFILL), sends_finish_reason=True))
    assert recovery.request.strategy is Strategy.PREFILL
    return recovery


def ended_by(reason: FinishReason) -> Callable[[Recovery], object]:
    def end(recovery: Recovery) -> None:
        recovery.receive(Chunk("", finish_reason=reason))
        recovery.receive(Ended())

    return end


WALKS: dict[tuple[State, Step], tuple[Setup, Callable[[Recovery], object]]] = {
    (State.READY, Step.ASK): (ready, lambda recovery: recovery.request),
    (State.STREAMING, Step.CHUNK): (streaming, lambda recovery: recovery.receive(Chunk("more", progress=True))),
    (State.STREAMING, Step.FINISH): (streaming, ended_by(STOP)),
    (State.STREAMING, Step.CONTINUE): (lambda: streaming(replace(ONCE, continue_on_length=1)), ended_by(LENGTH)),
    (State.STREAMING, Step.DESCEND): (continuing_by_prefill, lambda recovery: recovery.receive(Ended(Refused()))),
    (State.STREAMING, Step.REPLAY): (streaming, lambda recovery: recovery.receive(Ended(RESET, kept=True))),
    (State.STREAMING, Step.RETRY): (streaming, lambda recovery: recovery.receive(Ended(RESET))),
    (State.STREAMING, Step.FALL_BACK): (lambda: streaming(ONCE, ONE, TWO), lambda r: r.receive(Ended(RESET))),
    (State.STREAMING, Step.GIVE_UP): (lambda: streaming(ONCE), lambda recovery: recovery.receive(Ended(RESET))),
    (State.WAITING, Step.ASK): (waiting, lambda recovery: recovery.request),
    (State.READY, Step.CANCEL): (ready, lambda recovery: recovery.cancel()),
    (State.STREAMING, Step.CANCEL): (streaming, lambda recovery: recovery.cancel()),
    (State.WAITING, Step.CANCEL): (waiting, lambda recovery: recovery.cancel()),
}


@pytest.mark.parametrize("transition", TRANSITIONS, ids=lambda transition: "-".join(transition))
def test_every_transition_is_walked(transition: tuple[State, Step], monkeypatch: pytest.MonkeyPatch) -> None:
    setup, move = WALKS[transition]
    recovery = setup()
    before, step = transition
    assert recovery.state is before
    taken: list[Step] = []
    monkeypatch.setattr(recovery, "_go", lambda step: (taken.append(step), Recovery._go(recovery, step)))
    move(recovery)
    assert recovery.state is TRANSITIONS[transition]
    assert taken == ([] if step is Step.CHUNK else [step])  # once a token, without a look at the table


ARCHITECTURE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", [machine.__doc__ or "", ARCHITECTURE], ids=["docstring", "page"])
def test_the_diagram_shows_the_table(text: str) -> None:
    drawn = re.findall(r"^    (\w+) +--(\w+)-+> +(\w+)", text, re.MULTILINE)
    assert {(State(before), Step(step)): State(after) for before, step, after in drawn} == TRANSITIONS
    assert len(drawn) == len(TRANSITIONS)


def test_no_step_leads_out_of_the_end() -> None:
    assert all(before is not State.OVER for before, _ in TRANSITIONS)
    recovery = streaming()
    recovery.cancel()
    with pytest.raises(AssertionError, match="over cannot ask"):
        assert recovery.request
