"""A proxy that cuts: a request with `x-cut: 7` loses its connection behind the seventh event of its answer."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator

from support.servers import HOST


@contextlib.contextmanager
def cutting_proxy(port: int) -> Iterator[str]:
    """In front of the server on that port. Gives the proxy's own URL. Each request has a connection of its own."""
    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port), daemon=True).start()
        yield f"http://{HOST}:{listener.getsockname()[1]}"


def _accept(listener: socket.socket, port: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_pass_on, args=(connection, port), daemon=True).start()


def _pass_on(connection: socket.socket, port: int) -> None:
    with connection, socket.create_connection((HOST, port), 10) as server, contextlib.suppress(OSError):
        request = _request(connection)
        found = re.search(rb"x-cut: (\d+)", request, re.IGNORECASE)
        left = int(found[1]) if found and request.startswith(b"POST") else 0
        server.sendall(re.sub(rb"(?i)connection: [\w-]+", b"connection: close", request, count=1))
        buffer = b""
        while data := server.recv(65536):
            buffer += data
            if left and (end := _behind(buffer, left)) is not None:
                connection.sendall(data[: end - (len(buffer) - len(data))])
                # Gone without a word: an end of the stream could be taken for one of the answer.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            connection.sendall(data)


def _request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536)
    head, _, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    while length and len(body) < int(length[1]):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def _behind(buffer: bytes, events: int) -> int | None:
    """Where so many events end."""
    ends = [match.end() for match in re.finditer(rb"data: [^\n]*\n\n", buffer)]
    return ends[events - 1] if len(ends) >= events else None
