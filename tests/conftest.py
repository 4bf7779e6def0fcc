"""One contract, two ways to run it: every test that takes `reader` runs in sync and in async."""

from __future__ import annotations

import gc
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from llama_index_resilient_stream.llm.circuits import forget_circuits
from llama_index_resilient_stream.testing import FaultServer
from support.readers import READERS, Reader

# Shared machines are slow at times; what a property holds does not depend on it. The one fixture that properties take,
# `reader`, has no state.
settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("default")

# An HTTP client loads all certificates of its authorities, 20 ms of CPU each time, and here nobody asks another host.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "support" / "authority.pem")

WORKERS_PER_CORE = 2.5  # tests mostly wait
NOT_INSTALLED = re.compile(r"(\S+) is not installed: (.+)")


def pytest_collection_finish() -> None:
    """Keep what is imported by now out of the garbage collector, which many tests call, and which walks all of it."""
    gc.collect()
    gc.freeze()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return what `-n auto` means: no workers for a single test, which then can be debugged."""
    if any("::" in argument for argument in config.args):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return int(WORKERS_PER_CORE * (cores or 1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was not tested on this machine, for want of what, and how to get it."""
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", ())]
    lacking = Counter(found.groups() for reason in reasons if (found := NOT_INSTALLED.search(reason)))
    slow = config.option.markexpr == "not slow"
    if not lacking and not slow:
        return
    terminalreporter.section("not tested")
    for (name, command), count in sorted(lacking.items()):
        terminalreporter.line(f"{name}: {count} skipped, because it is not installed: {command}")
    if slow:
        terminalreporter.line("slow tests, which nox and .ci/run run: pytest -m slow")


@pytest.fixture(autouse=True)
def circuits() -> None:
    """No test meets a circuit breaker that another one opened."""
    forget_circuits()


@pytest.fixture(params=READERS, ids=str)
def reader(request: pytest.FixtureRequest) -> Reader:
    return READERS[request.param]


@pytest.fixture
def serve() -> Iterator[Callable[..., FaultServer]]:
    """Start servers that are closed when the test is over."""
    servers: list[FaultServer] = []

    def start(*args: Any, **kwargs: Any) -> FaultServer:
        servers.append(FaultServer(*args, **kwargs).start())
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """Let fixtures know, when they are torn down, how the test went."""
    report = yield
    if call.when == "call":
        item.outcome_of_call = report.outcome  # type: ignore[attr-defined]
    return report
