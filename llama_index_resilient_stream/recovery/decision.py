"""What to do about a fault, and the ways to continue on one model."""

from __future__ import annotations

from dataclasses import dataclass

from ..report import GiveUpReason, Strategy
from .continuation import Continuation
from .events import Model
from .states import Step

# Who was asked and did not go on may answer the question in the same words again; if not, that shows within a sentence,
# and nothing of it is shown. Then it is asked once more, with a longer anchor.
_ASKING = [Strategy.ASK, Strategy.RESTART, Strategy.ASK]


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
            return [Strategy.PREFILL, *_ASKING]
        return _ASKING if wanted is Strategy.ASK else [wanted]
