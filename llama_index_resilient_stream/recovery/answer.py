"""The text of one answer, as its reader has it."""

from __future__ import annotations

from collections.abc import Callable

from ..report import StreamReport


class AnswerText:
    """Grows as text is shown, over all attempts. Its length is kept in the report.

    Args:
        text: what the reader has from before, when an interrupted answer is taken up again.
    """

    def __init__(self, text: str, report: StreamReport, clock: Callable[[], float]) -> None:
        self._parts = [text] if text else []
        self._report = report
        self._clock = clock
        self._report.characters = len(text)
        self.grown_at = clock()
        """When text was added last."""
        self.chunks = 0
        """How many pieces of text came since the answer began, or since `begin_limit()`."""
        self._limit_began = 0

    @property
    def text(self) -> str:
        """The whole text so far."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def add(self, text: str) -> None:
        """Show more."""
        self._parts.append(text)
        self.chunks += 1
        self.grown_at = self._clock()
        self._report.characters += len(text)

    def reset(self) -> None:
        """A restarted turn says something else: begin anew, and count it."""
        self.clear()
        self._report.resets += 1

    def clear(self) -> None:
        """Begin anew."""
        self._parts = []
        self._report.characters = 0

    def begin_limit(self) -> None:
        """From here on the text counts towards a new output limit."""
        self._limit_began = len(self.text)
        self.chunks = 0

    @property
    def within_limit(self) -> str:
        """The text that counts towards the current output limit."""
        return self.text[self._limit_began :]
