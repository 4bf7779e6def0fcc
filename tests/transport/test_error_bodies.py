"""An error as JSON under status 200, in place of an answer: what it says decides whether it is asked again."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import respx
from llama_index.llms.openai_like import OpenAILike

from llama_index_resilient_stream import ResilientLLM, StreamStatus
from llama_index_resilient_stream.errors import ErrorBodyError
from llama_index_resilient_stream.http import async_http_client, http_client
from llama_index_resilient_stream.recovery.faults import classify
from llama_index_resilient_stream.report import FaultKind
from llama_index_resilient_stream.testing import FaultServer, WireFault, http_error
from llama_index_resilient_stream.transport.error_body import MOST, ErrorBody
from support.readers import QUICK, TEXT, Reader, openai_like, question

Serve = Callable[..., FaultServer]
K = FaultKind

# type, code, message
FINAL = {
    "quota": (K.QUOTA, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "quota-by-text": (K.QUOTA, "error", None, "Insufficient balance"),
    "key": (K.AUTH, "invalid_request_error", "invalid_api_key", "Incorrect API key provided"),
    "key-by-status": (K.AUTH, "error", 401, "No"),
    "key-by-text": (K.AUTH, "error", None, "Invalid API key"),
    "context": (K.CONTEXT_WINDOW, "invalid_request_error", "context_length_exceeded", "Too long."),
    "context-by-text": (K.CONTEXT_WINDOW, "error", None, "This model's maximum context length is 8192 tokens."),
    "bad-request": (K.BAD_REQUEST, "invalid_request_error", None, "Invalid value for 'temperature'."),
    "no-such-model": (K.BAD_REQUEST, "invalid_request_error", "model_not_found", "The model does not exist."),
    "filter": (K.FILTERED, "invalid_request_error", "content_policy_violation", "The content was filtered."),
}
PASSING = {
    "server": (K.SERVER, "server_error", None, "The server had an error."),
    "server-by-status": (K.SERVER, "error", 502, "Bad gateway"),
    "overloaded": (K.OVERLOADED, "overloaded_error", None, "Overloaded"),
    "busy-by-status": (K.OVERLOADED, "error", "503", "Try again later"),
    "rate-limit": (K.RATE_LIMIT, "rate_limit_error", "rate_limit_exceeded", "Rate limit reached"),
    "nobody-knows": (K.SERVER, "gateway_said_no", None, "Something went wrong"),
}
Row = tuple[FaultKind, str, Any, str]


def rows(table: dict[str, Row]) -> Any:
    return pytest.mark.parametrize("row", table.values(), ids=table)


def fault_of(row: Row) -> WireFault:
    _, kind, code, message = row
    return http_error(200, message, kind, code)


@pytest.fixture(params=["its-own-client", "our-client"])
def clients(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    if request.param == "its-own-client":
        yield {}
        return
    with http_client() as client:
        yield {"http_client": client, "async_http_client": async_http_client()}


@rows(FINAL)
def test_what_no_other_try_mends_costs_one_request(
    reader: Reader, serve: Serve, clients: dict[str, Any], row: Row
) -> None:
    server = serve(TEXT, [fault_of(row)] * 9)
    result = reader(ResilientLLM(openai_like(server, **clients), policy=QUICK))
    assert len(server.requests) == 1
    assert result.report.faults == [row[0]]
    assert result.error is not None
    assert not result.error.retryable
    assert result.report.status is StreamStatus.INTERRUPTED


@rows(PASSING)
def test_what_passes_is_asked_again(reader: Reader, serve: Serve, clients: dict[str, Any], row: Row) -> None:
    server = serve(TEXT, [fault_of(row)])
    result = reader(ResilientLLM(openai_like(server, **clients), policy=QUICK))
    assert result.text == TEXT
    assert len(server.requests) == 2
    assert result.report.faults == [row[0]]
    assert result.report.status is StreamStatus.COMPLETE


def whole(llm: ResilientLLM, asynchronous: bool) -> Any:
    """Ask without streaming, and give its HTTP clients back."""

    async def ask() -> Any:
        try:
            return await llm.achat(question())
        finally:
            await llm.llm._get_aclient().close()  # type: ignore[attr-defined]

    if asynchronous:
        return asyncio.run(ask())
    try:
        return llm.chat(question())
    finally:
        llm.llm._get_client().close()  # type: ignore[attr-defined]


ASYNCHRONOUS = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@ASYNCHRONOUS
@rows(FINAL)
def test_a_call_that_is_not_streamed_decides_the_same(
    serve: Serve, clients: dict[str, Any], asynchronous: bool, row: Row
) -> None:
    server = serve(TEXT, [fault_of(row)] * 9)
    with pytest.raises(ErrorBodyError) as caught:
        whole(ResilientLLM(openai_like(server, **clients), policy=QUICK), asynchronous)
    assert len(server.requests) == 1
    assert classify(caught.value, streamed=False).kind is row[0]
    assert "in place of an answer" in str(caught.value)


@ASYNCHRONOUS
@rows(PASSING)
def test_a_call_that_is_not_streamed_is_asked_again(
    serve: Serve, clients: dict[str, Any], asynchronous: bool, row: Row
) -> None:
    server = serve(TEXT, [fault_of(row)])
    answer = whole(ResilientLLM(openai_like(server, **clients), policy=QUICK), asynchronous)
    assert answer.message.content == TEXT
    assert len(server.requests) == 2


@ASYNCHRONOUS
def test_the_error_of_a_call_says_what_the_server_said_and_no_key(serve: Serve, asynchronous: bool) -> None:
    key = "sk-abcdefghijklmnop0123456789"
    fault = http_error(200, f"Incorrect API key provided: {key}", "invalid_request_error", "invalid_api_key")
    with pytest.raises(ErrorBodyError, match="Incorrect API key provided") as caught:
        whole(ResilientLLM(openai_like(serve(TEXT, [fault] * 9)), policy=QUICK), asynchronous)
    assert key not in f"{caught.value!s}{caught.value!r}"
    assert caught.value.__notes__[0].startswith("ResilientLLM gave up after 1 attempt in")


@pytest.mark.parametrize(
    "body",
    [{"error": None, "choices": [{"index": 0}]}, {"error": {"code": 1}, "choices": [{"index": 0}]}, {"id": "an error"}],
    ids=["no-error", "an-answer-too", "none"],
)
def test_what_has_an_answer_is_no_error(body: dict[str, Any]) -> None:
    seen = ErrorBody()
    seen.feed(json.dumps(body).encode())
    assert seen.error() is None


def test_a_continuation_may_be_answered_so(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, ["reset", fault_of(FINAL["quota"]), None])
    result = reader(ResilientLLM(openai_like(server), policy=QUICK))
    assert len(server.requests) == 2
    assert result.error is not None
    assert result.error.partial_text == result.text != ""
    assert result.report.faults == [K.TRANSPORT, K.QUOTA]


def test_the_next_model_is_asked(reader: Reader, serve: Serve) -> None:
    broke, well = serve(TEXT, [fault_of(FINAL["quota"])] * 9), serve(TEXT)
    llm = ResilientLLM(openai_like(broke), fallbacks=[openai_like(well)], policy=QUICK)
    assert reader(llm).text == TEXT
    assert (len(broke.requests), len(well.requests)) == (1, 1)


def test_the_error_says_what_the_server_said_and_no_key(reader: Reader, serve: Serve) -> None:
    key = "sk-abcdefghijklmnop0123456789"
    fault = http_error(200, f"Incorrect API key provided: {key}", "invalid_request_error", "invalid_api_key")
    result = reader(ResilientLLM(openai_like(serve(TEXT, [fault] * 9)), policy=QUICK))
    assert "Incorrect API key provided" in str(result.error)
    assert key not in f"{result.error!s}{result.error!r}{result.report!r}{result.error.__cause__!s}"  # type: ignore[union-attr]


# On the wire: whatever the body is said to be, and however it is written

ERROR = {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": "insufficient_quota"}
JSON, STREAM = "application/json", "text/event-stream"


def body(content: Any, kind: str = JSON, **headers: str) -> dict[str, Any]:
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return {"content": content, "headers": {"content-type": kind, **headers}}


SAID = {
    "object": body({"error": ERROR}),
    "text": body({"error": "Insufficient balance"}),
    "list": body([{"error": ERROR}]),
    "flat": body({"object": "error", **ERROR}),
    "flat-type": body({"type": "error", "error": ERROR}),
    "indented": body(json.dumps({"error": ERROR}, indent=2).encode()),
    "blank-first": body(b"\r\n\r\n  " + json.dumps({"error": ERROR}).encode() + b"\n"),
    "byte-order-mark": body(b"\xef\xbb\xbf" + json.dumps({"error": ERROR}).encode()),
    "called-a-stream": body({"error": ERROR}, STREAM),
    "called-text": body({"error": ERROR}, "text/plain; charset=utf-8"),
    "problem": body({"error": ERROR}, "application/problem+json"),
    "gzip": body(gzip.compress(json.dumps({"error": ERROR}).encode()), **{"content-encoding": "gzip"}),
}
UNSAID = {
    "cut": body(json.dumps({"error": ERROR}).encode()[:-4]),
    "no-error": body({"error": None, "choices": []}),
    "empty-error": body({"error": {}}),
    "html": body(b"<html>insufficient_quota</html>", "text/html"),
    "nothing": body(b""),
    "number": body(b"17"),
    "deep": body(b'{"error":' * 5_000 + b"1" + b"}" * 5_000),
}


def somewhere() -> OpenAILike:
    return OpenAILike(model="m", api_base="http://m/v1", api_key="x", is_chat_model=True, max_retries=0)


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_it_is_known_by_how_the_body_begins(reader: Reader, said: dict[str, Any]) -> None:
    with respx.mock() as wire:
        route = wire.post("http://m/v1/chat/completions").mock(side_effect=lambda request: httpx.Response(200, **said))
        result = reader(ResilientLLM(somewhere(), policy=QUICK))
    assert result.report.faults == [K.QUOTA]
    assert route.call_count == 1


@pytest.mark.parametrize("said", UNSAID.values(), ids=UNSAID)
def test_what_says_no_error_is_an_empty_answer_as_ever(reader: Reader, said: dict[str, Any]) -> None:
    with respx.mock() as wire:
        wire.post("http://m/v1/chat/completions").mock(side_effect=lambda request: httpx.Response(200, **said))
        result = reader(ResilientLLM(somewhere(), policy=QUICK))
    assert K.QUOTA not in result.report.faults
    assert len(result.report.attempts) > 1


def test_the_body_may_come_in_pieces() -> None:
    seen = ErrorBody()
    for byte in json.dumps({"error": ERROR}).encode():
        seen.feed(bytes([byte]))
    error = seen.error()
    assert error is not None
    assert error.body == {"error": ERROR}


@pytest.mark.parametrize("start", [b"data: ", b": comment\n", b"event: x\n", b"<", b"\n\ndata: "])
def test_a_body_that_begins_otherwise_is_not_kept(start: bytes) -> None:
    seen = ErrorBody()
    seen.feed(start)
    seen.feed(json.dumps({"error": ERROR}).encode())
    assert seen.error() is None
    assert not seen.is_kept


def test_a_body_that_is_too_long_is_not_kept() -> None:
    seen = ErrorBody()
    seen.feed(b'{"error": {"message": "')
    seen.feed(b"x" * MOST)
    seen.feed(b'"}}')
    assert seen.error() is None
    assert not seen.is_kept
