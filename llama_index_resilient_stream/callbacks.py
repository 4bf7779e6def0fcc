"""Who is told what happens, and how: a small protocol for people, events on LlamaIndex's dispatcher for telemetry.

The wrapped LLM emits LlamaIndex's own events once per attempt, which is the truth that a bill shows. Ours come on top,
with `span_id=None`: tracing integrations that do not know them skip them in silence instead of warning each time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from llama_index.core.instrumentation.events import BaseEvent

from .report import FaultKind, Strategy, StreamReport


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One piece of text, as the reader sees it."""

    stream_id: str
    index: int
    """Counts from 0 over all attempts."""
    text: str
    seconds: float
    """Since the answer was asked for."""
    attempt: int
    """Counts from 1."""
    model: str
    reset: bool = False
    """A restarted turn tells it differently: forget what came before; `text` is a blank line and the new telling."""


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """One attempt failed."""

    stream_id: str
    attempt: int
    model: str
    kind: FaultKind
    message: str
    """Safe to log: no keys, no prompt text."""
    retryable: bool
    characters: int
    """Length of the answer so far."""
    seconds: float


@dataclass(frozen=True, slots=True)
class ResumeEvent:
    """Another attempt begins."""

    stream_id: str
    attempt: int
    model: str
    strategy: Strategy
    delay: float
    """Seconds of back-off before it."""
    characters: int
    seconds: float
    cause: FaultKind | None = None
    """The kind of the fault that made it necessary; None where an interrupted answer is taken up again."""


@runtime_checkable
class StreamCallback(Protocol):
    """Any object with some of these methods, each a plain function or, on async streams, also a coroutine function.

    A method that raises is logged and does no harm to the stream. A bare function is taken as `on_token`.
    """

    def on_token(self, event: TokenEvent) -> Awaitable[None] | None:
        """Some text was shown."""

    def on_fault(self, event: FaultEvent) -> Awaitable[None] | None:
        """An attempt failed."""

    def on_resume(self, event: ResumeEvent) -> Awaitable[None] | None:
        """Another attempt begins."""

    def on_end(self, report: StreamReport) -> Awaitable[None] | None:
        """The stream is over; called exactly once."""


HOOKS = ("on_token", "on_fault", "on_resume", "on_end")

Callback = StreamCallback | Callable[[TokenEvent], Any]


class StreamFaultEvent(BaseEvent):
    """On LlamaIndex's dispatcher: an attempt failed."""

    stream_id: str
    attempt: int
    model: str
    kind: str
    message: str
    retryable: bool

    @classmethod
    def class_name(cls) -> str:
        return "StreamFaultEvent"


class StreamResumeEvent(BaseEvent):
    """On LlamaIndex's dispatcher: another attempt begins."""

    stream_id: str
    attempt: int
    model: str
    strategy: str
    delay: float

    @classmethod
    def class_name(cls) -> str:
        return "StreamResumeEvent"


class StreamResetEvent(BaseEvent):
    """On LlamaIndex's dispatcher: a restarted tool or structured turn tells it differently."""

    stream_id: str
    attempt: int

    @classmethod
    def class_name(cls) -> str:
        return "StreamResetEvent"


class StreamEndEvent(BaseEvent):
    """On LlamaIndex's dispatcher: a stream is over, and how."""

    stream_id: str
    status: str
    attempts: int
    characters: int
    seconds: float

    @classmethod
    def class_name(cls) -> str:
        return "StreamEndEvent"
