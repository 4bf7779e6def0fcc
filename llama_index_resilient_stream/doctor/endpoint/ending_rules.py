"""How the answer ended, and what that comes from. The first rule that matches has the word.

Where the direct URL ends badly too, the application is to blame, whatever proxies make of it: the rules then look at
the direct answer. Otherwise they look at the answer through the proxies, and know that the application is innocent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from .findings import Finding, Level, plural, timeout_behind
from .measurements import Ending, Framing, Observation, Survey

QUIET = 0.6
"""Seconds of silence that may be a timeout's; less is a pause."""
AT_ONCE = 0.4
SAME = 0.3
"""Repeated measurements this close together, in seconds, are the same."""
TICK = 1.1
"""gunicorn looks once a second for workers that took too long, so that a limit strikes up to so much later."""

_DIRECT = "Measure past the proxies too: --direct URL."
_LOG = "The server's log: a traceback is an exception; WORKER TIMEOUT, SIGKILL or nothing at all is a killed worker."


class Case:
    """The answers that are judged, and what is known about where the fault is not."""

    def __init__(self, survey: Survey) -> None:
        main, past = readable(survey), survey.past
        self.past = past
        self.app_is_to_blame = past is not None and main.answered and _as_bad(past, main)
        self.proxy_is_to_blame = past is not None and not self.app_is_to_blame
        self.answers: Sequence[Observation] = survey.direct if self.app_is_to_blame else (main, *survey.url[1:])
        self.answer = self.answers[0]
        self.where = "The direct answer" if self.app_is_to_blame else "The answer"


def readable(survey: Survey) -> Observation:
    """The answer through the proxies whose events could be read."""
    main, plain = survey.main, survey.plain
    return main if main.readable or plain is None else plain


def _as_bad(past: Observation, main: Observation) -> bool:
    return bool(_rank(past)) and not (_rank(main) == _BROKEN > _rank(past))


_BROKEN = 2


def _rank(answer: Observation) -> int:
    """0: nothing wrong, or not known; 1: nobody can tell; 2: broken."""
    if answer.cut or (answer.ended is Ending.CLEAN and not answer.size):
        return _BROKEN
    return int(unstated(answer) or answer.stream.failed)


def unstated(answer: Observation) -> bool:
    """It ended properly, as it seems, and nothing in it says that it is all."""
    return answer.answered and answer.ended is Ending.CLEAN and answer.readable and not answer.stream.terminal


def ending(survey: Survey) -> Finding | None:
    """What is wrong with how it ended."""
    case = Case(survey)
    for rule in RULES:
        if finding := rule(case):
            return finding
    return None


def no_connection(case: Case) -> Finding | None:
    answer = case.answer
    if answer.ended is Ending.UNREACHABLE:
        return Finding("unreachable", Level.FAULT, f"No connection: {answer.error}.", ("unreachable",))
    if answer.ended is Ending.NO_ANSWER:
        seen = f"The connection was closed after {answer.ended_at:.1f} s without an answer."
        return Finding("no-answer", Level.FAULT, seen, ("wrong-scheme", "killed-worker"), _LOG)
    return None


def gave_up(case: Case) -> Finding | None:
    answer = case.answer
    if answer.ended is not Ending.GAVE_UP:
        return None
    got = plural(answer.stream.events, "event") if answer.is_sse else f"{answer.size:,} bytes"
    seen = f"Not over after {answer.ended_at:.0f} s, with {got}, the last {answer.silence:.0f} s in silence."
    causes = ("long-answer", "stalled") if answer.silence < QUIET * 5 else ("stalled", "long-answer")
    return Finding("gave-up", Level.RISK, seen, causes, "Ask again with a longer --timeout.")


def gateway_timeout(case: Case) -> Finding | None:
    answer = case.answer
    if answer.status not in (408, 504, 524):
        return None
    limit = timeout_behind(answer.headers_at)
    seen = f"{answer.status} after {answer.headers_at:.1f} s: the proxy saw no headers for about {limit:g} s."
    return Finding("gateway-timeout", Level.FAULT, seen, ("gateway-timeout",), timeout=limit)


def bad_status(case: Case) -> Finding | None:
    answer = case.answer
    if answer.status in (0, 200):
        return None
    seen = f"The endpoint answered {answer.status}."
    if answer.status == 204:
        return Finding("no-content", Level.HINT, seen, ("stream-is-over",))
    if answer.status < 400:
        return Finding("redirect", Level.FAULT, seen, ("redirect",))
    if answer.status < 500:
        return Finding("refused", Level.FAULT, seen, ("refused",))
    if answer.status in (502, 503):
        return Finding("bad-gateway", Level.FAULT, seen, ("bad-gateway",))
    causes = ("exception", "response-returned")
    return Finding("server-error", Level.FAULT, seen, causes, "The traceback in the server's log.")


def empty_and_clean(case: Case) -> Finding | None:
    answer = case.answer
    if answer.size or answer.ended is not Ending.CLEAN:
        return None
    seen = f"{case.where} was 200, empty, and ended cleanly after {answer.ended_at:.1f} s."
    limit = timeout_behind(answer.ended_at) if answer.ended_at >= QUIET else 0.0
    if case.proxy_is_to_blame and limit:
        return Finding("empty-after-silence", Level.FAULT, seen, ("idle-timeout",), timeout=limit)
    if answer.framing is not Framing.CLOSE and not limit:
        return Finding("empty", Level.FAULT, seen, ("consumed",))
    causes = ("idle-timeout", "consumed", "exception") if limit else ("consumed", "wrong-object", "exception")
    return Finding("empty", Level.FAULT, seen, causes, f"{_DIRECT} Or the server's log.", limit)


def empty_and_cut(case: Case) -> Finding | None:
    answer = case.answer
    if answer.size or not answer.cut:
        return None
    seen = f"{case.where} was 200, and was cut after {answer.ended_at:.1f} s without a byte of its body."
    if answer.ended_at < AT_ONCE or (case.app_is_to_blame and answer.silence < AT_ONCE):
        log = 'The server\'s log: "TypeError: ... not iterable" is the response object; any other, an exception.'
        return Finding("empty-cut", Level.FAULT, seen, ("wrong-object", "exception"), log)
    limit = timeout_behind(answer.ended_at)
    if case.proxy_is_to_blame:
        return Finding("silent-from-the-start", Level.FAULT, seen, ("idle-timeout",), timeout=limit)
    causes = ("exception", "killed-worker") if case.app_is_to_blame else ("idle-timeout", "exception", "killed-worker")
    return Finding("silent-from-the-start", Level.FAULT, seen, causes, _tell(case), limit)


def cut_after_silence(case: Case) -> Finding | None:
    answer = case.answer
    # A timeout would have struck in any earlier silence that was as long.
    if not answer.cut or answer.silence < max(QUIET, answer.longest_gap - SAME):
        return None
    limit = timeout_behind(answer.silence)
    seen = (
        f"{case.where} was cut after {answer.silence:.1f} s of silence, {answer.ended_at:.1f} s after the request: "
        f"a timeout of about {limit:g} s."
    )
    past = case.past
    if case.proxy_is_to_blame and past is not None and past.longest_gap >= answer.silence - SAME:
        return Finding("cut-after-silence", Level.FAULT, seen, ("idle-timeout",), timeout=limit)
    if case.app_is_to_blame:
        return Finding("cut-after-silence", Level.FAULT, seen, ("exception", "killed-worker"), _LOG, limit)
    causes = ("idle-timeout", "exception", "killed-worker")
    return Finding("cut-after-silence", Level.FAULT, seen, causes, _tell(case), limit)


def cut_in_mid_flow(case: Case) -> Finding | None:
    answer = case.answer
    if not answer.cut:
        return None
    cuts = [each for each in case.answers if each.cut]
    if len(cuts) > 1 and (finding := _cut_again(case, cuts)):
        return finding
    got = " and ".join(str(_place(each)) for each in cuts)
    times = " and ".join(f"{each.ended_at:.1f}" for each in cuts)
    seen = f"{case.where} was cut in mid-flow, after {got} {'events' if answer.is_sse else 'bytes'} and {times} s."
    causes = ("time-limit", "killed-worker") if case.proxy_is_to_blame else ("exception", "killed-worker", "time-limit")
    again = "Ask again with --repeat 3: the same time is a limit, the same place an exception. "
    limit = timeout_behind(answer.ended_at)
    return Finding("cut-in-mid-flow", Level.FAULT, seen, causes, (again if len(cuts) < 3 else "") + _LOG, limit)


def _cut_again(case: Case, cuts: list[Observation]) -> Finding | None:
    """Answers take their own time, and are of their own length: what stays the same tells what cut them."""
    times = [each.ended_at for each in cuts]
    # A worker that had to start first took its time before the headers.
    flowing = [each.ended_at - each.headers_at for each in cuts]
    same_place = len({_place(each) for each in cuts}) == 1
    if same_place and not _same(times, SAME) and not _same(flowing, SAME):
        seen = f"{case.where} was cut {len(cuts)} times, always at the same place, at different times."
        return Finding("cut-at-the-same-place", Level.FAULT, seen, ("exception",), _LOG)
    if not same_place and _same(times, TICK):
        seen = f"{case.where} was cut {len(cuts)} times, always after about {min(times):.1f} s, at different places."
        return Finding("cut-at-the-same-time", Level.FAULT, seen, ("time-limit",), timeout=timeout_behind(min(times)))
    return None


def _place(answer: Observation) -> int:
    return answer.stream.events if answer.is_sse else answer.size


def _same(times: list[float], spread: float) -> bool:
    times = sorted(times)
    return times[-1] - times[0] <= spread and min(later - earlier for earlier, later in pairwise(times)) <= SAME


def told_of_an_error(case: Case) -> Finding | None:
    if not case.answer.stream.failed:
        return None
    status = f', status "{case.answer.stream.status}"' if case.answer.stream.status else ""
    seen = f"{case.where} ended with an error event{status}: the endpoint says so itself."
    return Finding("error-event", Level.FAULT, seen, ("exception",), "The server's log.")


def no_terminal_event(case: Case) -> Finding | None:
    answer = case.answer
    if not unstated(answer):
        return None
    seen = f"{case.where} ended cleanly, and nothing in it says that it was finished."
    if case.proxy_is_to_blame:
        seen = "The answer ended cleanly before its terminal event; past the proxies it arrives."
        return Finding("end-lost", Level.FAULT, seen, ("http10-hop",))
    if case.app_is_to_blame:
        return Finding("no-terminal-event", Level.RISK, seen, _UNSTATED, _SAY)
    return Finding("no-terminal-event", Level.RISK, seen, (*_UNSTATED, "http10-hop"), f"{_SAY} {_DIRECT}")


_UNSTATED = ("no-terminal-event", "swallowed-exception")
_SAY = "The server's log has the exception, if there was one. If your endpoint ends in its own way: --terminal TEXT."


def _tell(case: Case) -> str:
    return _LOG if case.past is not None else f"{_DIRECT} {_LOG}"


Rule = Callable[[Case], Finding | None]
RULES: tuple[Rule, ...] = (
    no_connection,
    gave_up,
    gateway_timeout,
    bad_status,
    empty_and_clean,
    empty_and_cut,
    cut_after_silence,
    cut_in_mid_flow,
    told_of_an_error,
    no_terminal_event,
)


def hidden_cut(survey: Survey) -> Finding | None:
    """What the application cut, and a proxy presents as an end."""
    past, main = survey.past, readable(survey)
    if past is None or not past.cut or not unstated(main):
        return None
    seen = "The direct answer was cut; through the proxy the same cut looks like a proper end."
    return Finding("hidden-cut", Level.FAULT, seen, ("http10-hop",))


def unstated_past_the_proxies(survey: Survey) -> Finding | None:
    """What is missing in the application as well, where a proxy does something worse."""
    past = survey.past
    if past is None or not unstated(past) or not past.size or _as_bad(past, readable(survey)):
        return None
    seen = "The direct answer ended cleanly, and nothing in it says that it was finished."
    return Finding("no-terminal-event", Level.RISK, seen, _UNSTATED, _SAY)
