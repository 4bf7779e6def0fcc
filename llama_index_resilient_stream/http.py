"""HTTP clients for OpenAI and its kin. Needs the extra `openai`.

    llm = ResilientLLM(OpenAI("gpt-4o-mini", http_client=http_client(), async_http_client=async_http_client()))

They pool connections and keep them alive; also that of a stream, which the OpenAI SDK from 2 on throws away with every
answer, because it stops reading at `[DONE]`, a few bytes before the end of the body. And they know two things of a
stream that no SDK tells:

1. Whether its own terminator came (`witness.py`). With it `completeness="auto"` tells a server that never sends
   finish reasons from a cut.
2. The socket behind a synchronous request as soon as it is sent, so that a stall before the first event can be broken
   from outside and no thread stays behind. Not with HTTP/2, whose streams share a socket, and not with a transport of
   your own.

One client serves a whole process. Share it between LLMs, and close it when you are done.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import islice
from typing import Any

try:
    import anyio
    import httpx
except ModuleNotFoundError as error:
    raise ImportError(
        "The HTTP clients of llama-index-resilient-stream need httpx. Install it with:\n\n"
        '    pip install "llama-index-resilient-stream[openai]"'
    ) from error

from .transport.connection import Upstream
from .transport.sockets import short_reads, watch_connections, watch_connections_async
from .transport.terminator import TerminatorWatch, promises

LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=45.0)
"""A stream holds its connection for as long as it lasts, so there may be many; these are the OpenAI SDK's own numbers.

An idle connection is dropped before the other side drops it unseen: AWS's load balancer does so after 60 s, nginx
after 75.
"""
TIMEOUT = httpx.Timeout(600.0, connect=10.0, write=30.0, pool=10.0)
"""Short where nothing but the network is waited for.

A read waits for the model, and how long that may take is RecoveryPolicy's to say (`first_token_timeout`,
`idle_timeout`): its watchdogs look at progress, where a read timeout is fed by any keep-alive comment. LlamaIndex gives
every request a timeout of its own, `OpenAI(timeout=60.0)`, meant for all four. Here it counts for reads; let it be
longer than the watchdogs where the model thinks for long.
"""
_LAST_SECONDS = 0.05  # that the end of a body gets to follow its terminator, for the connection's sake
_LAST_PARTS = 8
_BESIDE_READS = ("connect", "write", "pool")


def http_client(**overrides: Any) -> httpx.Client:
    """For `OpenAI(http_client=...)`. Takes everything that `httpx.Client` takes; what is given wins."""
    return _Client(**_settings(overrides))


def async_http_client(**overrides: Any) -> httpx.AsyncClient:
    """For `OpenAI(async_http_client=...)`. Takes everything that `httpx.AsyncClient` takes; what is given wins."""
    return _AsyncClient(**_settings(overrides))


def _settings(overrides: Mapping[str, Any]) -> dict[str, Any]:
    headers = httpx.Headers({"Accept-Encoding": "gzip, deflate"})  # what the witness reads, too
    headers.update(overrides.get("headers"))
    return {"limits": LIMITS, "timeout": TIMEOUT, "follow_redirects": True, **overrides, "headers": headers}


class _Client(httpx.Client):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._watches_connections = _makes_its_own_connections(settings) and not settings.get("http2")

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        _be_brief(request, self.timeout)
        if self._watches_connections:
            watch_connections(request)
        upstream = Upstream.current()
        if upstream is None:
            response = super().send(request, **options)
        else:
            upstream.check()
            try:
                response = super().send(request, **options)
            except Exception:
                upstream.disconnect()
                upstream.check()  # the SDK would try again, for a reader who is gone
                raise
        if not response.is_closed:
            _Body(response, upstream, drains=self._watches_connections)
        elif upstream is not None:
            upstream.disconnect()
        return response


class _AsyncClient(httpx.AsyncClient):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._watches_connections = _makes_its_own_connections(settings)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        _be_brief(request, self.timeout)
        if self._watches_connections:
            watch_connections_async(request)
        response = await super().send(request, **options)
        if not response.is_closed:
            _AsyncBody(response, Upstream.current())
        return response


def _makes_its_own_connections(settings: Mapping[str, Any]) -> bool:
    """Whether no transport of the user's is involved, which is left alone."""
    return not settings.get("transport") and not settings.get("mounts")


def _be_brief(request: httpx.Request, own: httpx.Timeout) -> None:
    """Whoever sets one timeout for everything means the model, not the network."""
    given = dict(request.extensions.get("timeout") or {})
    for phase in _BESIDE_READS:
        limits = [limit for limit in (given.get(phase), getattr(own, phase)) if limit is not None]
        if phase in given and limits:
            given[phase] = min(limits)
    if given:
        request.extensions = {**request.extensions, "timeout": given}


# Bodies: every piece goes on as it came


class _Body(httpx.SyncByteStream):
    """Stands between a response and its body.

    `drains`: whether the end of the body may be read behind the terminator, so that the connection can be used again.
    """

    def __init__(self, response: httpx.Response, upstream: Upstream | None, *, drains: bool) -> None:
        assert isinstance(response.stream, httpx.SyncByteStream)
        self._stream = response.stream
        self._parts = iter(self._stream)
        self._connection = response.extensions.get("network_stream") if drains else None
        self._watch = _watch(response)
        self._upstream = upstream
        response.stream = self
        if upstream is not None:
            upstream.opened(response, self._watch, response.close)

    def __iter__(self) -> Iterator[bytes]:
        if self._watch is None:
            yield from self._parts
            return
        for part in self._parts:
            self._watch.feed(part)
            yield part
        self._watch.end()

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
        self._parts = aiter(self._stream)
        self._watch = _watch(response)
        response.stream = self
        if upstream is not None:
            upstream.opened(response, self._watch, response.aclose)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._parts:
            if self._watch is not None:
                self._watch.feed(part)
            yield part
        if self._watch is not None:
            self._watch.end()

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
