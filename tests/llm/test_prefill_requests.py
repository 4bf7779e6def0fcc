"""What a prefill looks like for each server that wants something with it, and where none is sent."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike

from llama_index_resilient_stream import RecoveryPolicy
from llama_index_resilient_stream.llm.models import model_of
from llama_index_resilient_stream.llm.prefill import mark_of, marked
from llama_index_resilient_stream.llm.question import Question
from llama_index_resilient_stream.providers import Provider, provider_of
from llama_index_resilient_stream.recovery.continuation import Continuation
from llama_index_resilient_stream.recovery.events import Learned
from llama_index_resilient_stream.report import Strategy

DeepSeek = type("DeepSeek", (OpenAILike,), {})
Cohere = type("Cohere", (OpenAILike,), {})


def like(cls: Any = OpenAILike, **settings: Any) -> Any:
    return cls(**{"model": "m", "api_key": "k", "api_base": "http://127.0.0.1:1/v1", "is_chat_model": True, **settings})


@pytest.mark.parametrize(
    ("llm", "key"),
    [
        (like(DeepSeek), "prefix"),
        (like(api_base="https://api.deepseek.com/beta"), "prefix"),
        (like(api_base="https://api.mistral.ai/v1"), "prefix"),
        (like(api_base="https://api.moonshot.ai/v1"), "partial"),
        (like(api_base="https://dashscope-intl.aliyuncs.com/compatible-mode/v1"), "partial"),
        (like(), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_key_that_a_server_wants(llm: Any, key: str) -> None:
    assert mark_of(llm, provider_of(type(llm))) == key


def test_the_last_turn_has_the_mark_and_the_user_s_body_is_kept() -> None:
    messages = [ChatMessage(role="user", content="Tell."), ChatMessage(role="assistant", content="The cable")]
    _, kwargs = marked(like(DeepSeek), messages, {"extra_body": {"seed": 1}, "top_p": 0.5}, "prefix")
    assert kwargs["top_p"] == 0.5
    assert kwargs["extra_body"]["seed"] == 1
    *before, last = kwargs["extra_body"]["messages"]
    assert last == {"role": "assistant", "content": "The cable", "prefix": True}
    assert all("prefix" not in each for each in before)


class _Models:
    class AssistantMessage:
        def __init__(self, **fields: Any) -> None:
            self.fields = fields

    other = "other"


def test_mistral_s_last_message_of_the_assistant_alone_is_marked() -> None:
    llm = like()
    object.__setattr__(llm, "__dict__", {**vars(llm), "_models": _Models})
    messages = [ChatMessage(role=role, content="x") for role in ("user", "assistant", "user", "assistant")]
    asked, _ = marked(llm, messages, {}, "prefix")
    made = [asked._models.AssistantMessage(content=text) for text in ("one", "two")]
    assert [each.fields for each in made] == [{"content": "one"}, {"content": "two", "prefix": True}]
    assert asked._models.other == "other"
    assert llm._models is _Models


def way(llm: Any, wanted: Any = "prefill", provider: Provider | None = None, **kwargs: Any) -> Strategy:
    model = model_of(llm, Question(True, kwargs=kwargs), RecoveryPolicy(), wanted, Learned(), provider)
    return Strategy(model.continuation.strategy)


FLAGS = Continuation("prefill", extra={"extra_body": {"continue_final_message": True}})


@pytest.mark.parametrize(
    ("llm", "wanted", "kwargs", "strategy"),
    [
        pytest.param(like(), "prefill", {}, "prefill", id="where it can work"),
        pytest.param(OpenAI(api_key="k"), "prefill", {}, "ask", id="never where it is answered by a new turn"),
        pytest.param(like(Cohere), "prefill", {}, "ask", id="never where it is sent as the user's"),
        pytest.param(like(), "prefill", {"reasoning_effort": "high"}, "ask", id="never with thinking on"),
        pytest.param(like(model="o3"), "prefill", {}, "ask", id="never with a model that thinks"),
        pytest.param(OpenAI(api_key="k", model="gpt-4o"), FLAGS, {}, "prefill", id="the user's own request is sent"),
    ],
)
def test_where_a_prefill_is_sent(llm: Any, wanted: Any, kwargs: dict[str, Any], strategy: str) -> None:
    assert way(llm, wanted, **kwargs) == strategy
