"""An application with an index behind it as an endpoint like OpenAI's, as its client and LlamaIndex's read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from llama_index_resilient_stream import ResilientLLM
from support.parts_app import TEXT
from support.servers import Running, serving

pytestmark = pytest.mark.xdist_group("openai-endpoint")


@pytest.fixture(scope="module")
def app() -> Iterator[Running]:
    with serving("support.parts_app:app", "uvicorn-h11") as running:
        yield running


@pytest.fixture
def client(app: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="none", base_url=f"{app.url}/v1", max_retries=0) as made:
        yield made


MESSAGES: Any = [{"role": "user", "content": "How is the weather?"}]
ANSWERS = {
    "query": (TEXT, "stop"),
    "healed": (TEXT, "stop"),
    "length": (TEXT[:20], "length"),
    "agent": (TEXT, "stop"),
    "agent-healed": (TEXT, "stop"),
}


@pytest.mark.parametrize(("kind", "text", "finish"), [(k, *v) for k, v in ANSWERS.items()], ids=ANSWERS)
def test_streamed(kind: str, text: str, finish: str, client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=kind, messages=MESSAGES, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + [finish]
    assert {(c.model, c.object, c.id) for c in chunks} == {(kind, "chat.completion.chunk", chunks[0].id)}
    assert len(chunks) > 4


@pytest.mark.parametrize(("kind", "text", "finish"), [(k, *v) for k, v in ANSWERS.items()], ids=ANSWERS)
def test_not_streamed(kind: str, text: str, finish: str, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=kind, messages=MESSAGES)
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason, choice.message.role) == (text, finish, "assistant")
    assert answer.usage is not None


def test_a_turn_that_is_told_differently(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="told", messages=MESSAGES)
    assert whole.choices[0].message.content == "I look.It is blue.", "one telling"
    chunks = list(client.chat.completions.create(model="told", messages=MESSAGES, stream=True))
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == f"{TEXT}Let me see: it rains.\n\nI look.It is blue.", "what is sent cannot be taken back"
    assert "".join(getattr(c.choices[0].delta, "reasoning_content", "") for c in chunks) == "Is that so?"
    (sources,) = [found for c in chunks if (found := getattr(c, "sources", None))]
    assert [each["text"] for each in sources] == ["The sun shines.", "It is warm."]


def test_usage_is_told_where_it_is_asked_for(client: openai.OpenAI) -> None:
    asked = client.chat.completions.create(
        model="query", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    *_, last = asked
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens


@pytest.mark.parametrize("kind", ["fails", "fails-at-once"])
def test_an_answer_that_is_not_whole_raises(kind: str, client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(model=kind, messages=MESSAGES, stream=True)
    text: list[str] = []
    with pytest.raises(openai.APIError, match="The answer is not whole: attempts"):
        text.extend(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "".join(text) == (TEXT[:20] if kind == "fails" else "")
    with pytest.raises(openai.InternalServerError, match="The answer is not whole: attempts") as caught:
        client.chat.completions.create(model=kind, messages=MESSAGES)
    assert caught.value.response.headers["x-should-retry"] == "true"


@pytest.mark.parametrize("stream", [True, False])
def test_the_applications_own_refusal_keeps_its_status(stream: bool, client: openai.OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="not yours"):
        list(client.chat.completions.create(model="refused", messages=MESSAGES, stream=stream))


async def test_the_asynchronous_client(app: Running) -> None:
    async with openai.AsyncOpenAI(api_key="none", base_url=f"{app.url}/v1", max_retries=0) as client:
        stream = await client.chat.completions.create(model="healed", messages=MESSAGES, stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == TEXT


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "resilient"])
def test_llamaindex_as_a_client(wrapped: bool, app: Running) -> None:
    bare = OpenAILike(
        model="healed", api_base=f"{app.url}/v1", api_key="none", is_chat_model=True, max_retries=0, context_window=9999
    )
    llm: Any = ResilientLLM(bare) if wrapped else bare
    message = [ChatMessage(role="user", content="?")]
    assert "".join(chunk.delta or "" for chunk in llm.stream_chat(message)) == TEXT
    assert llm.chat(message).message.content == TEXT
    if wrapped:
        stream = llm.stream_chat(message)
        assert len(list(stream)) > 3
        assert stream.report.status == "complete"
    bare._client.close()


def test_raw(app: Running) -> None:
    body = {"model": "query", "messages": MESSAGES, "stream": True}
    lines = httpx.post(f"{app.url}/v1/chat/completions", json=body).text.strip().splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    assert all(json.loads(each)["choices"] for each in data[:-1])
