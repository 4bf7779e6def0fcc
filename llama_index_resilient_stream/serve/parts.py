"""What a served answer consists of, in the order in which it is sent.

    SourcesPart?  (ThinkingPart | TextPart | ToolCallPart | ToolResultPart | RecoveryPart | ...)*  UsagePart?  EndPart

A turn is what the model says at a stretch: it begins with the answer, and again after each tool's result. A `ResetPart`
takes back what the turn has shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from ..errors import ConfigurationError


class EndReason(StrEnum):
    """Why an answer ended that is not whole, where serving it was the reason. Otherwise a `GiveUpReason` says."""

    ERROR = "error"
    """The application's own code failed; the log says how."""
    REFUSED = "refused"
    """The application raised its framework's HTTP error: `EndPart.code` and `EndPart.detail` are those of it."""
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
    STORE_FULL = "store_full"
    """The store had no room for longer than `Generations(grace=...)`."""
    ANOTHER_WORKER = "another_worker"
    """It is kept in the memory of another process: several of them need a `RedisStore`."""


LOST = "lost"
"""The status of an answer that was to be resumed, and cannot be."""
EXPIRED = "expired"
"""The status of an answer that is not kept any more, or never was."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingPart:
    """A piece of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """The model calls a tool, which the application runs."""

    id: str
    name: str
    arguments: Any = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """What a tool answered. A turn ends here: what follows is said in the light of it."""

    id: str
    name: str
    output: Any = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """A node that the answer is based on."""

    id: str
    text: str
    score: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourcesPart:
    """What was retrieved for the answer."""

    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class UsagePart:
    """Tokens of all attempts and all calls."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    estimated: bool = False
    """Whether an attempt was cut before its provider counted."""


@dataclass(frozen=True, slots=True)
class RecoveryPart:
    """An attempt failed, and another one begins."""

    attempt: int
    """Counts from 1, so the first recovery is attempt 2."""
    reason: str
    """The kind of the fault, as in `FaultEvent.kind`."""


@dataclass(frozen=True, slots=True)
class JointPart:
    """The text that follows is that of a continuation: how it was joined to what is there, and how sure that is."""

    attempt: int
    decision: str
    """A `JoinDecision`."""
    certainty: str
    """A `Certainty`."""


@dataclass(frozen=True, slots=True)
class ResetPart:
    """A restarted turn tells it differently: the text, thoughts and calls of this turn are void."""


_NAME = re.compile(r"[A-Za-z][\w.-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class EventPart:
    """An event of the application's own: a title, questions that may follow, progress.

        async def answer():
            yield EventPart("title", "The cable of 1866")
            yield await query_engine.aquery(question)
            yield EventPart("follow_ups", ["Who paid for it?"])

    Args:
        name: Begins with a letter; then letters, digits, `_`, `-` and `.`.
        data: JSON-able.

    Raises:
        ConfigurationError: for a name that is none, or that one of our own events has.
    """

    name: str
    data: Any = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in RESERVED:
            raise ConfigurationError(
                f"An event of one's own cannot be called {self.name!r}. Give it a word that begins with a letter and "
                f"is none of {', '.join(sorted(RESERVED))}: EventPart('title', data)."
            )


@dataclass(frozen=True, slots=True)
class EndPart:
    """The last part of every answer."""

    status: str
    """A `StreamStatus`, `LOST` or `EXPIRED`."""
    reason: str = ""
    retryable: bool = False
    code: int = 0
    """The HTTP status of a `REFUSED` answer, else 0."""
    detail: str = ""
    """What the application says of a `REFUSED` answer."""


Part = (
    TextPart
    | ThinkingPart
    | ToolCallPart
    | ToolResultPart
    | SourcesPart
    | UsagePart
    | RecoveryPart
    | JointPart
    | ResetPart
    | EventPart
    | EndPart
)

NAMES: Mapping[type, str] = {
    TextPart: "text",
    ThinkingPart: "thinking",
    ToolCallPart: "tool_call",
    ToolResultPart: "tool_result",
    SourcesPart: "sources",
    UsagePart: "usage",
    RecoveryPart: "recovery",
    JointPart: "joint",
    ResetPart: "reset",
    EventPart: "event",
    EndPart: "end",
}
"""What a part is called, wherever parts are written down."""
_TYPES = {name: kind for kind, name in NAMES.items()}
RESERVED = frozenset(NAMES.values()) | {"message", "done", "error", "open"}


def to_dict(part: Part) -> dict[str, Any]:
    """A part as JSON-able data, its name left out."""
    return asdict(part)


def from_dict(name: str, data: Mapping[str, Any]) -> Part:
    """The inverse of `to_dict`."""
    kind = _TYPES[name]
    if kind is SourcesPart:
        return SourcesPart(tuple(Source(**each) for each in data["sources"]))
    known = {each.name for each in fields(kind)}
    made: Part = kind(**{key: value for key, value in data.items() if key in known})
    return made


def to_json(part: Part) -> str:
    """A part as text, for a store. A piece of text is a JSON string, everything else a pair of name and data."""
    return json.dumps(part.text if isinstance(part, TextPart) else [NAMES[type(part)], to_dict(part)])


def from_json(written: str | bytes) -> Part:
    """The inverse of `to_json`."""
    found = json.loads(written)
    return TextPart(found) if isinstance(found, str) else from_dict(*found)


def jsonable(value: Any) -> Any:
    """The value as JSON can carry it: what it has no word for becomes text."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    for method in ("model_dump", "item", "dict"):  # pydantic 2, numpy's numbers, pydantic 1
        if (found := getattr(value, method, None)) is not None and not isinstance(value, type):
            return found()
    return str(value)
