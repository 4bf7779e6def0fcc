"""Did the stream end properly? Evidence is gathered chunk by chunk; the verdict falls when the stream is over.

Strongest evidence first: a finish signal seen on ANY chunk (a usage chunk may follow it, and an error after it is no
fault); then the wire's own terminator, where somebody looked; then what this model is known, or has shown, to do. A
terminator does not do for a model that is expected to tell, and did not this time: gateways write it under what they
have lost. Where there is none and a model never tells, a clean end is `unknown`, never `complete`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import EmptyStreamError, ErrorFinishError, StreamTimeoutError, TruncatedStreamError
from ..policy import Completeness
from ..report import StreamStatus
from .events import Chunk, Model
from .faults import Fault, FaultKind, classify
from .finish_reasons import OPEN, FinishMeaning, FinishReason

_STATUS = {
    FinishMeaning.COMPLETE: StreamStatus.COMPLETE,
    FinishMeaning.TOOL: StreamStatus.COMPLETE,
    FinishMeaning.OTHER: StreamStatus.COMPLETE,
    FinishMeaning.LENGTH: StreamStatus.LENGTH,
    FinishMeaning.FILTER: StreamStatus.FILTERED,
}
# A later signal replaces an earlier one only when it says more.
_WEIGHT = {
    FinishMeaning.OTHER: 0,
    FinishMeaning.COMPLETE: 1,
    FinishMeaning.TOOL: 2,
    FinishMeaning.LENGTH: 3,
    FinishMeaning.FILTER: 4,
    FinishMeaning.ERROR: 5,
}
_CLOSES_A_CALL = (FinishMeaning.COMPLETE, FinishMeaning.TOOL, FinishMeaning.OTHER)
# What befalls a connection when all has been said. Other errors are in the stream, and may stand before its terminator.
_AFTER_THE_END = (FaultKind.TRANSPORT, FaultKind.TIMEOUT)
# Errors that say in other words that the answer is at its end.
_STATUS_OF_ERROR = {FaultKind.LENGTH: StreamStatus.LENGTH, FaultKind.FILTERED: StreamStatus.FILTERED}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one attempt ended: exactly one of the two is set."""

    status: StreamStatus | None = None
    fault: Fault | None = None
    only_untold: bool = False
    """The fault is only that no finish reason came, from a model that never sent one. The wire's own terminator did.

    Some servers end every answer so. Where another attempt ends so too and adds nothing, this was the whole answer, as
    far as anybody can tell.
    """


class Evidence:
    """What one attempt has shown so far."""

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self.text = False
        self.events = False
        self._calls: str | None = None
        self._calls_grew = False

    def note(self, chunk: Chunk, untrusted_finish_reasons: frozenset[str]) -> None:
        """Take in a chunk that carries more than text."""
        if chunk.finish_reason is not None and chunk.finish_reason.word not in untrusted_finish_reasons:
            known = self.finish_reason
            if known is None or _WEIGHT[chunk.finish_reason.kind] > _WEIGHT[known.kind]:
                self.finish_reason = chunk.finish_reason
        if chunk.tools is not None and chunk.tools != self._calls:
            # Another call may come whole beside those that are there; one that changed came in pieces.
            before = self._calls.split("|") if self._calls else ()
            self._calls_grew = self._calls_grew or bool(set(before) - set(chunk.tools.split("|")))
            self._calls = chunk.tools

    @property
    def closes(self) -> bool:
        """Whether a signal said that nothing more is to come, in good order."""
        return self.finish_reason is not None and self.finish_reason.kind in _CLOSES_A_CALL

    @property
    def has_calls(self) -> bool:
        """Whether the turn has tool calls, finished or not."""
        return self._calls is not None

    @property
    def unclosed_calls(self) -> bool:
        """Whether a tool call came in several deltas, or is evidently not whole: only a signal closes it."""
        return self._calls_grew or (self._calls is not None and OPEN in self._calls)


def judge(
    seen: Evidence,
    error: Exception | None,
    *,
    model: Model,
    completeness: Completeness,
    first: bool,
    streamed: bool = True,
    terminated: bool | None = None,
) -> Verdict:
    """The verdict on one attempt.

    `first`: nothing of the answer had been said before it. `streamed`: False for a call that answers all at once,
    where what came is what there is. `terminated`: whether the wire's own terminator was seen, see `Ended`.
    """
    if (
        not streamed
        and error is None
        and (seen.finish_reason is None or seen.closes or not _is_bad(seen, seen.finish_reason))
    ):
        return Verdict(_STATUS[seen.finish_reason.kind] if seen.finish_reason is not None else StreamStatus.UNKNOWN)
    if seen.finish_reason is not None:
        return _finished(seen, seen.finish_reason, first)
    must_tell = _must_have_told(seen, model, completeness, terminated)
    whole = terminated is True and not must_tell and not _is_due(model)
    if error is not None:
        fault = _fault_of(error, seen)
        if whole and fault.kind in _AFTER_THE_END:
            return _ended(seen, first, StreamStatus.COMPLETE)
        status = _STATUS_OF_ERROR.get(fault.kind)
        if status is not None and seen.text and not seen.has_calls:
            return Verdict(status)
        return Verdict(fault=fault)
    if must_tell:
        silent_cut = _silent(TruncatedStreamError(), FaultKind.TRUNCATED)
        open_to_doubt = terminated is True and completeness != "strict" and not seen.unclosed_calls
        return Verdict(fault=silent_cut, only_untold=open_to_doubt and not model.learned.sends_finish_reason)
    return _ended(seen, first, StreamStatus.COMPLETE if whole else StreamStatus.UNKNOWN)


def _ended(seen: Evidence, first: bool, status: StreamStatus) -> Verdict:
    if first and not seen.text and not seen.has_calls:
        return Verdict(fault=_empty())
    return Verdict(status)


def _fault_of(error: Exception, seen: Evidence) -> Fault:
    if isinstance(error, StreamTimeoutError):
        return _silent(error, FaultKind.TIMEOUT)
    return classify(error, streamed=seen.events)


def _is_bad(seen: Evidence, finish_reason: FinishReason) -> bool:
    return finish_reason.kind is FinishMeaning.ERROR or seen.has_calls


def _finished(seen: Evidence, finish_reason: FinishReason, first: bool) -> Verdict:
    if finish_reason.kind is FinishMeaning.ERROR:
        cause = ErrorFinishError(f"The model ended its stream with the finish reason {finish_reason.word!r}.")
        return Verdict(fault=_silent(cause, FaultKind.ERROR_FINISH))
    if seen.has_calls and finish_reason.kind not in _CLOSES_A_CALL:
        cause2 = TruncatedStreamError(f"A tool call was cut by the finish reason {finish_reason.word!r}.")
        return Verdict(fault=_silent(cause2, FaultKind.TRUNCATED, retryable=False))
    if first and not seen.text and not seen.has_calls and finish_reason.kind in _CLOSES_A_CALL:
        return Verdict(fault=_empty())
    return Verdict(_STATUS[finish_reason.kind])


def _must_have_told(seen: Evidence, model: Model, completeness: Completeness, terminated: bool | None = None) -> bool:
    """Whether an end without a finish signal is a cut."""
    if completeness == "strict":
        return True
    if seen.unclosed_calls:
        return True
    if completeness == "lenient":
        return False
    return terminated is False or _is_due(model)


def _is_due(model: Model) -> bool:
    """Whether a finish reason has to come from this model: because its class sends one, or because it has before."""
    return model.learned.sends_finish_reason if model.sends_finish_reason is None else model.sends_finish_reason


def _empty() -> Fault:
    return _silent(EmptyStreamError("The stream ended without a single word."), FaultKind.EMPTY)


def _silent(error: Exception, kind: FaultKind, *, retryable: bool = True) -> Fault:
    return Fault(kind=kind, retryable=retryable, message=str(error), error=error)
