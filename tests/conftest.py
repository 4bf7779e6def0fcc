"""One contract, two ways to run it: every test that takes `reader` runs in sync and in async."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

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
