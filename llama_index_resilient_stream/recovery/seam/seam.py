"""Joins a continuation to the text before the cut.

The reader has the partial text. Nothing of it can be taken back, and nothing of it may be shown again. So the seam
holds the continuation back while it may still turn out to repeat something, and not a character longer:

    seam = Seam(partial_text, anchor)
    for delta in continuation:
        show(seam.feed(delta))
    show(seam.finish(complete=True))

Every way to understand the beginning of the continuation is a matcher (`matchers.py`, `preambles.py`). They all get
the same characters. The first that is found, and that no better one can overtake, decides where to join. When none is
left, the continuation is shown as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ...report import Certainty, JoinDecision, Strategy
from ..surrogates import REPLACEMENT, HalfJoiner, is_half, sendable
from .anchor_marks import GENERIC, ClosingMarkFilter
from .matcher import MARKS, Matcher, Rank
from .matchers import ExactAnchorMatcher, GluedWordMatcher, OverlapMatcher
from .overlap import PartialText
from .phrases import opens_politely
from .preambles import PreambleMatcher, initial_matchers, may_stand_before_repeat
from .retold import RetoldMatcher, SaidBeforeMatcher
from .thoughts import ThoughtFilter

_MOST_MATCHERS = 64  # a dozen is usual; white space behind a polite sentence makes ever more

_LEADING = " \t\r\n" + "".join(sorted(MARKS))


class Seam:
    """One continuation, joined to the partial text.

    The two bounds do not apply while the continuation repeats the anchor, or plainly repeats something else: then
    nothing new is being held back.

    Args:
        partial_text: The text that the reader has.
        anchor: What the continuation was asked, or is bound, to begin with; "" if nothing.
        strategy: How the model was asked to go on.
        marks: What the wording puts before and behind the anchor; see `marks_around_anchor`.
        shows_unverified: Whether what cannot be verified or aligned is shown. Otherwise it is refused.
        writes_on: Whether the server is known to write on from a prefill.
        max_held_characters: Most characters (Unicode code points) that are held back undecided.
        max_held_seconds: Longest time in seconds that something is held back undecided.
        clock: Returns seconds.

    Attributes:
        settled: Text passes straight through from here on; `feed` need not be called any more.
        decision: A `JoinDecision`; "" while undecided.
        certainty: How sure the join is; None while undecided, and where nothing came. A prefill whose server is not
            known to write on is "aligned" unless a word would be glued to the last one.
        refused: Nothing can be joined, and nothing was shown. So it is always where the answer began anew and then
            took another way.
        dropped: Characters of the continuation that are not shown since they repeat.
        leftover: What a cut continuation had to withhold although it might have been new.
        most_held: The most characters that were held back at once, undecided.
    """

    def __init__(
        self,
        partial_text: str,
        anchor: str = "",
        *,
        strategy: Strategy = Strategy.ASK,
        marks: tuple[str, str] = ("", ""),
        shows_unverified: bool = True,
        writes_on: bool = False,
        max_held_characters: int = 400,
        max_held_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settled = not partial_text
        self.decision: str = "" if partial_text else JoinDecision.AS_IS
        self.certainty: Certainty | None = None
        self.refused = False
        self._drop = 0  # of what is held
        self.leftover = ""
        self.most_held = 0
        self._strategy = strategy
        self._shows_unverified = shows_unverified
        self._writes_on = writes_on
        self._gap = ""  # that keeps two words apart
        self._max_held_characters = max_held_characters
        self._max_held_seconds = max_held_seconds
        self._clock = clock
        self._held_since = 0.0
        self._held: list[str] = []
        self._length = 0  # of what is held
        self._halves = HalfJoiner()
        writes_anew = strategy in (Strategy.ASK, Strategy.PREFILL)
        asks = strategy == Strategy.ASK
        thoughts = ThoughtFilter(partial_text, marked_only=not asks, anchor=anchor if asks else "")
        self._thoughts = thoughts if writes_anew else None
        self._marks = marks if marks[0] else GENERIC
        self._closing: ClosingMarkFilter | None = None
        self._decided = self.settled
        self._partial = self._seen_by_model(partial_text, anchor)
        self._glue = GluedWordMatcher(self._partial)
        self._said_before = SaidBeforeMatcher(self._partial, anchor, self._marks)
        self._has_anchor = bool(anchor)
        self._matchers = self._all_matchers(anchor) if partial_text else []
        self._followed: list[OverlapMatcher] = []

    def _seen_by_model(self, partial_text: str, anchor: str) -> PartialText:
        text = sendable(partial_text)
        if text != partial_text:  # what came in halves may be lost on the server: it repeats the text up to there
            text = text.rstrip().rstrip("".join(char for char in text[-8:] if char > "\uffff") + REPLACEMENT)
        asks = self._strategy == Strategy.ASK
        return PartialText(
            text,
            new_message=asks,
            new_turn=asks or self._strategy == Strategy.PREFILL,
            anchor_length=len(anchor) if asks else 0,
            openings=(self._marks[0],) if asks and anchor else (),
        )

    def _all_matchers(self, anchor: str) -> list[Matcher]:
        partial = self._partial
        matchers: list[Matcher] = [ExactAnchorMatcher(partial, anchor)] if anchor else []
        if partial.text.strip():
            matchers += initial_matchers(partial, anchor)
            if self._strategy == Strategy.ASK:
                matchers += [PreambleMatcher(partial, anchor), self._said_before]
        if self._strategy != Strategy.APPEND:
            matchers.append(self._glue)
        return matchers

    def feed(self, text: str) -> str:
        """Take a piece of the continuation. Returns what can be shown now."""
        if self._decided or not text:
            return self._passed_on(text)
        text = self._halves.feed(self._without_thoughts(text))
        if self._is_overdue():
            self._settle()
        index = 0
        while index < len(text) and not self._decided:
            index = self._take(text, index)
        return self._passed_on(self._release() + text[index:] + self._halves.finish()) if self._decided else ""

    def _without_thoughts(self, text: str) -> str:
        return text if self._thoughts is None or self._thoughts.done else self._thoughts.feed(text)

    def finish(self, *, complete: bool) -> str:
        """End the continuation. Returns what is left to show.

        Args:
            complete: Whether it ended properly; then it is decided for good. If it was cut, only what is surely new
                is returned: the beginning of a repeat will be asked for again. See `leftover`.
        """
        if self.settled:
            return ""
        if self._decided:
            return self._finish_closing(complete=complete)
        if self._thoughts is not None and (rest := self._thoughts.finish()):
            return self.feed(rest) + self.finish(complete=complete)
        if complete:
            for matcher in self._open_matchers:
                matcher.finish()
            self._decide(complete=True)
            text = self._passed_on(self._release() + self._halves.finish())
            return text + self._finish_closing(complete=True)
        self._withhold()
        return ""

    def _withhold(self) -> None:
        """The continuation was cut while it was undecided."""
        held = "".join(self._held) + self._halves.finish()
        best = self._best()
        known = len(held) if self.is_repeating else best.drop if best is not None else 0
        self._drop += known
        self.leftover = held[known:]
        if best is not None:
            self.decision = best.decision
        if self.leftover:
            self.certainty = self._certainty_for_strategy(best.certainty if best else Certainty.UNVERIFIED)
        self._held.clear()
        self._matchers.clear()
        self.settled = True

    @property
    def _open_matchers(self) -> list[Matcher]:
        return [matcher for matcher in self._matchers if matcher.state == "open"]

    def _is_overdue(self) -> bool:
        if not self._held:
            self._held_since = self._clock()
            return False
        late = self._clock() - self._held_since > self._max_held_seconds
        return late and not self.is_repeating

    @property
    def is_repeating(self) -> bool:
        """Whether the continuation so far is most probably a repeat that is not over."""
        thoughts = self._thoughts
        held = thoughts is not None and (thoughts.thinks or thoughts.repeats_anchor)
        best = self._best()
        has_anchor = best is not None and best.rank == Rank.EXACT_ANCHOR  # then only what it opened counts
        return held or any(m.is_repeating for m in self._open_matchers if not has_anchor or m.rank == Rank.RETOLD)

    @property
    def dropped(self) -> int:
        """Characters of the continuation that were not shown: repeats, courtesies and thoughts."""
        marks = self._closing.dropped if self._closing is not None else 0
        return self._drop + marks + (self._thoughts.skipped if self._thoughts is not None else 0)

    def _take(self, text: str, index: int) -> int:
        """Match the text from this index. Returns the index up to which it was matched."""
        length = min((overlap.matching_length(text, index) for overlap in self._followed), default=0)
        if not length:
            self._match(text[index])
            return index + 1
        for overlap in self._followed:
            overlap.skip(length)
        self._hold(text[index : index + length])
        return index + length

    def _follow(self) -> None:
        """Repeats may be as long as the partial text: where nothing else is open, compare them piece by piece."""
        matchers = self._open_matchers
        overlaps = [matcher for matcher in matchers if isinstance(matcher, OverlapMatcher)]
        only_they = len(overlaps) == len(matchers) and all(overlap.has_one_candidate for overlap in overlaps)
        self._followed = overlaps if only_they else []

    def _hold(self, piece: str) -> None:
        self._held.append(piece)
        self._length += len(piece)

    def _match(self, char: str) -> None:
        index = self._length
        self._hold(char)
        begun: list[Matcher] = []
        seen = REPLACEMENT if is_half(char) else char  # as it stands in the text that was sent
        for matcher in self._open_matchers:
            begun += matcher.match(index, seen)
        self._matchers = [matcher for matcher in (*self._matchers, *begun) if matcher.state != "dead"][:_MOST_MATCHERS]
        self._decide()
        if self._decided:
            return
        if self.is_repeating:
            self._follow()
        else:
            self._followed = []
            self.most_held = max(self.most_held, self._length)
            if self._length >= self._max_held_characters:
                self._settle()

    def _decide(self, *, complete: bool = False) -> None:
        best = self._best()
        open_ranks = [matcher.rank for matcher in self._open_matchers]
        if not open_ranks or (best is not None and best.rank < min(open_ranks)):
            self._settle(complete=complete)

    def _best(self) -> Matcher | None:
        found = [matcher for matcher in self._matchers if matcher.state == "found"]
        return min(found, key=lambda matcher: (matcher.rank, -matcher.drop), default=None)

    def _settle(self, *, complete: bool = False) -> None:
        best = self._best()
        self.decision = best.decision if best else JoinDecision.AS_IS
        if self.decision == JoinDecision.ANSWER and self._strategy in (Strategy.PREFILL, Strategy.APPEND):
            self.decision = JoinDecision.ECHO
        self._drop = best.drop if best else 0
        self._decided = self.settled = True
        if self._held:
            self._judge(best or Matcher(self._partial), complete=complete)
        if best is not None and self.certainty in (Certainty.VERIFIED, Certainty.ALIGNED):
            self._expect_closing_mark(best.opening)

    def _expect_closing_mark(self, opening: str) -> None:
        """The mark may come behind the anchor. Where no wording has it, it may not look like a part of the text."""
        closing, partial = self._marks[1], self._partial
        opened = opening.strip().endswith(self._marks[0])
        plausible = closing not in partial.text and "\n" not in partial.trailing_space and not partial.fence
        if self._strategy == Strategy.ASK and closing and (opened or plausible):
            self._closing = ClosingMarkFilter(closing, opened=opened, expected=self._marks != GENERIC)
            self.settled = False

    def _finish_closing(self, *, complete: bool) -> str:
        if self._closing is None:
            return ""
        self.settled = True
        if complete:
            return self._closing.finish()
        self.leftover = self._closing.withheld()
        return ""

    def _judge(self, best: Matcher, *, complete: bool) -> None:
        """Say how sure the join is, and refuse what cannot be joined."""
        unverified = best.certainty == Certainty.UNVERIFIED and not isinstance(best, RetoldMatcher)
        if best.refuses or (unverified and self._begins_anew("".join(self._held), complete=complete)):
            self.certainty, self.refused = Certainty.UNVERIFIED, True
        elif not best.adds_nothing:
            self.certainty = self._certainty_for_strategy(best.certainty)
        if self.certainty == Certainty.UNVERIFIED:
            self.refused = self.refused or not self._shows_unverified
            self._gap = " " if self._would_glue_words and not self._drop else ""

    @property
    def _would_glue_words(self) -> bool:
        """Whether a word would be glued to the last one, by a model that was asked to begin with the anchor."""
        glued = (self._glue.is_glued and self._partial.text[-1:].isalnum()) or self._said_before.is_glued
        return glued and self._has_anchor and self._strategy == Strategy.ASK

    def _certainty_for_strategy(self, found: Certainty) -> Certainty:
        """How sure the join is, given how the model was asked to go on."""
        if self._strategy == Strategy.APPEND or (self._writes_on and self._strategy == Strategy.PREFILL):
            return Certainty.VERIFIED
        if self._strategy == Strategy.PREFILL and found == Certainty.UNVERIFIED and not self._glue.is_glued:
            return Certainty.ALIGNED
        return found

    def _begins_anew(self, held: str, *, complete: bool) -> bool:
        """Whether it tells the beginning of the answer again, and not to its end."""
        bare = held.lstrip(_LEADING)
        if self._partial.is_told_anew(bare, complete=complete, lead=held[: len(held) - len(bare)]):
            return True
        head = self._partial.anew
        begin = held.find(head) if head and opens_politely(held) else -1
        if begin < 1 or not may_stand_before_repeat(self._partial, held[:begin].rstrip()):
            return False
        return self._partial.is_told_anew(held[begin:], complete=complete)

    def _passed_on(self, text: str) -> str:
        """What is shown of it: nothing where it is refused."""
        if self.refused:
            self._drop += len(text)
            return ""
        if self._closing is not None and not self.settled and text:
            text = self._closing.feed(text)
            self.settled = self._closing.done
        gap, self._gap = self._gap, ""
        return gap + text

    def _release(self) -> str:
        held = "".join(self._held)[self._drop :]
        self._held.clear()
        self._matchers.clear()
        return held
