"""The table of LLM classes, and which models think before they speak."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.llms import MockLLM
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike

from llama_index_resilient_stream import ConfigurationError, providers
from llama_index_resilient_stream.llm.question import Question
from llama_index_resilient_stream.providers import (
    NESTING_SETTINGS,
    PROVIDERS,
    Provider,
    provider_of,
    reasons,
    register_provider,
)
from llama_index_resilient_stream.recovery.continuation import STRATEGIES
from llama_index_resilient_stream.report import Strategy


def named(name: str, *bases: type) -> type:
    return type(name, bases, {})


TELLS = """
    OpenAI OpenAIResponses OpenAILike Anthropic BedrockConverse Ollama LMStudio LlamaCPP MistralAI DashScope
    Cohere WatsonxLLM DeepSeek Groq OpenRouter TogetherLLM Fireworks NVIDIA Databricks
    HuggingFaceInferenceAPI"""
SWALLOWS = """
    GoogleGenAI Gemini Vertex Perplexity AzureAICompletionsModel ZhipuAI AI21
    DeepInfraLLM HuggingFaceLLM Vllm VllmServer SGLang Xinference LiteLLM"""
NOBODY_KNOWS = "Baseten SiliconFlow Portkey OCIGenAI SambaNovaCloud Bedrock SomethingNew"

ROWS = [(name, True) for name in TELLS.split()]
ROWS += [(name, False) for name in SWALLOWS.split()]
ROWS += [(name, None) for name in NOBODY_KNOWS.split()]


@pytest.mark.parametrize(("name", "sends_finish_reason"), ROWS)
def test_tells(name: str, sends_finish_reason: bool | None) -> None:
    assert provider_of(named(name)).sends_finish_reason is sends_finish_reason


@pytest.mark.parametrize(
    ("llm_class", "row"),
    [
        (OpenAI, "OpenAI"),
        (OpenAIResponses, "OpenAIResponses"),
        (OpenAILike, "OpenAILike"),
        (MockLLM, "MockLLM"),
        (named("Cerebras", OpenAILike), "OpenAILike"),
        (named("AzureOpenAI", OpenAI), "OpenAI"),
        (named("Groq", OpenAILike), "Groq"),
        (named("MyGroq", named("Groq", OpenAILike)), "Groq"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_nearest_base_with_a_row(llm_class: type, row: str) -> None:
    assert provider_of(llm_class) is PROVIDERS[row]


@pytest.mark.parametrize(
    ("version", "tells"), [(None, False), ((1, 109, 4), False), ((1, 110, 0), True), ((2, 0), True)]
)
def test_a_row_that_holds_from_a_version_on(
    version: tuple[int, ...] | None, tells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "version_of", lambda _package: version)
    row = provider_of(named("LiteLLM"))
    assert row.sends_finish_reason is tells
    assert ("stop" in row.untrusted_finish_reasons) is not tells


@pytest.mark.parametrize(
    ("name", "attribute", "in_thread"),
    [
        ("Cohere", None, True),
        ("Perplexity", None, True),
        ("HuggingFaceInferenceAPI", None, True),
        ("BedrockConverse", {"_asession": None}, True),
        ("BedrockConverse", {"_asession": object()}, False),
        ("OpenAI", None, False),
    ],
)
def test_asynchronous_halves_that_are_read_in_a_thread(
    name: str, attribute: dict[str, Any] | None, in_thread: bool
) -> None:
    llm = named(name)()
    vars(llm).update(attribute or {})
    assert provider_of(type(llm)).reads_in_thread(llm) is in_thread


def test_a_subclass_with_asynchronous_streams_of_its_own_is_read_as_it_is() -> None:
    mended = type("Mended", (named("Cohere"),), {"astream_chat": lambda self: None})
    assert not provider_of(mended).reads_in_thread(mended())


def test_a_class_that_nobody_knows() -> None:
    assert provider_of(named("SomethingNew")) == Provider()


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_row_is_consistent(name: str) -> None:
    row = PROVIDERS[name]
    assert row.strategy in STRATEGIES
    assert bool(row.prefill_extra) == (row.prefill == "flags")
    if row.strategy == "prefill":
        assert row.prefill == "trailing"


THINKS = """
    o1 o1-preview o3-mini openai/o4-mini azure/o3 gpt-5 gpt-5-mini gpt-5.1 gpt-oss-120b o3-deep-research
    codex-mini-latest deepseek-reasoner deepseek-r1:7b deepseek-ai/DeepSeek-R1-Distill-Llama-70B r1-1776
    qwq-32b Qwen/QwQ-32B qwen3:8b Qwen/Qwen3-235B-A22B kimi-k2-thinking magistral-small-2507
    gemini-2.5-pro models/gemini-2.5-flash gemini-3-pro-preview gemini-2.0-flash-thinking-exp grok-4
    grok-3-mini grok-4-fast-reasoning glm-4.6 sonar-reasoning-pro phi-4-mini-reasoning MiniMax-M2"""
SPEAKS = """
    gpt-4o gpt-4o-mini gpt-4.1 gpt-3.5-turbo gpt-5-chat-latest claude-sonnet-4-5 claude-3-5-haiku-latest
    gemini-2.0-flash gemini-2.5-flash-lite llama-3.3-70b-versatile deepseek-chat mistral-large-latest
    qwen2.5:7b qwen3-coder-30b Qwen/Qwen3-30B-A3B-Instruct-2507 grok-3 grok-4-fast-non-reasoning glm-4-9b
    command-r-plus phi-4 nova-pro gemma-3-27b-it"""


@pytest.mark.parametrize("model", THINKS.split())
def test_model_names_that_think(model: str) -> None:
    assert reasons(model, {})


@pytest.mark.parametrize("model", SPEAKS.split())
def test_speaks_at_once(model: str) -> None:
    assert not reasons(model, {"reasoning_effort": None, "temperature": 0.1, "additional_kwargs": {}})


SETTINGS: dict[str, tuple[dict[str, Any], bool]] = {
    "effort": ({"reasoning_effort": "low"}, True),
    "no effort": ({"reasoning_effort": "none"}, False),
    "anthropic": ({"thinking_dict": {"type": "enabled", "budget_tokens": 1024}}, True),
    "anthropic adaptive": ({"thinking": {"type": "adaptive"}}, True),
    "anthropic disabled": ({"thinking": {"type": "disabled"}}, False),
    "ollama": ({"thinking": True}, True),
    "ollama off": ({"thinking": False}, False),
    "gemini": ({"generation_config": {"thinking_config": {"thinking_budget": 512}}}, True),
    "gemini budget 0": ({"generation_config": {"thinking_config": {"thinking_budget": 0}}}, False),
    "qwen": (
        {"additional_kwargs": {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}},
        True,
    ),
    "responses": ({"reasoning_options": {"effort": "high"}}, True),
    "empty": ({"reasoning_options": {}, "thinking_dict": None}, False),
    "odd": ({"additional_kwargs": 3, "extra_body": None}, False),
}


@pytest.mark.parametrize(("settings", "thinks"), SETTINGS.values(), ids=SETTINGS.keys())
def test_settings_that_make_a_model_think(settings: dict[str, Any], thinks: bool) -> None:
    assert reasons("claude-sonnet-4-5", settings) is thinks


def test_settings_that_contain_themselves() -> None:
    settings: dict[str, Any] = {}
    settings["extra_body"] = settings
    assert not reasons("gpt-4o", settings)


# What users know


@pytest.mark.parametrize("by", ["class", "name"])
def test_a_registered_provider_holds_for_the_class_and_its_subclasses(by: str) -> None:
    mine = named(f"MyGateway{by.title()}", OpenAILike)
    provider = Provider(sends_finish_reason=False, strategy="restart")
    register_provider(mine if by == "class" else mine.__name__, provider)
    assert provider_of(mine) is provider_of(named("Sub", mine)) is provider
    assert provider_of(OpenAILike) is PROVIDERS["OpenAILike"]
    assert mine.__name__ not in PROVIDERS
    assert provider.strategy is Strategy.RESTART


def test_a_registered_class_is_not_another_one_of_its_name() -> None:
    mine, other = named("Twin", OpenAI), named("Twin", OpenAI)
    register_provider(mine, Provider(sends_finish_reason=None))
    assert provider_of(mine).sends_finish_reason is None
    assert provider_of(other) is PROVIDERS["OpenAI"]


def test_what_is_registered_last_counts() -> None:
    mine = named("Twice", OpenAI)
    for word in (True, False):
        register_provider(mine, Provider(sends_finish_reason=word))
    assert provider_of(mine).sends_finish_reason is False


@pytest.mark.parametrize(
    "wrong",
    [
        (3, Provider()),
        (None, Provider()),
        ("", Provider()),
        ("my gateway", Provider()),
        (MockLLM(), Provider()),
        (MockLLM, Provider),
        (MockLLM, {"sends_finish_reason": True}),
        (MockLLM, None),
    ],
    ids=["number", "none", "empty", "no-name", "instance", "provider-class", "dict", "nothing"],
)
def test_what_cannot_be_registered(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Write register_provider\(MyLLM, Provider\("):
        register_provider(*wrong)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("sends_finish_reason", "always", "True, False, None"),
        ("strategy", "beg", "'ask', 'prefill', 'append', 'restart'"),
        ("prefill", "always", "'trailing', 'flags'"),
        ("prefill_keeps_space", "no", "True, False"),
        ("untrusted_finish_reasons", "stop", "frozenset"),
        ("untrusted_finish_reasons", {3}, "frozenset"),
        ("prefill_extra", "flags", "extra_body"),
    ],
)
def test_a_provider_that_cannot_work_is_refused(field: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"Provider\.{field} is .*{says}"):
        Provider(**{field: value})


def test_untrusted_finish_reasons_may_be_any_set_of_words() -> None:
    assert Provider(untrusted_finish_reasons=["stop"]).untrusted_finish_reasons == {"stop"}  # type: ignore[arg-type]


@pytest.mark.parametrize("within", NESTING_SETTINGS)
def test_every_place_where_settings_nest_is_looked_into(within: str) -> None:
    assert reasons("m", {within: {"thinking": {"type": "enabled"}}})
    assert Question(True, kwargs={within: {"format": {"type": "json_schema"}}}).structured
    assert reasons("m", {"extra_body": {within: {"enable_thinking": True}}})
    assert not reasons("m", {within: {"enable_thinking": False}})
    assert not Question(True, kwargs={within: {"top_k": 3}}).structured
