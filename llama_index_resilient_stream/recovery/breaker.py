"""The circuit breaker of one model, as a state machine. Whoever asks it says what time it is.

    closed     --failed, the last of `failures` in a row-->  open
    open       --`seconds` later, the next request-------->  half_open    that request is the probe, others are refused
    half_open  --the probe brought something------------->   closed
    half_open  --the probe failed------------------------>   open
    half_open  --`seconds` later, the probe is lost------>   half_open    the next request is another probe
    open       --something came after all---------------->   closed

A request has failed when it brought nothing. One that brought text and broke off later has shown that the model is
there.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from enum import Enum

from ..policy import CircuitBreaker
from ..report import CircuitState, FaultKind

UNWELL = frozenset(
    {
        FaultKind.TRANSPORT,
        FaultKind.TIMEOUT,
        FaultKind.CORRUPT,
        FaultKind.TRUNCATED,
        FaultKind.ERROR_FINISH,
        FaultKind.SERVER,
        FaultKind.OVERLOADED,
        FaultKind.RATE_LIMIT,
        FaultKind.AUTH,
        FaultKind.QUOTA,
    }
)
"""Faults that say something of the model and nothing of the question: the next question will meet them, too."""

ANSWERED = frozenset(
    {FaultKind.BAD_REQUEST, FaultKind.CONTEXT_WINDOW, FaultKind.PREFILL_REFUSED, FaultKind.LENGTH, FaultKind.FILTERED}
)
"""Faults by which a server shows that it is there."""


class Admission(Enum):
    """Whether a request may be sent."""

    ADMITTED = "admitted"
    PROBE = "probe"
    """It may, and it decides whether others may."""
    REFUSED = "refused"


class Circuit:
    """What the requests to one model have shown of it.

        circuit = Circuit(threading.Lock())
        if circuit.admit(time.monotonic(), settings) is not Admission.REFUSED:
            ...
            circuit.failed(time.monotonic(), settings, probe=False)

    Times are seconds on one clock, whichever it is. Each method is one step, under the lock.

    Args:
        lock: Held during each step, where threads share the circuit.
    """

    def __init__(self, lock: AbstractContextManager[object] | None = None) -> None:
        self._lock = nullcontext() if lock is None else lock
        self._state = CircuitState.CLOSED
        self._failures = 0
        self._since = 0.0  # when it opened, or when the last probe was sent or failed

    @property
    def state(self) -> CircuitState:
        """Closed, open or half open."""
        return self._state

    @property
    def failures(self) -> int:
        """Requests in a row that brought nothing."""
        return self._failures

    def would_admit(self, at: float, settings: CircuitBreaker) -> bool:
        """Return whether a request sent at that time would be let through, without sending one."""
        return self._state is CircuitState.CLOSED or at - self._since >= settings.seconds

    def admit(self, at: float, settings: CircuitBreaker) -> Admission:
        """Take the decision about a request that is to be sent now."""
        if self._state is CircuitState.CLOSED:  # by far the most requests, and no lock
            return Admission.ADMITTED
        with self._lock:
            if not self.would_admit(at, settings):
                return Admission.REFUSED
            if self.state is CircuitState.CLOSED:  # since the look without the lock
                return Admission.ADMITTED
            self._state = CircuitState.HALF_OPEN
            self._since = at
            return Admission.PROBE

    def succeeded(self) -> bool:
        """Note that a request brought something. Return whether that closed the circuit."""
        if self._state is CircuitState.CLOSED and not self._failures:
            return False
        with self._lock:
            closes = self._state is not CircuitState.CLOSED
            self._state = CircuitState.CLOSED
            self._failures = 0
            return closes

    def failed(self, at: float, settings: CircuitBreaker, *, probe: bool) -> bool:
        """Note that a request brought nothing. Return whether that opened the circuit.

        While it is open, only a probe counts: others were sent before, or where there was nobody else to ask.
        """
        with self._lock:
            self._failures += 1
            was_open = self._state is CircuitState.OPEN
            if probe if self._state is not CircuitState.CLOSED else self._failures >= settings.failures:
                self._state = CircuitState.OPEN
                self._since = at
                return not was_open
            return False
