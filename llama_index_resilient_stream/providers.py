"""What each wrapped LLM class can do, and how it tells that it is done. Data, not code: to add one, add a
row.

A row holds for the class of that name and for its subclasses, until one of these has a row of its own.
Classes go by name because none of their packages has to be installed.

No row makes "prefill" a default. Where it needs nothing but a last assistant turn it depends on the model
behind the class (Claude answers 400 to it since 4.6, Ollama on the template), and a server that does not know
it starts a second answer inside the first without a word of warning. "ask" works everywhere. For completion
models "append" takes its place, by `metadata.is_chat_model` rather than by class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from .report import Strategy

Prefill = Literal["trailing", "flags", "marked", "unsupported", "unknown"]
"""What a model needs to write on from a last assistant turn.

    trailing       the turn alone (if the model behind the class can do it at all)
    flags          keyword arguments for the call: `Provider.prefill_extra`
    marked         a key inside the message itself, which LlamaIndex does not pass on
    unsupported    it is refused, dropped, sent as a user's turn, or answered by a new turn
"""


@dataclass(frozen=True, slots=True)
class Provider:
    """What is known of one LLM class."""

    sends_finish_reason: bool | None = None
    """Whether its streams end with a finish signal.

    True: always, so that an end without one is a truncation. False: never, or not on every chunk that has
    one, so that its absence proves nothing, not even after this instance has told before. None: nobody knows;
    an instance that has told once is taken to tell always.
    """
    untrusted_finish_reasons: frozenset[str] = frozenset()
    """Finish words that prove nothing."""
    strategy: Strategy = Strategy.ASK
    """How it is asked to go on where the user says "auto"."""
    prefill: Prefill = "unknown"
    prefill_extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Keyword arguments that go with a prefill, where the user asks for one."""


_TELLS = Provider(sends_finish_reason=True, prefill="unsupported")
_SWALLOWS = Provider(sends_finish_reason=False, prefill="unsupported")
_VLLM_FLAGS = MappingProxyType(
    {"extra_body": {"continue_final_message": True, "add_generation_prompt": False}},
)

PROVIDERS: dict[str, Provider] = {
    # OpenAI's protocol. The finish reason is on the last chunk with a choice, a usage chunk may follow it.
    "OpenAI": _TELLS,  # accepts a last assistant turn, and answers it with a new one
    "OpenAIResponses": _TELLS,  # response.completed, .incomplete, .failed
    # Any server: vLLM, SGLang, TGI, llama.cpp. vLLM closes a last assistant turn unless it gets the flags.
    "OpenAILike": Provider(sends_finish_reason=True, prefill="flags", prefill_extra=_VLLM_FLAGS),
    "Baseten": Provider(prefill="unknown"),  # was seen to end complete answers without a reason
    "DeepSeek": Provider(
        sends_finish_reason=True, prefill="marked"
    ),  # "prefix": true, and only under its /beta address
    "Groq": Provider(sends_finish_reason=True, prefill="trailing"),  # documented; not for its reasoning models
    "OpenRouter": Provider(sends_finish_reason=True, prefill="trailing"),  # as the routed provider does it
    "TogetherLLM": _TELLS,  # these four: undocumented; a vLLM behind them would close the turn
    "Fireworks": _TELLS,
    "NVIDIA": _TELLS,
    "Databricks": _TELLS,
    # Protocols of their own that tell
    "Anthropic": Provider(sends_finish_reason=True, prefill="trailing"),  # up to Claude 4.5, without thinking; then 400
    "BedrockConverse": Provider(
        sends_finish_reason=True, prefill="trailing"
    ),  # by its usage event, which has no reason
    "Ollama": Provider(sends_finish_reason=True, prefill="trailing"),  # where the model's template leaves the turn open
    "LMStudio": Provider(sends_finish_reason=True, prefill="trailing"),  # passed on as it is; the template decides
    "LlamaCPP": _TELLS,  # in process: the chat template closes the turn
    "MistralAI": Provider(sends_finish_reason=True, prefill="marked"),  # the class always sends "prefix": false
    "DashScope": Provider(sends_finish_reason=True, prefill="marked"),  # "partial": true, which the class leaves away
    "Cohere": _TELLS,  # the last message becomes the user's
    "WatsonxLLM": _TELLS,
    # Classes that swallow the signal: on chunks without text, or in their asynchronous half, or always
    "GoogleGenAI": _SWALLOWS,  # chunks without parts; a last assistant turn is sent as the user's
    "Gemini": _SWALLOWS,
    "Vertex": _SWALLOWS,
    "HuggingFaceInferenceAPI": Provider(sends_finish_reason=False, prefill="flags", prefill_extra=_VLLM_FLAGS),
    "Perplexity": _SWALLOWS,  # chunks with an empty delta
    "AzureAICompletionsModel": Provider(sends_finish_reason=False, prefill="trailing"),  # chunks without content
    "ZhipuAI": _SWALLOWS,
    "AI21": _SWALLOWS,
    "DeepInfraLLM": _SWALLOWS,
    # No raw chunk at all: these yield text and nothing else
    "HuggingFaceLLM": _SWALLOWS,
    "Vllm": _SWALLOWS,
    "VllmServer": _SWALLOWS,
    "SGLang": _SWALLOWS,
    "Xinference": _SWALLOWS,
    "MockLLM": _SWALLOWS,
    # LiteLLM says "stop" when a stream breaks off, and for every word it does not know. Its exceptions and
    # its other words can be trusted.
    "LiteLLM": Provider(sends_finish_reason=False, untrusted_finish_reasons=frozenset({"stop"}), prefill="trailing"),
    # Read in part only
    "SiliconFlow": Provider(),
    "Portkey": Provider(),
    "OCIGenAI": Provider(),  # yields errors as text
    "SambaNovaCloud": Provider(),
    "Bedrock": Provider(),
    # Ours, for tests and demonstrations
    "ScriptedLLM": Provider(sends_finish_reason=True, prefill="trailing"),
}

UNKNOWN = Provider()


def provider_of(llm_class: type) -> Provider:
    """The row of the class, or of the nearest of its bases that has one."""
    overrides = False
    for cls in llm_class.__mro__:
        if (row := PROVIDERS.get(cls.__name__)) is not None:
            # What a base class swallows, a subclass with streams of its own may well pass on.
            return replace(row, sends_finish_reason=None) if overrides and row.sends_finish_reason is False else row
        overrides = overrides or any(name in vars(cls) for name in _STREAMS)
    return UNKNOWN


_STREAMS = ("stream_chat", "astream_chat", "stream_complete", "astream_complete")


REASONING_MODELS: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?<![a-z0-9])o[1-9](?![a-z0-9])",  # OpenAI o1, o3, o4-mini
        r"gpt-([5-9]|\d\d)(?!.*chat)|gpt-oss|codex|deep-research",
        r"deepseek-reasoner|(?<![a-z])r1(?![0-9])",  # DeepSeek R1 and what was distilled from it
        r"\bqwq|\bqvq|qwen-?3(?!.*(instruct|coder|embed))",
        r"(?<!non-)(thinking|reasoning|reasoner)",  # Kimi, Grok, Phi, Sonar and others say it in the name
        r"magistral",
        r"gemini-(2\.5-(pro|flash(?!-lite))|[3-9]|pro-latest)",
        r"grok-3-mini|grok-([4-9])(?!.*non-reasoning)",
        r"glm-(4\.[5-9]|[5-9]|z1)|minimax-m\d",
    )
)
"""Names of models that think before they speak without being asked to."""

REASONING_SETTINGS: frozenset[str] = frozenset(
    {
        "reasoning_effort",  # OpenAI and many after it
        "reasoning",  # OpenRouter
        "reasoning_options",  # LlamaIndex's OpenAIResponses
        "thinking",  # Anthropic, Ollama
        "thinking_dict",  # LlamaIndex's Anthropic and BedrockConverse
        "thinking_config",  # Gemini
        "thinking_budget",
        "enable_thinking",  # Qwen
        "think",
    }
)
"""Settings of an LLM or of a call that make a model think."""

_NESTED = ("additional_kwargs", "extra_body", "chat_template_kwargs", "generation_config", "model_kwargs")
_OFF = ("none", "off", "disabled", "false")


def reasons(model_name: str, settings: Mapping[str, Any]) -> bool:
    """Whether this model thinks before it speaks, so that its first token may be long in coming.

    `settings` are the fields of the LLM and the keyword arguments of the call. A wrong yes costs patience
    with a dead stream, a wrong no cuts a healthy one off: when in doubt it is yes.
    """
    if any(pattern.search(model_name) for pattern in REASONING_MODELS):
        return True
    return _asks_to_think(settings, depth=3)


def _asks_to_think(settings: Mapping[str, Any], depth: int) -> bool:
    if any(_is_on(settings.get(name)) for name in REASONING_SETTINGS):
        return True
    nested = (settings.get(name) for name in _NESTED) if depth else ()
    return any(_asks_to_think(inside, depth - 1) for inside in nested if isinstance(inside, Mapping))


def _is_on(value: Any) -> bool:
    """True, "high", 1024, {"type": "enabled"} are on; "none", 0, {"type": "disabled"} are not."""
    if isinstance(value, str):
        return bool(value) and value.lower() not in _OFF
    if isinstance(value, Mapping):
        return bool(value) and all(_is_on(item) for item in value.values() if item is not None)
    return value is not None and value is not False and value != 0
