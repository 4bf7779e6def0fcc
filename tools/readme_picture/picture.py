"""The README's picture: one scenario of the demo, drawn from what its two readers got, as an SVG that moves by itself.

What is shown, and who wrote it, is recorded from a run; the pace is not, so that every run draws the same picture.
Without animation, all of it stands there as it is in the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

from animation import Motion
from line_breaking import Word, typeset

from llama_index_resilient_stream.cli.demo.readers import FAST, DemoReader, build_index, play, wait
from llama_index_resilient_stream.cli.demo.scenarios import SCENARIOS, Scenario
from llama_index_resilient_stream.cli.demo.terminal import PLAIN, RESILIENT

_WIDTH, _MARGIN, _GUTTER, _PAD = 880, 20, 16, 22
_CARD = (_WIDTH - 2 * _MARGIN - _GUTTER) // 2
_TOP = 64  # of the cards
_FIRST_LINE = _TOP + 70
_LINE, _ADVANCE = 25, 9
_COLUMNS = int((_CARD - 2 * _PAD) / _ADVANCE)

_START, _PACE, _GAP, _HOLD = 0.8, 0.1, 1.8, 6.0  # seconds
_NOTICED = 1.0  # after a silent end, until somebody might notice

_STYLE = """\
text{font-family:system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;font-size:14px;fill:#93a1b5}
.w{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace}
.w{font-size:15px;fill:#e6edf6}.n{fill:#7ee2b8}
.q{font-size:16px;font-weight:600;fill:#e6edf6}.h{font-size:15px;font-weight:600;fill:#c3cede}.s{font-size:13px}
.ok{fill:#4fd39c}.bad{fill:#ff8b7d}.cut{fill:#f5b83d}
"""

# A busy machine is no stall, and must not be in the picture.
_CALM = replace(FAST, idle_timeout=60.0, client_timeout=60.0)


@dataclass(frozen=True)
class _Card:
    """What one reader got: its words, and when they come."""

    left: int
    words: list[tuple[float, Word]]

    @property
    def over(self) -> float:
        return self.words[-1][0] + _PACE

    def spans(self) -> list[tuple[int, float, float]]:
        """Attempt, beginning and end."""
        numbers = dict.fromkeys(word.attempt for _, word in self.words)
        times = {number: [at for at, word in self.words if word.attempt == number] for number in numbers}
        return [(number, at[0], at[-1] + _PACE) for number, at in times.items()]


def draw() -> str:
    """Play the scenario, and draw it."""
    scenario = SCENARIOS[0]
    with play(scenario, build_index(), _CALM) as (plain, resilient):
        wait(plain, resilient)
    return _Picture(scenario, plain, resilient).svg()


class _Picture:
    def __init__(self, scenario: Scenario, plain: DemoReader, resilient: DemoReader) -> None:
        self._scenario, self._readers = scenario, (plain, resilient)
        self._plain = _card_of(_MARGIN, plain)
        self._resilient = _card_of(_MARGIN + _CARD + _GUTTER, resilient)
        end = self._resilient.over
        self._motion = Motion(end + _HOLD, first_frame=end + _NOTICED)
        rows = 1 + max(word.row for _, word in self._resilient.words)
        self._bar = _FIRST_LINE + rows * _LINE + 32
        self._bottom = self._bar + 46
        self._height = self._bottom + _MARGIN

    def svg(self) -> str:
        body = "\n".join([*self._frame(), f"<g {self._motion.fade()}>", *self._left(), *self._right(), "</g>"])
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH} {self._height}" '
            f'width="{_WIDTH}" height="{self._height}">\n<title>{escape(self._summary())}</title>\n'
            f"<style>\n{_STYLE}{self._motion.css()}</style>\n{body}\n</svg>\n"
        )

    def _summary(self) -> str:
        plain, resilient = (len(reader.text) for reader in self._readers)
        return (
            f"One query, one broken server. LlamaIndex stops after {plain} of {len(self._scenario.answer)} characters "
            f"and looks finished; with ResilientLLM the answer goes on behind the cut and has all {resilient}."
        )

    def _frame(self) -> Iterable[str]:
        yield _box(0.5, 0.5, _WIDTH - 1, self._height - 1, 14, "#0c121c", "#2b384c")
        yield f'<text class="q" x="{_MARGIN + 2}" y="40">{escape(self._scenario.question)}</text>'
        right = _WIDTH - _MARGIN - 2
        yield f'<text class="s" x="{right}" y="39" text-anchor="end">one query, the same broken server</text>'
        for card, name in ((self._plain, PLAIN), (self._resilient, RESILIENT)):
            yield _box(card.left, _TOP, _CARD, self._bottom - _TOP, 10, "#131c2a", "#243146")
            yield f'<text class="h" x="{card.left + _PAD}" y="{_TOP + 34}">{escape(name)}</text>'
            yield _box(card.left + _PAD, self._bar, _CARD - 2 * _PAD, 6, 3, "#223047")

    # The readers

    def _left(self) -> Iterable[str]:
        card, over = self._plain, self._plain.over
        yield from self._words(card)
        yield from self._segments(card)
        yield self._cursor(card)
        noticed = over + _NOTICED
        yield self._note(card, "streaming", "", _START, over)
        yield self._note(card, "finished, no error", "ok", over, check=True)
        line = f"{len(self._readers[0].text)} of {len(self._scenario.answer)} characters, presented as whole"
        yield self._caption(card, line, "bad", noticed)

    def _right(self) -> Iterable[str]:
        card = self._resilient
        yield from self._words(card)
        yield from self._segments(card)
        yield from self._seams(card)
        yield self._cursor(card)
        begun = _START
        for (_, _, end), (_, start, _) in pairwise(card.spans()):
            yield self._note(card, "streaming", "", begun, end)
            yield self._note(card, "no finish signal: asks the model to go on", "cut", end, start)
            begun = start
        report = self._readers[1].report
        assert report is not None, "the stream has ended"
        yield self._note(card, "goes on, joined at the cut", "", begun, card.over)
        yield self._note(card, f"{report.status}", "ok", card.over, check=True)
        line = (
            f"{len(self._readers[1].text)} of {len(self._scenario.answer)} characters, {len(report.attempts)} attempts"
        )
        yield self._caption(card, line, "ok", card.over)

    def _words(self, card: _Card) -> Iterable[str]:
        for at, word in card.words:
            x, y = _place(card, word.row, word.column)
            width = round(len(word.text) * _ADVANCE, 1)
            yield (
                f'<text class="w{" n" if word.attempt > 1 else ""}" x="{x}" y="{y}" textLength="{width}" '
                f'lengthAdjust="spacingAndGlyphs" {self._motion.from_(at)}>{escape(word.text)}</text>'
            )

    def _seams(self, card: _Card) -> Iterable[str]:
        for (_, before), (at, word) in pairwise(card.words):
            if before.attempt != word.attempt:
                x, y = _place(card, word.row, word.column)
                yield (
                    f'<g class="cut" {self._motion.from_(at - _GAP)}><rect x="{x - 1}" y="{y - 17}" width="2" '
                    f'height="24" rx="1"/><path d="M{x - 5} {y - 21}h10l-5 6z"/></g>'
                )

    def _segments(self, card: _Card) -> Iterable[str]:
        spans = card.spans()
        for number, begin, end in spans:
            x, width = self._along(card, begin), self._along(card, end) - self._along(card, begin)
            colour = "#7ee2b8" if number > 1 else "#8fa6c6"
            grow = self._motion.grow(begin, end)
            yield _box(x, self._bar, width, 6, 3, colour).replace("/>", f" {grow}/>")
        for (_, _, end), (_, start, _) in pairwise(spans):
            x, until = self._along(card, end), self._along(card, start)
            yield (
                f'<path d="M{x + 5} {self._bar + 3}H{until - 4}" stroke="#f5b83d" stroke-width="2" '
                f'stroke-dasharray="3 4" {self._motion.from_(end)}/>'
            )

    def _cursor(self, card: _Card) -> str:
        steps = [(0.0, *_place(card, 0, 0))]
        for at, word in card.words:
            steps.append((at, *_place(card, word.row, word.column + len(word.text))))
        return f'<rect y="-13" width="8" height="17" rx="1" fill="#8fa6c6" {self._motion.walk(steps, card.over)}/>'

    # Words about them

    def _note(
        self, card: _Card, line: str, kind: str, begin: float, end: float | None = None, *, check: bool = False
    ) -> str:
        x, y = card.left + _PAD, self._bar - 16
        mark = f'<path d="M{x} {y - 5}l4 4 7-8" fill="none" stroke="#4fd39c" stroke-width="2"/>' if check else ""
        text = f'<text class="s {kind}" x="{x + 18 if check else x}" y="{y}">{escape(line)}</text>'
        shown = self._motion.from_(begin) if end is None else self._motion.between(begin, end)
        return f"<g {shown}>{mark}{text}</g>"

    def _caption(self, card: _Card, line: str, kind: str, begin: float) -> str:
        return (
            f'<text class="s {kind}" x="{card.left + _PAD}" y="{self._bar + 28}" {self._motion.from_(begin)}>'
            f"{escape(line)}</text>"
        )

    def _along(self, card: _Card, at: float) -> float:
        share = (at - _START) / (self._resilient.over - _START)
        return round(card.left + _PAD + share * (_CARD - 2 * _PAD), 1)


def _card_of(left: int, reader: DemoReader) -> _Card:
    words = typeset(((piece.attempt, piece.text) for piece in reader.pieces), _COLUMNS)
    seams = list(dict.fromkeys(word.attempt for word in words))
    return _Card(
        left,
        [(_START + number * _PACE + seams.index(word.attempt) * _GAP, word) for number, word in enumerate(words)],
    )


def _place(card: _Card, row: int, column: int) -> tuple[float, float]:
    return round(card.left + _PAD + column * _ADVANCE, 1), _FIRST_LINE + row * _LINE


def _box(x: float, y: float, width: float, height: float, radius: float, fill: str, stroke: str = "") -> str:
    edge = f' stroke="{stroke}"' if stroke else ""
    return f'<rect x="{x}" y="{y}" width="{width:g}" height="{height:g}" rx="{radius}" fill="{fill}"{edge}/>'


if __name__ == "__main__":
    target = Path(__file__).parents[2] / "docs" / "healing.svg"
    target.write_text(draw(), encoding="utf-8", newline="\n")
    print(f"wrote {target}")
