"""What every matcher is: one way to understand the beginning of a continuation."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

from ...report import Certainty, JoinDecision
from .overlap import PartialText


class Rank(IntEnum):
    """How good an explanation a matcher is. One that is found waits for the open ones of a better (lower) rank."""

    RETOLD = 0  # what follows the anchor may show that it is not the rest
    EXACT_ANCHOR = 1
    RETOLD_BEHIND_REPEAT = 2
    REPEAT = 3
    REPEAT_END = 4  # what began earlier and is still being repeated explains more
    REOPENED_BLOCK = 5
    PREAMBLE = 6
    SHORT_REPEAT = 7  # "S" may be repeated by "Sure, "
    NONE = 8  # explains nothing, and waits for more


PAIRS = dict(zip("“„«»‘‹「『《<([（【", "”“»«’›」』》>)]）】", strict=True)) | {"…": "", ".": ""}
MARKS = frozenset(PAIRS) | frozenset("\"'`*_>")
AROUND = " \t\r\n" + "".join(sorted(MARKS | frozenset(">”’›」』》»)]）】")))
"""White space and marks that may stand around a repeat."""


class Matcher:
    """One way to understand the beginning of a continuation.

    Attributes:
        state: "open" while it may still come true.
        drop: Characters of the continuation that are not to be shown, once it is found.
        decision: What it stands for, once it is found.
        certainty: How sure a join by it is, once it is found.
    """

    rank = Rank.REPEAT
    decision = JoinDecision.ANCHOR
    certainty = Certainty.UNVERIFIED
    opening = ""
    """White space and marks that came just before it."""
    adds_nothing = False
    """Whether it explains the whole continuation, and nothing of that is new."""
    refuses = False
    """Whether nothing of the continuation can be the rest."""

    def __init__(self, partial: PartialText) -> None:
        self.partial = partial
        self.state: Literal["open", "found", "dead"] = "open"
        self.drop = 0

    @property
    def is_repeating(self) -> bool:
        """Whether the continuation so far is so probably a repeat that holding it back needs no bound."""
        return False

    def match(self, index: int, char: str) -> list[Matcher]:
        """Take the character at `index` of the continuation. Returns matchers that begin behind it."""
        raise NotImplementedError

    def finish(self) -> None:
        """Decide, since the continuation has ended properly and this is still open."""
        self.state = "dead"

    def _found(self, drop: int) -> None:
        self.state, self.drop = "found", drop
