"""A proxy on the wire that cuts what a server sends, behind any byte, for clients that are to read on."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from llama_index_resilient_stream.testing import FaultServer

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


@dataclass(frozen=True)
class Cut:
    """Where the body of an event stream is cut, and how."""

    after: int
    """Bytes of the body, without its framing."""
    how: str = "rst"
    """rst, fin (in the middle of the body), end (as if it were whole)"""
    junk: bytes = b""
    """What the proxy adds to the body before it cuts it."""
    before: Callable[[], object] = int
    """Is called just before."""


class CuttingProxy:
    """Passes a FaultServer's responses on, and cuts its event streams, one cut each, in their order."""

    def __init__(self, server: FaultServer, cuts: Iterable[Cut | None]) -> None:
        self._upstream = server.port
        self._cuts = iter(cuts)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _pass_on(self, client: socket.socket) -> None:
        """One request and its response; then the connection is closed."""
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self._upstream)) as server:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head, body = _read_head(client)
            length = int(_header(head, "content-length") or 0)
            while len(body) < length:
                body += client.recv(65536)
            server.sendall(_with_close(head) + body)
            over = threading.Event()
            leaving = threading.Thread(target=_hang_up_with, args=(client, server, over), daemon=True)
            leaving.start()
            head, rest = _read_head(server)
            streamed = "text/event-stream" in (_header(head, "content-type") or "")
            client.sendall(_with_close(head) + (b"" if streamed else rest))
            if streamed:
                with self._lock:
                    cut = next(self._cuts, None)
                _send(client, _chunks(rest, server.recv), cut)
                over.set()
                leaving.join()  # who waits for a socket keeps it open
                if cut is not None and cut.how == "rst":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:
                while data := server.recv(65536):
                    client.sendall(data)


def _send(client: socket.socket, parts: Iterator[bytes], cut: Cut | None) -> None:
    left = cut.after if cut is not None else None
    for part in parts:
        if left is not None and len(part) > left:
            break
        client.sendall(_framed(part))
        left = left - len(part) if left is not None else None
    else:
        part = b""
    if cut is None:
        client.sendall(b"0\r\n\r\n")
        return
    cut.before()
    if end := part[: left or 0] + cut.junk:
        client.sendall(_framed(end))
    if cut.how == "end":
        client.sendall(b"0\r\n\r\n")
    elif cut.how == "rst":
        threading.Event().wait(0.01)  # a reset drops what has not arrived


def _framed(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def _chunks(data: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The chunks of a body that is sent in chunks."""
    while True:
        while b"\r\n" not in data:
            if not (more := read(65536)):
                return
            data += more
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        while len(data) < length + 2:
            if not (more := read(65536)):
                return
            data += more
        if not length:
            return
        yield data[:length]
        data = data[length + 2 :]


def _hang_up_with(client: socket.socket, server: socket.socket, over: threading.Event) -> None:
    """A client that leaves takes the connection to the server with it."""
    with suppress(OSError, ValueError):  # closed meanwhile
        while not over.is_set():
            ready, _, _ = select.select([client], [], [], 0.005)
            if ready and not client.recv(65536):
                break
    with suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)


def _read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := sock.recv(65536)):
            raise ConnectionError
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _header(head: bytes, name: str) -> str | None:
    for line in head.decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return None


def _with_close(head: bytes) -> bytes:
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n"


@contextmanager
def cutting(server: FaultServer, *cuts: Cut | None) -> Iterator[CuttingProxy]:
    """Cut the event streams of a server, one after the other; None: that one is not cut."""
    proxy = CuttingProxy(server, cuts)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(5)
