"""What one provider wrote of a conversation, as another one takes it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

from llama_index_resilient_stream.llm.history import FORMS, readable

try:
    from llama_index.core.base.llms.types import TextBlock, ThinkingBlock, ToolCallBlock
except ImportError:
    pytest.skip("messages of this core have no such blocks", allow_module_level=True)

ARGUMENTS = {"title": "Rain", "year": 1999}
IDS = [None, "", "sing", "call_Zq3kP0aQ1yU7dXv2", "toolu_01", "functions.sing:0", "c12345678", "x" * 100, "Lied-ä"]


def as_class(name: str) -> Any:
    return type(name, (), {})()


def turn(call_id: str | None, arguments: Any = ARGUMENTS) -> list[ChatMessage]:
    call = ToolCallBlock(tool_call_id=call_id, tool_name="sing", tool_kwargs=arguments)
    result = {"tool_call_id": call_id or "sing"}
    return [
        ChatMessage(role="user", content="Sing."),
        ChatMessage(role="assistant", blocks=[TextBlock(text="So:"), call]),
        ChatMessage(role="tool", content="Done.", additional_kwargs=result),
    ]


@pytest.mark.parametrize("kind", [*FORMS, "SomebodysLLM"])
@pytest.mark.parametrize("call_id", IDS)
def test_ids_are_what_the_api_takes_and_stay_together(kind: str, call_id: str | None) -> None:
    messages = turn(call_id)
    before = [message.model_dump() for message in messages]
    asked = readable(messages, as_class(kind))
    made = asked[1].blocks[1].tool_call_id
    assert made == asked[2].additional_kwargs["tool_call_id"]
    if kind in FORMS:
        assert FORMS[kind].ids.fullmatch(made)
    if call_id and (kind not in FORMS or FORMS[kind].ids.fullmatch(call_id)):
        assert made == call_id
    assert [message.model_dump() for message in messages] == before


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("arguments", [ARGUMENTS, json.dumps(ARGUMENTS), "", "{}", '{"title": ', "3"], ids=str)
def test_arguments_are_an_object_where_one_is_asked_for(kind: str, arguments: Any) -> None:
    made = readable(turn("c12345678", arguments), as_class(kind))[1].blocks[1].tool_kwargs
    if not FORMS[kind].objects:
        assert made == arguments
    else:
        assert made == (ARGUMENTS if "1999" in str(arguments) else {})


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("signature", ["U0lH", "", None])
def test_thoughts_without_a_signature_are_left_away_where_they_need_one(kind: str, signature: str | None) -> None:
    thought = ThinkingBlock(
        content="Rain.", additional_information={} if signature is None else {"signature": signature}
    )
    (made,) = readable([ChatMessage(role="assistant", blocks=[thought, TextBlock(text="So:")])], as_class(kind))
    assert (thought in made.blocks) is (bool(signature) or not FORMS[kind].signed_thoughts)
    assert made.content == "So:"


@pytest.mark.parametrize("kind", FORMS)
def test_what_is_in_order_is_the_very_same(kind: str) -> None:
    messages = turn("c12345678")
    assert all(old is new for old, new in zip(messages, readable(messages, as_class(kind)), strict=True))


@pytest.mark.parametrize("kind", [*FORMS, "SomebodysLLM"])
def test_calls_that_a_class_wrote_twice_are_read_once(kind: str) -> None:
    messages = turn("c12345678")
    messages[1].additional_kwargs = {"tool_calls": [object()], "status": ["success"], "mine": 1}
    kept = readable(messages, as_class(kind))[1].additional_kwargs
    known = {"OpenAI": {"tool_calls"}, "BedrockConverse": {"status"}, "SomebodysLLM": {"tool_calls", "status"}}
    assert kept.keys() == {"mine", *known.get(kind, ())}
    assert messages[1].additional_kwargs.keys() == {"tool_calls", "status", "mine"}


def test_a_subclass_has_the_form_of_its_base() -> None:
    made = readable(turn(None), type("Mine", (type("MistralAI", (), {}),), {})())
    assert len(made[1].blocks[1].tool_call_id) == 9
