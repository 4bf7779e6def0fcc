"""The model behind FaultServer and ScriptedLLM: it knows one text, and can be asked to continue it.

Asked for the first time it answers with the whole text. Asked to continue, it finds out how much of its text the
request gives back to it, and answers in one of the CONTINUATION_STYLES: it obeys the anchor, begins the sentence again,
adds a courtesy first, and so on.

Requests that are recognised as continuations:

    ask       ..., assistant: <beginning of the text>, user: <an instruction that quotes the last words>
    prefill   ..., assistant: <beginning of the text>
    append    <an earlier prompt><beginning of the text>, for completion models
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from ..errors import ConfigurationError
from .continuation_styles import CONTINUATION_STYLES, ContinuationStyle, find_anchor

StyleOrName: TypeAlias = "str | ContinuationStyle"
Tokenizer: TypeAlias = "int | Callable[[str], Sequence[str]]"

# Fewer characters of the partial text turn up in almost any instruction by chance. A shorter anchor counts only where
# it is the whole partial text.
LEAST_ANCHOR = 8
# Fewer characters at the end of a prompt that is not known yet are there by chance, too.
LEAST_PARTIAL_TEXT = 16


class RequestKind(StrEnum):
    """What a request asks of the scripted model: the whole answer, or a continuation in one of three forms."""

    ANSWER = "answer"
    ASK = "ask"
    PREFILL = "prefill"
    APPEND = "append"


@dataclass(frozen=True)
class ParsedRequest:
    """How the scripted model understood a request.

    Attributes:
        kind: What is asked of it.
        partial_text: The beginning of its text that the request gives back to it.
        anchor: The end of `partial_text` that it was asked to repeat.
    """

    kind: RequestKind = RequestKind.ANSWER
    partial_text: str = ""
    anchor: str = ""


class ScriptedModel:
    """A model that knows one text.

    Args:
        text: The text.
        continuation_style: A name from CONTINUATION_STYLES, or a function (text, partial_text, anchor) ->
            continuation. A sequence is used one per continuation, its last entry from then on.
        token: The number of characters per token, or a function that splits a text into tokens, which must add up to
            the text.

    Raises:
        ConfigurationError: No continuation style has that name.
    """

    def __init__(
        self,
        text: str,
        continuation_style: StyleOrName | Sequence[StyleOrName] = "anchor",
        token: Tokenizer = 4,
    ) -> None:
        self.text = text
        self._styles = _styles(continuation_style)
        self._token = token
        self._continuations = itertools.count()
        self._prompts: list[str] = []

    def parse_turns(self, turns: Sequence[tuple[str, str]]) -> ParsedRequest:
        """Understand a conversation of (role, text)."""
        if not turns:
            return ParsedRequest()
        role, last = turns[-1]
        if role == "assistant":
            return ParsedRequest(RequestKind.PREFILL, last) if self._begins_my_text(last) else ParsedRequest()
        if role == "user" and len(turns) > 1 and turns[-2][0] == "assistant":
            return self._parse_instruction(turns[-2][1], last)
        return ParsedRequest()

    def _parse_instruction(self, partial_text: str, instruction: str) -> ParsedRequest:
        if not self._begins_my_text(partial_text):
            return ParsedRequest()
        anchor = find_anchor(partial_text, instruction)
        if len(anchor) < min(LEAST_ANCHOR, len(partial_text)):
            anchor = ""
        if partial_text == self.text and not anchor:
            return ParsedRequest()  # a complete answer, and now another question
        return ParsedRequest(RequestKind.ASK, partial_text, anchor)

    def parse_prompt(self, prompt: str) -> ParsedRequest:
        """Understand a completion prompt: an earlier one and a beginning of the text, or a new one."""
        known = (prompt[len(p) :] for p in self._prompts if prompt.startswith(p))
        partial_text = min((rest for rest in known if self.text.startswith(rest)), key=len, default=None)
        if partial_text is None:
            partial_text = self._end_of(prompt)
            self._prompts.append(prompt[: len(prompt) - len(partial_text)])
        return ParsedRequest(RequestKind.APPEND, partial_text) if partial_text else ParsedRequest()

    def reply(self, request: ParsedRequest) -> str:
        """Return the whole reply to a request."""
        if request.kind is RequestKind.ANSWER:
            return self.text
        style = self._styles[min(next(self._continuations), len(self._styles) - 1)]
        return style(self.text, request.partial_text, request.anchor)

    def tokens(self, text: str) -> list[str]:
        """Split `text` into the pieces in which it is streamed."""
        if callable(self._token):
            return [piece for piece in self._token(text) if piece]
        return [text[at : at + self._token] for at in range(0, len(text), self._token)]

    def _begins_my_text(self, partial_text: str) -> bool:
        return bool(partial_text) and self.text.startswith(partial_text)

    def _end_of(self, prompt: str) -> str:
        longest = min(len(prompt), len(self.text))
        for length in range(longest, LEAST_PARTIAL_TEXT - 1, -1):
            if prompt.endswith(self.text[:length]):
                return self.text[:length]
        return ""


def _styles(style: StyleOrName | Sequence[StyleOrName]) -> list[ContinuationStyle]:
    several = [style] if isinstance(style, str) or callable(style) else list(style)
    unknown = [name for name in several if isinstance(name, str) and name not in CONTINUATION_STYLES]
    if unknown or not several:
        raise ConfigurationError(
            f"There is no continuation style {unknown!r}. Known: {', '.join(CONTINUATION_STYLES)}."
        )
    return [CONTINUATION_STYLES[name] if isinstance(name, str) else name for name in several]
