"""The HTTP clients: what passes through them, what they see of it, and what that is worth. On real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike
from tenacity import stop_after_attempt, stop_never

from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM, StreamStatus, StreamTimeoutError
from llama_index_resilient_stream.http import LIMITS, async_http_client, http_client
from llama_index_resilient_stream.recovery.events import Chunk, Ended, Learned, Model
from llama_index_resilient_stream.recovery.faults import FaultKind
from llama_index_resilient_stream.recovery.finish_reasons import OPEN, FinishMeaning, FinishReason
from llama_index_resilient_stream.recovery.verdict import Context, Evidence, judge
from llama_index_resilient_stream.testing import FAULTS, NO_FINISH_REASON, FaultServer
from llama_index_resilient_stream.transport.connection import ReaderLeftError, Upstream
from llama_index_resilient_stream.transport.sockets import keep_alive_options
from llama_index_resilient_stream.transport.terminator import TerminatorWatch, promises
from support.readers import QUICK, TEXT, Reader, openai_like, question, read

Serve = Callable[..., FaultServer]
WATCHED = replace(QUICK, first_token_timeout=5.0, idle_timeout=5.0)
SHORT = "The cable broke two miles down, in the dark."
TOOLS = [{"type": "function", "function": {"name": "transfer"}}]


class Untelling(OpenAILike):
    """Said by its user never to send a finish reason."""

    sends_finish_reason: bool = False


_made: list[httpx.Client] = []


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close()


def clients() -> dict[str, Any]:
    _made.append(http_client())
    return {"http_client": _made[-1], "async_http_client": async_http_client()}


def resilient(server: FaultServer, policy: RecoveryPolicy = WATCHED, **kwargs: Any) -> ResilientLLM:
    return ResilientLLM(openai_like(server, **clients(), **kwargs), policy=policy)


def eventually(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


def readers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("resilient-stream-reader")]


# What is seen of a body


def split(body: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(body)) for place in places} | {0, len(body)})
    return [body[start:end] for start, end in itertools.pairwise(ends)]


def looked_at(pieces: list[bytes], *, promised: bool = True, encoding: str = "") -> bool | None:
    watch = TerminatorWatch(promised=promised, encoding=encoding)
    for piece in pieces:
        watch.feed(piece)
    watch.end()
    return watch.terminated


EVENT = b'data: {"choices":[{"delta":{"content":"say data: [DONE]\\n\\ndata: [DONE] now"}}]}'
BODIES = {
    "done": (EVENT + b"\n\ndata: [DONE]\n\n", True),
    "done-crlf": (EVENT + b"\r\n\r\ndata: [DONE]\r\n\r\n", True),
    "done-cr": (EVENT + b"\r\rdata: [DONE]\r\r", True),
    "done-no-space": (EVENT + b"\n\ndata:[DONE]\n\n", True),
    "done-alone": (b"data: [DONE]\n\n", True),
    "done-last-line-unended": (EVENT + b"\n\ndata: [DONE]", True),
    "done-and-more": (EVENT + b"\n\ndata: [DONE]\n\n: bye\n\n" + b"\n" * 99, True),
    "named": (EVENT + b"\n\nevent: done\ndata: [DONE]\n\n", True),
    "message-stop": (EVENT + b'\n\nevent: message_stop\ndata: {"type": "message_stop"}\n\n', True),
    "response-completed": (EVENT + b"\n\nevent: response.completed\ndata: {}\n\n", True),
    "cut": (EVENT + b"\n\n", False),
    "cut-in-the-marker": (EVENT + b"\n\ndata: [DON", False),
    "said-by-the-model": (EVENT, False),
    "a-comment": (EVENT + b"\n\n: data: [DONE]\n\n", False),
    "another-field": (EVENT + b"\n\nid: [DONE]\n\n", False),
    "indented": (EVENT + b"\n\n data: [DONE]\n\n", False),
    "another-event": (EVENT + b"\n\nevent: message_stopped\ndata: {}\n\n", False),
    "incomplete": (EVENT + b"\n\nevent: response.incomplete\ndata: {}\n\n", False),
    "empty": (b"", False),
}


@pytest.mark.parametrize(("body", "seen"), BODIES.values(), ids=BODIES)
def test_a_terminator_is_seen_however_the_body_is_split(body: bytes, seen: bool) -> None:
    assert looked_at([body]) is seen
    assert looked_at([bytes([byte]) for byte in body]) is seen
    for place in range(len(body)):
        assert looked_at(split(body, [place])) is seen


@given(st.sampled_from(sorted(BODIES)), st.sampled_from(["", "gzip", "deflate"]), st.lists(st.integers(0, 300)))
def test_every_split_gives_the_same_looked_at(name: str, encoding: str, places: list[int]) -> None:
    body, seen = BODIES[name]
    sent = {"": lambda b: b, "gzip": gzip.compress, "deflate": zlib.compress}[encoding](body)
    assert looked_at(split(sent, places), encoding=encoding) is seen


DONE = BODIES["done"][0]


@pytest.mark.parametrize(
    ("sent", "encoding"),
    [(DONE, "br"), (DONE, "gzip, br"), (DONE, "gzip"), (zlib.compress(DONE)[2:-4], "deflate")],
    ids=["unknown", "two", "not-what-it-says", "raw-deflate"],
)
def test_unreadable_body_is_not_judged(sent: bytes, encoding: str) -> None:
    assert looked_at([sent], encoding=encoding) is None


def test_absence_counts_only_at_the_end_of_a_body_that_was_promised_a_terminator() -> None:
    cut = BODIES["cut"][0]
    assert looked_at([cut], promised=False) is None
    assert looked_at([DONE], promised=False) is True
    watch = TerminatorWatch(promised=True)
    watch.feed(cut)
    assert watch.terminated is None  # nobody read on, and it may have come
    assert promises("/v1/chat/completions")
    assert promises("/openai/deployments/x/completions")
    assert promises("/v1/messages")
    assert not promises("/v1/responses")


# Finish reasons on the wire, also where LlamaIndex drops the chunk


def openai_event(delta: Any, reason: str | None = None, **choice: Any) -> bytes:
    body = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, **({} if delta is None else {"delta": delta}), "finish_reason": reason, **choice}
    return b"data: " + json.dumps({**body, "choices": [choice]}).encode() + b"\n\n"


def named_event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


HELLO, END = openai_event({"content": "Hello"}), b"data: [DONE]\n\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
REASONS = {
    "none": (HELLO + END, None),
    "stop": (HELLO + openai_event({}, "stop") + END, "stop"),
    "usage-behind-it": (HELLO + openai_event({}, "length") + USAGE + END, "length"),
    "compact-json": (HELLO + b'data:{"choices":[{"finish_reason":"content_filter"}]}\n\n' + END, "content_filter"),
    "without-delta": (HELLO + openai_event(None, "content_filter") + END, "content_filter"),
    "first-without-content": (openai_event({"role": "assistant", "content": None}, "content_filter"), "content_filter"),
    "camel-case": (HELLO + openai_event({}, None, finishReason="MAX_TOKENS") + END, "max_tokens"),
    "on-the-last-text": (openai_event({"content": "Hello"}, "stop") + END, "stop"),
    "on-every-chunk": (openai_event({"content": "Hel"}, "stop") + openai_event({"content": "lo"}, "stop"), "stop"),
    "text-behind-it": (openai_event({"content": "Hel"}, "stop") + HELLO, None),
    "thought-behind-it": (openai_event({}, "stop") + openai_event({"reasoning_content": "Hm"}), None),
    "call-behind-it": (openai_event({}, "stop") + openai_event({"tool_calls": [{"index": 0}]}), None),
    "completion": (HELLO + openai_event(None, "length", text="") + END, "length"),
    "text-of-a-completion": (openai_event(None, "stop", text="a") + openai_event(None, text="b") + END, None),
    "said-by-the-model": (openai_event({"content": '"finish_reason":"content_filter"'}), None),
    "empty-string": (HELLO + openai_event({}, "") + END, None),
    "in-a-comment": (b': {"finish_reason":"stop"}\n\n' + HELLO, None),
    "no-json": (b'data: {"finish_reason":"stop"\n\n' + HELLO, None),
    "no-object": (b'data: ["finish_reason","finish_reason": "x"]\n\ndata: "finish_reason"\n\n' + HELLO, None),
    "odd-choices": (b'data: {"choices":{"finish_reason":"stop"}}\n\ndata: {"choices":[1,{"delta":"x"}]}\n\n', None),
    "behind-done": (HELLO + END + openai_event({}, "stop"), None),
    "refusal": (openai_event({"refusal": "I can"}) + openai_event({"refusal": "not."}), "refusal"),
    "refusal-and-stop": (openai_event({"refusal": "No."}) + openai_event({}, "stop") + END, "refusal"),
    "refusal-and-filter": (openai_event({"refusal": "No."}) + openai_event({}, "content_filter"), "content_filter"),
    "empty-refusal": (openai_event({"content": "Hi", "refusal": ""}) + openai_event({}, "stop") + END, "stop"),
    "anthropic": (
        named_event("content_block_delta", delta={"type": "text_delta", "text": "Hello"})
        + named_event("message_delta", delta={"stop_reason": "refusal", "stop_sequence": None})
        + named_event("message_stop"),
        "refusal",
    ),
    "anthropic-without-event-lines": (
        b'data: {"type": "message_delta", "delta": {"stop_reason": "refusal"}}\n\ndata: {"type": "message_stop"}\n\n',
        "refusal",
    ),
    "anthropic-more-behind-it": (
        named_event("message_delta", delta={"stop_reason": "max_tokens"})
        + named_event("content_block_delta", delta={"type": "text_delta", "text": "Hello"}),
        None,
    ),
    "responses-incomplete": (
        named_event("response.output_text.delta", delta="Hello")
        + named_event("response.incomplete", response={"incomplete_details": {"reason": "content_filter"}}),
        "content_filter",
    ),
    "responses-refusal": (
        named_event("response.refusal.delta", delta="I") + named_event("response.completed"),
        "refusal",
    ),
}


def reason_in(pieces: list[bytes], encoding: str = "") -> str | None:
    watch = TerminatorWatch(promised=True, encoding=encoding)
    for piece in pieces:
        watch.feed(piece)
    watch.end()
    return watch.finish_reason and watch.finish_reason.word


@pytest.mark.parametrize(("body", "reason"), REASONS.values(), ids=REASONS)
def test_the_last_finish_reason_is_noted_however_the_body_is_split(body: bytes, reason: str | None) -> None:
    assert reason_in([body]) == reason
    assert reason_in([bytes([byte]) for byte in body]) == reason
    for place in range(0, len(body), 7):
        assert reason_in(split(body, [place])) == reason
    for line_end in (b"\r\n", b"\r"):
        assert reason_in(body.replace(b"\n", line_end).splitlines(keepends=True)) == reason
    assert reason_in(split(gzip.compress(body), [40]), "gzip") == reason


def test_a_line_without_end_is_not_kept_and_hides_nothing_behind_it() -> None:
    watch = TerminatorWatch(promised=True)
    for _ in range(64):
        watch.feed(b"data: " + b"x" * 65536)
    assert len(watch._tail) < 100
    watch.feed(b"\n\n" + openai_event(None, "content_filter") + END)
    assert watch.terminated is True
    assert watch.finish_reason == FinishReason(FinishMeaning.FILTER, "content_filter")


# What passes through


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


def mocked(body: Pieces, kind: str = "text/event-stream; charset=utf-8", **headers: str) -> httpx.MockTransport:
    return httpx.MockTransport(
        lambda request: httpx.Response(200, headers={"content-type": kind, **headers}, stream=body)
    )


URL = "http://test/v1/chat/completions"


def received(body: Pieces, upstream: Upstream, **options: Any) -> list[bytes]:
    transport = mocked(body, **options)
    with http_client(transport=transport) as client, upstream.asking(), client.stream("POST", URL) as response:
        return list(response.iter_raw())


def areceived(body: Pieces, upstream: Upstream, **options: Any) -> list[bytes]:
    async def run() -> list[bytes]:
        async with async_http_client(transport=mocked(body, **options)) as client:
            with upstream.asking():
                async with client.stream("POST", URL) as response:
                    return [piece async for piece in response.aiter_raw()]

    return asyncio.run(run())


BOTH = pytest.mark.parametrize("receive", [received, areceived], ids=["sync", "async"])


@BOTH
def test_a_body_passes_piece_by_piece_as_it_came(receive: Callable[..., list[bytes]]) -> None:
    body, upstream = Pieces([b"data: 1\n", b"\n", b"data: [DO", b"NE]\n\n", b": after"]), Upstream()
    assert receive(body, upstream) == body.pieces
    assert upstream.ended().terminated is True
    assert body.closed == 1


def bare(reason: str) -> bytes:
    return b'data: {"choices": [{"index": 0, "finish_reason": "%s"}]}\n\n' % reason.encode()


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(
    ("body", "before"),
    [
        pytest.param([HELLO, HELLO, bare("stop"), END], 2, id="bare"),
        pytest.param([bare("length"), END], 0, id="bare and first"),
        pytest.param([HELLO, b": ping\n\n", bare("stop")], 1, id="a comment is no event"),
        pytest.param([HELLO, openai_event(None, "stop"), END], 1, id="an empty delta"),
        pytest.param([HELLO, openai_event("x", "stop"), END], None, id="text on it"),
        pytest.param([HELLO, bare("stop"), HELLO, END], None, id="text behind it"),
        pytest.param([HELLO, END], None, id="no reason"),
        pytest.param([HELLO.replace(b"data:", b"data:" + b" " * 70_000), bare("stop"), END], None, id="a long line"),
    ],
)
def test_it_is_known_how_many_events_came_before_a_bare_reason(
    body: list[bytes], before: int | None, end: bytes, size: int
) -> None:
    watch = TerminatorWatch(promised=True)
    sent = b"".join(body).replace(b"\n", end)
    if len(sent) > 60_000 and size == 100_000:
        size = 1_000  # in one piece a long line is whole
    for at in range(0, len(sent), size):
        watch.feed(sent[at : at + size])
    assert watch.events_before_reason == before


@BOTH
def test_the_finish_reason_on_the_wire_goes_with_the_end(receive: Callable[..., list[bytes]]) -> None:
    body, upstream = Pieces([HELLO, openai_event(None, "content_filter"), END]), Upstream()
    receive(body, upstream)
    reason = FinishReason(FinishMeaning.FILTER, "content_filter")
    error = ConnectionResetError()
    for ended, failed in ((upstream.ended(), None), (upstream.ended(error), error)):
        assert (ended.error, ended.terminated, ended.finish_reason) == (failed, True, reason)
    assert Upstream().ended() == Ended()


@BOTH
def test_a_body_that_is_no_stream_is_not_looked_at(receive: Callable[..., list[bytes]]) -> None:
    body, upstream = Pieces([DONE]), Upstream()
    assert receive(body, upstream, kind="application/json") == [DONE]
    assert upstream.ended().terminated is None


@BOTH
def test_a_compressed_stream_is_looked_into(receive: Callable[..., list[bytes]]) -> None:
    body, upstream = Pieces([gzip.compress(DONE)]), Upstream()
    assert receive(body, upstream, **{"content-encoding": "gzip"}) == body.pieces
    assert upstream.ended().terminated is True


def test_http_client_options_of_the_user_win() -> None:
    with http_client() as client:
        assert client.timeout.connect == 10
        assert client.timeout.read == 600
        assert client.headers["accept-encoding"] == "gzip, deflate"
        assert client.headers["user-agent"].startswith("python-httpx")
        assert client.follow_redirects
    given = {
        "timeout": httpx.Timeout(3.0),
        "headers": {"X-Team": "a"},
        "follow_redirects": False,
        "base_url": "http://b",
    }
    with http_client(**given) as client:
        assert client.timeout == httpx.Timeout(3.0)
        assert client.headers["x-team"] == "a"
        assert client.headers["accept-encoding"] == "gzip, deflate"
        assert not client.follow_redirects
    assert LIMITS.keepalive_expiry is not None
    assert LIMITS.keepalive_expiry < 60  # before the load balancer


@pytest.mark.parametrize(("given", "connect", "read"), [(60.0, 10.0, 60.0), (2.0, 2.0, 2.0), (None, 10.0, None)])
def test_one_timeout_for_everything_means_the_model(given: float | None, connect: float, read: float | None) -> None:
    seen: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return httpx.Response(200)

    with http_client(transport=httpx.MockTransport(answer)) as client:
        client.post(URL, timeout=given)
    assert seen[0]["connect"] == seen[0]["pool"] == connect
    assert seen[0]["read"] == read


def test_a_missing_extra_is_answered_with_the_line_that_installs_it() -> None:
    code = (
        "import llama_index.core, sys\n"
        "for name in [n for n in sys.modules if n.split('.')[0] == 'httpx']: del sys.modules[name]\n"
        "sys.modules['httpx'] = None\n"
        "try: import llama_index_resilient_stream.http\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 'pip install "llama-index-resilient-stream[openai]"' in done.stdout


# Connections


def test_two_streams_share_one_connection(reader: Reader, serve: Serve) -> None:
    server = serve(TEXT, ["clean_eof", None])
    llm = resilient(server)
    assert reader(llm).text == TEXT
    assert [record.connection for record in server.requests] == [1, 1]
    assert server.wait_closed()  # nothing is left open when the client is closed


def test_a_body_that_does_not_end_after_its_terminator_is_not_waited_for(reader: Reader) -> None:
    """The connection is given up instead, in about a twentieth of a second."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                event = (
                    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
                )
                event += b'"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                connection.sendall(head + b"%x\r\n%b\r\n" % (len(event), event))
                while connection.recv(65536):
                    pass
                done.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        inner = OpenAILike(model="m", api_base=url, api_key="x", is_chat_model=True, max_retries=0, **clients())
        result = reader(ResilientLLM(inner, policy=WATCHED))
        assert result.text == "Hi"
        assert result.report.status is StreamStatus.COMPLETE
        assert done.wait(3)
        thread.join(3)


def test_connections_are_kept_alive(serve: Serve) -> None:
    assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in keep_alive_options()
    server = serve("Hi.")
    with http_client() as client, client.stream("POST", f"{server.url}/chat/completions", json={"stream": True}) as r:
        sock = r.extensions["network_stream"].get_extra_info("socket")
        assert [sock.getsockopt(level, option) for level, option, _ in keep_alive_options()[1:]] == [
            value for _, _, value in keep_alive_options()[1:]
        ]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        r.read()


async def test_asynchronous_connections_are_kept_alive(serve: Serve) -> None:
    server = serve("Hi.")
    url, body = f"{server.url}/chat/completions", {"stream": True}
    async with async_http_client() as client, client.stream("POST", url, json=body) as response:
        sock = response.extensions["network_stream"].get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await response.aread()


@pytest.mark.parametrize("given", ["transport", "mounts"])
def test_a_transport_of_the_user_s_is_left_alone(serve: Serve, given: str) -> None:
    server = serve("Hi.")
    transport: Any = httpx.HTTPTransport()
    settings = {"transport": {"transport": transport}, "mounts": {"mounts": {"http://": transport}}}[given]
    url, body = f"{server.url}/chat/completions", {"stream": True}
    with http_client(**settings) as client, client.stream("POST", url, json=body) as response:
        sock = response.extensions["network_stream"].get_extra_info("socket")
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert response.read().endswith(b"[DONE]\n\n")


# A server that never sends finish reasons: exact


NEVER_TELLS = ["no_finish_reason"] * 9


def untelling(server: FaultServer) -> ResilientLLM:
    inner = Untelling(model="m", api_base=server.url, api_key="x", is_chat_model=True, max_retries=0, **clients())
    return ResilientLLM(inner, policy=WATCHED)


@pytest.mark.parametrize("after", [*range(0, len(SHORT), 4)])
@pytest.mark.parametrize("cut", ["clean_eof", "close_eof"])
def test_a_cut_is_told_from_an_end_by_the_terminator(reader: Reader, serve: Serve, cut: str, after: int) -> None:
    server = serve(SHORT, [FAULTS[cut].at(after), *NEVER_TELLS])
    result = reader(untelling(server))
    assert result.text == SHORT
    assert result.report.status is StreamStatus.COMPLETE
    assert result.report.finish_reason is None
    assert result.report.faults == ["truncated"]
    assert len(server.requests) == 2


def test_a_whole_answer_of_a_class_said_never_to_tell_is_asked_for_once(reader: Reader, serve: Serve) -> None:
    server = serve(SHORT, NEVER_TELLS)
    llm = untelling(server)
    assert read(llm).text == SHORT
    assert reader(llm).text == SHORT
    assert len(server.requests) == 2


def test_completion_stream_recovers(reader: Reader, serve: Serve) -> None:
    server = serve(SHORT, [FAULTS["clean_eof"].at(20), *NEVER_TELLS])
    result = reader(untelling(server), endpoint="complete")
    assert result.text == SHORT
    assert result.report.status is StreamStatus.COMPLETE


# [DONE] without a finish reason, of a class that is expected to send one


def expected_to_tell(server: FaultServer, llm_class: Any = OpenAILike, **kwargs: Any) -> ResilientLLM:
    like = {"is_chat_model": True} if issubclass(llm_class, OpenAILike) else {}
    settings = {"api_base": server.url, "api_key": "x", "max_retries": 0, **like, **clients(), **kwargs}
    return ResilientLLM(llm_class(model="gpt-4o-mini", **settings), policy=WATCHED)


CLASSES = pytest.mark.parametrize("llm_class", [OpenAI, OpenAILike])


@CLASSES
@pytest.mark.parametrize("after", [*range(0, len(SHORT), 8)])
def test_done_without_a_finish_reason_is_recovered_from(
    reader: Reader, serve: Serve, llm_class: Any, after: int
) -> None:
    server = serve(SHORT, [FAULTS["done_without_finish"].at(after)])
    result = reader(expected_to_tell(server, llm_class))
    assert result.text == SHORT
    assert result.report.status is StreamStatus.COMPLETE
    assert result.report.faults == ["truncated"]
    assert len(server.requests) == 2


@pytest.mark.parametrize("second", [0, 3, 16, 24], ids="second-after-{}".format)
def test_done_without_a_finish_reason_twice_is_never_complete(reader: Reader, serve: Serve, second: int) -> None:
    """However far the second attempt comes, also not beyond the repeated anchor, half an answer is no whole one."""
    early = FAULTS["done_without_finish"]
    server = serve(SHORT, [early.at(24), early.at(second)])
    result = reader(expected_to_tell(server))
    assert (result.report.status, result.text) in [(StreamStatus.COMPLETE, SHORT), (StreamStatus.UNKNOWN, SHORT[:24])]


@CLASSES
@pytest.mark.parametrize("endpoint", ["chat", "complete"])
def test_an_answer_that_never_has_a_finish_reason_stays_readable(
    reader: Reader, serve: Serve, llm_class: Any, endpoint: str
) -> None:
    """One more attempt adds nothing and ends in the same way: this is all there is, and nobody calls it whole."""
    server = serve(SHORT, NEVER_TELLS)
    result = reader(expected_to_tell(server, llm_class), endpoint=endpoint)
    assert result.error is None
    assert result.text == SHORT
    assert result.report.status is StreamStatus.UNKNOWN
    assert len(server.requests) == 2


@pytest.mark.parametrize("cut", ["clean_eof", "reset", "done_without_finish"])
def test_an_answer_cut_and_without_a_finish_reason_stays_readable(reader: Reader, serve: Serve, cut: str) -> None:
    server = serve(SHORT, [FAULTS[cut].at(24), *NEVER_TELLS])
    result = reader(expected_to_tell(server))
    assert result.error is None
    assert result.text == SHORT
    assert result.report.status is StreamStatus.UNKNOWN
    assert len(server.requests) == 3


def test_a_server_that_says_nothing_more_is_asked_until_patience_is_out(reader: Reader, serve: Serve) -> None:
    """Without the anchor it may have lost what is behind it; what came stays readable all the same."""
    empty = FAULTS["done_without_finish"].at(0)
    server = serve(SHORT, [FAULTS["done_without_finish"].at(24), *[empty] * 9])
    result = reader(expected_to_tell(server))
    assert result.error is None
    assert result.text == SHORT[:24]
    assert result.report.status is StreamStatus.UNKNOWN
    assert len(server.requests) > 2
    server = serve(SHORT, [FAULTS["done_without_finish"].at(24), empty])
    result = reader(expected_to_tell(server))
    assert result.text == SHORT
    assert result.report.status is StreamStatus.COMPLETE


def test_a_completeness_of_strict_takes_no_answer_without_a_finish_reason(reader: Reader, serve: Serve) -> None:
    server = serve(SHORT, NEVER_TELLS)
    result = reader(resilient(server, replace(WATCHED, completeness="strict")))
    assert result.error is not None
    assert result.text == SHORT
    assert result.report.status is StreamStatus.INTERRUPTED


@CLASSES
def test_our_client_makes_no_verdict_weaker(reader: Reader, serve: Serve, llm_class: Any) -> None:
    """Whatever ends early ends the same with our client and with any other; what is whole costs no more requests."""
    order = {status: place for place, status in enumerate(["complete", "unknown", "interrupted"])}
    cuts = ("done_without_finish", "clean_eof", "close_eof", "half_event", "fin_in_chunk")
    cases = {**{fault: [FAULTS[fault].at(20)] for fault in cuts}, **{fault: [fault] * 9 for fault in NO_FINISH_REASON}}
    for fault, faults in cases.items():
        seen = []
        for ours in (True, False):
            server = serve(SHORT, faults)
            with httpx.Client() as plain:
                others = {} if ours else {"http_client": plain, "async_http_client": httpx.AsyncClient()}
                result = reader(expected_to_tell(server, llm_class, **others))
            assert result.text == SHORT, fault
            seen.append((order[result.report.status], len(server.requests)))
        assert seen[0] <= seen[1], fault
        assert fault not in NO_FINISH_REASON or seen[0][0] > 0


def test_a_terminator_too_early_is_seen_through_once_the_server_has_told(reader: Reader, serve: Serve) -> None:
    server = serve(SHORT, [None, FAULTS["done_without_finish"].at(20)])
    llm = resilient(server)
    assert read(llm).text == SHORT
    result = reader(llm)
    assert result.text == SHORT
    assert result.report.faults == ["truncated"]
    assert result.report.status is StreamStatus.COMPLETE


def test_lenient_policy_says_unknown_where_no_end_is_stated(reader: Reader, serve: Serve) -> None:
    server = serve(SHORT, ["no_finish_reason_no_done"])
    result = reader(resilient(server, replace(WATCHED, completeness="lenient")))
    assert result.text == SHORT
    assert result.report.status is StreamStatus.UNKNOWN
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["tool_call_eof", "tool_call_done", "tool_call_whole_done"])
def test_an_open_tool_call_outweighs_the_terminator(reader: Reader, serve: Serve, fault: str) -> None:
    server = serve(SHORT, [fault, "tool_call"])
    result = reader(resilient(server), tools=TOOLS)
    assert len(server.requests) == 2
    assert not server.requests[1].partial_text
    assert result.report.status is StreamStatus.COMPLETE
    calls = result.chunks[-1].message.additional_kwargs["tool_calls"]
    assert calls[0].function.arguments == FAULTS["tool_call"].tool_call[1]  # type: ignore[index]


# What the verdict makes of it

RESET = ConnectionResetError("reset")
KNOWN, TOLD = Model("m", sends_finish_reason=True), Model("m", learned=Learned(sends_finish_reason=True))
NOBODY, NEVER = Model("m"), Model("m", sends_finish_reason=False)
CUT, WHOLE, DARK = "truncated", "complete", "unknown"
VERDICTS = {
    #              model     terminator: seen   missing  nobody looked
    "known":      (KNOWN,               (CUT,   CUT,     CUT)),
    "told-before": (TOLD,               (CUT,   CUT,     CUT)),
    "nobody":     (NOBODY,              (WHOLE, CUT,     DARK)),
    "never":      (NEVER,               (WHOLE, CUT,     DARK)),
}  # fmt: skip


def said(*chunks: Chunk) -> Evidence:
    seen = Evidence()
    seen.text = seen.events = True
    for chunk in chunks:
        if chunk.tools is not None:
            seen.note_calls(chunk.tools)
    return seen


def verdict(
    seen: Evidence, model: Model, terminated: bool | None, error: Exception | None = None, completeness: Any = "auto"
) -> str:
    found = judge(seen, Ended(error, terminated), Context(model, completeness))
    return str(found.status if found.status is not None else found.fault and found.fault.kind)


@pytest.mark.parametrize(("model", "expected"), VERDICTS.values(), ids=VERDICTS)
def test_verdicts_on_an_end_without_a_finish_signal(model: Model, expected: tuple[str, ...]) -> None:
    assert tuple(verdict(said(), model, terminated) for terminated in (True, False, None)) == expected
    for terminated in (True, False, None):
        assert verdict(said(), model, terminated, completeness="strict") == CUT
        # A call that came in pieces is closed by a finish signal and by nothing else.
        torn = said(Chunk("", tools="a"), Chunk("", tools="ab"))
        assert verdict(torn, model, terminated) == CUT
        assert verdict(said(Chunk("", tools=f"a{OPEN}")), model, terminated) == CUT


def test_lenient_believes_what_it_sees_and_says_so() -> None:
    found = [verdict(said(), NEVER, terminated, completeness="lenient") for terminated in (True, False, None)]
    assert found == [WHOLE, DARK, DARK]
    assert verdict(said(), TOLD, True, completeness="lenient") == DARK


def test_an_error_after_the_terminator_is_no_fault_and_one_before_it_is() -> None:
    assert verdict(said(), NEVER, True, error=RESET) == WHOLE
    assert verdict(said(), NEVER, None, error=RESET) == FaultKind.TRANSPORT
    assert verdict(said(), TOLD, True, error=RESET) == FaultKind.TRANSPORT
    # Our client sees bytes before the SDK reads them: an error in an event may stand before a terminator.
    assert verdict(said(), NEVER, True, error=ValueError("no JSON")) not in (WHOLE, DARK)


def test_a_terminator_alone_is_an_empty_answer() -> None:
    assert verdict(Evidence(), NEVER, True) == FaultKind.EMPTY


def test_a_deadline_is_not_excused_by_a_terminator_that_the_reader_has_not_reached(serve: Serve) -> None:
    server = serve(TEXT, ["no_finish_reason"])
    llm = resilient(server, replace(WATCHED, deadline=0.3, stop=stop_after_attempt(1)))
    stream: Any = llm.stream_chat(question())
    next(stream)
    assert server.wait_idle()  # all of it is on this side of the wire
    time.sleep(0.4)
    with pytest.raises(Exception, match="deadline") as caught:
        list(stream)
    assert isinstance(caught.value.__cause__, StreamTimeoutError)
    llm.llm._client.close()  # type: ignore[attr-defined]


# A stall before the first event


@pytest.mark.parametrize("fault", ["stall_first", "comments_first", "stall_headers"])
def test_a_stall_before_the_first_event_leaves_no_thread(serve: Serve, fault: str) -> None:
    server = serve(TEXT, [fault])
    llm = resilient(server, replace(QUICK, first_token_timeout=0.3))
    llm.llm._get_client()  # type: ignore[attr-defined]  # the first one takes longer than that to import
    stream: Any = llm.stream_chat(question())
    assert "".join(chunk.delta for chunk in stream) == TEXT
    assert stream.report.faults == ["timeout"]
    assert not stream.report.attempts[0].left_thread
    assert not readers()
    assert eventually(lambda: server.requests[0].client_left, 0.5)
    llm.llm._client.close()  # type: ignore[attr-defined]
    assert server.wait_closed()


@pytest.mark.parametrize("fault", ["stall_first", "stall_headers"])
def test_cancelling_such_a_stall_ends_it_for_good(serve: Serve, fault: str) -> None:
    server = serve(TEXT, [fault])
    llm = resilient(server, max_retries=3)  # the SDK's own, which must not ask again for nobody
    stream: Any = llm.stream_chat(question())
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    assert eventually(lambda: bool(server.requests))
    time.sleep(0.05)  # the reader shall be inside its wait
    stream.cancel()
    reader.join(1)
    assert not reader.is_alive()
    assert not stream.report.attempts[0].left_thread
    assert not readers()
    assert len(server.requests) == 1
    llm.llm._client.close()  # type: ignore[attr-defined]


def test_call_without_streaming_is_broken(serve: Serve) -> None:
    server = serve(TEXT, ["stall_headers"])
    llm = resilient(server, replace(QUICK, first_token_timeout=0.3))
    llm.llm._get_client()  # type: ignore[attr-defined]
    assert llm.chat(question()).message.content == TEXT
    assert not readers()
    llm.llm._client.close()  # type: ignore[attr-defined]


def test_nothing_is_sent_for_a_reader_who_has_left(serve: Serve) -> None:
    server, upstream = serve(TEXT), Upstream()
    upstream.break_read()
    with http_client() as client, upstream.asking(), pytest.raises(ReaderLeftError):
        client.post(f"{server.url}/chat/completions", json={})
    assert server.connections_open == 0
    assert not server.requests


def test_a_connection_given_back_is_not_broken(serve: Serve) -> None:
    server, upstream = serve(TEXT), Upstream()
    with http_client() as client:
        with upstream.asking():
            assert client.post(f"{server.url}/chat/completions", json={}).status_code == 200
        assert not upstream.can_break
        upstream.break_read()
        assert client.post(f"{server.url}/chat/completions", json={}).status_code == 200
    assert {record.connection for record in server.requests} == {1}


@pytest.mark.parametrize("http2", [False, True])
def test_only_http_1_makes_its_socket_known_before_it_answers(serve: Serve, http2: bool) -> None:
    pytest.importorskip("h2")
    server, upstream = serve(TEXT, ["stall_headers"]), Upstream()

    def ask() -> None:
        with http_client(http2=http2) as client, upstream.asking(), contextlib.suppress(httpx.HTTPError):
            client.post(f"{server.url}/chat/completions", json={"stream": True})

    asking = threading.Thread(target=ask)
    asking.start()
    assert eventually(lambda: bool(server.requests))
    assert eventually(lambda: upstream.can_break, 0.2) is not http2
    server.close()
    asking.join(3)
    assert not asking.is_alive()
    assert not upstream.can_break


# In numbers


def sockets() -> int:
    names = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return sum(os.readlink(name).startswith("socket:") for name in names if os.path.lexists(name))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts sockets as Linux shows them")
@pytest.mark.slow
def test_sixty_broken_closed_and_cancelled_streams_leave_nothing(serve: Serve) -> None:
    faults = [
        "reset",
        "stall_first",
        "clean_eof",
        None,
        "stall_headers",
        "http_503",
        "no_finish_reason",
        "comments_first",
    ]
    server = serve(TEXT, [FAULTS[fault] if fault else None for fault in faults] * 30)
    policy = replace(QUICK, stop=stop_never, max_attempts=99, idle_timeout=0.1, first_token_timeout=0.1)
    llm = resilient(server, policy)
    llm.llm._get_client()  # type: ignore[attr-defined]
    gc.collect()
    before = sockets(), threading.active_count()
    for number in range(60):
        stream: Any = llm.stream_chat(question())
        for count, _ in enumerate(stream):
            if number % 3 == 0 and count == number % 7:
                stream.close()
            elif number % 3 == 1 and count == number % 5:
                stream.cancel()
        assert stream.report.status in (StreamStatus.COMPLETE, StreamStatus.CANCELLED)
    assert eventually(lambda: not readers(), 0.5)
    assert server.wait_idle()
    llm.llm._client.close()  # type: ignore[attr-defined]
    assert server.wait_closed()
    assert eventually(lambda: (sockets(), threading.active_count()) <= before)
