"""For Flask and whatever else speaks WSGI: `return sse_response(lambda: engine.query(question))`.

The answer is read on an event loop in a thread of this process, so that the worker's own thread can send heartbeats and
notice that its reader has gone. A worker of gunicorn's class `sync` is killed with everything it streams when its
`--timeout` is over, 30 s as it comes: give it `--worker-class gthread`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

from ..errors import ConfigurationError
from .event_stream import Feed, check_heartbeat, texts, written
from .generations import Generation, Generations
from .resumption import EventStreamSetup
from .source import SourceReader
from .sse import HEADERS, TEXT_HEADERS
from .types import Source

try:
    from flask import Response, request
except ImportError as error:
    raise ImportError('Serving with Flask needs Flask, which is not installed: pip install "flask"') from error

__all__ = ["on_loop", "sse_response", "text_response"]

T = TypeVar("T")


def sse_response(
    source: Source | Generation,
    *,
    heartbeat: float = 15.0,
    retry: int | None = None,
    resumable: bool | Generations = False,
    owner: str | None = None,
    payload: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Server-sent events, as `serve.fastapi.SSEResponse` makes them, with the same arguments. Call it in a request.

    A function as `source` is called when the request is over for Flask: take what it needs from `request` before. A
    `Generations` belongs to the loop that answers are read on: call what it has with `on_loop`, `aclose()` at the exit.
    """
    check_heartbeat(heartbeat)
    opening = EventStreamSetup(source, resumable, owner, payload)
    if request.method == "HEAD":
        on_loop(opening.discard())
        return _head(HEADERS, headers)
    feed = on_loop(opening.open(request.headers.get("Last-Event-ID", ""), _the_request()))
    if isinstance(feed, int):
        return Response(status=feed, headers={"Cache-Control": "no-store"})
    return _streamed(written(feed, heartbeat, retry), feed, HEADERS, headers)


def text_response(
    source: Source, *, note: str = "\n\n[The answer was interrupted.]", headers: Mapping[str, str] | None = None
) -> Response:
    """The text and nothing else, as `serve.fastapi.TextResponse` gives it, with the same arguments."""
    if request.method == "HEAD":
        on_loop(SourceReader(source).leave())
        return _head(TEXT_HEADERS, headers)
    answer = SourceReader(source)
    return _streamed(texts(answer, note), answer, TEXT_HEADERS, headers)


def _head(headers: Mapping[str, str], more: Mapping[str, str] | None) -> Response:
    return Response(headers={**headers, **(more or {})})


def _streamed(
    body: AsyncGenerator[bytes, None],
    feed: Feed | SourceReader,
    headers: Mapping[str, str],
    more: Mapping[str, str] | None,
) -> Response:
    response = Response(_Pulled(body, feed), headers=dict(headers), direct_passthrough=True)
    response.headers.update(more or {})
    return response


def _the_request() -> Any:
    """Itself, for whoever looks at it on the loop: Flask's `request` is another one in each thread."""
    return request._get_current_object()  # type: ignore[attr-defined]


class _Pulled(Iterator[bytes]):
    """What a WSGI server iterates, and closes when its reader has gone (PEP 3333).

    No generator: one that nobody began to iterate would not notice that it is closed.
    """

    def __init__(self, body: AsyncGenerator[bytes, None], feed: Feed | SourceReader) -> None:
        self._body = body
        self._feed = feed

    def __next__(self) -> bytes:
        try:
            return on_loop(anext(self._body))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        on_loop(self._leave())

    async def _leave(self) -> None:
        await self._feed.leave()
        await self._body.aclose()


_loops: dict[int, asyncio.AbstractEventLoop] = {}
_lock = threading.Lock()


def on_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it on the loop of this process, made at the first call: servers fork after importing the app.

    Raises ConfigurationError on that loop itself, which cannot wait for itself.
    """
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="resilient-answers", daemon=True).start()
    with contextlib.suppress(RuntimeError):
        if asyncio.get_running_loop() is loop:
            coroutine.close()
            raise ConfigurationError(
                "This runs on the loop of the answers already. Await it: await generations.stop(id)."
            )
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
