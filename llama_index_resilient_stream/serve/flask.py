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
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, TypeVar

from ..errors import ConfigurationError
from .door import AnswerSetup, AnswerStream
from .generations import Generation, Generations
from .protocols import PlainText, Protocol
from .protocols.text import NOTE
from .resumption import Select
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
    protocol: str | Protocol = "events",
    heartbeat: float = 15.0,
    retry: int | None = None,
    resumable: bool | Generations = False,
    owner: str | None = None,
    payload: Any = None,
    select: Select | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Server-sent events, as `serve.fastapi.SSEResponse` makes them, with the same arguments. Call it in a request.

        @app.get("/ask")
        def ask():
            question = request.args["question"]
            return sse_response(lambda: engine.query(question))

    A function as `source` is called when the request is over for Flask: take what it needs from `request` before. A
    `Generations` belongs to the loop that answers are read on: call what it has with `on_loop`, `aclose()` at the exit.
    """
    setup = AnswerSetup(
        source,
        protocol,
        heartbeat=heartbeat,
        retry=retry,
        resumable=resumable,
        owner=owner,
        payload=payload,
        select=select,
        headers=headers,
    )
    return _response(setup)


def text_response(source: Source, *, note: str = NOTE, headers: Mapping[str, str] | None = None) -> Response:
    """The text and nothing else, as `serve.fastapi.TextResponse` gives it, with the same arguments."""
    return _response(AnswerSetup(source, PlainText(note), headers=headers))


def _response(setup: AnswerSetup) -> Response:
    if request.method == "HEAD":
        on_loop(setup.discard())
        return Response(headers=setup.headers)
    answer = on_loop(setup.open(request.headers.get("Last-Event-ID", ""), _the_request()))
    return Response(_Pulled(answer), answer.status, answer.headers, direct_passthrough=True)


def _the_request() -> Any:
    """Itself, for whoever looks at it on the loop: Flask's `request` is another one in each thread."""
    return request._get_current_object()  # type: ignore[attr-defined]


class _Pulled(Iterator[bytes]):
    """What a WSGI server iterates, and closes when its reader has gone (PEP 3333).

    No generator: one that nobody began to iterate would not notice that it is closed.
    """

    def __init__(self, answer: AnswerStream) -> None:
        self._answer = answer

    def __next__(self) -> bytes:
        try:
            return on_loop(_next(self._answer))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        on_loop(self._answer.aclose())


async def _next(answer: AnswerStream) -> bytes:
    return await anext(answer)


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
