"""What the tests of the wire share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llama_index_resilient_stream.http import async_http_client, http_client
from support.sdk_clients import needs_observed_sdk_clients


@pytest.fixture(
    params=[
        pytest.param(True, id="our-client"),
        pytest.param(False, id="sdk-client", marks=needs_observed_sdk_clients),
    ]
)
def clients(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Keyword arguments of an OpenAI class: our HTTP clients, or none, so that the SDK makes its own."""
    with http_client() as client:
        yield {"http_client": client, "async_http_client": async_http_client()} if request.param else {}
