"""HTTP/1.1 on a raw socket: only what FaultServer needs, and ways to break it that no HTTP library offers.

Every wait watches the time, the client (who may leave) and the server (which may close). So no handler thread
outlives the connection that it serves.
"""

from __future__ import annotations

import array
import contextlib
import json
import selectors
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

try:
    import fcntl
    import termios
except ImportError:  # not on Windows, where a reset may take the last words with it
    fcntl = termios = None  # type: ignore[assignment]


class StreamFraming(StrEnum):
    """How the end of a body is marked: by a last chunk, or by closing the connection."""

    CHUNKED = "chunked"
    CLOSE = "close"


_RECEIVE = 65536
_TLS_RECORD = b"\x16\x03"  # with which a TLS handshake begins
_ARRIVAL = 1.0  # seconds at most for what was written to arrive
_RESET = struct.pack("ii", 1, 0)  # l_onoff, l_linger: close() discards what is queued and sends RST


class ClientLeft(Exception):
    """The client closed or reset its side of the connection."""


class ServerClosing(Exception):
    """The server is being closed while this response is under way."""


@dataclass(frozen=True)
class ParsedHTTPRequest:
    """One request: the names of its headers in lower case, its body parsed as JSON (or an empty dict).

    Of the values of its headers only `X-Conversation-Id` is kept: others may hold credentials.
    """

    method: str
    path: str
    query: dict[str, str]
    conversation_id: str
    header_names: tuple[str, ...]
    body: dict[str, Any]


class Connection:
    """The connection of one client.

    Args:
        sock: The accepted socket.
        number: The number of the connection, counted from 1.
        stop: A socket that becomes readable when the server closes.
    """

    def __init__(self, sock: socket.socket, number: int, stop: socket.socket) -> None:
        self.number = number
        self.alive = True
        self._last = False
        self._sock = sock
        self._stop = stop
        self._inbox = b""
        self._chunked = True
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
        self._selector.register(sock, selectors.EVENT_READ)
        self._selector.register(stop, selectors.EVENT_READ)

    # -- reading

    def read_request(self) -> ParsedHTTPRequest | None:
        """Read the next request; None when the client is done with this connection."""
        if self._last:
            return None
        try:
            while b"\r\n\r\n" not in self._inbox:
                self._wait(None)
                if self._inbox.startswith(_TLS_RECORD):  # or a client that was given https waits out its time
                    self.respond(400, b"http is spoken here, not https", "text/plain")
                    return None
        except ClientLeft:
            return None
        head, _, self._inbox = self._inbox.partition(b"\r\n\r\n")
        method, target, headers = _parse_head(head)
        path, _, query = target.partition("?")
        self._last = headers.get("connection", "").lower() == "close"
        if headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = int(headers.get("content-length", 0))
        while len(self._inbox) < length:
            self._wait(None)
        body, self._inbox = self._inbox[:length], self._inbox[length:]
        conversation_id = headers.get("x-conversation-id", "")
        return ParsedHTTPRequest(
            method, path, dict(parse_qsl(query)), conversation_id, tuple(headers), _parse_body(body)
        )

    # -- waiting

    def pause(self, seconds: float | None) -> None:
        """Wait for `seconds` (None: for ever), or until the client leaves or the server closes."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            self._wait(left)
            if left == 0.0:
                return

    def _wait(self, timeout: float | None, events: int = selectors.EVENT_READ) -> None:
        """Wait for one thing to happen, or `timeout` seconds. What the client sends is kept for later."""
        if events != selectors.EVENT_READ:
            self._selector.modify(self._sock, events)
        ready = {key.fileobj: mask for key, mask in self._selector.select(timeout)}
        if events != selectors.EVENT_READ:
            self._selector.modify(self._sock, selectors.EVENT_READ)
        if self._stop in ready:
            raise ServerClosing
        if ready.get(self._sock, 0) & selectors.EVENT_READ:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            raise ClientLeft from None
        if not data:
            raise ClientLeft
        self._inbox += data

    # -- writing

    def send(self, data: bytes) -> None:
        """Send all of `data`, waiting for a slow reader."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                self._wait(None, selectors.EVENT_READ | selectors.EVENT_WRITE)
            except OSError:
                raise ClientLeft from None

    def head(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Send the status line and the headers."""
        lines = [f"HTTP/1.1 {status} {_reason(status)}", *(f"{name}: {value}" for name, value in headers)]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def respond(self, status: int, content: bytes, kind: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Send a whole response with a Content-Length."""
        self.head(status, [("Content-Type", kind), ("Content-Length", str(len(content))), *headers])
        self.send(content)

    def open_stream(self, framing: StreamFraming = StreamFraming.CHUNKED, length: int | None = None) -> None:
        """Send the headers of an event stream. With `length` the body is framed by that Content-Length."""
        headers = [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache")]
        self._chunked = framing is StreamFraming.CHUNKED and length is None
        if length is not None:
            headers.append(("Content-Length", str(length)))
        elif framing is StreamFraming.CLOSE:
            headers.append(("Connection", "close"))
        else:
            headers.append(("Transfer-Encoding", "chunked"))
        self.head(200, headers)

    def write(self, data: bytes) -> None:
        """Send a part of the body, as one chunk where the body is chunked."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def write_torn(self, data: bytes) -> None:
        """Send the first half of a part of the body; the size of its chunk promises all of it."""
        half = data[: len(data) // 2]
        self.send(b"%x\r\n%b" % (len(data), half) if self._chunked else half)

    def end(self) -> None:
        """End the body as its framing has it: with the last chunk, or by closing the connection."""
        if self._chunked:
            self.send(b"0\r\n\r\n")
        else:
            self.fin()

    # -- ending

    def fin(self) -> None:
        """Close the connection in order: FIN after everything that was written."""
        self.close()

    def reset(self) -> None:
        """Close the connection with RST, once all that was written has arrived: a reset drops what has not."""
        until = time.monotonic() + _ARRIVAL
        while self._unacknowledged() and time.monotonic() < until:
            self.pause(0.001)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()

    def _unacknowledged(self) -> bool:
        if fcntl is None:
            return False
        waiting = array.array("i", [0])
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._sock, termios.TIOCOUTQ, waiting)
        return waiting[0] > 0

    def close(self) -> None:
        """Release the socket. May be called twice."""
        self.alive = False
        self._selector.close()
        self._sock.close()


def _parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    request_line, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = request_line.split(" ", 2)
    pairs = (line.partition(":") for line in lines)
    return method, target, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _parse_body(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded" if status == 529 else "Unknown"
