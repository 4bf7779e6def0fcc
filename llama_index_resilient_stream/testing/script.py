"""The entries of ScriptedLLM's script, and the record of what became of each call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from llama_index.core.base.llms.types import ChatMessage

from ..errors import ConfigurationError
from .scripted_model import ParsedRequest


@dataclass(frozen=True)
class Cut:
    """Ends the stream early: with an error, with a finish reason, or without any of the two.

        ScriptedLLM("The answer is 42.", script=[Cut(after=10, error=ConnectionResetError("reset"))])

    Args:
        after: How many characters are sent first. None: all of them.
        error: The exception that is raised then.
        finish_reason: The finish reason that is sent then: "length", "content_filter", "error".
    """

    after: int | None = None
    error: Exception | None = None
    finish_reason: str | None = None


@dataclass(frozen=True)
class Stall:
    """Pauses the stream; then the rest of the answer comes. A sync reader cannot leave while it waits, as on a socket.

        ScriptedLLM("The answer is 42.", script=[Stall(after=10, seconds=0.5)])

    Args:
        after: How many characters are sent before the pause.
        seconds: How long it lasts. None: until the reader leaves, or `ScriptedLLM.release()` is called.
    """

    after: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Fail:
    """Raises an exception in place of the first token.

        ScriptedLLM("The answer is 42.", script=[Fail(TimeoutError()), None])

    Args:
        error: The exception.
        at_call: Whether the call raises it. Otherwise the stream does, when it is read.
    """

    error: Exception
    at_call: bool = False


ScriptEntry: TypeAlias = "Cut | Stall | Fail | None"


def check_script(script: Any) -> None:
    """Raise ConfigurationError where a script is none, before a test is green because nothing broke."""
    if isinstance(script, Cut | Stall | Fail | str) or not isinstance(script, Iterable):
        raise ConfigurationError(f"script is {script!r}. Pass one entry per call: script=[Cut(after=10), None].")
    for entry in script if isinstance(script, Sequence) else ():
        if not isinstance(entry, Cut | Stall | Fail | None):
            raise ConfigurationError(f"script has {entry!r} in it. An entry is a Cut, a Stall, a Fail or None.")
        if isinstance(entry, Cut | Stall) and (entry.after or 0) < 0:
            raise ConfigurationError(f"{entry!r}: `after` counts characters from 0. Write after=10.")


class CallState(StrEnum):
    """How far a call of ScriptedLLM has come."""

    UNREAD = "unread"
    """Nobody has begun to read the stream."""
    OPEN = "open"
    """The reader reads."""
    CLOSED = "closed"
    """The reader closed the stream before its end."""
    BROKEN = "broken"
    """The stream ended as the script says."""
    COMPLETE = "complete"
    """The whole answer was sent."""


@dataclass
class Call:
    """One call of ScriptedLLM, and what became of it.

    Attributes:
        endpoint: The name of the method that was called, as "astream_chat".
        messages: The messages of a chat call.
        prompt: The prompt of a completion call.
        kwargs: All other arguments.
        script_entry: The entry of the script that this call took.
        parsed: How the model understood the request.
        sent: The text, or the tool arguments, that the reader has taken.
        state: How far the call has come.
    """

    endpoint: str
    messages: tuple[ChatMessage, ...]
    prompt: str
    kwargs: dict[str, Any]
    script_entry: ScriptEntry
    parsed: ParsedRequest
    sent: str = ""
    state: CallState = CallState.UNREAD

    @property
    def partial_text(self) -> str:
        """The beginning of the text that the request gave back to the model, to be continued."""
        return self.parsed.partial_text

    @property
    def anchor(self) -> str:
        """The last words of `partial_text` that the model was asked to repeat."""
        return self.parsed.anchor
