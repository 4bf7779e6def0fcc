"""What the doctor found, for people and for machines. No text of an answer, no value of a header that the user gave."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ...doctor.endpoint.findings import Finding, Level, is_serious
from ...doctor.endpoint.measurements import TERMINALS, Ending, EventCounts, Framing, Measurements, Observation
from ...doctor.endpoint.plan import BeginRequest, Plan
from ...doctor.endpoint.probe import ReportProgress, redacted
from ...doctor.endpoint.remedies import Fix, is_default, lines_for
from ...doctor.installation.versions import Installation
from ..program import program_name

_STYLES = {Level.FAULT: "bold white on red", Level.RISK: "bold black on yellow", Level.HINT: "bold white on blue"}
_GOOD, _BAD = "green", "red"
_COLUMNS = ("status", "body", "events", "blocks", "first", "over")
_NARROW = 78  # columns of a terminal that is too narrow for the table
_BODY = {Framing.CHUNKED: "chunked", Framing.LENGTH: "length", Framing.CLOSE: "until close", Framing.NONE: "none"}


def as_json(what: dict[str, Any]) -> None:
    json.dump(what, sys.stdout, indent=2)
    sys.stdout.write("\n")


@contextmanager
def progress(console: Console) -> Iterator[BeginRequest]:
    """Show what is asked, for how long, and what has come, until it is over."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")

        def begin(what: str) -> ReportProgress:
            bar.reset(task, description=f"asking {what}")

            def on_progress(events: EventCounts, seconds: float) -> None:
                bar.update(task, description=f"asking {what}: {events.events} events")

            return on_progress

        yield begin


# An endpoint


def show_url(console: Console, plan: Plan, measurements: Measurements, findings: list[Finding]) -> None:
    console.print()
    console.print(Text(redacted(plan.url), "bold"), soft_wrap=True)
    console.print(_measurement_lines(measurements) if console.width < _NARROW else _measurements(measurements))
    for finding in findings:
        console.print(_finding(finding))
        console.print()
    serious = sum(is_serious(finding) for finding in findings)
    if serious:
        console.print(Text("Next: fix the first one, and run this command again.", "bold"))
    else:
        console.print(Text("Nothing to fix.", f"bold {_GOOD}"))
        console.print(Text(_next_for_a_fine_endpoint(plan)))


def _next_for_a_fine_endpoint(plan: Plan) -> str:
    if not plan.parallel:
        return "Next: the same with --parallel 20. Is everybody served at once?"
    return f"Next: if the model is what breaks, {program_name()} doctor provider --help"


def _measurement_lines(measurements: Measurements) -> RenderableType:
    parts: list[RenderableType] = [""]
    for asked, answer in _answers(measurements):
        parts.append(Text.assemble((asked, "bold"), ": ", _ended(answer)))
        cells = [f"{name} {cell}" for name, cell in zip(_COLUMNS, _row(answer), strict=True) if cell not in ("", "-")]
        parts.append(Padding(Text(", ".join(cells)), (0, 0, 0, 2)))
    return Group(*parts, "")


def _measurements(measurements: Measurements) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("asked", *_COLUMNS[:2]):
        table.add_column(name, no_wrap=True)
    for name in _COLUMNS[2:]:
        table.add_column(name, justify="right")
    table.add_column("ended")
    for asked, answer in _answers(measurements):
        table.add_row(asked, *_row(answer), _ended(answer))
    return table


def _answers(measurements: Measurements) -> Iterator[tuple[str, Observation]]:
    past = "via proxies" if measurements.direct else "as browser"
    yield from ((past if n == 1 else f"again, {n}", each) for n, each in enumerate(measurements.url, 1))
    if measurements.uncompressed:
        yield "uncompressed", measurements.uncompressed
    yield from (("direct" if n == 1 else f"direct, {n}", each) for n, each in enumerate(measurements.direct, 1))
    yield from _answers_beside(measurements)
    if measurements.parallel:
        yield f"last of {len(measurements.parallel)}", max(measurements.parallel, key=lambda each: each.first_byte)


def _answers_beside(measurements: Measurements) -> Iterator[tuple[str, Observation]]:
    if measurements.http10:
        yield "HTTP/1.0", measurements.http10
    if measurements.reconnection:
        yield "reconnect", measurements.reconnection.again
    if measurements.second_reader:
        yield "2nd reader", measurements.second_reader


def _row(answer: Observation) -> list[str]:
    if not answer.status:
        return ["-"] * 5 + [f"{answer.ended_at:.1f} s"]
    body = _BODY[answer.framing] + (f", {answer.encoding}" if answer.encoding else "")
    if answer.ended is Ending.STOPPED_EARLY:
        return [str(answer.status), body, "", "", "", ""]
    events = str(answer.counts.events) if answer.is_sse and answer.readable else f"{answer.size} B"
    pings = f" +{answer.counts.pings} pings" if answer.counts.pings else ""
    first = f"{answer.first_byte:.1f} s" if answer.arrivals else "-"
    return [str(answer.status), body, events + pings, str(len(answer.blocks)), first, f"{answer.ended_at:.1f} s"]


def _ended(answer: Observation) -> Text:
    if answer.ended is Ending.STOPPED_EARLY:
        return Text("left", "dim")
    if answer.counts.terminal:
        # The user's own text may be text of the answer.
        said = answer.counts.terminal if answer.counts.terminal in TERMINALS else "as you said"
        return Text(f"{_words(answer.ended)}, {said}", _GOOD if answer.whole else _BAD)
    return Text(_words(answer.ended), "" if answer.ended is Ending.CLEAN else _BAD)


def _words(ending: Ending) -> str:
    return ending.replace("_", " ")


def _finding(finding: Finding) -> RenderableType:
    parts: list[RenderableType] = [_head(finding.level, finding.seen)]
    said: set[str] = set()
    for number, cause in enumerate(finding.causes, 1):
        name, every = lines_for(finding, cause)
        fixes = [fix for fix in every if fix.lines not in said]
        said |= {fix.lines for fix in fixes}
        if name:
            parts.append(Padding(_cause(name, number, finding.certain), (0, 0, 0, 2)))
        if fixes:
            parts.append(Padding(_fixes(fixes, finding.timeout), (0, 0, 0, 5)))
    if finding.distinguish_by:
        label = "What distinguishes them: " if not finding.certain else "See: "
        parts.append(Padding(Text.assemble((label, "bold"), finding.distinguish_by), (0, 0, 0, 2)))
    return Group(*parts)


def _head(level: Level, seen: str) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text(f" {level} ", _STYLES[level]), Text(seen, "bold"))
    return grid


def _cause(name: str, number: int, certain: bool) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text("=>" if certain else f"{number}?", "bold yellow"), Text(name))
    return grid


def _fixes(fixes: list[Fix], timeout: float) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for where, group in groupby(fixes, key=lambda fix: fix.where):
        for number, fix in enumerate(group):
            mark = f"  <- {fix.default:g} s is its default" if timeout and is_default(fix, timeout) else ""
            grid.add_row(Text("" if number else where, "dim"), Text.assemble((fix.lines, "cyan"), (mark, "yellow")))
    return grid


def url_as_dict(plan: Plan, measurements: Measurements, findings: list[Finding]) -> dict[str, Any]:
    return {
        "url": redacted(plan.url),
        "fine": not any(is_serious(finding) for finding in findings),
        "findings": [_finding_as_dict(finding) for finding in findings],
        "answers": [{"asked": asked, **_answer_as_dict(answer)} for asked, answer in _answers(measurements)],
        "quick_route": asdict(measurements.quick_route) if measurements.quick_route else None,
    }


def _finding_as_dict(finding: Finding) -> dict[str, Any]:
    causes = []
    for cause in finding.causes:
        name, fixes = lines_for(finding, cause)
        causes.append({"id": cause, "name": name, "fixes": [{"where": fix.where, "lines": fix.lines} for fix in fixes]})
    return {
        "rule": finding.rule,
        "level": str(finding.level),
        "seen": finding.seen,
        "certain": finding.certain,
        "causes": causes,
        "distinguish_by": finding.distinguish_by,
        "timeout": finding.timeout or None,
    }


def _answer_as_dict(answer: Observation) -> dict[str, Any]:
    return {
        "status": answer.status or None,
        "http_version": answer.http_version,
        "headers": dict(answer.headers),
        "framing": str(answer.framing),
        "ended": str(answer.ended),
        "error": answer.error,
        "seconds": round(answer.ended_at, 3),
        "first_byte": round(answer.first_byte, 3) if answer.arrivals else None,
        "longest_gap": round(answer.longest_gap, 3),
        "silence_before_the_end": round(answer.silence, 3),
        "bytes": answer.size,
        "blocks": len(answer.blocks),
        "events": answer.counts.events,
        "pings": answer.counts.pings,
        "ids": len(answer.counts.ids),
        "terminal": bool(answer.counts.terminal),
        "failed": answer.counts.failed,
    }


# An installation


def show_installation(console: Console, found: Installation) -> None:
    console.print()
    console.print(Text.assemble(("Python ", "dim"), found.python, ("   on ", "dim"), found.platform))
    console.print(_versions(found, max(1, console.width // 44)))
    if found.unsupported:
        console.print(_head(Level.FAULT, found.unsupported))
    for each in found.unmet:
        has = f"{each.found} is installed" if each.found else "it is missing"
        seen = f"{each.package} {each.version} wants {each.requirement}; {has}."
        console.print(_head(Level.FAULT, seen))
        console.print(Padding(Text(each.fix, "cyan"), (0, 0, 0, 8)))
    for issue in found.known_issues:
        console.print(_head(Level.HINT, issue.about))
        console.print(Padding(Text(issue.why), (0, 0, 0, 7)))
    console.print()
    if found.fine:
        console.print(Text("Nothing to fix.", f"bold {_GOOD}"))
        console.print(f"Next: your endpoint, {program_name()} doctor url URL", markup=False)
    else:
        console.print(Text("Next: mend what is marked as a fault, and run this command again.", "bold"))


def _versions(found: Installation, columns: int) -> RenderableType:
    """Down, and then across."""
    items = list(found.versions.items())
    rows = -(-len(items) // columns)
    grid = Table.grid(padding=(0, 2))
    for row in range(rows):
        cells: list[RenderableType] = []
        for name, version in items[row::rows]:
            cells += [Text(name), Text(version, "bold")]
        grid.add_row(*cells)
    return Padding(grid, (1, 0))
