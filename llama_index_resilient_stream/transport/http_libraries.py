"""Lets the HTTP libraries below an LLM class tell what our own HTTP clients do.

Many classes keep their HTTP client where nobody gets at it, and swallow the finish reason or hold the connection: most
of LlamaIndex's integrations beside OpenAI's and Anthropic's. What they all have in common is the library that sends.
While such a class asks on behalf of an `Upstream`, and only then, its library tells it of the socket and of the
response, and a watch sees the bytes go by. With that, for every class alike:

* leaving closes the response at once, whatever generators are around it;
* a read that blocks a thread can be broken, from the moment on at which the request is sent;
* a finish reason that the class drops, and a terminator that is missing, are seen (`terminator.py`).

The library's own method is replaced once by one that calls it, as tracers do it (OpenTelemetry, Sentry). Calls of
anybody else go straight through: one look at a context variable. Nothing is imported here that is not loaded already.

    httpx, httpx2    Client.send, AsyncClient.send
    urllib3          HTTPConnection.getresponse; requests and botocore are built on it
    aiohttp          ClientSession._request; aiobotocore is built on it

What sends by other means (gRPC, the native libraries) is not seen: then the status is what the class's own chunks show.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from .connection import Upstream
from .error_body import ErrorBody
from .watch import Watch, watch_of

_ready: set[str] = set()
_lock = threading.Lock()


def watch_libraries() -> None:
    """Let every HTTP library that is loaded tell `Upstream` what it sends. Cheap when that is done already."""
    for name, prepare in _LIBRARIES.items():
        if name in sys.modules and name not in _ready:
            with _lock:
                if name not in _ready:
                    prepare(sys.modules[name])
                    _ready.add(name)


def _asking() -> Upstream | None:
    """On whose behalf a library sends, where it is to be seen."""
    upstream = Upstream.current()
    return upstream if upstream is not None and upstream.sees_libraries else None


# httpx and httpx2


def _prepare_httpx(module: Any) -> None:
    from . import observation  # needs httpx

    send, asend = module.Client.send, module.AsyncClient.send

    @functools.wraps(send)
    def send_seen(self: Any, request: Any, *args: Any, **options: Any) -> Any:
        if _asking() is None or args or observation.is_observed(request):
            return send(self, request, *args, **options)
        return observation.send_observed(
            functools.partial(send, self), request, options, connections=_is_http1(self, request)
        )

    @functools.wraps(asend)
    async def asend_seen(self: Any, request: Any, *args: Any, **options: Any) -> Any:
        if _asking() is None or args or observation.is_observed(request):
            return await asend(self, request, *args, **options)
        return await observation.send_observed_async(
            functools.partial(asend, self), request, options, connections=_is_http1(self, request)
        )

    module.Client.send, module.AsyncClient.send = send_seen, asend_seen


def _is_http1(client: Any, request: Any) -> bool:
    """Whether the request has a connection for itself, made by the library: no HTTP/2, no transport of the user's."""
    try:
        transport = client._transport_for_url(request.url)
        ours = type(transport).__module__.split(".")[0] == type(request).__module__.split(".")[0]
        return ours and transport._pool._http2 is False
    except Exception:  # another release, which keeps it elsewhere
        return False


# urllib3


def _prepare_urllib3(module: Any) -> None:
    connection = module.connection.HTTPConnection
    getresponse = connection.getresponse

    @functools.wraps(getresponse)
    def getresponse_seen(self: Any, *args: Any, **kwargs: Any) -> Any:
        upstream = _asking()
        if upstream is None:
            return getresponse(self, *args, **kwargs)
        upstream.connect(self.sock)
        upstream.sends()
        response = getresponse(self, *args, **kwargs)
        if hasattr(response, "stream"):
            _watch_urllib3(response, upstream, self.sock)
        return response

    connection.getresponse = getresponse_seen


def _watch_urllib3(response: Any, upstream: Upstream, sock: Any) -> None:
    headers = response.headers
    path = urlsplit(getattr(response, "_request_url", None) or "").path
    stream = response.stream
    upstream.opened(response, None, None, response.close)
    upstream.connect(sock)

    def stream_seen(amt: int | None = 2**16, decode_content: bool | None = None) -> Iterator[bytes]:
        decodes = response.decode_content if decode_content is None else decode_content
        encoding = "" if decodes else headers.get("content-encoding", "")
        seen = _Seen(watch_of(path, headers.get("content-type", ""), encoding), encoding)
        upstream.see(seen.watch, seen.error_body if response.status < 400 else None)
        for part in stream(amt, decode_content):
            seen.feed(part)
            yield part
        upstream.disconnect()  # it went back to the pool
        seen.end()

    response.stream = stream_seen


# aiohttp


def _prepare_aiohttp(module: Any) -> None:
    session = module.ClientSession
    request = session._request

    @functools.wraps(request)
    async def request_seen(self: Any, *args: Any, **kwargs: Any) -> Any:
        upstream = _asking()
        if upstream is not None:
            upstream.sends()
        response = await request(self, *args, **kwargs)
        if upstream is not None:
            _watch_aiohttp(response, upstream)
        return response

    session._request = request_seen


def _watch_aiohttp(response: Any, upstream: Upstream) -> None:
    seen = _Seen(watch_of(response.url.path, response.headers.get("content-type", "")))  # aiohttp decompresses
    upstream.opened(response, seen.watch, seen.error_body if response.status < 400 else None, response.close)
    response.content = _SeenReader(response.content, seen)


class _SeenReader:
    """An aiohttp StreamReader, whose bytes are seen by whoever watches."""

    def __init__(self, reader: Any, seen: _Seen) -> None:
        self._reader = reader
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._reader, name)
        return self._seen_by(value) if name in _READS else value

    def _seen_by(self, read: Callable[..., Any]) -> Callable[..., Any]:
        async def read_seen(*args: Any, **kwargs: Any) -> Any:
            part = await read(*args, **kwargs)
            self._note(part)
            return part

        return read_seen

    def _note(self, part: Any) -> None:
        data = part[0] if isinstance(part, tuple) else part  # `readchunk` says, too, whether a chunk ends there
        if data:
            self._seen.feed(data)
        elif self._reader.at_eof():
            self._seen.end()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._each(self._reader.readline):
            yield part

    def iter_any(self) -> AsyncIterator[bytes]:
        return self._each(self._reader.readany)

    def iter_chunked(self, n: int) -> AsyncIterator[bytes]:
        return self._each(lambda: self._reader.read(n))

    async def iter_chunks(self) -> AsyncIterator[tuple[bytes, bool]]:
        while (part := await self._reader.readchunk()) != (b"", False):
            self._note(part)
            yield part
        self._note(b"")

    async def _each(self, read: Callable[[], Any]) -> AsyncIterator[bytes]:
        while part := await read():
            self._note(part)
            yield part
        self._note(b"")


_READS = ("read", "readany", "readline", "readuntil", "readchunk", "readexactly")


class _Seen:
    """What looks at one body."""

    def __init__(self, watch: Watch | None, encoding: str = "") -> None:
        self.watch = watch
        self.error_body = ErrorBody(encoding)

    def feed(self, part: bytes) -> None:
        self.error_body.feed(part)
        if self.watch is not None:
            self.watch.feed(part)

    def end(self) -> None:
        if self.watch is not None:
            self.watch.end()


_LIBRARIES: dict[str, Callable[[Any], None]] = {
    "httpx": _prepare_httpx,
    "httpx2": _prepare_httpx,
    "urllib3": _prepare_urllib3,
    "aiohttp": _prepare_aiohttp,
}
