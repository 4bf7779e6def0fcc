"""What an endpoint does or leaves out whatever became of this answer. Every rule that matches is told."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from .findings import Finding, Level, plural
from .measurements import Framing, Survey

BEAT = 1.5
"""Seconds of silence in which a heartbeat would have been seen, had there been one."""
STALL = 0.5
"""Seconds that a light URL may take longer while a stream runs beside it."""
JUMP = 0.25
"""Seconds between one group of answers and the next, at least."""
POOL = 40
"""Threads that Starlette has for all synchronous work of a process (AnyIO's default limiter)."""


def direct_unusable(survey: Survey) -> Finding | None:
    if not survey.direct or survey.past is not None:
        return None
    direct = survey.direct[0]
    how = f"answered {direct.status}" if direct.status else f"gave no answer ({direct.error})"
    return Finding("direct-unusable", Level.RISK, f"The direct URL {how}, and is left out.", ("wrong-direct",))


def blind_hop(survey: Survey) -> Finding | None:
    old = survey.old
    if old is None or not old.answered or old.framing is not Framing.CLOSE:
        return None
    seen = "A request in HTTP/1.0 is answered without chunks: behind nginx before 1.29.7, cuts look like ends."
    return Finding("blind-hop", Level.RISK, seen, ("http10-framing",))


def no_events(survey: Survey) -> Finding | None:
    answer = survey.past or survey.main
    if not answer.answered or answer.is_sse or not answer.size:
        return None
    kind = answer.headers.get("content-type", "none").partition(";")[0]
    return Finding("not-sse", Level.RISK, f"The content type is {kind}, not text/event-stream.", ("not-sse",))


def no_accel_header(survey: Survey) -> Finding | None:
    past = survey.past
    if past is None or past.headers.get("x-accel-buffering", "").lower() == "no":
        return None
    return Finding(
        "no-accel-header", Level.RISK, "The direct answer has no X-Accel-Buffering: no.", ("no-accel-header",)
    )


def no_heartbeat(survey: Survey) -> Finding | None:
    answer = survey.past or survey.main
    if not answer.answered or not answer.is_sse or not answer.readable or answer.stream.pings:
        return None
    gap = max(answer.longest_gap, answer.silence if answer.cut else 0.0)
    if gap <= BEAT:
        return None
    return Finding("no-heartbeat", Level.HINT, f"{gap:.1f} s of silence without a heartbeat.", ("no-heartbeat",))


def no_ids(survey: Survey) -> Finding | None:
    answer = survey.past or survey.main
    if not answer.answered or not answer.is_sse or answer.stream.events < 2 or answer.stream.ids:
        return None
    return Finding(
        "no-ids", Level.HINT, "The events have no ids: a reader that lost the line cannot resume.", ("no-ids",)
    )


def begins_again(survey: Survey) -> Finding | None:
    back = survey.reconnection
    if back is None or not back.begins_again:
        return None
    # Without the id, which may be all that it takes to read an answer.
    seen = "A reader that comes back with its Last-Event-ID is told the answer from the beginning again."
    return Finding("begins-again", Level.FAULT, seen, ("not-resumed",))


def in_steps(survey: Survey) -> Finding | None:
    """Those who had to wait until others were done, and how many were served at once."""
    alone = survey.past or survey.main
    firsts = sorted(each.first_byte for each in survey.crowd if each.answered and each.arrivals)
    at_once = _first_step(firsts, max(JUMP, alone.first_byte / 2))
    if not at_once:
        return None
    pool = at_once % POOL == 0
    if not pool and at_once > len(firsts) / 2:  # a few who came late are no queue
        return None
    seen = (
        f"Of {len(firsts)} requests at once, {at_once} began by {firsts[at_once - 1]:.1f} s, "
        f"the last after {firsts[-1]:.1f} s: {plural(at_once, 'answer')} at a time."
    )
    if pool:
        return Finding("in-steps", Level.RISK, seen, ("thread-pool",))
    causes = ("blocked-loop", "one-worker") if at_once == 1 else ("few-workers", "thread-pool")
    tell = "An async light route (--light URL) that stalls is a blocked event loop; workers are in your command line."
    return Finding("in-steps", Level.RISK, seen, causes, tell)


def _first_step(times: list[float], height: float) -> int:
    """How many come before the first step; 0 where there is none."""
    steps = (n for n, (earlier, later) in enumerate(pairwise(times), 1) if later - earlier >= height)
    return next(steps, 0)


def light_stalls(survey: Survey) -> Finding | None:
    light = survey.light
    if light is None or light.beside - light.alone <= STALL:
        return None
    seen = f"The light URL takes {light.alone:.2f} s alone, and up to {light.beside:.1f} s beside one stream."
    tell = "A light route that is `async def` waits only for the event loop; a `def` one for a thread, too."
    return Finding("light-stalls", Level.FAULT, seen, ("blocked-loop", "one-worker"), tell)


Rule = Callable[[Survey], Finding | None]
RULES: tuple[Rule, ...] = (
    direct_unusable,
    light_stalls,
    begins_again,
    in_steps,
    blind_hop,
    no_events,
    no_accel_header,
    no_heartbeat,
    no_ids,
)
