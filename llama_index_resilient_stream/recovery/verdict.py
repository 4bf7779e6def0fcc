"""Did the stream end properly? Evidence is gathered chunk by chunk; the verdict falls when the stream is over.

Strongest evidence first:

1. A finish reason that nothing followed. An error after it is no fault. Text, thinking or tool arguments after a reason
   prove that this server's word is no end: the reason is taken back, and that word is not trusted again.
2. The wire's own terminator, where somebody looked (`http.py`).
3. What this LLM class is known, or this instance has shown, to do: where a finish reason is due, an end without one is
   a cut.

A terminator does not do for a model that is expected to send a finish reason, and did not this time: gateways write it
under what they have lost. Without any of them a clean end is `unknown`, never `complete`. No finish reason closes a
tool call whose arguments are no JSON object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import EmptyStreamError, ErrorFinishError, StreamFault, StreamTimeoutError, TruncatedStreamError
from ..policy import Completeness, StreamEnd, yes_or_no
from ..report import FaultKind, StreamStatus
from .events import Ended, Model
from .faults import Fault, classify, kind_of_finish
from .faults.tables import RETRYABLE
from .finish_reasons import OPEN, FinishMeaning, FinishReason
from .finish_words import UNEXPLAINED

_STATUS = {
    FinishMeaning.COMPLETE: StreamStatus.COMPLETE,
    FinishMeaning.TOOL: StreamStatus.COMPLETE,
    FinishMeaning.UNKNOWN: StreamStatus.UNKNOWN,
    FinishMeaning.LENGTH: StreamStatus.LENGTH,
    FinishMeaning.FILTER: StreamStatus.FILTERED,
}
# A later reason replaces an earlier one only when it says more.
_WEIGHT = {
    FinishMeaning.UNKNOWN: 0,
    FinishMeaning.COMPLETE: 1,
    FinishMeaning.TOOL: 2,
    FinishMeaning.PAUSE: 3,
    FinishMeaning.LENGTH: 4,
    FinishMeaning.FILTER: 5,
    FinishMeaning.ERROR: 6,
}
_GOOD_ENDS = (FinishMeaning.COMPLETE, FinishMeaning.TOOL)
_CUTS_BY_A_LIMIT = (FinishMeaning.LENGTH, FinishMeaning.FILTER)
# What befalls a connection when all has been said. Other errors are in the stream, and may stand before its terminator.
_AFTER_THE_END = (FaultKind.TRANSPORT, FaultKind.TIMEOUT)
# Errors that say in other words that the answer is at its end.
_STATUS_OF_ERROR = {FaultKind.LENGTH: StreamStatus.LENGTH, FaultKind.FILTERED: StreamStatus.FILTERED}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one attempt ended: exactly one of the two is set."""

    status: StreamStatus | None = None
    fault: Fault | None = None
    lacks_only_reason: bool = False
    """The fault is only that no finish reason came, from a model that never sent one. The wire's own terminator did.

    Some servers end every answer so. Where another attempt ends so too and adds nothing, this was the whole answer, as
    far as anybody can tell.
    """
    said_by_user: bool = False
    """The status is what the user's own `completeness` function says."""


class Evidence:
    """What one attempt has shown so far."""

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        """What stands as the last word, and is trusted."""
        self.untrusted_reason: FinishReason | None = None
        """What stands as the last word of a server whose word was followed by more before."""
        self.reason_stands = False
        """Whether a reason came that nothing has followed yet."""
        self.text_after_reason = False
        """Whether text stood on both sides of a reason, with no other reason since."""
        self.text = False
        self.events = 0
        """How many chunks came."""
        self.refusal = ""
        self._came_alone = False
        self._calls: str | None = None
        self._calls_grew = False

    def note_reason(self, reason: FinishReason, *, trusted: bool) -> None:
        """Take in a finish reason. Text on the same chunk is noted after it."""
        self.text_after_reason = False
        self.reason_stands = True
        if not trusted:
            self.untrusted_reason = reason
            return
        known = self.finish_reason
        if known is None or _WEIGHT[reason.kind] > _WEIGHT[known.kind]:
            self.finish_reason = reason
        self._came_alone = self.text or self.has_calls

    def take_back(self) -> str:
        """Something followed the reason. Returns its word."""
        reason = self.finish_reason or self.untrusted_reason
        assert reason is not None, "there is no reason to take back"
        self.text_after_reason = self.text
        self.finish_reason = self.untrusted_reason = None
        self.reason_stands = False
        return reason.word

    def note_calls(self, calls: str) -> None:
        """Take in the fingerprint of the tool calls so far."""
        if calls == self._calls:
            return
        # Another call may come whole beside those that are there; one that changed came in pieces.
        before = self._calls.split("|") if self._calls else ()
        self._calls_grew = self._calls_grew or bool(set(before) - set(calls.split("|")))
        self._calls = calls

    @property
    def reason_is_last_word(self) -> bool:
        """Whether the reason came after text or calls, on a chunk of its own, from a server that is trusted.

        A server that writes its reason on every chunk shows that with the second one: its first must not be believed.
        """
        reason = self.finish_reason
        return reason is not None and self._came_alone and reason.kind is not FinishMeaning.UNKNOWN

    @property
    def closes(self) -> bool:
        """Whether a trusted reason said that nothing more is to come, in good order."""
        return self.finish_reason is not None and self.finish_reason.kind in _GOOD_ENDS

    @property
    def has_calls(self) -> bool:
        """Whether the turn has tool calls, finished or not."""
        return self._calls is not None

    @property
    def is_empty(self) -> bool:
        """Whether there is neither text nor a tool call."""
        return not self.text and not self.has_calls

    @property
    def only_refused(self) -> bool:
        """Whether there is a refusal and nothing else."""
        return bool(self.refusal) and self.is_empty

    @property
    def open_calls(self) -> bool:
        """Whether some call's arguments are no JSON object: they are not whole, whoever says so."""
        return self._calls is not None and OPEN in self._calls

    @property
    def unclosed_calls(self) -> bool:
        """Whether a tool call came in several deltas, or is evidently not whole: only a finish reason closes it."""
        return self._calls_grew or self.open_calls


@dataclass(frozen=True, slots=True)
class Context:
    """What the verdict has to know beside the evidence."""

    model: Model
    completeness: Completeness = "auto"
    first: bool = True
    """Nothing of the answer had been said before this attempt."""
    streamed: bool = True
    """False for a call that answers all at once, where what came is what there is."""
    empty_is_an_answer: bool = False
    """An answer of nothing but a finish reason is accepted."""
    text: Callable[[], str] = str
    """The whole answer so far."""


def judge(seen: Evidence, end: Ended, context: Context) -> Verdict:
    """The verdict on one attempt that ended like this."""
    reason = _reason_of(seen, end, context.model)
    if end.error is not None and not _excuses(reason, seen, end, context):
        return _failed(end, seen)
    if reason is not None and reason.kind in (FinishMeaning.ERROR, FinishMeaning.PAUSE):
        return _unfinished(reason)
    if seen.has_calls and (verdict := _judge_calls(seen, reason)) is not None:
        return verdict
    if seen.only_refused:
        return Verdict(StreamStatus.FILTERED)
    if reason is not None and reason.kind in _CUTS_BY_A_LIMIT:
        return Verdict(_STATUS[reason.kind])
    return _judge_end(seen, end, reason, context)


def _reason_of(seen: Evidence, end: Ended, model: Model) -> FinishReason | None:
    """The finish reason that counts: of the chunks, else what passed by on the wire and LlamaIndex dropped.

    It drops refusals too, and passes on the `stop` behind them.
    """
    on_wire = end.finish_reason
    if on_wire is None or seen.text_after_reason or model.distrusts(on_wire.word):
        return seen.finish_reason
    refused = on_wire.kind is FinishMeaning.FILTER and seen.closes
    known = seen.finish_reason
    return on_wire if known is None or known.word in UNEXPLAINED or refused else known


def _excuses(reason: FinishReason | None, seen: Evidence, end: Ended, context: Context) -> bool:
    """Whether an error came when everything had been said."""
    if isinstance(end.error, (TruncatedStreamError, EmptyStreamError)):
        return False  # whoever read the answer saw that it is not whole, whatever the wire says
    if reason is None or reason.kind is FinishMeaning.UNKNOWN:
        return end.terminated is True and not _must_send_reason(seen, end, context) and _broke_the_wire(seen, end)
    if reason is seen.finish_reason:
        return seen.reason_is_last_word or end.terminated is True or reason.kind not in _GOOD_ENDS
    return reason.kind is FinishMeaning.FILTER or _lost_nothing(seen, end)


def _lost_nothing(seen: Evidence, end: Ended) -> bool:
    """Whether the error came behind all text, where the reason was seen on the wire and in no chunk.

    The wire is read ahead of the chunks: how it ends says nothing where an event in front of that end failed. What
    failed was the event of the reason itself, with nothing else on it, or the wire.
    """
    return end.events_before_reason == seen.events or _broke_the_wire(seen, end)


def _broke_the_wire(seen: Evidence, end: Ended) -> bool:
    return end.error is not None and _fault_of(end.error, seen, end).kind in _AFTER_THE_END


def _failed(end: Ended, seen: Evidence) -> Verdict:
    assert end.error is not None, "nothing failed"
    fault = _fault_of(end.error, seen, end)
    status = _STATUS_OF_ERROR.get(fault.kind)
    if status is not None and seen.text and not seen.has_calls:
        return Verdict(status)
    return Verdict(fault=fault)


def _unfinished(reason: FinishReason) -> Verdict:
    if reason.kind is FinishMeaning.PAUSE:
        error: StreamFault = TruncatedStreamError(f"The model paused with the finish reason {reason.word!r}.")
        return Verdict(fault=_silent(error, FaultKind.TRUNCATED))
    error = ErrorFinishError(f"The model ended its stream with the finish reason {reason.word!r}.")
    kind = kind_of_finish(reason.word)
    return Verdict(fault=_silent(error, kind, retryable=kind in RETRYABLE))


def _judge_calls(seen: Evidence, reason: FinishReason | None) -> Verdict | None:
    if reason is not None and reason.kind in _CUTS_BY_A_LIMIT:
        error = TruncatedStreamError(f"A tool call was cut by the finish reason {reason.word!r}.")
        return Verdict(fault=_silent(error, FaultKind.TRUNCATED, retryable=False))
    if seen.open_calls:
        return Verdict(fault=_silent(TruncatedStreamError("A tool call was cut."), FaultKind.TRUNCATED))
    return None


def _judge_end(seen: Evidence, end: Ended, reason: FinishReason | None, context: Context) -> Verdict:
    """The stream ended cleanly, and nothing says that a limit or a policy ended it."""
    status = _STATUS[reason.kind] if reason is not None else None
    if context.streamed and (verdict := _asked(seen, end, reason, context)) is not None:
        return verdict
    if status is None:
        if context.streamed and _is_cut(seen, end, context):
            fault = _silent(TruncatedStreamError(), FaultKind.TRUNCATED)
            return Verdict(fault=fault, lacks_only_reason=_lacks_only_reason(seen, end, context))
        status = _status_without_reason(seen, end, context)
    if seen.is_empty and context.first and not context.empty_is_an_answer:
        return Verdict(fault=_silent(EmptyStreamError("The stream ended without a single word."), FaultKind.EMPTY))
    return Verdict(status)


def _asked(seen: Evidence, end: Ended, reason: FinishReason | None, context: Context) -> Verdict | None:
    """What the user's own `completeness` function says."""
    if not callable(context.completeness) or seen.has_calls:
        return None
    word = reason.word if reason is not None else None
    whole = context.completeness(StreamEnd(context.text(), word, end.terminated))
    if whole is None:
        return None
    if yes_or_no("completeness", whole):
        return Verdict(StreamStatus.COMPLETE, said_by_user=True)
    return Verdict(fault=_silent(TruncatedStreamError(), FaultKind.TRUNCATED))


def _is_cut(seen: Evidence, end: Ended, context: Context) -> bool:
    """Whether an end without a trusted finish reason is a cut."""
    if end.terminated is False and context.completeness != "lenient":
        return True
    if seen.untrusted_reason is not None or seen.text_after_reason:
        return context.completeness == "strict" or seen.unclosed_calls
    return _must_send_reason(seen, end, context)


def _lacks_only_reason(seen: Evidence, end: Ended, context: Context) -> bool:
    if end.terminated is not True or context.completeness == "strict" or seen.unclosed_calls:
        return False
    return not context.model.learned.sends_finish_reason


def _status_without_reason(seen: Evidence, end: Ended, context: Context) -> StreamStatus:
    untrusted = seen.untrusted_reason
    if untrusted is not None and untrusted.kind in _CUTS_BY_A_LIMIT:
        return _STATUS[untrusted.kind]  # not proven, and the cautious reading of a clean end
    if end.terminated is True and (untrusted is not None or seen.text_after_reason):
        return StreamStatus.COMPLETE  # its word is no end, but its protocol's is
    whole = end.terminated is True and not end.reason_due and not _is_due(context.model)
    return StreamStatus.COMPLETE if whole else StreamStatus.UNKNOWN


def _must_send_reason(seen: Evidence, end: Ended, context: Context) -> bool:
    """Whether an end without any finish reason is a cut."""
    if context.completeness == "strict" or seen.unclosed_calls:
        return True
    if context.completeness == "lenient":
        return False
    return end.terminated is False or end.reason_due or _is_due(context.model)


def _is_due(model: Model) -> bool:
    """Whether a finish reason has to come from this model: because its class sends one, or because it has before."""
    return model.learned.sends_finish_reason if model.sends_finish_reason is None else model.sends_finish_reason


def _fault_of(error: Exception, seen: Evidence, end: Ended) -> Fault:
    if isinstance(error, StreamTimeoutError):
        return _silent(error, FaultKind.TIMEOUT)
    if isinstance(error, TruncatedStreamError):
        return _silent(error, FaultKind.TRUNCATED)
    if isinstance(error, EmptyStreamError):
        return _silent(error, FaultKind.EMPTY)
    return classify(error, streamed=bool(seen.events) or end.answered, headers=end.error_headers)


def _silent(error: Exception, kind: FaultKind, *, retryable: bool = True) -> Fault:
    return Fault(kind=kind, retryable=retryable, message=str(error), error=error)
