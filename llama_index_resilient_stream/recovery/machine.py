"""The state machine of one answer. Read this first.

    recovery.request          what to ask now
    recovery.receive(event)   a chunk, or how the stream ended  ->  the chunks to show now
    recovery.next_delay()     None: done;  seconds: wait, then ask again;  raises: give up

                        Chunk
                        +---+
                        v   |            Ended, verdict: a status
      request ------> streaming ------------------------------------------> over
         ^                |                                                  ^
         |                | Ended, verdict: a fault                          |
         |                v                                                  |
         +--- wait <-- deciding -- nobody left to ask, or a budget spent ----+
                          |
                          +-- this model's patience is used up: the next model

Every transition is in this file. Nothing here waits, opens, closes, sleeps, logs or knows LlamaIndex: whoever drives
the machine does that (`drive.py`, sync and async).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from ..errors import SILENT_CUT, StreamFault, StreamInterruptedError, StreamTimeoutError, TruncatedStreamError
from ..policy import STOP_WITH_FALLBACKS, RecoveryPolicy
from ..report import Attempt, FaultKind, GiveUpReason, Strategy, StreamReport, StreamStatus
from .backoff import Backoff
from .continuation import estimate_tokens
from .events import Chunk, Ended, Model, Request
from .faults import Fault
from .finish_reasons import FinishMeaning
from .seam import Retelling, Seam
from .usage import UsageMeter
from .verdict import Evidence, judge

TAIL_TIMEOUT = 5.0
"""Seconds to wait for what may follow a finish signal (a usage chunk, the end of the body)."""


_NO_FALLBACK_KINDS = (FaultKind.FILTERED, FaultKind.CANCELLED)  # another model is not asked either


class Join(Protocol):
    """What `Seam` and `Retelling` have in common."""

    settled: bool
    decision: str
    dropped: int
    leftover: str
    most_held: int

    def feed(self, text: str) -> str: ...

    def finish(self, *, complete: bool) -> str: ...


class Recovery:
    """One answer, from the question to its stated outcome, over as many attempts and models as the policy allows.

    `partial_text` is text that the reader has from before, when an interrupted answer is taken up again.
    `restart_only` is for turns with tools or structured output, which are never continued. `streamed` is False for a
    call that answers all at once. `question` is opaque, and goes with the error of an answer given up.
    `question_tokens` estimates what asking again costs; it is called only when that happens.
    """

    def __init__(
        self,
        models: Sequence[Model],
        policy: RecoveryPolicy,
        *,
        partial_text: str = "",
        restart_only: bool = False,
        streamed: bool = True,
        question: object = None,
        question_tokens: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models = models
        self.policy = policy
        self.clock = clock
        self.report = StreamReport(stream_id=uuid.uuid4().hex, characters=len(partial_text))
        self.fault: Fault | None = None
        """What ended the last attempt, where it was a fault."""
        self.limit: float | None = None
        """Seconds that may pass until the next sign of progress."""
        self._restart_only = restart_only
        self._streamed = streamed
        self._question = question
        self.usage = UsageMeter(self.report, question_tokens)
        self._parts = [partial_text] if partial_text else []
        self._began = self._last_text_at = clock()
        self._index = 0
        self._patience = self._new_patience()
        self._barren_rounds = self._length_rounds = self._free_attempts = 0
        self._untold_ends = 0  # attempts in a row whose only fault is that no finish reason came, see Verdict
        self._counted = 0  # characters that an output limit has counted already: after it a new one begins
        self._cut: Fault | None = None  # the first fault since the last new text
        self._delay: float | None = None
        self.error: StreamInterruptedError | None = None
        """Why it was given up, where it was."""
        self._waited = 0.0
        self._attempt: Attempt | None = None
        self._request: Request
        self._evidence = Evidence()
        self._join: Join | None = None
        self.last_payload: object = None
        """What came last, from any attempt."""

    # What the driver asks

    @property
    def request(self) -> Request:
        """What to ask now. Reading it begins the attempt."""
        if self._attempt is None:
            self._attempt = self._begin_attempt()
        return self._request

    def receive(self, event: Chunk | Ended) -> Sequence[Chunk]:
        """Take in one event; give back what to show now."""
        if isinstance(event, Ended):
            return self._on_end(event)
        return self._on_chunk(event)

    def next_delay(self) -> float | None:
        """None: done. Seconds: wait that long, then ask `request`. Raises StreamInterruptedError: gave up."""
        if self.error is not None and self.policy.on_exhausted == "raise":
            raise self.error
        return self._delay

    def cancel(self) -> None:
        """The reader left. That is no fault, and nothing is asked again."""
        if self.over:
            return
        if self._attempt is not None:
            self._close_attempt(self._attempt, None)
        self._finish(StreamStatus.CANCELLED)

    @property
    def over(self) -> bool:
        """Whether the answer has its outcome."""
        return self.report.status is not StreamStatus.STREAMING

    @property
    def answer(self) -> str:
        """The whole text so far, as the reader has it."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    @property
    def model(self) -> Model:
        """The model being asked, or to be asked next."""
        return self.models[self._index]

    @property
    def asked_model(self) -> Model:
        """The model that was asked last."""
        return self.models[self._request.model]

    @property
    def elapsed(self) -> float:
        """Seconds since the answer was asked for."""
        return self.clock() - self._began

    @property
    def deadline_at(self) -> float | None:
        """When the total time is over, on the machine's clock."""
        return None if self.policy.deadline is None else self._began + self.policy.deadline

    # Streaming

    def _on_chunk(self, chunk: Chunk) -> Sequence[Chunk]:
        attempt = self._attempt
        assert attempt is not None, "a chunk came before anything was asked"
        attempt.chunks += 1
        self._evidence.events = True
        self.last_payload = chunk.payload
        if chunk.progress and attempt.first_token is None:
            attempt.first_token = self.elapsed
            self.limit = self.policy.idle_timeout
        if chunk.finish_reason is not None or chunk.tools is not None or chunk.usage is not None:
            self._note(chunk, attempt)
        if self._join is not None:
            return self._joined(chunk, self._join)
        if chunk.text:
            self._evidence.text = True
            self._add(chunk.text)
        return (chunk,)

    def _note(self, chunk: Chunk, attempt: Attempt) -> None:
        model, evidence = self.model, self._evidence
        evidence.note(chunk, model.untrusted_finish_reasons)
        if chunk.usage:
            attempt.usage = chunk.usage
        if evidence.finish_reason is not None:
            model.learned.sends_finish_reason = True
            attempt.finish_reason = evidence.finish_reason.word
            if evidence.finish_reason.kind is not FinishMeaning.OTHER and self.limit is not None:
                self.limit = min(self.limit, TAIL_TIMEOUT)

    def _joined(self, chunk: Chunk, join: Join) -> Sequence[Chunk]:
        had_text = bool(chunk.text)
        if had_text:
            self._evidence.text = True
        chunk.untouched = False
        if not join.settled:
            if had_text:
                chunk.text = join.feed(chunk.text)
            if chunk.finish_reason is not None and self._evidence.closes:
                chunk.text += self._finish_join(join, complete=True)
        chunk.reset = self._show(chunk.text, join)
        carries_more = chunk.finish_reason is not None or chunk.tools is not None or chunk.usage is not None
        if chunk.text or chunk.reset or carries_more or (chunk.progress and not had_text):
            return (chunk,)
        return ()

    def _finish_join(self, join: Join, *, complete: bool) -> str:
        text = join.finish(complete=complete)
        join.settled = True
        return text

    def _show(self, text: str, join: Join) -> bool:
        """Add to the answer; True where a retelling differed and the answer is now the new telling."""
        if isinstance(join, Retelling) and join.reset:
            join.reset = False
            self.report.resets += 1
            self.report.characters = 0
            self._parts = []
            self._add(join.told)
            return True
        if text:
            self._add(text)
        return False

    def _add(self, text: str) -> None:
        self._parts.append(text)
        self._last_text_at = self.clock()
        self.report.characters += len(text)
        if self._attempt is not None:
            self._attempt.characters += len(text)

    # The end of an attempt

    def _on_end(self, event: Ended) -> Sequence[Chunk]:
        attempt = self._attempt
        assert attempt is not None, "a stream ended before anything was asked"
        verdict = judge(
            self._evidence,
            event.error,
            terminated=event.terminated,
            model=self.model,
            completeness=self.policy.completeness,
            first=not self._request.partial_text,
            streamed=self._streamed,
        )
        at_its_end = verdict.status in (StreamStatus.COMPLETE, StreamStatus.UNKNOWN)
        shown = self._flush(complete=at_its_end)
        self._close_attempt(attempt, verdict.fault)
        if attempt.characters:
            self._patience.progress(self._last_text_at)
            self._cut = None
        self._cut = self._cut or verdict.fault
        self._untold_ends = self._untold_ends + 1 if verdict.only_untold else 0
        if verdict.fault is not None and self._told_all(attempt):
            self._finish(StreamStatus.UNKNOWN)
        elif verdict.fault is not None:
            self._after_fault(verdict.fault, attempt)
        elif verdict.status is StreamStatus.LENGTH and self._goes_on_after_length(attempt):
            self._length_rounds += 1
            self._counted = len(self.answer)
            self._ask_again(0.0)
        elif verdict.status is not None:
            self._finish(verdict.status)
        return [*shown, *self._last_words()] if self.over else shown

    def _flush(self, *, complete: bool) -> list[Chunk]:
        """What the seam still held, now that nothing follows."""
        join = self._join
        if join is None or join.settled:
            return []
        text = self._finish_join(join, complete=complete)
        reset = self._show(text, join)
        return [Chunk(text, self.last_payload, untouched=False, reset=reset)] if text or reset else []

    def _close_attempt(self, attempt: Attempt, fault: Fault | None) -> None:
        attempt.ended = self.elapsed
        self.fault = fault
        if fault is not None:
            attempt.fault, attempt.detail = fault.kind, fault.message
            if fault.retryable and not attempt.chunks and not isinstance(fault.error, StreamFault):
                attempt.requests += self.model.own_retries
        if self._join is not None:
            attempt.seam, attempt.held = self._join.decision, self._join.most_held
            attempt.dropped = self._join.dropped
            self.usage.throw_away(attempt.dropped)

    def _last_words(self) -> list[Chunk]:
        """What is shown at the very end: text still held back, and in "partial" mode the status."""
        words = []
        if self._join is not None and self._join.leftover:
            self._add(self._join.leftover)
            words.append(Chunk(self._join.leftover, self.last_payload, untouched=False))
        if self.error is not None:
            self.error.partial_text = self.answer
            if self.policy.on_exhausted == "partial":
                words.append(Chunk("", untouched=False))  # without a payload: no cut tool call may ride on it
        return words

    def _goes_on_after_length(self, attempt: Attempt) -> bool:
        return (
            self._length_rounds < self.policy.continue_on_length
            and attempt.characters > 0  # else reasoning ate the budget, and would again
            and not self._restart_only
            and self._spent_budget(0.0) is None
        )

    # Deciding what to do about a fault

    def _after_fault(self, fault: Fault, attempt: Attempt) -> None:
        if fault.kind is FaultKind.PREFILL_REFUSED and attempt.strategy is Strategy.PREFILL:
            self.model.learned.refuses_prefill = True
            self._free_attempts += 1
            self._ask_again(0.0)
            return
        if self._evidence.has_calls:
            self._restart_only = True
        delay = self._delay_on_this_model(fault, attempt)
        if delay is None and fault.kind not in _NO_FALLBACK_KINDS and self._next_model():
            delay = 0.0
        if delay is None:
            self._give_up(fault, self._why_out_of_patience(fault))
        elif (reason := self._spent_budget(delay)) is not None:
            self._give_up(fault, reason)
        else:
            self._ask_again(delay)

    def _delay_on_this_model(self, fault: Fault, attempt: Attempt) -> float | None:
        """Seconds to wait before the same model is asked again; None: not this one any more."""
        if not fault.retryable:
            return None
        self._barren_rounds = self._barren_rounds + 1 if self._was_barren(fault, attempt) else 0
        if self._barren_rounds >= 2:
            return None
        delay = self._patience.failed(fault.error or StreamFault(fault.message))
        if delay is None or fault.retry_after is None:
            return delay
        longest = self.policy.max_retry_after
        if fault.retry_after > longest and self._has_next_model:
            return None
        return max(delay, min(fault.retry_after, longest))

    def _was_barren(self, fault: Fault, attempt: Attempt) -> bool:
        """A continuation that ended by itself and added nothing. One cut while it repeated the anchor might have."""
        return (
            bool(self._request.partial_text)
            and not attempt.characters
            and isinstance(fault.error, StreamFault)
            and not isinstance(fault.error, StreamTimeoutError)
            and not (self._evidence.text and attempt.seam == "")
        )

    def _told_all(self, attempt: Attempt) -> bool:
        """Whether two attempts ended without a finish reason, and the last said what it was asked to and no more.

        That is the repeated anchor, the same calls again, or nothing at all where the model just writes on.
        """
        if not self._told_nothing_new(attempt):
            return False
        repeated = self._evidence.text and attempt.seam != ""
        return repeated or self._evidence.has_calls or attempt.strategy in ("append", "prefill")

    def _told_nothing_new(self, attempt: Attempt) -> bool:
        has_answer = bool(self._request.partial_text) or self._evidence.has_calls
        return self._untold_ends >= 2 and not attempt.characters and has_answer

    def _spent_budget(self, delay: float) -> GiveUpReason | None:
        """The total that forbids another attempt after `delay` seconds."""
        if self.report.requests - self._free_attempts >= self.policy.max_attempts:
            return GiveUpReason.ATTEMPTS
        if self.deadline_at is not None and self.clock() + delay >= self.deadline_at:
            return GiveUpReason.DEADLINE
        limit = self.policy.max_extra_tokens
        if limit is not None and self.report.extra_tokens + self.usage.cost_of_asking(self._sent_along()) > limit:
            return GiveUpReason.EXTRA_TOKENS
        return None

    def _why_out_of_patience(self, fault: Fault) -> GiveUpReason:
        if self.deadline_at is not None and self.clock() >= self.deadline_at:
            return GiveUpReason.DEADLINE
        if fault.kind is FaultKind.CONTEXT_WINDOW:
            return GiveUpReason.CONTEXT_WINDOW
        if not fault.retryable:
            return GiveUpReason.NOT_RETRYABLE
        return GiveUpReason.NO_PROGRESS if self._barren_rounds >= 2 else GiveUpReason.ATTEMPTS

    def _give_up(self, fault: Fault, reason: GiveUpReason) -> None:
        if self._told_nothing_new(self.report.attempts[-1]):
            self._finish(StreamStatus.UNKNOWN)  # an error behind what may well be the whole answer helps nobody
            return
        self.report.reason, self.report.retryable = reason, fault.retryable
        self._finish(StreamStatus.INTERRUPTED)
        silent = isinstance(fault.error, TruncatedStreamError)
        what = SILENT_CUT if silent else f"Stream interrupted: {fault.message.rstrip('.')}."
        count = len(self.report.attempts)
        self.error = StreamInterruptedError(
            f"{what} Gave up after {count} attempt{'s' if count != 1 else ''} ({reason.replace('_', ' ')}).",
            report=self.report,
            retryable=fault.retryable,
            code=fault.error.code if isinstance(fault.error, StreamFault) else "llm/stream-interrupted",
            reason=reason,
        )
        self.error.question = self._question
        self.error.restart_only = self._restart_only
        # A provider's refusal of our own continuation is not what befell the answer.
        cut = self._cut if not fault.retryable and self._request.partial_text and self._cut is not None else fault
        self.error.__cause__ = cut.error

    def _finish(self, status: StreamStatus) -> None:
        self._delay = None
        report = self.report
        report.status = status
        report.seconds = self.elapsed
        report.finish_reason = report.attempts[-1].finish_reason if report.attempts else None
        report.usage, report.usage_estimated = self.usage.usage()

    # The next attempt

    @property
    def _has_next_model(self) -> bool:
        return self._index + 1 < len(self.models)

    def _next_model(self) -> bool:
        if not self._has_next_model:
            return False
        self._index += 1
        self._barren_rounds = 0
        self._patience = self._new_patience()
        return True

    def _new_patience(self) -> Backoff:
        stop = self.policy.stop
        if self.policy.has_default_stop and self._has_next_model:
            stop = STOP_WITH_FALLBACKS
        return Backoff(stop, self.policy.wait, self.clock)

    def _ask_again(self, delay: float) -> None:
        self.usage.ask_again(self._sent_along())
        self._delay = self._waited = delay
        self._attempt = None

    def _sent_along(self) -> str:
        """What is sent again beside the question."""
        return "" if self._restart_only else self.answer + self.model.continuation.wording

    def _begin_attempt(self) -> Attempt:
        if not self._streamed:
            self._parts = []
        partial_text = self.answer
        strategy = self._strategy(partial_text)
        continuation = self.model.continuation
        if strategy not in (Strategy.FIRST, Strategy.RESTART):
            continuation = replace(continuation, strategy=strategy)
            anchor = continuation.anchor(partial_text)
            self._join = Seam(partial_text, anchor, strategy=strategy, clock=self.clock)
            self._request = Request(
                self._index,
                strategy,
                partial_text,
                continuation.turns(partial_text),
                continuation.extra if strategy is Strategy.PREFILL else {},
                max(0, estimate_tokens(partial_text[self._counted :]) - estimate_tokens(anchor)),
            )
        else:
            self._join = Retelling(partial_text) if partial_text else None
            self._request = Request(self._index, strategy, partial_text)
        self._evidence = Evidence()
        self.limit = self.model.first_token_timeout
        attempt = Attempt(len(self.report.attempts) + 1, self.model.name, strategy, self.elapsed, self._waited)
        self.report.attempts.append(attempt)
        return attempt

    def _strategy(self, partial_text: str) -> Strategy:
        if not partial_text:
            return Strategy.RESTART if self.report.attempts else Strategy.FIRST
        if self._restart_only:
            return Strategy.RESTART
        wanted = self.model.continuation.strategy
        return Strategy.ASK if wanted is Strategy.PREFILL and self.model.learned.refuses_prefill else wanted
