"""Whether a proxy ended what broke off as if it were whole."""

from __future__ import annotations

from ..sse import OPENAI_DONE
from .findings import Finding, Level, timeout_behind
from .judged_answers import readable, unstated
from .measurements import Measurements, Observation

SHORTER = 1.3
"""An answer that has so many times fewer pieces than the direct one is looked at again."""
_SAME_TIME = 0.3  # seconds


def false_end(measurements: Measurements) -> Finding | None:
    """The end says that the answer is whole, and it is a proxy that says so."""
    main, past = readable(measurements), measurements.direct_answer
    if past is None or not main.whole:
        return None
    timeout = 0.0
    if how := _how_it_broke_off(past):
        seen = f"The direct answer {how}; through the proxy it has a good end, as if it were whole."
    elif main.counts.terminal == OPENAI_DONE != past.counts.terminal:
        seen = "Through the proxy the answer ends with [DONE], past it with an end of its own."
    elif _is_shortened(measurements):
        timeout = timeout_behind(main.ended_at)
        seen = f"Through the proxy the answer is over after {main.ended_at:.1f} s each time, as if whole."
    else:
        return None
    return Finding("false_end", Level.FAULT, seen, ("made_up_end",), timeout=timeout)


def _how_it_broke_off(past: Observation) -> str:
    if past.cut:
        return "was cut"
    if past.counts.failed:
        return "failed"
    return "says nothing of an end" if unstated(past) else ""


def _is_shortened(measurements: Measurements) -> bool:
    """Whether a limit on the time, or on the size, shortens what is longer past the proxies."""
    through, past = measurements.url, measurements.direct
    if min(len(through), len(past)) < 2 or not all(each.whole for each in (*through, *past)):
        return False
    if not _ends_at_a_limit(through):
        return False
    longest = max(each.format.pieces for each in through)
    return longest * SHORTER < min(each.format.pieces for each in past)


def _ends_at_a_limit(answers: tuple[Observation, ...]) -> bool:
    times = [each.ended_at for each in answers]
    return max(times) - min(times) <= _SAME_TIME or len({each.format.pieces for each in answers}) == 1
