"""Joins a turn that was restarted from its beginning: tools and structured output are never continued."""

from __future__ import annotations

from ...report import Certainty, JoinDecision
from ..surrogates import HalfJoiner, join_halves

RESET_MARK = "\n\n"
"""Stands between the old text and the new one where a restarted turn differs."""


class RestartJoin:
    """Compares a restarted turn with what the reader has of it. Has the interface of a `Seam`.

    While both are the same, nothing is shown; once the restarted turn goes on further, the rest is. When it differs,
    `reset` turns True, and the whole new turn is shown after a blank line. White space alone is nothing to differ from.

    Attributes:
        text: What has come of the restarted turn.
        settled: Whether text passes straight through from here on.
        reset: Whether the restarted turn differs from what was shown.
        decision: A `JoinDecision`; "" while undecided.
        certainty: "aligned" once it was found to repeat what was shown; a new telling is no joint.
        refused: Never: what differs is shown as a new telling. (A `RetellingJoin` refuses it.)
        dropped: Characters that the reader had already.
    """

    def __init__(self, shown: str) -> None:
        self._shown = join_halves(shown)
        self._halves = HalfJoiner()
        self.text = ""
        self.settled = False
        self.reset = False
        self.decision: str = ""
        self.certainty: Certainty | None = None
        self.refused = False
        self.dropped = 0
        self.leftover = ""
        self.most_held = 0

    def feed(self, text: str) -> str:
        """Take a piece of the restarted turn. Returns what can be shown now."""
        if self.settled:
            return text
        text = self._halves.feed(text)
        before = len(self.text)
        self.text += text
        common = self._shown[before : len(self.text)]
        if text[: len(common)] != common:
            return self._start_over()
        if len(self.text) < len(self._shown):
            self.dropped += len(text)
            return ""
        self.settled = True
        self.decision = JoinDecision.RESTART_MATCHED
        self.certainty = Certainty.ALIGNED
        self.dropped += len(common)
        return text[len(common) :] + self._halves.finish()

    def finish(self, *, complete: bool) -> str:
        """End the turn. One that is complete and shorter than what was shown differs from it."""
        self.text += self._halves.finish()
        if self.settled or not complete or self.text == self._shown:
            return ""
        return self._start_over()

    def _start_over(self) -> str:
        if not self._shown.strip():
            return self._begin()
        self.settled = True
        self.reset = True
        self.decision = JoinDecision.RESTART_DIFFERED
        self.text += self._halves.finish()
        self.dropped = 0
        return RESET_MARK + self.text

    def _begin(self) -> str:
        """Show the turn, of which the reader has white space alone: behind that, not with its own before it."""
        text = (self.text + self._halves.finish()).lstrip()
        self.settled = bool(text)
        self.dropped = len(self.text) - len(text)
        self.decision = JoinDecision.RESTART_MATCHED
        self.certainty = Certainty.ALIGNED
        return text


class RetellingJoin(RestartJoin):
    """Compares an answer that is told again with what the reader has of it. What differs is refused, not shown.

    Nothing else needs proof: whatever begins with the text that was shown, however short, goes on from there.
    """

    def feed(self, text: str) -> str:
        """Take a piece of the answer. Returns what can be shown now."""
        return "" if self.refused else super().feed(text)

    def _start_over(self) -> str:
        self.settled = self.refused = True
        self.decision = JoinDecision.AS_IS
        self.certainty = Certainty.UNVERIFIED
        self.dropped = len(self.text)
        return ""
