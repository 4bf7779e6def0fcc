"""What an event, or a line, of an answer means: our own events, OpenAI's chunks, the AI SDK's, and common words.

An event brings a piece of the answer, says how the answer ended, or neither. None of its text is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...report import StreamStatus
from ..sse import OPENAI_DONE, DecodedEvent
from .measurements import DONE, ERROR, FINISH, WireProtocol

_STATUSES = {str(status) for status in StreamStatus}
_END_WORDS = frozenset({
    *("done", "end", "complete", "completed", "finish", "finished", "message_stop", "response.completed"),
})  # fmt: skip
_ERROR_WORDS = frozenset({"error", "failed", "response.failed"})
_BESIDE = frozenset({"sources", "usage", "recovery", "joint", "reset", "metadata", "ping", "tool_call", "tool_result"})
"""Names of events that come beside the answer's text, as ours do."""


@dataclass(frozen=True)
class Meaning:
    """What one event means."""

    text: int = 0
    """Characters, about, that it brings of the answer, thoughts and calls of tools included; 0 where it brings none."""
    terminal: str = ""
    """What says that the answer is over: "done", "error", "finish" or "[DONE]"."""
    status: str = ""
    """The word behind "status", where it is one that this package uses: any other could be text of an answer."""
    protocol: WireProtocol = WireProtocol.UNKNOWN
    answer_id: str = ""
    """The id that all chunks of one answer have in OpenAI's protocol."""


def meaning_of(event: DecodedEvent) -> Meaning:
    """Return what a server-sent event means."""
    data = event.data.strip()
    if data == OPENAI_DONE:
        return Meaning(terminal=OPENAI_DONE)
    value = _parsed(data)
    name = event.name.lower()
    if name in _ERROR_WORDS or name in _END_WORDS:
        return Meaning(terminal=ERROR if name in _ERROR_WORDS else DONE, status=_status(value))
    if name in _BESIDE:
        return Meaning()
    return _meaning_of_object(value) if value is not None else Meaning(text=len(event.data))


def meaning_of_line(line: str) -> Meaning | None:
    """Return what a line means that is a JSON object, or one of the data stream of the AI SDK 4; None for any other."""
    if (value := _parsed(line)) is not None:
        return _meaning_of_object(value)
    code, colon, rest = line.partition(":")
    if not colon or len(code) != 1 or not code.isalnum() or not _is_json(rest):
        return None
    if code == "3":
        return Meaning(terminal=ERROR)
    return Meaning(terminal=FINISH) if code == "d" else Meaning(text=len(rest))


def _meaning_of_object(value: Mapping[str, Any]) -> Meaning:
    if isinstance(value.get("choices"), list):
        return _openai(value)
    if value.get("error"):
        return Meaning(terminal=ERROR)
    kind = value.get("type")
    if isinstance(kind, str) and (meaning := _typed(kind, value)) is not None:
        return meaning
    if value.get("done") is True or value.get("event") in _END_WORDS:
        return Meaning(terminal=DONE, status=_status(value))
    return Meaning(text=_length(value))


def _openai(chunk: Mapping[str, Any]) -> Meaning:
    choices = [choice for choice in chunk["choices"] if isinstance(choice, Mapping)]
    finished = any(choice.get("finish_reason") for choice in choices)
    text = sum(map(_text_of_choice, choices))
    answer_id = chunk.get("id")
    return Meaning(
        text=text,
        terminal=FINISH if finished else "",
        protocol=WireProtocol.OPENAI,
        answer_id=answer_id if isinstance(answer_id, str) else "",
    )


def _text_of_choice(choice: Mapping[str, Any]) -> int:
    delta = choice.get("delta") or choice.get("message") or {"text": choice.get("text")}
    return sum(_length(value) for name, value in delta.items() if name != "role" and value)


_AI_SDK_ENDS = {"abort": FINISH, "finish": FINISH, "error": ERROR}
_AI_SDK_PARTS = ("start", "text-", "reasoning-", "tool-", "source-", "data-", "finish", "reset-step", "abort", "file")


def _typed(kind: str, value: Mapping[str, Any]) -> Meaning | None:
    """Return what an object with a "type" means; None where that type says nothing."""
    if (end := _AI_SDK_ENDS.get(kind)) and (end is not ERROR or "errorText" in value):
        return Meaning(terminal=end, protocol=WireProtocol.AI_SDK)
    if kind in _ERROR_WORDS or kind in _END_WORDS:
        failed = kind in _ERROR_WORDS or value.get("status") in (StreamStatus.INTERRUPTED, "error")
        return Meaning(terminal=ERROR if failed else DONE, status=_status(value))
    if kind.startswith(_AI_SDK_PARTS):
        return Meaning(text=_text_of_part(kind, value), protocol=WireProtocol.AI_SDK)
    return Meaning() if kind in _BESIDE else None


def _text_of_part(kind: str, value: Mapping[str, Any]) -> int:
    if not kind.endswith("-delta") and not kind.startswith("tool-output"):
        return 0
    pieces = (value.get("delta"), value.get("inputTextDelta"), value.get("output"))
    return sum(_length(piece) for piece in pieces if piece)


def _status(value: Mapping[str, Any] | None) -> str:
    status = (value or {}).get("status")
    return status if isinstance(status, str) and status in _STATUSES else ""


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_length, value.values()))
    return sum(map(_length, value)) if isinstance(value, list) else len(str(value))


def _parsed(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
