"""Matchers: the ways in which a continuation may repeat the partial text, each followed character by character.

    ExactAnchorMatcher    the anchor, as asked for
    LooseAnchorMatcher    the anchor with other white space or quotation marks, or between marks
    OverlapMatcher        any part of the partial text, repeated to its very end
    RepeatEndMatcher      what stands behind such a repeat
    GluedWordMatcher      a word that a plain join would glue to the last one

A matcher is "open" until it is "found" or "dead". What may come before a repeat is in `preambles.py`.
"""

from __future__ import annotations

import re
import unicodedata

from ...report import Certainty, JoinDecision
from .matcher import PAIRS, Matcher, Rank
from .measures import ENOUGH, weight
from .overlap import SIFTED_AFTER, PartialText
from .retold import RetoldMatcher

_FENCE = "```"
_SAME = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u2011": "-"})

_NUMBER_BEGUN, _LIST_NUMBER = re.compile(r"\d+[.)]?"), re.compile(r"\d+[.)]\s")
_LONGEST_NUMBER = 5  # "100. "
_SHORT_WORDS = ("I ", "I'", "I’", "A ")


class ExactAnchorMatcher(Matcher):
    """The anchor, as asked for. It counts whatever it is: short, periodic or white space."""

    certainty = Certainty.VERIFIED

    def __init__(self, partial: PartialText, anchor: str, *, rank: Rank = Rank.EXACT_ANCHOR) -> None:
        super().__init__(partial)
        self.rank = rank
        self._anchor = anchor
        self._matched = 0

    @property
    def is_repeating(self) -> bool:
        return self._matched > 0

    def match(self, index: int, char: str) -> list[Matcher]:
        if self._anchor[self._matched] != char:
            self.state = "dead"
            return []
        self._matched += 1
        if self._matched < len(self._anchor):
            return []
        self._found(index + 1)
        rank = Rank.RETOLD if self.rank == Rank.EXACT_ANCHOR else Rank.RETOLD_BEHIND_REPEAT
        return [RetoldMatcher(self.partial, index + 1, decision=self.decision, rank=rank)]


class LooseAnchorMatcher(Matcher):
    """The anchor, but for white space and typography, and perhaps between marks."""

    certainty = Certainty.VERIFIED

    def __init__(self, partial: PartialText, anchor: str, *, opening: str = "") -> None:
        super().__init__(partial)
        self._anchor = anchor
        self.opening = opening
        self._expected = _normalized(anchor)
        self._closing = _closing_of(opening)
        self._space = partial.trailing_space
        self._matched = 0

    @property
    def is_repeating(self) -> bool:
        return self._matched >= ENOUGH

    def match(self, index: int, char: str) -> list[Matcher]:
        if self._matched == len(self._expected):
            self._match_behind(index, char)
            return []
        if self._matches(char):
            self.drop = index + 1
            if self._matched == len(self._expected):
                return self._behind(index + 1)
        elif not (char.isspace() and self._expected[self._matched - 1 : self._matched] == " "):
            self.state = "dead"
        return []

    def _matches(self, char: str) -> bool:
        """Whether it is the next character, in whatever composition; the first one may be a capital."""
        for part in unicodedata.normalize("NFD", char.translate(_SAME)):
            expected = self._expected[self._matched : self._matched + 1]
            capital = self._matched == 0 and part == expected.upper()
            if not (part == expected or capital or (expected == " " and part.isspace())):
                return False
            self._matched += 1
        return True

    def _behind(self, index: int) -> list[Matcher]:
        """What may follow, now that all of it has come."""
        again = RetoldMatcher(self.partial, index, decision=JoinDecision.ANCHOR, space=self.partial.trailing_space)
        if self._closing:
            return [again]
        self.state = "dead"
        position = self.partial.end - len(self._anchor)
        end = RepeatEndMatcher(self.partial, position, index, opening=self.opening, decision=JoinDecision.ANCHOR)
        return [end, again]

    def _match_behind(self, index: int, char: str) -> None:
        """Drop the white space that the reader has already, and the closing marks, in either order."""
        if self._closing[:1] == char:
            self._closing = self._closing[1:]
        elif self._space[:1] == char:
            self._space = self._space[1:]
        else:
            self._found(self.drop)
            return
        self.drop = index + 1

    def finish(self) -> None:
        complete = self._matched == len(self._expected)
        self.state = "found" if complete else "dead"


class OverlapMatcher(Matcher):
    """Some part of the partial text, repeated. It counts only if the repeat gets to the very end."""

    def __init__(self, partial: PartialText, *, opening: str = "") -> None:
        super().__init__(partial)
        self.opening = opening
        self._candidates: list[int] = []  # positions at which the repeat may have begun
        self._matched = 0

    @property
    def is_repeating(self) -> bool:
        return self._matched >= ENOUGH

    def match(self, index: int, char: str) -> list[Matcher]:
        self._advance(char)
        complete = self.partial.end - self._matched
        begun: list[Matcher] = []
        if complete in self._candidates:
            self._candidates.remove(complete)
            if self.partial.is_proof(complete):
                decision = self._decision_at(complete)
                end = RepeatEndMatcher(self.partial, complete, index + 1, opening=self.opening, decision=decision)
                begun = [
                    end,
                    RetoldMatcher(self.partial, index + 1, decision=decision, space=self.partial.trailing_space),
                ]
        if not self._candidates:
            self.state = "dead"
        return begun

    def _decision_at(self, position: int) -> JoinDecision:
        if self.opening.strip() in self.partial.openings and position >= self.partial.anchor_start:
            return JoinDecision.ANCHOR
        return self.partial.decision_at(position)

    def _advance(self, char: str) -> None:
        if self._matched == 0:
            self._candidates = self.partial.positions_of(char)
            if self.opening:  # where the partial text has it too, another matcher follows the repeat from there
                ends = self.partial.text.endswith
                self._candidates = [p for p in self._candidates if not ends(self.opening, 0, p)]
        else:
            text, behind = self.partial.text, self._matched
            self._candidates = [p for p in self._candidates if text[p + behind] == char]
        self._matched += 1
        if self._matched == SIFTED_AFTER:
            self._candidates = self.partial.sift(self._candidates)

    @property
    def has_one_candidate(self) -> bool:
        """Whether only one position is left, and a good deal of it has been repeated."""
        return len(self._candidates) == 1 and self._matched >= ENOUGH

    def matching_length(self, text: str, index: int) -> int:
        """Return how many characters of `text` from `index` only confirm the one candidate that is left."""
        begin = self._candidates[0] + self._matched
        length = min(len(text) - index, self.partial.end - begin - 1)
        return length if length > 0 and self.partial.text.startswith(text[index : index + length], begin) else 0

    def skip(self, length: int) -> None:
        """Take as many characters as `matching_length` returned, without reading them one by one."""
        self._matched += length


class RepeatEndMatcher(Matcher):
    """What stands behind a complete repeat: first the white space that the reader has already.

    If the same is said yet another time, this is how the text goes, and none of it is a repeat.
    """

    rank = Rank.REPEAT_END

    def __init__(self, partial: PartialText, position: int, drop: int, *, opening: str, decision: JoinDecision) -> None:
        super().__init__(partial)
        self.decision = decision
        self.opening = opening
        self.certainty = Certainty.VERIFIED if decision == JoinDecision.ANCHOR else Certainty.ALIGNED
        self.drop = drop
        piece = partial.text[position : partial.end]
        self._again = partial.trailing_space + opening + piece
        if weight(piece) < SIFTED_AFTER:
            self.rank = Rank.SHORT_REPEAT
        self._matched = 0
        # One capital is proof only if the word goes on in lower case. "Cs" may follow "C" in "CCs".
        self._is_letter = sum(map(str.isalnum, piece)) == 1 and not partial.trailing_space

    @property
    def is_repeating(self) -> bool:
        return True

    def match(self, index: int, char: str) -> list[Matcher]:
        if self._is_letter and not (char.islower() and char != "s"):
            self.state = "dead"
        elif self._again[self._matched] != char:
            self._found(self.drop)
        else:
            self._matched += 1
            if self._matched <= len(self.partial.trailing_space):
                self.drop = index + 1
            if self._matched == len(self._again):
                self.state = "dead"
        return []

    def finish(self) -> None:
        again = self._matched - len(self.partial.trailing_space)
        repeats_on = again >= min(ENOUGH, len(self._again) // 2)
        self.state = "dead" if repeats_on or self._is_letter else "found"


class GluedWordMatcher(Matcher):
    """What would be glued to the last word: a capital, or the number of a list. Explains nothing by itself.

    Attributes:
        is_glued: Whether a word would be, which nobody writes who goes on exactly.
    """

    rank = Rank.NONE

    def __init__(self, partial: PartialText) -> None:
        super().__init__(partial)
        self.is_glued = False
        self._text = ""
        self._before = "" if partial.trailing_space or partial.fence else partial.text[-2:]
        last = self._before[-1:]
        if not (last.isalnum() or last in (",", "，")) or partial.has_inner_capitals:
            self.state = "dead"

    def match(self, index: int, char: str) -> list[Matcher]:
        self._text += char
        glued = self._glued()
        if glued is not None:
            self.is_glued, self.state = glued, "dead"
        return []

    def _glued(self) -> bool | None:
        """Whether it is glued; None while that is open."""
        first, second = self._text[0], self._text[1:2]
        if first.isupper():
            if self._before[-1].isupper():
                return False
            if not second:
                return None
            return second.islower() or (self._before.isalpha() and first + second in _SHORT_WORDS)
        if not first.isdecimal() or not self._before[-1].isalpha() or len(self._text) > _LONGEST_NUMBER:
            return False
        return None if _NUMBER_BEGUN.fullmatch(self._text) else _LIST_NUMBER.fullmatch(self._text) is not None


def _normalized(anchor: str) -> str:
    return unicodedata.normalize("NFD", " ".join(anchor.split()).translate(_SAME))


def _closing_of(opening: str) -> str:
    """The marks that close what these open."""
    if opening.strip() == _FENCE and opening.endswith("\n"):
        return f"\n{_FENCE}\n"
    return "".join(PAIRS.get(mark, mark) for mark in reversed(opening.strip()))
