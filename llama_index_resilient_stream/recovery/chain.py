"""The models of one answer: whom to ask, and what to do about a fault of one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import StreamFault
from ..policy import STOP_WITH_FALLBACKS, AttemptResult, RecoveryPolicy, matches
from ..report import FaultKind, GiveUpReason, Strategy
from .attempt import RunningAttempt
from .backoff import Backoff, RecoveryCallState
from .continuation import Continuation
from .decision import Decision, Ladder
from .events import Model
from .faults import Fault
from .states import Step

_NO_FALLBACK_KINDS = (FaultKind.FILTERED, FaultKind.CANCELLED)  # another model is not asked either
_CONTINUATION_REFUSED = (FaultKind.PREFILL_REFUSED, FaultKind.BAD_REQUEST)


class ModelChain:
    """The models of one answer: which one is asked, how often it failed, and how it is asked to go on."""

    def __init__(self, models: Sequence[Model], policy: RecoveryPolicy, clock: Callable[[], float]) -> None:
        self.models = models
        self.index = 0
        self._policy = policy
        self._clock = clock
        self._last_fault: Fault | None = None
        self._begin_model()

    @property
    def model(self) -> Model:
        """The model being asked, or to be asked next."""
        return self.models[self.index]

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

    def decide(self, fault: Fault, attempt: RunningAttempt) -> Decision:
        """What to do about this fault."""
        if self._refuses_continuation(fault, attempt):
            return Decision(Step.DESCEND, free=int(fault.kind is FaultKind.PREFILL_REFUSED))
        if fault.kind is FaultKind.UNVERIFIED_JOINT:
            return self._other_way(attempt.request.strategy)
        error = fault.error if fault.error is not None else StreamFault(fault.message)
        state = self._backoff.failed(fault, error)
        retryable = self._is_retryable(fault, state)
        self._last_fault = fault
        if retryable and (delay := self._delay(fault, state)) is not None:
            return Decision(Step.RETRY, delay, retryable=True)
        if self._falls_back(fault, state) and self._next_model():
            return Decision(Step.FALL_BACK, retryable=retryable)
        return Decision(Step.GIVE_UP, reason=_why(fault, retryable), retryable=retryable)

    def _refuses_continuation(self, fault: Fault, attempt: RunningAttempt) -> bool:
        """Whether the API refused our way to continue, and not the question, and there is another way."""
        continued = bool(attempt.request.turns) or attempt.request.strategy is Strategy.APPEND
        return continued and fault.kind in _CONTINUATION_REFUSED and self._ladder.refuse(attempt.request.strategy)

    def descends(self, failed: Strategy) -> Decision | None:
        """What to do where a continuation added nothing to half a sentence; None where nothing is left to try."""
        if self._ladder.descend(failed):
            return Decision(Step.DESCEND)
        return Decision(Step.FALL_BACK) if self._next_model() else None

    def _other_way(self, failed: Strategy) -> Decision:
        if failed is Strategy.PREFILL and self._ladder.refuse(failed):
            return Decision(Step.DESCEND)
        return self.descends(failed) or Decision(Step.GIVE_UP, reason=GiveUpReason.UNVERIFIED_JOINT, retryable=True)

    def leaves_to_next(self, result: AttemptResult) -> bool:
        """Whether an answer that ended without a fault is asked of the next model all the same."""
        wanted = self._policy.fallback_on
        if wanted is None or isinstance(wanted, type | tuple) or not self._has_next:
            return False
        return matches(wanted, self._backoff.ended(result)) and self._next_model()

    def _is_retryable(self, fault: Fault, state: RecoveryCallState) -> bool:
        """What the policy says; but what fails twice in the same way, whatever is sent, is not asked a third time."""
        return matches(self._policy.retry, state) and not fault.repeats(self._last_fault)

    def _delay(self, fault: Fault, state: RecoveryCallState) -> float | None:
        """Seconds to wait before the same model is asked again; None: not this one any more."""
        delay = self._backoff.delay(state)
        if delay is None or fault.retry_after is None:
            return delay
        longest = self._policy.max_retry_after
        if fault.retry_after > longest and self._has_next:
            return None
        return max(delay, min(fault.retry_after, longest))

    def _falls_back(self, fault: Fault, state: RecoveryCallState) -> bool:
        if self._policy.fallback_on is None:
            return fault.kind not in _NO_FALLBACK_KINDS
        return matches(self._policy.fallback_on, state)

    @property
    def _has_next(self) -> bool:
        return self.index + 1 < len(self.models)

    def _next_model(self) -> bool:
        if not self._has_next:
            return False
        self.index += 1
        self._begin_model()
        return True

    def _begin_model(self) -> None:
        stop = self._policy.stop
        if self._policy.has_default_stop and self._has_next:
            stop = STOP_WITH_FALLBACKS
        self._backoff = Backoff(stop, self._policy.wait, self._clock)
        self._ladder = Ladder(self.model)


def _why(fault: Fault, retryable: bool) -> GiveUpReason:
    if fault.kind is FaultKind.CONTEXT_WINDOW:
        return GiveUpReason.CONTEXT_WINDOW
    return GiveUpReason.ATTEMPTS if retryable else GiveUpReason.NOT_RETRYABLE
