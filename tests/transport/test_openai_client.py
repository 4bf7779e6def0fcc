"""The wire against the OpenAI client, without a socket: what is sent, and what becomes of what comes back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import respx
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike

from llama_index_resilient_stream import ResilientLLM, StreamStatus
from support.readers import QUICK, Reader

URL = "https://api.openai.com/v1/chat/completions"


@pytest.fixture
def wire() -> Iterator[respx.MockRouter]:
    with respx.mock(assert_all_called=False) as router:
        yield router


def events(*texts: str, finish: str | None = None, done: bool = True, **extra: Any) -> httpx.Response:
    def event(delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return f"data: {json.dumps({**chunk, **extra})}\n\n"

    lines = [event({"role": "assistant", "content": ""}), *(event({"content": text}) for text in texts)]
    lines += [event({}, finish)] if finish else []
    lines += ["data: [DONE]\n\n"] if done else []
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, text="".join(lines))


def answers(wire: respx.MockRouter, *responses: httpx.Response | Exception, url: str = URL) -> respx.Route:
    return wire.post(url).mock(side_effect=list(responses))


def bodies(route: respx.Route) -> list[dict[str, Any]]:
    return [json.loads(call.request.content) for call in route.calls]


def gpt(**kwargs: Any) -> OpenAI:
    return OpenAI(model="gpt-4o-mini", api_key="sk-x", max_retries=0, **kwargs)


def test_request_that_continues(reader: Reader, wire: respx.MockRouter) -> None:
    route = answers(wire, events("The sky ", "is"), events("The sky is", " blue.", finish="stop"))
    result = reader(ResilientLLM(gpt(), policy=QUICK))
    assert result.text == "The sky is blue."
    first, second = bodies(route)
    assert second["messages"][:1] == first["messages"]
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == "The sky is"
    assert second["messages"][2]["content"].endswith("copying this text exactly:\n\nThe sky is")
    assert not any(message["role"] == "system" for message in second["messages"])
    assert {k: v for k, v in first.items() if k != "messages"} == {k: v for k, v in second.items() if k != "messages"}


def test_request_that_prefills(reader: Reader, wire: respx.MockRouter) -> None:
    url = "http://vllm/v1/chat/completions"
    route = answers(wire, events("The sky ", "is "), events("blue.", finish="stop"), url=url)
    inner = OpenAILike(
        model="m",
        api_base="http://vllm/v1",
        api_key="x",
        is_chat_model=True,
        max_retries=0,
        additional_kwargs={"extra_body": {"top_k": 5}},
    )
    result = reader(ResilientLLM(inner, policy=QUICK, continuation="prefill"))
    assert result.text == "The sky is blue."
    first, second = bodies(route)
    assert first["top_k"] == second["top_k"] == 5
    assert second["continue_final_message"] is True
    assert second["add_generation_prompt"] is False
    assert second["messages"][-1] == {"role": "assistant", "content": "The sky is "}


@pytest.mark.parametrize(
    "broken",
    [
        httpx.ReadError("reset"),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("peer closed connection"),
        httpx.Response(502, html="<html>Bad Gateway</html>"),
        httpx.Response(200, html="<html>Welcome to the hotel's network</html>"),
        events(),
        events("Tru", finish="error"),
    ],
    ids=["read", "connect", "timeout", "protocol", "502", "captive-portal", "empty", "error_finish"],
)
def test_faults_that_are_survived(reader: Reader, wire: respx.MockRouter, broken: httpx.Response | Exception) -> None:
    answers(wire, broken, events("True", ".", finish="stop"))
    result = reader(ResilientLLM(gpt(), policy=QUICK))
    assert result.text == "True."
    assert result.report.status is StreamStatus.COMPLETE
    assert len(result.report.attempts) == 2


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_an_output_limit_of_the_call_is_reduced(reader: Reader, wire: respx.MockRouter, limit: str) -> None:
    pieces = [f"w{piece} " for piece in range(100)]
    words = "".join(pieces)
    route = answers(wire, events(*pieces), events(words[-80:], "end.", finish="stop"))
    result = reader(ResilientLLM(gpt(), policy=QUICK), **{limit: 300})
    assert result.text == words + "end."
    first, second = bodies(route)
    assert first[limit] == 300
    assert 180 <= second[limit] < 240


def test_the_bill_is_added_up(reader: Reader, wire: respx.MockRouter) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    answers(wire, events("Half an answer", usage=None), events("Half an answer is whole.", finish="stop", usage=usage))
    result = reader(ResilientLLM(gpt(), policy=QUICK))
    assert result.report.usage_estimated
    assert result.report.usage["completion_tokens"] == 3 + 4
    assert result.report.usage["total_tokens"] > 10


def test_a_dozen_streams_share_one_client(wire: respx.MockRouter) -> None:
    answers(wire, *(events("Same.", finish="stop") for _ in range(12)))
    inner = gpt()
    llm = ResilientLLM(inner)
    read_one: Callable[[], str] = lambda: "".join(chunk.delta for chunk in llm.stream_complete("?"))  # noqa: E731
    assert {read_one() for _ in range(12)} == {"Same."}
    assert inner._get_client() is inner._get_client()
