"""Matchers for what may come before the anchor or a repeat, and is not part of the answer.

    ReopenedBlockMatcher    a line that is there already: the fence of the open code block, the head of the open table
    PreambleMatcher         a polite sentence, or one that announces the rest
    LeadingMarksMatcher     white space or marks

They open matchers behind them. The first two are a finding of their own if none of those comes true.
"""

from __future__ import annotations

from ...report import JoinDecision
from .matcher import MARKS, Matcher, Rank
from .matchers import ExactAnchorMatcher, LooseAnchorMatcher, OverlapMatcher
from .measures import ENOUGH, weight
from .overlap import PartialText
from .phrases import is_announcement, is_courteous, is_courtesy, is_prose, opens_politely

_LEAST_ANCHOR = 4  # weight of an anchor that is enough behind a polite sentence
_ENDS_OF_PREAMBLES = frozenset(":：.!。！…\n")
_LONGEST_MARKS = 12
_LONGEST_PREAMBLE = 200
_LONGEST_ANNOUNCEMENT = 120


class ReopenedBlockMatcher(Matcher):
    """The line that opened the code block or table in which the partial text ends, written once more.

    Args:
        may_be_text: Whether it may be part of the text. Then only the anchor or a repeat behind it is a finding.
    """

    rank = Rank.REOPENED_BLOCK

    def __init__(
        self, partial: PartialText, anchor: str, line: str, *, decision: JoinDecision, may_be_text: bool
    ) -> None:
        super().__init__(partial)
        self.decision = decision
        self._may_be_text = may_be_text
        self._anchor = anchor
        self._line = line
        self._matched = 0

    def match(self, index: int, char: str) -> list[Matcher]:
        if self._line[self._matched] != char:
            self.state = "dead"
            return []
        self._matched += 1
        if self._matched < len(self._line):
            return []
        if self._may_be_text:
            self.state = "dead"
        else:
            self._found(index + 1)
        return repeat_matchers(self.partial, self._anchor, after_preamble=True, after_block=True)


class PreambleMatcher(Matcher):
    """A polite sentence. It is dropped if the anchor or a repeat follows, or if it announces the rest."""

    rank = Rank.PREAMBLE
    decision = JoinDecision.ANNOUNCEMENT

    def __init__(self, partial: PartialText, anchor: str) -> None:
        super().__init__(partial)
        self._anchor = anchor
        self._text = ""
        self._may_announce = True
        self._announced = False

    def match(self, index: int, char: str) -> list[Matcher]:
        if self._announced:  # a second line break belongs to the announcement, a third one does not
            self._found(index + 1 if char == "\n" and self.drop == index else self.drop)
            return []
        self._text += char
        if len(self._text) > _LONGEST_PREAMBLE or not self._is_plausible():
            self.state = "dead"
            return []
        self._note_announcement(index, char)
        if char not in _ENDS_OF_PREAMBLES:
            return []
        if not may_stand_before_repeat(self.partial, self._text):
            return []
        least = _LEAST_ANCHOR if opens_politely(self._text) else ENOUGH
        return initial_matchers(self.partial, self._anchor, after_preamble=True, least_anchor=least)

    def _is_plausible(self) -> bool:
        if len(self._text) == ENOUGH and self._text in self.partial.text:
            return False  # the partial text is being repeated
        if opens_politely(self._text):
            return True
        # Nobody goes on with a capital letter inside a word.
        partial = self.partial
        before = partial.text[-1:]
        inside = before.islower() and partial.is_prose and not partial.has_inner_capitals and not partial.fence
        return inside and self._text[0].isupper() and is_prose(self._text)

    def _note_announcement(self, index: int, char: str) -> None:
        """It ends with the first line break or colon: an answer may very well say later that it goes on."""
        before = self._text[-2:-1]
        ends = char == "\n" or before == "：" or (before == ":" and char == " ")
        if not ends or not self._may_announce or len(self._text) > _LONGEST_ANNOUNCEMENT:
            return
        self._may_announce = False
        restarts = self._text.startswith(self.partial.last_sentence)
        within = self.partial.is_within_sentence and not restarts
        self._announced = self._is_no_text(char) and is_announcement(self._text, within_a_sentence=within)
        self.drop = index + char.isspace()

    def _is_no_text(self, last: str) -> bool:
        """Whether it cannot be how the text goes on: nothing behind it shows that it is not."""
        if self.partial.stops_within_phrase:
            return True
        return last == "\n" and self.partial.stops_within_line and is_courteous(self._text)


class LeadingMarksMatcher(Matcher):
    """White space or marks. Something else may begin behind each of them."""

    rank = Rank.PREAMBLE

    def __init__(self, partial: PartialText, anchor: str, *, after_preamble: bool, least_anchor: int) -> None:
        super().__init__(partial)
        self._anchor = anchor
        self._after_preamble = after_preamble
        self._least_anchor = least_anchor
        self._text = ""

    def match(self, index: int, char: str) -> list[Matcher]:
        self._text += char
        if (
            not (char.isspace() or char in MARKS or char in "".join(self.partial.openings))
            or len(self._text) > _LONGEST_MARKS
        ):
            self.state = "dead"
            return []
        return repeat_matchers(
            self.partial,
            self._anchor,
            opening=self._text,
            after_preamble=self._after_preamble,
            least_anchor=self._least_anchor,
        )


def may_stand_before_repeat(partial: PartialText, text: str) -> bool:
    """Return whether a sentence before a repeat is none of the answer. In a list of questions "Yes, it is." may be."""
    return partial.stops_within_phrase or (opens_politely(text) and is_courtesy(text, alone=partial.expects_reply))


def initial_matchers(
    partial: PartialText, anchor: str, *, after_preamble: bool = False, least_anchor: int = _LEAST_ANCHOR
) -> list[Matcher]:
    """Return matchers for a repeat that begins here, or behind some white space or marks."""
    marks = LeadingMarksMatcher(partial, anchor, after_preamble=after_preamble, least_anchor=least_anchor)
    return [marks, *repeat_matchers(partial, anchor, after_preamble=after_preamble, least_anchor=least_anchor)]


def repeat_matchers(
    partial: PartialText,
    anchor: str,
    *,
    opening: str = "",
    after_preamble: bool = False,
    after_block: bool = False,
    least_anchor: int = _LEAST_ANCHOR,
) -> list[Matcher]:
    """Return matchers for a repeat that begins here.

    Args:
        partial: The partial text.
        anchor: What the continuation was asked to begin with.
        opening: The white space and marks that came just before.
        after_preamble: Whether a polite sentence or a reopened block came before.
        after_block: Whether a reopened block came before.
        least_anchor: Weight of an anchor that is enough behind a preamble.
    """
    matchers: list[Matcher] = []
    core = anchor.strip()
    if after_preamble and weight(core) >= least_anchor:
        matchers.append(ExactAnchorMatcher(partial, anchor, rank=Rank.REPEAT))
    if core and partial.is_distinctive(partial.end - len(core)):
        matchers.append(LooseAnchorMatcher(partial, core, opening=opening))
    if opening.strip() in ("", "…", "...", *partial.openings):
        matchers.append(OverlapMatcher(partial, opening=opening))
    if not opening.strip() and not after_block:
        matchers += _reopened_blocks(partial, anchor)
    return matchers


def _reopened_blocks(partial: PartialText, anchor: str) -> list[Matcher]:
    matchers: list[Matcher] = []
    if not partial.new_message:
        return matchers
    if partial.fence and partial.names_a_language:
        line = partial.fence.group()
        quoted = partial.may_quote_markdown
        matchers.append(ReopenedBlockMatcher(partial, anchor, line, decision=JoinDecision.FENCE, may_be_text=quoted))
    if partial.table_head:
        head, new_row = partial.table_head, "\n" in partial.trailing_space
        matchers.append(
            ReopenedBlockMatcher(partial, anchor, head, decision=JoinDecision.TABLE_HEAD, may_be_text=new_row)
        )
    return matchers
