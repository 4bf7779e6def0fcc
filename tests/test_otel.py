"""What OpenTelemetry's own SDK sees of answers."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tenacity import stop_after_attempt

pytest.importorskip("opentelemetry.sdk.metrics")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from llama_index_resilient_stream import CircuitBreaker, RecoveryPolicy, ResilientLLM
from llama_index_resilient_stream.otel import OpenTelemetryCallback
from llama_index_resilient_stream.testing import Cut, Fail, ScriptedLLM
from support.readers import QUICK, Reader
from support.servers import HOST, prometheus

ROOT = Path(__file__).parent.parent
TEXT = "The cable broke two miles down. They found both ends, joined them, and went on talking."


class Meters:
    """Metrics in memory."""

    def __init__(self, *others: MetricReader) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader, *others])

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """The attributes and the value (a histogram's count) of each point of an instrument."""
        data = self._reader.get_metrics_data()
        return [
            (dict(point.attributes), getattr(point, "value", getattr(point, "count", None)))
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def meters() -> Meters:
    return Meters()


def wrapped(meters: Meters, *script: Any, **attributes: str) -> ResilientLLM:
    callback = OpenTelemetryCallback(meters.provider, attributes=attributes)
    return ResilientLLM(ScriptedLLM(TEXT, script=script), policy=QUICK, callbacks=[callback])


def test_a_healed_answer(meters: Meters, reader: Reader) -> None:
    assert reader(wrapped(meters, Cut(after=18, error=ConnectionResetError()), Cut(after=60))).text == TEXT
    [(healed, count)] = meters.points("resilient_stream.streams")
    assert count == 1
    assert healed["resilient_stream.status"] == "complete"
    assert healed["resilient_stream.recovered"] is True
    kinds = {point["resilient_stream.kind"]: value for point, value in meters.points("resilient_stream.faults")}
    assert kinds == {"transport": 1, "truncated": 1}
    [(resumption, count)] = meters.points("resilient_stream.resumptions")
    assert (resumption["resilient_stream.strategy"], count) == ("ask", 2)
    [(joint, count)] = meters.points("resilient_stream.joints")
    assert (joint["resilient_stream.certainty"], count) == ("verified", 2)
    [(_, lost)] = meters.points("resilient_stream.lost_time")
    assert lost == 2
    assert meters.points("resilient_stream.extra_tokens")
    assert [count for _, count in meters.points("gen_ai.client.operation.duration")] == [1]
    assert [count for _, count in meters.points("gen_ai.client.operation.time_to_first_chunk")] == [1]


def test_an_answer_that_was_given_up(meters: Meters, reader: Reader) -> None:
    assert reader(wrapped(meters, *[Fail(TimeoutError())] * 9)).error is not None
    [(given_up, _)] = meters.points("gen_ai.client.operation.duration")
    assert given_up["error.type"] == "attempts"
    [(stream, _)] = meters.points("resilient_stream.streams")
    assert stream["resilient_stream.status"] == "interrupted"
    assert stream["resilient_stream.reason"] == "attempts"
    assert meters.points("gen_ai.client.operation.time_to_first_chunk") == []


def chain(meters: Meters, failures: int) -> ResilientLLM:
    """A model that fails so often before it is back, a healthy one, and a breaker that a failure opens."""
    policy = RecoveryPolicy(stop=stop_after_attempt(1), breaker=CircuitBreaker(failures=1, seconds=1e-9))
    dead = ScriptedLLM(TEXT, script=[Fail(ConnectionResetError())] * failures, model="dead")
    healthy = ScriptedLLM(TEXT, model="healthy")
    return ResilientLLM(dead, fallbacks=[healthy], policy=policy, callbacks=[OpenTelemetryCallback(meters.provider)])


def states(meters: Meters) -> dict[str, int]:
    points = meters.points("resilient_stream.circuit.state")
    return {attributes["gen_ai.request.model"]: value for attributes, value in points}


def test_a_circuit_breaker(meters: Meters, reader: Reader) -> None:
    llm = chain(meters, failures=2)
    assert states(meters) == {}
    for expected in (2, 2, 0):
        assert reader(llm).text == TEXT
        assert states(meters) == {"dead": expected}
    changes = {point["resilient_stream.state"]: n for point, n in meters.points("resilient_stream.circuit.changes")}
    assert changes == {"open": 2, "half_open": 2, "closed": 1}


def test_who_was_passed_over(meters: Meters, reader: Reader) -> None:
    llm = chain(meters, failures=9)
    policy = RecoveryPolicy(stop=stop_after_attempt(1), breaker=CircuitBreaker(failures=1, seconds=60))
    silent = llm.bind(policy=policy, callbacks=[])
    assert reader(silent).text == TEXT  # opens it, and nobody is told
    assert states(meters) == {}
    assert reader(llm.bind(policy=policy)).text == TEXT
    assert states(meters) == {"dead": 2}
    [(passed, count)] = meters.points("resilient_stream.passed_over")
    assert (passed["gen_ai.request.model"], passed["resilient_stream.reason"], count) == ("dead", "circuit_open", 1)


def test_constant_attributes_are_on_all_metrics(meters: Meters, reader: Reader) -> None:
    assert reader(wrapped(meters, Cut(after=9), **{"gen_ai.provider.name": "scripted"})).text == TEXT
    for name in ("resilient_stream.streams", "resilient_stream.faults", "gen_ai.client.operation.duration"):
        for attributes, _ in meters.points(name):
            assert attributes["gen_ai.provider.name"] == "scripted"
            assert attributes["gen_ai.request.model"]


def test_what_happens_is_on_the_current_span(meters: Meters, reader: Reader) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("test").start_as_current_span("request"):
        assert reader(wrapped(meters, Cut(after=18))).text == TEXT
    [span] = exporter.get_finished_spans()
    assert [event.name for event in span.events] == ["resilient_stream.fault", "resilient_stream.resume"]
    assert dict(span.events[0].attributes or {})["resilient_stream.kind"] == "truncated"


def test_without_opentelemetry_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import llama_index_resilient_stream.otel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "llama-index-resilient-stream[otel]"' in done.stderr


def test_the_dashboard_asks_for_what_prometheus_is_told(reader: Reader) -> None:
    """By OpenTelemetry's own exporter: every metric, and every label, of the dashboard's queries is there."""
    exporter = pytest.importorskip("opentelemetry.exporter.prometheus")
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    metric_reader = exporter.PrometheusMetricReader(registry=registry)
    meters = Meters(metric_reader)
    assert reader(wrapped(meters, Cut(after=18), Cut(after=60))).text == TEXT
    llm = chain(meters, failures=9)
    reader(llm), reader(llm.bind(policy=RecoveryPolicy(breaker=CircuitBreaker(failures=1))))
    told = client.generate_latest(registry).decode()
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) >= 13
    for query in queries:
        for metric in re.findall(r"\b((?:gen_ai|resilient_stream)_\w+)\{", query):
            assert f"{metric}{{" in told, metric
        for label in re.findall(r"\b((?:gen_ai|resilient_stream)_\w+)=|by \((\w+)\)", query):
            assert f"{(label[0] or label[1])}=" in told, label


@pytest.mark.slow
def test_prometheus_answers_the_dashboards_queries() -> None:
    """A real one, while a load runs: each query of the dashboard is taken, and gives numbers."""
    exporter = pytest.importorskip("opentelemetry.exporter.prometheus")
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    meters = Meters(exporter.PrometheusMetricReader(registry=registry))
    server, thread = client.start_http_server(0, addr=HOST, registry=registry)
    try:
        with prometheus(server.server_port) as running:
            asked, answered = dashboard_queries(window="5s"), set[str]()
            until = time.monotonic() + 60
            passed_over = chain(meters, failures=9).bind(policy=RecoveryPolicy(breaker=CircuitBreaker(failures=1)))
            while len(answered) < len(asked) and time.monotonic() < until:
                for llm in (wrapped(meters, Cut(after=18), Cut(after=60)), given_up(meters), passed_over):
                    for _ in llm.stream_complete("?"):
                        pass
                time.sleep(0.25)
                answered = {query for query in asked if has_numbers(running.url, query)}
            assert asked - answered == set()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def dashboard_queries(window: str) -> set[str]:
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text(encoding="utf-8"))
    queries = {target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}
    return {re.sub(r"\$__\w+", window, query).replace("$model", ".*") for query in queries}


def given_up(meters: Meters) -> ResilientLLM:
    llm = wrapped(meters, Cut(after=18), *[Fail(TimeoutError())] * 9)
    return llm.bind(policy=RecoveryPolicy(stop=stop_after_attempt(1), on_exhausted="partial"))


def has_numbers(url: str, query: str) -> bool:
    response = httpx.get(f"{url}/api/v1/query", params={"query": query})
    assert response.status_code == 200, response.text
    values = [float(each["value"][1]) for each in response.json()["data"]["result"]]
    return any(math.isfinite(value) for value in values)
