"""What one provider was seen to do, as facts and in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from ...recovery.finish_reasons import FinishMeaning, meaning_of


class PrefillSupport(StrEnum):
    """What the provider makes of a conversation that ends with an assistant turn."""

    FLAGS = "flags"
    """It continues the turn with vLLM's `continue_final_message` and `add_generation_prompt` (see `providers.py`)."""
    PLAIN = "plain"
    """It continues the turn without anything else in the request."""
    MARKED = "marked"
    """It continues the turn with `prefix: true` in the message, as DeepSeek and Mistral have it."""
    REFUSED = "refused"
    """It answers with a 4xx status."""
    NEW_TURN = "new_turn"
    """It answers with a new turn."""


class AskResult(StrEnum):
    """How an answer went on that was asked to repeat the anchor and to continue."""

    ANCHOR = "anchor"
    """It began with the anchor."""
    JOINED = "joined"
    """It did not, and continued from the right place all the same."""
    MISPLACED = "misplaced"
    """It did neither."""


class UsageSupport(StrEnum):
    """What became of `stream_options.include_usage`."""

    SENT = "sent"
    IGNORED = "ignored"
    REFUSED = "refused"


class Known(StrEnum):
    """What is known about one question."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Profile:
    """What was seen of a provider. None: it could not be determined."""

    obstacle: str = ""
    """Why nothing could be seen at all."""
    requests: int = 0
    server: str = ""
    """The server behind it, by what its streams or its list of models say; "" where nothing says so."""
    finish_reason: str | None = None
    """The finish reason of a whole answer; "" where there was none."""
    text_after_finish: bool | None = None
    """Whether text followed the finish reason, so that it proves no end."""
    sends_done: bool | None = None
    """Whether `data: [DONE]` came."""
    usage: UsageSupport | None = None
    comments: int | None = None
    encoding: str | None = None
    held_back: bool | None = None
    """Whether the answer was held back and came in one piece."""
    thinks: bool | None = None
    first_token: float | None = None
    """Seconds until the first sign of progress."""
    longest_gap: float | None = None
    """Seconds between two of them."""
    finish_reason_at_limit: str | None = None
    """The finish reason at `max_tokens`; "" where there was none."""
    finish_reason_of_tools: str | None = None
    """The finish reason of a tool call; "" where there was none."""
    ask: AskResult | None = None
    prefill: PrefillSupport | None = None
    echoes: bool = False
    """Whether it sends a prefill back before it goes on."""

    @property
    def sends_finish_reason(self) -> bool | None:
        """Whether it sends a finish reason with a whole answer."""
        return None if self.finish_reason is None else bool(self.finish_reason)

    @property
    def always_sends_finish_reason(self) -> bool:
        """Whether every answer that was seen ended with a finish reason."""
        if self.text_after_finish:
            return False
        return bool(self.finish_reason) and "" not in (self.finish_reason_at_limit, self.finish_reason_of_tools)

    @property
    def reports_limit(self) -> bool | None:
        """Whether its finish reason distinguishes the token limit from an end."""
        if self.finish_reason_at_limit is None:
            return None
        return (
            bool(self.finish_reason_at_limit) and meaning_of(self.finish_reason_at_limit).kind is FinishMeaning.LENGTH
        )


@dataclass(frozen=True)
class ProfileLine:
    """One line of the profile: a question, its answer, and what the answer rests on."""

    question: str
    answer: Known
    seen: str


def profile_lines(profile: Profile) -> list[ProfileLine]:
    """Return the profile in words."""
    return [ProfileLine(question, *describe(profile)) for question, describe in _QUESTIONS]


_Words = tuple[Known, str]


def _reason(word: str | None, what: str, otherwise: str) -> _Words:
    if word is None:
        return Known.UNKNOWN, otherwise
    return (Known.YES, f"{what} ended with {word!r}") if word else (Known.NO, f"{what} ended without one")


def _finish_reason(p: Profile) -> _Words:
    if p.text_after_finish:
        return Known.NO, f"{p.finish_reason!r} came before the end, and text followed: it proves nothing"
    if p.finish_reason and meaning_of(p.finish_reason).kind is FinishMeaning.UNKNOWN:
        return Known.YES, f"a whole answer ended with {p.finish_reason!r}, a word that nobody knows"
    return _reason(p.finish_reason, "a whole answer", "no answer came to its end")


def _terminator(p: Profile) -> _Words:
    if p.sends_done is None:
        return Known.UNKNOWN, "no answer came to its end"
    return (Known.YES, "it came") if p.sends_done else (Known.NO, "the body ended without it")


def _usage(p: Profile) -> _Words:
    return {
        None: (Known.UNKNOWN, "no answer came to its end"),
        UsageSupport.SENT: (Known.YES, "token counts came with stream_options.include_usage"),
        UsageSupport.IGNORED: (Known.NO, "stream_options.include_usage was accepted, and no counts came"),
        UsageSupport.REFUSED: (Known.NO, "a request with stream_options was refused, and one without was not"),
    }[p.usage]


def _comments(p: Profile) -> _Words:
    if p.comments is None:
        return Known.UNKNOWN, "no stream was read"
    if not p.comments:
        return Known.NO, "none came; a server may send them only while it is slow"
    return Known.YES, f"{p.comments} came; they feed a client's read timeout, and not the watchdogs here"


def _encoding(p: Profile) -> _Words:
    if p.encoding is None:
        return Known.UNKNOWN, "no stream was read"
    return (Known.YES, f"Content-Encoding: {p.encoding}") if p.encoding else (Known.NO, "the stream came uncompressed")


def _held_back(p: Profile) -> _Words:
    if p.held_back is None:
        return Known.UNKNOWN, "the answer was too short or too quick to tell"
    if p.held_back:
        return Known.YES, f"all of it came at once, after {p.first_token or 0:.1f} s: something buffers"
    return Known.NO, f"first token after {p.first_token or 0:.1f} s, longest gap {p.longest_gap or 0:.1f} s"


def _thinks(p: Profile) -> _Words:
    if p.thinks is None:
        return Known.UNKNOWN, "no answer came"
    return (Known.YES, "reasoning came before the text") if p.thinks else (Known.NO, "no reasoning was sent")


def _limit(p: Profile) -> _Words:
    if p.reports_limit is None:
        return Known.UNKNOWN, "no answer stopped at max_tokens"
    if p.reports_limit:
        return Known.YES, f"an answer that hit max_tokens ended with {p.finish_reason_at_limit!r}"
    how = f"with {p.finish_reason_at_limit!r}" if p.finish_reason_at_limit else "without a reason"
    return Known.NO, f"an answer that hit max_tokens ended {how}"


def _tools(p: Profile) -> _Words:
    if p.finish_reason_of_tools == "":
        return Known.NO, "a tool call ended without one: it looks like half a call, and is asked for again"
    return _reason(p.finish_reason_of_tools, "a tool call", "it called no tool, or takes none")


def _ask(p: Profile) -> _Words:
    return {
        None: (Known.UNKNOWN, "no answer came to the question"),
        AskResult.ANCHOR: (Known.YES, "it began with the words it was asked to repeat, and went on from there"),
        AskResult.JOINED: (Known.NO, "it did not repeat the words, and went on from the right place all the same"),
        AskResult.MISPLACED: (Known.NO, "it neither repeated the words nor went on from where they end"),
    }[p.ask]


def _prefill(p: Profile) -> _Words:
    echo = ", after sending it back" if p.echoes else ""
    return {
        None: (Known.UNKNOWN, "no answer came to it"),
        PrefillSupport.FLAGS: (Known.YES, f"with continue_final_message and add_generation_prompt=False{echo}"),
        PrefillSupport.PLAIN: (Known.YES, f"with nothing but the turn{echo}"),
        PrefillSupport.MARKED: (
            Known.YES,
            f"with prefix: true in the message only, which LlamaIndex does not pass on{echo}",
        ),
        PrefillSupport.REFUSED: (Known.NO, "a conversation that ends with the assistant is refused"),
        PrefillSupport.NEW_TURN: (Known.NO, "it answers with a new turn"),
    }[p.prefill]


_QUESTIONS: tuple[tuple[str, Callable[[Profile], _Words]], ...] = (
    ("sends finish reasons", _finish_reason),
    ("for tool calls, too", _tools),
    ("says when max_tokens is hit", _limit),
    ("ends with [DONE]", _terminator),
    ("counts tokens", _usage),
    ("sends keep-alive comments", _comments),
    ("compresses", _encoding),
    ("holds the answer back", _held_back),
    ("thinks first", _thinks),
    ("repeats the anchor when asked to go on", _ask),
    ("writes on from a prefill", _prefill),
)
