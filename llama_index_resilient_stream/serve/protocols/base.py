"""What a protocol is: settings that make an encoding for each connection, which makes bytes of parts."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from typing import Any

from ...report import StreamStatus
from ..parts import EndPart, Part
from ..sse import EventId

WHOLE = frozenset(StreamStatus) - {StreamStatus.INTERRUPTED, StreamStatus.STREAMING}
"""The statuses of an answer that ended as it should, or as its reader wanted."""


class Encoding:
    """Makes bytes of the parts of one answer, for one connection. Derive from it, and write `encode`."""

    headers: Mapping[str, str] = {}
    heartbeat: bytes = b""
    """What is sent in silence; empty where the protocol has no place for it."""
    breaks_off: bool = False
    """Whether the transfer is to break where the answer is not whole: this protocol has no other way to say so."""
    collects: bool = False
    """Whether nothing is sent before the end. `status` then counts when the end has been encoded."""
    replays: bool = False
    """Whether a reader who comes back gets everything again, and 204 where there is nothing."""
    status: int = 200

    def begin(self, retry: int | None) -> bytes:
        """What is sent at once, before anything is known. `retry` is in milliseconds."""
        return self.heartbeat

    def encode(self, part: Part, at: EventId) -> bytes:
        """One part; empty where the protocol has no place for it. `at` is the id after it."""
        raise NotImplementedError

    def refusal(self, end: EndPart) -> bytes:
        """The body of an HTTP error, as JSON."""
        return json.dumps({"detail": end.detail}).encode()


class Protocol(typing.Protocol):
    """What `protocol=` takes beside the names."""

    def encoding(self) -> Encoding:
        """A new encoding, for one connection."""


def written(value: Any) -> str:
    """JSON on one line, which no reader takes for two."""
    text = _compact(value)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can carry
        return json.dumps(value, separators=(",", ":"))
    return text.translate(_MISTAKEN_FOR_LINE_ENDS)


_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# No line ends in SSE and JSON, but for many clients: httpx's iter_lines and str.splitlines break a line there.
_MISTAKEN_FOR_LINE_ENDS = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}
