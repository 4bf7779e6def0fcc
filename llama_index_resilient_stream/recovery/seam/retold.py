"""Matchers for what adds nothing, and for what tells again behind the anchor what was told before.

SaidBeforeMatcher    all of the continuation stands in the partial text
RetoldMatcher        behind the anchor: the answer from its beginning
"""

from __future__ import annotations

import re

from ...report import Certainty, JoinDecision
from .matcher import AROUND, Matcher, Rank
from .measures import ENOUGH, is_varied, weight
from .overlap import ANEW, PartialText
from .phrases import leads_to_all_of_it

_LONGEST_LEAD = 160
_ENDS_OF_LEADS = frozenset(":：.!。！\n")


class SaidBeforeMatcher(Matcher):
    """All of the continuation, but for marks around it, stands in the partial text: then it adds nothing.

    A text may say again what it said before. So it must be the anchor, or a longer piece that followed on something
    else there and begins no line. A shorter one is enough where it would be glued to the last word.

    Attributes:
        is_glued: Whether it began with a piece that was copied from the beginning of a word, and glues that to the
            last word of the partial text.
    """

    rank = Rank.NONE
    decision = JoinDecision.OVERLAP
    adds_nothing = True

    def __init__(self, partial: PartialText, anchor: str, marks: tuple[str, str]) -> None:
        super().__init__(partial)
        self.is_glued = False
        self._around = AROUND + "".join(marks)
        self._anchor = anchor.strip(self._around)
        self._text = ""
        self._at = 0  # the first place where it stands
        self._is_copied = False

    def match(self, index: int, char: str) -> list[Matcher]:
        self._text += char
        bare = self._bare
        if bare and not self._stands_somewhere(bare):
            self.state = "dead"
        elif not self._is_copied and weight(bare) >= ENOUGH:
            self._look_where_it_stands(bare)
        return []

    @property
    def _bare(self) -> str:
        return self._text.strip(self._around)

    def _stands_somewhere(self, bare: str) -> bool:
        if not self.partial.text.startswith(bare, self._at):
            self._at = self.partial.text.find(bare, self._at + 1)
        return self._at != -1

    def _look_where_it_stands(self, bare: str) -> None:
        text = self.partial.text
        again = self.partial.goes_on_with(self._text.rstrip()) or self.partial.goes_on_with(bare)
        refrain = not self.partial.stops_within_phrase and self.partial.is_beginning(self._at)
        if again or refrain:  # this text has gone on like that before, or may say a whole line of it once more
            self.state = "open" if self._anchor.startswith(bare) else "dead"
            return
        self._is_copied = True
        self.is_glued = self._begins_a_word(bare) and text[-1:].isalnum() and text[-1:].isascii()

    def _begins_a_word(self, bare: str) -> bool:
        """Whether it begins with a word that stood for itself there."""
        stood_for_itself = self._at < 1 or not self.partial.text[self._at - 1].isalnum()
        return stood_for_itself and self._text[0].isalnum() and is_varied(bare, 5)

    def finish(self) -> None:
        bare = self._bare
        is_said_once = self.partial.text.find(bare, self._at + 1) == -1  # not again and again
        is_long = self._is_copied and is_said_once and is_varied(bare, 6) and (self.is_glued or len(bare) >= ANEW)
        is_anchor = bare == self._anchor and len(set(bare) - set(" \t\n")) >= 4 and any(map(str.isalpha, bare))
        nothing = bool(bare) and (is_anchor or is_long)
        self.state, self.drop = ("found", len(self._text)) if nothing else ("dead", 0)


class RetoldMatcher(Matcher):
    """Behind the anchor: the answer from its beginning, behind "Here is the complete text:" or within a sentence.

    Where it may be the text that says its beginning again, nothing is dropped and the join is unverified. Elsewhere it
    is dropped if it gets to the end of the partial text, and refused if it does not.

    Args:
        partial: The partial text.
        begin: Characters of the continuation up to the end of the anchor.
        decision: What it is that it comes behind.
        space: White space that the reader has already, and that may come again.
        rank: `Rank.RETOLD` behind the very anchor that was asked for.
    """

    rank = Rank.RETOLD_BEHIND_REPEAT

    def __init__(
        self, partial: PartialText, begin: int, *, decision: JoinDecision, space: str = "", rank: Rank = rank
    ) -> None:
        super().__init__(partial)
        self.rank = rank
        self.decision = decision
        self._begin = begin
        self._space_again = space
        self._text = ""  # behind the anchor, without white space and marks at its beginning
        self._is_within_sentence = partial.is_within_sentence
        self._begins_line = False
        self._space = partial.trailing_space
        self._matched = 0  # characters of the partial text that are told again, once that is known
        begins_visibly = partial.is_within_sentence and not partial.text[:1].islower() and not self._is_refrain
        self._begun = [0] if begins_visibly else []  # for each possible beginning, how much of the head has come
        if not partial.anew:
            self.state = "dead"

    @property
    def _is_refrain(self) -> bool:
        """Whether the text has gone on with its own beginning before."""
        return any(self.partial.goes_on_with(gap + self.partial.anew) for gap in ("", " "))

    @property
    def is_repeating(self) -> bool:
        return self._matched > 0

    def match(self, index: int, char: str) -> list[Matcher]:
        if self._matched:
            self._follow(index, char)
        elif self._text or char not in AROUND:
            self._text += char
            self._look_for_head(char)
        elif self._space_again[:1] == char:
            self._space_again, self._begin = self._space_again[1:], index + 1
        else:
            self._note_gap(char)
        if index - self._begin > 12 and not self._text:
            self.state = "dead"
        return []

    def _note_gap(self, char: str) -> None:
        """The sentence may end here, and another begin."""
        if char == ".":
            self._is_within_sentence = False
        self._begins_line = self._begins_line or char == "\n"
        if char in ".\n":
            self._begun = []

    def _look_for_head(self, char: str) -> None:
        head = self.partial.anew
        self._begun = [matched for each in self._begun if (matched := self._matched_with(char, each)) >= 0]
        if len(head) in self._begun:
            self._begins(len(head))
            return
        is_lead = len(self._text) <= _LONGEST_LEAD and leads_to_all_of_it(self._text)
        if is_lead and char in _ENDS_OF_LEADS:
            self._begun.append(0)
        elif not is_lead and not any(self._begun):
            self.state = "dead"

    def _matched_with(self, char: str, matched: int) -> int:
        """How much of the head has come with this character; -1 where it is not the head that comes."""
        if self.partial.anew[matched] == char:
            return matched + 1
        return 0 if matched == 0 and char in AROUND else -1

    def _begins(self, matched: int) -> None:
        direct = len(self._text) == matched
        if direct or not self._leads_away:
            self.state, self.drop, self.certainty = "found", self._begin, Certainty.UNVERIFIED
        else:
            self._matched, self.decision = matched, JoinDecision.ANSWER

    @property
    def _leads_away(self) -> bool:
        """Whether the words before the beginning cannot be how the sentence goes on."""
        word = re.match(r"\w*", self._text)[0]  # type: ignore[index]  # "I" is a capital anywhere
        return self._is_within_sentence and (self._begins_line or (word[:1].isupper() and word != "I"))

    def _follow(self, index: int, char: str) -> None:
        if self._matched < self.partial.end and char == self.partial.text[self._matched]:
            self._matched += 1
            self.drop = index + 1
        elif self._matched < self.partial.end:
            self._refuse(index + 1)
        elif self._space[:1] == char:
            self._space, self.drop = self._space[1:], index + 1
        else:
            self.state, self.certainty = "found", Certainty.ALIGNED

    def finish(self) -> None:
        if not self._matched:
            self.state = "dead"
        elif self._matched < self.partial.end:
            self._refuse(self.drop)
        else:
            self.state, self.certainty = "found", Certainty.ALIGNED

    def _refuse(self, drop: int) -> None:
        self.state, self.drop, self.refuses = "found", drop, True
