"""What to do about a fault: the next way to continue, the same model again, the next model, or nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

from ..errors import StreamFault
from ..policy import STOP_WITH_FALLBACKS, AttemptResult, RecoveryPolicy, matches
from ..report import FaultKind, GiveUpReason, Strategy
from .attempt import RunningAttempt
from .backoff import Backoff, RecoveryCallState
from .continuation import Continuation
from .events import Model
from .faults import Fault
from .states import Step

_NO_FALLBACK_KINDS = (FaultKind.FILTERED, FaultKind.CANCELLED)  # another model is not asked either
_LOST_ON_THE_WAY = (FaultKind.TRANSPORT, FaultKind.TIMEOUT, FaultKind.TRUNCATED, FaultKind.CORRUPT)
_CONTINUATION_REFUSED = (FaultKind.PREFILL_REFUSED, FaultKind.BAD_REQUEST)


@dataclass(frozen=True, slots=True)
class Decision:
    """What comes next. With a `reason` the answer is given up."""

    step: Step
    delay: float = 0.0
    """Seconds of back-off."""
    reason: GiveUpReason | None = None
    retryable: bool = False
    """Whether asking again later may help."""
    free: int = 0
    """Attempts that do not count: the API refused the way to continue, not the question."""


class Ladder:
    """The ways to continue on one model, best first. A rung that fails costs no patience: the next one is tried.

    The rungs are known when the first continuation is due: only then the stream has shown which server it comes from.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._failed: list[Strategy] = []  # in this answer
        self._refused: set[Strategy] = set()  # in this answer

    @property
    def strategy(self) -> Strategy:
        """How to continue now."""
        return self._rungs[0]

    @property
    def continuation(self) -> Continuation:
        """How to continue now, with its wording."""
        strategy = self.strategy
        continuation = self._model.continuation.with_strategy(strategy)
        if strategy is Strategy.PREFILL and (prefilling := self._model.prefilling) is not None:
            return continuation.with_extra(prefilling.extra)
        asked_before = strategy is Strategy.ASK and strategy in self._failed
        return continuation.with_longer_anchor() if asked_before else continuation

    @property
    def is_last(self) -> bool:
        """Whether there is no other way left."""
        return len(self._rungs) < 2

    def descend(self, failed: Strategy) -> bool:
        """Go to the next way; False where there is none. The attempt that failed may have shown a better one."""
        if self._rungs == [failed]:
            return False
        self._failed.append(failed)
        return True

    def refuse(self, refused: Strategy) -> None:
        """The server refused this way. Go to the next other one.

        A refused prefill is not tried again later. The other ways are nothing that an API does not know: what was
        refused is this one request.
        """
        if refused is Strategy.PREFILL:
            self._model.learned.refused_strategies.add(refused)
        self._refused.add(refused)

    @property
    def _rungs(self) -> list[Strategy]:
        """What is left to try; never nothing."""
        refused = self._refused | self._model.learned.refused_strategies
        rungs = [rung for rung in self._all_rungs() if rung not in refused]
        if not rungs:
            return [Strategy.RESTART]  # the question itself was accepted
        for failed in self._failed:
            if failed in rungs:
                rungs.remove(failed)
        return rungs or [Strategy.ASK]

    def _all_rungs(self) -> list[Strategy]:
        wanted = Strategy(self._model.continuation.strategy)
        if wanted is Strategy.PREFILL or (wanted is Strategy.ASK and self._model.prefilling is not None):
            return [Strategy.PREFILL, Strategy.ASK, Strategy.ASK]
        # Who was asked and did not go on is asked once more, with a longer anchor.
        return [Strategy.ASK, Strategy.ASK] if wanted is Strategy.ASK else [wanted]


class ModelChain:
    """The models of one answer: which one is asked, how often it failed, and how it is asked to go on."""

    def __init__(self, models: Sequence[Model], policy: RecoveryPolicy, clock: Callable[[], float]) -> None:
        self.models = models
        self.index = 0
        self._policy = policy
        self._clock = clock
        self._last_fault: Fault | None = None
        self._backoff: Backoff
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
        if not self._is_retryable(fault, state) or (delay := backoff.delay(state)) is None:
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
        self._last_fault = fault
        if retryable and (delay := self._delay(fault, state)) is not None:
            return Decision(Step.RETRY, delay, retryable=True)
        if self._falls_back(fault, state) and self._next_model():
            return Decision(Step.FALL_BACK, retryable=retryable)
        return Decision(Step.GIVE_UP, reason=_why(fault, retryable), retryable=retryable)

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

    def leaves_to_next(self, result: AttemptResult) -> bool:
        """Whether an answer that ended without a fault is asked of the next model all the same."""
        wanted = self._policy.fallback_on
        if wanted is None or isinstance(wanted, type | tuple) or not self._has_next:
            return False
        return matches("fallback_on", wanted, self._backoff.ended(result)) and self._next_model()

    def _is_retryable(self, fault: Fault, state: RecoveryCallState) -> bool:
        """What the policy says; but what fails twice in the same way, whatever is sent, is not asked a third time."""
        return matches("retry", self._policy.retry, state) and not fault.repeats(self._last_fault)

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
        return matches("fallback_on", self._policy.fallback_on, state)

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


def _error_of(fault: Fault) -> BaseException:
    return fault.error if fault.error is not None else StreamFault(fault.message)


def _why(fault: Fault, retryable: bool) -> GiveUpReason:
    if fault.kind is FaultKind.CONTEXT_WINDOW:
        return GiveUpReason.CONTEXT_WINDOW
    return GiveUpReason.ATTEMPTS if retryable else GiveUpReason.NOT_RETRYABLE
