"""Who is told what happens, and how: a small protocol for people, events on LlamaIndex's dispatcher for telemetry.

The wrapped LLM emits LlamaIndex's own events once per attempt, which is the truth that a bill shows. Ours come on top,
with `span_id=None`: tracing integrations that do not know them skip them in silence instead of warning each time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from llama_index.core.instrumentation.events import BaseEvent

from .report import CircuitState, FaultKind, Joint, Strategy, StreamReport

__all__ = [
    "HOOKS",
    "Callback",
    "CircuitCallback",
    "CircuitEvent",
    "EndCallback",
    "FaultCallback",
    "FaultEvent",
    "ResumeCallback",
    "ResumeEvent",
    "StreamCallback",
    "StreamCircuitEvent",
    "StreamEndEvent",
    "StreamFaultEvent",
    "StreamResetEvent",
    "StreamResumeEvent",
    "TokenCallback",
    "TokenEvent",
]


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One piece of text, as the reader sees it."""

    stream_id: str
    """That of the stream's report."""
    index: int
    """Counts the pieces from 0, over all attempts."""
    text: str
    """What is new."""
    seconds: float
    """Since the answer was asked for."""
    attempt: int
    """The attempt that it came from, counted from 1."""
    model: str
    """The model that said it."""
    reset: bool = False
    """A restarted turn tells it differently: forget what came before; `text` is a blank line and the new telling."""
    joint: Joint | None = None
    """On the first piece of a continuation: how it was joined to what was said, and how sure that is."""


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """One attempt failed."""

    stream_id: str
    """That of the stream's report."""
    attempt: int
    """The attempt that failed, counted from 1."""
    model: str
    """The model that was asked."""
    kind: FaultKind
    """Why it failed; equal to its own word: `event.kind == "rate_limit"`."""
    message: str
    """Safe to log: no keys, no prompt text."""
    retryable: bool
    """Whether the same request is worth another try."""
    characters: int
    """Length of the answer so far."""
    seconds: float
    """Since the answer was asked for."""


@dataclass(frozen=True, slots=True)
class ResumeEvent:
    """Another attempt begins."""

    stream_id: str
    """That of the stream's report."""
    attempt: int
    """The attempt that begins, counted from 1."""
    model: str
    """The model that is asked."""
    strategy: Strategy
    """How it is asked to go on."""
    delay: float
    """Seconds of back-off before it."""
    characters: int
    """Length of the answer so far."""
    seconds: float
    """Since the answer was asked for."""
    cause: FaultKind | Literal[""] = ""
    """The kind of the fault that made it necessary; empty where an interrupted answer is taken up again."""


@dataclass(frozen=True, slots=True)
class CircuitEvent:
    """A model's circuit breaker changed its state, because of this stream. It holds for the whole process."""

    stream_id: str
    """That of the stream's report."""
    model: str
    """The model whose breaker it is."""
    state: CircuitState
    """Its new state; equal to its own word: `event.state == "open"`."""
    seconds: float
    """Since the answer was asked for."""


class TokenCallback(Protocol):
    """An object that is told of text."""

    def on_token(self, event: TokenEvent, /) -> Awaitable[None] | None:
        """Take a piece of text that the reader is about to see."""
        return None  # so that who derives need not define it


class FaultCallback(Protocol):
    """An object that is told of failed attempts."""

    def on_fault(self, event: FaultEvent, /) -> Awaitable[None] | None:
        """Take the news that an attempt failed."""
        return None  # so that who derives need not define it


class ResumeCallback(Protocol):
    """An object that is told of further attempts."""

    def on_resume(self, event: ResumeEvent, /) -> Awaitable[None] | None:
        """Take the news that another attempt begins."""
        return None  # so that who derives need not define it


class EndCallback(Protocol):
    """An object that is told of the end of a stream."""

    def on_end(self, report: StreamReport, /) -> Awaitable[None] | None:
        """Take the report of a stream that is over. Called once for each stream."""
        return None  # so that who derives need not define it


class CircuitCallback(Protocol):
    """An object that is told of circuit breakers."""

    def on_circuit(self, event: CircuitEvent, /) -> Awaitable[None] | None:
        """Take the news that a model's circuit breaker opened, let a probe through, or closed."""
        return None  # so that who derives need not define it


@runtime_checkable
class StreamCallback(TokenCallback, FaultCallback, ResumeCallback, CircuitCallback, EndCallback, Protocol):
    """All that a callback can be told. Any object with some of these methods will do as one, derived or not.

        class Meter(StreamCallback):
            def on_end(self, report: StreamReport) -> None:
                print(report.seconds, report.status)

        ResilientLLM(llm, callbacks=[Meter()])

    Each method is a plain function or, on asynchronous streams, a coroutine function. One that raises is logged and
    does no harm to the stream. A bare function is taken as `on_token`.
    """


HOOKS = ("on_token", "on_fault", "on_resume", "on_circuit", "on_end")

Callback = TokenCallback | FaultCallback | ResumeCallback | CircuitCallback | EndCallback | Callable[[TokenEvent], Any]
"""What `callbacks=[...]` takes: an object with one or more of the five methods, or a function of a `TokenEvent`."""


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


class StreamCircuitEvent(BaseEvent):
    """On LlamaIndex's dispatcher: a model's circuit breaker changed its state."""

    stream_id: str
    model: str
    state: str

    @classmethod
    def class_name(cls) -> str:
        return "StreamCircuitEvent"


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
