"""The models of one answer: whom to ask, and what to do about a fault of one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

from ..errors import StreamFault
from ..policy import STOP_WITH_FALLBACKS, WAIT_WITH_FALLBACKS, AttemptResult, RecoveryPolicy, Stop, matches
from ..report import (
    CircuitChange,
    CircuitState,
    FaultKind,
    GiveUpReason,
    PassedOver,
    PassReason,
    Strategy,
    StreamReport,
)
from .attempt import RunningAttempt
from .backoff import Backoff, RecoveryCallState
from .breaker import ANSWERED, UNWELL, Admission
from .continuation import Continuation
from .decision import Decision, Ladder
from .events import Model
from .faults import Fault
from .states import Step

_NO_FALLBACK_KINDS = (FaultKind.FILTERED, FaultKind.CANCELLED)  # another model is not asked either
_LOST_ON_THE_WAY = (FaultKind.TRANSPORT, FaultKind.TIMEOUT, FaultKind.TRUNCATED, FaultKind.CORRUPT)
_CONTINUATION_REFUSED = (FaultKind.PREFILL_REFUSED, FaultKind.BAD_REQUEST)


class ModelChain:
    """The models of one answer: which one is asked, how often it failed, and how it is asked to go on.

    Args:
        report: Is told of models that are passed over, and of circuit breakers that change.
        tokens: Counts what is to be sent, to see whether it fits into a model's context window.
    """

    def __init__(
        self,
        models: Sequence[Model],
        policy: RecoveryPolicy,
        clock: Callable[[], float],
        report: StreamReport,
        tokens: Callable[[], int],
    ) -> None:
        self.models = models
        self.index = 0
        self._policy = policy
        self._clock = clock
        self._began = clock()
        self._report = report
        self._tokens = tokens
        self._breaker = policy.breaker if len(models) > 1 else None  # where nobody else can be asked, nobody is cut
        self._is_probe = False
        self._last_fault: Fault | None = None
        self._backoff: Backoff
        self._begin_model()

    @property
    def model(self) -> Model:
        """The model being asked, or to be asked next."""
        return self.models[self.index]

    def begin_attempt(self) -> None:
        """Go to the model that is asked now: this one, or the next where its circuit is open."""
        self._is_probe = False
        while (admission := self._admission()) is Admission.REFUSED and (following := self._following()) is not None:
            self._pass_over(self.model, PassReason.CIRCUIT_OPEN)
            self._go_to(following)
        if admission is Admission.PROBE:
            self._is_probe = True
            self._note_circuit(CircuitState.HALF_OPEN)

    def answers(self) -> None:
        """The model being asked has sent something, or has shown that it is there."""
        if self._breaker is not None and self.model.learned.circuit.succeeded():
            self._note_circuit(CircuitState.CLOSED)

    @property
    def strategy(self) -> Strategy:
        """How this model is asked to go on."""
        return self._ladder.strategy

    @property
    def continuation(self) -> Continuation:
        """The same, with its wording."""
        return self._ladder.continuation

    @property
    def writes_on(self) -> bool:
        """Whether the server is known to write on from what it is given."""
        prefilling = self.model.prefilling
        return self.strategy is Strategy.APPEND or (prefilling is not None and prefilling.certain)

    @property
    def is_last_way(self) -> bool:
        """Whether neither another way to continue nor another model is left."""
        return self._ladder.is_last and not self._has_next

    def progress(self, at: float) -> None:
        """New text arrived at that time."""
        self._backoff.progress(at)
        self._last_fault = None

    def replays(self, fault: Fault, attempt: RunningAttempt) -> Decision | None:
        """Whether the rest of a stream that its server keeps is asked for, as far as the policy goes on at all.

        A replay that brings nothing new and ends as if it were whole may be all that is kept: it is followed by one
        more. One that the network broke is followed by as many as `stop` has.
        """
        if attempt.resumed is not None and attempt.is_barren and fault.kind in (FaultKind.TRUNCATED, FaultKind.CORRUPT):
            return None if attempt.resumed.is_barren else Decision(Step.REPLAY)
        if fault.kind not in _LOST_ON_THE_WAY or (attempt.is_barren and fault.kind is FaultKind.TIMEOUT):
            return None
        backoff = copy(self._backoff)  # nothing is counted where it is not replayed
        state = backoff.failed(fault, _error_of(fault))
        if not self._is_retryable(fault, state) or (delay := backoff.delay(state, self._stop())) is None:
            return None
        self._backoff = backoff
        return Decision(Step.REPLAY, delay)

    def decide(self, fault: Fault, attempt: RunningAttempt) -> Decision:
        """What to do about this fault."""
        if attempt.is_barren:
            return Decision(Step.DESCEND, free=1)
        if self._refuses_continuation(fault, attempt):
            return Decision(Step.DESCEND, free=int(fault.kind is FaultKind.PREFILL_REFUSED))
        if fault.kind is FaultKind.UNVERIFIED_JOINT:
            return self._other_way(attempt.request.strategy)
        state = self._backoff.failed(fault, _error_of(fault))
        retryable = self._is_retryable(fault, state)
        falls_back = self._falls_back(fault, state)
        self._note_failure(fault, attempt, falls_back=falls_back)
        self._last_fault = fault
        delay = self._delay(fault, state, falls_back=falls_back) if retryable else None
        if delay is not None and not (falls_back and self._is_cut_off(delay)):
            return Decision(Step.RETRY, delay, retryable=True)
        if falls_back and self._next_model():
            return Decision(Step.FALL_BACK, retryable=retryable)
        return Decision(Step.GIVE_UP, reason=give_up_reason(fault, retryable), retryable=retryable)

    def _refuses_continuation(self, fault: Fault, attempt: RunningAttempt) -> bool:
        """Whether the API refused our way to continue, and not the question. Then there is another way."""
        continued = bool(attempt.request.turns) or attempt.request.strategy is Strategy.APPEND
        if not continued or fault.kind not in _CONTINUATION_REFUSED:
            return False
        self._ladder.refuse(attempt.request.strategy)
        return True

    def descends(self, failed: Strategy) -> Decision | None:
        """What to do where a continuation added nothing to half a sentence; None where nothing is left to try."""
        if self._ladder.descend(failed):
            return Decision(Step.DESCEND)
        return Decision(Step.FALL_BACK) if self._next_model() else None

    def _other_way(self, failed: Strategy) -> Decision:
        if failed is Strategy.PREFILL:
            self._ladder.refuse(failed)
            return Decision(Step.DESCEND)
        return self.descends(failed) or Decision(Step.GIVE_UP, reason=GiveUpReason.UNVERIFIED_JOINT, retryable=True)

    def goes_on_after_limit(self) -> None:
        """The token limit is what ended the answer: told again, it would end there again."""
        self._ladder.refuse(Strategy.RESTART)

    def leaves_to_next(self, result: AttemptResult) -> bool:
        """Whether an answer that ended without a fault is asked of the next model all the same."""
        wanted = self._policy.fallback_on
        if wanted is None or isinstance(wanted, type | tuple) or not self._has_next:
            return False
        return matches("fallback_on", wanted, self._backoff.ended(result)) and self._next_model()

    def _is_retryable(self, fault: Fault, state: RecoveryCallState) -> bool:
        """What the policy says; but what fails twice in the same way, whatever is sent, is not asked a third time."""
        return matches("retry", self._policy.retry, state) and not fault.repeats(self._last_fault)

    def _delay(self, fault: Fault, state: RecoveryCallState, *, falls_back: bool) -> float | None:
        """Seconds to wait before the same model is asked again; None: not this one any more."""
        has_other = falls_back and self._has_next
        hurries = has_other and self._policy.has_default_patience
        if hurries and _asks_for_time(fault):
            return None
        delay = self._backoff.delay(state, self._stop(), WAIT_WITH_FALLBACKS if hurries else None)
        if delay is None or fault.retry_after is None:
            return delay
        longest = self._policy.max_retry_after
        if fault.retry_after > longest and has_other:
            return None
        return max(delay, min(fault.retry_after, longest))

    def _falls_back(self, fault: Fault, state: RecoveryCallState) -> bool:
        if self._policy.fallback_on is None:
            return fault.kind not in _NO_FALLBACK_KINDS
        return matches("fallback_on", self._policy.fallback_on, state)

    # Whom to ask next

    @property
    def _has_next(self) -> bool:
        return self._following() is not None

    def _following(self) -> int | None:
        """The next model that can be asked this question."""
        return next((i for i in range(self.index + 1, len(self.models)) if self._unfit(i) is None), None)

    def _unfit(self, index: int) -> PassReason | None:
        return self.models[index].unfit(self._tokens)

    def _next_model(self) -> bool:
        following = self._following()
        for index in range(self.index + 1, len(self.models) if following is None else following):
            if (reason := self._unfit(index)) is not None:
                self._pass_over(self.models[index], reason)
        if following is None:
            return False
        self._go_to(following)
        return True

    def _go_to(self, index: int) -> None:
        self.index = index
        self._begin_model()

    def _begin_model(self) -> None:
        self._backoff = Backoff(self._policy.wait, self._clock)
        self._ladder = Ladder(self.model)

    def _stop(self) -> Stop:
        return STOP_WITH_FALLBACKS if self._policy.has_default_stop and self._has_next else self._policy.stop

    def _pass_over(self, model: Model, reason: PassReason) -> None:
        self._report.passed_over.append(PassedOver(model.name, reason, self._clock() - self._began))

    # The circuit breaker

    def _admission(self) -> Admission:
        if self._breaker is None:
            return Admission.ADMITTED
        return self.model.learned.circuit.admit(self._clock(), self._breaker)

    def _is_cut_off(self, delay: float) -> bool:
        """Whether this model is not to be asked again after so many seconds, because another one can be."""
        if self._breaker is None or not self._has_next:
            return False
        return not self.model.learned.circuit.would_admit(self._clock() + delay, self._breaker)

    def _note_failure(self, fault: Fault, attempt: RunningAttempt, *, falls_back: bool) -> None:
        """Only what another model may be asked for counts: what the user keeps to this one opens no circuit."""
        if self._breaker is None or attempt.record.first_token is not None or attempt.resumed is not None:
            return
        if fault.kind in ANSWERED:
            self.answers()
        elif fault.kind in UNWELL and falls_back:
            circuit = self.model.learned.circuit
            if circuit.failed(self._clock(), self._breaker, probe=self._is_probe):
                self._note_circuit(CircuitState.OPEN)

    def _note_circuit(self, state: CircuitState) -> None:
        self._report.circuits.append(CircuitChange(self.model.name, state, self._clock() - self._began))


def _asks_for_time(fault: Fault) -> bool:
    """Whether the provider said that it is not to be asked again at once."""
    return fault.kind is FaultKind.RATE_LIMIT if fault.retry_after is None else fault.retry_after > 0


def _error_of(fault: Fault) -> BaseException:
    return fault.error if fault.error is not None else StreamFault(fault.message)


def give_up_reason(fault: Fault, retryable: bool) -> GiveUpReason:
    if fault.kind is FaultKind.CONTEXT_WINDOW:
        return GiveUpReason.CONTEXT_WINDOW
    return GiveUpReason.ATTEMPTS if retryable else GiveUpReason.NOT_RETRYABLE
