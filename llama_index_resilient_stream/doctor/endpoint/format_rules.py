"""Whether the bytes of an answer are what its readers can read. The first rule that matches decides."""

from __future__ import annotations

from .findings import Finding, Level, plural
from .judged_answers import JudgedAnswers
from .measurements import BodyKind, Ending, Observation, WireProtocol


def web_page(case: JudgedAnswers) -> Finding | None:
    answer = case.answer
    if not answer.answered or answer.format.kind not in (BodyKind.PAGE, BodyKind.LOGIN_PAGE):
        return None
    if answer.format.kind is BodyKind.LOGIN_PAGE:
        seen = "It answered 200 with a web page to log in, and not with an answer."
        return Finding("web_page", Level.FAULT, seen, ("login_page",))
    seen = "It answered 200 with a web page, and not with an answer."
    return Finding("web_page", Level.FAULT, seen, ("web_page", "login_page"), "Open the address in a browser.")


def no_blank_line(case: JudgedAnswers) -> Finding | None:
    answer = case.answer
    form = answer.format
    if not _can_be_read(answer) or not (form.joined_events or form.unended_lines):
        return None
    if form.joined_events or not answer.counts.events:
        got = plural(answer.counts.events, "event")
        seen = f"Lines of data came, and no blank line between them: readers get {got}."
    else:
        seen = "The last event has no blank line behind it: readers never get it."
    return Finding("no_blank_line", Level.FAULT, seen, ("no_blank_line",))


def lines_outside(case: JudgedAnswers) -> Finding | None:
    answer = case.answer
    if not _can_be_read(answer) or not answer.format.stray_lines:
        return None
    if not answer.counts.events:
        seen = "It is called text/event-stream, and no line of it begins with data: - readers get nothing."
        return Finding("lines_outside", Level.FAULT, seen, ("no_data_prefix",))
    lines = plural(answer.format.stray_lines, "line")
    seen = f"{lines} of the answer belong to no event, so that readers lose them: text with line ends in it."
    return Finding("lines_outside", Level.FAULT, seen, ("raw_newlines",))


def line_ends_lost(case: JudgedAnswers) -> Finding | None:
    form = case.answer.format
    if not _can_be_read(case.answer) or not 0 < form.split_texts <= form.pieces / 2:
        return None
    seen = f"{plural(form.split_texts, 'event')} had text that ends with line ends: readers lose those."
    return Finding("line_ends_lost", Level.FAULT, seen, ("raw_newlines",))


def end_without_reason(case: JudgedAnswers) -> Finding | None:
    """[DONE] alone, or a finish reason of another answer: the end was added on the way."""
    answer = case.answer
    form = answer.format
    if not answer.whole or form.protocol is WireProtocol.UNKNOWN:
        return None
    if form.end_is_foreign:
        seen = "The finish reason has another id than the chunks before it: somebody added it."
        return Finding("end_without_reason", Level.FAULT, seen, ("made_up_end",))
    if form.says_how:
        return None
    seen = f"{case.where} ends with [DONE], and no finish reason before it says that it is whole."
    return Finding("end_without_reason", Level.FAULT, seen, ("made_up_end", "swallowed_exception"), _WHO)


_WHO = "Measure past the proxies (--direct URL): what adds the end there is the application, or what it asks."


def _can_be_read(answer: Observation) -> bool:
    return answer.answered and answer.is_sse and answer.readable and answer.ended is Ending.CLEAN and bool(answer.size)


RULES = (no_blank_line, lines_outside, line_ends_lost, end_without_reason)
