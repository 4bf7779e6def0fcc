"""Views of HTTP clients: each is the client it looks at, except that what it sends is observed."""

from __future__ import annotations

from typing import Any

import httpx

from .observation import send_observed, send_observed_async


class _View(httpx.Client):
    """Sends through another client. It has no state of its own: all that it lacks is read from that client."""

    def __init__(self, client: httpx.Client) -> None:  # httpx's own would make transports and an SSL context
        self._seen_client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_seen_client"], name)

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        return send_observed(self._seen_client.send, request, options, connections=True)


class _AsyncView(httpx.AsyncClient):
    """Sends through another client. It has no state of its own: all that it lacks is read from that client."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._seen_client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_seen_client"], name)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        return await send_observed_async(self._seen_client.send, request, options, connections=True)


def view_of(client: Any) -> httpx.Client | httpx.AsyncClient:
    """Return a view of an HTTP client that an SDK made, which has no HTTP/2.

    Raises:
        TypeError: it is no client of httpx.
    """
    if isinstance(client, httpx.Client):
        return _View(client)
    if isinstance(client, httpx.AsyncClient):
        return _AsyncView(client)
    raise TypeError(f"{type(client).__name__} is no client of httpx.")
