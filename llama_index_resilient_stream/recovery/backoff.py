"""Asks tenacity's stop and wait objects about one model's failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from tenacity import RetryCallState

from ..policy import Stop, Wait


class Backoff:
    """How often one model failed since it last said something new, and what the policy makes of it."""

    def __init__(self, stop: Stop, wait: Wait, clock: Callable[[], float]) -> None:
        self._stop = stop
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

    def failed(self, error: BaseException) -> float | None:
        """Seconds to wait before this model is asked again; None: enough of it."""
        self.failures += 1
        state = RetryCallState(cast(Any, None), None, (), {})
        state.set_exception((type(error), error, error.__traceback__))
        # tenacity stamps its own monotonic time; ours may be an injected clock.
        state.start_time = self._since
        state.outcome_timestamp = self._clock()
        state.attempt_number = self.failures
        state.idle_for = self._slept
        delay = max(0.0, float(self._wait(state)))
        state.upcoming_sleep = delay  # stop_before_delay looks at it
        if self._stop(state):
            return None
        self._slept += delay
        return delay
