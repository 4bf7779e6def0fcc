"""Undoes the Content-Encoding of a body as it passes, as far as the standard library can."""

from __future__ import annotations

import zlib

_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32


class Decompressor:
    """Decompresses a body piece by piece.

    Args:
        encoding: The body's Content-Encoding. gzip and deflate are decompressed, and no encoding is passed on as it is.

    Attributes:
        readable: False for any other encoding, and from the moment on at which the body was not what it said.
    """

    def __init__(self, encoding: str = "") -> None:
        encoding = encoding.strip().lower()
        compressed = encoding in ("gzip", "x-gzip", "deflate")
        self.readable = compressed or encoding in ("", "identity")
        self._zlib = zlib.decompressobj(_ZLIB_OR_GZIP) if compressed else None

    def __call__(self, data: bytes) -> bytes:
        """Return what the next piece contains; nothing where it cannot be read."""
        if not self.readable:
            return b""
        if self._zlib is None:
            return data
        try:
            return self._zlib.decompress(data)
        except zlib.error:  # deflate without its header, for one
            self.readable = False
            return b""
