"""What the OpenAI client itself raises, on a real socket: classified alike whichever major version of it is installed.

No integration stands between, so this runs with openai 3 (httpx2), which no llms-openai takes yet: `nox -s openai3`.
That session has neither llms-openai nor this directory's conftest; nothing here may need them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import openai
import pytest

from llama_index_resilient_stream.recovery.faults import Fault, FaultKind, classify
from llama_index_resilient_stream.testing import FATAL, FAULTS, RETRYABLE, FaultServer
from llama_index_resilient_stream.transport.connection import Upstream

K = FaultKind
TEXT = "The first transatlantic cable carried ninety-eight words from a queen to a president."
KEY = "sk-secret"
ASK: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "?"}], "stream": True}

KINDS = {
    K.TRANSPORT: "hang_up reset_before_headers reset fin_in_chunk short_length",
    K.TIMEOUT: "stall_headers stall_first stall http_408",
    K.CORRUPT: "half_character half_character_close broken_json",
    K.SERVER: "error_event http_500 http_502 http_504",
    K.OVERLOADED: "error_event_overloaded http_503 http_503_seconds http_529",
    K.RATE_LIMIT: "error_event_rate_limit http_429 http_429_seconds http_429_ms http_429_date",
    K.CONFLICT: "http_409 http_425",
    K.AUTH: "http_401 http_403",
    K.BAD_REQUEST: "http_400 http_404 http_422 error_event_invalid",
    K.CONTEXT_WINDOW: "http_413 context_length",
    K.QUOTA: "insufficient_quota error_event_quota",
    K.FILTERED: "content_policy",
    K.PREFILL_REFUSED: "prefill_refused",
}
ROWS = [(fault, kind) for kind, faults in KINDS.items() for fault in faults.split()]

# The client raises nothing: it takes the first eight for an end, and on comments it waits for ever. That is for the
# verdict and the watchdogs.
UNSEEN = ["clean_eof", "done_without_finish", "close_eof", "half_event", "half_event_close", "html", "empty"]
UNSEEN += ["error_finish", "comments", "comments_first"]


BRIEF = 0.5  # seconds, where the client's patience is what ends a stream
PATIENT = 30.0


def settings(server: FaultServer, timeout: float = PATIENT) -> dict[str, Any]:
    return {"base_url": server.url, "api_key": KEY, "max_retries": 0, "timeout": timeout}


def read(server: FaultServer, timeout: float, chunks: list[Any]) -> None:
    with openai.OpenAI(**settings(server, timeout)) as client, client.chat.completions.create(**ASK) as stream:
        chunks.extend(chunk for chunk in stream)


def aread(server: FaultServer, timeout: float, chunks: list[Any]) -> None:
    async def run() -> None:
        async with (
            openai.AsyncOpenAI(**settings(server, timeout)) as client,
            await client.chat.completions.create(**ASK) as stream,
        ):
            async for chunk in stream:
                chunks.append(chunk)

    asyncio.run(run())


Read = Callable[[FaultServer, float, list[Any]], None]
BOTH = pytest.mark.parametrize("read", [read, aread], ids=["sync", "async"])


def raised(read: Read, fault: str) -> Fault:
    """What the client raises, classified."""
    chunks: list[Any] = []
    with FaultServer(TEXT, [fault]) as server:
        try:
            read(server, BRIEF if fault.startswith("stall") else PATIENT, chunks)
        except Exception as error:
            return classify(error, streamed=bool(chunks))
    pytest.fail(f"{fault} raised nothing")


def test_every_fault_is_in_the_table() -> None:
    assert sorted([*(fault for fault, _ in ROWS), *UNSEEN]) == sorted([*RETRYABLE, *FATAL])


@BOTH
@pytest.mark.parametrize(("fault", "kind"), ROWS, ids=[fault for fault, _ in ROWS])
def test_kind(read: Read, fault: str, kind: FaultKind) -> None:
    found = raised(read, fault)
    assert found.kind is kind
    assert found.retryable is (fault in RETRYABLE)
    assert KEY not in found.message
    if fault.startswith("http_"):
        assert found.status == FAULTS[fault].status


@BOTH
@pytest.mark.parametrize(
    ("fault", "at_least", "at_most"),
    [
        ("http_429", None, None),
        ("http_429_seconds", 1, 1),
        ("http_503_seconds", 1, 1),
        ("http_429_ms", 0.05, 0.05),
        ("http_429_date", 0, 2),
    ],
    ids=["none", "seconds", "seconds-of-503", "ms", "date"],
)
def test_retry_after(read: Read, fault: str, at_least: float | None, at_most: float | None) -> None:
    seconds = raised(read, fault).retry_after
    if at_least is None or at_most is None:
        assert seconds is None
    else:
        assert seconds is not None
        assert at_least <= seconds <= at_most


# The connection behind a stream, for leaving: the client's classes and its response are looked into by name.


def told(stream: Iterator[Any]) -> Iterator[Any]:
    """As an integration wraps the client's stream."""
    yield from stream


async def atold(stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for chunk in stream:
        yield chunk


def test_the_connection_behind_a_stream_is_found_and_closed() -> None:
    with FaultServer(TEXT, ["stall"]) as server, openai.OpenAI(**settings(server)) as client:
        stream = told(client.chat.completions.create(**ASK))
        next(stream)
        upstream = Upstream()
        upstream.look(stream)
        upstream.close()
        assert server.wait_idle()
        assert server.requests[0].client_left


async def test_the_connection_behind_an_asynchronous_stream_is_found_and_closed() -> None:
    with FaultServer(TEXT, ["stall"]) as server:
        async with openai.AsyncOpenAI(**settings(server)) as client:
            stream = atold(await client.chat.completions.create(**ASK))
            await anext(stream)
            upstream = Upstream()
            upstream.look(stream)
            await upstream.aclose()
            assert await asyncio.to_thread(server.wait_idle)
            assert server.requests[0].client_left


def test_a_blocked_read_is_ended_from_another_thread() -> None:
    with FaultServer(TEXT, ["stall"]) as server, openai.OpenAI(**settings(server)) as client:
        stream = told(client.chat.completions.create(**ASK))
        next(stream)
        upstream = Upstream()
        upstream.look(stream)
        assert upstream.can_break
        breaker = threading.Timer(0.2, upstream.break_read)
        breaker.start()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which class it is, is what differs between versions
            list(stream)
        breaker.join()
        assert classify(caught.value, streamed=True).kind is K.TRANSPORT
        upstream.close()
