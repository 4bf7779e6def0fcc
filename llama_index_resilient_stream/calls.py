"""The LLM calls that one call of an engine made: which wrote the answer, which failed, and how to stop them.

An engine makes its calls lazily, and in threads of its own, where no context variable follows. So the LLM that the
engine uses for this one call carries this object with it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from .callbacks import ResumeEvent
from .errors import StreamInterruptedError
from .recovery.machine import Recovery
from .report import StreamReport, StreamStatus


class Calls:
    """Filled by a bound `ResilientLLM`, read by a response. The streams themselves are held weakly."""

    def __init__(self, *, raises: bool = True) -> None:
        self.raises = raises
        """Whether the user's policy wants an error where an answer is given up."""
        self.cancelled = False
        self._recoveries: list[tuple[Recovery, bool]] = []
        self._streams: list[tuple[Recovery, weakref.ref[Any]]] = []
        self._lock = threading.Lock()
        self._at_end: list[Callable[[], object]] = []
        self._at_recovery: list[Callable[[ResumeEvent], object]] = []

    def at_end(self, listener: Callable[[], object]) -> None:
        """Call this whenever a stream has ended."""
        self._at_end.append(listener)

    def at_recovery(self, listener: Callable[[ResumeEvent], object]) -> None:
        """Call this whenever another attempt begins, in the thread that makes it."""
        self._at_recovery.append(listener)

    def on_resume(self, event: ResumeEvent) -> None:
        """It listens to its streams as any callback does."""
        for listener in self._at_recovery:
            listener(event)

    def on_end(self, _report: StreamReport) -> None:
        """The same."""
        for listener in self._at_end:
            listener()

    def check(self) -> None:
        """Before another call: half an answer is not to be worked into the next prompt.

        Only where the engine was not told: an engine that was given the error may well know what to do.
        """
        if (error := self._error(lambda recovery: recovery.policy.on_exhausted == "partial")) is not None:
            raise error

    def add_call(self, recovery: Recovery) -> None:
        if self.cancelled:
            raise StreamInterruptedError("The answer was cancelled.", reason="cancelled")
        with self._lock:
            self._recoveries.append((recovery, False))

    def add_stream(self, recovery: Recovery, stream: Any) -> None:
        with self._lock:
            self._recoveries.append((recovery, True))
            self._streams.append((recovery, weakref.ref(stream)))
        if self.cancelled:
            stream.cancel()  # it is empty, and a writer ends as it does with any other

    @property
    def report(self) -> StreamReport | None:
        """The report of the call that wrote the answer, or writes it: the last stream, else the last call."""
        with self._lock:
            known = list(self._recoveries)
        if not known:
            return None
        writer = _writer(known)
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

    def cancel(self) -> None:
        """Stop every stream, from any thread."""
        self.cancelled = True
        for stream in self._live():
            stream.cancel()

    async def acancel(self) -> None:
        """Stop every stream, and return when their connections are closed."""
        self.cancelled = True
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
