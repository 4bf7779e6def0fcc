"""What happened to one answer: numbers and words for people, logs and dashboards. Never prompt text, never keys."""

from .stream_report import (
    Attempt,
    Certainty,
    FaultKind,
    GiveUpReason,
    JoinDecision,
    Joint,
    Strategy,
    StreamReport,
    StreamStatus,
)

__all__ = [
    "Attempt",
    "Certainty",
    "FaultKind",
    "GiveUpReason",
    "JoinDecision",
    "Joint",
    "Strategy",
    "StreamReport",
    "StreamStatus",
]
