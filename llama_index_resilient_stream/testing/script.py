"""Cues for ScriptedLLM, and the record of what became of each call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from llama_index.core.base.llms.types import ChatMessage

from .scripted_model import Heard


@dataclass(frozen=True)
class Cut:
    """The stream ends behind `after` characters (None: behind all of them).

    With `error` it raises that. With `finish` it ends with that finish reason ("length", "content_filter",
    "error"). With neither it ends as if it were over, and no finish reason was seen.
    """

    after: int | None = None
    error: Exception | None = None
    finish: str | None = None


@dataclass(frozen=True)
class Stall:
    """The stream is silent for `seconds` (None: until the reader leaves, or `release()`) behind `after`
    characters.

    Then it goes on in good health. A sync reader cannot leave while it waits, as with a real socket.
    """

    after: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Fail:
    """The stream raises `error` in place of its first token, or, with `at_call`, when it is asked for."""

    error: Exception
    at_call: bool = False


Cue: TypeAlias = "Cut | Stall | Fail | None"


@dataclass
class Call:
    """One call and what became of it.

    `sent` is the text that the reader took (or the tool's arguments). `state` is "open" while the reader
    reads, "closed" when it left before the end, "broken" after a scripted end, "whole" after the whole
    answer. A stream that nobody iterated is "unread".
    """

    endpoint: str
    messages: tuple[ChatMessage, ...]
    prompt: str
    kwargs: dict[str, Any]
    cue: Cue
    heard: Heard
    sent: str = ""
    state: Literal["unread", "open", "closed", "broken", "whole"] = "unread"

    @property
    def said(self) -> str:
        """The part of the text that the model was told it had said."""
        return self.heard.said

    @property
    def anchor(self) -> str:
        """The last words that the model was asked to repeat."""
        return self.heard.anchor
