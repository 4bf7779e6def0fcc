"""The SDK's own HTTP client, looked at for one call: no other request, connection or result, and the LLM unchanged."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike

from llama_index_resilient_stream import ResilientLLM, StreamStatus
from llama_index_resilient_stream.http import async_http_client, http_client
from llama_index_resilient_stream.testing import FaultServer
from llama_index_resilient_stream.transport.sdk_clients import observed
from support.event_server import EventServer
from support.readers import QUICK, TEXT, openai_like, question
from support.sdk_clients import needs_observed_sdk_clients

Serve = Callable[..., FaultServer]

pytestmark = needs_observed_sdk_clients

pydantic_2 = pytest.mark.skipif(
    not hasattr(OpenAI, "model_fields"), reason="this core's LLMs are pydantic 1's, and know no client of the user's"
)


def chunk(delta: dict[str, Any], reason: str | None = None, text: str = "") -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "text": text, "finish_reason": reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


@pytest.fixture
def server() -> Iterator[EventServer]:
    with EventServer(chunk({"content": "Hello"}, text="Hello"), chunk({}, "stop"), "[DONE]") as running:
        yield running


def ask(llm: Any, endpoint: str, **kwargs: Any) -> list[str]:
    what: Any = "?" if endpoint == "complete" else [ChatMessage(role="user", content="?")]
    return [chunk.delta for chunk in getattr(llm, f"stream_{endpoint}")(what, **kwargs)]


async def aask(llm: Any, endpoint: str, **kwargs: Any) -> list[str]:
    what: Any = "?" if endpoint == "complete" else [ChatMessage(role="user", content="?")]
    return [chunk.delta async for chunk in await getattr(llm, f"astream_{endpoint}")(what, **kwargs)]


SETTINGS: dict[str, tuple[type[OpenAI], dict[str, Any], dict[str, Any]]] = {
    "openai": (OpenAI, {}, {}),
    "like": (OpenAILike, {"is_chat_model": True}, {}),
    "like-completions": (OpenAILike, {"is_chat_model": False}, {}),
    "headers": (OpenAI, {"default_headers": {"X-Team": "a", "User-Agent": "me", "OpenAI-Organization": "o"}}, {}),
    "timeout": (OpenAI, {"timeout": 7.5}, {}),
    "retries": (OpenAI, {"max_retries": 5}, {}),
    "body": (OpenAI, {"max_tokens": 9, "additional_kwargs": {"seed": 3}}, {"extra_body": {"top_k": 2}}),
    "call": (OpenAI, {}, {"timeout": 3, "extra_headers": {"X-Call": "b"}, "extra_query": {"q": "1"}}),
}


@pydantic_2
@pytest.mark.parametrize(("llm_class", "settings", "kwargs"), SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("endpoint", ["chat", "complete"])
def test_the_request_is_the_same_to_the_byte(
    server: EventServer, llm_class: type[OpenAI], settings: dict[str, Any], kwargs: dict[str, Any], endpoint: str
) -> None:
    inner = llm_class(model="gpt-4o-mini", api_base=server.url, api_key="x", **settings)
    llm = ResilientLLM(inner)
    assert observed(inner, asynchronous=False) is not inner
    assert ask(llm, endpoint, **kwargs) == ask(inner, endpoint, **kwargs)

    async def both() -> None:
        assert observed(inner, asynchronous=True) is not inner
        assert await aask(llm, endpoint, **kwargs) == await aask(inner, endpoint, **kwargs)
        await inner._get_aclient().close()

    asyncio.run(both())
    inner._get_client().close()
    first, *others = server.requests
    assert len(others) == 3
    assert others[0] == first
    assert others[2] == others[1]


@pydantic_2
def test_the_wrapped_llm_is_not_changed(server: EventServer) -> None:
    inner = OpenAI(model="gpt-4o-mini", api_base=server.url, api_key="x")
    sdk = inner._get_client()
    fields, private = dict(vars(inner)), dict(inner.__pydantic_private__ or {})
    settings, sdk_settings = dict(vars(sdk._client)), dict(vars(sdk))
    ask(ResilientLLM(inner), "chat")
    assert vars(inner) == fields
    assert inner.__pydantic_private__ == private
    assert {name: vars(sdk._client)[name] for name in settings if name != "_state"} == {
        name: value for name, value in settings.items() if name != "_state"
    }
    assert {name: vars(sdk)[name] for name in sdk_settings} == sdk_settings
    sdk.close()


def test_bare_and_wrapped_share_their_connections(server: EventServer) -> None:
    inner = OpenAI(model="gpt-4o-mini", api_base=server.url, api_key="x")
    llm = ResilientLLM(inner)
    for _ in range(3):
        ask(llm, "chat")
    ask(inner, "chat")
    assert len(set(server.connections)) == 1

    async def run() -> None:
        for _ in range(3):
            await aask(llm, "chat")
        await aask(inner, "chat")
        await inner._get_aclient().close()

    server.connections.clear()
    asyncio.run(run())
    assert len(set(server.connections)) == 1
    inner._get_client().close()
    with pytest.raises(Exception, match=r"closed|Connection error"):
        ask(inner, "chat")


def test_the_sdk_s_own_retries_stay_the_same(serve: Serve) -> None:
    for wrap in (ResilientLLM, lambda llm: llm):
        server = serve(TEXT, ["http_503", "http_503"])
        inner = OpenAI(model="gpt-4o-mini", api_base=server.url, api_key="x", max_retries=2)
        assert "".join(ask(wrap(inner), "chat")) == TEXT
        assert len(server.requests) == 3
        inner._get_client().close()


class Mine(OpenAI):
    """A class of the user's, which may keep something on itself."""


def _with(**settings: Any) -> OpenAI:
    return OpenAI(model="gpt-4o-mini", api_key="x", **settings)


def _mocked() -> OpenAI:
    llm = _with()
    llm._client = object()  # type: ignore[assignment]
    return llm


class MySDK(openai.OpenAI):
    """An SDK client class of the user's, whose constructor may be another."""


LEFT_ALONE: dict[str, Callable[[], OpenAI]] = {
    "subclass": lambda: Mine(model="gpt-4o-mini", api_key="x"),
    "http-client": lambda: _with(http_client=httpx.Client()),
    "our-http-client": lambda: _with(http_client=http_client()),
    "sdk-s-default-client": lambda: _with(http_client=openai.DefaultHttpxClient()),
    "sdk-client-with-one": lambda: _with(openai_client=openai.OpenAI(api_key="x", http_client=httpx.Client())),
    "sdk-subclass": lambda: _with(openai_client=MySDK(api_key="x")),
    "no-reuse": lambda: _with(reuse_client=False),
    "mock": _mocked,
}


@pydantic_2
@pytest.mark.parametrize("make", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_the_user_gave_is_used_as_it_is(make: Callable[[], OpenAI]) -> None:
    llm = make()
    assert observed(llm, asynchronous=False) is llm
    for client in (llm._client, llm._http_client):
        if (close := getattr(client, "close", None)) is not None:
            close()


def test_an_asynchronous_client_of_the_user_s_is_used_as_it_is() -> None:
    llm = _with(async_http_client=async_http_client())
    assert observed(llm, asynchronous=True) is llm


def test_missing_credentials_are_told_by_the_call_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    llm = OpenAI(model="gpt-4o-mini")
    llm.api_key = None
    assert observed(llm, asynchronous=False) is llm


@pytest.mark.parametrize("fault", ["stall_first", "comments_first", "stall_headers"])
def test_a_stall_before_the_first_event_leaves_no_thread(serve: Serve, fault: str) -> None:
    server = serve(TEXT, [fault])
    inner = openai_like(server)
    inner._get_client()  # the first one takes longer than that to import
    stream: Any = ResilientLLM(inner, policy=replace(QUICK, first_token_timeout=0.5)).stream_chat(question())
    assert "".join(chunk.delta for chunk in stream) == TEXT
    assert stream.report.faults == ["timeout"]
    assert stream.report.status is StreamStatus.COMPLETE
    assert not stream.report.attempts[0].left_thread
    assert not [t.name for t in threading.enumerate() if t.name.startswith("resilient-stream-reader")]
    inner._get_client().close()
