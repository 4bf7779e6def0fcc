"""Draws a report as a timeline: a bar for each attempt, what ended it, and where the next one joined. Plain SVG."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .stream_report import Attempt, Certainty, StreamReport, StreamStatus

_WIDTH, _LEFT, _RIGHT = 760, 150, 24
_HEAD, _ROW, _BAR, _FOOT = 52, 40, 12, 34  # pixels
_LINE = _WIDTH - _LEFT - _RIGHT
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)  # seconds
_MOST_TICKS = 6

_STYLE = """\
.card{fill:#fff;stroke:#d5dbe3}.rule{stroke:#e4e8ee}text{font:12px system-ui,-apple-system,"Segoe UI",sans-serif;
fill:#5b6776}.title{font-size:14px;font-weight:600;fill:#1c2733}.name{fill:#1c2733}.good{fill:#1a9c6b}.bad{fill:#d2483a}
.mute{fill:#7d8896}.wait{stroke:#9aa5b2}.silent{opacity:.35}.joint{stroke:#fff}
@media(prefers-color-scheme:dark){.card{fill:#131a24;stroke:#2b3646}.rule{stroke:#232d3b}text{fill:#93a1b3}
.title,.name{fill:#e6edf5}.good{fill:#4fd39c}.bad{fill:#ff8375}.joint{stroke:#131a24}}
"""
_OF_CERTAINTY = {Certainty.VERIFIED: "good", Certainty.ALIGNED: "good", Certainty.UNVERIFIED: "bad"}


def picture(report: StreamReport) -> str:
    """Return the timeline of a report as an SVG document.

    A bar is an attempt. Its pale part is the wait for the first text, a dashed line the back-off before it. A diamond
    is a joint, red where it is unverified. The colours follow the reader's light or dark scheme.
    """
    height = _HEAD + _ROW * max(1, len(report.attempts)) + _FOOT
    head = str(report).split("\n", 1)[0]
    body = "\n".join([*_axis(report, height), *(line for row in _rows(report) for line in row)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}">\n<title>{escape(str(report))}</title>\n<style>{_STYLE}</style>\n'
        f'<rect class="card" x=".5" y=".5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>\n'
        f'<text class="title" x="20" y="30">{escape(head)}</text>\n{body}\n</svg>\n'
    )


def _seconds(report: StreamReport) -> float:
    ends = [attempt.ended if attempt.ended is not None else attempt.started for attempt in report.attempts]
    return max([report.seconds, *ends, 0.01])


def _x(report: StreamReport, seconds: float) -> float:
    return round(_LEFT + _LINE * min(1.0, max(0.0, seconds / _seconds(report))), 1)


def _axis(report: StreamReport, height: int) -> Iterator[str]:
    total = _seconds(report)
    step = next((tick for tick in _TICKS if total / tick <= _MOST_TICKS), total)
    for number in range(int(total / step) + 1):
        x = _x(report, number * step)
        yield f'<path class="rule" d="M{x} {_HEAD - 8}V{height - _FOOT + 6}"/>'
        yield f'<text x="{x}" y="{height - 12}" text-anchor="middle">{number * step:g} s</text>'


def _rows(report: StreamReport) -> Iterator[list[str]]:
    for row, attempt in enumerate(report.attempts):
        top = _HEAD + row * _ROW
        yield [*_names(attempt, top), *_bar(report, attempt, top), *_joints(report, attempt, top)]


def _names(attempt: Attempt, top: int) -> Iterator[str]:
    model = attempt.model if len(attempt.model) <= 18 else attempt.model[:17] + "…"
    yield f'<text class="name" x="20" y="{top + 12}">{escape(model)}</text>'
    yield f'<text x="20" y="{top + 27}">{escape(str(attempt.strategy))}</text>'


def _bar(report: StreamReport, attempt: Attempt, top: int) -> Iterator[str]:
    begin, y = _x(report, attempt.started), top + 3
    end = _x(report, attempt.ended if attempt.ended is not None else _seconds(report))
    first = end if attempt.first_token is None else _x(report, attempt.first_token)
    kind = _kind(report, attempt)
    if attempt.waited:
        x, middle = _x(report, attempt.started - attempt.waited), y + _BAR / 2
        yield f'<path class="wait" d="M{x} {middle}H{begin}" stroke-dasharray="2 3"/>'
    yield f'<rect class="{kind} silent" x="{begin}" y="{y}" width="{max(2, first - begin):g}" height="{_BAR}" rx="2"/>'
    if attempt.first_token is not None:
        yield f'<rect class="{kind}" x="{first}" y="{y}" width="{max(2, end - first):g}" height="{_BAR}" rx="2"/>'
    yield _words(attempt, begin, top + 29, kind)


def _words(attempt: Attempt, x: float, y: int, kind: str) -> str:
    ended = attempt.fault.replace("_", " ") if attempt.fault else attempt.finish_reason or ""
    words = ", ".join(filter(None, (f"{attempt.characters:,} characters", ended)))
    anchored = f'x="{x}"' if x < _LEFT + _LINE * 0.7 else f'x="{_WIDTH - _RIGHT}" text-anchor="end"'
    return f'<text class="{kind}" {anchored} y="{y}">{escape(words)}</text>'


def _joints(report: StreamReport, attempt: Attempt, top: int) -> Iterator[str]:
    for joint in report.joints:
        if joint.attempt == attempt.number and attempt.first_token is not None:
            x, y = _x(report, attempt.first_token), top + 9
            told = escape(f"joined: {joint.decision}, {joint.certainty}".replace("_", " "))
            yield (
                f'<path class="{_OF_CERTAINTY[joint.certainty]} joint" d="M{x} {y - 9}l8 9-8 9-8-9z" '
                f'stroke-width="2"><title>{told}</title></path>'
            )


def _kind(report: StreamReport, attempt: Attempt) -> str:
    if attempt.fault:
        return "bad"
    is_last = attempt is report.attempts[-1]
    well = report.status in (StreamStatus.COMPLETE, StreamStatus.LENGTH) or not is_last
    return "good" if well else "mute"
