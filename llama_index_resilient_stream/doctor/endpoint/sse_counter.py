"""Counts server-sent events as their bytes arrive, after the WHATWG HTML standard, 9.2.6. Keeps none of their text."""

from __future__ import annotations

import json
import re
import zlib
from codecs import getincrementaldecoder

from ...report import StreamStatus
from .measurements import Events

TERMINAL_EVENTS = ("done", "error")
OPENAI_DONE = "[DONE]"
_LINE = re.compile(r"\r\n|\n|\r")
_STATES = {str(status) for status in StreamStatus}


class EventCounter:
    """Feed it a body; ask it for `counted`. `terminal` is what the user's endpoint says at the end of a good answer."""

    def __init__(self, terminal: str = "") -> None:
        self._own = terminal
        self._decode = getincrementaldecoder("utf-8-sig")("replace").decode
        self._rest = ""
        self._half = False
        self._name = self._id = ""
        self._data: list[str] = []
        self._events = self._pings = 0
        self._ids: list[str] = []
        self._terminal = self._status = ""

    @property
    def counted(self) -> Events:
        # An endpoint that is not SSE may say its last word on a line that nothing ends.
        last = self._own if self._own and self._own in self._rest else ""
        return Events(self._events, self._pings, tuple(self._ids), self._terminal or last, self._status)

    def feed(self, data: bytes) -> None:
        text = self._decode(data)
        if text:
            # "\r" ends a line by itself; what comes next may be the other half of "\r\n".
            text, self._half = text.removeprefix("\n") if self._half else text, text.endswith("\r")
        *lines, self._rest = _LINE.split(self._rest + text)
        for line in lines:
            self._read(line)

    def _read(self, line: str) -> None:
        if self._own and self._own in line:
            self._terminal = self._own
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self._pings += 1
        else:
            name, _, value = line.partition(":")
            self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value

    def _dispatch(self) -> None:
        name, data, event_id = self._name, "\n".join(self._data), self._id
        had_data = bool(self._data)
        self._name, self._data, self._id = "", [], ""
        if not had_data:
            return
        self._events += 1
        if event_id:
            self._ids.append(event_id)
        if name in TERMINAL_EVENTS:
            self._terminal, self._status = name, _status(data)
        elif data.strip() == OPENAI_DONE:
            self._terminal = OPENAI_DONE


def _status(data: str) -> str:
    """Only a word that this package itself uses: anybody's own could be text."""
    try:
        status = json.loads(data)["status"]
    except (ValueError, KeyError, TypeError):
        return ""
    return status if isinstance(status, str) and status in _STATES else ""


class Inflater:
    """Undoes Content-Encoding, as far as the standard library can."""

    def __init__(self, encoding: str) -> None:
        self.readable = encoding in ("", "gzip", "x-gzip", "deflate")
        self._inflate = zlib.decompressobj(47) if encoding in ("gzip", "x-gzip", "deflate") else None

    def __call__(self, data: bytes) -> bytes:
        if not self.readable:
            return b""
        if self._inflate is None:
            return data
        try:
            return self._inflate.decompress(data)
        except zlib.error:  # deflate without its header, or not what it says
            self.readable = False
            return b""
