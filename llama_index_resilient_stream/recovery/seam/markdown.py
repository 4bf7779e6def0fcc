"""Finds the Markdown block that is still open at the end of a text: a code fence or a table."""

from __future__ import annotations

import re
from collections.abc import Iterator

_MARKS = re.compile(r"`{3,}|~{3,}")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)\n", re.MULTILINE)
_TABLE_HEAD = re.compile(r"^\|[^\n]*\|[ \t]*\n\|[ \t:|-]+\|[ \t]*\n", re.MULTILINE)


def open_fence(text: str) -> re.Match[str] | None:
    """Return the line that opened the code fence in which `text` ends: group 1 the fence, group 2 the language."""
    opened: re.Match[str] | None = None
    for line in _fences(text):
        if opened is None:
            opened = line
        elif line[1].startswith(opened[1]) and not line[2].strip():
            opened = None
    return opened


def _fences(text: str) -> Iterator[re.Match[str]]:
    """Yield the lines that begin with a fence. Looks at fences only: a text may have very many lines."""
    end = 0
    for marks in _MARKS.finditer(text):
        if marks.start() < end:
            continue
        begin = max(0, marks.start() - 3)
        begin = text.rfind("\n", begin - 1 if begin else 0, marks.start()) + 1 or begin
        if line := _FENCE.match(text, begin):
            end = line.end()
            yield line


def open_table_head(text: str) -> str:
    """Return the head of the table in which `text` ends with a row at least begun, or "" where there is none."""
    heads = list(_TABLE_HEAD.finditer(text))
    if not heads:
        return ""
    rows = text[heads[-1].end() :].split("\n")
    begun = rows[0] != "" and all(row.startswith("|") for row in rows[:-1]) and rows[-1][:1] in ("|", "")
    return heads[-1].group() if begun else ""
