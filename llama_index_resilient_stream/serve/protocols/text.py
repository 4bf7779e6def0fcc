"""The text and nothing else. It has no place for a status: an answer that is not whole ends with a note, and is cut."""

from __future__ import annotations

from dataclasses import dataclass

from ...report import StreamStatus
from ..parts import EndPart, Part, ResetPart, TextPart
from ..sse import TEXT_HEADERS, EventId
from .base import Encoding

NOTE = "\n\n[The answer was interrupted.]"


@dataclass(frozen=True)
class PlainText:
    """Plain text.

    Args:
        note: What an interrupted answer ends with.
    """

    note: str = NOTE

    def encoding(self) -> Encoding:
        """A new encoding, for one connection."""
        return _TextEncoding(self.note)


class _TextEncoding(Encoding):
    headers = TEXT_HEADERS
    breaks_off = True

    def __init__(self, note: str) -> None:
        self._note = note

    def encode(self, part: Part, at: EventId) -> bytes:
        match part:
            case TextPart(text):
                return text.encode("utf-8", "replace")
            case ResetPart():
                return b"\n\n"  # nobody can take back what was printed
            case EndPart(StreamStatus.INTERRUPTED):
                return self._note.encode()
        return b""
