"""Tells callbacks, LlamaIndex's dispatcher and the log what happens to one stream."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]

from ..callbacks import (
    HOOKS,
    CircuitEvent,
    FaultEvent,
    ResumeEvent,
    StreamCircuitEvent,
    StreamEndEvent,
    StreamFaultEvent,
    StreamResetEvent,
    StreamResumeEvent,
    TokenEvent,
)
from ..errors import ConfigurationError
from ..recovery.events import Chunk, Request
from ..recovery.finish_reasons import FinishMeaning, meaning_of
from ..recovery.finish_words import UNEXPLAINED
from ..recovery.machine import Recovery
from ..report import Attempt, CircuitChange, CircuitState, Joint, StreamReport, StreamStatus
from .chunks import thought_of

logger = logging.getLogger("llama_index_resilient_stream")
dispatcher = get_dispatcher(__name__)


def checked(callbacks: Any) -> tuple[Any, ...]:
    """The callbacks as a tuple; a single one will do.

    Raises:
        ConfigurationError: one of them could never be called.
    """
    if callable(callbacks) or any(hasattr(callbacks, hook) for hook in HOOKS):
        callbacks = (callbacks,)
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, str):
        raise ConfigurationError(
            f"callbacks is {callbacks!r}. Pass a list: callbacks=[lambda event: print(event.text)]."
        )
    several: tuple[Any, ...] = tuple(callbacks)
    for callback in several:
        _check_callback(callback)
    return several


def _check_callback(callback: Any) -> None:
    if isinstance(callback, type) or not (callable(callback) or any(hasattr(callback, hook) for hook in HOOKS)):
        raise ConfigurationError(
            f"{callback!r} is not a stream callback. Pass a function of a TokenEvent, or an object with some of "
            f"{', '.join(HOOKS)}: callbacks=[lambda event: print(event.text)]."
        )
    for hook in HOOKS:
        _check_hook(hook, _hook(callback, hook), callback)


def _check_hook(hook: str, function: Any, callback: Any) -> None:
    if function is None:
        return
    if not callable(function):
        raise ConfigurationError(f"{hook} of {callback!r} is no function. Define it with one: def {hook}(self, event).")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"{hook} of {callback!r} is a generator function, and nothing would run when it is called. "
            f"Define it without `yield`: def {hook}(self, event)."
        )
    try:
        inspect.signature(function).bind(None)
    except ValueError:  # a builtin that does not tell
        return
    except TypeError as error:
        raise ConfigurationError(
            f"{hook} of {callback!r} cannot be called with one argument: {error}. "
            f"Define it as: def {hook}(self, event), or as a function: lambda event: print(event.text)."
        ) from None


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
        self._failed: set[tuple[str, int]] = set()
        self._joints = 0  # that were announced
        self._circuits = 0
        self.watches_tokens = bool(self._hooks["on_token"] or self._hooks["on_circuit"])
        self._void = 0  # characters that were taken back
        self._reset_listeners = [c.on_reset for c in callbacks if hasattr(c, "on_reset")]
        self._thought_listeners = [c.on_thinking for c in callbacks if hasattr(c, "on_thinking")]

    def _token(self, chunk: Chunk, recovery: Recovery) -> TokenEvent | None:
        report = recovery.report
        if not chunk.text and not chunk.reset:
            self._tell_thought(chunk, report)
            return None
        attempt = report.attempts[-1]
        if chunk.reset:
            dispatcher.event(StreamResetEvent(span_id=None, stream_id=report.stream_id, attempt=attempt.number))
            self._tell_reset(report)
        event = TokenEvent(
            report.stream_id,
            self._index,
            chunk.text,
            recovery.elapsed,
            attempt.number,
            attempt.model,
            chunk.reset,
            self._new_joint(report),
        )
        self._index += 1
        return event

    def _tell_reset(self, report: StreamReport) -> None:
        before = sum(attempt.characters for attempt in report.attempts[:-1])
        void, self._void = before - self._void, before
        for listener in self._reset_listeners:
            listener(void)

    def _tell_thought(self, chunk: Chunk, report: StreamReport) -> None:
        if self._thought_listeners and (thought := thought_of(chunk.payload)):
            for listener in self._thought_listeners:
                listener(thought, report.characters)

    def _new_joint(self, report: StreamReport) -> Joint | None:
        if len(report.joints) == self._joints:
            return None
        self._joints = len(report.joints)
        return report.joints[-1]

    def _new_circuits(self, recovery: Recovery) -> Sequence[CircuitEvent]:
        report = recovery.report
        if len(report.circuits) == self._circuits:
            return ()
        changes, self._circuits = report.circuits[self._circuits :], len(report.circuits)
        return [self._circuit(report, change) for change in changes]

    def _circuit(self, report: StreamReport, change: CircuitChange) -> CircuitEvent:
        level = logging.WARNING if change.state is CircuitState.OPEN else logging.INFO
        logger.log(level, "the circuit breaker of %s is %s", change.model, change.state.replace("_", " "))
        dispatcher.event(
            StreamCircuitEvent(span_id=None, stream_id=report.stream_id, model=change.model, state=change.state)
        )
        return CircuitEvent(report.stream_id, change.model, change.state, change.seconds)

    def _fault(self, recovery: Recovery) -> FaultEvent:
        report, fault = recovery.report, recovery.fault
        assert fault is not None, "announced a fault where there is none"
        attempt = report.attempts[-1]
        _warn_of_own_retries(recovery, attempt)
        event = FaultEvent(
            report.stream_id,
            attempt.number,
            attempt.model,
            fault.kind,
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
            recovery.fault.kind if recovery.fault is not None else "",
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

    def _log_failure(self, hook: str, number: int) -> None:
        """Once per stream and hook: a hook that fails at one token fails at hundreds."""
        if (hook, number) not in self._failed:
            self._failed.add((hook, number))
            logger.exception("stream callback %s raised; the stream goes on, and this is not logged again", hook)

    def _end(self, recovery: Recovery) -> StreamReport | None:
        if self._ended:
            return None
        self._ended = True
        report = recovery.report
        _warn_of_unknown_word(recovery)
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


def _warn_of_unknown_word(recovery: Recovery) -> None:
    word, status = recovery.report.finish_reason, recovery.report.status
    if status is not StreamStatus.UNKNOWN or word is None or word in UNEXPLAINED:
        return
    if meaning_of(word).kind is not FinishMeaning.UNKNOWN:
        return
    warned = recovery.asked_model.learned.warned_of_finish_reasons
    if word not in warned:
        warned.add(word)
        logger.warning(
            "%s ended its stream with the finish reason %r, which is not known: the answer may be cut. Its status is "
            '"unknown"; RecoveryPolicy(completeness=...) can decide otherwise.',
            recovery.asked_model.name,
            word,
        )


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
        self._tell_circuits(recovery)
        self._call("on_token", self._token(chunk, recovery))

    def fault(self, recovery: Recovery) -> None:
        self._tell_circuits(recovery)
        self._call("on_fault", self._fault(recovery))

    def resume(self, recovery: Recovery, request: Request) -> None:
        self._tell_circuits(recovery)
        self._call("on_resume", self._resume(recovery, request))

    def end(self, recovery: Recovery) -> None:
        self._tell_circuits(recovery)
        self._call("on_end", self._end(recovery))

    def _tell_circuits(self, recovery: Recovery) -> None:
        for event in self._new_circuits(recovery):
            self._call("on_circuit", event)

    def _call(self, hook: str, argument: Any) -> None:
        if argument is None:
            return
        for number, function in enumerate(self._hooks[hook]):
            try:
                if inspect.iscoroutine(result := function(argument)):
                    result.close()
                    raise TypeError(f"{hook} returned a coroutine, but this stream is synchronous: use astream_chat")
            except Exception:
                self._log_failure(hook, number)


class AsyncAnnouncer(_Announcer):
    """Tells the callbacks of an asynchronous stream."""

    async def token(self, chunk: Chunk, recovery: Recovery) -> None:
        await self._tell_circuits(recovery)
        await self._call("on_token", self._token(chunk, recovery))

    async def fault(self, recovery: Recovery) -> None:
        await self._tell_circuits(recovery)
        await self._call("on_fault", self._fault(recovery))

    async def resume(self, recovery: Recovery, request: Request) -> None:
        await self._tell_circuits(recovery)
        await self._call("on_resume", self._resume(recovery, request))

    async def end(self, recovery: Recovery) -> None:
        await self._tell_circuits(recovery)
        await self._call("on_end", self._end(recovery))

    async def _tell_circuits(self, recovery: Recovery) -> None:
        for event in self._new_circuits(recovery):
            await self._call("on_circuit", event)

    async def _call(self, hook: str, argument: Any) -> None:
        if argument is None:
            return
        for number, function in enumerate(self._hooks[hook]):
            try:
                result = function(argument)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                self._log_failure(hook, number)
