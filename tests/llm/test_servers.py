"""Which server it is, where its streams do not say: known by the owner of its models, asked for once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import respx
from llama_index.llms.openai_like import OpenAILike

from llama_index_resilient_stream import ResilientLLM
from llama_index_resilient_stream.providers import SERVERS, server_owning
from llama_index_resilient_stream.report import Certainty
from llama_index_resilient_stream.testing import FAULTS, FaultServer, WireFault
from llama_index_resilient_stream.testing.faults import WireFaultKind
from llama_index_resilient_stream.testing.http_connection import Connection
from support.readers import QUICK, TEXT, Reader, openai_like, question
from support.sdk_clients import LLMS_OPENAI, needs_observed_sdk_clients

pytestmark = needs_observed_sdk_clients

FLAGS = {"continue_final_message": True, "add_generation_prompt": False}
RESET = FAULTS["reset"].at(60)


@pytest.mark.parametrize(
    ("owner", "strategy", "certainty"),
    [
        pytest.param("vllm", "prefill", Certainty.VERIFIED, id="vLLM"),
        pytest.param("organization_owner", "prefill", Certainty.ALIGNED, id="LM Studio"),
        pytest.param("sglang", "prefill", Certainty.ALIGNED, id="SGLang"),
        pytest.param("llamacpp", "prefill", Certainty.VERIFIED, id="llama.cpp"),
        pytest.param("openai", "ask", Certainty.VERIFIED, id="somebody else"),
    ],
)
def test_a_server_is_known_by_the_owner_of_its_models(
    reader: Reader, serve: Callable[..., FaultServer], owner: str, strategy: str, certainty: Certainty
) -> None:
    server = serve(TEXT, [RESET, None, RESET], owned_by=owner)
    llm = ResilientLLM(openai_like(server), policy=QUICK)
    for _ in range(2):
        result = reader(llm)
        assert result.text == result.whole == TEXT
        tried = [str(attempt.strategy) for attempt in result.report.attempts if attempt.strategy != "replay"]
        assert tried == ["first", strategy]  # a llama.cpp that keeps no streams has been asked for its own, too
        assert [joint.certainty for joint in result.report.joints] == [certainty]
    assert server.lists_sent == 1
    sent_flags = all(FLAGS.items() <= request.body.items() for request in server.requests[1::2])
    assert sent_flags == (owner == "vllm")


def test_a_healthy_server_is_not_asked_for_its_models(reader: Reader, serve: Callable[..., FaultServer]) -> None:
    server = serve(TEXT, owned_by="vllm")
    assert reader(ResilientLLM(openai_like(server), policy=QUICK)).text == TEXT
    assert server.lists_sent == 0


@pytest.mark.parametrize(
    ("settings", "kwargs", "fault"),
    [
        pytest.param({"continuation": "ask"}, {}, RESET, id="the user chose another way"),
        pytest.param({}, {"response_format": {"type": "json_object"}}, RESET, id="never continued"),
        pytest.param({}, {}, FAULTS["reset"].at(0), id="nothing to go on from"),
        pytest.param({"continuation": "replay"}, {}, None, id="no cut"),
    ],
)
def test_nobody_is_asked_where_it_does_not_matter(
    reader: Reader,
    serve: Callable[..., FaultServer],
    settings: dict[str, Any],
    kwargs: dict[str, Any],
    fault: WireFault | None,
) -> None:
    server = serve(TEXT, [fault], owned_by="vllm")
    assert reader(ResilientLLM(openai_like(server), policy=QUICK, **settings), **kwargs).text == TEXT
    assert server.lists_sent == 0


def refuses(_: FaultServer, connection: Connection, __: Any) -> None:
    connection.respond(401, b'{"error": {"message": "no"}}', "application/json")


def says_nonsense(_: FaultServer, connection: Connection, __: Any) -> None:
    connection.respond(200, b"<html>", "text/html")


def lists_nothing(_: FaultServer, connection: Connection, __: Any) -> None:
    connection.respond(200, b'{"data": []}', "application/json")


def lists_several(_: FaultServer, connection: Connection, __: Any) -> None:
    models = b'{"data": [{"id": "a", "owned_by": "vllm"}, {"id": "b", "owned_by": "openai"}]}'
    connection.respond(200, models, "application/json")


def hangs_up(_: FaultServer, connection: Connection, __: Any) -> None:
    connection.reset()


@pytest.mark.parametrize("answer", [refuses, says_nonsense, lists_nothing, lists_several, hangs_up])
def test_a_list_that_says_nothing_changes_nothing(
    reader: Reader, serve: Callable[..., FaultServer], monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(FaultServer, "_models", answer)
    result = reader(ResilientLLM(openai_like(serve(TEXT, [RESET])), policy=QUICK))
    assert result.text == TEXT
    assert [str(attempt.strategy) for attempt in result.report.attempts] == ["first", "ask"]


def never_answers(_: FaultServer, connection: Connection, __: Any) -> None:
    connection.pause(None)


@pytest.mark.parametrize("leaves", [False, True], ids=["waits", "leaves"])
def test_nobody_waits_long_for_a_list(
    serve: Callable[..., FaultServer], monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    monkeypatch.setattr(FaultServer, "_models", never_answers)
    llm = ResilientLLM(openai_like(serve(TEXT, [RESET])), policy=QUICK)
    began = time.monotonic()
    stream = llm.stream_chat(question())
    if leaves:
        threading.Timer(0.5, stream.cancel).start()
    text = "".join(chunk.delta or "" for chunk in stream)
    assert (text == TEXT) != leaves
    assert time.monotonic() - began < (1.5 if leaves else 4)


def test_openai_itself_is_not_asked(reader: Reader) -> None:
    chunk = '{"id":"1","object":"chat.completion.chunk","created":0,"model":"gpt-4o-mini","choices":[%s]}'
    begun = f'data: {chunk % """{"index":0,"delta":{"content":"One, two and"},"finish_reason":null}"""}\n\n'
    rest = f'data: {chunk % """{"index":0,"delta":{"content":"One, two and three."},"finish_reason":"stop"}"""}\n\n'
    with respx.mock(assert_all_called=False) as mocked:
        models = mocked.get("https://api.openai.com/v1/models").respond(200, json={"data": []})
        mocked.post("https://api.openai.com/v1/chat/completions").mock(
            side_effect=[
                httpx.Response(200, headers={"content-type": "text/event-stream"}, text=body)
                for body in (begun, rest + "data: [DONE]\n\n")
            ]
        )
        inner = OpenAILike(
            model="gpt-4o-mini", api_base="https://api.openai.com/v1", api_key="x", is_chat_model=True, max_retries=0
        )
        result = reader(ResilientLLM(inner, policy=QUICK))
        assert result.text == "One, two and three."
        assert models.call_count == 0


def test_every_owner_is_of_a_server_that_writes_on() -> None:
    assert all(server_owning(owner) in SERVERS for owner in ("vllm", "sglang", "llamacpp", "library"))
    assert server_owning("openai") is None
    assert server_owning(None) is None


# What a server refuses of our own making

streams_completions = pytest.mark.skipif(LLMS_OPENAI < (0, 2), reason="this release asks without a prompt")
BAD = WireFault(WireFaultKind.STATUS, status=400, message="messages: the conversation is not valid")
UNPROCESSABLE = WireFault(WireFaultKind.STATUS, status=422, message="unknown field")


@pytest.mark.parametrize("refusal", [BAD, UNPROCESSABLE], ids=["400", "422"])
@pytest.mark.parametrize(
    ("settings", "chat", "tried"),
    [
        pytest.param({"continuation": "prefill"}, True, ["prefill", "ask"], id="prefill"),
        pytest.param({"continuation": "ask"}, True, ["ask", "restart"], id="ask"),
        pytest.param({}, True, ["ask", "restart"], id="auto"),
        pytest.param({}, False, ["append", "restart"], id="append", marks=streams_completions),
        pytest.param({"continuation": "replay"}, True, ["ask", "restart"], id="replay"),
    ],
)
def test_a_refusal_of_our_own_continuation_goes_down_the_ladder(
    reader: Reader,
    serve: Callable[..., FaultServer],
    refusal: WireFault,
    settings: dict[str, Any],
    chat: bool,
    tried: list[str],
) -> None:
    server = serve(TEXT, [RESET, refusal, None])
    llm = ResilientLLM(openai_like(server, is_chat_model=chat), policy=QUICK, **settings)
    result = reader(llm)
    assert result.error is None
    assert result.text == result.whole == TEXT
    used = [str(attempt.strategy) for attempt in result.report.attempts if attempt.strategy != "replay"]
    assert used == ["first", *tried]


def test_where_everything_is_refused_the_fault_that_began_it_is_the_cause(
    reader: Reader, serve: Callable[..., FaultServer]
) -> None:
    server = serve(TEXT, [RESET, BAD, BAD, BAD, BAD])
    result = reader(ResilientLLM(openai_like(server), continuation="prefill", policy=QUICK))
    assert result.error is not None
    assert isinstance(result.error.__cause__, httpx.ReadError)
    assert result.text == TEXT[:60]
    assert [str(attempt.strategy) for attempt in result.report.attempts] == ["first", "prefill", "ask", "restart"]


def test_a_request_that_was_refused_once_is_no_way_that_is_refused_for_ever(
    reader: Reader, serve: Callable[..., FaultServer]
) -> None:
    server = serve(TEXT, [RESET, BAD, None, RESET, None])
    llm = ResilientLLM(openai_like(server), policy=QUICK)
    assert [reader(llm).report.attempts[1].strategy for _ in range(2)] == ["ask", "ask"]
