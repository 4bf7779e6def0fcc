"""An event loop for LlamaIndex."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def loop_of_llama_index(request: pytest.FixtureRequest) -> Iterator[None]:
    """Its synchronous methods open an event loop in a thread that has none, and never close it."""
    if asyncio.iscoroutinefunction(request.function):
        yield
        return
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
