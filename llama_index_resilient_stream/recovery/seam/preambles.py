"""What may come before the anchor or a retelling, and is not part of the answer.

    Redundant    a line that is there already: the fence of the open code block, the head of the open table
    Courtesy     something polite
    Lead         white space or marks

They open readings behind them. The first two are a finding of their own if none of those comes true.
"""

from __future__ import annotations

from .matchers import LAST, LEADING, MARKS, ExactAnchor, LooseAnchor, Reading, Retelling
from .overlap import ENOUGH, SaidText, weight
from .phrases import is_announcement, is_prose, opens_politely

_LEAST_ANCHOR = 4  # characters of an anchor that are enough behind a courtesy
_ENDS_OF_COURTESIES = frozenset(":：.!。！…\n")
_LONGEST_LEAD = 12
_LONGEST_COURTESY = 200
_LONGEST_ANNOUNCEMENT = 120


class Redundant(Reading):
    """A line that is there already and means nothing a second time."""

    rank = LAST

    def __init__(self, told: SaidText, anchor: str, line: str, *, name: str) -> None:
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

    def __init__(self, told: SaidText, anchor: str) -> None:
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
        least = _LEAST_ANCHOR if opens_politely(self._text) else ENOUGH
        return beginnings(self.told, self._anchor, prefix="polite+", least=least)

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

    def __init__(self, told: SaidText, anchor: str, *, prefix: str, least: int) -> None:
        super().__init__(told)
        self._anchor = anchor
        self._prefix = prefix
        self._least = least
        self._text = ""

    def read(self, at: int, char: str) -> list[Reading]:
        self._text += char
        if not (char.isspace() or char in MARKS) or len(self._text) > _LONGEST_LEAD:
            self.state = "dead"
            return []
        return behind_a_lead(self.told, self._anchor, opening=self._text, prefix=self._prefix, least=self._least)


def beginnings(told: SaidText, anchor: str, *, prefix: str = "", least: int = _LEAST_ANCHOR) -> list[Reading]:
    """What may begin here, or behind some white space or marks."""
    lead = Lead(told, anchor, prefix=prefix, least=least)
    return [lead, *behind_a_lead(told, anchor, prefix=prefix, least=least)]


def behind_a_lead(
    told: SaidText, anchor: str, *, opening: str = "", prefix: str = "", least: int = _LEAST_ANCHOR
) -> list[Reading]:
    """What may begin here, if nothing but `opening` came before.

    `prefix` tells what came before that; behind a true courtesy a short anchor of the `least` length is enough.
    """
    readings: list[Reading] = []
    core = anchor.strip()
    if prefix and weight(core) >= least:
        readings.append(ExactAnchor(told, anchor, prefix=prefix))
    if core and told.is_solid(told.end - len(core)):
        readings.append(LooseAnchor(told, core, opening=opening, prefix=prefix))
    if opening.strip() in ("", "…", "..."):
        readings.append(Retelling(told, opening=opening, prefix=prefix))
    if not opening.strip() and not prefix.endswith(("fence+", "table+")):
        readings += _redundant_lines(told, anchor, prefix)
    return readings


def _redundant_lines(told: SaidText, anchor: str, prefix: str) -> list[Reading]:
    readings: list[Reading] = []
    if not told.anew:
        return readings
    if told.fence and told.is_fence_telling:
        readings.append(Redundant(told, anchor, told.fence.group(), name=prefix + "fence"))
    if told.table_head:
        readings.append(Redundant(told, anchor, told.table_head, name=prefix + "table"))
    return readings
