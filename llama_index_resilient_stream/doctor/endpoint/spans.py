"""Judges how an answer was delivered by what arrived when: a span against the wait before it, no gaps.

A model writes 5 to 200 pieces a second. So many pieces need a span of time; where they came in a small part of it,
after a wait, something held them back. What jitter can do to a span is a few hundredths of a second, at any pace.

These are functions of recorded arrivals, without I/O: the same arrivals always give the same judgement.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .measurements import BLOCK_GAP, HELD_BACK, Observation

FASTEST = 200.0
"""Pieces a second that a model writes at most."""
CHARACTERS = 6.0
"""Bytes of a body without events that are one piece: a word of plain text."""
JITTER = 0.015
"""Seconds by which an idle machine may shorten a span."""
BUSY = 0.2
"""Seconds by which a busy one may, once in a while. An answer that needs less is asked for once more."""
AT_ONCE = 0.1
"""Seconds within which a body without events came at once."""
FLOWS = 0.05
"""Seconds that an answer must take, so that it shows whether something holds it back."""
NOTICED = 0.15
"""Seconds of waiting, of the average piece, that a reader notices."""
LUMPIER = 2.5
"""Pieces that come together in so many times as big lumps do not so by chance."""
BURST = 5
"""Pieces that come together."""


@dataclass(frozen=True)
class Delivery:
    """When the pieces of an answer came: `(seconds, pieces)` for each time at which some came."""

    lumps: tuple[tuple[float, float], ...]
    by_events: bool
    """Whether pieces are events. Otherwise they are estimated from bytes."""

    @property
    def pieces(self) -> float:
        return sum(weight for _, weight in self.lumps)

    @property
    def wait(self) -> float:
        """Seconds until the first piece."""
        return self.lumps[0][0] if self.lumps else 0.0

    @property
    def span(self) -> float:
        """Seconds from the first piece to the last."""
        return self.lumps[-1][0] - self.lumps[0][0] if self.lumps else 0.0

    @property
    def least_span(self) -> float:
        """Seconds in which so many pieces can be written, at the fastest."""
        return max(0.0, self.pieces - 1) / FASTEST

    @property
    def at_once(self) -> bool:
        """Whether all came at once, after a wait."""
        longest = min(self.least_span / 8, self.wait / 4)
        longest = longest if self.by_events else min(longest, AT_ONCE)
        return self.wait >= HELD_BACK and self.least_span - self.span >= JITTER and self.span <= longest

    @cached_property
    def _merged(self) -> tuple[tuple[float, float], ...]:
        merged: list[tuple[float, float]] = []
        last = -BLOCK_GAP
        for at, weight in self.lumps:
            if merged and at - last < BLOCK_GAP:
                merged[-1] = (merged[-1][0], merged[-1][1] + weight)
            else:
                merged.append((at, weight))
            last = at
        return tuple(merged)

    @property
    def together(self) -> float:
        """How many pieces came together, seen from the average piece."""
        return sum(weight * weight for _, weight in self._merged) / self.pieces if self.pieces else 0.0

    @property
    def share(self) -> float:
        """The part of all pieces that came together, seen from the average piece."""
        return self.together / self.pieces if self.pieces else 0.0

    def held(self, since: float) -> float:
        """Return for how many seconds nothing had come, seen from the average piece; before `since` nothing was due."""
        waited, last = 0.0, since
        for at, weight in self._merged:
            waited += max(0.0, at - last) * weight
            last = max(last, at)
        return waited / self.pieces if self.pieces else 0.0


def delivery_of(answer: Observation, *, by_events: bool = True) -> Delivery:
    """Return how an answer was delivered, by its events where they can be read."""
    if by_events and has_pieces(answer):
        return Delivery(tuple((each.at, float(each.pieces)) for each in answer.arrivals if each.pieces), True)
    return Delivery(tuple((each.at, each.size / CHARACTERS) for each in answer.arrivals), False)


def has_pieces(answer: Observation) -> bool:
    """Whether the events of an answer can be read, and bring something."""
    return answer.is_sse and answer.readable and any(each.pieces for each in answer.arrivals)


def came_at_once(answer: Observation) -> bool:
    """Whether the whole answer came at once, after a wait."""
    return answer.answered and delivery_of(answer).at_once


def came_in_bursts(answer: Observation) -> bool:
    """Whether many events came together, again and again, with a pause before each time."""
    delivery = delivery_of(answer)
    if not delivery.by_events or delivery.at_once:
        return False
    return delivery.together >= BURST and delivery.held(delivery.wait) >= 2 * NOTICED


def is_lumpier(answer: Observation, free: Observation) -> bool:
    """Whether an answer came in bigger lumps than one that nothing held back. The two may differ in length and pace."""
    by_events = has_pieces(answer) and has_pieces(free)
    held, flowing = delivery_of(answer, by_events=by_events), delivery_of(free, by_events=by_events)
    if not held.lumps or flowing.span < FLOWS or flowing.at_once:
        return False
    if held.at_once:
        return True
    together = (held.together, flowing.together) if by_events else (held.share, flowing.share)
    waited = held.held(flowing.wait)
    return together[0] >= LUMPIER * together[1] and waited >= max(NOTICED, 2 * flowing.held(flowing.wait))


def may_be_chance(answer: Observation) -> bool:
    """Whether the answer was so short that a busy machine could have delivered it so."""
    return delivery_of(answer).least_span < BUSY


def beats_before(answer: Observation) -> bool:
    """Whether heartbeats came through long before the first piece: no proxy then holds anything back."""
    if not has_pieces(answer):
        return False
    return bool(answer.counts.pings) and delivery_of(answer).wait - answer.first_byte >= HELD_BACK / 2


def written_bit_by_bit(answer: Observation) -> bool:
    """Whether what came at once left the server in many writes: who passes on what it collected writes once."""
    if answer.segments:
        return answer.segments > max(_FEW_WRITES, delivery_of(answer).pieces / 4)
    return sum(arrival.size < _BUFFER for arrival in answer.arrivals) > 1


_FEW_WRITES = 4  # that of the headers included
_BUFFER = 2_000  # bytes


def headers_waited(answer: Observation) -> bool:
    """Whether the headers came with the answer, and not before it: the endpoint had not returned its response yet."""
    wait = delivery_of(answer).wait
    return wait - answer.headers_at < wait / 4
