"""Builds the request that asks a model to go on.

    replay    no request of this kind: the rest of the very stream that was lost, where its server keeps it; below it
              the ways that "auto" has
    ask       the partial answer as the assistant's turn, then a user turn that asks to begin by repeating a
              short anchor of its last words, by which the join can be verified (the default)
    prefill   the partial answer as the last turn; the model writes on from there, where its API allows that
    append    the prompt and the partial answer as one text, for completion models
    restart   the question again; for turns with tools or structured output, and where nothing was shown yet

No system message is added and the user's own messages stay as they are: a persona is not ours to change.
"""

from __future__ import annotations

import copy
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from ..errors import ConfigurationError
from ..report import Strategy
from .surrogates import sendable

StrategyName = Literal["ask", "prefill", "append", "restart", "replay"]

STRATEGIES = (Strategy.ASK, Strategy.PREFILL, Strategy.APPEND, Strategy.RESTART, Strategy.REPLAY)

WORDING = (
    "Your reply broke off. Write the missing rest of it, to its end. Start by copying this text exactly:\n\n{anchor}"
)
"""Short, the verb "copy", the anchor bare and last: small models obey longer wordings, marks around the anchor and
lists of what not to do less."""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation, in neutral terms. `role` is "user" or "assistant"."""

    role: str
    text: str


@dataclass(frozen=True)
class Continuation:
    """How one model is asked to go on.

    Args:
        strategy: A `Strategy` or its name: "ask", "prefill", "append", "restart", or "replay" for a server that keeps
            its streams.
        wording: The user turn of the strategy "ask". `{anchor}` in it stands for the last words of the partial answer.
            Translate it freely. Without `{anchor}` no anchor is expected and the join is found by other means.
        anchor_length: Least number of characters (Unicode code points) in the anchor.
        extra: Keyword arguments for the wrapped LLM's stream call, sent with prefill requests only.
        keeps_trailing_space: Whether a prefill ends as the partial answer does. Some APIs (Claude's) refuse one that
            ends in white space; without it other models, for which ".\\n\\n" is one token, write on in the same line.

    Raises:
        ConfigurationError: The strategy is unknown, `anchor_length` is less than 1, or a value has the wrong type.

    Example:
        vLLM and SGLang want two flags with a prefill::

            flags = {"continue_final_message": True, "add_generation_prompt": False}
            llm = ResilientLLM(OpenAILike(...), continuation=Continuation("prefill", extra={"extra_body": flags}))
    """

    strategy: Strategy | StrategyName = Strategy.ASK
    wording: str = WORDING
    anchor_length: int = 40
    extra: Mapping[str, Any] = field(default_factory=dict)
    keeps_trailing_space: bool = True

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            names = ", ".join(repr(str(strategy)) for strategy in STRATEGIES)
            raise ConfigurationError(
                f'Continuation strategy {self.strategy!r} is unknown. Use one of {names}: Continuation("ask").'
            )
        object.__setattr__(self, "strategy", Strategy(self.strategy))  # its name alone will do
        if not isinstance(self.wording, str):
            raise ConfigurationError(
                f"Continuation.wording is {self.wording!r}. Write a text: "
                f'wording="Go on. Begin by repeating: {{anchor}}".'
            )
        if isinstance(self.anchor_length, bool) or not isinstance(self.anchor_length, int) or self.anchor_length < 1:
            raise ConfigurationError(
                f"anchor_length is {self.anchor_length!r}; it must be at least 1 character. Write anchor_length=40."
            )
        if not isinstance(self.extra, Mapping):
            raise ConfigurationError(
                f"Continuation.extra is {self.extra!r}. Write keyword arguments as a dict: "
                f'extra={{"extra_body": {{"continue_final_message": True}}}}.'
            )
        if not isinstance(self.keeps_trailing_space, bool):
            raise ConfigurationError(
                f"keeps_trailing_space is {self.keeps_trailing_space!r}; it is True or False. "
                f"Write keeps_trailing_space=False."
            )

    def with_strategy(self, strategy: Strategy) -> Self:
        """Return it for another way to continue. Of a subclass it is the same class."""
        return self if strategy is self.strategy else self._with("strategy", strategy)

    def with_longer_anchor(self) -> Self:
        """Return it with an anchor twice as long. Of a subclass it is the same class."""
        return self._with("anchor_length", 2 * self.anchor_length)

    def without_trailing_space(self) -> Self:
        """Return it for an API that refuses white space at the end of a prefill. Of a subclass it is the same class."""
        return self._with("keeps_trailing_space", False)

    def with_extra(self, extra: Mapping[str, Any]) -> Self:
        """Return it with these keyword arguments, unless it has some of its own. Of a subclass it is the same class."""
        return self if self.extra or not extra else self._with("extra", extra)

    def _with(self, name: str, value: Any) -> Self:
        other = copy.copy(self)  # `dataclasses.replace` would call a subclass's own __init__
        object.__setattr__(other, name, value)  # frozen for everybody else
        return other

    def anchor(self, partial_text: str) -> str:
        """Return the end of `partial_text` that the model is asked, or bound, to begin with; "" where there is none."""
        partial_text = sendable(partial_text)
        match self.strategy:
            case "ask":
                return anchor_of(partial_text, self.anchor_length) if "{anchor}" in self.wording else ""
            case "prefill" if not self.keeps_trailing_space:
                return partial_text[len(partial_text.rstrip()) :]  # left away, and expected back
            case _:
                return ""

    def turns(self, partial_text: str) -> tuple[Turn, ...]:
        """Return the turns that follow the user's own messages. Empty for "append" and "restart"."""
        partial_text = sendable(partial_text)
        match self.strategy:
            case "ask":
                nudge = self.wording.replace("{anchor}", self.anchor(partial_text))
                return Turn("assistant", partial_text), Turn("user", nudge)
            case "prefill":
                return (Turn("assistant", partial_text if self.keeps_trailing_space else partial_text.rstrip()),)
            case _:
                return ()


def anchor_of(partial_text: str, least: int = 40) -> str:
    """Return the last `least` characters of `partial_text`, or up to twice as many to begin with a whole word.

    A model repeats whole words more faithfully than halves, and never has to begin inside a character that a
    reader sees as one (a letter and its accents, an emoji and its joiners).
    """
    if len(partial_text) <= least:
        return partial_text
    latest = len(partial_text) - least
    earliest = max(0, latest - least)
    for start in range(latest, earliest, -1):
        if partial_text[start - 1].isspace() and not partial_text[start].isspace():
            return partial_text[start:]
    start = latest
    while start > earliest and _continues_a_character(partial_text, start):
        start -= 1
    return partial_text[start:]


def _continues_a_character(text: str, at: int) -> bool:
    """Return whether text[at] belongs to the character before it (UAX #29, roughly)."""
    char, before = text[at], text[at - 1]
    return (
        unicodedata.combining(char) > 0
        or unicodedata.category(char) in ("Mn", "Me", "Mc", "Cf")
        or before == "\u200d"
        or "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones
        or ("\U0001f1e6" <= char <= "\U0001f1ff" and "\U0001f1e6" <= before <= "\U0001f1ff")  # flags
    )
