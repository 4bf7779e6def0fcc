"""The testing kit itself: what goes over the wire, what clients make of it, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import openai
import pytest
from llama_index.core.base.llms import types
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

from llama_index_resilient_stream import ConfigurationError
from llama_index_resilient_stream.testing import (
    FATAL,
    FAULTS,
    HARMLESS,
    NO_FINISH_REASON,
    RETRYABLE,
    STATED_INCOMPLETE,
    TOOL_CALLS,
    Cut,
    Fail,
    FaultServer,
    ScriptedLLM,
    Stall,
    faults,
    wire_faults,
)

TEXT = "The answer is forty-two. Größe und Güte — and more of it.\n\nThe end."
CUT = TEXT[:12]
QUESTION = [ChatMessage(role="user", content="What is the answer?")]
# Nothing but the client's patience ends these. A read timeout ends the stalls, and never the comments.
ENDLESS = {"comments_first", "comments"}
PATIENCE = 0.2  # seconds


# -- clients


@dataclass
class Outcome:
    """What a reader of a LlamaIndex stream got."""

    text: str = ""
    finish: str | None = None
    arguments: str = ""
    error: Exception | None = None

    def take(self, chunk: Any) -> None:
        self.text += chunk.delta or ""
        for choice in chunk.raw.choices:
            self.finish = choice.finish_reason or self.finish
        for call in (getattr(chunk, "message", None) or QUESTION[0]).additional_kwargs.get("tool_calls", ()):
            self.arguments = call.function.arguments


def _llm(server: FaultServer, **options: Any) -> OpenAILike:
    defaults = {
        "is_chat_model": True,
        "is_function_calling_model": True,
        "max_retries": 0,
        "timeout": PATIENCE,
    }
    return OpenAILike(model="m", api_base=server.url, api_key="none", **{**defaults, **options})


async def _sync_client(server: FaultServer, patience: float = PATIENCE) -> Outcome:
    outcome = Outcome()
    with httpx.Client() as client:
        try:
            for chunk in _llm(server, http_client=client, timeout=patience).stream_chat(QUESTION):
                outcome.take(chunk)
        except Exception as error:
            outcome.error = error
    return outcome


async def _async_client(server: FaultServer, patience: float = PATIENCE) -> Outcome:
    outcome = Outcome()
    async with httpx.AsyncClient() as client:
        llm = _llm(server, async_http_client=client, timeout=patience)
        try:
            async for chunk in await llm.astream_chat(QUESTION):
                outcome.take(chunk)
        except Exception as error:
            outcome.error = error
    return outcome


Client = Callable[..., Awaitable[Outcome]]


@pytest.fixture(params=[_sync_client, _async_client], ids=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Client:
    return request.param


def _asking(server: FaultServer, patience: float = 30) -> socket.socket:
    """A socket on which a streamed answer is asked for."""
    body = json.dumps({"messages": _said(), "stream": True}).encode()
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=patience)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    sock.sendall(head.encode() + body)
    return sock


def _raw(server: FaultServer, ending: str = "fin") -> tuple[bytes, str]:
    """The bytes of one response, and how the connection ended: "fin", "reset" or "silent", which takes patience."""
    received = b""
    with _asking(server, PATIENCE if ending == "silent" else 30) as sock:
        try:
            while data := sock.recv(65536):
                received += data
        except ConnectionResetError:
            return received, "reset"
        except TimeoutError:
            return received, "silent"
    return received, "fin"


def _post(server: FaultServer, path: str = "chat/completions", **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/{path}", json=body, timeout=5)


def _openai(server: FaultServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


def _said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in (("user", "What is the answer?"), *turns)]


def _answer(server: FaultServer, messages: list[dict[str, str]], **body: Any) -> str:
    content = _post(server, messages=messages, **body).json()["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("FaultServer")] == []


# -- the table


def test_every_fault_is_in_one_group() -> None:
    groups = [*RETRYABLE, *FATAL, *STATED_INCOMPLETE, *HARMLESS, *NO_FINISH_REASON, *TOOL_CALLS]
    assert sorted(groups) == sorted(FAULTS)


def test_every_kind_is_performed_and_used() -> None:
    kinds = set(faults.WireFaultKind)
    assert {fault.kind for fault in FAULTS.values()} == kinds
    tables = [
        *wire_faults.BEFORE_HEADERS,
        *wire_faults.BEFORE_FIRST_EVENT,
        *wire_faults.MIDWAY,
        *wire_faults.AFTER_LAST_PIECE,
    ]
    assert sorted([*tables, "slow", "none"]) == sorted(kinds)


def test_an_unknown_fault_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"no fault 'rest'\. Known: hang_up"):
        FaultServer(TEXT, ["rest"])
    with pytest.raises(ConfigurationError, match=r"faults=\('reset',\)"):
        FaultServer(TEXT, "reset")


# -- bytes


def _event(delta: dict[str, Any], finish: str | None = None, *, chunked: bool = True) -> bytes:
    choice = {"index": 0, "finish_reason": finish, "logprobs": None, "delta": delta}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": "scripted"}
    return _part(b"data: " + json.dumps({**chunk, "choices": [choice]}, ensure_ascii=False).encode(), chunked)


def _part(line: bytes, chunked: bool = True) -> bytes:
    data = line + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data) if chunked else data


def _opened(chunked: bool = True) -> bytes:
    said = ({"role": "assistant", "content": ""}, *({"content": CUT[at : at + 4]} for at in (0, 4, 8)))
    return b"".join(_event(delta, chunked=chunked) for delta in said)


END = b"0\r\n\r\n"
DONE = _part(b"data: [DONE]")
NEXT = _event({"content": "s fo"}, chunked=False)  # the event behind the cut
ERROR = _part(b"data: " + json.dumps(FAULTS["error_event"].error_body()).encode())

WIRE: dict[str, tuple[bytes, str]] = {
    "reset": (_opened(), "reset"),
    "fin_in_chunk": (_opened() + b"%x\r\n%b" % (len(NEXT), NEXT[: len(NEXT) // 2]), "fin"),
    "short_length": (_opened(chunked=False), "fin"),
    "clean_eof": (_opened() + END, "fin"),
    "done_without_finish": (_opened() + DONE + END, "fin"),
    "close_eof": (_opened(chunked=False), "fin"),
    "half_event_close": (_opened(chunked=False) + NEXT[: len(NEXT) // 2], "fin"),
    "error_event": (_opened() + ERROR + END, "fin"),
    "error_finish": (_opened() + _event({}, "error") + DONE + END, "fin"),
    "length": (_opened() + _event({}, "length") + DONE + END, "fin"),
    "empty": (_event({"role": "assistant", "content": ""}) + _event({}, "stop") + DONE + END, "fin"),
    "stall": (_opened(), "silent"),
    "stall_first": (b"", "silent"),
}


@pytest.mark.parametrize("name", WIRE)
def test_the_body_byte_for_byte(name: str) -> None:
    with FaultServer(TEXT, [name]) as server:
        received, ended = _raw(server, WIRE[name][1])
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream")
    assert (body, ended) == WIRE[name]


@pytest.mark.parametrize(
    ("name", "ended"),
    [("hang_up", "fin"), ("reset_before_headers", "reset"), ("stall_headers", "silent")],
)
def test_no_byte_of_a_response(name: str, ended: str) -> None:
    with FaultServer(TEXT, [name]) as server:
        assert _raw(server, ended) == (b"", ended)


@pytest.mark.parametrize(
    ("name", "framing"),
    [
        ("clean_eof", b"Transfer-Encoding: chunked"),
        ("close_eof", b"Connection: close"),
        ("short_length", b"Content-Length: "),
    ],
)
def test_the_framing_is_the_one_that_the_headers_name(name: str, framing: bytes) -> None:
    names = (b"Transfer-Encoding", b"Connection", b"Content-Length")
    with FaultServer(TEXT, [name]) as server:
        head = _raw(server)[0].partition(b"\r\n\r\n")[0]
    lines = [line for line in head.split(b"\r\n") if line.startswith(names)]
    assert len(lines) == 1
    assert lines[0].startswith(framing)


def test_a_short_length_promises_the_whole_answer() -> None:
    with FaultServer(TEXT, ["short_length", "close_after_done"]) as server:
        promised = int(_raw(server)[0].partition(b"Content-Length: ")[2].split(b"\r\n")[0])
        whole = len(_raw(server)[0].partition(b"\r\n\r\n")[2])
    assert promised == whole


@pytest.mark.parametrize("name", ["half_character", "half_character_close"])
@pytest.mark.parametrize("text", [TEXT, "nothing but ASCII here"], ids=["wide", "ascii"])
def test_half_a_character_is_not_utf8(name: str, text: str) -> None:
    with FaultServer(text, [name]) as server:
        body = _raw(server)[0].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n" + END)
    with pytest.raises(UnicodeDecodeError, match="unexpected end of data"):
        body.decode()


@pytest.mark.parametrize(("name", "first"), [("comments_first", b""), ("comments", _opened())])
def test_comments_come_for_ever(name: str, first: bytes) -> None:
    with FaultServer(TEXT, [name]) as server, _asking(server) as sock:
        received = b""
        while received.count(b": keep-alive") < 5:
            received += sock.recv(65536)
        assert received.partition(b"\r\n\r\n")[2].startswith(first + _part(b": keep-alive"))


@pytest.mark.parametrize("name", [name for name in FAULTS if FAULTS[name].kind == "status"])
def test_error_statuses(name: str) -> None:
    fault = FAULTS[name]
    with FaultServer(TEXT, [name]) as server:
        response = _post(server, messages=_said())
    assert response.status_code == fault.status
    assert response.json()["error"] == {
        "message": fault.message,
        "type": fault.type,
        "param": None,
        "code": fault.code,
    }


def test_retry_after_in_its_three_forms() -> None:
    names = ["http_429_seconds", "http_429_ms", "http_429_date"]
    with FaultServer(TEXT, names) as server:
        seconds, milliseconds, date = (_post(server, messages=_said()).headers for _ in names)
    assert seconds["retry-after"] == "1"
    assert milliseconds["retry-after-ms"] == "50"
    assert 0 < parsedate_to_datetime(date["retry-after"]).timestamp() - time.time() <= 2


# -- what LlamaIndex's OpenAI class makes of it

RAISES: dict[str, type[Exception]] = {
    "hang_up": openai.APIConnectionError,
    "reset_before_headers": openai.APIConnectionError,
    "reset": httpx.ReadError,
    "fin_in_chunk": httpx.RemoteProtocolError,
    "short_length": httpx.RemoteProtocolError,
    "half_character": UnicodeDecodeError,
    "half_character_close": UnicodeDecodeError,
    "broken_json": json.JSONDecodeError,
    "stall_headers": openai.APITimeoutError,
    "stall_first": httpx.ReadTimeout,
    "stall": httpx.ReadTimeout,
    "reset_after_finish": httpx.ReadError,
    "eof_after_finish": httpx.RemoteProtocolError,
    "tool_call_fin": httpx.RemoteProtocolError,
    "http_400": openai.BadRequestError,
    "context_length": openai.BadRequestError,
    "prefill_refused": openai.BadRequestError,
    "insufficient_quota": openai.RateLimitError,
    "http_429": openai.RateLimitError,
    "http_529": openai.InternalServerError,
}
if openai.__version__.startswith("1."):  # reads on after [DONE]
    RAISES["eof_after_done"] = httpx.RemoteProtocolError
SILENT = [
    "clean_eof",
    "done_without_finish",
    "close_eof",
    "half_event",
    "half_event_close",
    "html",
]


def _expected_error(name: str) -> type[Exception] | None:
    if FAULTS[name].kind == "status":
        return RAISES.get(name, openai.APIStatusError)
    return openai.APIError if FAULTS[name].kind == "error_event" else RAISES.get(name)


def _ends_by_timeout(fault: faults.WireFault) -> bool:
    return fault.kind.startswith("stall") and fault.seconds is None


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in ENDLESS])
async def test_client_sees_of_each_fault(name: str, client: Client) -> None:
    fault = FAULTS[name]
    with FaultServer(TEXT, [name]) as server:
        outcome = await client(server, patience=PATIENCE if _ends_by_timeout(fault) else 30)
    expected = _expected_error(name)
    assert (outcome.error is None) if expected is None else isinstance(outcome.error, expected)
    if fault.tool_call is not None:
        assert outcome.text == ""
        # Arguments that went out in the same read as the break may or may not be seen before the error.
        assert fault.tool_call[1][: fault.after].startswith(outcome.arguments)
    else:
        assert outcome.text == ("" if fault.kind in ("html", "status") else TEXT[: _delivered(name)])
    assert outcome.finish == _finish(name)


def _delivered(name: str) -> int | None:
    return None if name in (*HARMLESS, *NO_FINISH_REASON) else FAULTS[name].after


def _finish(name: str) -> str | None:
    if name in HARMLESS:
        return "stop"
    return "tool_calls" if name == "tool_call" else FAULTS[name].finish_reason


@pytest.mark.parametrize("name", SILENT)
async def test_silent_truncations_raise_nothing(name: str, client: Client) -> None:
    with FaultServer(TEXT, [FAULTS[name].at(30)]) as server:
        outcome = await client(server, patience=30)
    assert outcome == Outcome("" if name == "html" else TEXT[:30])


@pytest.mark.parametrize("name", sorted(ENDLESS))
async def test_a_read_timeout_never_fires_on_comments(name: str) -> None:
    with FaultServer(TEXT, [name]) as server:
        reading = asyncio.ensure_future(_async_client(server, patience=1.0))
        while not server.requests:  # noqa: ASYNC110 - a thread answers
            await asyncio.sleep(0.01)
        over, _ = await asyncio.wait([reading], timeout=2.0)
        assert not over
        reading.cancel()
        await asyncio.wait([reading])
        assert server.wait_idle()
        assert server.requests[0].client_left


@pytest.mark.parametrize("after", [0, 1, 5, len(TEXT), len(TEXT) + 9, None])
@pytest.mark.parametrize("name", ["reset", "fin_in_chunk", "clean_eof", "half_event", "short_length"])
async def test_a_cut_delivers_what_is_before_it(name: str, after: int | None) -> None:
    with FaultServer(TEXT, [FAULTS[name].at(after)]) as server:
        outcome = await _sync_client(server, patience=30)
    assert (outcome.text, outcome.finish) == (TEXT[:after], None)
    assert server.requests[0].sent.text == TEXT[:after]


def test_faults_of_answers_that_are_not_streamed() -> None:
    names = ["reset", "clean_eof", "html", "length", "empty", "no_finish_reason", None]
    with FaultServer(TEXT, names) as server:
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                _post(server, messages=_said())
        assert _post(server, messages=_said()).text.startswith("<!doctype html>")
        choices = [_post(server, messages=_said()).json()["choices"][0] for _ in range(4)]
    assert [(choice["message"]["content"], choice["finish_reason"]) for choice in choices] == [
        (CUT, "length"),
        ("", "stop"),
        (TEXT, None),
        (TEXT, "stop"),
    ]


# -- the client leaves, the server closes


@pytest.mark.parametrize("name", ["stall_headers", "stall_first", "stall", "comments_first", "comments", None])
async def test_the_server_notices_that_the_client_left(name: str | None) -> None:
    with FaultServer(TEXT, [name], delay=0.05) as server:
        task = asyncio.create_task(_async_client(server))
        await asyncio.to_thread(_wait_until, lambda: bool(server.requests))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.wait_closed(1)
        record = server.requests[0]
    assert record.client_left
    assert record.left_after is not None
    assert record.left_after < 1
    assert len(record.sent.text) < len(TEXT)


def test_a_closed_sync_stream_is_noticed() -> None:
    # The SDK's own stream: closing LlamaIndex's generator leaves the response to the garbage collector.
    with FaultServer(TEXT * 1000, delay=0.001) as server, _openai(server) as client:
        stream = client.chat.completions.create(model="m", messages=_said(), stream=True)
        next(stream)
        stream.close()
        assert server.wait_idle(1)
        assert server.requests[0].client_left
    assert server.tokens_sent < 1000


@pytest.mark.parametrize("name", ["stall_headers", "stall", "comments"])
def test_closing_the_server_ends_every_stall(name: str) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(FaultServer(TEXT, [name] * 20))
        for _ in range(20):
            stack.enter_context(_asking(server))
        _wait_until(lambda: len(server.requests) == 20)
        started = time.monotonic()
        server.close()
        assert time.monotonic() - started < 1
    assert server.connections_open == 0
    assert not any(record.client_left for record in server.requests)


def test_closing_the_server_ends_a_blocked_send() -> None:
    with FaultServer("x" * 50_000_000, token=1_000_000) as server, _asking(server):
        _wait_until(lambda: server.tokens_sent > 0)
        server.close()
    assert server.tokens_sent < 50


def test_a_client_that_was_given_https_is_answered_at_once() -> None:
    with FaultServer(TEXT) as server, httpx.Client(timeout=10) as client:
        with pytest.raises(httpx.ConnectError, match="SSL"):
            client.get(server.url.replace("http:", "https:"))
        assert server.wait_closed()


def test_a_server_that_is_not_running_says_so() -> None:
    server = FaultServer(TEXT)
    with pytest.raises(RuntimeError, match="with FaultServer"):
        _ = server.url
    server.close()


def _wait_until(condition: Callable[[], bool], timeout: float = 5.0) -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


# -- a server like others


def test_healthy_answers_share_a_connection() -> None:
    with FaultServer(TEXT) as server, httpx.Client() as http:
        for _ in range(3):
            url, body = f"{server.url}/chat/completions", {"messages": _said(), "stream": True}
            assert http.post(url, json=body).text.endswith("data: [DONE]\n\n")
        assert _llm(server, http_client=http).chat(QUESTION).message.content == TEXT
        assert {record.connection for record in server.requests} == {1}
        assert server.connections_open == 1
        assert server.requests[0].body["messages"][-1]["content"] == QUESTION[0].content
        assert "authorization" in server.requests[3].header_names
    assert "none" not in repr(server.requests[3].header_names)


@pytest.mark.slow
async def test_a_hundred_readers_at_once() -> None:
    with FaultServer(TEXT, ["reset", None] * 50) as server:
        outcomes = await asyncio.gather(*(_async_client(server, patience=30) for _ in range(100)))
        assert server.wait_closed()
    assert sorted(outcome.text for outcome in outcomes) == sorted([CUT, TEXT] * 50)


def test_models_and_unknown_paths_take_no_fault() -> None:
    with FaultServer(TEXT, ["http_500"]) as server:
        models = httpx.get(f"{server.url}/models").json()
        assert [model["id"] for model in models["data"]] == ["scripted"]
        assert _post(server, "embeddings").status_code == 404
        assert _post(server, messages=_said()).status_code == 500
    assert len(server.requests) == 1


def test_usage_comes_when_it_is_asked_for() -> None:
    with FaultServer("four" * 5) as server, _openai(server) as client:
        stream = client.chat.completions.create(
            model="m", messages=_said(), stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    assert [bool(chunk.choices) for chunk in chunks[-2:]] == [True, False]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert server.tokens_sent == 5


def test_max_tokens_is_respected_where_asked() -> None:
    with FaultServer(TEXT, respect_max_tokens=True) as server:
        choice = _post(server, messages=_said(), max_tokens=2).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (TEXT[:8], "length")
        assert _answer(server, _said(), max_completion_tokens=1) == TEXT[:4]
        assert _answer(server, _said(), max_tokens=1000) == TEXT


def test_thinking_comes_before_the_first_answer() -> None:
    with FaultServer(TEXT, thinking="Let me see.") as server, httpx.Client() as http:
        chunks = list(_llm(server, http_client=http).stream_chat(QUESTION))
    reasoning = [getattr(chunk.raw.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks]
    assert "".join(reasoning) == "Let me see."
    assert "".join(chunk.delta for chunk in chunks) == TEXT
    if hasattr(types, "ThinkingBlock"):  # core >= 0.14.3, and the llms-openai that belongs to it
        assert [chunk.additional_kwargs.get("thinking_delta", "") for chunk in chunks] == reasoning


def test_a_tokenising_function() -> None:
    with FaultServer("one two three", token=lambda text: text.split(" ")) as server:
        _raw(server)
    assert server.tokens_sent == 3


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_tools_are_called_and_their_results_answered() -> None:
    tool = FunctionTool.from_defaults(add)
    with FaultServer(TEXT, tool_call=("add", '{"a": 1, "b": 2}')) as server, httpx.Client() as http:
        llm = _llm(server, http_client=http)
        *_, last = llm.stream_chat_with_tools([tool], user_msg="1 + 2?")
        (selection,) = llm.get_tool_calls_from_response(last)
        assert (selection.tool_name, selection.tool_kwargs) == ("add", {"a": 1, "b": 2})
        whole = llm.chat_with_tools([tool], user_msg="1 + 2?")
        assert llm.get_tool_calls_from_response(whole)[0].tool_kwargs == {"a": 1, "b": 2}
        messages = [*_said(), {"role": "tool", "content": "3", "tool_call_id": "1"}]
        assert _answer(server, messages, tools=[{"type": "function"}]) == TEXT


# -- requests to go on

SAID = TEXT[:31]
ANCHOR = SAID[-12:]
NUDGE = f"Go on. Begin with <<<{ANCHOR}>>>"


@pytest.mark.parametrize(
    ("turns", "kind", "answer"),
    [
        pytest.param([], "answer", TEXT, id="answer"),
        pytest.param([("assistant", SAID), ("user", NUDGE)], "ask", ANCHOR + TEXT[31:], id="ask"),
        pytest.param([("assistant", SAID), ("user", "Weiter.")], "ask", TEXT[31:], id="ask-without-anchor"),
        pytest.param([("assistant", "The"), ("user", "go on: The")], "ask", TEXT, id="ask-short"),
        pytest.param([("assistant", SAID)], "prefill", TEXT[31:], id="prefill"),
        pytest.param([("assistant", TEXT[:13])], "prefill", TEXT[13:], id="prefill-stripped"),
        pytest.param([("assistant", TEXT), ("user", "And now?")], "answer", TEXT, id="next-question"),
        pytest.param([("assistant", TEXT), ("user", "… " + TEXT[-20:])], "ask", TEXT[-20:], id="ask-at-end"),
        pytest.param([("assistant", "Other"), ("user", NUDGE)], "answer", TEXT, id="not-my-words"),
        pytest.param([("assistant", "Other")], "answer", TEXT, id="prefill-not-my-words"),
    ],
)
def test_chat_requests_to_go_on(turns: list[tuple[str, str]], kind: str, answer: str) -> None:
    with FaultServer(TEXT) as server:
        assert _answer(server, _said(*turns)) == answer
        assert server.requests[0].parsed.kind == kind
    llm = ScriptedLLM(TEXT)
    messages = [ChatMessage(role=turn["role"], content=turn["content"]) for turn in _said(*turns)]
    assert llm.chat(messages).message.content == answer
    assert llm.calls[0].parsed == server.requests[0].parsed


def test_content_in_parts_is_understood() -> None:
    parts: Any = [{"type": "text", "text": SAID}, {"type": "image_url", "image_url": {"url": "x"}}]
    with FaultServer(TEXT) as server:
        assert _answer(server, [*_said(), {"role": "assistant", "content": parts}]) == TEXT[31:]


def test_a_refused_prefill_takes_no_fault() -> None:
    with FaultServer(TEXT, ["length"], refuse_prefill=True) as server:
        refused = _post(server, messages=_said(("assistant", SAID)))
        assert refused.status_code == 400
        assert "must end with a user message" in refused.json()["error"]["message"]
        assert _answer(server, _said(("assistant", SAID), ("user", NUDGE))) == (ANCHOR + TEXT[31:])[:12]


def test_continuation_styles_take_turns() -> None:
    with FaultServer(
        TEXT, continuation_style=["exact", lambda text, partial_text, anchor: f"{partial_text[:3]}|{anchor}"]
    ) as server:
        go_on = _said(("assistant", SAID), ("user", NUDGE))
        answers = [_answer(server, go_on) for _ in range(3)]
    assert answers == [TEXT[31:], f"The|{ANCHOR}", f"The|{ANCHOR}"]


@pytest.mark.parametrize(
    ("prompts", "answer"),
    [
        pytest.param(["Q: ?\nA: "], TEXT, id="first"),
        pytest.param(["Q: ?\nA: ", "Q: ?\nA: " + TEXT[:3]], TEXT[3:], id="short"),
        pytest.param(["Q: ?\nA: ", "Q: ?\nA: " + SAID], TEXT[31:], id="long"),
        pytest.param(["Q: ?\nA: " + SAID], TEXT[31:], id="unheard"),
        pytest.param(["Q: ?\nA: T"], TEXT, id="by-chance"),
        pytest.param(["Q", "Q", "Q" + TEXT], "", id="all-said"),
    ],
)
def test_prompts_to_go_on(prompts: list[str], answer: str) -> None:
    with FaultServer(TEXT) as server:
        bodies = [_post(server, "completions", prompt=prompt).json() for prompt in prompts]
    assert bodies[-1]["choices"][0]["text"] == answer
    llm = ScriptedLLM(TEXT)
    assert [llm.complete(prompt).text for prompt in prompts][-1] == answer


async def test_legacy_completions_stream_and_break() -> None:
    # Asynchronously: llms-openai 0.1.31 forgets the model's name when it streams a completion synchronously.
    with FaultServer(TEXT, ["fin_in_chunk"]) as server:
        async with httpx.AsyncClient() as http:
            llm = _llm(server, is_chat_model=False, async_http_client=http)
            stream = await llm.astream_complete("Q")
            read = [(await anext(stream)).text for _ in range(3)]
            assert read[-1] == CUT
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(stream)
            chunks = [chunk async for chunk in await llm.astream_complete("Q" + CUT)]
        assert "".join(chunk.delta for chunk in chunks) == TEXT[12:]
        assert server.requests[1].partial_text == CUT


# -- ScriptedLLM


@pytest.fixture(params=["stream_chat", "stream_complete", "astream_chat", "astream_complete"])
def read(request: pytest.FixtureRequest) -> Callable[[ScriptedLLM], Awaitable[Outcome]]:
    async def run(llm: ScriptedLLM) -> Outcome:
        outcome, endpoint = Outcome(), getattr(llm, request.param)
        try:
            stream = endpoint(QUESTION if "chat" in request.param else "Q")
            if request.param.startswith("a"):
                async for chunk in await stream:
                    _take(outcome, chunk)
            else:
                for chunk in stream:
                    _take(outcome, chunk)
        except Exception as error:
            outcome.error = error
        return outcome

    return run


def _take(outcome: Outcome, chunk: Any) -> None:
    outcome.text += chunk.delta
    for choice in (chunk.raw or {}).get("choices", ()):
        outcome.finish = choice["finish_reason"] or outcome.finish


RESET = ConnectionResetError("reset")
SCRIPTS = {
    "healthy": (None, Outcome(TEXT, "stop"), "complete"),
    "error": (Cut(12, RESET), Outcome(CUT, error=RESET), "broken"),
    "error-at-end": (Cut(error=RESET), Outcome(TEXT, error=RESET), "broken"),
    "clean-end": (Cut(12), Outcome(CUT), "broken"),
    "length": (Cut(12, finish_reason="length"), Outcome(CUT, "length"), "broken"),
    "stall": (Stall(12, 0.001), Outcome(TEXT, "stop"), "complete"),
    "fail": (Fail(RESET), Outcome(error=RESET), "broken"),
    "fail-at-call": (Fail(RESET, at_call=True), Outcome(error=RESET), "broken"),
}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_scripted_stream(name: str, read: Callable[[ScriptedLLM], Awaitable[Outcome]]) -> None:
    entry, expected, state = SCRIPTS[name]
    llm = ScriptedLLM(TEXT, [entry])
    assert await read(llm) == expected
    assert (llm.calls[0].sent, llm.calls[0].state) == (expected.text, state)
    assert await read(llm) == Outcome(TEXT, "stop")  # the script is over
    assert (llm.open_streams, llm.closed_streams) == (0, 0)


async def test_a_model_that_sends_no_finish_reason(read: Callable[[ScriptedLLM], Awaitable[Outcome]]) -> None:
    assert await read(ScriptedLLM(TEXT, sends_finish_reason=False)) == Outcome(TEXT)
    assert await read(ScriptedLLM(TEXT, [Cut(12, finish_reason="length")], sends_finish_reason=False)) == Outcome(CUT)


async def test_scripted_answers_that_are_not_streamed() -> None:
    llm = ScriptedLLM(TEXT, usage=True)
    answers = [llm.chat(QUESTION), await llm.achat(QUESTION)]
    assert [answer.message.content for answer in answers] == [TEXT, TEXT]
    assert [llm.complete("Q").text, (await llm.acomplete("Q")).text] == [TEXT, TEXT]
    assert all(answer.raw["choices"][0]["finish_reason"] == "stop" for answer in answers)
    assert answers[0].raw["usage"]["completion_tokens"] == len(TEXT) // 4 + 1


def test_a_scripted_message_grows() -> None:
    chunks = list(ScriptedLLM(TEXT, usage=True, thinking="hm").stream_chat(QUESTION))
    assert chunks[0].additional_kwargs == {"thinking_delta": "hm"}
    assert [chunk.message.content for chunk in chunks[1:4]] == [TEXT[:4], TEXT[:8], TEXT[:12]]
    assert chunks[-1].message.content == TEXT
    assert (chunks[-1].raw["choices"], chunks[-1].raw["usage"]["prompt_tokens"]) == ([], 5)


def test_a_sync_reader_that_leaves_closes_the_stream() -> None:
    llm = ScriptedLLM(TEXT)
    stream = llm.stream_chat(QUESTION)
    assert llm.calls[0].state == "unread"
    next(stream)
    assert llm.open_streams == 1
    stream.close()
    assert (llm.open_streams, llm.closed_streams, llm.calls[0].sent) == (0, 1, TEXT[:4])


async def test_an_async_reader_that_is_cancelled_closes_the_stream() -> None:
    llm = ScriptedLLM(TEXT, [Stall(4)])
    stream = await llm.astream_chat(QUESTION)
    await anext(stream)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.01)
    assert (llm.open_streams, llm.closed_streams) == (0, 1)


async def test_an_async_stream_that_is_closed_ends_some_ticks_later() -> None:
    # LlamaIndex's decorator does not close the generator that it wraps: its finaliser does.
    llm = ScriptedLLM(TEXT)
    stream = await llm.astream_chat(QUESTION)
    await anext(stream)
    await stream.aclose()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (llm.open_streams, llm.closed_streams) == (0, 1)


def test_release_ends_a_sync_stall() -> None:
    llm = ScriptedLLM(TEXT, [Stall(4)])
    reader = threading.Thread(target=lambda: list(llm.stream_chat(QUESTION)))
    reader.start()
    _wait_until(lambda: bool(llm.calls) and llm.calls[0].sent == TEXT[:4])
    llm.release()
    reader.join(5)
    assert llm.calls[0].state == "complete"


@pytest.mark.parametrize("after", [None, 20], ids=["whole", "cut"])
def test_scripted_tool_calls(after: int | None) -> None:
    calls = [("add", '{"a": 1, "b": 2}'), ("add", '{"a": 10, "b": 20}')]
    llm = ScriptedLLM(TEXT, [None if after is None else Cut(after)], tool_calls=calls)
    assert llm.metadata.is_function_calling_model
    *_, last = llm.stream_chat_with_tools([FunctionTool.from_defaults(add)], user_msg="1 + 2?")
    selections = llm.get_tool_calls_from_response(last)
    expected = [{"a": 1, "b": 2}, {"a": 10, "b": 20} if after is None else {"a": None}]
    assert selections[0].tool_kwargs == expected[0]
    assert (selections[1].tool_kwargs == expected[1]) == (after is None)
    assert last.raw["choices"][0]["finish_reason"] == ("tool_calls" if after is None else None)


def test_a_tool_result_is_answered_with_the_text() -> None:
    llm = ScriptedLLM(TEXT, tool_calls=[("add", '{"a": 1, "b": 2}')])
    messages = [*QUESTION, ChatMessage(role="tool", content="3")]
    assert llm.chat(messages, tools=[{}]).message.content == TEXT
    assert llm.chat(QUESTION, tools=[{}]).message.additional_kwargs["tool_calls"]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_copies_share_the_script(duplicate: Callable[[ScriptedLLM], ScriptedLLM]) -> None:
    llm = ScriptedLLM(TEXT, [Cut(12)], continuation_style=lambda *_: "more")
    twin = duplicate(llm)
    assert twin.complete("Q").text == CUT
    assert llm.calls is twin.calls
    assert llm.complete("Q").text == TEXT


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (Cut(after=1), r"Pass one entry per call: script=\[Cut\(after=10\), None\]"),
        ("cut", "Pass one entry per call"),
        (3, "Pass one entry per call"),
        (["cut"], "script has 'cut' in it. An entry is a Cut, a Stall, a Fail or None"),
        ([Cut], "An entry is a Cut, a Stall, a Fail or None"),
        ([None, Cut(after=-1)], "counts characters from 0"),
        ([Stall(after=-1)], "counts characters from 0"),
    ],
    ids=["no list", "a word", "a number", "a word in it", "a class", "before the beginning", "a stall before it"],
)
def test_a_script_that_is_none(script: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ScriptedLLM("Hello", script)
