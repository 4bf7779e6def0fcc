"""What to set for an endpoint, each setting with what it rests on, and as a program to copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .profile import Portrait

PATIENT = 300  # seconds for a first token that is worth waiting for
SLOW = 20.0  # seconds; the default first_token_timeout is three times that
WIDE = 30.0  # seconds between two tokens; the default idle_timeout is four times that


@dataclass(frozen=True)
class Setting:
    """One argument. `needed`: without it answers are lost, or asked for twice; else it is only better."""

    place: Literal["llm", "policy", "wrapper"]
    name: str
    value: str
    because: str
    needed: bool = False

    @property
    def code(self) -> str:
        return f"{self.name}={self.value}"


def advise(portrait: Portrait) -> list[Setting]:
    """The settings that differ from the defaults."""
    return [*_completeness(portrait), *_patience(portrait), *_counting(portrait), *_going_on(portrait)]


def _completeness(p: Portrait) -> Iterator[Setting]:
    witness = "connections are pooled and kept alive, and a stall before the first token leaves no thread"
    needed = p.sends_finish_reason is False and p.terminated is True
    if needed:
        witness = (
            "there are no finish reasons, and [DONE] comes: these clients see it, and tell an end from a cut. Without "
            "them, give the LLM's class `sends_finish_reason = False` for the honest status `unknown`"
        )
    yield Setting("llm", "http_client", "http_client()", witness, needed)
    yield Setting("llm", "async_http_client", "async_http_client()", "the same for asynchronous streams", needed)
    if p.tells_always:
        yield Setting("policy", "completeness", '"strict"', "it always says that it is done: an end without is a cut")
    elif p.sends_finish_reason is False and p.terminated is False:
        what = "neither finish reasons nor [DONE] came: nothing tells an end from a cut, and the status is `unknown`"
        yield Setting("policy", "completeness", '"lenient"', what, needed=True)


def _patience(p: Portrait) -> Iterator[Setting]:
    first = p.first_token or 0.0
    because = ""
    if p.at_once:
        because = "something holds answers back until they are whole: the first token waits for the last"
    elif p.thinks:
        because = "it thinks before it speaks"
    elif first > SLOW:
        because = f"the first token took {first:.0f} s"
    if because:
        needed = bool(p.at_once) or first > SLOW
        yield Setting("policy", "first_token_timeout", str(PATIENT), because, needed)
        yield Setting("llm", "timeout", str(PATIENT), "else LlamaIndex's own 60 s end that wait first", needed)
    if (gap := p.longest_gap or 0.0) > WIDE:
        because = f"{gap:.0f} s passed between two tokens"
        yield Setting("policy", "idle_timeout", str(round(gap * 8)), because, needed=True)


def _counting(p: Portrait) -> Iterator[Setting]:
    if p.usage == "sent":
        value = '{"stream_options": {"include_usage": True}}'
        yield Setting("llm", "additional_kwargs", value, "token counts came: `report.usage` is no estimate")


def _going_on(p: Portrait) -> Iterator[Setting]:
    if p.prefill == "flags":
        because = "it writes on from a last assistant turn, with the flags that OpenAILike is known to need"
        yield Setting("wrapper", "continuation", '"prefill"', because)
    elif p.prefill == "plain":
        value = 'Continuation("prefill", extra={"extra_body": {}})'
        yield Setting("wrapper", "continuation", value, "it writes on from a last assistant turn, without flags")


def program(settings: list[Setting], *, base_url: str, model: str, api_key: str, tools: bool) -> str:
    """The settings as code. `api_key` is an expression, never the key."""
    llm = [f"model={_quoted(model)}", f"api_base={_quoted(base_url)}", f"api_key={api_key}", "is_chat_model=True"]
    llm += ["is_function_calling_model=True"] if tools else []
    llm += ["max_retries=0", *_codes(settings, "llm")]
    policy, wrapper = _codes(settings, "policy"), _codes(settings, "wrapper")
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


def _codes(settings: list[Setting], place: str) -> list[str]:
    return [setting.code for setting in settings if setting.place == place]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
