"""The ways to understand the beginning of a continuation, each followed character by character.

    ExactAnchor    the anchor, as asked for
    LooseAnchor    the anchor with other white space, or other quotation marks, or between marks
    Retelling      something said before, told again to its very end
    Redundant      a line that is there already: the fence of the open code block, the head of the open table
    Courtesy       something polite first
    Lead           white space or marks before any of these

A reading is "open" until it is "found" or "dead". The first three end in themselves; the others open further
readings behind them, and are a finding of their own only if none of those comes true.
"""

from __future__ import annotations

from typing import Literal

from .courtesies import is_announcement, is_prose, opens_politely
from .repeats import ENOUGH, SIFTED_AFTER, Told, weight

# Ranks: a finding waits for the open readings of a better rank.
SURE, LIKELY, PERHAPS, LAST, LEADING, FAINT = range(6)

_PAIRS = {
    "“": "”",
    "„": "“",
    "«": "»",
    "»": "«",
    "‘": "’",
    "‹": "›",
    "「": "」",
    "『": "』",
    "《": "》",
    "<": ">",
}
_PAIRS |= {"(": ")", "[": "]", "（": "）", "【": "】", "…": "", ".": ""}
_MARKS = frozenset(_PAIRS) | frozenset("\"'`*_>")
_SAME = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u2011": "-"})
_LEAST_BEHIND_A_COURTESY = 4  # characters of an anchor
_ENDS_OF_COURTESIES = frozenset(":：.!。！…\n")
_LONGEST_LEAD = 12
_LONGEST_COURTESY = 200
_LONGEST_ANNOUNCEMENT = 120


class Reading:
    """One way to understand it. `join` is how much of the continuation is not to be shown, once it is found."""

    rank = LIKELY
    name = ""

    def __init__(self, told: Told) -> None:
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

    def __init__(self, told: Told, anchor: str, *, prefix: str = "") -> None:
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

    def __init__(self, told: Told, anchor: str, *, opening: str = "", prefix: str = "") -> None:
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

    def __init__(self, told: Told, *, opening: str = "", prefix: str = "") -> None:
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

    def __init__(self, told: Told, position: int, join: int, *, opening: str, name: str) -> None:
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


class Redundant(Reading):
    """A line that is there already and means nothing a second time."""

    rank = LAST

    def __init__(self, told: Told, anchor: str, line: str, *, name: str) -> None:
        super().__init__(told)
        self.name = name
        self._anchor = anchor
        self._line = line
        self._matched = 0

    def read(self, at: int, char: str) -> list[Reading]:
        if self._line[self._matched] != char:
            self.state = "dead"
            return []
        self._matched += 1
        if self._matched < len(self._line):
            return []
        self._found(at + 1)
        return behind_a_lead(self.told, self._anchor, prefix=self.name + "+")


class Courtesy(Reading):
    """Something polite first. It is dropped if the anchor or a retelling follows, or if it announces the rest."""

    rank = LEADING
    name = "polite"

    def __init__(self, told: Told, anchor: str) -> None:
        super().__init__(told)
        self._anchor = anchor
        self._text = ""
        self._may_announce = True
        self._announced = False

    def read(self, at: int, char: str) -> list[Reading]:
        if self._announced:  # a second line break belongs to the announcement, a third one does not
            self._found(at + 1 if char == "\n" and self.join == at else self.join)
            return []
        self._text += char
        if len(self._text) > _LONGEST_COURTESY or not self._is_plausible():
            self.state = "dead"
            return []
        self._note_announcement(at, char)
        if char not in _ENDS_OF_COURTESIES:
            return []
        return beginnings(self.told, self._anchor, prefix="polite+")

    def _is_plausible(self) -> bool:
        if len(self._text) == ENOUGH and self._text in self.told.text:
            return False  # what was said before is told again
        if opens_politely(self._text):
            return True
        # Nobody goes on with a capital letter inside a word.
        before = self.told.text[-1:]
        return before.islower() and self._text[0].isupper() and is_prose(self._text)

    def _note_announcement(self, at: int, char: str) -> None:
        """It ends with the first line break or colon: an answer may very well say later that it goes on."""
        before = self._text[-2:-1]
        ends = char == "\n" or before == "：" or (before == ":" and char == " ")
        if not ends or not self._may_announce or len(self._text) > _LONGEST_ANNOUNCEMENT:
            return
        self._may_announce = False
        restarts = self._text.startswith(self.told.last_sentence)
        within = self.told.is_within_a_sentence and not restarts
        self._announced = is_announcement(self._text, within_a_sentence=within)
        self.join = at + char.isspace()


class Lead(Reading):
    """White space or marks first. Something else may begin behind each of them."""

    rank = LEADING

    def __init__(self, told: Told, anchor: str, *, prefix: str = "") -> None:
        super().__init__(told)
        self._anchor = anchor
        self._prefix = prefix
        self._text = ""

    def read(self, at: int, char: str) -> list[Reading]:
        self._text += char
        if not (char.isspace() or char in _MARKS) or len(self._text) > _LONGEST_LEAD:
            self.state = "dead"
            return []
        return behind_a_lead(self.told, self._anchor, opening=self._text, prefix=self._prefix)


def beginnings(told: Told, anchor: str, *, prefix: str = "") -> list[Reading]:
    """What may begin here, or behind some white space or marks."""
    return [Lead(told, anchor, prefix=prefix), *behind_a_lead(told, anchor, prefix=prefix)]


def behind_a_lead(told: Told, anchor: str, *, opening: str = "", prefix: str = "") -> list[Reading]:
    """What may begin here, if nothing but `opening` came before."""
    readings: list[Reading] = []
    core = anchor.strip()
    if prefix and weight(core) >= _LEAST_BEHIND_A_COURTESY:
        readings.append(ExactAnchor(told, anchor, prefix=prefix))
    if core and told.is_solid(told.end - len(core)):
        readings.append(LooseAnchor(told, core, opening=opening, prefix=prefix))
    if opening.strip() in ("", "…", "..."):
        readings.append(Retelling(told, opening=opening, prefix=prefix))
    if not opening.strip() and not prefix.endswith(("fence+", "table+")):
        readings += _redundant_lines(told, anchor, prefix)
    return readings


def _redundant_lines(told: Told, anchor: str, prefix: str) -> list[Reading]:
    readings: list[Reading] = []
    # Without an info string it may as well be the fence that closes the block.
    if told.fence and told.fence[2].strip():
        readings.append(Redundant(told, anchor, told.fence.group(), name=prefix + "fence"))
    if told.table_head:
        readings.append(Redundant(told, anchor, told.table_head, name=prefix + "table"))
    return readings


def _loosely(anchor: str) -> str:
    return " ".join(anchor.split()).translate(_SAME)
