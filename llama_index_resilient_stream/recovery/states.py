"""The states of an answer and the steps between them, as a table. `machine.py` draws it."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where an answer is."""

    READY = "ready"
    STREAMING = "streaming"
    WAITING = "waiting"
    OVER = "over"


class Step(StrEnum):
    """What moves an answer from one state to another."""

    ASK = "ask"
    CHUNK = "chunk"
    FINISH = "finish"
    CONTINUE = "continue"
    DESCEND = "descend"
    REPLAY = "replay"
    RETRY = "retry"
    FALL_BACK = "fall_back"
    GIVE_UP = "give_up"
    CANCEL = "cancel"


TRANSITIONS: dict[tuple[State, Step], State] = {
    (State.READY, Step.ASK): State.STREAMING,
    (State.STREAMING, Step.CHUNK): State.STREAMING,
    (State.STREAMING, Step.FINISH): State.OVER,
    (State.STREAMING, Step.CONTINUE): State.WAITING,
    (State.STREAMING, Step.DESCEND): State.WAITING,
    (State.STREAMING, Step.REPLAY): State.WAITING,
    (State.STREAMING, Step.RETRY): State.WAITING,
    (State.STREAMING, Step.FALL_BACK): State.WAITING,
    (State.STREAMING, Step.GIVE_UP): State.OVER,
    (State.WAITING, Step.ASK): State.STREAMING,
    (State.READY, Step.CANCEL): State.OVER,
    (State.STREAMING, Step.CANCEL): State.OVER,
    (State.WAITING, Step.CANCEL): State.OVER,
}
