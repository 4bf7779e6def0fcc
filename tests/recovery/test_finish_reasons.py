"""What one chunk says: a row for every shape that a LlamaIndex class was seen to put into `raw`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace as Object
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel

from llama_index_resilient_stream.recovery.finish_reasons import (
    FinishMeaning,
    FinishReason,
    finish_reason_of,
    meaning_of,
    open_tool_call,
    usage_of,
)
from llama_index_resilient_stream.recovery.finish_words import WORDS


class GoogleFinishReason(str, Enum):  # noqa: UP042  as google-genai defines it
    STOP = "STOP"
    SAFETY = "SAFETY"
    FINISH_REASON_UNSPECIFIED = "FINISH_REASON_UNSPECIFIED"


class ProtoReason(Enum):
    MAX_TOKENS = 2


@dataclass
class Choice:
    finish_reason: str | None


class DictAndObject(dict[str, Any]):
    """As huggingface_hub's and DashScope's types: a dictionary with attributes."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.__dict__.update(attributes)


class MistralChunk(BaseModel):
    choices: list[Any]
    usage: Any = None


class MistralEvent(BaseModel):
    data: MistralChunk


def chunk(reason: str | None, **more: Any) -> ChatCompletionChunk:
    choice = {"index": 0, "delta": {"content": "hi"}, "finish_reason": reason}
    return ChatCompletionChunk.construct(
        id="1", object="chat.completion.chunk", created=1, model="m", choices=[choice], **more
    )


def choices(reason: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def responses(kind: str, reason: str | None = None) -> Object:
    details = Object(reason=reason) if reason else None
    return Object(type=kind, response=Object(incomplete_details=details, error=None))


FINISHED: dict[str, tuple[Any, FinishMeaning, str]] = {
    "openai": (chunk("stop"), FinishMeaning.COMPLETE, "stop"),
    "openai length": (chunk("length"), FinishMeaning.LENGTH, "length"),
    "openai tools": (chunk("tool_calls"), FinishMeaning.TOOL, "tool_calls"),
    "openai filter": (chunk("content_filter"), FinishMeaning.FILTER, "content_filter"),
    "openrouter error": (chunk("error"), FinishMeaning.ERROR, "error"),
    "deepseek busy": (chunk("insufficient_system_resource"), FinishMeaning.ERROR, "insufficient_system_resource"),
    "a new word": (chunk("because_i_say_so"), FinishMeaning.UNKNOWN, "because_i_say_so"),
    "second choice": (
        {"choices": [{"finish_reason": None}, {"finish_reason": "stop"}]},
        FinishMeaning.COMPLETE,
        "stop",
    ),
    "gemini as openai": ({"choices": [{"finishReason": "STOP"}]}, FinishMeaning.COMPLETE, "stop"),
    "responses completed": (responses("response.completed"), FinishMeaning.COMPLETE, "response.completed"),
    "responses length": (
        responses("response.incomplete", "max_output_tokens"),
        FinishMeaning.LENGTH,
        "max_output_tokens",
    ),
    "responses filter": (
        responses("response.incomplete", "content_filter"),
        FinishMeaning.FILTER,
        "content_filter",
    ),
    "responses incomplete": (responses("response.incomplete"), FinishMeaning.LENGTH, "response.incomplete"),
    "responses failed": (responses("response.failed"), FinishMeaning.ERROR, "response.failed"),
    "responses failed of": (
        {"type": "response.failed", "response": {"error": {"code": "insufficient_quota", "message": "No."}}},
        FinishMeaning.ERROR,
        "response.failed: insufficient_quota",
    ),
    "responses error": ({"type": "error", "code": "server_error"}, FinishMeaning.ERROR, "error"),
    "response fetched": (Object(status="completed"), FinishMeaning.COMPLETE, "completed"),
    "response cut": (
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        FinishMeaning.LENGTH,
        "max_output_tokens",
    ),
    "anthropic": (
        {"type": "message_delta", "delta": Object(stop_reason="end_turn")},
        FinishMeaning.COMPLETE,
        "end_turn",
    ),
    "anthropic by key": (
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
        FinishMeaning.LENGTH,
        "max_tokens",
    ),
    "anthropic refusal": (
        {"type": "message_delta", "delta": Object(stop_reason="refusal")},
        FinishMeaning.FILTER,
        "refusal",
    ),
    "anthropic stop": ({"type": "message_stop"}, FinishMeaning.COMPLETE, "message_stop"),
    "google": ({"content": {}, "finish_reason": GoogleFinishReason.STOP}, FinishMeaning.COMPLETE, "stop"),
    "google safety": ({"finish_reason": GoogleFinishReason.SAFETY}, FinishMeaning.FILTER, "safety"),
    "vertex": ({"candidates": [Object(finish_reason=ProtoReason.MAX_TOKENS)]}, FinishMeaning.LENGTH, "max_tokens"),
    "enum as text": ({"finish_reason": "FinishReason.RECITATION"}, FinishMeaning.FILTER, "recitation"),
    "bedrock": (
        {"metadata": {"usage": {"inputTokens": 1}}},
        FinishMeaning.UNKNOWN,
        "metadata",
    ),  # an end, and no reason
    "gemini's own events": ({"candidates": [{"finishReason": "MAX_TOKENS"}]}, FinishMeaning.LENGTH, "max_tokens"),
    "a question that Gemini blocks": (
        {"promptFeedback": {"blockReason": "OTHER"}},
        FinishMeaning.FILTER,
        "blocked: other",
    ),
    "bedrock stop": ({"messageStop": {"stopReason": "tool_use"}}, FinishMeaning.TOOL, "tool_use"),
    "bedrock invoke": ({"generation": "", "stop_reason": "stop"}, FinishMeaning.COMPLETE, "stop"),
    "mistral": (MistralEvent(data=MistralChunk(choices=[Choice("stop")])), FinishMeaning.COMPLETE, "stop"),
    "cohere": ({"event_type": "stream-end", "finish_reason": "COMPLETE"}, FinishMeaning.COMPLETE, "complete"),
    "cohere error": ({"event_type": "stream-end", "finish_reason": "ERROR"}, FinishMeaning.ERROR, "error"),
    "cohere toxic": (
        {"event_type": "stream-end", "finish_reason": "ERROR_TOXIC"},
        FinishMeaning.FILTER,
        "error_toxic",
    ),
    "cohere v2": (
        {"type": "message-end", "delta": {"finish_reason": "MAX_TOKENS"}},
        FinishMeaning.LENGTH,
        "max_tokens",
    ),
    "ollama": ({"done": True, "done_reason": "stop"}, FinishMeaning.COMPLETE, "stop"),
    "ollama length": ({"done": True, "done_reason": "length"}, FinishMeaning.LENGTH, "length"),
    "ollama without reason": ({"done": True, "done_reason": None}, FinishMeaning.COMPLETE, "done"),
    "huggingface": (DictAndObject(choices=[Choice("eos_token")]), FinishMeaning.COMPLETE, "eos_token"),
    "dashscope": (
        DictAndObject(output=DictAndObject(choices=[Choice("length")])),
        FinishMeaning.LENGTH,
        "length",
    ),
    "watsonx": (choices("time_limit"), FinishMeaning.LENGTH, "time_limit"),
    "watsonx text": ({"results": [{"stop_reason": "eos_token"}]}, FinishMeaning.COMPLETE, "eos_token"),
    "tgi": (Object(details=Object(finish_reason="length")), FinishMeaning.LENGTH, "length"),
    "error inside": ({"error": {"message": "overloaded"}}, FinishMeaning.ERROR, "error"),
}


@pytest.mark.parametrize(("raw", "kind", "word"), FINISHED.values(), ids=FINISHED.keys())
def test_finish_signal(raw: Any, kind: FinishMeaning, word: str) -> None:
    assert finish_reason_of(raw, None) == FinishReason(kind, word)


UNFINISHED: dict[str, Any] = {
    "nothing": None,
    "openai": chunk(None),
    "openai usage": ChatCompletionChunk.construct(choices=[], usage={"total_tokens": 3}),
    "old ollama as openai": choices(""),
    "dashscope": DictAndObject(output=DictAndObject(choices=[Choice("null")])),
    "responses": ResponseTextDeltaEvent.construct(type="response.output_text.delta", delta="x"),
    "responses in progress": Object(status="in_progress"),
    "anthropic": {"type": "content_block_delta", "delta": Object(text="x")},
    "anthropic too early": {"type": "message_delta", "delta": Object(stop_reason=None)},
    "google": {"finish_reason": GoogleFinishReason.FINISH_REASON_UNSPECIFIED},
    "google none": {"finish_reason": None},
    "bedrock": {"contentBlockDelta": {"delta": {"text": "x"}}},
    "metadata of something else": {"metadata": {"trace": 1}},
    "cohere": {"event_type": "text-generation", "text": "x"},
    "ollama": {"done": False, "done_reason": None},
    "watsonx text": {"results": [{"stop_reason": "not_finished"}]},
    "no choices": {"choices": []},
    "odd choices": {"choices": "stop"},
    "a number": {"finish_reason": 10**400},
    "a text": "stop",
    "a bound method": Object(finish_reason=str.lower),
}


@pytest.mark.parametrize("raw", UNFINISHED.values(), ids=UNFINISHED.keys())
def test_chunk_without_finish_reason(raw: Any) -> None:
    assert finish_reason_of(raw, {}) is None


@pytest.mark.parametrize("name", ["stop_reason", "finish_reason"])
def test_finish_signal_in_additional_kwargs(name: str) -> None:
    assert finish_reason_of(None, {name: "max_tokens"}) == FinishReason(FinishMeaning.LENGTH, "max_tokens")


def test_the_raw_chunk_comes_before_additional_kwargs() -> None:
    assert finish_reason_of(choices("length"), {"stop_reason": "stop"}) == FinishReason(FinishMeaning.LENGTH, "length")


LISTED = {
    FinishMeaning.COMPLETE: """
        stop end_turn stop_sequence eos eos_token complete completed response.completed""",
    FinishMeaning.LENGTH: """
        length max_tokens max_output_tokens model_length model_context_window_exceeded error_limit
        response.incomplete compaction max_length""",
    FinishMeaning.PAUSE: "pause_turn continuation",
    FinishMeaning.TOOL: "tool_calls tool_use function_call tool_call tool",
    FinishMeaning.FILTER: """
        content_filter content_filtered refusal safety recitation blocklist prohibited_content spii language
        error_toxic guardrail_intervened sensitive image_safety""",
    FinishMeaning.ERROR: """
        error network_error response.failed failed cancelled malformed_function_call other server_error
        malformed_model_output malformed_tool_use unexpected_tool_call""",
}


@pytest.mark.parametrize(("kind", "word"), [(kind, word) for kind, words in LISTED.items() for word in words.split()])
def test_meaning_of_a_word(kind: FinishMeaning, word: str) -> None:
    assert finish_reason_of(choices(word.upper()), None) == FinishReason(kind, word)


def test_no_word_means_two_things() -> None:
    listed = [re.sub(r"[._]", "", word) for words in WORDS.values() for word in words.split()]
    assert [word for word in set(listed) if listed.count(word) > 1] == []


SPELLINGS: dict[str, tuple[str, FinishMeaning]] = {
    "both sides of a colon": ("function_call_filter: MALFORMED_FUNCTION_CALL", FinishMeaning.ERROR),
    "both sides known": ("content_filter: PROHIBITED_CONTENT", FinishMeaning.FILTER),
    "the worse side counts": ("content_filter: stop", FinishMeaning.FILTER),
    "a filter outweighs an error": ("error:content_filter", FinishMeaning.FILTER),
    "label and word": ("stop_reason: max_tokens", FinishMeaning.LENGTH),
    "label without space": ("finish_reason:stop", FinishMeaning.COMPLETE),
    "enum": ("FinishReason.MAX_TOKENS", FinishMeaning.LENGTH),
    "enum in a class": ("Candidate.FinishReason.SAFETY", FinishMeaning.FILTER),
    "enum as repr": ("<FinishReason.STOP: 1>", FinishMeaning.COMPLETE),
    "enum with a long name": ("FINISH_REASON_MAX_TOKENS", FinishMeaning.LENGTH),
    "stop reason as enum": ("StopReason.END_TURN", FinishMeaning.COMPLETE),
    "kebab filter": ("content-filter", FinishMeaning.FILTER),
    "camel filter": ("contentFilter", FinishMeaning.FILTER),
    "pascal limit": ("MaxTokens", FinishMeaning.LENGTH),
    "kebab limit": ("max-tokens", FinishMeaning.LENGTH),
    "spaced limit": ("max tokens reached", FinishMeaning.LENGTH),
    "camel limit": ("maxOutputTokens", FinishMeaning.LENGTH),
    "kebab tools": ("tool-calls", FinishMeaning.TOOL),
    "kebab end": ("end-turn", FinishMeaning.COMPLETE),
    "end token": ("<|im_end|>", FinishMeaning.COMPLETE),
    "a loop that was cut": ("repetition", FinishMeaning.LENGTH),
    "american": ("canceled", FinishMeaning.ERROR),
    "overloaded": ("overloaded", FinishMeaning.ERROR),
    "rate": ("rate_limit", FinishMeaning.ERROR),
    "rate exceeded": ("rate_limit_exceeded", FinishMeaning.ERROR),
    "blocked": ("blocked", FinishMeaning.FILTER),
    "moderation": ("moderation", FinishMeaning.FILTER),
    "sensitive words": ("sensitive_words_detected", FinishMeaning.FILTER),
    "no image": ("NO_IMAGE", FinishMeaning.ERROR),
    "unknown itself": ("unknown", FinishMeaning.UNKNOWN),
    "half known": ("shortened: stop", FinishMeaning.UNKNOWN),
    "half known cut": ("shortened: max_tokens", FinishMeaning.LENGTH),
    "a sentence": ("I had to stop here", FinishMeaning.UNKNOWN),
    "another script": ("完成", FinishMeaning.UNKNOWN),
    "a number as text": ("42", FinishMeaning.UNKNOWN),
    "a pause": ("pauseTurn", FinishMeaning.PAUSE),
    # words that gateways make up
    "a filter's own": ("output_content_filtered", FinishMeaning.FILTER),
    "blocked by": ("blockedBySafetyFilter", FinishMeaning.FILTER),
    "moderation failed": ("content_moderation_failed", FinishMeaning.FILTER),
    "the prompt": ("PROMPT_BLOCKED", FinishMeaning.FILTER),
    "guardrail": ("aws-guardrail-action", FinishMeaning.FILTER),
    "limit first": ("reached_max_tokens", FinishMeaning.LENGTH),
    "limit last": ("TokenBudgetExceeded", FinishMeaning.LENGTH),
    "context": ("max-context-length", FinishMeaning.LENGTH),
    "time": ("max_time", FinishMeaning.LENGTH),
    "loop": ("loop_detected", FinishMeaning.LENGTH),
    "rate of tokens": ("tokens_rate_limit", FinishMeaning.ERROR),
    "any error": ("BackendError", FinishMeaning.ERROR),
    "no error": ("no_error", FinishMeaning.UNKNOWN),
    "by the user": ("user_abort", FinishMeaning.ERROR),
    "gateway": ("gateway-timeout", FinishMeaning.ERROR),
    "memory": ("cuda_out_of_memory", FinishMeaning.ERROR),
    "llama.cpp": ("stopped_eos", FinishMeaning.COMPLETE),
}


@pytest.mark.parametrize(("word", "kind"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_spelling_is_not_part_of_the_word(word: str, kind: FinishMeaning) -> None:
    assert finish_reason_of(choices(word), None) == FinishReason(kind, finish_word(word))


def finish_word(word: str) -> str:
    return word.lower().removeprefix("finishreason.").removeprefix("finish_reason_")


def pascal(word: str) -> str:
    return "".join(part.capitalize() for part in re.split(r"[._]", word))


SPELL: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "kebab": lambda word: word.replace("_", "-"),
    "spaced": lambda word: word.replace("_", " ").title(),
    "pascal": pascal,
    "camel": lambda word: word[0] + pascal(word)[1:],
    "joined": lambda word: re.sub(r"[._]", "", word),
    "enum": lambda word: f"FinishReason.{word.upper()}",
    "long enum": lambda word: f"STOP_REASON_{word.upper()}",
    "labelled": lambda word: f"stop_reason: {word}",
    "padded": lambda word: f"  {word}\n",
}


@pytest.mark.parametrize("spell", SPELL.values(), ids=SPELL)
def test_every_word_in_every_spelling(spell: Callable[[str], str]) -> None:
    for kind, words in WORDS.items():
        for word in words.split():
            reason = finish_reason_of(choices(spell(word)), None)
            assert reason is not None, spell(word)
            assert reason.kind is kind, spell(word)


@pytest.mark.parametrize("word", ["", " ", "null", "NULL", "None", "not_finished", "FINISH_REASON_UNSPECIFIED", "-"])
def test_a_word_that_says_nothing_yet(word: str) -> None:
    assert finish_reason_of(choices(word), None) is None


@given(word=st.text("qxjzQ-_ é字", min_size=1, max_size=30), known=st.sampled_from(["stop", "end_turn", "tool_calls"]))
def test_a_word_that_is_not_listed_is_never_complete(word: str, known: str) -> None:
    assume(any(map(str.isalpha, word)))
    for reason in (word, f"{word}: {known}", f"{known}/{word}", f"FinishReason.{word}"):
        assert meaning_of(reason).kind is FinishMeaning.UNKNOWN


USAGES: dict[str, tuple[Any, dict[str, int] | None]] = {
    "nothing": (None, None),
    "openai without": (chunk("stop"), None),
    "openai": (
        ChatCompletionChunk.construct(
            choices=[], usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        ),
        {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    ),
    "responses": (
        Object(type="response.completed", response=Object(usage=Object(input_tokens=1, output_tokens=2))),
        {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    ),
    "anthropic start": (
        {"type": "message_start", "message": Object(usage=Object(input_tokens=7))},
        {"prompt_tokens": 7},
    ),
    "anthropic delta": ({"usage": Object(output_tokens=2)}, {"completion_tokens": 2}),
    "ollama": (
        {"done": True, "prompt_eval_count": 4, "eval_count": 5},
        {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9},
    ),
    "gemini": (
        {
            "usage_metadata": {
                "prompt_token_count": 1,
                "candidates_token_count": 2,
                "thoughts_token_count": 4,
                "total_token_count": 7,
            }
        },
        {"prompt_tokens": 1, "completion_tokens": 6, "total_tokens": 7},
    ),
    "bedrock": (
        {"metadata": {"usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}}},
        {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    ),
    "mistral": (
        MistralEvent(data=MistralChunk(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 2})),
        {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    ),
    "cohere": (
        {"response": Object(meta=Object(tokens={"input_tokens": 1.0, "output_tokens": 2.0}))},
        {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    ),
    "watsonx text": (
        {"results": [{"input_token_count": 1, "generated_token_count": 2}]},
        {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    ),
    "nonsense": ({"usage": {"prompt_tokens": True, "completion_tokens": -1, "total_tokens": "3"}}, None),
    "not a number": ({"usage": {"prompt_tokens": float("nan"), "completion_tokens": 10**400}}, None),
}


@pytest.mark.parametrize(("raw", "counts"), USAGES.values(), ids=USAGES.keys())
def test_usage_of(raw: Any, counts: dict[str, int] | None) -> None:
    assert usage_of(raw) == counts


class ToolCallBlock(BaseModel):
    tool_name: str
    tool_kwargs: dict[str, Any] | str


@pytest.mark.parametrize(
    ("extra", "blocks"),
    [(None, None), ({}, []), ({"tool_calls": []}, [Object(text="x")]), ({"tool_calls": None}, ())],
)
def test_chunks_without_a_tool_call(extra: Any, blocks: Any) -> None:
    assert open_tool_call(extra, blocks) is None


def test_the_fingerprint_follows_a_call_that_grows_in_place() -> None:
    function = Object(name="add", arguments="")
    extra = {"tool_calls": [Object(id="1", function=function)]}
    prints = [open_tool_call(extra, [])]
    for more in ('{"a":', " 1}"):
        function.arguments += more
        prints.append(open_tool_call(extra, []))
    extra["tool_calls"].append(Object(id="2", function=Object(name="sub", arguments="")))
    prints.append(open_tool_call(extra, []))
    assert len(set(prints)) == 4
    assert open_tool_call(extra, []) == prints[-1]


TOOL_CALLS: dict[str, tuple[Any, Any]] = {
    "dictionaries": ({"tool_calls": [{"function": {"name": "add", "arguments": "{}"}}]}, []),
    "function_call": ({"function_call": {"name": "add", "arguments": "{}"}}, []),
    "anthropic": ({"tool_calls": [{"id": "1", "name": "add", "input": {"a": 1}}]}, []),
    "block, text": ({}, [ToolCallBlock(tool_name="add", tool_kwargs='{"a"')]),
    "block, dictionary": ({}, [ToolCallBlock(tool_name="add", tool_kwargs={"a": 1})]),
    "unreadable": ({"tool_calls": 3}, []),
}


@pytest.mark.parametrize(("extra", "blocks"), TOOL_CALLS.values(), ids=TOOL_CALLS.keys())
def test_a_tool_call_is_seen(extra: Any, blocks: Any) -> None:
    assert open_tool_call(extra, blocks)


class Hostile:
    """Whatever it is asked, it raises or answers with nonsense."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("choices", "usage", "get"):
            raise RuntimeError(name)
        return self

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    __hash__ = None  # type: ignore[assignment]


class HostileKeys(dict[str, Any]):
    def get(self, *_: Any) -> Any:
        raise RuntimeError("get")


ALL_WORDS = [word for words in WORDS.values() for word in words.split()]
PLACES = """
    type event_type choices data output messageStop metadata done done_reason finish_reason candidates results
    details stop_reason status error delta response incomplete_details reason usage message eval_count
    tool_calls function_call function name arguments prompt_tokens"""
NAMES = st.sampled_from(PLACES.split())
ANY_WORD = st.sampled_from([*ALL_WORDS, "response.incomplete", "message_delta", "stream-end", "incomplete"])
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3), ANY_WORD,
    st.builds(Hostile), st.builds(HostileKeys), st.just(10**400), st.just(FinishMeaning.ERROR), st.just(FinishMeaning),
)  # fmt: skip
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES, inner, max_size=4)
        | st.dictionaries(NAMES, inner, max_size=4).map(lambda fields: Object(**fields))
        | st.dictionaries(NAMES, inner, max_size=4).map(lambda fields: DictAndObject(**fields))
    ),
    max_leaves=12,
)


@given(raw=ANYTHING, extra=ANYTHING)
def test_never_raises(raw: Any, extra: Any) -> None:
    signal = finish_reason_of(raw, extra)
    assert signal is None or (signal.word and signal.kind in FinishMeaning)
    counts = usage_of(raw)
    assert counts is None or all(type(count) is int and count >= 0 for count in counts.values())
    assert isinstance(open_tool_call(extra, raw), str | None)


@given(word=ANY_WORD)
def test_attribute_or_key(word: str) -> None:
    by_key, by_attribute = choices(word), Object(choices=[Object(finish_reason=word)])
    assert finish_reason_of(by_key, None) == finish_reason_of(by_attribute, None)
