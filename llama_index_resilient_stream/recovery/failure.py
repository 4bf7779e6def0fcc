"""What an answer broke at, and the error that tells it when the answer is given up."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SILENT_CUT, StreamFault, StreamInterruptedError, TruncatedStreamError
from ..report import StreamReport
from .decision import Decision
from .events import Request
from .faults import Fault
from .faults.messages import Explanation
from .states import Step


@dataclass(frozen=True, slots=True)
class Breakage:
    """What an answer that is given up broke at."""

    fault: Fault
    """What its error tells."""
    cause: BaseException | None
    """What its error was raised from."""
    retryable: bool


class Failure:
    """Remembers what befell an answer since its last new text.

    What began it is what the reader has to know: neither a refusal of our own continuation, nor what the models that
    were asked after it had to say. All of it is in the report.
    """

    def __init__(self, explanation: Explanation) -> None:
        self._explanation = explanation
        self._first: Fault | None = None
        self._first_failed: tuple[int, bool] | None = None  # whose that was, and whether it was retryable

    def progress(self) -> None:
        """New text has come: what was before it is over."""
        self._first = self._first_failed = None

    def note(self, fault: Fault | None) -> None:
        """An attempt ended, with this fault."""
        self._first = self._first or fault

    def note_decision(self, fault: Fault, decision: Decision, model: int) -> None:
        """What is done about the fault of that model."""
        if self._first_failed is None:
            retryable = fault.retryable if decision.step is Step.DESCEND else decision.retryable
            self._first_failed = model, retryable

    def breakage(self, fault: Fault, decision: Decision, request: Request) -> Breakage:
        """What the answer broke at, where this is the last fault."""
        first = self._first
        if first is None:
            return Breakage(fault, fault.error, decision.retryable)
        if self._first_failed is not None and self._first_failed[0] != request.model:
            return Breakage(first, first.error, self._first_failed[1])
        is_ours = not decision.retryable and bool(request.partial_text)
        return Breakage(fault, (first if is_ours else fault).error, decision.retryable)

    def error(self, broke: Breakage, report: StreamReport, text: str) -> StreamInterruptedError:
        """The error of an answer that was given up; `text` is the answer so far."""
        fault, count = broke.fault, len(report.attempts)
        silent = isinstance(fault.error, TruncatedStreamError)
        what = SILENT_CUT if silent else f"Stream interrupted: {self._explained(fault, text)}."
        why = report.reason.replace("_", " ") if report.reason is not None else ""
        error = StreamInterruptedError(
            f"{what} Gave up after {count} attempt{'s' if count != 1 else ''} ({why}).",
            report=report,
            retryable=broke.retryable,
            code=fault.error.code if isinstance(fault.error, StreamFault) else "llm/stream-interrupted",
            reason=report.reason,
        )
        error.__cause__ = broke.cause
        return error

    def _explained(self, fault: Fault, text: str) -> str:
        is_ours = isinstance(fault.error, StreamFault)
        said = "" if is_ours else self._explanation.message(fault.error, text)
        return ": ".join(filter(None, (fault.message.rstrip("."), said.rstrip("."))))
