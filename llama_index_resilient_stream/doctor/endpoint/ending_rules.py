"""How the answer ended, and why. The first rule that matches decides."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from . import format_rules
from .findings import Finding, Level, plural, timeout_behind
from .judged_answers import JudgedAnswers, as_bad, is_text_by_choice, readable, unstated
from .measurements import NO_HANDSHAKE, NO_TLS, UNKNOWN_HOST, Ending, Framing, Measurements, Observation

SHORTEST_TIMEOUT = 0.6
"""Seconds. A shorter silence is a pause, and no timeout."""
IMMEDIATELY = 0.4
"""Seconds. What happened sooner happened at once."""
SAME_TIME = 0.3
"""Seconds. Repeated measurements this close together are the same."""
GUNICORN_TICK = 1.1
"""Seconds. gunicorn looks once a second for workers that took too long: its limit acts up to this much later."""

_DIRECT = "Measure past the proxies too: --direct URL."
_SEE_THE_LOG = (
    "The server's log: a traceback is an exception; WORKER TIMEOUT, SIGKILL or nothing at all is a killed worker."
)


def ending(measurements: Measurements) -> Finding | None:
    """Return what is wrong with the end."""
    case = JudgedAnswers(measurements)
    for rule in RULES:
        if finding := rule(case):
            return finding
    return None


def no_connection(case: JudgedAnswers) -> Finding | None:
    answer = case.answer
    if answer.ended is Ending.UNREACHABLE:
        cause = "unknown_host" if answer.error == UNKNOWN_HOST else "unreachable"
        return Finding("unreachable", Level.FAULT, f"No connection: {answer.error}.", (cause,))
    if answer.certificate_error:
        cause = _CERTIFICATES.get(answer.certificate_error, "untrusted_certificate")
        return Finding("no_answer", Level.FAULT, f"The certificate is not trusted: {answer.error}.", (cause,))
    if answer.ended is Ending.NO_ANSWER and answer.error == NO_TLS:
        return Finding("no_answer", Level.FAULT, "https was asked, and no TLS is spoken there.", ("wrong_scheme",))
    if answer.ended is Ending.NO_ANSWER and answer.error == NO_HANDSHAKE:
        seen = f"https was asked, and nothing answered the TLS handshake within {answer.ended_at:.0f} s."
        return Finding("no_answer", Level.FAULT, seen, ("wrong_scheme",))
    if answer.ended is Ending.NO_ANSWER:
        seen = f"The connection was closed after {answer.ended_at:.1f} s without an answer."
        return Finding("no_answer", Level.FAULT, seen, ("wrong_scheme", "killed_worker"), _SEE_THE_LOG)
    return None


# OpenSSL's numbers (x509_vfy.h)
_CERTIFICATES = {18: "self_signed", 19: "self_signed", 10: "expired_certificate", 62: "wrong_host"}


def left_open(case: JudgedAnswers) -> Finding | None:
    answer = case.answer
    if answer.ended is not Ending.GAVE_UP or not answer.counts.terminal:
        return None
    seen = f"The answer said that it was over after {answer.last_event_at:.1f} s, and the connection stayed open."
    return Finding("left_open", Level.FAULT, seen, ("left_open",))


def gave_up(case: JudgedAnswers) -> Finding | None:
    answer = case.answer
    if answer.ended is not Ending.GAVE_UP:
        return None
    got = plural(answer.counts.events, "event") if answer.is_sse else f"{answer.size:,} bytes"
    seen = f"Not over after {answer.ended_at:.0f} s, with {got}, the last {answer.silence:.0f} s in silence."
    causes = ("long_answer", "stalled") if answer.silence < SHORTEST_TIMEOUT * 5 else ("stalled", "long_answer")
    return Finding("gave_up", Level.RISK, seen, causes, "Ask again with a longer --timeout.")


def gateway_timeout(case: JudgedAnswers) -> Finding | None:
    answer = case.answer
    if answer.status not in (408, 504, 524):
        return None
    limit = timeout_behind(answer.headers_at)
    seen = f"{answer.status} after {answer.headers_at:.1f} s: the proxy saw no headers for about {limit:g} s."
    return Finding("gateway_timeout", Level.FAULT, seen, ("gateway_timeout",), timeout=limit)


_REFUSALS = {401: "not_let_in", 403: "not_let_in", 404: "wrong_path", 405: "wrong_method", 429: "rate_limit"}


def bad_status(case: JudgedAnswers) -> Finding | None:
    answer = case.answer
    if answer.status in (0, 200):
        return None
    seen = f"The endpoint answered {answer.status}."
    if answer.status == 204:
        return Finding("no_content", Level.HINT, seen, ("stream_is_over",))
    if answer.status < 400:
        return Finding("redirect", Level.FAULT, seen, ("redirect",))
    if answer.status < 500:
        return Finding("refused", Level.FAULT, seen, (_REFUSALS.get(answer.status, "refused"),))
    if answer.status in (502, 503):
        return Finding("bad_gateway", Level.FAULT, seen, ("bad_gateway",))
    causes = ("exception", "response_returned")
    return Finding("server_error", Level.FAULT, seen, causes, "The traceback in the server's log.")


def empty_and_clean(case: JudgedAnswers) -> Finding | None:
    answer = case.answer
    if answer.size or answer.ended is not Ending.CLEAN:
        return None
    seen = f"{case.where} was 200, empty, and ended cleanly after {answer.ended_at:.1f} s."
    limit = timeout_behind(answer.ended_at) if answer.ended_at >= SHORTEST_TIMEOUT else 0.0
    if case.proxy_is_to_blame and limit:
        return Finding("empty_after_silence", Level.FAULT, seen, ("idle_timeout",), timeout=limit)
    if answer.framing is not Framing.CLOSE and not limit:
        return Finding("empty", Level.FAULT, seen, ("consumed",))
    causes = ("idle_timeout", "consumed", "exception") if limit else ("consumed", "wrong_object", "exception")
    return Finding("empty", Level.FAULT, seen, causes, f"{_DIRECT} Or the server's log.", limit)


def empty_and_cut(case: JudgedAnswers) -> Finding | None:
    answer = case.answer
    if answer.size or not answer.cut:
        return None
    seen = f"{case.where} was 200, and was cut after {answer.ended_at:.1f} s without a byte of its body."
    if answer.ended_at < IMMEDIATELY or (case.app_is_to_blame and answer.silence < IMMEDIATELY):
        log = 'The server\'s log: "TypeError: ... not iterable" is the response object; any other, an exception.'
        return Finding("empty_cut", Level.FAULT, seen, ("wrong_object", "exception"), log)
    limit = timeout_behind(answer.ended_at)
    if case.proxy_is_to_blame:
        return Finding("silent_from_the_start", Level.FAULT, seen, ("idle_timeout",), timeout=limit)
    causes = ("exception", "killed_worker") if case.app_is_to_blame else ("idle_timeout", "exception", "killed_worker")
    return Finding("silent_from_the_start", Level.FAULT, seen, causes, _next_step(case), limit)


def cut_after_silence(case: JudgedAnswers) -> Finding | None:
    answer = case.answer
    # A timeout would have struck in any earlier silence that was as long.
    if not answer.cut or answer.silence < max(SHORTEST_TIMEOUT, answer.longest_gap - SAME_TIME):
        return None
    limit = timeout_behind(answer.silence)
    seen = (
        f"{case.where} was cut after {answer.silence:.1f} s of silence, {answer.ended_at:.1f} s after the request: "
        f"a timeout of about {limit:g} s."
    )
    past = case.past
    if case.proxy_is_to_blame and past is not None and past.longest_gap >= answer.silence - SAME_TIME:
        return Finding("cut_after_silence", Level.FAULT, seen, ("idle_timeout",), timeout=limit)
    if case.app_is_to_blame:
        return Finding("cut_after_silence", Level.FAULT, seen, ("exception", "killed_worker"), _SEE_THE_LOG, limit)
    causes = ("idle_timeout", "exception", "killed_worker")
    return Finding("cut_after_silence", Level.FAULT, seen, causes, _next_step(case), limit)


def cut_in_mid_flow(case: JudgedAnswers) -> Finding | None:
    answer = case.answer
    if not answer.cut:
        return None
    cuts = [each for each in case.answers if each.cut]
    if len(cuts) > 1 and (finding := _cut_again(case, cuts)):
        return finding
    causes = _limits(cuts) if case.proxy_is_to_blame else ("exception", "killed_worker", "time_limit")
    again = "Ask again with --repeat 3: the same time is a limit, the same place an exception. "
    distinguish = (again if len(cuts) < 3 else "") + _SEE_THE_LOG
    limit = timeout_behind(answer.ended_at)
    return Finding("cut_in_mid_flow", Level.FAULT, _cuts_in_words(case, cuts), causes, distinguish, limit)


def _limits(cuts: list[Observation]) -> tuple[str, ...]:
    """Return which limits of a proxy may have cut: those on the time are whole seconds, those on the size any."""
    sizes = [each.size for each in cuts]
    if len(cuts) < 2 or max(sizes) - min(sizes) > _ONE_EVENT:
        return ("time_limit", "killed_worker")
    whole_seconds = timeout_behind(cuts[0].ended_at).is_integer()
    return ("time_limit", "size_limit") if whole_seconds else ("size_limit", "time_limit")


_ONE_EVENT = 200  # bytes, about


def _cuts_in_words(case: JudgedAnswers, cuts: list[Observation]) -> str:
    got = " and ".join(str(_place(each)) for each in cuts)
    unit = "events" if case.answer.is_sse else "bytes"
    times = " and ".join(f"{each.ended_at:.1f}" for each in cuts)
    return f"{case.where} was cut in mid-flow, after {got} {unit} and {times} s."


def _cut_again(case: JudgedAnswers, cuts: list[Observation]) -> Finding | None:
    """Compare several cuts: what they have in common, the place or the time, shows the cause."""
    times = [each.ended_at for each in cuts]
    # A worker that had to start first took its time before the headers.
    flowing = [each.ended_at - each.headers_at for each in cuts]
    same_place = len({_place(each) for each in cuts}) == 1
    if same_place and not _same(times, SAME_TIME) and not _same(flowing, SAME_TIME):
        seen = f"{case.where} was cut {len(cuts)} times, always at the same place, at different times."
        return Finding("cut_at_the_same_place", Level.FAULT, seen, ("exception",), _SEE_THE_LOG)
    if not same_place and _same(times, GUNICORN_TICK):
        seen = f"{case.where} was cut {len(cuts)} times, always after about {min(times):.1f} s, at different places."
        return Finding("cut_at_the_same_time", Level.FAULT, seen, ("time_limit",), timeout=timeout_behind(min(times)))
    return None


def _place(answer: Observation) -> int:
    return answer.counts.events if answer.is_sse else answer.size


def _same(times: list[float], spread: float) -> bool:
    times = sorted(times)
    return times[-1] - times[0] <= spread and min(later - earlier for earlier, later in pairwise(times)) <= SAME_TIME


def error_event(case: JudgedAnswers) -> Finding | None:
    if not case.answer.counts.failed:
        return None
    status = f', status "{case.answer.counts.status}"' if case.answer.counts.status else ""
    seen = f"{case.where} ended with an error event{status}: the endpoint says so itself."
    return Finding("error_event", Level.FAULT, seen, ("exception",), "The server's log.")


def no_terminal_event(case: JudgedAnswers) -> Finding | None:
    answer = case.answer
    if not unstated(answer) or is_text_by_choice(answer):
        return None
    seen = f"{case.where} ended cleanly, and nothing in it says that it was finished."
    if case.proxy_is_to_blame:
        seen = "The answer ended cleanly before its terminal event; past the proxies it arrives."
        return Finding("end_lost_on_the_way", Level.FAULT, seen, ("http10_hop",))
    causes: tuple[str, ...] = ("no_terminal_event", "swallowed_exception")
    if answer.hung_up:
        seen += " Then the server closed the connection, as it does after an exception."
    if answer.hung_up or case.has_terminal:
        causes = ("swallowed_exception", "no_terminal_event")
    if case.app_is_to_blame or case.is_application:
        return Finding("no_terminal_event", Level.RISK, seen, causes, _HOW_TO_SAY)
    return Finding("no_terminal_event", Level.RISK, seen, (*causes, "http10_hop"), f"{_HOW_TO_SAY} {_DIRECT}")


_UNSTATED = ("no_terminal_event", "swallowed_exception")
_HOW_TO_SAY = (
    "The server's log has the exception, if there was one. If your endpoint ends in its own way: --terminal TEXT."
)


def _next_step(case: JudgedAnswers) -> str:
    return _SEE_THE_LOG if case.past is not None else f"{_DIRECT} {_SEE_THE_LOG}"


EndingRule = Callable[[JudgedAnswers], Finding | None]
RULES: tuple[EndingRule, ...] = (
    no_connection,
    left_open,
    gave_up,
    gateway_timeout,
    bad_status,
    format_rules.web_page,
    empty_and_clean,
    empty_and_cut,
    cut_after_silence,
    cut_in_mid_flow,
    *format_rules.RULES,
    error_event,
    no_terminal_event,
)


def hidden_cut(measurements: Measurements) -> Finding | None:
    """The application cut the answer, and a proxy made a clean end of it."""
    past, main = measurements.direct_answer, readable(measurements)
    if past is None or not past.cut or not unstated(main):
        return None
    seen = "The direct answer was cut; through the proxy the same cut looks like a proper end."
    return Finding("hidden_cut", Level.FAULT, seen, ("http10_hop",))


def unstated_past_the_proxies(measurements: Measurements) -> Finding | None:
    """The direct answer has no terminal event either, where a proxy does something worse."""
    past = measurements.direct_answer
    if past is None or not unstated(past) or not past.size or as_bad(past, readable(measurements)):
        return None
    seen = "The direct answer ended cleanly, and nothing in it says that it was finished."
    return Finding("no_terminal_event", Level.RISK, seen, _UNSTATED, _HOW_TO_SAY)
