"""Finish reasons on chunks that LlamaIndex drops, read from the wire. On real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike

from llama_index_resilient_stream import ResilientLLM, StreamStatus
from llama_index_resilient_stream.http import async_http_client, http_client
from support.event_server import EventServer
from support.readers import QUICK, Reader
from support.sdk_clients import needs_observed_sdk_clients


def chunk(delta: dict[str, Any] | None, reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": reason, **({} if delta is None else {"delta": delta})}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


ROLE, HALF, DONE = chunk({"role": "assistant", "content": ""}), chunk({"content": "Half an ans"}), "[DONE]"
CASES: dict[str, tuple[list[Any], StreamStatus, str]] = {
    "filter-without-delta": ([ROLE, HALF, chunk(None, "content_filter"), DONE], StreamStatus.FILTERED, "Half an ans"),
    "filter-without-delta-or-done": ([ROLE, HALF, chunk(None, "content_filter")], StreamStatus.FILTERED, "Half an ans"),
    "filter-first": (
        [chunk({"role": "assistant", "content": None}, "content_filter"), DONE],
        StreamStatus.FILTERED,
        "",
    ),
    "filter-alone-without-delta": ([chunk(None, "content_filter"), DONE], StreamStatus.FILTERED, ""),
    "length-without-delta": ([ROLE, HALF, chunk(None, "length"), DONE], StreamStatus.LENGTH, "Half an ans"),
    "stop-without-delta": ([ROLE, HALF, chunk(None, "stop"), DONE], StreamStatus.COMPLETE, "Half an ans"),
    "refusal": (
        [
            chunk({"role": "assistant", "content": None, "refusal": ""}),
            chunk({"refusal": "No."}),
            chunk({}, "stop"),
            DONE,
        ],
        StreamStatus.FILTERED,
        "",
    ),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[EventServer, StreamStatus, str]]:
    events, status, text = request.param
    with EventServer(*events) as server:
        yield server, status, text


@pytest.mark.parametrize(
    "ours",
    [pytest.param(True, id="our-client"), pytest.param(False, id="sdk-client", marks=needs_observed_sdk_clients)],
)
@pytest.mark.parametrize("llm_class", [OpenAI, OpenAILike])
def test_a_finish_reason_that_llama_index_drops_counts(
    reader: Reader,
    case: tuple[EventServer, StreamStatus, str],
    llm_class: Any,
    ours: bool,
) -> None:
    server, status, text = case
    with http_client() as client:
        clients: dict[str, Any] = {"http_client": client, "async_http_client": async_http_client()} if ours else {}
        like = {"is_chat_model": True} if llm_class is OpenAILike else {}
        inner = llm_class(model="gpt-4o-mini", api_base=server.url, api_key="x", max_retries=0, **clients, **like)
        result = reader(ResilientLLM(inner, policy=QUICK))
    assert result.error is None
    assert result.report.status is status
    assert result.text == text
    assert len(server.requests) == 1


class Stumbles(OpenAILike):
    """Fails over an event without a delta, as LlamaIndex's class did up to llms-openai 0.1."""

    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        for response in super().stream_chat(messages, **kwargs):
            yield response
            self.stumble(response)

    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        source = await super().astream_chat(messages, **kwargs)

        async def stumbling() -> Any:
            async for response in source:
                yield response
                self.stumble(response)

        return stumbling()

    def stumble(self, response: Any) -> None:
        if response.raw.choices[0].delta.content == "STUMBLE_AT":
            raise AttributeError("'NoneType' object has no attribute 'tool_calls'")


HELD, BARE_STOP = chunk({"content": "STUMBLE_AT"}), chunk(None, "stop")


@pytest.mark.parametrize(
    ("events", "status"),
    [
        pytest.param([HALF, HELD, BARE_STOP, DONE], StreamStatus.COMPLETE, id="the event of the reason"),
        pytest.param([HALF, HELD, HALF, BARE_STOP, DONE], StreamStatus.INTERRUPTED, id="an event with text"),
        pytest.param([HALF, HELD, chunk({"content": "."}, "stop"), DONE], StreamStatus.INTERRUPTED, id="text on it"),
    ],
)
def test_a_class_that_fails_over_an_event_lost_what_was_on_it(
    reader: Reader, events: list[Any], status: StreamStatus
) -> None:
    with EventServer(*events) as server, http_client() as client:
        inner = Stumbles(
            model="m",
            api_base=server.url,
            api_key="x",
            is_chat_model=True,
            max_retries=0,
            http_client=client,
            async_http_client=async_http_client(),
        )
        assert reader(ResilientLLM(inner, policy=QUICK)).report.status is status
