"""Sends a request on behalf of an `Upstream`, and looks at the response as it passes: every piece goes on as it came.

Both our own HTTP clients (`http.py`) and the SDKs' (`sdk_clients.py`) send through here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import anyio
import httpx

from .connection import Upstream
from .error_body import ErrorBody
from .kept_stream import KeptStream
from .model_owner import OwnerInquiry, can_be_asked
from .sockets import short_reads, watch_connections, watch_connections_async
from .terminator import TerminatorWatch, promises

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
        _Body(response, upstream, drains=connections)
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
        _AsyncBody(response, upstream)
    elif upstream is not None:
        upstream.answered(response)
    return response


class _Body(httpx.SyncByteStream):
    """Stands between a response and its body.

    `drains`: whether the end of the body may be read behind the terminator, so that the connection can be used again.
    """

    def __init__(self, response: httpx.Response, upstream: Upstream | None, *, drains: bool) -> None:
        assert isinstance(response.stream, httpx.SyncByteStream)
        self._stream = response.stream
        self._watch = _watch(response)
        kept = _kept(response, upstream, self._watch)
        self._parts = iter(self._stream) if kept is None else kept.recorded(iter(self._stream))
        self._connection = response.extensions.get("network_stream") if drains else None
        self._error_body = ErrorBody(response.headers.get("content-encoding", ""))
        self._upstream = upstream
        response.stream = self
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
            if self._watch.terminated:
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
        if self._connection is not None and self._watch is not None and self._watch.terminated:
            with contextlib.suppress(Exception), short_reads(self._connection, _LAST_SECONDS):
                for _ in islice(self._parts, _LAST_PARTS):
                    pass
        self._stream.close()


class _AsyncBody(httpx.AsyncByteStream):
    """Stands between a response and its body."""

    def __init__(self, response: httpx.Response, upstream: Upstream | None) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._stream = response.stream
        self._watch = _watch(response)
        kept = _kept(response, upstream, self._watch)
        self._parts = aiter(self._stream) if kept is None else kept.recorded_async(aiter(self._stream))
        self._error_body = ErrorBody(response.headers.get("content-encoding", ""))
        response.stream = self
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
            if self._watch.terminated:
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
        if self._watch is not None and self._watch.terminated:
            with contextlib.suppress(Exception), anyio.move_on_after(_LAST_SECONDS):
                for _ in range(_LAST_PARTS):
                    await anext(self._parts)
        await self._stream.aclose()


def _watch(response: httpx.Response) -> TerminatorWatch | None:
    """The watch over this body; None where it is no event stream."""
    if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
        return None
    encoding = response.headers.get("content-encoding", "")
    return TerminatorWatch(promised=promises(response.url.path), encoding=encoding)


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


def _kept(response: httpx.Response, upstream: Upstream | None, watch: TerminatorWatch | None) -> KeptStream | None:
    """The kept stream whose body this is; None where it is none."""
    kept = None if upstream is None else upstream.kept
    if kept is None or not kept.answered(response):
        return None
    kept.watch = watch
    return kept
