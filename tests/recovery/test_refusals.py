"""Refusals that a provider keeps apart from the answer: a row for every place, and the chunks of real LLM classes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from types import SimpleNamespace as Object
from typing import Any

import httpx
import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.llms.openai import OpenAI
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseRefusalDeltaEvent, ResponseRefusalDoneEvent

from llama_index_resilient_stream.llm.chunks import Reader, read_whole
from llama_index_resilient_stream.recovery.refusals import refusal_of

NO = "I cannot help with that."
WORDS = ["I", " cannot", " help", " with", " that."]


def chunk(**delta: Any) -> ChatCompletionChunk:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return ChatCompletionChunk.model_validate(
        {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    )


def refusal_delta(word: str) -> ResponseRefusalDeltaEvent:
    return ResponseRefusalDeltaEvent.construct(type="response.refusal.delta", delta=word)


REFUSAL_DONE = ResponseRefusalDoneEvent.construct(type="response.refusal.done", refusal=NO)
OUTPUT = [{"type": "message", "content": [{"type": "refusal", "refusal": NO}]}]
COMPLETED = {"type": "response.completed", "response": {"output": OUTPUT}}
DETAILS = Object(stop_reason="refusal", stop_details=Object(type="refusal", explanation=NO))

# id: the chunks of one stream
STREAMS: dict[str, list[Any]] = {
    "openai": [chunk(role="assistant", refusal=""), *(chunk(refusal=word) for word in WORDS), chunk()],
    "openai as dictionaries": [{"choices": [{"delta": {"refusal": word}}]} for word in WORDS],
    "openai as objects": [Object(choices=[Object(delta=Object(refusal=word))]) for word in WORDS],
    "openai all at once": [chunk(refusal=NO)],
    "responses": [*map(refusal_delta, WORDS), REFUSAL_DONE, COMPLETED],
    "responses without deltas": [REFUSAL_DONE],
    "responses at its end alone": [COMPLETED],
    "responses with a last delta lost": [*map(refusal_delta, WORDS[:-1]), REFUSAL_DONE],
    "responses as dictionaries": [{"type": "response.refusal.delta", "delta": word} for word in WORDS],
    "anthropic": [{"type": "message_delta", "delta": DETAILS}],
}


def response(raw: Any, text: str = "") -> ChatResponse:
    return ChatResponse(message=ChatMessage(role="assistant", content=text), delta=text, raw=raw)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_a_refusal_is_read_from_the_chunks(stream: list[Any]) -> None:
    reader = Reader()
    chunks = [reader.chat(response(raw)) for raw in stream]
    assert "".join(chunk.refusal or "" for chunk in chunks) == NO
    assert all(chunk.progress for chunk in chunks if chunk.refusal)
    assert not any(chunk.text for chunk in chunks)


ANSWERS: dict[str, Any] = {
    "text": chunk(content="Hello", refusal=None),
    "no delta": {"choices": [{"delta": None}]},
    "no choices": {"choices": []},
    "a number": {"choices": [{"delta": {"refusal": 3}}]},
    "true": {"choices": [{"delta": {"refusal": True}}]},
    "responses text": {"type": "response.output_text.delta", "delta": NO},
    "responses completed": {"type": "response.completed", "response": {"output": [{"content": [{"text": NO}]}]}},
    "odd output": {"output": "refusal"},
    "anthropic": {"type": "message_delta", "delta": Object(stop_reason="end_turn")},
    "nothing": None,
    "text alone": NO,
}


@pytest.mark.parametrize("raw", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_is_no_refusal(raw: Any) -> None:
    assert refusal_of(raw) is None


WHOLE: dict[str, tuple[Any, dict[str, Any]]] = {
    "openai": ({"choices": [{"message": {"content": None, "refusal": NO}}]}, {}),
    "responses": (Object(output=[Object(content=[Object(refusal=NO)])]), {}),
    "responses in additional_kwargs": (None, {"refusal": NO}),
}


@pytest.mark.parametrize(("raw", "extra"), WHOLE.values(), ids=WHOLE.keys())
def test_a_refusal_that_comes_all_at_once(raw: Any, extra: dict[str, Any]) -> None:
    message = ChatMessage(role="assistant", content=None, additional_kwargs=extra)
    assert read_whole(ChatResponse(message=message, raw=raw)).refusal == NO


def events(datas: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(b"data: " + json.dumps(data).encode() + b"\n\n" for data in datas) + b"data: [DONE]\n\n"


class Refusing:
    """An OpenAI model that refuses."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = events(item.model_dump() for item in STREAMS["openai"])
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)


def read(responses: Iterable[ChatResponse]) -> Iterator[str]:
    reader = Reader()
    for answer in responses:
        yield reader.chat(answer).refusal or ""


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_refusal_by_way_of_llamaindex(is_async: bool) -> None:
    transport = httpx.MockTransport(Refusing())
    llm = OpenAI(
        "gpt-4o-mini",
        api_key="none",
        http_client=httpx.Client(transport=transport),
        async_http_client=httpx.AsyncClient(transport=transport),
    )
    question = [ChatMessage(role="user", content="?")]

    async def aread() -> list[ChatResponse]:
        return [answer async for answer in await llm.astream_chat(question)]

    responses = asyncio.run(aread()) if is_async else list(llm.stream_chat(question))
    assert "".join(read(responses)) == NO
