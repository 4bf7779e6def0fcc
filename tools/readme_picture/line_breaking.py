"""Words on a grid: where each one goes, and which attempt wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True, slots=True)
class Word:
    """A word, or the part of one that an attempt wrote."""

    text: str
    row: int
    column: int
    attempt: int


def typeset(pieces: Iterable[tuple[int, str]], columns: int) -> list[Word]:
    """Break pieces of (attempt, text) into lines of at most so many columns.

    A seam inside a word is no place to break.
    """
    writers = [(attempt, char) for attempt, text in pieces for char in text]
    whole = "".join(char for _, char in writers)
    words: list[Word] = []
    row = column = 0
    for match in re.finditer(r"\n|[^\S\n]+|\S+", whole):
        token = match.group()
        if token == "\n":
            row, column = row + 1, 0
            continue
        if not token.isspace():
            if column + len(token) > columns:
                row, column = row + 1, 0
            words += _split(writers[match.start() : match.end()], row, column)
        column += len(token)
    return words


def _split(writers: list[tuple[int, str]], row: int, column: int) -> Iterable[Word]:
    for attempt, chars in groupby(writers, key=lambda writer: writer[0]):
        text = "".join(char for _, char in chars)
        yield Word(text, row, column, attempt)
        column += len(text)
