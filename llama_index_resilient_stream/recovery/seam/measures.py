"""Measures of a piece of text: how much it says, how varied it is, whether it repeats itself."""

from __future__ import annotations

import re
import unicodedata

ENOUGH = 16
"""Weight from which a piece may prove a repeat: below it repeats are missed, above it true text is deleted."""
NEAR = 400
"""Characters at the end of the partial text in which an overlap may begin in the middle of a sentence."""

_SPACES = re.compile(r"[ \t]+")


def weight(piece: str) -> int:
    """Return how much a piece says, in Latin letters: a wide character counts twice, a run of spaces once.

    Only the beginning is weighed: the result is exact up to `ENOUGH`, and at least `ENOUGH` for anything longer.
    """
    head = _SPACES.sub(" ", piece[: 4 * ENOUGH])
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in head)


def is_varied(piece: str, least: int) -> bool:
    """Return whether a piece has `least` different characters and some letters: rulers, zeros and brackets have not."""
    head = piece[:NEAR]
    return len(set(head) - set(" \t\n")) >= least and sum(map(str.isalnum, head[: 4 * ENOUGH])) >= 4


class Work:
    """Counts the characters that are compared, and says when it is enough.

    A text of 200,000 line breaks repeats itself in so many ways that to look at all of them takes seconds.

    Args:
        limit: Characters to compare at most, over all comparisons.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.done = 0

    def take(self, characters: int) -> bool:
        """Count a comparison of that many characters. Returns whether it may be made."""
        if self.done + characters > self.limit:
            self.done = self.limit
            return False
        self.done += characters
        return True

    @property
    def is_spent(self) -> bool:
        """Whether no more comparisons may be made."""
        return self.done >= self.limit


def is_periodic(piece: str, work: Work | None = None) -> bool:
    """Return whether a piece says the same thing twice, or almost; True as well where `work` is spent before."""
    most = len(piece) * 5 // 9
    needle = piece[: min(len(piece) - most, 256)]  # short, for the sake of very long and very repetitive texts
    period = piece.find(needle, 1)
    while 0 < period <= most:
        if work is not None and not work.take(len(piece)):
            return True
        if piece.startswith(piece[period : period + 4096]) and piece.startswith(piece[period:]):
            return True
        period = piece.find(needle, period + 1)
    return False
