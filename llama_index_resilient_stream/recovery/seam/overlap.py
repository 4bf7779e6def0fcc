"""What counts as proof that a model is telling something again.

A wrong deletion is worse than a visible repeat. So a piece of text is proof only if it would hardly follow on itself
by chance: it runs to the very end of what was said, it is long or it begins a sentence, and it is neither periodic
nor a phrase that this text has used before.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property
from itertools import pairwise

ENOUGH = 16  # characters of proof; the knee between missed repeats and wrong deletions
ENOUGH_GLUED = 8  # at the beginning of a line or sentence, where a plain join would glue two words together
NEAR = 400  # an overlap that begins in the middle of nowhere is looked for in this many last characters
MOST_CANDIDATES = 64
SIFTED_AFTER = 4  # characters, after which only candidates that would be proof are followed
LOOK_ALIKE = 12  # characters that the beginnings of two lines share if the text is a list of the like
VOCABULARY = 12  # different letters that a text must have before a mere few may be proof

_BEGINNINGS = re.compile(r"\n[ \t]*|[.!?…؟।։][\"'»”’)\]*_]*\s+|[。！？；][」』”’）]*\s*")
_MARKERS = re.compile(r"[\s#>*+\-–•|\"'“„«(\[_`~]*(?:\d{1,3}[.)]\s+)?[*_\"'“„«]*")
_STOPS = ".!?…؟।։。！？；"
_WIDE_STOPS = "。！？；"
_CLOSERS = "\"'»”’)]*_」』）"
_SPACES = re.compile(r"[ \t]+")
_NO_WORD = " \t#>*+-–•|\"'“„«([{<_`~\\/:=.,;)]}%&$@!?^"
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)\n", re.MULTILINE)
_TABLE_HEAD = re.compile(r"^\|[^\n]*\|[ \t]*\n\|[ \t:|-]+\|[ \t]*\n", re.MULTILINE)


class SaidText:
    """What was said, seen as something that may be told again from some position to its end.

    White space at the end is kept apart: models rarely repeat it faithfully.

    Args:
        anew: whether what follows is a message of its own, which may open again what is open.
    """

    def __init__(self, said: str, *, anew: bool = True) -> None:
        self.text = said
        self.anew = anew
        self.end = len(said.rstrip())
        self.space = said[self.end :]
        self._proofs: dict[int, bool] = {}

    def beginning_with(self, char: str) -> list[int]:
        """The positions from which it may be told again, if the telling begins with this character."""
        near = max(0, self.end - NEAR)
        found = [p for p in self._beginnings if p < near and self.text[p] == char]
        position = self.text.find(char, near, self.end)
        while position != -1:
            if self.end - position >= ENOUGH // 2 or self.is_beginning(position):
                found.append(position)
            position = self.text.find(char, position + 1, self.end)
        return found

    def sift(self, positions: list[int]) -> list[int]:
        """Those that would be proof. Of very many, the outermost: text that repeats so much proves little."""
        if len(positions) > MOST_CANDIDATES:
            half = MOST_CANDIDATES // 2
            positions = positions[:half] + positions[-half:]
        return [p for p in positions if self.is_proof(p)]

    def is_proof(self, position: int) -> bool:
        """Whether hearing everything from here to the end again means that it is a repetition."""
        if position not in self._proofs:
            self._proofs[position] = self._is_proof(position)
        return self._proofs[position]

    def _is_proof(self, position: int) -> bool:
        piece = self.text[position : self.end]
        if self.fence and position == self.fence.start():
            code = self.text[self.fence.end() : self.end]
            return self.is_fence_telling and len(code) >= 4
        if is_periodic(piece) or self._goes_in_circles(position, piece):
            return False
        begins = self.is_beginning(position)
        if weight(self.text[position:]) >= ENOUGH:
            # What begins a line and stops within it may have been used before, as keys and prompts are.
            known = self.text.find(piece, 0, self.end - 1) != -1 and (not begins or self._is_whole(piece))
            return is_varied(piece, 6) and not known and (begins or not self._mixes_lines(piece))
        if position == 0 or not begins or self._vocabulary < VOCABULARY:
            return False
        return self._opens_a_sentence(position, piece) or self._opens_a_line(position, piece)

    def is_solid(self, position: int) -> bool:
        """Whether hearing all from here again would be no accident, were it asked for."""
        piece = self.text[position : self.end]
        solid = weight(piece) >= ENOUGH and is_varied(piece, 6)
        return solid and not is_periodic(piece) and not self._goes_in_circles(position, piece)

    def _goes_in_circles(self, position: int, piece: str) -> bool:
        """Whether this text has said the piece twice in a row before, or has begun to."""
        before = self.text[:position].rstrip()[-6:]
        begun = len(before) == 6 and self.text.endswith(before, 0, self.end) and any(map(str.isalnum, before))
        return begun or piece + self.space + piece in self.text

    def _is_whole(self, piece: str) -> bool:
        """Whether it comprises the end of a line or sentence."""
        return "\n" in piece or "\n" in self.space or piece.endswith(tuple(_STOPS))

    def _mixes_lines(self, piece: str) -> bool:
        """Whether it is the end of one line and the beginning of the next, where lines resemble each other.

        In a litany the next line may well be the same again, up to where the piece began.
        """
        previous, newline, current = self.text[: self.end].rpartition("\n")
        beginning = current.strip()[:LOOK_ALIKE]
        previous = previous[previous.rfind("\n") + 1 :].strip()
        return (
            newline in piece and sum(map(str.isalnum, beginning)) >= LOOK_ALIKE - 2 and previous.startswith(beginning)
        )

    def _opens_a_sentence(self, position: int, piece: str) -> bool:
        """Whether the piece, too short to prove anything elsewhere, looks like the beginning of a sentence."""
        words = piece[_MARKERS.match(piece).end() :]  # type: ignore[union-attr]
        letters = [char for char in words if char.isalpha()]
        if not letters or not words[0].isalpha() or words[0].islower():
            return False
        if is_periodic(words) or len(set(letters)) < min(3, len(letters)):
            return False
        if not words[0].isupper():
            return self._opens_without_a_capital(words)
        if " " in words:
            return len(letters) >= (3 if self._is_inside_a_word else 4)
        if self._is_inside_a_word:  # a capital would follow in the middle of it
            lower = words[1:].islower() or len(words) == 1
            return len(letters) >= 4 or (lower and not self._has_inner_capitals)
        # A whole word: "Bora" may well be followed by another one, "The" is not, nor what was not before.
        ordinary = f" {words.lower()} " in self.text or f"{words} " in self.text[:position]
        return words.isalpha() and ordinary

    def _opens_without_a_capital(self, words: str) -> bool:
        amount = weight(words)
        if amount > len(words):  # Chinese, Japanese, Korean: two characters in a row are often said twice
            return amount >= 6
        return amount >= 4 if self._is_inside_a_word else amount >= 6 and " " in words

    def _opens_a_line(self, position: int, piece: str) -> bool:
        """Whether the piece is a line's beginning that would be out of place where this line stops.

        Either it has an indentation or a marker of a kind that never occurs within the lines of this text, or it
        would be glued to a word.
        """
        if self.text[position - 1 : position] != "\n" or "\n" in piece or "\n" in self.space:
            return False
        core = piece.lstrip(_NO_WORD)
        lead = piece[: len(piece) - len(core)]
        if len(lead) > 1 and any(map(str.isspace, lead)):
            before = r"\S[ \t]+" if self.space else r"\S"
            return sum(map(str.isalnum, core)) >= 2 and not re.search(before + re.escape(lead), self.text)
        if not self._is_inside_a_word or not piece[0].isalnum():
            return False
        return (piece.isalpha() and len(set(piece)) >= 4 and len(piece) >= 5) or (
            weight(piece) >= ENOUGH_GLUED and is_varied(piece, 5)
        )

    @cached_property
    def _has_inner_capitals(self) -> bool:
        """Whether capitals occur inside its words, as in code."""
        return any(char.isupper() and before.islower() for before, char in pairwise(self.text[-2 * NEAR :]))

    @cached_property
    def _is_inside_a_word(self) -> bool:
        last = self.text[self.end - 1 : self.end]
        return not self.space and (last.isalnum() or unicodedata.category(last)[0] == "M")

    @cached_property
    def is_within_a_sentence(self) -> bool:
        """Whether it ends where no title, paragraph or remark could begin."""
        last = self.text[self.end - 1 : self.end]
        return "\n" not in self.space and (last.isalnum() or last in ",，、")

    @cached_property
    def _vocabulary(self) -> int:
        return sum(map(str.isalpha, set(self.text[-2 * NEAR :])))

    def is_beginning(self, position: int) -> bool:
        """Whether a sentence, a line or the answer begins here."""
        before = self.text[max(0, position - 64) : position].rstrip(" \t")
        if position == 0 or before.endswith("\n"):
            return True
        spaced = self.text[position - 1].isspace()
        before = before.rstrip(_CLOSERS)
        return before.endswith(tuple(_STOPS if spaced else _WIDE_STOPS))

    @cached_property
    def _beginnings(self) -> list[int]:
        found = {0}
        for gap in _BEGINNINGS.finditer(self.text, 0, self.end):
            found.add(gap.end())
            if gap[0][0] == "\n":  # with the indentation or without
                found.add(gap.start() + 1)
        return sorted(found)

    @cached_property
    def last_sentence(self) -> str:
        """What was said since the last beginning of a sentence or line."""
        return self.text[max(filter(self.is_beginning, range(max(0, self.end - NEAR), self.end)), default=0) :]

    def name(self, position: int) -> str:
        """What is told again from here."""
        if position == 0:
            return "answer"
        if self.fence and self.fence.start() <= position <= self.fence.end():
            return "fence"
        before = self.text[:position].rstrip(" \t")
        if before.endswith("\n"):
            return "paragraph" if before[:-1].rstrip(" \t").endswith("\n") else "line"
        return "sentence" if self.is_beginning(position) else "overlap"

    @cached_property
    def fence(self) -> re.Match[str] | None:
        """The line that opened the code fence in which it ends."""
        opened: re.Match[str] | None = None
        for line in _FENCE.finditer(self.text):
            if opened is None:
                opened = line
            elif line[1].startswith(opened[1]) and not line[2].strip():
                opened = None
        return opened

    @property
    def is_fence_telling(self) -> bool:
        """Whether the fence tells a language. A bare one may as well be the one that closes the block."""
        language = self.fence[2].strip() if self.fence else ""
        return language[:1].isalpha() and self._vocabulary >= VOCABULARY // 2

    @cached_property
    def table_head(self) -> str:
        """The head of the Markdown table in which it ends, a row at least begun."""
        heads = list(_TABLE_HEAD.finditer(self.text))
        if not heads:
            return ""
        rows = self.text[heads[-1].end() :].split("\n")
        begun = rows[0] != "" and all(row.startswith("|") for row in rows[:-1]) and rows[-1][:1] in ("|", "")
        return heads[-1].group() if begun and self._vocabulary >= VOCABULARY // 2 else ""


def weight(piece: str) -> int:
    """How much a piece says, in Latin letters. A wide character counts twice, a run of spaces once."""
    head = _SPACES.sub(" ", piece[: 4 * ENOUGH])
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in head)


def is_varied(piece: str, least: int) -> bool:
    """Whether there is more to it than a ruler, a row of zeros or brackets."""
    head = piece[:NEAR]
    return len(set(head) - set(" \t\n")) >= least and sum(map(str.isalnum, head[: 4 * ENOUGH])) >= 4


def is_periodic(piece: str) -> bool:
    """Whether it says the same twice, or almost."""
    most = len(piece) * 5 // 9
    needle = piece[: min(len(piece) - most, 256)]  # short, for the sake of very long and very repetitive texts
    period = piece.find(needle, 1)
    while 0 < period <= most:
        if piece.startswith(piece[period : period + 4096]) and piece.startswith(piece[period:]):
            return True
        period = piece.find(needle, period + 1)
    return False
