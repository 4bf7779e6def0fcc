"""Reads the text with which a model refuses to answer, where its provider keeps that apart from the answer.

OpenAI puts it into `refusal` beside `content`, its Responses API into events of their own, Anthropic into the details
of the stop reason. LlamaIndex shows none of them: they are in `raw` alone. To teach the package another place, add a
row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from .attributes import Plan, dig, first_of, plan_for, read


def refusal_of(raw: Any, so_far: str = "") -> str | None:
    """Return what one chunk adds to a refusal, or None. Never raises.

    Meant for chunks without text: asking is cheap, but not free.

    Args:
        raw: The chunk's `raw`, or that of an answer that came all at once.
        so_far: The refusal that earlier chunks have brought: some events repeat the whole of it.
    """
    if raw is None:
        return None
    cls: Any = type(raw)
    get, places = _plan(cls)
    for name, find in places:
        try:
            value = get(raw, name)
            text: str | None = find(value, raw, so_far) if value is not None else None
            if text:
                return text
        except Exception:  # a property that raises, a field that was never set: no refusal
            continue
    return None


def refusal_in_kwargs(extra: Mapping[str, Any] | None) -> str | None:
    """Return the refusal of an answer that came all at once: LlamaIndex's OpenAIResponses keeps it here."""
    return _text(read(extra, "refusal")) if extra else None


def _in_choices(choices: Any, _raw: Any, _so_far: str) -> str | None:
    choice = first_of(choices)
    return _text(dig(choice, "delta", "refusal")) or _text(dig(choice, "message", "refusal"))


def _in_event(kind: Any, raw: Any, so_far: str) -> str | None:
    match kind:
        case "response.refusal.delta":
            return _text(read(raw, "delta"))
        case "response.refusal.done":
            return _rest(_text(read(raw, "refusal")), so_far)
        case "response.completed" | "response.incomplete":
            return _in_output(dig(raw, "response", "output"), raw, so_far)
        case "message_delta":  # Anthropic
            return _text(dig(raw, "delta", "stop_details", "explanation"))
    return None


def _in_output(output: Any, _raw: Any, so_far: str) -> str | None:
    """A whole OpenAI `Response`: the refusal is a part of the content of a message."""
    parts = [part for item in _items(output) for part in _items(read(item, "content"))]
    return _rest("".join(_text(read(part, "refusal")) or "" for part in parts), so_far)


def _rest(whole: str | None, so_far: str) -> str | None:
    return (whole or "").removeprefix(so_far) or None


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


_PLACES: tuple[tuple[str, Callable[[Any, Any, str], str | None]], ...] = (
    ("type", _in_event),
    ("choices", _in_choices),
    ("output", _in_output),
)


@lru_cache(maxsize=256)
def _plan(cls: type) -> Plan:
    return plan_for(cls, _PLACES)
