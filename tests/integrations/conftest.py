"""Prints what `test_chains.py` has found out as a table: each pair of providers, each kind of question."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import pytest

KINDS = {
    "test_text": "text",
    "test_a_text_that_breaks_off": "text, cut",
    "test_tools": "tools",
    "test_a_call_that_breaks_off": "tools, cut",
    "test_objects": "objects",
    "test_images": "images",
    "test_a_history_with_thoughts": "thoughts",
    "test_a_tool_call_of_the_first_is_answered_to_the_second": "calls of 1st",
    "test_a_tool_call_of_the_second_is_answered_to_the_first": "calls of 2nd",
    "test_predict_and_call": "predict_and_call",
}
AS_BARE = "as_bare"
"""A property of a test: the second's class by itself does no better."""

_TEST = re.compile(r"test_chains\.py::(\w+)\[(\w+)-(\w+)-(sync|async)")

Cells = Mapping[tuple[str, str], Mapping[str, Mapping[str, set[str]]]]
"""By pair, kind and half what its tests said."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, where any of its tests ran."""
    found: Cells = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            if (named := _TEST.search(report.nodeid)) and (kind := KINDS.get(named[1])):
                as_bare = any(name == AS_BARE for name, _ in report.user_properties)
                said = "FAILED" if outcome != "passed" else "as bare" if as_bare else "ok"
                found[named[2], named[3]][kind][named[4]].add(said)
    if found:
        terminalreporter.section("chains of two providers")
        for line in table(found):
            terminalreporter.line(line)


def table(cells: Cells) -> Iterator[str]:
    """Yield the lines of the table, and how many of its cells, each in sync and in async, are right."""
    kinds = list(KINDS.values())
    width = max(len(" -> ".join(pair)) for pair in cells)
    yield "  ".join(["first -> second".ljust(width), *kinds])
    for pair, row in cells.items():
        words = [_cell(row.get(kind, {})).ljust(len(kind)) for kind in kinds]
        yield "  ".join([" -> ".join(pair).ljust(width), *words]).rstrip()
    said = [_worst(half) for row in cells.values() for halves in row.values() for half in halves.values()]
    yield (
        f"{len(said)} cells, sync and async: {said.count('ok')} right, {said.count('as bare')} as the second's class "
        f"has them by itself, {said.count('FAILED')} failed"
    )


def _cell(halves: Mapping[str, Iterable[str]]) -> str:
    said = {name: _worst(each) for name, each in sorted(halves.items(), reverse=True)}
    if len(set(said.values())) > 1:
        return " / ".join(said.values())
    return next(iter(said.values()), "-")


def _worst(said: Iterable[str]) -> str:
    return max(said, key=["ok", "as bare", "FAILED"].index)
