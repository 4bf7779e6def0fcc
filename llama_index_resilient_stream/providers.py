"""What each wrapped LLM class can do, and how it tells that it is done. Data, not code.

A row holds for the class of that name and for its subclasses, until one of these has a row of its own.
Classes go by name because none of their packages has to be installed. For a class that is not here:

    register_provider(MyLLM, Provider(sends_finish_reason=True))                    # for the process
    ResilientLLM(MyLLM(), provider=Provider(sends_finish_reason=True))              # for one instance

No row makes "prefill" a default: what a class can do depends on the server and the model behind it (Claude answers 400
to it since 4.6). Servers that say in their streams who they are have a table of their own, `SERVERS`: where one of them
writes on from a last assistant turn, that is tried first. "ask" works everywhere. For completion models "append" takes
its place, by `metadata.is_chat_model` rather than by class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from .compat.versions import version_of
from .errors import ConfigurationError
from .recovery.attributes import first_of, read
from .recovery.continuation import STRATEGIES, StrategyName
from .recovery.events import Prefilling
from .report import Strategy

__all__ = ["PROVIDERS", "Prefill", "Provider", "provider_of", "register_provider"]

Prefill = Literal["trailing", "flags", "marked", "unsupported", "unknown"]
"""What a model needs to write on from a last assistant turn.

    trailing       the turn alone (if the model behind the class can do it at all)
    flags          keyword arguments for the call: `Provider.prefill_extra`
    marked         a key inside the message itself, `Provider.prefill_mark`, which `llm/prefill.py` sees to
    unsupported    it is refused, dropped, sent as a user's turn, or answered by a new turn
"""


@dataclass(frozen=True, slots=True)
class Provider:
    """What is known of one LLM class.

        Provider(sends_finish_reason=True, strategy="prefill", prefill="trailing")

    Raises:
        ConfigurationError: A field has a value that cannot work.
    """

    sends_finish_reason: bool | None = None
    """Whether its streams end with a finish reason.

    True: always, so that an end without one is a truncation. False: never, or not on every chunk that has
    one, so that its absence proves nothing, not even after this instance has sent one before. None: nobody knows;
    an instance that has sent one once is taken to send one always.
    """
    untrusted_finish_reasons: frozenset[str] = frozenset()
    """Finish reasons that prove nothing."""
    strategy: Strategy | StrategyName = Strategy.ASK
    """How it is asked to go on where the user says "auto"."""
    prefill: Prefill = "unknown"
    prefill_extra: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments that go with a prefill, where the user asks for one."""
    prefill_mark: str = ""
    """The key that the last message wants where `prefill` is "marked": DeepSeek's and Mistral's "prefix"."""
    prefill_keeps_space: bool = True
    """Whether a prefill may end in white space. Claude's API answers 400 to one that does."""
    output_limits: tuple[str, ...] = ()
    """Settings of the class that limit its output, or mappings with such a setting, beside `max_tokens` and its kin."""
    mends_content: bool = False
    """Whether the message of its last chunk may not hold the whole text, once, and is rebuilt where it does not."""
    async_through_sync: bool | str = False
    """Whether its asynchronous streams do not work, so that the synchronous ones are read in a thread instead.

    The name of an attribute: where that is None, as without the package that brings them.
    """

    def reads_in_thread(self, llm: object) -> bool:
        """Whether the asynchronous streams of this LLM are its synchronous ones, read in a thread."""
        if isinstance(self.async_through_sync, str):
            return getattr(llm, self.async_through_sync, None) is None
        return self.async_through_sync

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                known = ", ".join(repr(each) if each in (True, False, None) else repr(str(each)) for each in choices)
                raise ConfigurationError(f"Provider.{name} is {value!r}. Use one of {known}.")
        object.__setattr__(self, "strategy", Strategy(self.strategy))
        words = self.untrusted_finish_reasons
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise ConfigurationError(
                f"Provider.untrusted_finish_reasons is {words!r}. Write untrusted_finish_reasons=frozenset({{'stop'}})."
            )
        object.__setattr__(self, "untrusted_finish_reasons", frozenset(words))
        if not isinstance(self.prefill_extra, Mapping):
            raise ConfigurationError(
                f"Provider.prefill_extra is {self.prefill_extra!r}. "
                f"Write prefill_extra={{'extra_body': {{'continue_final_message': True}}}}."
            )


_CHOICES: dict[str, tuple[Any, ...]] = {
    "sends_finish_reason": (True, False, None),
    "strategy": STRATEGIES,
    "prefill": get_args(Prefill),
    "prefill_keeps_space": (True, False),
}


_TELLS = Provider(sends_finish_reason=True, prefill="unsupported")
_SWALLOWS = Provider(sends_finish_reason=False, prefill="unsupported")
_VLLM_FLAGS = {"extra_body": {"continue_final_message": True, "add_generation_prompt": False}}

PROVIDERS: dict[str, Provider] = {
    # OpenAI's protocol. The finish reason is on the last chunk with a choice, a usage chunk may follow it.
    "OpenAI": _TELLS,  # accepts a last assistant turn, and answers it with a new one
    # response.completed, .incomplete, .failed
    "OpenAIResponses": Provider(sends_finish_reason=True, prefill="unsupported", mends_content=True),
    # Any server: vLLM, SGLang, TGI, llama.cpp. vLLM closes a last assistant turn unless it gets the flags.
    "OpenAILike": Provider(sends_finish_reason=True, prefill="flags", prefill_extra=_VLLM_FLAGS),
    "Baseten": Provider(prefill="unknown"),  # was seen to end complete answers without a reason
    "DeepSeek": Provider(sends_finish_reason=True, prefill="marked", prefill_mark="prefix"),  # under its /beta address
    "Groq": Provider(sends_finish_reason=True, prefill="trailing"),  # documented; not for its reasoning models
    "OpenRouter": Provider(sends_finish_reason=True, prefill="trailing"),  # as the routed provider does it
    "TogetherLLM": _TELLS,  # these four: undocumented; a vLLM behind them would close the turn
    "Fireworks": _TELLS,
    "NVIDIA": _TELLS,
    "Databricks": _TELLS,
    # Protocols of their own that tell
    # Prefills up to Claude 4.5, without thinking; then 400
    "Anthropic": Provider(sends_finish_reason=True, prefill="trailing", prefill_keeps_space=False),
    # By its usage event, which has no reason; that is seen below. Without aioboto3 its asynchronous half is a thread
    # that nobody can stop.
    "BedrockConverse": Provider(
        sends_finish_reason=True, prefill="trailing", prefill_keeps_space=False, async_through_sync="_asession"
    ),
    "Ollama": Provider(sends_finish_reason=True, prefill="trailing"),  # where the model's template leaves the turn open
    "LMStudio": Provider(sends_finish_reason=True, prefill="trailing"),  # passed on as it is; the template decides
    # In process: the chat template closes the turn
    "LlamaCPP": Provider(sends_finish_reason=True, prefill="unsupported", output_limits=("generate_kwargs",)),
    "MistralAI": Provider(sends_finish_reason=True, prefill="marked", prefill_mark="prefix", mends_content=True),
    "DashScope": _TELLS,  # wants "partial": true, which the class leaves away
    # The last message becomes the user's. The asynchronous half reads a synchronous generator with `async for`.
    "Cohere": Provider(sends_finish_reason=True, prefill="unsupported", async_through_sync=True),
    "WatsonxLLM": _TELLS,
    # Classes that swallow the signal: on chunks without text, or in their asynchronous half, or always
    # Chunks without parts; a last assistant turn is sent as the user's
    "GoogleGenAI": Provider(sends_finish_reason=False, prefill="unsupported", output_limits=("_generation_config",)),
    "Gemini": _SWALLOWS,
    "Vertex": _SWALLOWS,
    # The asynchronous half drops the reason, fails on tools, and closes its client when it is done.
    "HuggingFaceInferenceAPI": Provider(
        sends_finish_reason=True,
        prefill="flags",
        prefill_extra=_VLLM_FLAGS,
        output_limits=("num_output",),
        async_through_sync=True,
    ),
    # Chunks with an empty delta. The asynchronous half closes the connection before it reads.
    "Perplexity": Provider(sends_finish_reason=False, prefill="unsupported", async_through_sync=True),
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

SINCE: dict[str, tuple[str, tuple[int, ...], Provider]] = {
    # It raises where a stream ends without a reason, and says "stop" for nothing else any more.
    "LiteLLM": ("litellm", (1, 110), Provider(sends_finish_reason=True, prefill="trailing")),
}
"""Rows that replace those of `PROVIDERS` from a version of a package on: its name, and the first one."""

UNKNOWN = Provider()

SERVERS: dict[str, Prefilling] = {
    "llama.cpp": Prefilling(certain=True),  # by default; "--no-prefill-assistant" switches it off
    "vllm": Prefilling(_VLLM_FLAGS, certain=True),
    "lmstudio": Prefilling(),  # passed on as it is; the template decides
    "sglang": Prefilling({"extra_body": {"continue_final_message": True}}),
    "tgi": Prefilling({"extra_body": {"continue_final_message": True}}),
    "ollama": Prefilling(),  # where the model's template leaves the turn open
}
"""Servers that write on from a last assistant turn, and what they want with it."""

KEEPING_SERVERS = frozenset({"llama.cpp"})
"""Servers that keep a stream where the request asks for it, see `transport/kept_stream.py`."""

_OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llama.cpp",
    "library": "ollama",
    "organization_owner": "lmstudio",
}

_FINGERPRINTS = {
    "llama.cpp": re.compile(r"b\d+-"),  # b4719-0f2bbe65: the build and the commit
    "tgi": re.compile(r"\d+\.\d+\.\d+(-dev\d+)?-((sha-)?[0-9a-f]{7}|native)"),  # 3.0.1-sha-bb9095a: version and image
    "ollama": re.compile(r"fp_ollama$"),
}


def server_of(raw: Any) -> str | None:
    """Return which of `SERVERS` sent this chunk (the provider's own object), as far as it shows."""
    fingerprint = read(raw, "system_fingerprint")
    if isinstance(fingerprint, str):
        for server, pattern in _FINGERPRINTS.items():
            if pattern.match(fingerprint):
                return server
    choice = first_of(read(raw, "choices"))
    extra = choice if isinstance(choice, Mapping) else read(choice, "model_extra") or {}
    return "sglang" if "matched_stop" in extra else None


def server_owning(owner: str | None) -> str | None:
    """Return which of `SERVERS` writes this into `owned_by` of its models."""
    return _OWNERS.get(owner) if owner is not None else None


_registered: dict[type | str, Provider] = {}


def register_provider(llm_class: type | str, provider: Provider) -> None:
    """Say what an LLM class can do, in place of what the table says or does not say of it.

        register_provider(MyGateway, Provider(sends_finish_reason=True))
        register_provider("MyGateway", Provider(sends_finish_reason=True))    # without importing it

    It holds for the class and its subclasses, in this process, for calls that are made from now on. For one instance
    only: `ResilientLLM(llm, provider=Provider(...))`.

    Args:
        llm_class: The class, or its name.
        provider: What is known of it.

    Raises:
        ConfigurationError: One of the two is something else.
    """
    if not isinstance(llm_class, type) and not (isinstance(llm_class, str) and llm_class.isidentifier()):
        raise ConfigurationError(
            f"{llm_class!r} is neither an LLM class nor the name of one. "
            f"Write register_provider(MyLLM, Provider(sends_finish_reason=True))."
        )
    if not isinstance(provider, Provider):
        raise ConfigurationError(
            f"{provider!r} is no Provider. Write register_provider(MyLLM, Provider(sends_finish_reason=True))."
        )
    _registered[llm_class] = provider


def _row(llm_class: type) -> Provider | None:
    for known in (_registered.get(llm_class), _registered.get(llm_class.__name__)):
        if known is not None:
            return known
    name = llm_class.__name__
    if name in SINCE:
        package, first, row = SINCE[name]
        if (version := version_of(package)) is not None and version >= first:
            return row
    return PROVIDERS.get(name)


def provider_of(llm_class: type) -> Provider:
    """Find what is known of a class: what was registered, or its row, or that of the nearest of its bases.

    provider_of(type(llm)).sends_finish_reason
    """
    overrides = False
    for cls in llm_class.__mro__:
        if (row := _row(cls)) is not None:
            # What a base class swallows, a subclass with streams of its own may well pass on.
            if overrides:
                tells = None if row.sends_finish_reason is False else row.sends_finish_reason
                row = replace(row, sends_finish_reason=tells, async_through_sync=False)
            return row
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

NESTING_SETTINGS = (
    "additional_kwargs",
    "chat_template_kwargs",
    "extra_body",
    "generate_kwargs",
    "generation_config",
    "model_kwargs",
    "options",
    "text",
)
"""Settings of an LLM or of a call that hold settings themselves."""

_DEEPEST = 3  # mappings in mappings; nobody's API goes further


def all_settings(settings: Mapping[str, Any], depth: int = _DEEPEST) -> Iterator[Mapping[str, Any]]:
    """The settings, and every mapping of settings that hangs on them."""
    yield settings
    for name in NESTING_SETTINGS if depth else ():
        if isinstance(inside := settings.get(name), Mapping):
            yield from all_settings(inside, depth - 1)


_OFF = ("none", "off", "disabled", "false")


def reasons(model_name: str, settings: Mapping[str, Any]) -> bool:
    """Whether this model thinks before it speaks, so that its first token may be long in coming.

    `settings` are the fields of the LLM and the keyword arguments of the call. A wrong yes costs patience
    with a dead stream, a wrong no cuts a healthy one off: when in doubt it is yes.
    """
    if any(pattern.search(model_name) for pattern in REASONING_MODELS):
        return True
    return any(_is_on(source.get(name)) for source in all_settings(settings) for name in REASONING_SETTINGS)


def _is_on(value: Any) -> bool:
    """True, "high", 1024, {"type": "enabled"} are on; "none", 0, {"type": "disabled"} are not."""
    if isinstance(value, str):
        return bool(value) and value.lower() not in _OFF
    if isinstance(value, Mapping):
        return bool(value) and all(_is_on(item) for item in value.values() if item is not None)
    return value is not None and value is not False and value != 0
