"""Sends a request on behalf of an `Upstream`, and looks at the response as it passes: every piece goes on as it came.

Our own HTTP clients (`http.py`), the SDKs' (`sdk_clients.py`) and others over httpx (`http_libraries.py`) send through
here. httpx2 is httpx under another name.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import anyio
import httpx

from .connection import Upstream, status_of
from .error_body import ErrorBody
from .kept_stream import KeptStream
from .model_owner import OwnerInquiry, can_be_asked
from .sockets import short_reads, watch_connections, watch_connections_async
from .watch import Watch, watch_of

_LAST_SECONDS = 0.05  # that the end of a body gets to follow its terminator, for the connection's sake
_LAST_PARTS = 8


def send_observed(
    send: Callable[..., httpx.Response], request: httpx.Request, options: Mapping[str, Any], *, connections: bool
) -> httpx.Response:
    """Send the request, and tell the `Upstream` on whose behalf it is sent of its connection and response.

    Args:
        send: an HTTP client's own method, called with the request and the options.
        request: gets an extension `trace` where connections are looked at.
        options: keyword arguments for `send`.
        connections: whether the connections may be looked at, kept alive, and read to the end of a body. Not where
            HTTP/2 streams share one.

    Raises:
        ReaderLeftError: nobody waits for the answer any more.
    """
    upstream = Upstream.current()
    sent = _outgoing(upstream, request, send, asynchronous=False)
    _mark(sent)
    if connections:
        watch_connections(sent)
    if upstream is None:
        response = send(sent, **options)
    else:
        upstream.check()
        upstream.sends()
        try:
            response = send(sent, **options)
        except Exception as error:
            if upstream.kept is not None:
                upstream.kept.failed(error)
            upstream.disconnect()
            upstream.check()  # the SDK would try again, for a reader who is gone
            raise
    if sent is not request:
        response.request = request  # which the SDK means, whatever was sent in its place
    if not response.is_closed:
        _between(_Body, response)(response, upstream, drains=connections)
        if _is_unread_error(upstream, response):
            with contextlib.suppress(Exception):
                response.read()
    elif upstream is not None:
        upstream.answered(response)
    return response


async def send_observed_async(
    send: Callable[..., Awaitable[httpx.Response]],
    request: httpx.Request,
    options: Mapping[str, Any],
    *,
    connections: bool,
) -> httpx.Response:
    """Do what `send_observed` does, asynchronously. A wait is cancelled without knowing its socket."""
    upstream = Upstream.current()
    sent = _outgoing(upstream, request, send, asynchronous=True)
    _mark(sent)
    if connections:
        watch_connections_async(sent)
    if upstream is not None:
        upstream.sends()
    try:
        response = await send(sent, **options)
    except Exception as error:
        if upstream is not None and upstream.kept is not None:
            upstream.kept.failed(error)
        raise
    if sent is not request:
        response.request = request
    if not response.is_closed:
        _between(_AsyncBody, response)(response, upstream)
        if _is_unread_error(upstream, response):
            with contextlib.suppress(Exception):
                await response.aread()
    elif upstream is not None:
        upstream.answered(response)
    return response


def _is_unread_error(upstream: Upstream | None, response: httpx.Response) -> bool:
    """Whether what the server says may stay unread: SDKs read the body of an error, many classes do not."""
    return upstream is not None and upstream.sees_libraries and status_of(response) >= 400


_OBSERVED = "resilient_stream_observed"


def is_observed(request: httpx.Request) -> bool:
    """Whether this request went through here already, on its way down to the client that sends it."""
    return _OBSERVED in request.extensions


def _mark(request: httpx.Request) -> None:
    request.extensions = {**request.extensions, _OBSERVED: True}


_classes: dict[tuple[type, type], Any] = {}


def _between(body: type, response: Any) -> Any:
    """The class of what stands between a response and its body, derived from what its library wants a body to be."""
    key = body, type(response.stream)
    if key not in _classes:
        name = "AsyncByteStream" if body is _AsyncBody else "SyncByteStream"
        base = next(cls for cls in key[1].__mro__ if cls.__name__ == name)
        _classes[key] = type(body.__name__, (body, base), {})
    return _classes[key]


class _Body:
    """Stands between a response and its body.

    `drains`: whether the end of the body may be read behind the terminator, so that the connection can be used again.
    """

    def __init__(self, response: httpx.Response, upstream: Upstream | None, *, drains: bool) -> None:
        stream: Any = response.stream
        self._stream = stream
        self._watch = _watch(response)
        kept = _kept(response, upstream, self._watch)
        parts: Iterator[bytes] = iter(self._stream)
        self._parts = parts if kept is None else kept.recorded(parts)
        self._connection = response.extensions.get("network_stream") if drains else None
        self._error_body = ErrorBody(response.headers.get("content-encoding", ""))
        self._upstream = upstream
        response.stream = self  # type: ignore[assignment]  # it is one, see _between
        if upstream is not None:
            upstream.opened(response, self._watch, self._error_body, response.close)

    def __iter__(self) -> Iterator[bytes]:
        if self._watch is None:
            for part in self._parts:
                self._error_body.feed(part)
                yield part
            return
        for part in self._parts:
            self._watch.feed(part)
            self._error_body.feed(part)
            yield part
            if self._watch.at_the_end:
                yield from self._last_parts()
                return
        self._watch.end()

    def _last_parts(self) -> Iterator[bytes]:
        """What follows the terminator, if it comes at once: openai 1 reads a body to its end, which may never come."""
        if self._connection is None:
            yield from self._parts
            return
        with contextlib.suppress(Exception), short_reads(self._connection, _LAST_SECONDS):
            yield from islice(self._parts, _LAST_PARTS)

    def close(self) -> None:
        if self._upstream is not None:  # closing gives the connection back to the pool
            self._upstream.disconnect()
        if self._connection is not None and self._watch is not None and self._watch.at_the_end:
            with contextlib.suppress(Exception), short_reads(self._connection, _LAST_SECONDS):
                for _ in islice(self._parts, _LAST_PARTS):
                    pass
        self._stream.close()


class _AsyncBody:
    """Stands between a response and its body."""

    def __init__(self, response: httpx.Response, upstream: Upstream | None) -> None:
        stream: Any = response.stream
        self._stream = stream
        self._watch = _watch(response)
        kept = _kept(response, upstream, self._watch)
        parts: AsyncIterator[bytes] = aiter(self._stream)
        self._parts = parts if kept is None else kept.recorded_async(parts)
        self._error_body = ErrorBody(response.headers.get("content-encoding", ""))
        response.stream = self  # type: ignore[assignment]  # it is one, see _between
        if upstream is not None:
            upstream.opened(response, self._watch, self._error_body, response.aclose)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._watch is None:
            async for part in self._parts:
                self._error_body.feed(part)
                yield part
            return
        async for part in self._parts:
            self._watch.feed(part)
            self._error_body.feed(part)
            yield part
            if self._watch.at_the_end:
                break
        else:
            self._watch.end()
            return
        for _ in range(_LAST_PARTS):  # what follows the terminator, if it comes at once
            last = None
            with contextlib.suppress(Exception), anyio.move_on_after(_LAST_SECONDS):
                last = await anext(self._parts, None)
            if last is None:
                return
            yield last

    async def aclose(self) -> None:
        if self._watch is not None and self._watch.at_the_end:
            with contextlib.suppress(Exception), anyio.move_on_after(_LAST_SECONDS):
                for _ in range(_LAST_PARTS):
                    await anext(self._parts)
        await self._stream.aclose()


def _watch(response: httpx.Response) -> Watch | None:
    """The watch over this body; None where it is no event stream."""
    headers = response.headers
    return watch_of(response.url.path, headers.get("content-type", ""), headers.get("content-encoding", ""))


def _outgoing(
    upstream: Upstream | None, request: httpx.Request, send: Callable[..., Any], *, asynchronous: bool
) -> httpx.Request:
    """What to send in place of this request: itself, or one for the rest of a stream that its server keeps."""
    if upstream is None:
        return request
    if can_be_asked(request):
        upstream.inquiry = OwnerInquiry(request, send, asynchronous=asynchronous)
    if upstream.kept is None:
        return request
    sent: httpx.Request = upstream.kept.outgoing(request, send, asynchronous=asynchronous)
    return sent


def _kept(response: httpx.Response, upstream: Upstream | None, watch: Watch | None) -> KeptStream | None:
    """The kept stream whose body this is; None where it is none."""
    kept = None if upstream is None else upstream.kept
    if kept is None or not kept.answered(response):
        return None
    kept.watch = watch
    return kept
