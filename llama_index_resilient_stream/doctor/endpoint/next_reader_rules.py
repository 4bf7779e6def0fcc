"""What the next reader gets, where the first one was answered: the same out of a cache, or nothing."""

from __future__ import annotations

from .findings import Finding, Level
from .measurements import Measurements, Observation
from .spans import delivery_of

CACHE_HEADERS = ("x-cache", "x-cache-status", "x-proxy-cache", "cf-cache-status", "cache-status", "x-varnish-cache")
_FROM_CACHE = ("hit", "stale", "updating", "revalidated")
STREAMED = 1.0
"""Seconds that an answer took, so that it cannot come at once for a second reader unless it is kept."""
_ENOUGH = 8
"""Pieces of an answer that is long enough to compare."""


def from_a_cache(measurements: Measurements) -> Finding | None:
    """A shared cache gives the answer of one reader to another."""
    main = measurements.main
    if not main.answered or not main.size:
        return None
    again = _asked_again(measurements)
    if any(_says_cached(each) for each in (main, *again)):
        seen = "An answer came out of a cache: one reader gets what another one asked."
        return Finding("from_a_cache", Level.FAULT, seen, ("cache",))
    past = measurements.direct_answer
    pairs = [(each, main) for each in again] + ([(main, past)] if past is not None else [])
    took = next((written.ended_at for kept, written in pairs if _is_the_whole_at_once(kept, written)), None)
    if took is None:
        return None
    seen = f"What took {took:.1f} s for one reader, another one got at once."
    return Finding("from_a_cache", Level.RISK, seen, ("cache", "own_cache"), "The proxy's log; X-Cache, Age.")


def _is_the_whole_at_once(again: Observation, main: Observation) -> bool:
    if not again.answered or main.ended_at < STREAMED or main.format.pieces < _ENOUGH:
        return False
    at_once = delivery_of(again).share > 0.5 and again.ended_at < main.ended_at / 5
    return at_once and again.format.pieces >= main.format.pieces / 2


def _says_cached(answer: Observation) -> bool:
    age = answer.headers.get("age", "0").strip()
    words = " ".join(answer.headers.get(name, "") for name in CACHE_HEADERS).lower()
    cached = (age.isdecimal() and int(age) > 0) or any(word in words for word in _FROM_CACHE)
    return cached and answer.answered


def refused_later(measurements: Measurements) -> Finding | None:
    """The first request was answered, and one of the next was not."""
    refused = [each.status for each in _later(measurements) if each.status >= 400]
    if not measurements.main.answered or not refused:
        return None
    status = 429 if 429 in refused else refused[0]
    level = Level.FAULT if status == 429 or status >= 500 else Level.RISK
    seen = f"The first request was answered, a later one got {status}: a reader that comes back gets nothing."
    causes = _causes_of(status)
    return Finding("refused_later", level, seen, causes, "" if len(causes) == 1 else "The server's log.")


def _causes_of(status: int) -> tuple[str, ...]:
    if status == 429:
        return ("rate_limit",)
    return ("bad_gateway", "rate_limit") if status >= 500 else ("one_time", "rate_limit")


def _later(measurements: Measurements) -> list[Observation]:
    """All that was asked after the first answer. A server may refuse HTTP/1.0, and the direct URL be a wrong one."""
    beside = [*measurements.direct, *([measurements.http10] if measurements.http10 else [])]
    back = [measurements.reconnection.again] if measurements.reconnection else []
    limited = [each for each in beside if each.status == 429]
    return [*_asked_again(measurements), *measurements.parallel, *back, *limited]


def _asked_again(measurements: Measurements) -> list[Observation]:
    """The same request once more. A reader that comes back is to get the rest, and at once."""
    again = [*measurements.url[1:]]
    again += [each for each in (measurements.uncompressed, measurements.second_reader) if each is not None]
    back = measurements.reconnection
    return [*again, back.again] if back is not None and back.restarts else again


RULES = (from_a_cache, refused_later)
