"""Finds the Markdown block that is still open at the end of a text: a code fence or a table."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)\n", re.MULTILINE)
_TABLE_HEAD = re.compile(r"^\|[^\n]*\|[ \t]*\n\|[ \t:|-]+\|[ \t]*\n", re.MULTILINE)


def open_fence(text: str) -> re.Match[str] | None:
    """Return the line that opened the code fence in which `text` ends: group 1 the fence, group 2 the language."""
    opened: re.Match[str] | None = None
    for line in _FENCE.finditer(text):
        if opened is None:
            opened = line
        elif line[1].startswith(opened[1]) and not line[2].strip():
            opened = None
    return opened


def open_table_head(text: str) -> str:
    """Return the head of the table in which `text` ends with a row at least begun, or "" where there is none."""
    heads = list(_TABLE_HEAD.finditer(text))
    if not heads:
        return ""
    rows = text[heads[-1].end() :].split("\n")
    begun = rows[0] != "" and all(row.startswith("|") for row in rows[:-1]) and rows[-1][:1] in ("|", "")
    return heads[-1].group() if begun else ""
