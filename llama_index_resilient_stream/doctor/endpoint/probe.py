"""Sends one request, and records what came when, how the end was marked, and whether that mark arrived.

It uses `http.client`, since higher HTTP clients hide the framing, the compression and the timing. It speaks HTTP/1.1
(RFC 9112) and, where asked to, HTTP/1.0, as nginx before 1.29.7 does towards the application.
"""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from urllib.parse import SplitResult, unquote, urlsplit

from ...transport.decompression import Decompressor
from .clocked_http import ClockedResponse, connection_to, data_segments
from .measurements import NO_HANDSHAKE, NO_TLS, UNKNOWN_HOST, Arrival, Ending, EventCounts, Framing, Observation
from .next_reader_rules import CACHE_HEADERS
from .sse_counter import EventCounter

HEADERS = {
    "server",
    "via",
    "content-type",
    "content-encoding",
    "content-length",
    "transfer-encoding",
    "connection",
    "cache-control",
    "x-accel-buffering",
    "x-content-type-options",
    "age",
    *CACHE_HEADERS,
    "cf-ray",
    "x-amz-apigw-id",
    "x-amz-cf-id",
}
"""The response headers that are kept. None of them carries a secret."""
_PRESENT = {"cf-ray", "x-amz-apigw-id", "x-amz-cf-id"}  # their values do not matter

CONNECTING = 10.0
"""Seconds for a connection and its TLS, which a server that speaks plain HTTP may never answer."""
LINGER = 5.0
"""Seconds that the connection may stay open behind the last event."""
_HANGS_UP_WITHIN = 0.15  # seconds

BROWSER = "gzip, deflate, br, zstd"
PLAIN = "identity"

ReportProgress = Callable[[EventCounts, float], None]
StopCondition = Callable[[EventCounts], bool]


@dataclass(frozen=True)
class ProbeRequest:
    """The request that the user's endpoint is sent."""

    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    data: bytes | None = None
    timeout: float = 120.0
    """Seconds for one whole answer."""
    terminal: str = ""
    """A text that ends a good answer, where that is neither done nor [DONE]."""
    insecure: bool = False

    def with_header(self, name: str, value: str) -> ProbeRequest:
        return replace(self, headers=(*self.headers, (name, value)))


def observe(
    url: str,
    request: ProbeRequest,
    *,
    accept_encoding: str = PLAIN,
    http10: bool = False,
    stop_when: StopCondition | None = None,
    on_progress: ReportProgress = lambda events, seconds: None,
) -> Observation:
    """Send the request once.

    Args:
        url: The address.
        request: What is sent.
        accept_encoding: The value of that header.
        http10: Whether to speak HTTP/1.0.
        stop_when: Called after the headers and after each block of bytes; True stops the reading.
        on_progress: Called after each block of bytes, with the counts so far and the seconds since the request.

    Raises:
        ValueError: The address is no URL. Nothing that happens on the network raises.
    """
    connection = _connection(url, request, http10)
    started = time.monotonic()
    try:
        connection.connect()
        connection.sock.settimeout(request.timeout)
        started = time.monotonic()
        _send(connection, url, request, accept_encoding, http10)
        return _ResponseReader(connection, request, started, stop_when, on_progress).read()
    except (OSError, http.client.HTTPException) as error:
        if connection.sock is None:
            return Observation(Ending.UNREACHABLE, error=_error_name(error))
        number = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else 0
        took = time.monotonic() - started
        return Observation(Ending.NO_ANSWER, took, error=_error_name(error), certificate_error=number)
    finally:
        connection.close()


def _connection(url: str, request: ProbeRequest, http10: bool) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(_no_url(url))
    secure = None
    if parts.scheme == "https":
        secure = ssl.create_default_context()
        if request.insecure:
            secure.check_hostname = False
            secure.verify_mode = ssl.CERT_NONE
    patience = min(CONNECTING, request.timeout)
    return connection_to(parts.hostname, parts.port, timeout=patience, tls=secure, http10=http10)


def _no_url(url: str) -> str:
    if "://" in url:
        return f"{redacted(url)} is no URL: it begins with http:// or https://"
    typed = url.partition("?")[0].rpartition("@")[2]
    if scheme := re.match(r"(https?):/*", typed):  # http:/host, http:host
        return f"{typed} is no URL. Write {scheme[1]}://{typed[scheme.end() :]}"
    return f"{typed} is no URL: the scheme is missing. Write http://{typed} or https://{typed}"


def _send(
    connection: http.client.HTTPConnection, url: str, request: ProbeRequest, accept_encoding: str, http10: bool
) -> None:
    parts = urlsplit(url)
    own = {name.lower() for name, _ in request.headers}
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.putrequest(request.method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in _default_headers(parts, request, accept_encoding, http10).items():
        if name not in own:
            connection.putheader(name, value)
    for name, value in request.headers:
        connection.putheader(name, value)
    connection.endheaders(request.data)


def _default_headers(parts: SplitResult, request: ProbeRequest, accept_encoding: str, http10: bool) -> dict[str, str]:
    headers = {
        "host": parts.netloc.rpartition("@")[2],
        "accept": "text/event-stream, */*;q=0.5",
        "accept-encoding": accept_encoding,
        "user-agent": "llama-index-resilient-stream doctor",
        "connection": "close" if http10 else "keep-alive",
    }
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    if request.data is not None:
        headers |= {"content-length": str(len(request.data)), "content-type": "application/json"}
    return headers


class _ResponseReader:
    def __init__(
        self,
        connection: http.client.HTTPConnection,
        request: ProbeRequest,
        started: float,
        stop_when: StopCondition | None,
        on_progress: ReportProgress,
    ) -> None:
        self._connection, self._socket = connection, connection.sock  # which a response that closes takes away
        self._started = started
        self._latest = self._until = started + request.timeout
        self._stop_when, self._on_progress = stop_when, on_progress
        self._counter = EventCounter(request.terminal)
        self._arrivals: list[Arrival] = []
        self._reads = 0  # of the socket, when the last bytes came
        self._last_event_at = 0.0
        self._error = ""

    def read(self) -> Observation:
        try:
            response = self._connection.getresponse()
            assert isinstance(response, ClockedResponse)  # as `connection_to` makes them
        except TimeoutError as error:
            return Observation(Ending.GAVE_UP, self._now(), error=_error_name(error))
        with response:
            headers_at = self._now()
            headers = _headers(response)
            decompress = Decompressor(headers.get("content-encoding", ""))
            ended = self._body(response, decompress)
            ended_at, segments = self._now(), data_segments(self._socket)
            hung_up = ended is Ending.CLEAN and not self._counter.counted.terminal and self._hangs_up(response)
        return Observation(
            ended,
            ended_at,
            status=response.status,
            http_version="1.0" if response.version == 10 else "1.1",
            headers=MappingProxyType(headers),
            headers_at=headers_at,
            framing=_framing(response),
            arrivals=tuple(self._arrivals),
            counts=self._counter.counted,
            format=self._counter.format,
            readable=decompress.readable,
            error=self._error,
            segments=segments,
            last_event_at=self._last_event_at,
            hung_up=hung_up,
        )

    def _body(self, response: ClockedResponse, decompress: Decompressor) -> Ending:
        try:
            while not (self._stop_when and self._stop_when(self._counter.counted)):
                self._socket.settimeout(max(0.001, self._until - time.monotonic()))
                data = response.read1(65536)
                if not data:
                    return Ending.CUT if response.length else Ending.CLEAN
                self._take(response, data, decompress(data))
                self._on_progress(self._counter.counted, self._now())
        except TimeoutError:
            return Ending.GAVE_UP
        except ConnectionResetError as error:
            self._error = _error_name(error)
            return Ending.RESET
        except (http.client.HTTPException, OSError) as error:
            self._error = _error_name(error)
            return Ending.CUT
        return Ending.STOPPED_EARLY

    def _take(self, response: ClockedResponse, data: bytes, plain: bytes) -> None:
        clock = response.clock
        events, pieces = self._counter.counted.events, self._counter.pieces
        self._counter.feed(plain)
        arrival = Arrival(clock.at - self._started, len(data), self._counter.pieces - pieces)
        if self._arrivals and clock.reads == self._reads:  # the next chunk of what came out together
            last = self._arrivals.pop()
            arrival = Arrival(last.at, last.size + arrival.size, last.pieces + arrival.pieces)
        self._arrivals.append(arrival)
        self._reads = clock.reads
        if self._counter.counted.events > events:
            self._last_event_at = arrival.at
            if self._counter.counted.terminal:
                self._until = min(self._latest, time.monotonic() + LINGER)

    def _hangs_up(self, response: ClockedResponse) -> bool:
        """Whether the server closes a connection that it was to keep alive: after an exception they do."""
        if response.will_close or isinstance(self._socket, ssl.SSLSocket):
            return False
        try:
            self._socket.settimeout(_HANGS_UP_WITHIN)
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except OSError as error:
            return isinstance(error, ConnectionResetError)

    def _now(self) -> float:
        return time.monotonic() - self._started


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    kept = {name.lower(): value for name, value in response.getheaders() if name.lower() in HEADERS}
    return {name: "present" if name in _PRESENT else value for name, value in kept.items()}


def _framing(response: http.client.HTTPResponse) -> Framing:
    if response.status in (204, 304):
        return Framing.NONE
    if response.getheader("transfer-encoding", "").lower().endswith("chunked"):
        return Framing.CHUNKED
    return Framing.LENGTH if response.getheader("content-length") is not None else Framing.CLOSE


def _error_name(error: BaseException) -> str:
    """Return the kind of an error, not its message, which may quote what the server sent."""
    if isinstance(error, socket.gaierror):
        return UNKNOWN_HOST
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.partition(",")[0]  # behind the comma it may quote the host
    if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS_REASONS:
        return NO_TLS
    if isinstance(error, TimeoutError) and "handshake" in str(error):
        return NO_HANDSHAKE
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__


_NO_TLS_REASONS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


def redacted(url: str) -> str:
    """Return a URL as it may be printed: without password and query, which may be secrets."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + ("?..." if parts.query else "")
