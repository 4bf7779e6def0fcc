"""Asks the policy's tenacity objects about one model's attempts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from tenacity import RetryCallState

from ..policy import AttemptResult, Stop, Wait, seconds_of, yes_or_no
from .faults import Fault


class RecoveryCallState(RetryCallState):
    """tenacity's state of a call, and the fault that was made of the exception in its `outcome`."""

    fault: Fault | None = None

    def __init__(self) -> None:
        super().__init__(cast(Any, None), None, (), {})


class Backoff:
    """How often one model failed since it last said something new, and what the policy makes of it."""

    def __init__(self, wait: Wait, clock: Callable[[], float]) -> None:
        self._wait = wait
        self._clock = clock
        self._since = clock()
        self._slept = 0.0
        self.failures = 0

    def progress(self, at: float) -> None:
        """New text arrived at that time: patience starts afresh."""
        self.failures = 0
        self._since = at
        self._slept = 0.0

    def failed(self, fault: Fault, error: BaseException) -> RecoveryCallState:
        """Count one more failure."""
        self.failures += 1
        state = self._state()
        state.fault = fault
        state.set_exception((type(error), error, error.__traceback__))
        return state

    def ended(self, result: AttemptResult) -> RecoveryCallState:
        """The state of an attempt that ended without a fault."""
        state = self._state()
        state.set_result(result)
        return state

    def delay(self, state: RecoveryCallState, stop: Stop, wait: Wait | None = None) -> float | None:
        """Seconds to wait before this model is asked again; None: `stop` says that it is not."""
        # tenacity stamps its own monotonic time; ours may be an injected clock.
        state.outcome_timestamp = self._clock()
        delay = seconds_of("wait", (wait or self._wait)(state))
        state.upcoming_sleep = delay  # stop_before_delay looks at it
        if yes_or_no("stop", stop(state)):
            return None
        self._slept += delay
        return delay

    def _state(self) -> RecoveryCallState:
        state = RecoveryCallState()
        state.start_time = self._since
        state.attempt_number = max(1, self.failures)
        state.idle_for = self._slept
        return state
