"""What the model would say now: the part that FaultServer and ScriptedLLM share.

The scripted model knows one text. Asked for the first time it says all of it. Asked to go on, it finds out
how much it has said already and answers in one of the HABITS: it obeys the anchor, starts the sentence again,
says something polite first, and so on.

Recognised requests to go on:

    ask       ..., assistant: <beginning of the text>, user: <an instruction that quotes the last words>
    prefill   ..., assistant: <beginning of the text>
    append    <a prompt heard before><beginning of the text>, for completion models
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .continuation_styles import HABITS, find_anchor

Habit: TypeAlias = "str | Callable[[str, str, str], str]"
Tokenise: TypeAlias = "int | Callable[[str], Sequence[str]]"

# Fewer characters of `said` turn up in almost any instruction by chance. An anchor this short is still one
# where it is all that was said.
LEAST_ANCHOR = 8
# The same for the end of a prompt that was not heard before.
LEAST_SAID = 16


@dataclass(frozen=True)
class Heard:
    """How the model understood a request.

    `said` is what it has said before (a beginning of its text), `anchor` the end of it that it was asked to
    repeat.
    """

    kind: Literal["answer", "ask", "prefill", "append"] = "answer"
    said: str = ""
    anchor: str = ""


class ScriptedModel:
    """A model that knows one text.

    `habit` is a name from HABITS or a function (text, said, anchor) -> continuation; a sequence of them is
    used one per continuation, the last one from then on. `token` is the number of characters per token, or a
    function that splits a text into tokens (which must add up to the text).
    """

    def __init__(self, text: str, habit: Habit | Sequence[Habit] = "anchor", token: Tokenise = 4) -> None:
        self.text = text
        self._habits = _habits(habit)
        self._token = token
        self._continuations = itertools.count()
        self._prompts: list[str] = []

    def hear_turns(self, turns: Sequence[tuple[str, str]]) -> Heard:
        """Understand a conversation of (role, text)."""
        if not turns:
            return Heard()
        role, last = turns[-1]
        if role == "assistant":
            return Heard("prefill", last) if self._is_mine(last) else Heard()
        if role != "user" or len(turns) < 2 or turns[-2][0] != "assistant":
            return Heard()
        said = turns[-2][1]
        anchor = find_anchor(said, last) if self._is_mine(said) else ""
        if len(anchor) < min(LEAST_ANCHOR, len(said)):
            anchor = ""
        if not self._is_mine(said) or (said == self.text and not anchor):
            return Heard()  # an answer of before, and now another question
        return Heard("ask", said, anchor)

    def hear_prompt(self, prompt: str) -> Heard:
        """Understand a completion prompt: one heard before plus a beginning of the text, or a new one."""
        known = (prompt[len(p) :] for p in self._prompts if prompt.startswith(p))
        said = min((rest for rest in known if self.text.startswith(rest)), key=len, default=None)
        if said is None:
            said = self._end_of(prompt)
            self._prompts.append(prompt[: len(prompt) - len(said)])
        return Heard("append", said) if said else Heard()

    def reply(self, heard: Heard) -> str:
        """What the model says now, all of it."""
        if heard.kind == "answer":
            return self.text
        habit = self._habits[min(next(self._continuations), len(self._habits) - 1)]
        return habit(self.text, heard.said, heard.anchor)

    def tokens(self, text: str) -> list[str]:
        """`text` in the pieces in which it is streamed."""
        if callable(self._token):
            return [piece for piece in self._token(text) if piece]
        return [text[at : at + self._token] for at in range(0, len(text), self._token)]

    def _is_mine(self, said: str) -> bool:
        return bool(said) and self.text.startswith(said)

    def _end_of(self, prompt: str) -> str:
        longest = min(len(prompt), len(self.text))
        for length in range(longest, LEAST_SAID - 1, -1):
            if prompt.endswith(self.text[:length]):
                return self.text[:length]
        return ""


def _habits(habit: Habit | Sequence[Habit]) -> list[Callable[[str, str, str], str]]:
    several = [habit] if isinstance(habit, str) or callable(habit) else list(habit)
    unknown = [name for name in several if isinstance(name, str) and name not in HABITS]
    if unknown or not several:
        raise ValueError(f"There is no habit {unknown!r}. Known: {', '.join(HABITS)}.")
    return [HABITS[name] if isinstance(name, str) else name for name in several]
