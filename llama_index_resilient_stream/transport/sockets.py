"""The connections of our HTTP clients: kept alive, and known by their sockets while a request is under way.

httpx hands neither socket options (through a proxy) nor a network backend down to its pools, so these are given to the
pools themselves. Where a release of httpx has other names for them, there are no keep-alive probes and no early socket,
and everything else works.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import httpcore

from .connection import Upstream

_PROBES = (
    ("TCP_KEEPIDLE", 30),  # seconds of silence before the first probe
    ("TCP_KEEPALIVE", 30),  # macOS's name for the same
    ("TCP_KEEPINTVL", 10),  # seconds between two
    ("TCP_KEEPCNT", 3),  # unanswered ones until the connection is dead
)


def keep_alive_options() -> list[tuple[int, int, int]]:
    """TCP keep-alive, as far as this platform has it (RFC 9293, 3.8.4).

    A peer that vanished without a word, as behind a NAT that forgot the connection, is noticed after a minute instead
    of never. Probes are no bytes of the stream: they feed no watchdog, and no load balancer's idle timeout either.
    """
    probes = ((getattr(socket, name, None), value) for name, value in _PROBES)
    return [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *((socket.IPPROTO_TCP, option, value) for option, value in probes if option is not None),
    ]


def watch_pools(client: Any, settings: Mapping[str, Any]) -> None:
    """Let the client's connections be kept alive, and make themselves known. With HTTP/2 streams share a socket."""
    wrap = (lambda stream: stream) if settings.get("http2") else Line
    for pool in _own_pools(client, settings):
        pool._network_backend = _Backend(pool._network_backend, wrap)


def watch_pools_async(client: Any, settings: Mapping[str, Any]) -> None:
    """Let the client's connections be kept alive. What waits for them can be cancelled without knowing a socket."""
    for pool in _own_pools(client, settings):
        pool._network_backend = _AsyncBackend(pool._network_backend)


def _own_pools(client: Any, settings: Mapping[str, Any]) -> list[Any]:
    """The pools that the client made for itself, through proxies and not. A transport of the user's is left alone."""
    users = [settings.get("transport"), *(settings.get("mounts") or {}).values()]
    transports = [getattr(client, "_transport", None), *getattr(client, "_mounts", {}).values()]
    pools = (getattr(each, "_pool", None) for each in transports if not any(each is other for other in users))
    return [pool for pool in pools if hasattr(pool, "_network_backend")]


class Line(httpcore.NetworkStream):
    """A connection that makes itself known to whoever asks over it."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self.read = stream.read  # type: ignore[method-assign]  # once per token, with nothing to add
        self.close = stream.close  # type: ignore[method-assign]
        self.get_extra_info = stream.get_extra_info  # type: ignore[method-assign]

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if (upstream := Upstream.current()) is not None:
            upstream.connect(self._stream.get_extra_info("socket"))
        self._stream.write(buffer, timeout)

    def start_tls(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return Line(self._stream.start_tls(*args, **options))

    @contextlib.contextmanager
    def hurried(self, seconds: float) -> Iterator[None]:
        """Reads get only so much time, whatever was agreed when the request was sent."""
        self.read = lambda max_bytes, timeout=None: self._stream.read(max_bytes, seconds)  # type: ignore[method-assign]
        try:
            yield
        finally:
            self.read = self._stream.read  # type: ignore[method-assign]


class _Backend(httpcore.NetworkBackend):
    def __init__(
        self, backend: httpcore.NetworkBackend, wrap: Callable[[httpcore.NetworkStream], httpcore.NetworkStream]
    ) -> None:
        self._backend = backend
        self._wrap = wrap

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        options = [*keep_alive_options(), *(socket_options or ())]
        return self._wrap(self._backend.connect_tcp(host, port, timeout, local_address, options))

    def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return self._wrap(self._backend.connect_unix_socket(*args, **options))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _AsyncBackend(httpcore.AsyncNetworkBackend):
    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        options = [*keep_alive_options(), *(socket_options or ())]
        return await self._backend.connect_tcp(host, port, timeout, local_address, options)

    async def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return await self._backend.connect_unix_socket(*args, **options)

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)
