"""The demo on a terminal, live in two panels; or in plain lines where there is no terminal."""

from __future__ import annotations

import textwrap
import time

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..program import program_name
from .readers import MODEL, DemoReader, wait
from .scenarios import Scenario

PLAIN, RESILIENT = "LlamaIndex", "LlamaIndex with ResilientLLM"

_ATTEMPTS = ("default", "cyan", "magenta", "bright_blue")  # legible on dark and on light
_FALLBACK_STYLE = "green"
_SEAM = "bold black on yellow"
_FRAMES = 25  # a second
_NARROW = 70  # columns; two panels side by side need as many

_NEXT = (
    ("in your app", 'llm = ResilientLLM(OpenAI("gpt-4o-mini"))'),
    ("in a browser", "{program} serve-demo"),
    ("your endpoint", "{program} doctor url URL"),
)


class Screen:
    """Shows scenarios one after another, and a table of them all."""

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

    def show(self, heading: str, scenario: Scenario, plain: DemoReader, resilient: DemoReader) -> None:
        """Watch both readers until both are done."""
        self._console.print(f"\n[bold]{heading}[/bold]\n[dim]{scenario.question}[/dim]", highlight=False)
        if not self._moves:
            wait(plain, resilient)
            self._print(scenario, plain, resilient)
            return
        with Live(console=self._console, auto_refresh=False) as live:
            while True:
                over = plain.done and resilient.done  # asked first: the last picture shows everything
                live.update(self._picture(scenario, plain, resilient), refresh=True)
                if over:
                    return
                time.sleep(1 / _FRAMES)

    # Live

    def _picture(self, scenario: Scenario, plain: DemoReader, resilient: DemoReader) -> RenderableType:
        narrow = self._console.width < _NARROW
        width = self._console.width if narrow else self._console.width // 2
        # As tall as the whole answer from the beginning: nothing jumps.
        height = 2 + len(Text(scenario.answer + self._seam * 2).wrap(self._console, width - 4))
        panels = (
            Panel(self._text(plain), title=PLAIN, subtitle=_plain_state(scenario, plain), height=height),
            Panel(self._text(resilient), title=RESILIENT, subtitle=_resilient_state(resilient), height=height),
        )
        if narrow:
            return Group(*panels)
        columns = Table.grid(expand=True)
        columns.add_column(ratio=1)
        columns.add_column(ratio=1)
        columns.add_row(*panels)
        return columns

    def _text(self, reader: DemoReader) -> Text:
        text = Text()
        attempt = 1
        for piece in list(reader.pieces):
            if piece.attempt != attempt and piece.text:
                text.append(self._seam, _SEAM)
                attempt = piece.attempt
            text.append(piece.text, _style(piece.attempt, piece.model))
        if not reader.done:
            text.append(self._cursor, "blink yellow" if reader.current_fault else "")
        return text

    # In lines

    def _print(self, scenario: Scenario, plain: DemoReader, resilient: DemoReader) -> None:
        for name, reader, state in (
            (PLAIN, plain, _plain_state(scenario, plain)),
            (RESILIENT, resilient, _resilient_state(resilient)),
        ):
            self._console.print(f"\n{name}:", highlight=False)
            width = min(78, self._console.width)
            for line in self._text(reader).plain.splitlines():
                self._console.print(
                    textwrap.fill(line, width, initial_indent="  ", subsequent_indent="  ", drop_whitespace=bool(line)),
                    highlight=False,
                    markup=False,
                )
            self._console.print(f"  -> {state}", highlight=False)

    # The end

    def sum_up(self, rows: list[tuple[Scenario, DemoReader, DemoReader]], timeout: float) -> None:
        """Print what each reader got, and what to do next. `timeout` is the plain client's, in seconds."""
        if self._console.width < _NARROW:
            self._print_results(rows)
        else:
            self._print_table(rows, timeout)
        self._print_next()

    def _print_next(self) -> None:
        between = "\n    " if self._console.width < _NARROW else "  "
        self._console.print("\nNext")
        for where, line in _NEXT:
            label = f"{where}:" if "\n" in between else f"{where + ':':<14}"
            self._console.print(
                f"  {label}{between}{line.format(program=program_name())}", highlight=False, markup=False
            )

    def _print_results(self, rows: list[tuple[Scenario, DemoReader, DemoReader]]) -> None:
        self._console.print("\nWhat the readers got, in characters", style="bold")
        for scenario, plain, resilient in rows:
            self._console.print(f"\n{scenario.name}", highlight=False)
            self._console.print(Text(f"  {PLAIN}: {plain_result(scenario, plain)}", _good(scenario, plain)))
            self._console.print(
                Text(f"  ResilientLLM: {resilient_result(scenario, resilient)}", _good(scenario, resilient))
            )

    def _print_table(self, rows: list[tuple[Scenario, DemoReader, DemoReader]], timeout: float) -> None:
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
        for scenario, plain, resilient in rows:
            attempts = len(resilient.report.attempts) if resilient.report else 0
            table.add_row(
                scenario.name,
                Text(plain_result(scenario, plain), _good(scenario, plain)),
                Text(resilient_result(scenario, resilient), _good(scenario, resilient)),
                str(attempts),
                f"{resilient.seconds:.1f}",
            )
        self._console.print()
        self._console.print(table)


def plain_result(scenario: Scenario, reader: DemoReader) -> str:
    """What the reader of plain LlamaIndex got."""
    if reader.error is not None:
        return f"{type(reader.error).__name__} after {len(reader.text)}"
    if reader.text == scenario.answer:
        return f"{len(reader.text)}, whole"
    return f"{len(reader.text)} of {len(scenario.answer)}, presented as whole"


def resilient_result(scenario: Scenario, reader: DemoReader) -> str:
    """What the reader of ResilientLLM got."""
    status = str(reader.report.status) if reader.report else "no report"
    return f"{len(reader.text)} of {len(scenario.answer)}, {status}"


def _good(scenario: Scenario, reader: DemoReader) -> str:
    return "green" if reader.text == scenario.answer and reader.error is None else "red"


def _plain_state(scenario: Scenario, reader: DemoReader) -> Text:
    if not reader.done:
        return Text("streaming", "dim")
    if reader.error is not None:
        return Text(f"{type(reader.error).__name__} after {len(reader.text)} characters", "red")
    whole = reader.text == scenario.answer
    return Text(
        "ended, no error" if whole else f"ended, no error: {len(reader.text)} of {len(scenario.answer)}", "yellow"
    )


def _resilient_state(reader: DemoReader) -> Text:
    if reader.current_fault and not reader.done:
        return Text(f"{reader.current_fault.replace('_', ' ')}: asking again", "yellow")
    if not reader.done:
        return Text("streaming", "dim")
    if reader.report is None or reader.error is not None:
        return Text(f"{type(reader.error).__name__} after {len(reader.text)} characters", "red")
    attempts, models = len(reader.report.attempts), len(reader.report.models)
    took = f"{models} models" if models > 1 else f"{reader.seconds:.1f} s"
    return Text(f"{reader.report.status}, {attempts} attempt{'s' if attempts > 1 else ''}, {took}", "green")


def _style(attempt: int, model: str) -> str:
    return _FALLBACK_STYLE if model != MODEL else _ATTEMPTS[(attempt - 1) % len(_ATTEMPTS)]
