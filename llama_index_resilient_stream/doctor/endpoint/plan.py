"""Decides which requests are sent, and sends them. As few as possible: each may be an answer that somebody pays for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from statistics import median
from urllib.parse import urlsplit

from .delivery_rules import is_doubtful
from .made_up_rules import SHORTER
from .measurements import Ending, Measurements, Observation, Reconnection, RouteLatency
from .probe import BROWSER, PLAIN, ProbeRequest, ReportProgress, observe

BeginRequest = Callable[[str], ReportProgress]
"""Called with a description of the next request; returns the function that is called with its progress."""

_APP_SERVERS = ("uvicorn", "hypercorn", "granian", "gunicorn", "werkzeug")
_HERE = ("localhost", "127.0.0.1", "::1")
CACHED_AFTER = 5.5
"""Seconds after which a cache has an answer, also one that waits until the connection behind it is closed: servers keep
theirs for 5 s."""
_PAUSE = 0.1  # seconds between two requests to the quick route


@dataclass(frozen=True)
class Plan:
    """What the user wants to have measured."""

    url: str
    request: ProbeRequest = field(default_factory=ProbeRequest)
    direct: str = ""
    quick_url: str = ""
    """A route that needs no time."""
    repeat: int = 2
    """How many times a broken answer is asked for, the first time included."""
    parallel: int = 0

    @property
    def nearest_url(self) -> str:
        """The URL that is nearest to the application."""
        return self.direct or self.url


def measure(plan: Plan, begin: BeginRequest) -> Measurements:
    """Send the requests of the plan. `begin` is called before each of them.

    Raises:
        ValueError: One of the addresses is no URL.
    """
    request = plan.request
    main = observe(plan.url, request, accept_encoding=BROWSER, on_progress=begin("as a browser asks"))
    asked = time.monotonic()
    if main.ended is Ending.UNREACHABLE:
        return Measurements((main,))
    seen = Measurements((main,), is_application=not plan.direct and _is_application(plan.url, main))
    if main.encoding:
        plain = observe(plan.url, request, accept_encoding=PLAIN, on_progress=begin("without compression"))
        seen = replace(seen, uncompressed=plain)
    if plan.direct:
        seen = replace(seen, direct=(observe(plan.direct, request, on_progress=begin("past the proxies")),))
        seen = replace(seen, app_compresses=_app_compresses(plan, main, begin))
    seen = _repeated(plan, seen, begin)
    seen = replace(
        seen,
        http10=_http10(plan, main, begin),
        parallel=_parallel(plan, begin) if plan.parallel > 1 else (),
        quick_route=_quick_route(plan, begin) if plan.quick_url else None,
    )
    return _next_readers(plan, seen, begin, asked)


def _next_readers(plan: Plan, seen: Measurements, begin: BeginRequest, asked: float) -> Measurements:
    """Ask as the readers who come next. Those before were answered at `asked`."""
    if plan.request.method == "GET" and seen.main.whole and not seen.is_application:
        begin("a cache on the way, after a pause")
        time.sleep(max(0.0, asked + CACHED_AFTER - time.monotonic()))
    seen = replace(seen, reconnection=_reconnection(plan, seen, begin))
    return replace(seen, second_reader=_second_reader(plan, seen, begin))


def _app_compresses(plan: Plan, main: Observation, begin: BeginRequest) -> bool | None:
    if not main.encoding:
        return None
    on_progress = begin("past the proxies, compressed")
    past = observe(
        plan.direct, plan.request, accept_encoding=BROWSER, stop_when=lambda events: True, on_progress=on_progress
    )
    return bool(past.encoding) if past.answered else None


def _repeated(plan: Plan, seen: Measurements, begin: BeginRequest) -> Measurements:
    """Ask again for what was cut, and once more for what may be chance."""
    if seen.direct and _broken(seen.direct[0]):
        return replace(seen, direct=(*seen.direct, *_repeat(plan.direct, plan, begin)))
    if _broken(seen.main):
        return replace(seen, url=(*seen.url, *_repeat(plan.url, plan, begin)))
    if is_doubtful(seen):
        again = observe(plan.url, plan.request, accept_encoding=BROWSER, on_progress=begin("once more, to be sure"))
        return replace(seen, url=(*seen.url, again))
    past = seen.direct_answer
    if past is not None and seen.main.whole and seen.main.format.pieces * SHORTER < past.format.pieces:
        on_progress = begin("once more, to compare the length")
        again = observe(plan.url, plan.request, accept_encoding=BROWSER, on_progress=on_progress)
        past_again = observe(plan.direct, plan.request, on_progress=begin("once more, past the proxies"))
        return replace(seen, url=(*seen.url, again), direct=(*seen.direct, past_again))
    return seen


def _broken(answer: Observation) -> bool:
    return answer.answered and answer.cut and answer.size > 0


def _repeat(url: str, plan: Plan, begin: BeginRequest) -> list[Observation]:
    again = range(2, plan.repeat + 1)
    return [
        observe(url, plan.request, on_progress=begin(f"it was cut: once more, {n} of {plan.repeat}")) for n in again
    ]


def _http10(plan: Plan, main: Observation, begin: BeginRequest) -> Observation | None:
    """Only of an application itself: a proxy's own HTTP/1.0 answers show nothing of what is behind it."""
    if not plan.direct and not _is_application(plan.url, main):
        return None
    return observe(
        plan.nearest_url, plan.request, http10=True, stop_when=lambda events: True, on_progress=begin("in HTTP/1.0")
    )


def _is_application(url: str, answer: Observation) -> bool:
    server = answer.headers.get("server", "").lower()
    return urlsplit(url).hostname in _HERE and server.startswith(_APP_SERVERS)


def _reconnection(plan: Plan, seen: Measurements, begin: BeginRequest) -> Reconnection | None:
    ids = (seen.uncompressed or seen.main).counts.ids
    if plan.request.method != "GET" or len(ids) < 3:  # an EventSource can only GET
        return None
    middle = len(ids) // 2
    again = observe(
        plan.url,
        plan.request.with_header("Last-Event-ID", ids[middle]),
        stop_when=lambda events: bool(events.ids or events.terminal),
        on_progress=begin("as a reader that comes back"),
    )
    return Reconnection(ids[middle], ids[: middle + 1], again)


def _second_reader(plan: Plan, seen: Measurements, begin: BeginRequest) -> Observation | None:
    """Whether one more reader is served as well, and by the application. It leaves at the first piece."""
    asked_again = seen.uncompressed or seen.reconnection or len(seen.url) > 1
    if asked_again or not seen.main.answered or seen.main.ended is not Ending.CLEAN or not seen.main.counts.events:
        return None
    return observe(
        plan.url,
        plan.request,
        accept_encoding=BROWSER,
        stop_when=lambda counts: bool(counts.events),
        on_progress=begin("as a second reader"),
    )


def _parallel(plan: Plan, begin: BeginRequest) -> tuple[Observation, ...]:
    on_progress = begin(f"{plan.parallel} at once")
    with ThreadPoolExecutor(plan.parallel) as pool:
        futures = [
            pool.submit(observe, plan.nearest_url, plan.request, on_progress=on_progress) for _ in range(plan.parallel)
        ]
        return tuple(future.result() for future in futures)


def _quick_route(plan: Plan, begin: BeginRequest) -> RouteLatency:
    quick = ProbeRequest(timeout=plan.request.timeout, headers=plan.request.headers, insecure=plan.request.insecure)
    alone = median(
        observe(plan.quick_url, quick, on_progress=begin("the quick route, alone")).ended_at for _ in range(3)
    )
    stream = threading.Thread(
        target=observe,
        args=(plan.nearest_url, plan.request),
        kwargs={"on_progress": begin("the quick route, beside one stream")},
    )
    stream.start()
    slowest = 0.0
    while stream.is_alive():
        slowest = max(slowest, observe(plan.quick_url, quick).ended_at)
        time.sleep(_PAUSE)
    stream.join()
    return RouteLatency(alone, slowest)
