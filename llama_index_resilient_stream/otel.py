"""OpenTelemetry metrics and span events of answers. Needs the extra `otel`.

    llm = ResilientLLM(llm, callbacks=[OpenTelemetryCallback()])

`docs/observability.md` lists the instruments. Those that begin with `gen_ai.` are OpenTelemetry's semantic conventions
for generative AI; all others, and their attributes, begin with `resilient_stream.`. The values of attributes are words
of enumerations and names of models: no text, no keys.

A fault, a further attempt, a reset and a circuit breaker's change are events of the span that is current where the
answer is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from .callbacks import CircuitEvent, FaultEvent, ResumeEvent, StreamCallback, TokenEvent
from .report import CircuitState, PassReason, StreamReport, StreamStatus

try:
    from opentelemetry import metrics, trace
except ModuleNotFoundError as error:
    raise ImportError(
        "Metrics of llama-index-resilient-stream need OpenTelemetry. Install it with:\n\n"
        '    pip install "llama-index-resilient-stream[otel]"'
    ) from error

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

__all__ = ["OpenTelemetryCallback"]

_NAME = "llama_index_resilient_stream"
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)  # the conventions'
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)  # theirs, too
_STATES = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}

_Attributes = dict[str, str | bool | int | float]


class OpenTelemetryCallback(StreamCallback):
    """Records what happens to answers as OpenTelemetry metrics and span events.

    One object serves any number of LLMs and streams, sync and async.

    Args:
        meter_provider: where the metrics go; default: the process's own, `opentelemetry.metrics.get_meter_provider()`.
        attributes: constant attributes of all metrics, such as the provider's name.

    Example:
        >>> llm = ResilientLLM(llm, callbacks=[OpenTelemetryCallback(attributes={"gen_ai.provider.name": "openai"})])
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        *,
        attributes: Mapping[str, str | bool | int | float] | None = None,
    ) -> None:
        self._attributes: _Attributes = {"gen_ai.operation.name": "chat", **(attributes or {})}
        meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "An answer", explicit_bucket_boundaries_advisory=_SECONDS
        )
        self._first_chunk = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "The wait for the first text",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._usage = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens that the provider counted",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._lost_time = meter.create_histogram(
            "resilient_stream.lost_time",
            "s",
            "From a fault to the next new text",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._streams = meter.create_counter("resilient_stream.streams", "{stream}", "Answers")
        self._faults = meter.create_counter("resilient_stream.faults", "{fault}", "Attempts that failed")
        self._resumptions = meter.create_counter("resilient_stream.resumptions", "{attempt}", "Further attempts")
        self._joints = meter.create_counter("resilient_stream.joints", "{joint}", "Continuations joined to an answer")
        self._extra_tokens = meter.create_counter(
            "resilient_stream.extra_tokens", "{token}", "What recovering cost, estimated"
        )
        # The conventions have nothing for circuit breakers.
        self._circuits = meter.create_counter("resilient_stream.circuit.changes", "{change}", "Of circuit breakers")
        self._circuit_state = meter.create_gauge(
            "resilient_stream.circuit.state", "", "Of a model's circuit breaker: 0 closed, 1 half open, 2 open"
        )
        self._passed_over = meter.create_counter(
            "resilient_stream.passed_over", "{model}", "Models that were not asked"
        )

    def on_token(self, event: TokenEvent) -> None:
        """Note a reset on the current span."""
        if event.reset:
            _add_event("reset", event.model, attempt=event.attempt)

    def on_fault(self, event: FaultEvent) -> None:
        """Count a failed attempt, and note it on the current span."""
        self._faults.add(1, self._of(event.model, kind=str(event.kind)))
        _add_event("fault", event.model, attempt=event.attempt, kind=str(event.kind), characters=event.characters)

    def on_resume(self, event: ResumeEvent) -> None:
        """Count a further attempt, and note it on the current span."""
        self._resumptions.add(1, self._of(event.model, strategy=str(event.strategy)))
        _add_event("resume", event.model, attempt=event.attempt, strategy=str(event.strategy), delay=event.delay)

    def on_circuit(self, event: CircuitEvent) -> None:
        """Count a circuit breaker's change, keep its state, and note it on the current span."""
        self._circuits.add(1, self._of(event.model, state=str(event.state)))
        self._circuit_state.set(_STATES[event.state], self._of(event.model))
        _add_event("circuit", event.model, state=str(event.state))

    def on_end(self, report: StreamReport) -> None:
        """Record an answer that is over."""
        asked = report.attempts[0].model if report.attempts else ""
        status = str(report.status)
        outcome: _Attributes = {"error.type": str(report.reason)} if report.status is StreamStatus.INTERRUPTED else {}
        self._duration.record(report.seconds, self._of(asked, status=status) | outcome)
        self._streams.add(
            1, self._of(asked, status=status, recovered=report.recovered, reason=str(report.reason) or "none")
        )
        first = next((attempt.first_token for attempt in report.attempts if attempt.first_token is not None), None)
        if first is not None:
            self._first_chunk.record(first, self._of(asked))
        for seconds in _lost(report):
            self._lost_time.record(seconds, self._of(asked))
        for joint in report.joints:
            named = self._of(asked, strategy=str(joint.strategy), certainty=str(joint.certainty))
            self._joints.add(1, named)
        if report.extra_tokens:
            self._extra_tokens.add(report.extra_tokens, self._of(asked))
        self._record_passed_over(report)
        self._record_usage(report, asked)

    def _record_passed_over(self, report: StreamReport) -> None:
        for each in report.passed_over:
            self._passed_over.add(1, self._of(each.model, reason=str(each.reason)))
            if each.reason is PassReason.CIRCUIT_OPEN:  # an LLM without this callback may have opened it
                self._circuit_state.set(_STATES[CircuitState.OPEN], self._of(each.model))

    def _record_usage(self, report: StreamReport, model: str) -> None:
        if report.usage_estimated:
            return
        for kind, key in (("input", "prompt_tokens"), ("output", "completion_tokens")):
            if key in report.usage:
                self._usage.record(report.usage[key], self._of(model) | {"gen_ai.token.type": kind})

    def _of(self, model: str, **own: str | bool) -> _Attributes:
        named: _Attributes = {f"resilient_stream.{name}": value for name, value in own.items()}
        return self._attributes | {"gen_ai.request.model": model} | named


def _lost(report: StreamReport) -> Iterator[float]:
    """Yield the seconds between the end of an attempt that a fault ended and the first text after it."""
    for failed, following in pairwise(report.attempts):
        if failed.fault and failed.ended is not None and following.first_token is not None:
            yield max(0.0, following.first_token - failed.ended)


def _add_event(name: str, model: str, **own: str | int | float) -> None:
    attributes = {f"resilient_stream.{key}": value for key, value in own.items()}
    trace.get_current_span().add_event(f"resilient_stream.{name}", {"gen_ai.request.model": model, **attributes})
