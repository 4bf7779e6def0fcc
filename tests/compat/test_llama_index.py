"""What `compat` promises, on whichever LlamaIndex is installed."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from llama_index_resilient_stream.compat.llama_index import assistant_message, copied, message_text


def spoken(messages: Any) -> str:
    return "".join(str(message.content) for message in messages)


@pytest.fixture
def llm() -> OpenAILike:
    # Cannot be pickled, as users' functions often cannot.
    to_prompt = lambda messages: spoken(messages)  # noqa: E731
    return OpenAILike(
        model="m", api_key="k", api_base="http://nowhere/v1", max_tokens=500, messages_to_prompt=to_prompt
    )


def test_a_copy_of_an_llm_leaves_the_original_alone(llm: OpenAILike, caplog: pytest.LogCaptureFixture) -> None:
    before = dict(vars(llm))
    with caplog.at_level(logging.WARNING):
        other = copied(llm, max_tokens=20, additional_kwargs={"seed": 1})
    assert dict(vars(llm)) == before
    assert not caplog.messages  # core 0.10 says what it takes away
    assert (llm.max_tokens, llm.additional_kwargs) == (500, {})
    assert (other.max_tokens, other.additional_kwargs) == (20, {"seed": 1})
    assert other.messages_to_prompt is llm.messages_to_prompt
    assert other.callback_manager is llm.callback_manager
    assert other.metadata.model_name == "m"


def test_a_copy_of_an_llm_shares_its_client(llm: OpenAILike) -> None:
    client = llm._get_client()
    try:
        assert copied(llm, max_tokens=20)._get_client() is client
    finally:
        client.close()


def test_a_copy_of_a_message_leaves_the_original_alone() -> None:
    message = ChatMessage(role="assistant", content="Half an", additional_kwargs={"mark": 1, "name": "x"})
    other = copied(message, additional_kwargs={"name": "x"})
    assert message.additional_kwargs == {"mark": 1, "name": "x"}
    assert other.additional_kwargs == {"name": "x"}
    assert (other.role, other.content) == (message.role, "Half an")


def test_a_message_of_one_s_own_is_not_the_one_it_is_like() -> None:
    like = ChatMessage(role="assistant", content="Half", additional_kwargs={"name": "x"})
    made = assistant_message("Half an answer", like)
    assert message_text(made) == made.content == "Half an answer"
    assert message_text(like) == "Half"
    made.additional_kwargs["name"] = "y"
    assert like.additional_kwargs == {"name": "x"}
