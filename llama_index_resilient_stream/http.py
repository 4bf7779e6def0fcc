"""HTTP clients for OpenAI and its kin. Needs the extra `openai`.

    llm = ResilientLLM(OpenAI("gpt-4o-mini", http_client=http_client(), async_http_client=async_http_client()))

They pool connections and keep them alive, with timeouts that suit streams. Three things more hold for them, and also
for the HTTP client that the SDK makes where LlamaIndex's OpenAI or Anthropic class is given none (see
`transport/sdk_clients.py`):

1. A stream's connection is used again. The OpenAI SDK from 2 on stops reading at `[DONE]`, a few bytes before the end
   of the body, and so throws it away with every answer.
2. The stream's own terminator and its last finish reason are seen (`transport/terminator.py`), also where LlamaIndex
   drops the chunk. For a class that never sends finish reasons this tells an end from a cut.
3. The socket behind a synchronous request is known as soon as it is sent, so that a stall before the first event can
   be broken from outside and no thread stays behind. Not with HTTP/2, whose streams share a socket, and not with a
   transport of your own.

One client serves a whole process. Share it between LLMs, and close it when you are done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

try:
    import httpx
except ModuleNotFoundError as error:
    raise ImportError(
        "The HTTP clients of llama-index-resilient-stream need httpx. Install it with:\n\n"
        '    pip install "llama-index-resilient-stream[openai]"'
    ) from error

from .transport.observation import send_observed, send_observed_async

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
_BESIDE_READS = ("connect", "write", "pool")


def http_client(**overrides: Any) -> httpx.Client:
    """Return a client for `OpenAI(http_client=...)`.

    Args:
        **overrides: everything that `httpx.Client` takes. What is given wins; `headers` are added to ours.

    Returns:
        An `httpx.Client` to share between LLMs, and to close at the end of the process.

    Example:
        OpenAI("gpt-4o-mini", http_client=http_client(proxy="http://proxy:3128"))
    """
    return _Client(**_settings(overrides))


def async_http_client(**overrides: Any) -> httpx.AsyncClient:
    """Return a client for `OpenAI(async_http_client=...)`. It belongs to the event loop that uses it first.

    Args:
        **overrides: everything that `httpx.AsyncClient` takes. What is given wins; `headers` are added to ours.

    Returns:
        An `httpx.AsyncClient` to share between LLMs of one event loop, and to close at its end.

    Example:
        OpenAI("gpt-4o-mini", async_http_client=async_http_client(proxy="http://proxy:3128"))
    """
    return _AsyncClient(**_settings(overrides))


def _settings(overrides: Mapping[str, Any]) -> dict[str, Any]:
    headers = httpx.Headers({"Accept-Encoding": "gzip, deflate"})  # what the watch over the bytes reads, too
    headers.update(overrides.get("headers"))
    return {"limits": LIMITS, "timeout": TIMEOUT, "follow_redirects": True, **overrides, "headers": headers}


class _Client(httpx.Client):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._watches_connections = _makes_its_own_connections(settings) and not settings.get("http2")

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        _be_brief(request, self.timeout)
        return send_observed(super().send, request, options, connections=self._watches_connections)


class _AsyncClient(httpx.AsyncClient):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._watches_connections = _makes_its_own_connections(settings)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        _be_brief(request, self.timeout)
        return await send_observed_async(super().send, request, options, connections=self._watches_connections)


def _makes_its_own_connections(settings: Mapping[str, Any]) -> bool:
    """Whether no transport of the user's is involved, which is left alone."""
    return not settings.get("transport") and not settings.get("mounts")


def _be_brief(request: httpx.Request, own: httpx.Timeout) -> None:
    """Limit all phases but the read: whoever sets one timeout for everything means the model, not the network."""
    given = dict(request.extensions.get("timeout") or {})
    for phase in _BESIDE_READS:
        limits = [limit for limit in (given.get(phase), getattr(own, phase)) if limit is not None]
        if phase in given and limits:
            given[phase] = min(limits)
    if given:
        request.extensions = {**request.extensions, "timeout": given}
