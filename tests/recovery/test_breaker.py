"""The circuit breaker: it opens after failures in a row, lets one probe through in an interval."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from llama_index_resilient_stream import CircuitBreaker, ConfigurationError, RecoveryPolicy
from llama_index_resilient_stream.recovery.breaker import Admission, Circuit
from llama_index_resilient_stream.report import CircuitState

THREE = CircuitBreaker(failures=3, seconds=10)


def opened(at: float = 0.0) -> Circuit:
    circuit = Circuit()
    for _ in range(THREE.failures):
        circuit.failed(at, THREE, probe=False)
    return circuit


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not_let_them_add_up() -> None:
    circuit = Circuit()
    assert not circuit.failed(0, THREE, probe=False)
    assert not circuit.failed(0, THREE, probe=False)
    assert not circuit.succeeded()
    assert not circuit.failed(0, THREE, probe=False)
    assert not circuit.failed(0, THREE, probe=False)
    assert circuit.admit(0, THREE) is Admission.ADMITTED
    assert circuit.failed(0, THREE, probe=False)
    assert circuit.state is CircuitState.OPEN
    assert circuit.admit(0, THREE) is Admission.REFUSED


@pytest.mark.parametrize(("at", "admission"), [(9.9, Admission.REFUSED), (10, Admission.PROBE), (99, Admission.PROBE)])
def test_a_probe_is_let_through_when_the_time_is_up(at: float, admission: Admission) -> None:
    circuit = opened()
    assert circuit.would_admit(at, THREE) is (admission is Admission.PROBE)
    assert circuit.admit(at, THREE) is admission


def test_one_probe_at_a_time() -> None:
    circuit = opened()
    assert circuit.admit(10, THREE) is Admission.PROBE
    assert circuit.state is CircuitState.HALF_OPEN
    assert circuit.admit(10, THREE) is Admission.REFUSED
    assert circuit.admit(19, THREE) is Admission.REFUSED
    assert circuit.admit(20, THREE) is Admission.PROBE, "the first one is lost: its reader left, or it hangs"


def test_a_probe_that_succeeds_closes_it() -> None:
    circuit = opened()
    circuit.admit(10, THREE)
    assert circuit.succeeded()
    assert circuit.state is CircuitState.CLOSED
    assert circuit.failures == 0


def test_a_probe_that_fails_begins_the_interval_anew() -> None:
    circuit = opened()
    circuit.admit(10, THREE)
    assert circuit.failed(14, THREE, probe=True)
    assert circuit.admit(23, THREE) is Admission.REFUSED
    assert circuit.admit(24, THREE) is Admission.PROBE


def test_requests_sent_before_it_opened_do_not_keep_it_open() -> None:
    circuit = opened()
    assert not circuit.failed(9, THREE, probe=False)
    assert circuit.admit(10, THREE) is Admission.PROBE
    assert not circuit.failed(11, THREE, probe=False), "only the probe decides"
    assert circuit.state is CircuitState.HALF_OPEN


def test_a_late_success_closes_it() -> None:
    circuit = opened()
    assert circuit.succeeded()
    assert circuit.admit(1, THREE) is Admission.ADMITTED


class Breaker(RuleBasedStateMachine):
    """Requests that begin, fail, succeed or are forgotten in any order, against what is promised of them."""

    requests = Bundle("requests")

    @initialize(failures=strategies.integers(1, 4), seconds=strategies.integers(1, 20))
    def begin(self, failures: int, seconds: int) -> None:
        self.settings = CircuitBreaker(failures=failures, seconds=seconds)
        self.circuit = Circuit()
        self.now = 0.0
        self.in_a_row = 0
        self.probes: list[float] = []
        self.opened_at: float | None = None

    @rule(seconds=strategies.integers(0, 30))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(target=requests)
    def ask(self) -> Admission:
        expected = self.circuit.would_admit(self.now, self.settings)
        admission = self.circuit.admit(self.now, self.settings)
        assert (admission is not Admission.REFUSED) is expected
        assert (admission is Admission.ADMITTED) is (self.opened_at is None)
        if admission is Admission.PROBE:
            earlier = max([*self.probes[-1:], self.opened_at or 0.0])
            assert self.now - earlier >= self.settings.seconds
            self.probes.append(self.now)
        return admission

    @rule(request=consumes(requests))
    def succeed(self, request: Admission) -> None:
        assert self.circuit.succeeded() is (self.opened_at is not None)
        self.in_a_row, self.opened_at, self.probes = 0, None, []

    @rule(request=consumes(requests))
    def fail(self, request: Admission) -> None:
        self.circuit.failed(self.now, self.settings, probe=request is Admission.PROBE)
        self.in_a_row += 1
        if self.opened_at is None and self.in_a_row >= self.settings.failures:
            self.opened_at = self.now

    @rule(request=consumes(requests))
    def forget(self, request: Admission) -> None:
        """Its reader left."""

    @invariant()
    def it_is_closed_as_long_as_failures_in_a_row_are_few(self) -> None:
        if hasattr(self, "circuit"):
            assert (self.circuit.state is CircuitState.CLOSED) is (self.opened_at is None)
            assert self.circuit.failures == self.in_a_row

    @invariant()
    def it_always_lets_somebody_through_again(self) -> None:
        if hasattr(self, "circuit"):
            assert self.circuit.would_admit(self.now + self.settings.seconds, self.settings)


Breaker.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBreaker = Breaker.TestCase


def test_threads_that_ask_at_once_send_one_probe() -> None:
    circuit = Circuit(threading.Lock())
    circuit.failed(0, CircuitBreaker(failures=1, seconds=10), probe=False)
    start = threading.Barrier(16)
    admissions: list[Admission] = []

    def ask() -> None:
        start.wait()
        admissions.append(circuit.admit(10, THREE))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert admissions.count(Admission.PROBE) == 1
    assert admissions.count(Admission.REFUSED) == 15


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (lambda: CircuitBreaker(failures=0), "failures=5"),
        (lambda: CircuitBreaker(failures=True), "failures=5"),
        (lambda: CircuitBreaker(failures=2.5), "failures=5"),  # type: ignore[arg-type]
        (lambda: CircuitBreaker(seconds=0), "seconds=30"),
        (lambda: CircuitBreaker(seconds=True), "seconds=30"),
        (lambda: CircuitBreaker(seconds="30"), "seconds=30"),  # type: ignore[arg-type]
        (lambda: RecoveryPolicy(breaker=5), "breaker=CircuitBreaker(failures=5, seconds=30)"),  # type: ignore[arg-type]
        (lambda: RecoveryPolicy(breaker=False), "breaker=CircuitBreaker(failures=5, seconds=30)"),  # type: ignore[arg-type]
    ],
)
def test_settings_that_cannot_work_are_refused(made: object, line: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made()  # type: ignore[operator]
    assert line in str(caught.value)
