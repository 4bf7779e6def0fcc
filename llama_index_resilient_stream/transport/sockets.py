"""The connections of our HTTP clients: kept alive, and known by their sockets while a request is under way.

httpx builds its transports itself, for the environment's proxies too, and hands them neither socket options nor a
network backend. A transport of our own could have both, but whoever instruments or mocks `httpx.HTTPTransport`, as
OpenTelemetry and pytest-httpx do, would no longer see our requests, and proxies, TLS settings and errors would have to
be done over. httpx's documented request extension `trace` suffices: it shows every connection as soon as it is made.
A connection is then used for many requests. So that each of them knows its socket, the connection's own `write` is
replaced by one that says so first.
"""

from __future__ import annotations

import contextlib
import socket
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpcore
import httpx

from .connection import Upstream

_PROBES = (
    ("TCP_KEEPIDLE", 30),  # seconds of silence before the first probe
    ("TCP_KEEPALIVE", 30),  # macOS's name for the same
    ("TCP_KEEPINTVL", 10),  # seconds between two
    ("TCP_KEEPCNT", 3),  # unanswered ones until the connection is dead
)
_CONNECTED = ("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")


def keep_alive_options() -> list[tuple[int, int, int]]:
    """Return the socket options of TCP keep-alive, as far as this platform has them (RFC 9293, 3.8.4).

    A peer that vanished without a word, as behind a NAT that forgot the connection, is noticed after a minute instead
    of never. Probes are no bytes of the stream: they feed no watchdog, and no load balancer's idle timeout either.
    """
    probes = ((getattr(socket, name, None), value) for name, value in _PROBES)
    return [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *((socket.IPPROTO_TCP, option, value) for option, value in probes if option is not None),
    ]


def watch_connections(request: httpx.Request) -> None:
    """Keep the connections alive that this synchronous request makes, and let them tell `Upstream` their sockets."""
    before = request.extensions.get("trace")

    def trace(event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(_CONNECTED):
            _keep_alive(info["return_value"])
            _tell_socket_on_write(info["return_value"])
        if before is not None:
            before(event, info)

    request.extensions = {**request.extensions, "trace": trace}


def watch_connections_async(request: httpx.Request) -> None:
    """Keep the connections alive that this asynchronous request makes. Its waits need no socket to be cancelled."""
    before = request.extensions.get("trace")

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(_CONNECTED):
            _keep_alive(info["return_value"])
        if before is not None:
            await before(event, info)

    request.extensions = {**request.extensions, "trace": trace}


def _keep_alive(stream: httpcore.NetworkStream | httpcore.AsyncNetworkStream) -> None:
    sock = stream.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):  # a Unix socket has no probes, another backend perhaps no socket
        for option in keep_alive_options():
            sock.setsockopt(*option)


def _tell_socket_on_write(stream: httpcore.NetworkStream) -> None:
    """Let the connection tell the `Upstream` that writes to it which socket it is.

    The replacement refers to the stream weakly: a connection dropped without a close is freed at once, as before.
    """
    sock = stream.get_extra_info("socket")
    owner, write = weakref.ref(stream), type(stream).write

    def tell_and_write(buffer: bytes, timeout: float | None = None) -> None:
        if (upstream := Upstream.current()) is not None:
            upstream.connect(sock)
        if (stream := owner()) is not None:
            write(stream, buffer, timeout)

    stream.write = tell_and_write  # type: ignore[method-assign]


@contextlib.contextmanager
def short_reads(stream: httpcore.NetworkStream, seconds: float) -> Iterator[None]:
    """Give each read on this connection only so many seconds, whatever was agreed when the request was sent."""
    read: Callable[..., bytes] = stream.read
    stream.read = lambda max_bytes, timeout=None: read(max_bytes, seconds)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del stream.read
