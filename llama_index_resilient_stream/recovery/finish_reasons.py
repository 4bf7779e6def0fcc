"""Reads one chunk: its finish reason, its token counts, its tool calls.

Every provider says "I am done" in a place and in words of its own. The table of places is here, that of words in
`finish_words.py`. To teach the package another provider, add a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from .attributes import Plan, dig, first_of, plan_for, read, text_of
from .finish_words import FinishMeaning, FinishReason, meaning_of, word_of

__all__ = ["FinishMeaning", "FinishReason", "finish_reason_of", "meaning_of", "open_tool_call", "usage_of"]


def finish_reason_of(raw: Any, extra: Mapping[str, Any] | None) -> FinishReason | None:
    """Return the finish reason on one chunk, or None. Never raises, and runs once per token: see `plan_for`.

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
    return word_of(text) if text is not None else None


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
        case "response.failed":
            code = _word(dig(raw, "response", "error", "code"))
            return f"{kind}: {code}" if code else kind
        case "response.completed" | "response.cancelled" | "error" | "message_stop":
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
    """LlamaIndex swallows Bedrock's `messageStop`; the usage that follows it proves the end, and has no reason."""
    return "metadata" if isinstance(metadata, dict) and isinstance(metadata.get("usage"), dict) else None


def _blocked_word(reason: Any) -> str | None:
    """The question itself was blocked; "OTHER" is no error then."""
    word = _word(reason)
    return f"blocked: {word}" if word is not None else None


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
        lambda found, _raw: (
            _word(read(first_of(found), "finish_reason")) or _word(read(first_of(found), "finishReason"))
        ),
    ),  # Gemini and Vertex, old; Gemini's events as they come
    ("promptFeedback", lambda found, _raw: _blocked_word(read(found, "blockReason"))),  # Gemini
    ("results", lambda found, _raw: _word(read(first_of(found), "stop_reason"))),  # watsonx, text generation
    ("details", lambda found, _raw: _word(read(found, "finish_reason"))),  # TGI, text generation
    ("stop_reason", _word),  # Claude and Llama through Bedrock's older class
    ("status", _status_word),
    ("error", lambda found, _raw: "error" if found and isinstance(found, (dict, str)) else None),  # in-band
)


@lru_cache(maxsize=256)
def _plan(cls: type) -> Plan:
    return plan_for(cls, _PLACES)


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
def _usage_plan(cls: type) -> Plan:
    return plan_for(cls, _USAGE_PLACES)


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
