"""The LLM calls that one call of an engine made: which wrote the answer, which failed, and how to stop them.

An engine makes its calls lazily, and in threads of its own, where no context variable follows. So the LLM that the
engine uses for this one call carries this object with it. A response that is made resilient after the fact has one that
looks for the streams behind it, as soon as there are any.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from itertools import pairwise
from typing import Any, TypeVar

from ..callbacks import ResumeEvent
from ..compat.llama_index import EVENTS_KEEP_FRAMES, detached
from ..errors import StreamInterruptedError
from ..recovery.machine import Recovery
from ..report import StreamReport, StreamStatus
from ..streaming.scope import Scope

T = TypeVar("T")

AROUND: ContextVar[Any] = ContextVar("resilient_listener", default=None)
"""A callback that is told of every call that begins in this context: in an agent's run, which nobody can bind.

Beside the methods of any callback it has `begins(report)`."""

_LOOKS = 8  # tokens, and moments of silence, after which a stream that was not found is none of ours


class CallLog:
    """Filled by a bound `ResilientLLM`, read by a response. The streams themselves are held weakly.

    Args:
        seek: finds the `ResilientLLM` streams that were begun without this object, if there are any by now.
    """

    def __init__(self, *, raises: bool = True, seek: Callable[[], Iterable[Any]] | None = None) -> None:
        self.raises = raises
        """Whether the user's policy wants an error where an answer is given up."""
        self.scope = Scope()
        """Cancelled when the engine's call is: its streams are, with it."""
        self.shown_as_text = False
        """Whether a partial answer was handed out as text, by `str(response)`, instead of an error."""
        self._recoveries: list[tuple[Recovery, bool]] = []
        self._streams: list[tuple[Recovery, weakref.ref[Any]]] = []
        # The garbage collector may drop a response, and so cancel, while this very thread is in here.
        self._lock = threading.RLock()
        self._seek = seek
        self._looks = 0
        self._told: dict[tuple[str, int], ResumeEvent] = {}
        self._at_end: list[Callable[[], object]] = []
        self._at_recovery: list[Callable[[ResumeEvent], object]] = []
        self._thoughts: list[tuple[str, int]] = []  # that nobody has listened to yet
        self._at_thinking: Callable[[str, int], object] | None = None
        self._at_reset: list[Callable[[int], object]] = []
        self._detached: Iterator[Any] | None = None

    def made_by(self, ask: Callable[[], T]) -> T:
        """Call the engine's method that makes these calls. No frame that it leaves behind keeps its response alive."""
        if not EVENTS_KEEP_FRAMES:
            return ask()
        self._detached = call = detached(ask)
        return next(call)

    def at_end(self, listener: Callable[[], object]) -> None:
        """Call this whenever a stream has ended."""
        self._at_end.append(listener)

    def at_recovery(self, listener: Callable[[ResumeEvent], object]) -> None:
        """Call this whenever another attempt begins, in the thread that makes it; now, for those that have begun."""
        with self._lock:
            self._at_recovery.append(listener)
            missed = list(self._told.values())
        for event in missed:
            listener(event)

    def at_thinking(self, listener: Callable[[str, int], object]) -> None:
        """Call this with each piece of thought and how many characters of the answer come before it.

        Those that came before are told now. There is one listener.
        """
        with self._lock:
            self._at_thinking, missed = listener, self._thoughts
            self._thoughts = []
            for thought, characters in missed:
                listener(thought, characters)

    def at_reset(self, listener: Callable[[int], object]) -> None:
        """Call this when a restarted turn tells it differently, with how many characters of text are void."""
        self._at_reset.append(listener)

    def on_reset(self, characters: int) -> None:
        """A restarted turn tells it differently, in the thread that reads it."""
        for listener in self._at_reset:
            listener(characters)

    def on_thinking(self, thought: str, characters: int) -> None:
        """The model has thought something, in the thread that reads it."""
        with self._lock:
            if self._at_thinking is None:
                self._thoughts.append((thought, characters))
            else:
                self._at_thinking(thought, characters)

    def on_resume(self, event: ResumeEvent) -> None:
        """It listens to its streams as any callback does."""
        with self._lock:
            if (event.stream_id, event.attempt) in self._told:
                return
            self._told[event.stream_id, event.attempt] = event
            listeners = list(self._at_recovery)
        for listener in listeners:
            listener(event)

    def on_end(self, _report: StreamReport) -> None:
        """It listens to the end of its streams as any callback does."""
        self._tell_of_end()

    def _tell_of_end(self) -> None:
        for listener in self._at_end:
            listener()

    def check(self) -> None:
        """Before another call: half an answer is not to be worked into the next prompt.

        Only where the engine was not told: an engine that was given the error may well know what to do.
        """
        shown = self.shown_as_text
        if (error := self._error(lambda recovery: shown or recovery.policy.on_exhausted == "partial")) is not None:
            raise error

    def add_call(self, recovery: Recovery) -> None:
        if self.scope.cancelled:
            raise StreamInterruptedError("The answer was cancelled.", reason="cancelled")
        with self._lock:
            self._recoveries.append((recovery, False))

    def add_stream(self, recovery: Recovery, stream: Any) -> None:
        with self._lock:
            self._recoveries.append((recovery, True))
            self._streams.append((recovery, weakref.ref(stream)))
        if self.scope.cancelled:
            stream.cancel()  # it is empty, and a writer ends as it does with any other

    # After the fact

    @property
    def found_later(self) -> bool:
        """Whether the streams were begun without it."""
        return self._seek is not None

    @property
    def seeking(self) -> bool:
        """Whether there may be streams that have not been found yet."""
        return self._seek is not None and not self._recoveries and self._looks < _LOOKS

    def look(self) -> bool:
        """A token came, or nothing did for a while. False: there is no reason to look any more."""
        if not self.seeking:
            return False
        self._looks += 1
        self.search()
        return True

    def search(self) -> None:
        """Look, however often it was in vain."""
        if self._seek is not None and not self._recoveries:
            for stream in self._seek():
                self.adopt(stream)

    def adopt(self, stream: Any) -> None:
        """Take over a stream that was begun without it, with all that has happened to it so far."""
        recovery: Recovery = stream._recovery
        with self._lock:
            if any(known is recovery for known, _ in self._recoveries):
                return
            if recovery.policy.on_exhausted == "partial":
                self.raises = False
            self._recoveries.append((recovery, True))
            self._streams.append((recovery, weakref.ref(stream)))
        self.scope.adopt(stream.scope)
        # First to listen, then to look: what happens in between is told once.
        stream.calls.at_end(self._tell_of_end)
        stream.calls.at_recovery(self.on_resume)
        for event in _missed(recovery.report):
            self.on_resume(event)
        if recovery.over:
            self._tell_of_end()
        if self.scope.cancelled:
            stream.cancel()

    @property
    def report(self) -> StreamReport | None:
        """The report of the call that wrote the answer, or writes it: the last stream, else the last call."""
        self.search()
        with self._lock:
            known = list(self._recoveries)
        if not known:
            return None
        writer = _writer(known)
        for recovery, _ in known:
            recovery.report.calls = []  # it may have been the writer's when this was read before
        writer.report.calls = [recovery.report for recovery, _ in known if recovery is not writer]
        return writer.report

    @property
    def text(self) -> str:
        """What the call that writes the answer has said so far."""
        with self._lock:
            known = list(self._recoveries)
        return _writer(known).answer if known else ""

    @property
    def error(self) -> StreamInterruptedError | None:
        """Why an answer was given up, if one was."""
        return self._error(lambda _: True)

    def _error(self, counts: Callable[[Recovery], bool]) -> StreamInterruptedError | None:
        with self._lock:
            known = [recovery for recovery, _ in self._recoveries if counts(recovery)]
        return next((r.error for r in known if r.report.status is StreamStatus.INTERRUPTED and r.error), None)

    @property
    def over(self) -> bool:
        """Whether no call is going on."""
        with self._lock:
            return all(recovery.over for recovery, _ in self._recoveries)

    @property
    def finished(self) -> bool:
        """Whether there were calls, and none is going on."""
        return bool(self._recoveries) and self.over

    def cancel(self) -> None:
        """Stop every stream, from any thread."""
        self.scope.cancel()
        self.search()
        for stream in self._live():
            stream.cancel()

    async def acancel(self) -> None:
        """Stop every stream, and return when their connections are closed."""
        self.scope.cancel()
        self.search()
        for stream in self._live():
            if (acancel := getattr(stream, "acancel", None)) is not None:
                await acancel()
            else:
                stream.cancel()

    def _live(self) -> list[Any]:
        with self._lock:
            going_on = [ref for recovery, ref in self._streams if not recovery.over]
        return [stream for ref in going_on if (stream := ref()) is not None]


def _writer(known: list[tuple[Recovery, bool]]) -> Recovery:
    return next((recovery for recovery, streamed in reversed(known) if streamed), known[-1][0])


def _missed(report: StreamReport) -> Iterator[ResumeEvent]:
    """The recoveries that were, as they would have been told."""
    characters = 0
    for before, attempt in pairwise(list(report.attempts)):
        characters += before.characters
        yield ResumeEvent(
            stream_id=report.stream_id,
            attempt=attempt.number,
            model=attempt.model,
            strategy=attempt.strategy,
            delay=attempt.waited,
            characters=characters,
            seconds=attempt.started,
            cause=before.fault or "",
        )
