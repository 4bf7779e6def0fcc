"""Joins a continuation to what was said before the cut.

The reader has seen what was said. Nothing of it can be taken back, and nothing of it may be shown again. So the seam
holds the continuation back while it may still turn out to repeat something, and not a character longer:

    seam = Seam(said, anchor)
    for delta in continuation:
        show(seam.feed(delta))
    show(seam.finish(complete=True))

Every way to understand the beginning of the continuation is a reading (`readings.py`, `leads.py`). They all listen to
the same characters. The first that is found, and that no better one can overtake, decides where to join. When none is
left, the continuation is shown as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ...report import Strategy
from .matchers import ExactAnchor, Reading, Retelling
from .overlap import SaidText
from .preambles import Courtesy, beginnings


class Seam:
    """One continuation, joined to `partial_text`.

    `anchor` is what the continuation was asked, or is bound, to begin with; empty if nothing.
    `max_held` and `max_held_seconds` bound what is held back undecided. They do not apply while the continuation
    repeats the anchor or plainly tells something again: then nothing new is being held back.

    `settled`     text passes straight through from here on; `feed` need not be called any more
    `decision`    how the join was found: "anchor", "answer", "polite+anchor", ..., or "as is"; "" while undecided
    `dropped`     characters of the continuation that were not shown since they repeat
    `leftover`    what a cut continuation had to withhold though it might have been new
    `most_held`   the most characters that were held back at once, undecided
    """

    def __init__(
        self,
        partial_text: str,
        anchor: str = "",
        *,
        strategy: Strategy = Strategy.ASK,
        max_held: int = 400,
        max_held_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settled = not partial_text
        self.decision = "" if partial_text else "as is"
        self.dropped = 0
        self.leftover = ""
        self.most_held = 0
        self._strategy = strategy
        self._max_held = max_held
        self._max_held_seconds = max_held_seconds
        self._clock = clock
        self._held_since = 0.0
        self._held: list[str] = []
        self._length = 0  # of what is held
        self._readings = self._all_readings(partial_text, anchor) if partial_text else []
        self._followed: list[Retelling] = []

    def _all_readings(self, partial_text: str, anchor: str) -> list[Reading]:
        told = SaidText(partial_text, anew=self._strategy == "ask")
        readings: list[Reading] = [ExactAnchor(told, anchor)] if anchor else []
        if partial_text.strip():
            readings += beginnings(told, anchor)
            if self._strategy == "ask":
                readings.append(Courtesy(told, anchor))
        return readings

    def feed(self, text: str) -> str:
        """Take a piece of the continuation. Returns what can be shown now."""
        if self.settled or not text:
            return text
        if self._is_overdue():
            self._settle()
            return self._release() + text
        at = 0
        while at < len(text) and not self.settled:
            at = self._take(text, at)
        return self._release() + text[at:] if self.settled else ""

    def finish(self, *, complete: bool) -> str:
        """The continuation has ended. Returns what is left to show.

        If it is `complete`, it is decided for good. If it was cut, only what is surely new is given: a beginning of
        a repetition will be asked for again. See `leftover`.
        """
        if self.settled:
            return ""
        if complete:
            for reading in self._readings:
                if reading.state == "open":
                    reading.finish()
            self._decide()
            return self._release()
        held = "".join(self._held)
        if any(reading.is_strong for reading in self._readings if reading.state == "open"):
            self.dropped += len(held)
        else:
            self.leftover = held
        self._held.clear()
        self._readings.clear()
        self.settled = True
        return ""

    def _is_overdue(self) -> bool:
        if not self._held:
            self._held_since = self._clock()
            return False
        late = self._clock() - self._held_since > self._max_held_seconds
        return late and not self._is_sure_to_repeat()

    def _is_sure_to_repeat(self) -> bool:
        return any(reading.is_strong for reading in self._readings if reading.state == "open")

    def _take(self, text: str, at: int) -> int:
        """Read the text from this index. Returns the index up to which it was read."""
        foreseen = min((retelling.foresee(text, at) for retelling in self._followed), default=0)
        if not foreseen:
            self._read(text[at])
            return at + 1
        for retelling in self._followed:
            retelling.skip(foreseen)
        self._hold(text[at : at + foreseen])
        return at + foreseen

    def _follow(self) -> None:
        """Retellings are as long as what was said. If nothing else is open, they need not be read by character."""
        open_readings = [reading for reading in self._readings if reading.state == "open"]
        retellings = [reading for reading in open_readings if isinstance(reading, Retelling)]
        sure = len(retellings) == len(open_readings) and all(r.is_down_to_one for r in retellings)
        self._followed = retellings if sure else []

    def _hold(self, piece: str) -> None:
        self._held.append(piece)
        self._length += len(piece)

    def _read(self, char: str) -> None:
        at = self._length
        self._hold(char)
        begun: list[Reading] = []
        for reading in self._readings:
            if reading.state == "open":
                begun += reading.read(at, char)
        self._readings = [reading for reading in (*self._readings, *begun) if reading.state != "dead"]
        self._decide()
        if self.settled:
            return
        if self._is_sure_to_repeat():
            self._follow()
        else:
            self._followed = []
            self.most_held = max(self.most_held, self._length)
            if self._length >= self._max_held:
                self._settle()

    def _decide(self) -> None:
        best = self._best()
        open_ranks = [reading.rank for reading in self._readings if reading.state == "open"]
        if not open_ranks or (best is not None and best.rank < min(open_ranks)):
            self._settle()

    def _best(self) -> Reading | None:
        found = [reading for reading in self._readings if reading.state == "found"]
        return min(found, key=lambda reading: (reading.rank, -reading.join), default=None)

    def _settle(self) -> None:
        best = self._best()
        self.decision = best.name if best else "as is"
        if self.decision == "answer" and self._strategy in ("prefill", "append"):
            self.decision = "echo"
        self.dropped = best.join if best else 0
        self.settled = True

    def _release(self) -> str:
        held = "".join(self._held)[self.dropped :]
        self._held.clear()
        self._readings.clear()
        return held
