"""Connections whose responses know when their bytes came out of the socket: reading them takes time of its own."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import struct
import time
from typing import Any


class _ClockedReader(io.RawIOBase):
    """Reads from a socket, and notes when."""

    def __init__(self, reader: io.RawIOBase) -> None:
        self._reader = reader
        self.reads = 0
        self.at = time.monotonic()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self._reader.readinto(buffer)
        self.reads += 1
        self.at = time.monotonic()
        return count

    def close(self) -> None:
        self._reader.close()
        super().close()


class ClockedResponse(http.client.HTTPResponse):
    """A response with a clock at its socket."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clock = _ClockedReader(self.fp.detach())
        self.fp = io.BufferedReader(self.clock)


class _Connection(http.client.HTTPConnection):
    response_class = ClockedResponse


class _SecureConnection(http.client.HTTPSConnection):
    response_class = ClockedResponse


class _HTTP10Connection(_Connection):
    _http_vsn = 10
    _http_vsn_str = "HTTP/1.0"


class _HTTP10SecureConnection(_SecureConnection):
    _http_vsn = 10
    _http_vsn_str = "HTTP/1.0"


def data_segments(connected: socket.socket) -> int:
    """Return how many TCP segments with data have come; 0 where the system does not tell.

    Writes that a server makes shortly after another are read as one, but are segments of their own.
    """
    try:
        info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _DATA_SEGMENTS_IN.size)
        return int(_DATA_SEGMENTS_IN.unpack(info)[0])
    except (AttributeError, OSError, struct.error):  # another system than Linux, or one before 4.6
        return 0


_DATA_SEGMENTS_IN = struct.Struct("152xI")  # tcpi_data_segs_in in struct tcp_info (linux/tcp.h)


def connection_to(
    host: str, port: int | None, *, timeout: float, tls: ssl.SSLContext | None, http10: bool
) -> http.client.HTTPConnection:
    """Return a connection that is not made yet. `timeout` is in seconds."""
    if tls is None:
        return (_HTTP10Connection if http10 else _Connection)(host, port, timeout=timeout)
    return (_HTTP10SecureConnection if http10 else _SecureConnection)(host, port, timeout=timeout, context=tls)
