"""Reads one chunk: its finish reason, its token counts, its tool calls.

Every provider says "I am done" in a place and in words of its own; a table of places and a table of words
turn that into a `FinishReason`. To teach it another provider, add a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from .attributes import declared_fields, dig, first_of, read, text_of


class FinishMeaning(StrEnum):
    """What a finish reason means."""

    COMPLETE = "complete"
    LENGTH = "length"  # a limit cut it: max_tokens, the context window, a time limit
    TOOL = "tool"  # it waits for the result of a tool call: its text is never continued
    FILTER = "filter"  # a policy cut it: never retried
    ERROR = "error"  # it failed on the provider's side
    PAUSE = "pause"  # no end: it wants to be asked to go on
    UNKNOWN = "unknown"  # a word nobody knows


@dataclass(frozen=True, slots=True)
class FinishReason:
    """One finish reason: its meaning, and the provider's own word for it in lower case."""

    kind: FinishMeaning
    word: str


_WORDS: dict[FinishMeaning, str] = {
    # done, metadata, message_stop: events that end a
    # stream without a reason. load, unload: Ollama was asked nothing and has nothing to add.
    FinishMeaning.COMPLETE: """
        stop end_turn stop_sequence eos eos_token complete completed response.completed
        message_stop done metadata end finish finished word load unload""",
    # error_limit: Cohere. compaction, model_context_window_exceeded: Anthropic. continuation: google-genai.
    # time_limit, token_limit: watsonx. limit: llama.cpp.
    FinishMeaning.LENGTH: """
        length max_tokens max_output_tokens max_new_tokens model_length max_length limit token_limit
        time_limit model_context_window_exceeded error_limit response.incomplete compaction continuation""",
    FinishMeaning.PAUSE: "pause_turn",  # Anthropic: send the turn back to go on
    FinishMeaning.TOOL: "tool_calls tool_use function_call tool_call tool",
    FinishMeaning.FILTER: """
        content_filter content_filtered refusal safety recitation blocklist prohibited_content spii language
        error_toxic guardrail_intervened sensitive image_safety image_prohibited_content image_recitation
        model_armor flagged""",
    # insufficient_system_resource: DeepSeek. abort: vLLM, SGLang. malformed_*, *_tool_call(s): Gemini,
    # Bedrock; a model that broke its own syntax may well get it right when it is asked again.
    FinishMeaning.ERROR: """
        error network_error server_error response.failed response.cancelled failed cancelled abort aborted
        timeout insufficient_system_resource malformed_function_call malformed_model_output malformed_tool_use
        malformed_response unexpected_tool_call too_many_tool_calls other""",
}

MEANING: dict[str, FinishMeaning] = {word: kind for kind, words in _WORDS.items() for word in words.split()}
"""The provider's word, in lower case -> what it means."""

_NOTHING_YET = frozenset({"", "null", "none", "unspecified", "not_finished", "in_progress", "queued", "incomplete"})
"""Words that are no finish reason: DashScope sends "null", watsonx "not_finished", old Ollama ""."""


def finish_reason_of(raw: Any, extra: Mapping[str, Any] | None) -> FinishReason | None:
    """Return the finish reason on one chunk, or None. Never raises, and runs once per token: see `_plan`.

    Args:
        raw: The chunk's `raw`: a dictionary, a pydantic object, a dataclass, anything.
        extra: The `additional_kwargs` of its message.
    """
    if raw is not None:
        cls: Any = type(raw)
        get, places = _plan(cls)
        for name, word_in in places:
            try:
                value = get(raw, name)
                if value is not None and (word := word_in(value, raw)):
                    return meaning_of(word)
            except Exception:  # a property that raises, a field that was never set: no finish reason
                continue
    return _reason_in_extra(extra) if extra else None


def meaning_of(word: str) -> FinishReason:
    """Return the finish reason that a provider's word stands for."""
    return FinishReason(MEANING.get(word, FinishMeaning.UNKNOWN), word)


def _reason_in_extra(extra: Mapping[str, Any]) -> FinishReason | None:
    """LlamaIndex's Anthropic class keeps the finish reason here, and some others do."""
    try:
        for name in ("stop_reason", "finish_reason"):
            value = extra.get(name)
            if value is not None and (word := _word(value)):
                return meaning_of(word)
    except Exception:
        pass
    return None


# The places, and how each is read: (what was found there, the whole chunk) -> the provider's word, or None.


def _word(value: Any, _raw: Any = None) -> str | None:
    text = text_of(value)
    if text is None:
        return None
    word = text.strip().lower()[:64]
    word = word.removeprefix("finishreason.").removeprefix("finish_reason_")  # how enums look as strings
    return None if word in _NOTHING_YET else word


def _choices_word(choices: Any, _raw: Any) -> str | None:
    """OpenAI's shape: any choice will do (`n=1` is all that LlamaIndex asks for)."""
    if not isinstance(choices, (list, tuple)):
        return None
    for choice in choices:
        if isinstance(choice, dict):
            reason = choice.get("finish_reason") or choice.get("finishReason")
        else:
            reason = getattr(choice, "finish_reason", None)
            if reason is None and (more := getattr(choice, "__pydantic_extra__", None)):
                reason = more.get("finishReason")  # Gemini's OpenAI-compatible endpoint was seen to do this
        if reason is not None and (word := _word(reason)):
            return word
    return None


def _nested_word(inside: Any, _raw: Any) -> str | None:
    """Mistral keeps the chunk under `data`, DashScope under `output`."""
    return _choices_word(read(inside, "choices"), inside) or _word(read(inside, "finish_reason"))


def _event_word(kind: Any, raw: Any) -> str | None:
    match kind:
        case "response.incomplete":  # OpenAI Responses
            return _word(dig(raw, "response", "incomplete_details", "reason")) or kind
        case "response.completed" | "response.failed" | "response.cancelled" | "error" | "message_stop":
            return str(kind)
        case "message_delta":  # Anthropic: a dictionary whose `delta` is still an object
            return _word(dig(raw, "delta", "stop_reason"))
        case "message-end":  # Cohere v2
            return _word(dig(raw, "delta", "finish_reason"))
    return None


def _status_word(status: Any, raw: Any) -> str | None:
    """A whole OpenAI `Response`, as a background response is when it is fetched."""
    if status == "incomplete":
        return _word(dig(raw, "incomplete_details", "reason")) or "response.incomplete"
    return status if status in ("completed", "failed", "cancelled") else None


def _cohere_word(kind: Any, raw: Any) -> str | None:
    return (_word(read(raw, "finish_reason")) or "complete") if kind == "stream-end" else None


def _ollama_word(done: Any, raw: Any) -> str | None:
    return (_word(read(raw, "done_reason")) or "done") if done is True else None


def _bedrock_word(metadata: Any, _raw: Any) -> str | None:
    """LlamaIndex swallows Bedrock's `messageStop`; the usage that follows it is what proves the end."""
    return "metadata" if isinstance(metadata, dict) and isinstance(metadata.get("usage"), dict) else None


_PLACES: tuple[tuple[str, Callable[[Any, Any], str | None]], ...] = (
    ("type", _event_word),
    ("event_type", _cohere_word),
    ("choices", _choices_word),
    ("data", _nested_word),
    ("output", _nested_word),
    ("messageStop", lambda stop, _raw: _word(read(stop, "stopReason"))),
    ("metadata", _bedrock_word),
    ("done", _ollama_word),
    ("finish_reason", _word),  # google-genai, and whoever flattens the choice
    (
        "candidates",
        lambda found, _raw: _word(read(first_of(found), "finish_reason")),
    ),  # Gemini and Vertex, old
    ("results", lambda found, _raw: _word(read(first_of(found), "stop_reason"))),  # watsonx, text generation
    ("details", lambda found, _raw: _word(read(found, "finish_reason"))),  # TGI, text generation
    ("stop_reason", _word),  # Claude and Llama through Bedrock's older class
    ("status", _status_word),
    ("error", lambda found, _raw: "error" if found and isinstance(found, (dict, str)) else None),  # in-band
)

_Plan = tuple[Callable[[Any, str], Any], tuple[tuple[str, Callable[[Any, Any], str | None]], ...]]


@lru_cache(maxsize=256)
def _plan(cls: type) -> _Plan:
    """Return how chunks of this class are read, and the places worth a look: for an OpenAI chunk, just `choices`."""
    return _narrow(cls, _PLACES)


def _narrow(cls: Any, places: tuple[tuple[str, Any], ...]) -> _Plan:
    if cls is dict:
        return dict.get, places
    fields = None if issubclass(cls, dict) else declared_fields(cls)
    if fields is None:
        return read, places
    return getattr, tuple(place for place in places if place[0] in fields)


# Token counts, on the chunk with the finish reason or on one after it.

_COUNTS: dict[str, tuple[str, ...]] = {
    name: tuple(aliases.split())
    for name, aliases in {
        "prompt_tokens": """
            prompt_tokens input_tokens inputTokens prompt_token_count promptTokenCount prompt_eval_count
            input_token_count""",
        "completion_tokens": """
            completion_tokens output_tokens outputTokens candidates_token_count candidatesTokenCount
            eval_count generated_token_count""",
        "total_tokens": "total_tokens totalTokens total_token_count totalTokenCount",
    }.items()
}

_USAGE_PLACES: tuple[tuple[str, Callable[[Any, Any], Any]], ...] = (
    ("usage", lambda found, _raw: found),  # OpenAI, Anthropic's message_delta, DashScope, LlamaIndex's Ollama
    ("usage_metadata", lambda found, _raw: found),  # Gemini
    ("usageMetadata", lambda found, _raw: found),
    ("metadata", lambda found, _raw: read(found, "usage")),  # Bedrock
    ("data", lambda found, _raw: read(found, "usage")),  # Mistral
    (
        "response",
        lambda found, _raw: read(found, "usage") or dig(found, "meta", "tokens"),
    ),  # Responses; Cohere
    ("message", lambda found, _raw: read(found, "usage")),  # Anthropic's message_start
    ("results", lambda found, _raw: first_of(found)),  # watsonx
    ("eval_count", lambda _found, raw: raw),  # Ollama's own names
)


@lru_cache(maxsize=256)
def _usage_plan(cls: type) -> _Plan:
    return _narrow(cls, _USAGE_PLACES)


def usage_of(raw: Any) -> dict[str, int] | None:
    """Return the token counts on one chunk, under OpenAI's names; a count that is not there is left out.

    Cheap on chunks without any, and never raises. `total_tokens` is added up where both others are known.
    """
    if raw is None:
        return None
    cls: Any = type(raw)
    get, places = _usage_plan(cls)
    for name, counts_in in places:
        try:
            value = get(raw, name)
            if value is not None and (found := _counts(counts_in(value, raw))):
                return found
        except Exception:
            continue
    return None


def _counts(thing: Any) -> dict[str, int]:
    if thing is None:
        return {}
    found: dict[str, int] = {}
    for name, aliases in _COUNTS.items():
        count = next((known for alias in aliases if (known := _count(read(thing, alias))) is not None), None)
        if count is not None:
            found[name] = count
    thoughts = _count(read(thing, "thoughts_token_count"))  # Gemini bills them, beside the candidates
    if thoughts and "completion_tokens" in found:
        found["completion_tokens"] += thoughts
    if "prompt_tokens" in found and "completion_tokens" in found:
        found.setdefault("total_tokens", found["prompt_tokens"] + found["completion_tokens"])
    return found


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 <= value < 2**53 else None  # Cohere counts in floats; NaN compares false


# Tool calls


def open_tool_call(extra: Mapping[str, Any] | None, blocks: Iterable[Any] | None) -> str | None:
    """Return a fingerprint of the tool calls that one chunk shows, or None where it shows none.

    It changes whenever a call is added or grows, so two equal ones in a row mean that nothing came. Take it when
    the chunk arrives: LlamaIndex lets later chunks change the objects of earlier ones.

    Args:
        extra: The `additional_kwargs` of the chunk's message.
        blocks: The blocks of that message.
    """
    prints: list[str] = []
    try:
        if extra:
            prints += [_call_print(call) for call in extra.get("tool_calls") or ()]
            if legacy := extra.get("function_call"):
                prints.append(_call_print(legacy))
        for block in blocks or ():
            if type(block).__name__ == "ToolCallBlock":
                arguments = read(block, "tool_kwargs")
                prints.append(f"{read(block, 'tool_name')}:{_size(arguments)}{_open_mark(arguments)}")
    except Exception:
        prints.append("?")  # something that cannot be read is there nevertheless
    return "|".join(prints) if prints else None


def _call_print(call: Any) -> str:
    inside = read(call, "function") or call
    arguments = read(inside, "arguments")
    if arguments is None:
        arguments = read(call, "input")
    return f"{read(inside, 'name')}:{_size(arguments)}{_open_mark(arguments)}"


OPEN = "…"
"""Ends the fingerprint of a call whose arguments are not JSON, or not there yet."""


def _open_mark(arguments: Any) -> str:
    """OPEN where arguments that are text are no JSON object. No arguments at all are those of a call without any."""
    if not isinstance(arguments, str) or not (bare := arguments.strip()):
        return ""
    if not bare.endswith("}"):  # spares parsing at every delta
        return OPEN
    try:
        return "" if isinstance(json.loads(bare), dict) else OPEN
    except (ValueError, RecursionError):
        return OPEN


def _size(arguments: Any) -> int:
    if isinstance(arguments, str):
        return len(arguments)
    return len(repr(arguments)) if arguments else 0
