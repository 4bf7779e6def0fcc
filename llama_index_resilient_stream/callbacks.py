"""Who is told what happens, and how: a small protocol for people, events on LlamaIndex's dispatcher for telemetry.

The wrapped LLM emits LlamaIndex's own events once per attempt, which is the truth that a bill shows. Ours come on top,
with `span_id=None`: tracing integrations that do not know them skip them in silence instead of warning each time.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events import BaseEvent

from .errors import ConfigurationError
from .recovery.events import Chunk, Request
from .recovery.machine import Recovery
from .report import Attempt, StreamReport

logger = logging.getLogger("llama_index_resilient_stream")
dispatcher = get_dispatcher(__name__)


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
    kind: str
    """One of "transport", "timeout", "truncated", "rate_limit", ...: see `recovery.faults.FaultKind`."""
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
    strategy: str
    """One of "ask", "prefill", "append" or "restart"."""
    delay: float
    """Seconds of back-off before it."""
    characters: int
    seconds: float
    cause: str = ""
    """The kind of the fault that made it necessary; empty where an interrupted answer is taken up again."""


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


def check(callbacks: Sequence[Any]) -> None:
    """Refuse what could never be called."""
    for callback in callbacks:
        if isinstance(callback, type) or not (callable(callback) or any(hasattr(callback, hook) for hook in HOOKS)):
            raise ConfigurationError(
                f"{callback!r} is not a stream callback. Pass a function of a TokenEvent, or an object with some of "
                f"{', '.join(HOOKS)}: callbacks=[lambda event: print(event.text)]."
            )


def refuse_coroutines(callbacks: Sequence[Any]) -> None:
    """A synchronous stream has no loop to await anything on."""
    for callback in callbacks:
        for hook in HOOKS:
            found = _hook(callback, hook)
            as_object = getattr(type(found), "__call__", None)  # noqa: B004
            if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(as_object):
                raise ConfigurationError(
                    f"{hook} of {callback!r} is a coroutine function, but this stream is synchronous. "
                    f"Define it with `def`, or use the async twin: await llm.astream_chat(...)."
                )


def _hook(callback: Any, hook: str) -> Callable[[Any], Any] | None:
    found = getattr(callback, hook, None)
    if found is None and hook == "on_token" and callable(callback) and not any(hasattr(callback, h) for h in HOOKS):
        return callback  # type: ignore[no-any-return]
    return found


class _Announcer:
    """Turns what the machine knows into the events of one stream."""

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._hooks = {hook: [h for c in callbacks if (h := _hook(c, hook)) is not None] for hook in HOOKS}
        self._index = 0
        self._ended = False
        self.watches_tokens = bool(self._hooks["on_token"])

    def _token(self, chunk: Chunk, recovery: Recovery) -> TokenEvent | None:
        if not chunk.text and not chunk.reset:
            return None
        report = recovery.report
        attempt = report.attempts[-1]
        if chunk.reset:
            dispatcher.event(StreamResetEvent(span_id=None, stream_id=report.stream_id, attempt=attempt.number))
        event = TokenEvent(
            report.stream_id,
            self._index,
            chunk.text,
            recovery.elapsed,
            attempt.number,
            attempt.model,
            chunk.reset,
        )
        self._index += 1
        return event

    def _fault(self, recovery: Recovery) -> FaultEvent:
        report, fault = recovery.report, recovery.fault
        assert fault is not None, "announced a fault where there is none"
        attempt = report.attempts[-1]
        _warn_of_own_retries(recovery, attempt)
        event = FaultEvent(
            report.stream_id,
            attempt.number,
            attempt.model,
            str(fault.kind),
            fault.message,
            fault.retryable,
            report.characters,
            recovery.elapsed,
        )
        dispatcher.event(
            StreamFaultEvent(
                span_id=None,
                stream_id=event.stream_id,
                attempt=event.attempt,
                model=event.model,
                kind=event.kind,
                message=event.message,
                retryable=event.retryable,
            )
        )
        return event

    def _resume(self, recovery: Recovery, request: Request) -> ResumeEvent:
        report = recovery.report
        attempt = report.attempts[-1]
        event = ResumeEvent(
            report.stream_id,
            attempt.number,
            attempt.model,
            request.strategy,
            attempt.waited,
            report.characters,
            recovery.elapsed,
            str(recovery.fault.kind) if recovery.fault is not None else "",
        )
        logger.info(
            "stream %s: attempt %d (%s) asks %s after %.2f s, %d characters so far; cause: %s",
            event.stream_id[:8],
            event.attempt,
            event.strategy,
            event.model,
            event.delay,
            event.characters,
            recovery.fault.message if recovery.fault is not None else "taken up again",
        )
        dispatcher.event(
            StreamResumeEvent(
                span_id=None,
                stream_id=event.stream_id,
                attempt=event.attempt,
                model=event.model,
                strategy=event.strategy,
                delay=event.delay,
            )
        )
        return event

    def _end(self, recovery: Recovery) -> StreamReport | None:
        if self._ended:
            return None
        self._ended = True
        report = recovery.report
        dispatcher.event(
            StreamEndEvent(
                span_id=None,
                stream_id=report.stream_id,
                status=str(report.status),
                attempts=len(report.attempts),
                characters=report.characters,
                seconds=report.seconds,
            )
        )
        return report


def _warn_of_own_retries(recovery: Recovery, attempt: Attempt) -> None:
    model = recovery.asked_model
    if attempt.requests > 1 and not model.learned.warned_of_own_retries:
        model.learned.warned_of_own_retries = True
        logger.warning(
            "%s retries by itself before the first token: each of our attempts may have been up to %d requests, "
            "with its back-off on top of ours. Set max_retries=0 on the wrapped LLM.",
            model.name,
            attempt.requests,
        )


class Announcer(_Announcer):
    """Tells the callbacks of a synchronous stream."""

    def token(self, chunk: Chunk, recovery: Recovery) -> None:
        self._call("on_token", self._token(chunk, recovery))

    def fault(self, recovery: Recovery) -> None:
        self._call("on_fault", self._fault(recovery))

    def resume(self, recovery: Recovery, request: Request) -> None:
        self._call("on_resume", self._resume(recovery, request))

    def end(self, recovery: Recovery) -> None:
        self._call("on_end", self._end(recovery))

    def _call(self, hook: str, argument: Any) -> None:
        if argument is None:
            return
        for function in self._hooks[hook]:
            try:
                if inspect.iscoroutine(result := function(argument)):
                    result.close()
                    raise TypeError(f"{hook} returned a coroutine, but this stream is synchronous: use astream_chat")
            except Exception:
                logger.exception("stream callback %s raised; the stream goes on", hook)


class AsyncAnnouncer(_Announcer):
    """Tells the callbacks of an asynchronous stream."""

    async def token(self, chunk: Chunk, recovery: Recovery) -> None:
        await self._call("on_token", self._token(chunk, recovery))

    async def fault(self, recovery: Recovery) -> None:
        await self._call("on_fault", self._fault(recovery))

    async def resume(self, recovery: Recovery, request: Request) -> None:
        await self._call("on_resume", self._resume(recovery, request))

    async def end(self, recovery: Recovery) -> None:
        await self._call("on_end", self._end(recovery))

    async def _call(self, hook: str, argument: Any) -> None:
        if argument is None:
            return
        for function in self._hooks[hook]:
            try:
                result = function(argument)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("stream callback %s raised; the stream goes on", hook)
