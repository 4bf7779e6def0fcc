"""What one endpoint was seen to do, in facts and in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ...recovery.finish_reasons import FinishMeaning, meaning_of

Prefill = Literal["flags", "plain", "marked", "refused", "new turn"]
"""How a last assistant turn is written on.

    flags      with vLLM's `continue_final_message` and `add_generation_prompt` (`providers.py` sends them)
    plain      with nothing but the turn
    marked     with `prefix: true` in the message, as DeepSeek and Mistral have it
    refused    with a 4xx
    new turn   answered by another one
"""
Ask = Literal["anchor", "joined", "astray"]
"""anchor: it began with the words it was asked to repeat. joined: it did not, and went on from the right place all the
same. astray: neither."""


@dataclass(frozen=True)
class Portrait:
    """What was seen. None: it could not be determined."""

    obstacle: str = ""
    """Why nothing could be seen at all."""
    requests: int = 0
    finish: str | None = None
    """The finish reason of a whole answer; "" where there was none."""
    terminated: bool | None = None
    """Whether `data: [DONE]` came."""
    usage: Literal["sent", "ignored", "refused"] | None = None
    """What became of `stream_options.include_usage`."""
    comments: int | None = None
    encoding: str | None = None
    at_once: bool | None = None
    """Whether the answer was held back and came in one piece."""
    thinks: bool | None = None
    first_token: float | None = None
    """Seconds until the first sign of progress."""
    longest_gap: float | None = None
    """Seconds between two of them."""
    finish_at_limit: str | None = None
    """The finish reason at `max_tokens`; "" where there was none."""
    finish_of_tools: str | None = None
    """The finish reason of a tool call; "" where there was none."""
    ask: Ask | None = None
    prefill: Prefill | None = None
    echoes: bool = False
    """Whether it sends a prefill back before it goes on."""

    @property
    def sends_finish_reason(self) -> bool | None:
        """Whether it says that an answer is over."""
        return None if self.finish is None else bool(self.finish)

    @property
    def tells_always(self) -> bool:
        """Whether it was never seen to end without saying so."""
        return bool(self.finish) and "" not in (self.finish_at_limit, self.finish_of_tools)

    @property
    def tells_limit(self) -> bool | None:
        """Whether the token limit can be told from an end."""
        if self.finish_at_limit is None:
            return None
        return bool(self.finish_at_limit) and meaning_of(self.finish_at_limit).kind is FinishMeaning.LENGTH


@dataclass(frozen=True)
class Trait:
    """One line of the examination."""

    question: str
    answer: str
    """"unknown" where it could not be determined."""
    seen: str


def traits(portrait: Portrait) -> list[Trait]:
    """The portrait in words."""
    return [Trait(question, *describe(portrait)) for question, describe in _QUESTIONS]


_Words = tuple[str, str]


def _reason(word: str | None, what: str, otherwise: str) -> _Words:
    if word is None:
        return "unknown", otherwise
    return ("yes", f"{what} ended with {word!r}") if word else ("no", f"{what} ended without one")


def _finish(p: Portrait) -> _Words:
    return _reason(p.finish, "a whole answer", "no answer came to its end")


def _terminator(p: Portrait) -> _Words:
    if p.terminated is None:
        return "unknown", "no answer came to its end"
    return ("yes", "it came") if p.terminated else ("no", "the body ended without it")


def _usage(p: Portrait) -> _Words:
    return {
        None: ("unknown", "no answer came to its end"),
        "sent": ("yes", "token counts came with stream_options.include_usage"),
        "ignored": ("no", "stream_options.include_usage was accepted, and no counts came"),
        "refused": ("no", "a request with stream_options was refused, and one without was not"),
    }[p.usage]


def _comments(p: Portrait) -> _Words:
    if p.comments is None:
        return "unknown", "no stream was read"
    if not p.comments:
        return "no", "none came; a server may send them only while it is slow"
    return "yes", f"{p.comments} came; they feed a client's read timeout, and not the watchdogs here"


def _encoding(p: Portrait) -> _Words:
    if p.encoding is None:
        return "unknown", "no stream was read"
    return ("yes", f"Content-Encoding: {p.encoding}") if p.encoding else ("no", "the stream came uncompressed")


def _at_once(p: Portrait) -> _Words:
    if p.at_once is None:
        return "unknown", "the answer was too short or too quick to tell"
    if p.at_once:
        return "yes", f"all of it came at once, after {p.first_token or 0:.1f} s: something buffers"
    return "no", f"first token after {p.first_token or 0:.1f} s, longest gap {p.longest_gap or 0:.1f} s"


def _thinks(p: Portrait) -> _Words:
    if p.thinks is None:
        return "unknown", "no answer came"
    return ("yes", "reasoning came before the text") if p.thinks else ("no", "no reasoning was sent")


def _limit(p: Portrait) -> _Words:
    if p.tells_limit is None:
        return "unknown", "no answer stopped at max_tokens"
    if p.tells_limit:
        return "yes", f"an answer that hit max_tokens ended with {p.finish_at_limit!r}"
    how = f"with {p.finish_at_limit!r}" if p.finish_at_limit else "without a reason"
    return "no", f"an answer that hit max_tokens ended {how}"


def _tools(p: Portrait) -> _Words:
    if p.finish_of_tools == "":
        return "no", "a tool call ended without one: it cannot be told from half a call, and is asked for again"
    return _reason(p.finish_of_tools, "a tool call", "it called no tool, or takes none")


def _ask(p: Portrait) -> _Words:
    return {
        None: ("unknown", "no answer came to the question"),
        "anchor": ("yes", "it began with the words it was asked to repeat, and went on from there"),
        "joined": ("no", "it did not repeat the words, and went on from the right place all the same"),
        "astray": ("no", "it neither repeated the words nor went on from where they end"),
    }[p.ask]


def _prefill(p: Portrait) -> _Words:
    echo = ", after sending it back" if p.echoes else ""
    return {
        None: ("unknown", "no answer came to it"),
        "flags": ("yes", f"with continue_final_message and add_generation_prompt=False{echo}"),
        "plain": ("yes", f"with nothing but the turn{echo}"),
        "marked": ("yes", f"with prefix: true in the message only, which LlamaIndex does not pass on{echo}"),
        "refused": ("no", "a conversation that ends with the assistant is refused"),
        "new turn": ("no", "it answers with a new turn"),
    }[p.prefill]


_QUESTIONS: tuple[tuple[str, Callable[[Portrait], _Words]], ...] = (
    ("sends finish reasons", _finish),
    ("for tool calls, too", _tools),
    ("says when max_tokens is hit", _limit),
    ("ends with [DONE]", _terminator),
    ("counts tokens", _usage),
    ("sends keep-alive comments", _comments),
    ("compresses", _encoding),
    ("holds the answer back", _at_once),
    ("thinks first", _thinks),
    ("repeats the anchor when asked to go on", _ask),
    ("writes on from a prefill", _prefill),
)
