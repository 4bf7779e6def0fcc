"""Which requests tell what is wrong: as few as can be, for each may be an answer that somebody pays for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from urllib.parse import urlsplit

from .measurements import Ending, Light, Observation, Reconnection, Survey
from .probe import BROWSER, PLAIN, Notice, Question, observe

Step = Callable[[str], Notice]
"""Told what is asked now; gives what is told of its progress."""

_APP_SERVERS = ("uvicorn", "hypercorn", "granian", "gunicorn", "werkzeug")
_HERE = ("localhost", "127.0.0.1", "::1")
_PAUSE = 0.1  # between two requests to the light URL


@dataclass(frozen=True)
class Plan:
    """What the user wants to have measured."""

    url: str
    question: Question = field(default_factory=Question)
    direct: str = ""
    light: str = ""
    repeat: int = 2
    """How often a broken answer is asked for in all."""
    parallel: int = 0

    @property
    def past(self) -> str:
        """The URL that is nearest to the application."""
        return self.direct or self.url


def measure(plan: Plan, step: Step) -> Survey:
    """Take all the measurements."""
    question = plan.question
    main = observe(plan.url, question, accept_encoding=BROWSER, notice=step("as a browser asks"))
    if main.ended is Ending.UNREACHABLE:
        return Survey((main,))
    plain = None
    if main.encoding:
        plain = observe(plan.url, question, accept_encoding=PLAIN, notice=step("without compression"))
    direct = [observe(plan.direct, question, notice=step("past the proxies"))] if plan.direct else []
    url = [main]
    if direct and _broken(direct[0]):
        direct += _repeat(plan.direct, plan, step)
    elif _broken(main):
        url += _repeat(plan.url, plan, step)
    return Survey(
        tuple(url),
        tuple(direct),
        uncompressed=plain,
        old=_old(plan, main, step),
        reconnection=_reconnection(plan, plain or main, step),
        crowd=_crowd(plan, step) if plan.parallel > 1 else (),
        light=_light(plan, step) if plan.light else None,
    )


def _broken(answer: Observation) -> bool:
    return answer.answered and answer.cut and answer.size > 0


def _repeat(url: str, plan: Plan, step: Step) -> list[Observation]:
    again = range(2, plan.repeat + 1)
    return [observe(url, plan.question, notice=step(f"it was cut: once more, {n} of {plan.repeat}")) for n in again]


def _old(plan: Plan, main: Observation, step: Step) -> Observation | None:
    """Only of an application itself: a proxy's own HTTP/1.0 answers tell nothing of what is behind it."""
    if not plan.direct and not _is_application(plan.url, main):
        return None
    return observe(plan.past, plan.question, old=True, enough=lambda events: True, notice=step("in HTTP/1.0"))


def _is_application(url: str, answer: Observation) -> bool:
    server = answer.headers.get("server", "").lower()
    return urlsplit(url).hostname in _HERE and server.startswith(_APP_SERVERS)


def _reconnection(plan: Plan, answer: Observation, step: Step) -> Reconnection | None:
    ids = answer.stream.ids
    if plan.question.method != "GET" or len(ids) < 3:  # an EventSource can only GET
        return None
    middle = len(ids) // 2
    again = observe(
        plan.url,
        plan.question.with_header("Last-Event-ID", ids[middle]),
        enough=lambda events: bool(events.ids or events.terminal),
        notice=step("as a reader that comes back"),
    )
    return Reconnection(ids[middle], ids[: middle + 1], again)


def _crowd(plan: Plan, step: Step) -> tuple[Observation, ...]:
    notice = step(f"{plan.parallel} at once")
    with ThreadPoolExecutor(plan.parallel) as pool:
        futures = [pool.submit(observe, plan.past, plan.question, notice=notice) for _ in range(plan.parallel)]
        return tuple(future.result() for future in futures)


def _light(plan: Plan, step: Step) -> Light:
    light = Question(timeout=plan.question.timeout, headers=plan.question.headers, insecure=plan.question.insecure)
    alone = median(observe(plan.light, light, notice=step("the light URL, alone")).ended_at for _ in range(3))
    stream = threading.Thread(
        target=observe, args=(plan.past, plan.question), kwargs={"notice": step("the light URL, beside one stream")}
    )
    stream.start()
    slowest = 0.0
    while stream.is_alive():
        slowest = max(slowest, observe(plan.light, light).ended_at)
        time.sleep(_PAUSE)
    stream.join()
    return Light(alone, slowest)
