"""Decodes server-sent events as their bytes arrive (WHATWG HTML standard, section 9.2.6)."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from dataclasses import dataclass

OPENAI_DONE = "[DONE]"
_LINE_END = re.compile(r"\r\n|\n|\r")


class LineDecoder:
    """Splits a body into lines. A line ends with CR LF, LF or CR, wherever the pieces break."""

    def __init__(self) -> None:
        self._decode = getincrementaldecoder("utf-8-sig")("replace").decode
        self._after_cr = False
        self.rest = ""
        """The line that has no end yet."""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that end in this piece."""
        text = self._decode(data)
        if text:
            # CR ends a line by itself; what comes next may be the other half of CR LF.
            text, self._after_cr = text.removeprefix("\n") if self._after_cr else text, text.endswith("\r")
        *lines, self.rest = _LINE_END.split(self.rest + text)
        return lines


def is_comment(line: str) -> bool:
    """Whether a line is a comment, as keep-alives are."""
    return line.startswith(":")


def field_of(line: str) -> tuple[str, str]:
    """Return the name and the value of the field on a line."""
    name, _, value = line.partition(":")
    return name, value.removeprefix(" ")


@dataclass(frozen=True)
class DecodedEvent:
    """One event. `id` is the id that it came with, "" where it came with none."""

    data: str
    name: str = ""
    id: str = ""


class EventDecoder:
    """Puts lines together to events."""

    def __init__(self) -> None:
        self._name = self._id = ""
        self._data: list[str] = []

    def feed(self, line: str) -> DecodedEvent | None:
        """Take one line; return the event that it ends."""
        if not line:
            return self._end()
        if not is_comment(line):
            self._take(*field_of(line))
        return None

    def _take(self, name: str, value: str) -> None:
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value

    def _end(self) -> DecodedEvent | None:
        event = DecodedEvent("\n".join(self._data), self._name, self._id) if self._data else None
        self._name, self._data, self._id = "", [], ""
        return event
