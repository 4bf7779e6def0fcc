"""What to set for a provider, each setting with its reason, and as a program to copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ...providers import SERVERS
from .profile import PrefillSupport, Profile, UsageSupport

LONG_FIRST_TOKEN_TIMEOUT = 300  # seconds
SLOW_FIRST_TOKEN = 20.0  # seconds; the default first_token_timeout is three times that
LONG_GAP = 30.0  # seconds between two tokens; the default idle_timeout is four times that


class SettingPlace(StrEnum):
    """Whose argument a setting is: the wrapped LLM's, the policy's, or ResilientLLM's."""

    LLM = "llm"
    POLICY = "policy"
    WRAPPER = "wrapper"


@dataclass(frozen=True)
class Setting:
    """One argument. `needed`: without it answers are lost or asked for twice; otherwise it is only better."""

    place: SettingPlace
    name: str
    value: str
    because: str
    needed: bool = False

    @property
    def code(self) -> str:
        return f"{self.name}={self.value}"


def advise(profile: Profile) -> list[Setting]:
    """Return the settings that should differ from the defaults."""
    return [*_completeness(profile), *_patience(profile), *_counting(profile), *_going_on(profile)]


def _completeness(p: Profile) -> Iterator[Setting]:
    reason = "connections are pooled and kept alive, and a stall before the first token leaves no thread"
    needed = p.sends_finish_reason is False and p.sends_done is True
    if needed:
        reason = (
            "there are no finish reasons, and [DONE] comes: these clients see it, and distinguish an end from a cut. "
            "Without them, give the LLM's class `sends_finish_reason = False` for the honest status `unknown`"
        )
    yield Setting(SettingPlace.LLM, "http_client", "http_client()", reason, needed)
    yield Setting(
        SettingPlace.LLM, "async_http_client", "async_http_client()", "the same for asynchronous streams", needed
    )
    if p.always_sends_finish_reason:
        yield Setting(
            SettingPlace.POLICY,
            "completeness",
            '"strict"',
            "it always sends a finish reason: an end without one is a cut",
        )
    elif p.sends_finish_reason is False and p.sends_done is False:
        what = "neither finish reasons nor [DONE] came: nothing marks the end, and the status is `unknown`"
        yield Setting(SettingPlace.POLICY, "completeness", '"lenient"', what, needed=True)


def _patience(p: Profile) -> Iterator[Setting]:
    first = p.first_token or 0.0
    because = ""
    if p.held_back:
        because = "something holds answers back until they are whole: the first token waits for the last"
    elif p.thinks:
        because = "it thinks before it speaks"
    elif first > SLOW_FIRST_TOKEN:
        because = f"the first token took {first:.0f} s"
    if because:
        needed = bool(p.held_back) or first > SLOW_FIRST_TOKEN
        yield Setting(SettingPlace.POLICY, "first_token_timeout", str(LONG_FIRST_TOKEN_TIMEOUT), because, needed)
        yield Setting(
            SettingPlace.LLM,
            "timeout",
            str(LONG_FIRST_TOKEN_TIMEOUT),
            "else LlamaIndex's own 60 s end that wait first",
            needed,
        )
    if (gap := p.longest_gap or 0.0) > LONG_GAP:
        because = f"{gap:.0f} s passed between two tokens"
        yield Setting(SettingPlace.POLICY, "idle_timeout", str(round(gap * 8)), because, needed=True)


def _counting(p: Profile) -> Iterator[Setting]:
    if p.usage is UsageSupport.SENT:
        value = '{"stream_options": {"include_usage": True}}'
        yield Setting(SettingPlace.LLM, "additional_kwargs", value, "token counts came: `report.usage` is no estimate")


def _going_on(p: Profile) -> Iterator[Setting]:
    if p.server in SERVERS:  # "auto" knows what it wants, and may know a better way than a prefill
        return
    if p.prefill is PrefillSupport.FLAGS:
        because = "it writes on from a last assistant turn, with the flags that OpenAILike is known to need"
        yield Setting(SettingPlace.WRAPPER, "continuation", '"prefill"', because)
    elif p.prefill is PrefillSupport.PLAIN:
        value = 'Continuation("prefill", extra={"extra_body": {}})'
        yield Setting(
            SettingPlace.WRAPPER, "continuation", value, "it writes on from a last assistant turn, without flags"
        )


def program(settings: list[Setting], *, base_url: str, model: str, api_key: str, tools: bool) -> str:
    """Return the settings as code. `api_key` is an expression, never the key."""
    llm = [f"model={_quoted(model)}", f"api_base={_quoted(base_url)}", f"api_key={api_key}", "is_chat_model=True"]
    llm += ["is_function_calling_model=True"] if tools else []
    llm += ["max_retries=0", *_codes(settings, SettingPlace.LLM)]
    policy, wrapper = _codes(settings, SettingPlace.POLICY), _codes(settings, SettingPlace.WRAPPER)
    names = ["ResilientLLM", *(["RecoveryPolicy"] if policy else [])]
    names += ["Continuation"] if any("Continuation(" in code for code in wrapper) else []
    imports = [
        *(["import os", ""] if "os." in api_key else []),
        "from llama_index.llms.openai_like import OpenAILike",
        f"from llama_index_resilient_stream import {', '.join(sorted(names))}",
        "from llama_index_resilient_stream.http import async_http_client, http_client",
    ]
    lines = ["llm = ResilientLLM(", "    OpenAILike(", *(f"        {code}," for code in llm), "    ),"]
    lines += [f"    policy=RecoveryPolicy({', '.join(policy)}),"] if policy else []
    lines += [f"    {code}," for code in wrapper]
    return "\n".join([*imports, "", *lines, ")"])


def _codes(settings: list[Setting], place: SettingPlace) -> list[str]:
    return [setting.code for setting in settings if setting.place == place]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
