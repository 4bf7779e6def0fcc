"""What a served answer consists of, in the order in which it is sent.

TextPart*  RecoveryPart*  ...  EndPart
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EndReason(StrEnum):
    """Why an answer ended that is not whole, where serving it was the reason. Otherwise a `GiveUpReason` says."""

    ERROR = "error"
    """The application's own code failed; the log says how."""
    SERVER = "server"
    """The server shut down."""
    TOO_LONG = "too_long"
    """It has more parts than `Generations(limit=...)` allows."""
    NOT_RESUMABLE = "not_resumable"
    """Its reader came back, and it was served without `resumable`."""
    WORKER_LOST = "worker_lost"
    """The process that was at work on it is gone."""
    STORE_LOST = "store_lost"
    """The store has forgotten parts of it."""
    STORE_UNREACHABLE = "store_unreachable"
    """The store could not be reached for longer than `Generations(grace=...)`."""


LOST = "lost"
"""The status of an answer that was to be resumed, and cannot be."""
EXPIRED = "expired"
"""The status of an answer that is not kept any more, or never was."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class RecoveryPart:
    """An attempt failed, and another one begins."""

    attempt: int
    """Counts from 1, so the first recovery is attempt 2."""
    reason: str
    """The kind of the fault, as in `FaultEvent.kind`."""


@dataclass(frozen=True, slots=True)
class EndPart:
    """The last part of every answer."""

    status: str
    """A `StreamStatus`, `LOST` or `EXPIRED`."""
    reason: str = ""
    retryable: bool = False


Part = TextPart | RecoveryPart | EndPart
