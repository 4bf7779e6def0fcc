"""A turn told again from its beginning: tools and structured output are never continued, only restarted."""

from __future__ import annotations

RESET_MARK = "\n\n"


class RestartJoin:
    """Compares a turn that is told again with what the reader has seen of it.

    While both say the same, nothing is shown; once the new telling goes on further, the rest is. When it differs,
    `reset` turns True and the whole new telling is shown after a blank line. It has the interface of a `Seam`.
    """

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self.text = ""
        self.settled = False
        self.reset = False
        self.decision = ""
        self.dropped = 0
        self.leftover = ""
        self.most_held = 0

    def feed(self, text: str) -> str:
        """The part of `text` that can be shown now."""
        if self.settled:
            return text
        before = len(self.text)
        self.text += text
        common = self._shown[before : len(self.text)]
        if text[: len(common)] != common:
            return self._start_over()
        if len(self.text) < len(self._shown):
            self.dropped += len(text)
            return ""
        self.settled = True
        self.decision = "retold"
        self.dropped += len(common)
        return text[len(common) :]

    def finish(self, *, complete: bool) -> str:
        """The stream ended. A complete telling that is shorter than the shown one differs from it."""
        if self.settled or not complete or self.text == self._shown:
            return ""
        return self._start_over()

    def _start_over(self) -> str:
        self.settled = True
        self.reset = True
        self.decision = "told differently"
        self.dropped = 0
        return RESET_MARK + self.text
