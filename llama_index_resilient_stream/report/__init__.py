"""What happened to one answer: numbers and words for people, logs and dashboards. Never prompt text, never keys."""

from .stream_report import (
    Attempt,
    Certainty,
    CircuitChange,
    CircuitState,
    FaultKind,
    GiveUpReason,
    JoinDecision,
    Joint,
    PassedOver,
    PassReason,
    Strategy,
    StreamReport,
    StreamStatus,
)

__all__ = [
    "Attempt",
    "Certainty",
    "CircuitChange",
    "CircuitState",
    "FaultKind",
    "GiveUpReason",
    "JoinDecision",
    "Joint",
    "PassReason",
    "PassedOver",
    "Strategy",
    "StreamReport",
    "StreamStatus",
]
