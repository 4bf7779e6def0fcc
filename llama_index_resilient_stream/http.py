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
from .transport.sockets import Line, watch_pools, watch_pools_async
from .transport.terminator import TerminatorWatch, promises

__all__ = ["LIMITS", "TIMEOUT", "async_http_client", "http_client"]

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
        watch_pools(self, settings)

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        _be_brief(request, self.timeout)
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
            _Body(response, upstream)
        elif upstream is not None:
            upstream.disconnect()
        return response


class _AsyncClient(httpx.AsyncClient):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        watch_pools_async(self, settings)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        _be_brief(request, self.timeout)
        response = await super().send(request, **options)
        if not response.is_closed:
            _AsyncBody(response, Upstream.current())
        return response


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
    """Stands between a response and its body."""

    def __init__(self, response: httpx.Response, upstream: Upstream | None) -> None:
        assert isinstance(response.stream, httpx.SyncByteStream)
        self._stream = response.stream
        self._parts = iter(self._stream)
        self._line = response.extensions.get("network_stream")
        self._witness = _witness(response, upstream)
        self._upstream = upstream
        response.stream = self

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            self._witness.feed(part)
            yield part
        self._witness.end()

    def close(self) -> None:
        if self._upstream is not None:  # closing gives the connection back to the pool
            self._upstream.disconnect()
        if self._witness.terminated and isinstance(self._line, Line):
            with contextlib.suppress(Exception), self._line.hurried(_LAST_SECONDS):
                for _ in islice(self._parts, _LAST_PARTS):
                    pass
        self._stream.close()


class _AsyncBody(httpx.AsyncByteStream):
    """Stands between a response and its body."""

    def __init__(self, response: httpx.Response, upstream: Upstream | None) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._stream = response.stream
        self._parts = aiter(self._stream)
        self._witness = _witness(response, upstream)
        response.stream = self

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._parts:
            self._witness.feed(part)
            yield part
        self._witness.end()

    async def aclose(self) -> None:
        if self._witness.terminated:
            with contextlib.suppress(Exception), anyio.move_on_after(_LAST_SECONDS):
                for _ in range(_LAST_PARTS):
                    await anext(self._parts)
        await self._stream.aclose()


def _witness(response: httpx.Response, upstream: Upstream | None) -> TerminatorWatch:
    """Whoever looks at this body; also `upstream`'s, if it is a stream."""
    encoding = response.headers.get("content-encoding", "")
    if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
        return TerminatorWatch(promised=False, encoding="unread")
    witness = TerminatorWatch(promised=promises(response.url.path), encoding=encoding)
    if upstream is not None:
        upstream.witness = witness
    return witness
