"""Reads an error that a server sends as a JSON body under status 200, in place of an event stream.

SDKs look for events in it, find none, and show an empty stream. What the error says would be lost: a quota that is used
up would be asked for again like an answer that got lost.

Such a body is known by its first character, not by its Content-Type, which gateways set to `text/event-stream` for
whatever they pass on: no line of an event stream begins with a brace or a bracket.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import ErrorBodyError
from .decompression import Decompressor

MOST = 65_536
"""Bytes of a body that are kept. One that is longer is no error body."""

_BLANK = b" \t\r\n\xef\xbb\xbf"  # white space and a byte order mark


class ErrorBody:
    """Keeps a body for as long as it may be a JSON error. Of an event stream nothing is kept.

    Args:
        encoding: the body's Content-Encoding. gzip and deflate are read; of others nothing is known.

    Example:
        body = ErrorBody()
        for piece in response.iter_raw():
            body.feed(piece)
        if error := body.error():
            raise error
    """

    def __init__(self, encoding: str = "") -> None:
        self._decompress = Decompressor(encoding)
        self._kept = b""
        self.is_kept = self._decompress.readable
        """Whether it may still be an error body."""

    def feed(self, data: bytes) -> None:
        """Take in the next piece of the body."""
        if not self.is_kept:
            return
        self._kept = (self._kept + self._decompress(data)).lstrip(_BLANK)
        self.is_kept = self._decompress.readable and self._kept[:1] in (b"", b"{", b"[") and len(self._kept) <= MOST
        if not self.is_kept:
            self._kept = b""

    def error(self) -> ErrorBodyError | None:
        """Return the error that the body is; None where it is not whole, or something else."""
        if b'error"' not in self._kept:  # spares parsing a healthy answer
            return None
        try:
            body = json.loads(self._kept)
        except (ValueError, RecursionError):
            return None
        return ErrorBodyError(body) if _says_error(body) else None


def _says_error(body: Any) -> bool:
    """Whether a JSON body is an error: in OpenAI's form, in a list as Google has it, or flat as vLLM had it."""
    if isinstance(body, list):
        return bool(body) and _says_error(body[0])
    if not isinstance(body, dict) or body.get("choices"):
        return False
    return bool(body.get("error") or "error" in (body.get("object"), body.get("type")))
