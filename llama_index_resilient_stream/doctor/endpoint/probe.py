"""One request, as it is on the wire: what came when, how its end was marked, and whether the mark was there.

Not with an HTTP client made for comfort: those undo the framing, the compression and the timing that this is about.
HTTP/1.1 (RFC 9112) and, on request, HTTP/1.0, as nginx before 1.29.7 speaks to what is behind it.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from .measurements import Arrival, Ending, Events, Framing, Observation
from .sse_counter import EventCounter, Inflater

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
    "cf-ray",
    "x-amz-apigw-id",
    "x-amz-cf-id",
}
"""The response headers that tell something. None of them carries a secret."""
_PRESENT = {"cf-ray", "x-amz-apigw-id", "x-amz-cf-id"}  # that they are there is all that matters

BROWSER = "gzip, deflate, br, zstd"
PLAIN = "identity"

Notice = Callable[[Events, float], None]
Enough = Callable[[Events], bool]


@dataclass(frozen=True)
class Question:
    """What the user's endpoint is asked."""

    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    data: bytes | None = None
    timeout: float = 120.0
    """Seconds for one whole answer."""
    terminal: str = ""
    insecure: bool = False

    def with_header(self, name: str, value: str) -> Question:
        return replace(self, headers=(*self.headers, (name, value)))


class _OldConnection(http.client.HTTPConnection):
    _http_vsn = 10
    _http_vsn_str = "HTTP/1.0"


class _OldSecureConnection(http.client.HTTPSConnection):
    _http_vsn = 10
    _http_vsn_str = "HTTP/1.0"


def observe(
    url: str,
    question: Question,
    *,
    accept_encoding: str = PLAIN,
    old: bool = False,
    enough: Enough | None = None,
    notice: Notice = lambda events, seconds: None,
) -> Observation:
    """Ask once. `enough` is asked after the headers and after each block of bytes whether to stop reading."""
    connection = _connection(url, question, old)
    started = time.monotonic()
    try:
        connection.connect()
        started = time.monotonic()
        _send(connection, url, question, accept_encoding, old)
        return _Reading(connection, question, started, enough, notice).read()
    except (OSError, http.client.HTTPException) as error:
        if connection.sock is None:
            return Observation(Ending.UNREACHABLE, error=_told(error))
        return Observation(Ending.NO_ANSWER, time.monotonic() - started, error=_told(error))
    finally:
        connection.close()


def _connection(url: str, question: Question, old: bool) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{shown(url)} is no URL: it begins with http:// or https://")
    if parts.scheme == "http":
        kind = _OldConnection if old else http.client.HTTPConnection
        return kind(parts.hostname, parts.port, timeout=question.timeout)
    context = ssl.create_default_context()
    if question.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    secure = _OldSecureConnection if old else http.client.HTTPSConnection
    return secure(parts.hostname, parts.port, timeout=question.timeout, context=context)


def _send(
    connection: http.client.HTTPConnection, url: str, question: Question, accept_encoding: str, old: bool
) -> None:
    parts = urlsplit(url)
    own = {name.lower() for name, _ in question.headers}
    headers = {
        "host": parts.netloc.rpartition("@")[2],
        "accept": "text/event-stream, */*;q=0.5",
        "accept-encoding": accept_encoding,
        "user-agent": "llama-index-resilient-stream doctor",
        "connection": "close" if old else "keep-alive",
    }
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    if question.data is not None:
        headers |= {"content-length": str(len(question.data)), "content-type": "application/json"}
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.putrequest(question.method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        if name not in own:
            connection.putheader(name, value)
    for name, value in question.headers:
        connection.putheader(name, value)
    connection.endheaders(question.data)


class _Reading:
    def __init__(
        self,
        connection: http.client.HTTPConnection,
        question: Question,
        started: float,
        enough: Enough | None,
        notice: Notice,
    ) -> None:
        self._connection, self._socket = connection, connection.sock  # which a response that closes takes away
        self._started, self._until = started, started + question.timeout
        self._enough, self._notice = enough, notice
        self._counter = EventCounter(question.terminal)
        self._arrivals: list[Arrival] = []
        self._error = ""

    def read(self) -> Observation:
        try:
            response = self._connection.getresponse()
        except TimeoutError as error:
            return Observation(Ending.GAVE_UP, self._now(), error=_told(error))
        with response:
            headers_at = self._now()
            headers = _headers(response)
            inflate = Inflater(headers.get("content-encoding", "").lower().replace("identity", ""))
            ended = self._body(response, inflate)
        return Observation(
            ended,
            self._now(),
            status=response.status,
            http_version="1.0" if response.version == 10 else "1.1",
            headers=MappingProxyType(headers),
            headers_at=headers_at,
            framing=_framing(response),
            arrivals=tuple(self._arrivals),
            stream=self._counter.counted,
            readable=inflate.readable,
            error=self._error,
        )

    def _body(self, response: http.client.HTTPResponse, inflate: Inflater) -> Ending:
        try:
            while not (self._enough and self._enough(self._counter.counted)):
                self._socket.settimeout(max(0.001, self._until - time.monotonic()))
                data = response.read1(65536)
                if not data:
                    return Ending.CUT if response.length else Ending.CLEAN
                self._arrivals.append(Arrival(self._now(), len(data)))
                self._counter.feed(inflate(data))
                self._notice(self._counter.counted, self._now())
        except TimeoutError:
            return Ending.GAVE_UP
        except ConnectionResetError as error:
            self._error = _told(error)
            return Ending.RESET
        except (http.client.HTTPException, OSError) as error:
            self._error = _told(error)
            return Ending.CUT
        return Ending.ENOUGH

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


def _told(error: BaseException) -> str:
    """What kind of error. Its message may quote what the server sent."""
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__


def shown(url: str) -> str:
    """A URL as it may be printed: a password or a query may be a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + ("?..." if parts.query else "")
