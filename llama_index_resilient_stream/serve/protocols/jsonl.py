"""One JSON object a line, for programs and WebSockets: `{"type":"text","text":"The capital"}`.

Types and keys are those of `parts`; the last line is of the type "end". An empty line comes in silence.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..parts import NAMES, Part, to_dict
from ..sse import HEADERS, EventId
from .base import Encoding, written

_HEADERS = {**HEADERS, "Content-Type": "application/x-ndjson"}


class JSONLines:
    """JSON objects, one a line."""

    def encoding(self) -> Encoding:
        """A new encoding, for one connection."""
        return _LineEncoding()


class _LineEncoding(Encoding):
    headers: Mapping[str, str] = _HEADERS
    heartbeat = b"\n"

    def begin(self, retry: int | None) -> bytes:
        return b""

    def encode(self, part: Part, at: EventId) -> bytes:
        return (written({"type": NAMES[type(part)], **to_dict(part)}) + "\n").encode()
