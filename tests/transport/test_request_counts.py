"""How many requests an attempt took, where the SDK asks again by itself. On real sockets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from llama_index_resilient_stream import ResilientLLM, StreamStatus
from llama_index_resilient_stream.testing import FaultServer
from support.readers import QUICK, TEXT, Reader, openai_like

Serve = Callable[..., FaultServer]

FAULTS: dict[str, tuple[list[Any], int, list[int]]] = {
    "healthy": ([], 2, [1]),
    "one-retry": (["http_503"], 2, [2]),
    "two-retries": (["http_503", "http_503"], 2, [3]),
    "all-retries-then-again": (["http_503"] * 3, 2, [3, 1]),
    "no-retries": (["http_503"], 0, [1, 1]),
    "cut-then-retry": (["reset", "http_503"], 1, [1, 2]),
    "retry-then-cut": (["http_503", "reset"], 1, [2, 1]),
}


@pytest.mark.parametrize(("faults", "retries", "requests"), FAULTS.values(), ids=FAULTS)
def test_attempts_tell_the_requests_that_were_sent(
    reader: Reader, serve: Serve, clients: dict[str, Any], faults: list[Any], retries: int, requests: list[int]
) -> None:
    server = serve(TEXT, faults)
    result = reader(ResilientLLM(openai_like(server, max_retries=retries, **clients), policy=QUICK))
    assert (result.text, result.report.status) == (TEXT, StreamStatus.COMPLETE)
    assert [attempt.requests for attempt in result.report.attempts] == requests
    assert result.report.requests == len(server.requests)


def test_requests_of_the_sdk_are_within_the_budget(reader: Reader, serve: Serve, clients: dict[str, Any]) -> None:
    server = serve(TEXT, ["http_503"] * 99)
    policy = replace(QUICK, max_attempts=4)
    result = reader(ResilientLLM(openai_like(server, max_retries=1, **clients), policy=policy))
    assert result.report.status is StreamStatus.INTERRUPTED
    assert result.report.requests == len(server.requests) == 4
