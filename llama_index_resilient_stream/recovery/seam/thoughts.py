"""Thoughts in the text: models that think between marks do so again at the beginning of a continuation.

The thought is the model's and not the answer's: it is skipped, however long it is, and counts against no bound. To
teach it another model's marks, add a row to MARKS.
"""

from __future__ import annotations

import re
from typing import Literal

MARKS: tuple[tuple[str, str], ...] = (
    # opening mark            closing mark
    ("<think>", "</think>"),  # DeepSeek, Qwen and what was distilled from them
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),  # OpenAI's harmony format
    ("<|channel>thought", "<channel|>"),  # Gemma
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere
    ("[THINK]", "[/THINK]"),  # Mistral
    ("◁think▷", "◁/think▷"),  # Kimi
)

_CLOSES = tuple(close for _, close in MARKS)
_LONGEST = max(len(mark) for marks in MARKS for mark in marks)
_LINE_ENDS = re.compile(r"\s*\n")


class ThoughtFilter:
    """Skips a thought at the beginning of a continuation.

    Args:
        partial_text: What was said before. Where its last line quotes code, marks that follow are the answer's own.
            Where it has a closing mark, the model is known to think, and may do so without an opening mark: some
            servers' templates open the thought themselves. Where a thought is open at its end, the closing mark of
            the next one is the answer's, so that what is shown has one beginning and one end.
        marked_only: Only a thought with an opening mark is one.
        anchor: What the continuation was asked to begin with. Where it may be taken for a thought (an answer about such
            marks), what begins with it is none.

    Attributes:
        skipped: Characters that were not passed on.
        thinks: Whether the continuation is inside a thought, so that nothing of the answer is held back.
    """

    def __init__(self, partial_text: str, *, marked_only: bool = False, anchor: str = "") -> None:
        self.skipped = 0
        self._held = ""
        self._open = _open_mark_of(partial_text)
        self._closing = ""
        self._state: Literal["begin", "unmarked", "inside", "behind", "done"] = "begin"
        known = not self._open and any(close in partial_text for close in _CLOSES)
        self._may_lack_opening = known and not marked_only
        self._anchor = anchor if self._may_lack_opening or _may_open_thought(anchor) else ""
        if _quotes_code(partial_text):
            self._state = "done"

    @property
    def thinks(self) -> bool:
        """Whether the continuation is inside a thought."""
        return self._state == "inside"

    @property
    def repeats_anchor(self) -> bool:
        """Whether what is held back is the beginning of the anchor."""
        return bool(self._held) and self._state == "begin" and self._anchor.startswith(self._held)

    @property
    def done(self) -> bool:
        """Whether all that comes is passed on from here on."""
        return self._state == "done"

    def feed(self, text: str) -> str:
        """Take a piece of the continuation. Returns what of it is no thought, as far as that is known."""
        if self._state == "done":
            return text
        self._held += text
        if self._state == "begin":
            self._look_for_opening()
        if self._state in ("inside", "unmarked"):
            self._look_for_closing()
        return self._behind() if self._state == "behind" else self._passed_on()

    def finish(self) -> str:
        """The continuation has ended. Returns what was held back and is no thought."""
        held, self._held = self._held, ""
        if self._state == "inside":
            self.skipped += len(held)
            held = ""
        self._state = "done"
        return held

    def _look_for_opening(self) -> None:
        if self._anchor and self._held.startswith(self._anchor):
            self._state = "done"
        if self._state == "done" or self.repeats_anchor:
            return
        bare = self._held.lstrip()
        for opening, closing in MARKS:
            if bare.startswith(opening):
                self._state, self._closing = "inside", closing
                return
            if opening.startswith(bare):  # also where nothing but white space has come
                return
        self._state = "unmarked" if self._may_lack_opening else "done"

    def _look_for_closing(self) -> None:
        closings = (self._closing,) if self._closing else _CLOSES
        found = [(at, closing) for closing in closings if (at := self._held.find(closing)) != -1]
        if found:
            at, closing = min(found)
            kept = closing if self._open else ""
            self.skipped += at + len(closing) - len(kept)
            self._held = kept + self._held[at + len(closing) :]
            self._state = "behind"
        elif self._state == "inside" and len(self._held) > _LONGEST:
            self.skipped += len(self._held) - _LONGEST
            self._held = self._held[-_LONGEST:]

    def _behind(self) -> str:
        """What stands behind the thought; the line ends that close it belong to it."""
        if self._open:
            return self._passed_on("done")
        bare = self._held.lstrip()
        if not bare:
            return ""
        gap = _LINE_ENDS.match(self._held)
        if gap is not None:
            self.skipped += gap.end()
            self._held = self._held[gap.end() :]
        return self._passed_on("done")

    def _passed_on(self, state: Literal["done"] | None = None) -> str:
        self._state = state or self._state
        if self._state != "done":
            return ""
        held, self._held = self._held, ""
        return held


def _may_open_thought(text: str) -> bool:
    """Whether a text begins with an opening mark, or with a part of one."""
    return bool(text) and any(text.startswith(opening) or opening.startswith(text) for opening, _ in MARKS)


def _open_mark_of(text: str) -> str:
    """The mark of a thought that is open at the end of the text; "" where there is none."""
    for opening, closing in MARKS:
        if text.rfind(opening) > text.rfind(closing):
            return opening
    return ""


def _quotes_code(text: str) -> bool:
    """Whether the text ends inside a fenced block or between backticks, where marks are an example."""
    last_line = text[text.rfind("\n") + 1 :]
    return text.count("```") % 2 == 1 or last_line.count("`") % 2 == 1
