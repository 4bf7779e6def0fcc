"""Reads one event of a stream as it stands on the wire: text, thinking, calls, a refusal, or nothing of the kind.

OpenAI's chat completions and responses, Anthropic's messages, Gemini's candidates, and whoever speaks like them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..recovery.attributes import dig, first_of

_CONTENT = ("content", "reasoning_content", "reasoning", "tool_calls", "function_call")


def event_on(line: bytes) -> dict[str, Any] | None:
    """The JSON object on a `data:` line."""
    if not line.startswith(b"data:"):
        return None
    try:
        event = json.loads(line[5:])
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def has_content(event: Mapping[str, Any]) -> bool:
    """Whether an event carries text, thinking or tool arguments."""
    kind = event.get("type")
    if isinstance(kind, str) and (kind == "content_block_delta" or kind.endswith(".delta")):
        return True
    if any(choice.get("text") or any(map(_delta(choice).get, _CONTENT)) for choice in _choices(event)):
        return True
    return _has_parts(first_of(event.get("candidates")))


def text_of(event: Mapping[str, Any]) -> str:
    """The text of a piece of Gemini's, without thoughts."""
    parts = dig(first_of(event.get("candidates")), "content", "parts")
    said = [part for part in parts if isinstance(part, dict) and not part.get("thought")] if parts else []
    return "".join(str(part.get("text") or "") for part in said)


def _has_parts(candidate: Any) -> bool:
    """Whether a piece of Gemini's carries anything. Its last one has no parts, or one with an empty text."""
    parts = dig(candidate, "content", "parts")
    return isinstance(parts, list) and any(part and part != {"text": ""} for part in parts)


def has_nothing_else(event: Mapping[str, Any]) -> bool:
    """Whether all choices of an event are without a delta and without text, so that whoever drops it loses nothing."""
    choices = _choices(event)
    return bool(choices) and not any(choice.get("delta") or choice.get("text") for choice in choices)


def is_refusal(event: Mapping[str, Any]) -> bool:
    """Whether an event carries a piece of a refusal, in OpenAI's chat completions or its responses."""
    return event.get("type") == "response.refusal.delta" or any(
        bool(_delta(choice).get("refusal")) for choice in _choices(event)
    )


def _choices(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = event.get("choices")
    return [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []


def _delta(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    delta = choice.get("delta")
    return delta if isinstance(delta, dict) else {}
