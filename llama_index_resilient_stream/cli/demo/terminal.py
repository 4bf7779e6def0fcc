"""The demo on a terminal, live in two panels; or in plain lines where there is no terminal."""

from __future__ import annotations

import textwrap
import time

from rich import box
from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .readers import MODEL, Lane, wait
from .scenarios import Scene

PLAIN, RESILIENT = "LlamaIndex", "LlamaIndex with ResilientLLM"

_ATTEMPTS = ("default", "cyan", "magenta", "bright_blue")  # legible on dark and on light
_UNDERSTUDY = "green"
_SEAM = "bold black on yellow"
_FRAMES = 25  # a second


class Screen:
    """Shows scenes one after another, and a table of them all."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._moves = console.is_terminal and not console.is_dumb_terminal
        unicode = console.encoding.lower().startswith("utf")
        self._seam, self._cursor = ("┆", "▌") if unicode else ("|", "_")

    def introduce(self) -> None:
        self._console.print(
            "One question, two readers, the same broken server. ",
            Text(self._seam, _SEAM),
            " marks where an answer was cut and taken up again.",
            sep="",
            highlight=False,
        )

    def show(self, heading: str, scene: Scene, plain: Lane, resilient: Lane) -> None:
        """Watch both lanes until both are done."""
        self._console.print(f"\n[bold]{heading}[/bold]\n[dim]{scene.question}[/dim]", highlight=False)
        if not self._moves:
            wait(plain, resilient)
            self._print(scene, plain, resilient)
            return
        with Live(console=self._console, auto_refresh=False) as live:
            while True:
                over = plain.done and resilient.done  # asked first: the last picture shows everything
                live.update(self._picture(scene, plain, resilient), refresh=True)
                if over:
                    return
                time.sleep(1 / _FRAMES)

    # Live

    def _picture(self, scene: Scene, plain: Lane, resilient: Lane) -> RenderableType:
        width = self._console.width // 2
        # As tall as the whole answer from the beginning: nothing jumps.
        height = 2 + len(Text(scene.answer + self._seam * 2).wrap(self._console, width - 4))
        columns = Table.grid(expand=True)
        columns.add_column(ratio=1)
        columns.add_column(ratio=1)
        columns.add_row(
            Panel(self._text(plain), title=PLAIN, subtitle=_plain_state(scene, plain), height=height),
            Panel(self._text(resilient), title=RESILIENT, subtitle=_resilient_state(resilient), height=height),
        )
        return columns

    def _text(self, lane: Lane) -> Text:
        text = Text()
        attempt = 1
        for piece in list(lane.pieces):
            if piece.attempt != attempt and piece.text:
                text.append(self._seam, _SEAM)
                attempt = piece.attempt
            text.append(piece.text, _style(piece.attempt, piece.model))
        if not lane.done:
            text.append(self._cursor, "blink yellow" if lane.broken else "")
        return text

    # In lines

    def _print(self, scene: Scene, plain: Lane, resilient: Lane) -> None:
        for name, lane, state in (
            (PLAIN, plain, _plain_state(scene, plain)),
            (RESILIENT, resilient, _resilient_state(resilient)),
        ):
            self._console.print(f"\n{name}:", highlight=False)
            for line in self._text(lane).plain.splitlines():
                self._console.print(
                    textwrap.fill(line, 78, initial_indent="  ", subsequent_indent="  ", drop_whitespace=bool(line)),
                    highlight=False,
                    markup=False,
                )
            self._console.print(f"  -> {state}", highlight=False)

    # The end

    def sum_up(self, rows: list[tuple[Scene, Lane, Lane]], timeout: float) -> None:
        """What each delivered. `timeout` is that of the plain reader's client."""
        table = Table(
            box=box.SIMPLE_HEAD,
            collapse_padding=True,
            pad_edge=False,
            title="What the readers got, in characters",
            title_style="bold",
            caption=f"LlamaIndex's client was told to give up after {timeout:g} s. By default it waits for 60.",
        )
        table.add_column("fault")
        table.add_column(PLAIN)
        table.add_column("ResilientLLM")
        table.add_column("attempts", justify="right")
        table.add_column("seconds", justify="right")
        for scene, plain, resilient in rows:
            attempts = len(resilient.report.attempts) if resilient.report else 0
            table.add_row(
                scene.name,
                Text(plain_result(scene, plain), _good(scene, plain)),
                Text(resilient_result(scene, resilient), _good(scene, resilient)),
                str(attempts),
                f"{resilient.seconds:.1f}",
            )
        self._console.print()
        self._console.print(table)


def plain_result(scene: Scene, lane: Lane) -> str:
    """What the reader of plain LlamaIndex got."""
    if lane.error is not None:
        return f"{type(lane.error).__name__} after {len(lane.text)}"
    if lane.text == scene.answer:
        return f"{len(lane.text)}, whole"
    return f"{len(lane.text)} of {len(scene.answer)}, presented as whole"


def resilient_result(scene: Scene, lane: Lane) -> str:
    """What the reader of ResilientLLM got."""
    status = str(lane.report.status) if lane.report else "no report"
    return f"{len(lane.text)} of {len(scene.answer)}, {status}"


def _good(scene: Scene, lane: Lane) -> str:
    return "green" if lane.text == scene.answer and lane.error is None else "red"


def _plain_state(scene: Scene, lane: Lane) -> Text:
    if not lane.done:
        return Text("streaming", "dim")
    if lane.error is not None:
        return Text(f"{type(lane.error).__name__} after {len(lane.text)} characters", "red")
    whole = lane.text == scene.answer
    return Text("ended, no error" if whole else f"ended, no error: {len(lane.text)} of {len(scene.answer)}", "yellow")


def _resilient_state(lane: Lane) -> Text:
    if lane.broken and not lane.done:
        return Text(f"{lane.broken.replace('_', ' ')}: asking again", "yellow")
    if not lane.done:
        return Text("streaming", "dim")
    if lane.report is None or lane.error is not None:
        return Text(f"{type(lane.error).__name__} after {len(lane.text)} characters", "red")
    attempts, models = len(lane.report.attempts), len(lane.report.models)
    took = f"{models} models" if models > 1 else f"{lane.seconds:.1f} s"
    return Text(f"{lane.report.status}, {attempts} attempt{'s' if attempts > 1 else ''}, {took}", "green")


def _style(attempt: int, model: str) -> str:
    return _UNDERSTUDY if model != MODEL else _ATTEMPTS[(attempt - 1) % len(_ATTEMPTS)]
