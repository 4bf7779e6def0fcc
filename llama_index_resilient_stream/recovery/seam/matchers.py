"""The ways to understand the beginning of a continuation, each followed character by character.

    ExactAnchor    the anchor, as asked for
    LooseAnchor    the anchor with other white space, or other quotation marks, or between marks
    Retelling      something said before, told again to its very end; then Retold

A reading is "open" until it is "found" or "dead". What may come before these is in `leads.py`.
"""

from __future__ import annotations

from typing import Literal

from .overlap import ENOUGH, SIFTED_AFTER, SaidText, weight

# Ranks: a finding waits for the open readings of a better rank.
SURE, LIKELY, PERHAPS, LAST, LEADING, FAINT = range(6)

_PAIRS = dict(zip("“„«»‘‹「『《<([（【", "”“»«’›」』》>)]）】", strict=True)) | {"…": "", ".": ""}
MARKS = frozenset(_PAIRS) | frozenset("\"'`*_>")
_SAME = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u2011": "-"})


class Reading:
    """One way to understand it. `join` is how much of the continuation is not to be shown, once it is found."""

    rank = LIKELY
    name = ""

    def __init__(self, told: SaidText) -> None:
        self.told = told
        self.state: Literal["open", "found", "dead"] = "open"
        self.join = 0

    @property
    def is_strong(self) -> bool:
        """Whether this is so probable by now that patience needs no limit."""
        return False

    def read(self, at: int, char: str) -> list[Reading]:
        """Take the character at this index of the continuation. Returns readings that begin behind it."""
        raise NotImplementedError

    def finish(self) -> None:
        """The continuation has ended properly, and this is still open."""
        self.state = "dead"

    def _found(self, join: int) -> None:
        self.state, self.join = "found", join


class ExactAnchor(Reading):
    """The anchor, as asked for: whatever the anchor is, this is taken at its word."""

    def __init__(self, told: SaidText, anchor: str, *, prefix: str = "") -> None:
        super().__init__(told)
        self.rank = LIKELY if prefix else SURE
        self.name = prefix + "anchor"
        self._anchor = anchor
        self._matched = 0

    @property
    def is_strong(self) -> bool:
        return self._matched > 0

    def read(self, at: int, char: str) -> list[Reading]:
        if self._anchor[self._matched] != char:
            self.state = "dead"
            return []
        self._matched += 1
        if self._matched == len(self._anchor):
            self._found(at + 1)
        return []


class LooseAnchor(Reading):
    """The anchor, but for white space and typography, and perhaps between marks."""

    def __init__(self, told: SaidText, anchor: str, *, opening: str = "", prefix: str = "") -> None:
        super().__init__(told)
        self.name = prefix + "anchor"
        self._anchor = anchor
        self._opening = opening
        self._expected = _loosely(anchor)
        self._closing = "".join(_PAIRS.get(mark, mark) for mark in reversed(opening.strip()))
        self._space = told.space
        self._matched = 0

    @property
    def is_strong(self) -> bool:
        return self._matched >= ENOUGH

    def read(self, at: int, char: str) -> list[Reading]:
        if self._matched == len(self._expected):
            self._read_behind(at, char)
            return []
        expected, char = self._expected[self._matched], char.translate(_SAME)
        if char == expected or (expected == " " and char.isspace()):
            self._matched += 1
            self.join = at + 1
            if self._matched == len(self._expected) and not self._closing:
                self.state = "dead"
                position = self.told.end - len(self._anchor)
                return [Retold(self.told, position, at + 1, opening=self._opening, name=self.name)]
        elif not (char.isspace() and self._expected[self._matched - 1 : self._matched] == " "):
            self.state = "dead"
        return []

    def _read_behind(self, at: int, char: str) -> None:
        """Behind the anchor: the white space that was said already, and the closing marks, in either order."""
        if self._space[:1] == char:
            self._space = self._space[1:]
        elif self._closing[:1] == char:
            self._closing = self._closing[1:]
        else:
            self._found(self.join)
            return
        self.join = at + 1

    def finish(self) -> None:
        complete = self._matched == len(self._expected)
        self.state = "found" if complete else "dead"


class Retelling(Reading):
    """Something said before, told again. Only if it gets to the very end of what was said."""

    def __init__(self, told: SaidText, *, opening: str = "", prefix: str = "") -> None:
        super().__init__(told)
        self._opening = opening
        self._prefix = prefix
        self._candidates: list[int] = []  # where in `said` the telling may have begun
        self._matched = 0

    @property
    def is_strong(self) -> bool:
        return self._matched >= ENOUGH

    def read(self, at: int, char: str) -> list[Reading]:
        self._advance(char)
        complete = self.told.end - self._matched
        begun: list[Reading] = []
        if complete in self._candidates:
            self._candidates.remove(complete)
            if self.told.is_proof(complete):
                name = self._prefix + self.told.name(complete)
                begun = [Retold(self.told, complete, at + 1, opening=self._opening, name=name)]
        if not self._candidates:
            self.state = "dead"
        return begun

    def _advance(self, char: str) -> None:
        if self._matched == 0:
            self._candidates = self.told.beginning_with(char)
            if self._opening:  # what is preceded by it in `said` too is told again from there, by another reading
                ends = self.told.text.endswith
                self._candidates = [p for p in self._candidates if not ends(self._opening, 0, p)]
        else:
            text, behind = self.told.text, self._matched
            self._candidates = [p for p in self._candidates if text[p + behind] == char]
        self._matched += 1
        if self._matched == SIFTED_AFTER:
            self._candidates = self.told.sift(self._candidates)

    @property
    def is_down_to_one(self) -> bool:
        return len(self._candidates) == 1 and self._matched >= ENOUGH

    def foresee(self, text: str, at: int) -> int:
        """How many characters from here only confirm the one candidate that is left. They need no reading."""
        begin = self._candidates[0] + self._matched
        length = min(len(text) - at, self.told.end - begin - 1)
        return length if length > 0 and self.told.text.startswith(text[at : at + length], begin) else 0

    def skip(self, length: int) -> None:
        """Take that many characters that were foreseen."""
        self._matched += length


class Retold(Reading):
    """Behind a complete retelling: first the white space that was said already.

    If the same is told yet another time, this is how the text goes, and none of it is a repetition.
    """

    rank = PERHAPS  # what began earlier and is being told still explains more

    def __init__(self, told: SaidText, position: int, join: int, *, opening: str, name: str) -> None:
        super().__init__(told)
        self.name = name
        self.join = join
        piece = told.text[position : told.end]
        self._again = told.space + opening + piece
        if weight(piece) < SIFTED_AFTER:  # "S" may be told again by "Sure, "
            self.rank = FAINT
        self._matched = 0
        # One capital is proof only if the word goes on in lower case. "Cs" may follow "C" in "CCs".
        self._is_letter = sum(map(str.isalnum, piece)) == 1 and not told.space

    @property
    def is_strong(self) -> bool:
        return True

    def read(self, at: int, char: str) -> list[Reading]:
        if self._is_letter and not (char.islower() and char != "s"):
            self.state = "dead"
        elif self._again[self._matched] != char:
            self._found(self.join)
        else:
            self._matched += 1
            if self._matched <= len(self.told.space):
                self.join = at + 1
            if self._matched == len(self._again):
                self.state = "dead"
        return []

    def finish(self) -> None:
        repeats_on = self._matched - len(self.told.space) >= min(ENOUGH, len(self._again) // 2)
        self.state = "dead" if repeats_on or self._is_letter else "found"


def _loosely(anchor: str) -> str:
    return " ".join(anchor.split()).translate(_SAME)
