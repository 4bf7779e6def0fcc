"""Servers that a module of tests shares, and what the doctor says of an endpoint on one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from llama_index_resilient_stream.doctor.endpoint.diagnosis import diagnose
from llama_index_resilient_stream.doctor.endpoint.findings import Finding, Level
from llama_index_resilient_stream.doctor.endpoint.measurements import Measurements
from llama_index_resilient_stream.doctor.endpoint.plan import Plan, measure
from llama_index_resilient_stream.doctor.endpoint.probe import ReportProgress
from support.servers import Running, nginx, require, serving

H11, HTTPTOOLS = "uvicorn-h11", "uvicorn-httptools"
# Said aloud, for nginx changed its mind in 1.29.7.
OLD_HOP = ("proxy_http_version 1.0;",)
NEW_HOP = ("proxy_http_version 1.1;", 'proxy_set_header Connection "";')

Found = dict[str, tuple[str, ...]]


class House:
    """Servers that stay up for the whole module: each takes most of a second to start."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[Any, Running] = {}

    def app(self, server: str = HTTPTOOLS, app: str = "asgi", *args: str, module: str = "doctor_apps") -> Running:
        key = (server, module, app, args)
        if key not in self._running:
            where = f"support.{module}:{app}"
            self._running[key] = self._stack.enter_context(serving(where, server, args=args))
        return self._running[key]

    def proxy(self, upstream: Running, *lines: str, http: tuple[str, ...] = ()) -> Running:
        key = (upstream.port, lines, http)
        if key not in self._running:
            self._running[key] = self._stack.enter_context(nginx(upstream.port, *lines, http=http))
        return self._running[key]


@contextmanager
def open_house() -> Iterator[House]:
    require("fastapi", "flask")
    with ExitStack() as stack:
        yield House(stack)


@dataclass(frozen=True)
class Row:
    """What is asked where, and all that the doctor says of it, hints aside."""

    path: str
    found: Found
    server: str = HTTPTOOLS
    app: str = "asgi"
    args: tuple[str, ...] = ()
    proxy: tuple[str, ...] | None = None
    direct: bool = True
    timeout: float = 0.0
    """T, where one is read."""
    repeat: int = 2
    hints: tuple[str, ...] = ()


def quiet(what: str) -> ReportProgress:
    return lambda events, seconds: None


def examine(house: House, row: Row) -> tuple[Measurements, list[Finding]]:
    app = house.app(row.server, row.app, *row.args)
    if row.proxy is None:
        plan = Plan(app.url + row.path, repeat=row.repeat)
    else:
        direct = app.url + row.path if row.direct else ""
        plan = Plan(house.proxy(app, *row.proxy).url + row.path, direct=direct, repeat=row.repeat)
    measurements = measure(plan, quiet)
    return measurements, diagnose(measurements)


def look(plan: Plan) -> list[Finding]:
    return diagnose(measure(plan, quiet))


def serious(findings: list[Finding]) -> Found:
    return {finding.rule: finding.causes for finding in findings if finding.level is not Level.HINT}


def seen_again(
    ask: Callable[[], list[Finding]], wanted: Callable[[list[Finding]], bool], times: int = 3
) -> list[Finding]:
    """Ask until it is as wanted, or so many times: a busy machine may be silent itself, but not each time."""
    findings = ask()
    for _ in range(times - 1):
        if wanted(findings):
            break
        findings = ask()
    return findings
