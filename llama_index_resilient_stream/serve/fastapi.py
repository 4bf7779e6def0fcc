"""For FastAPI and Starlette: `return SSEResponse(lambda: engine.query(question))`.

Divergences from Starlette's StreamingResponse, on which these stand:

1. They listen for the reader's leaving themselves, also where the server says ASGI 2.4 or newer, of which Starlette
   thinks that writing will fail: gunicorn's own worker says so, and lets a stream go on for seconds.
2. What they read is stopped and closed when the reader leaves: within a token, not on the event loop, and never for
   longer than a few seconds. Starlette leaves a synchronous generator to the garbage collector.
3. An exception never ends the stream without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

import anyio

from ..report import StreamStatus
from ..streaming.loops import require_asyncio
from ..streaming.scope import Scope as AnswerScope
from .event_stream import Feed, check_heartbeat, texts, written
from .generations import Generation, Generations
from .parts import EndPart, EndReason
from .resumption import EventStreamSetup
from .source import SourceReader
from .sse import HEADERS, TEXT_HEADERS, EventId, event_of
from .subscriber import StoredFeed
from .types import Source

try:
    from starlette.background import BackgroundTask
    from starlette.datastructures import Headers
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.types import Message, Receive, Scope, Send
except ImportError as error:
    raise ImportError(
        'Serving needs Starlette, which is not installed: pip install "llama-index-resilient-stream[serve]"'
    ) from error

__all__ = ["SSEResponse", "TextResponse"]

_CLOSE = 10.0  # seconds that leaving may take, the source's own limits included
_LAST_WORD = 1.0  # seconds to tell a reader that the server shuts down


class _GoneError(Exception):
    """The reader has left."""


class _Streamed(StreamingResponse):
    """Streams to one reader, and closes what it streams when that reader leaves."""

    def __init__(
        self, headers: Mapping[str, str], more_headers: Mapping[str, str] | None, status_code: int, background: Any
    ) -> None:
        self._reader = AnswerScope()
        super().__init__(_nothing(), status_code, headers, background=background)
        self.headers.update(more_headers or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        require_asyncio(type(self).__name__)
        if (refusal := await self._open(scope)) is not None:
            await refusal(scope, receive, send)
            return
        async with anyio.create_task_group() as group:
            group.start_soon(self._until_gone, receive, group.cancel_scope)
            try:
                await self.stream_response(partial(self._send, send))
            except _GoneError:
                self._reader.cancel()
            except (Exception, asyncio.CancelledError):
                if not self._reader.cancelled:
                    await self._say_last_word(send)
                raise
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE):
                    await self._close()
            group.cancel_scope.cancel()
        if self.background is not None:
            await self.background()

    async def _send(self, send: Send, message: Message) -> None:
        try:
            await send(message)
        except OSError as error:  # how a server of ASGI 2.4 says that the reader is gone
            raise _GoneError from error

    async def _until_gone(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._reader.cancel()
        scope.cancel()

    async def _say_last_word(self, send: Send) -> None:
        """The server ends the request: it shuts down and its patience is over, or there was an error."""
        if word := self._last_word():
            with contextlib.suppress(Exception), anyio.CancelScope(shield=True), anyio.move_on_after(_LAST_WORD):
                await send({"type": "http.response.body", "body": word, "more_body": False})

    async def _open(self, scope: Scope) -> Response | None:
        """Set `body_iterator`; or what is answered instead."""
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError

    def _last_word(self) -> bytes:
        raise NotImplementedError


class SSEResponse(_Streamed):
    """Server-sent events; `sse.py` shows what they look like.

        @app.get("/ask")
        async def ask(question: str):
            return SSEResponse(lambda: engine.query(question))

    Args:
        source: a response of LlamaIndex or of `resilient(engine)`, synchronous or not; an awaitable of one; or a
            function that returns either. With a function the heartbeat covers the retrieval as well, and a synchronous
            engine is asked in a thread, not on the event loop.
        heartbeat: seconds of silence after which a comment is sent, from the beginning on. At most half of the
            shortest idle timeout on the way: nginx and AWS's ALB have 60 s.
        retry: milliseconds that an EventSource waits before it comes back.
        headers: more headers, or other values for those that a stream needs.

        resumable: with True, the answer outlives its connection: an EventSource that was cut off comes back by itself
            and misses nothing. With a `Generations` of your own you say where answers are kept, for how long, and who
            may read them. `source` is a function then, and is called once, however often its reader comes back.
        owner: whose answer it is; `Generations(may_read=...)` gets to see it.
        payload: JSON-able; what `Generations(take_over=...)` needs to go on with it in another worker.

    `source` may also be what `Generations.get` returns. A request with a `Last-Event-ID` is an EventSource that was cut
    off. A stream that is not resumable tells it that the answer is lost, instead of generating it once more.
    """

    def __init__(
        self,
        source: Source | Generation,
        *,
        heartbeat: float = 15.0,
        retry: int | None = None,
        resumable: bool | Generations = False,
        owner: str | None = None,
        payload: Any = None,
        headers: Mapping[str, str] | None = None,
        status_code: int = 200,
        background: BackgroundTask | None = None,
    ) -> None:
        check_heartbeat(heartbeat)
        self._opening = EventStreamSetup(source, resumable, owner, payload)
        self._heartbeat = heartbeat
        self._retry = retry
        self._feed: Feed | None = None
        super().__init__(HEADERS, headers, status_code, background)

    async def _open(self, scope: Scope) -> Response | None:
        if scope["method"] == "HEAD":
            await self._opening.discard()
            return Response(status_code=self.status_code, headers=dict(self.headers))
        feed = await self._opening.open(Headers(scope=scope).get("last-event-id", ""), Request(scope))
        if isinstance(feed, int):
            return Response(status_code=feed, headers={"Cache-Control": "no-store"})
        self._feed = feed
        self.body_iterator = written(feed, self._heartbeat, self._retry)
        return None

    async def _close(self) -> None:
        if self._feed is not None:
            await self._feed.leave()

    def _last_word(self) -> bytes:
        if isinstance(self._feed, StoredFeed) and self._feed.elsewhere:
            return b""  # cut off without a word, its reader comes back, and finds the rest in another worker
        return event_of(
            EndPart(StreamStatus.INTERRUPTED, EndReason.SERVER, retryable=True), EventId(0, over=True)
        ).encode()


class TextResponse(_Streamed):
    """The text and nothing else, for readers who do not know server-sent events: `curl -N`, `fetch`, a terminal.

    Plain text has no place for a heartbeat, nor for a status. An answer that is not whole ends with `note`, and without
    the end that HTTP has: the reader's client raises an error, unless a proxy speaks HTTP/1.0 with the server.

    Args:
        source: as for `SSEResponse`.
        note: what an interrupted answer ends with.
        headers: more headers, or other values for those that a stream needs.
    """

    def __init__(
        self,
        source: Source,
        *,
        note: str = "\n\n[The answer was interrupted.]",
        headers: Mapping[str, str] | None = None,
        status_code: int = 200,
        background: BackgroundTask | None = None,
    ) -> None:
        self._answer = SourceReader(source)
        self._note = note
        super().__init__(TEXT_HEADERS, headers, status_code, background)

    async def _open(self, scope: Scope) -> Response | None:
        if scope["method"] == "HEAD":
            await self._answer.leave()
            return Response(status_code=self.status_code, headers=dict(self.headers))
        self.body_iterator = texts(self._answer, self._note)
        return None

    async def _close(self) -> None:
        await self._answer.leave()

    def _last_word(self) -> bytes:
        return b""


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield
