"""Decides which repeats of the partial text prove that the model repeats it, and does not just go on.

A wrong deletion is worse than a visible repeat. So a piece of text is proof only if it would hardly follow on itself
by chance: it runs to the very end of the partial text, it is long or it begins a sentence, and it is neither periodic
nor a phrase that this text has used before.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property
from itertools import pairwise

from ...report import JoinDecision
from .markdown import open_fence, open_table_head
from .measures import ENOUGH, NEAR, Work, is_periodic, is_varied, weight
from .phrases import opens_politely

ENOUGH_GLUED = 8  # weight at the beginning of a line or sentence, where a plain join would glue two words together
MOST_CANDIDATES = 64
MOST_BEGINNINGS = 512  # that are followed at once
WINDOW = 16_384  # characters at the beginning and at the end of the text in which sentences and lines are looked for
MOST_WORK = 4_000_000  # characters compared in search of proof: about 10 ms
TAIL = 16  # characters at the end of the text: where they occur nowhere else, no longer piece does
SIFTED_AFTER = 4  # characters, after which only candidates that would be proof are followed
ANEW = 30  # characters of the answer's beginning that show that it begins anew
CONTEXT = 4  # characters by which a text that repeats itself is told from one that is copied from
LEAST_ANEW = 12  # where the partial text is shorter than that, all of it does, from here on
LEAST_WORDS = 6  # different ones in lower case, that a text must have before one to three letters may be proof
LOOK_ALIKE = 12  # characters that the beginnings of two lines share if the text is a list of the like
VOCABULARY = 12  # different letters that a text must have before a short piece may be proof

_BEGINNINGS = re.compile(r"\n[ \t]*|[.!?…؟।։][\"'»”’)\]*_]*\s+|[。！？；][」』”’）]*\s*")
_MARKERS = re.compile(r"[\s#>*+\-–•|\"'“„«(\[_`~]*(?:\d{1,3}[.)]\s+)?[*_\"'“„«]*")
_STOPS = ".!?…؟।։。！？；"
_OPENINGS = tuple("\"'“„«‘「『([{<>*_`#-–—/|:：=~\\")  # behind which somebody may begin to speak
_QUOTING = tuple("\"'“„«‘「『>*`#-–—|:：?？")
_STATEMENT_ENDS = tuple(".!…।։。！；) ]}")  # what stands behind is another statement
_DOCUMENTS = ("", "md", "mdx", "markdown", "rst", "text", "txt", "adoc")
_WIDE_STOPS = "。！？；"
_CLOSERS = "\"'»”’)]*_」』）"
_NO_WORD = " \t#>*+-–•|\"'“„«([{<_`~\\/:=.,;)]}%&$@!?^"


class PartialText:
    """The text that the reader has, seen as something that a model may repeat from some position to its end.

    White space at the end is kept apart, in `trailing_space`: models rarely repeat it faithfully.

    Args:
        text: The partial text.
        new_message: Whether the continuation is a message of its own, which may tell any part again, and open again
            what is open. Otherwise only an echo of the whole text is a repeat.
        new_turn: Whether the continuation may turn out to be a new answer that begins like this one.
        anchor_length: Characters at the end that the model was asked to begin with.
        openings: Marks that may be put before the anchor.
    """

    def __init__(
        self,
        text: str,
        *,
        new_message: bool = True,
        new_turn: bool = True,
        anchor_length: int = 0,
        openings: tuple[str, ...] = (),
    ) -> None:
        self.text = text
        self.new_message = new_message
        self.new_turn = new_turn
        self.openings = openings
        self.anchor_start = len(text) - anchor_length if anchor_length else len(text)
        self.end = len(text.rstrip())
        self.trailing_space = text[self.end :]
        self.work = Work(MOST_WORK)
        self._proofs: dict[int, bool] = {}
        self._positions: dict[str, list[int]] = {}

    def positions_of(self, char: str) -> list[int]:
        """Return the positions from which the text may be repeated, if the repeat begins with `char`."""
        if char not in self._positions:
            self._positions[char] = self._find_positions(char)
        return list(self._positions[char])

    def _find_positions(self, char: str) -> list[int]:
        if not self.new_message:
            return [0] if self.text.startswith(char) and self.end > 0 else []
        near = max(0, self.end - NEAR)
        found = _outermost([p for p in self._beginnings if p < near and self.text[p] == char], MOST_BEGINNINGS)
        position = self.text.find(char, near, self.end)
        while position != -1:
            if self.end - position >= ENOUGH // 2 or self.is_beginning(position):
                found.append(position)
            position = self.text.find(char, position + 1, self.end)
        return found

    def sift(self, positions: list[int]) -> list[int]:
        """Return the positions that would be proof, or show a new beginning. Of very many, look at the outermost."""
        outermost = _outermost(positions, MOST_CANDIDATES)
        return [p for p in outermost if self.is_proof(p) or (p == 0 and self.new_turn and self.anew != "")]

    def is_proof(self, position: int) -> bool:
        """Return whether a continuation that says everything from `position` to the end again repeats it."""
        if position not in self._proofs:
            self._proofs[position] = self._find_proof(position)
        return self._proofs[position]

    def is_distinctive(self, position: int) -> bool:
        """Return whether saying everything from `position` again is no accident, if that was asked for."""
        piece = self.text[position : self.end]
        distinctive = weight(piece) >= ENOUGH and is_varied(piece, 6)
        return distinctive and not is_periodic(piece) and not self._is_said_twice(position, piece)

    @cached_property
    def _tail_recurs(self) -> bool:
        """Whether the last characters occur before. Where they do not, no piece that ends with them does."""
        return self.text.find(self.text[self.end - TAIL : self.end], 0, self.end - 1) != -1

    def decision_at(self, position: int) -> JoinDecision:
        """Return what a repeat from `position` repeats: the answer, a paragraph, a line, a sentence, ..."""
        if position == 0:
            return JoinDecision.ANSWER
        if self.fence and self.fence.start() <= position <= self.fence.end():
            return JoinDecision.FENCE
        before = self.text[:position].rstrip(" \t")
        if before.endswith("\n"):
            opens_paragraph = before[:-1].rstrip(" \t").endswith("\n")
            return JoinDecision.PARAGRAPH if opens_paragraph else JoinDecision.LINE
        return JoinDecision.SENTENCE if self.is_beginning(position) else JoinDecision.OVERLAP

    def is_beginning(self, position: int) -> bool:
        """Return whether a sentence, a line or the answer begins at `position`."""
        before = self.text[max(0, position - 64) : position].rstrip(" \t")
        if position == 0 or before.endswith("\n"):
            return True
        spaced = self.text[position - 1].isspace()
        before = before.rstrip(_CLOSERS)
        return before.endswith(tuple(_STOPS if spaced else _WIDE_STOPS))

    # How the text begins

    @cached_property
    def head(self) -> str:
        """The beginning by which a new answer is known, up to where it is never said again; "" if it says little."""
        length, longest = min(ANEW, self.end), min(NEAR, self.end)
        if length < LEAST_ANEW or not is_varied(self.text[:length], 6):
            return ""
        while length < longest and self.text.find(self.text[:length], 1) != -1:
            length = min(length + 10, longest)
        head = self.text[:length]
        return "" if is_periodic(head) or self.text.find(head, 1) != -1 else head

    @cached_property
    def anew(self) -> str:
        """As `head`; where the text stops inside a sentence, no sentence can begin, and less of it is enough."""
        if not self.new_message or not self.is_within_sentence or self.text[:1].islower():
            return self.head
        opening = self.text[: min(LEAST_ANEW if self._is_inside_word else ANEW, self.end)]
        return opening if len(opening) >= LEAST_ANEW and is_varied(opening, 6) else self.head

    def goes_on_with(self, piece: str) -> bool:
        """Return whether the text has gone on as this piece begins, behind the characters in which it ends."""
        return self.text[-CONTEXT:] + piece[:ENOUGH] in self.text

    def is_told_anew(self, text: str, *, complete: bool, lead: str = "") -> bool:
        """Return whether `text` begins the answer anew and drifts away from it before its end.

        Args:
            text: The beginning of a continuation, without what may come before an answer.
            complete: Whether this is all of it; then it is enough that it tells no more than the beginning.
            lead: White space and marks before it. They may end the sentence, and begin another.
        """
        head = self._head_behind(lead)
        if not head or not self.new_turn:
            return False
        whole = self.text[: self.end]
        if text.startswith(head):
            quoted = lead.strip() != ""
            return not text.startswith(whole) or (self.end <= ANEW and text.count(whole) == 1 and not quoted)
        return complete and self._is_said_first(text.rstrip())

    def _head_behind(self, lead: str) -> str:
        ends_sentence = any(char in ".\n" for char in lead)
        return self.head if ends_sentence or self.goes_on_with(lead + self.anew) else self.anew

    def _is_said_first(self, told: str) -> bool:
        """Return whether the answer begins with it, and nothing else does."""
        says_enough = weight(told) >= ENOUGH and is_varied(told, 6)
        return says_enough and self.text.startswith(told) and self.text.find(told, 1) == -1

    # What the text ends in

    @cached_property
    def fence(self) -> re.Match[str] | None:
        """The line that opened the code fence in which the text ends."""
        return open_fence(self.text)

    @property
    def names_a_language(self) -> bool:
        """Whether the open fence names a language. A bare one may as well be the one that closes the block."""
        language = self.fence[2].strip() if self.fence else ""
        return language[:1].isalpha() and self._vocabulary >= VOCABULARY // 2

    @cached_property
    def table_head(self) -> str:
        """The head of the Markdown table in which the text ends, with a row at least begun."""
        head = open_table_head(self.text)
        return head if head and self._vocabulary >= VOCABULARY // 2 else ""

    @cached_property
    def last_sentence(self) -> str:
        """The text since the last beginning of a sentence or line."""
        return self.text[max(filter(self.is_beginning, range(max(0, self.end - NEAR), self.end)), default=0) :]

    @cached_property
    def is_within_sentence(self) -> bool:
        """Whether the text ends where no title, paragraph or remark could begin."""
        last = self.text[self.end - 1 : self.end]
        return "\n" not in self.trailing_space and (last.isalnum() or last in (",", "，", "、"))

    @cached_property
    def stops_within_phrase(self) -> bool:
        """Whether no sentence can begin where it ends, so that one that does is none of the text."""
        last = self.text[self.end - 1 : self.end]
        if "\n" in self.trailing_space or last in _OPENINGS or last in _WIDE_STOPS:
            return False
        if not self.trailing_space or last.isalnum():
            return True
        return last in ",;" and not self._is_polite

    @cached_property
    def stops_within_line(self) -> bool:
        """Whether it stops in a line, or behind its indentation, where nobody's words are about to be quoted."""
        last, indentation = self.text[self.end - 1 : self.end], self.trailing_space.rpartition("\n")[2]
        return indentation != "" and last not in _QUOTING and not self._is_polite

    @cached_property
    def _is_polite(self) -> bool:
        """Whether the sentence in which it stops is a courtesy itself, as in a list of phrases."""
        return opens_politely(self.last_sentence.lstrip(_NO_WORD) or " ")

    @cached_property
    def expects_reply(self) -> bool:
        """Whether what comes next may be what somebody answers, quotes or lists."""
        return not self.is_within_sentence and self.text[self.end - 1 : self.end] not in _STATEMENT_ENDS

    @cached_property
    def may_quote_markdown(self) -> bool:
        """Whether it stops inside an open fence where another one may be text: in a string, a comment, a document."""
        if self.fence is None:
            return False
        code = self.text[self.fence.end() :]
        opened = any(code.count(quotes) % 2 for quotes in ('"""', "'''")) or code.count("/*") > code.count("*/")
        document = self.fence[2].strip().lower() in _DOCUMENTS
        return opened or document or "<<" in code

    @cached_property
    def _is_inside_word(self) -> bool:
        last = self.text[self.end - 1 : self.end]
        return not self.trailing_space and (last.isalnum() or unicodedata.category(last)[0] == "M")

    @cached_property
    def has_inner_capitals(self) -> bool:
        """Whether capitals occur inside its words, as in code."""
        return any(char.isupper() and before.islower() for before, char in pairwise(self.text[-2 * NEAR :]))

    @cached_property
    def is_prose(self) -> bool:
        """Whether it has some ordinary words, so that two letters in a row are seen to be no words of it."""
        words = set(self.text[-2 * NEAR :].split())
        return sum(len(word) > 1 and word.isalpha() and word.islower() for word in words) >= LEAST_WORDS

    @cached_property
    def _vocabulary(self) -> int:
        return sum(map(str.isalpha, set(self.text[-2 * NEAR :])))

    @cached_property
    def _beginnings(self) -> list[int]:
        found = {0}
        middle = min(WINDOW, self.end)
        for begin, end in ((0, middle), (max(middle, self.end - WINDOW), self.end)):
            for gap in _BEGINNINGS.finditer(self.text, begin, end):
                found.add(gap.end())
                if gap[0][0] == "\n":  # with the indentation or without
                    found.add(gap.start() + 1)
        return sorted(found)

    # Proof

    def _find_proof(self, position: int) -> bool:
        piece = self.text[position : self.end]
        if self.fence and position == self.fence.start():
            return self.names_a_language and self.end - self.fence.end() >= 4
        if self._may_be_text(position, piece) or self._proves_nothing(position, piece):
            return False
        begins = self.is_beginning(position)
        if weight(self.text[position:]) >= ENOUGH:
            return self._is_long_proof(piece, begins)
        short = begins and position > 0 and self._is_short_proof(position, piece)
        return short or self._ends_anchor(position, piece)

    def _ends_anchor(self, position: int, piece: str) -> bool:
        """Return whether the piece is what is left of the anchor without its first words, and at least three words."""
        if position < max(self.anchor_start, 1) or not self.text[position - 1].isspace() or len(piece.split()) < 3:
            return False
        return weight(piece) >= LEAST_ANEW and is_varied(piece, 6) and not self._is_known(piece)

    def _proves_nothing(self, position: int, piece: str) -> bool:
        return self.work.is_spent or self._is_periodic(piece) or self._is_said_twice(position, piece)

    def _may_be_text(self, position: int, piece: str) -> bool:
        return self._may_be_said_twice(position, piece) or self._may_be_anchor(piece)

    def _may_be_said_twice(self, position: int, piece: str) -> bool:
        """Return whether these are whole lines, which a text that goes on may well say again.

        The whole answer, where it is more than one of them, is not said twice in a row. Nor is a line with its
        indentation behind the same indentation.
        """
        several = any(0 < p < self.end for p in self._beginnings)
        if not self.new_message:
            return self._is_whole(piece) and not several
        begins = position == 0 or self.text[position - 1] == "\n"
        ends_line = self.trailing_space.endswith("\n") and self.trailing_space.count("\n") == 1
        return ends_line and begins and not (position == 0 and several)

    def _may_be_anchor(self, piece: str) -> bool:
        """Return whether it begins like the anchor but is more: the anchor and what follows would look the same."""
        anchor = self.text[self.anchor_start : self.end].strip()
        return bool(anchor) and len(piece.lstrip()) > len(anchor) and piece.lstrip().startswith(anchor)

    def _is_long_proof(self, piece: str, begins: bool) -> bool:
        if not is_varied(piece, 6):
            return False
        # What begins a line and stops within it may have been used before, as keys and prompts are.
        if (not begins or self._is_whole(piece)) and self._is_known(piece):
            return False
        return begins or not self._mixes_lines(piece)

    def _is_said_twice(self, position: int, piece: str) -> bool:
        """Return whether this text has said the piece twice in a row before, or has begun to."""
        before = self.text[:position].rstrip()[-6:]
        begun = len(before) == 6 and self.text.endswith(before, 0, self.end) and any(map(str.isalnum, before))
        return begun or (self._may_recur(piece) and self._occurs(piece + self.trailing_space + piece, self.end))

    def _is_periodic(self, piece: str) -> bool:
        # A long piece that is periodic has its last characters twice.
        return (len(piece) < 4 * TAIL or self._tail_recurs) and is_periodic(piece, self.work)

    def _is_known(self, piece: str) -> bool:
        """Return whether the piece occurs before."""
        return self._may_recur(piece) and self._occurs(piece, self.end - 1)

    def _may_recur(self, piece: str) -> bool:
        return len(piece) < TAIL or self._tail_recurs

    def _occurs(self, piece: str, before: int) -> bool:
        """Return whether the piece occurs in the text up to `before`; True as well where that is too much work."""
        if len(piece) > before:
            return False
        # Of short pieces there are few, and to look for them is quick.
        return (len(piece) > 2 * TAIL and not self.work.take(before)) or self.text.find(piece, 0, before) != -1

    def _is_whole(self, piece: str) -> bool:
        """Return whether the piece comprises the end of a line or sentence."""
        return "\n" in piece or "\n" in self.trailing_space or piece.endswith(tuple(_STOPS))

    def _mixes_lines(self, piece: str) -> bool:
        """Return whether the piece ends one line and begins the next, where lines resemble each other.

        In a litany the next line may well be the same again, up to where the piece began.
        """
        previous, newline, current = self.text[: self.end].rpartition("\n")
        beginning = current.strip()[:LOOK_ALIKE]
        previous = previous[previous.rfind("\n") + 1 :].strip()
        return (
            newline in piece and sum(map(str.isalnum, beginning)) >= LOOK_ALIKE - 2 and previous.startswith(beginning)
        )

    # Short pieces, which prove nothing elsewhere

    def _is_short_proof(self, position: int, piece: str) -> bool:
        if self._vocabulary < VOCABULARY:
            return False
        return self._opens_sentence(position, piece) or self._opens_line(position, piece)

    def _opens_sentence(self, position: int, piece: str) -> bool:
        """Return whether the piece looks like the beginning of a sentence."""
        words = piece[_MARKERS.match(piece).end() :]  # type: ignore[union-attr]
        letters = [char for char in words if char.isalpha()]
        if not letters or not words[0].isalpha() or words[0].islower():
            return False
        if is_periodic(words) or len(set(letters)) < min(3, len(letters)):
            return False
        if words[0].isupper():
            return self._opens_with_capital(words, len(letters), position)
        return self._opens_without_capital(words)

    def _opens_with_capital(self, words: str, letters: int, position: int) -> bool:
        if " " in words:
            return letters >= (3 if self._is_inside_word else 4)
        if self._is_inside_word:  # a capital would follow in the middle of it
            lower = words[1:].islower() or len(words) == 1
            return letters >= 4 or (lower and self.is_prose and not self.has_inner_capitals)
        return self.is_prose and words.isalpha() and self._is_ordinary(words, position)

    def _is_ordinary(self, word: str, position: int) -> bool:
        """Return whether it is a word like "The". "Bora" may well be followed by another one."""
        return f" {word.lower()} " in self.text or f"{word} " in self.text[:position]

    def _opens_without_capital(self, words: str) -> bool:
        amount = weight(words)
        if amount > len(words):  # Chinese, Japanese, Korean: two characters in a row are often said twice
            return amount >= 6
        return amount >= 4 if self._is_inside_word else amount >= 6 and " " in words

    def _opens_line(self, position: int, piece: str) -> bool:
        """Return whether the piece is a line's beginning that would be out of place where this line stops.

        Either it has an indentation or a marker of a kind that never occurs within the lines of this text, or it
        would be glued to a word.
        """
        if self.text[position - 1 : position] != "\n" or "\n" in piece or "\n" in self.trailing_space:
            return False
        core = piece.lstrip(_NO_WORD)
        marker = piece[: len(piece) - len(core)]
        if len(marker) > 1 and any(map(str.isspace, marker)):
            before = r"\S[ \t]+" if self.trailing_space else r"\S"
            return sum(map(str.isalnum, core)) >= 2 and not re.search(before + re.escape(marker), self.text)
        return self._is_inside_word and _is_glued(piece)


def _is_glued(piece: str) -> bool:
    """Return whether the piece behind half a word would be no word."""
    if not piece[0].isalnum():
        return False
    if piece.isalpha() and len(piece) >= 5 and len(set(piece)) >= 4:
        return True
    return weight(piece) >= ENOUGH_GLUED and is_varied(piece, 5)


def _outermost(positions: list[int], most: int) -> list[int]:
    """Return the positions, or of very many those at both ends: text that repeats so much proves little."""
    return positions if len(positions) <= most else positions[: most // 2] + positions[-(most // 2) :]
