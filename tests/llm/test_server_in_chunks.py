"""A server that shows in its chunks who it is, is known whichever endpoint reads them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from llama_index.llms.openai_like import OpenAILike
from tenacity import wait_none

from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM
from support.readers import Reader

TEXT = ["One ", "two ", "three ", "four."]
CUT = 2


class LlamaCpp:
    """Answers as llama.cpp's server does: its build in every chunk, and written on from a last assistant turn."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.asked.append(body)
        texts = TEXT[CUT:] if len(self.asked) > 1 else TEXT[:CUT]
        events = [self._event({"content": text}) for text in texts]
        if len(self.asked) > 1:
            events += [self._event({}, "stop"), "data: [DONE]\n\n"]
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, text="".join(events))

    def _event(self, delta: dict[str, str], reason: str | None = None) -> str:
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return "data: " + json.dumps({**chunk, "system_fingerprint": "b4719-0f2bbe65", "choices": [choice]}) + "\n\n"


@pytest.mark.parametrize("endpoint", ["chat", "complete"])
def test_a_server_is_known_by_its_chunks(reader: Reader, endpoint: str) -> None:
    server = LlamaCpp()
    transport = httpx.MockTransport(server)
    llm = OpenAILike(
        model="m",
        api_base="http://server/v1",
        api_key="none",
        is_chat_model=True,
        max_retries=0,
        http_client=httpx.Client(transport=transport),
        async_http_client=httpx.AsyncClient(transport=transport),
    )
    result = reader(ResilientLLM(llm, policy=RecoveryPolicy(wait=wait_none())), endpoint=endpoint)
    assert result.text == "".join(TEXT)
    assert [attempt.strategy for attempt in result.report.attempts] == ["first", "prefill"]
    assert server.asked[1]["messages"][-1] == {"role": "assistant", "content": "One two "}
