"""What an endpoint does or leaves out, whatever became of this answer. Every rule that matches gives a finding."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from . import next_reader_rules
from .findings import Finding, Level, plural
from .judged_answers import is_text_by_choice
from .measurements import BodyKind, Framing, Measurements, WireProtocol

HEARTBEAT_GAP = 1.5
"""Seconds. A heartbeat, if there were one, would have come in a silence as long as this."""
ROUTE_STALL = 0.5
"""Seconds that a quick route may take longer while a stream runs beside it."""
STEP = 0.25
"""Seconds, the least, between one group of answers and the next."""
STARLETTE_THREADS = 40
"""Threads that Starlette has for all synchronous work of a process (AnyIO's default limiter)."""


def direct_unusable(measurements: Measurements) -> Finding | None:
    if not measurements.direct or measurements.direct_answer is not None or measurements.direct[0].status == 429:
        return None
    direct = measurements.direct[0]
    how = f"answered {direct.status}" if direct.status else f"gave no answer ({direct.error})"
    return Finding("direct_unusable", Level.RISK, f"The direct URL {how}, and is left out.", ("wrong_direct",))


def http10_without_chunks(measurements: Measurements) -> Finding | None:
    old = measurements.http10
    if old is None or not old.answered or old.framing is not Framing.CLOSE:
        return None
    # Where the answer says itself that it is over, no cut can look like an end.
    says_so = any(each.counts.terminal for each in measurements.answers)
    if says_so or not measurements.main.answered or is_text_by_choice(measurements.main):
        return None
    seen = "A request in HTTP/1.0 is answered without chunks: behind nginx before 1.29.7, cuts look like ends."
    return Finding("http10_without_chunks", Level.RISK, seen, ("http10_framing",))


def no_events(measurements: Measurements) -> Finding | None:
    answer = measurements.direct_answer or measurements.main
    if not answer.answered or answer.is_sse or not answer.size:
        return None
    if answer.format.kind is BodyKind.JSON_LINES and answer.counts.status:  # ours, which says how it ended
        return None
    kind = answer.headers.get("content-type", "none").partition(";")[0]
    level = Level.HINT if is_text_by_choice(answer) else Level.RISK
    return Finding("not_sse", level, f"The content type is {kind}, not text/event-stream.", ("not_sse",))


def no_accel_header(measurements: Measurements) -> Finding | None:
    past = measurements.direct_answer
    if past is None or past.headers.get("x-accel-buffering", "").lower() == "no":
        return None
    return Finding(
        "no_accel_header", Level.RISK, "The direct answer has no X-Accel-Buffering: no.", ("no_accel_header",)
    )


def no_heartbeat(measurements: Measurements) -> Finding | None:
    answer = measurements.direct_answer or measurements.main
    if not answer.answered or not answer.is_sse or not answer.readable or answer.counts.pings:
        return None
    gap = max(answer.longest_gap, answer.silence if answer.cut else 0.0)
    if gap <= HEARTBEAT_GAP:
        return None
    return Finding("no_heartbeat", Level.HINT, f"{gap:.1f} s of silence without a heartbeat.", ("no_heartbeat",))


def no_ids(measurements: Measurements) -> Finding | None:
    answer = measurements.direct_answer or measurements.main
    if not answer.answered or not answer.is_sse or answer.counts.events < 2 or answer.counts.ids:
        return None
    if answer.format.protocol is not WireProtocol.UNKNOWN:  # their readers come back in ways of their own
        return None
    return Finding(
        "no_ids", Level.HINT, "The events have no ids: a reader that lost the line cannot resume.", ("no_ids",)
    )


def restarts_on_reconnect(measurements: Measurements) -> Finding | None:
    back = measurements.reconnection
    if back is None or not back.restarts:
        return None
    # Without the id, which may be all that it takes to read an answer.
    seen = "A reader that comes back with its Last-Event-ID gets the answer from the beginning again."
    return Finding("restarts_on_reconnect", Level.FAULT, seen, ("not_resumed",))


def limited_concurrency(measurements: Measurements) -> Finding | None:
    """Some requests had to wait until others were done; so many were served at a time."""
    alone = measurements.direct_answer or measurements.main
    firsts = sorted(each.first_byte for each in measurements.parallel if each.answered and each.arrivals)
    at_once = _first_step(firsts, max(STEP, alone.first_byte / 2))
    if not at_once:
        return None
    pool = at_once % STARLETTE_THREADS == 0
    if not pool and at_once > len(firsts) / 2:  # a few who came late are no queue
        return None
    seen = (
        f"Of {len(firsts)} requests at once, {at_once} began by {firsts[at_once - 1]:.1f} s, "
        f"the last after {firsts[-1]:.1f} s: {plural(at_once, 'answer')} at a time."
    )
    if pool:
        return Finding("limited_concurrency", Level.RISK, seen, ("thread_pool",))
    causes = ("blocked_loop", "one_worker") if at_once == 1 else ("few_workers", "thread_pool")
    distinguish = (
        "An async quick route (--quick-url URL) that stalls is a blocked event loop; workers are in your command line."
    )
    return Finding("limited_concurrency", Level.RISK, seen, causes, distinguish)


def _first_step(times: list[float], height: float) -> int:
    """Count what comes before the first step; 0 where there is none."""
    steps = (n for n, (earlier, later) in enumerate(pairwise(times), 1) if later - earlier >= height)
    return next(steps, 0)


def quick_route_stalls(measurements: Measurements) -> Finding | None:
    quick = measurements.quick_route
    if quick is None or quick.during_stream - quick.alone <= ROUTE_STALL:
        return None
    seen = f"The quick route takes {quick.alone:.2f} s alone, and up to {quick.during_stream:.1f} s beside one stream."
    distinguish = "A quick route that is `async def` waits only for the event loop; a `def` one for a thread, too."
    return Finding("quick_route_stalls", Level.FAULT, seen, ("blocked_loop", "one_worker"), distinguish)


PracticeRule = Callable[[Measurements], Finding | None]
RULES: tuple[PracticeRule, ...] = (
    *next_reader_rules.RULES,
    direct_unusable,
    quick_route_stalls,
    restarts_on_reconnect,
    limited_concurrency,
    http10_without_chunks,
    no_events,
    no_accel_header,
    no_heartbeat,
    no_ids,
)
