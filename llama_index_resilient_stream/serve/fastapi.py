"""For FastAPI and Starlette: `return SSEResponse(lambda: engine.query(question))`.

Divergences from Starlette's StreamingResponse, on which these stand:

1. They listen for the reader's leaving themselves, also where the server says ASGI 2.4 or newer, of which Starlette
   thinks that writing will fail: gunicorn's own worker says so, and lets a stream go on for seconds.
2. What they read is stopped and closed when the reader leaves: within a token, not on the event loop, and never for
   longer than a few seconds. Starlette leaves a synchronous generator to the garbage collector.
3. An exception never ends the stream without a word.
4. What fails at once, and what this reader may not have, is answered by an HTTP status.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

import anyio

from ..streaming.loops import require_asyncio
from ..streaming.scope import Scope as AnswerScope
from .door import AnswerSetup, AnswerStream
from .generations import Generation, Generations
from .protocols import PlainText, Protocol
from .protocols.text import NOTE
from .resumption import Select
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


class _Inbox:
    """What comes from the reader, for two who want it: who waits for its leaving, and who reads the body."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: asyncio.Queue[Message] = asyncio.Queue()

    async def until_gone(self) -> None:
        """Returns when the reader has left."""
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await self._receive()
            self._messages.put_nowait(message)

    async def receive(self) -> Message:
        """The next message, for a request that is read."""
        return await self._messages.get()


class _Streamed(StreamingResponse):
    """Streams to one reader, and closes what it streams when that reader leaves."""

    def __init__(self, setup: AnswerSetup, status_code: int, background: BackgroundTask | None) -> None:
        self._setup = setup
        self._reader = AnswerScope()
        self._answer: AnswerStream | None = None
        headers = setup.headers
        super().__init__(_nothing(), status_code, {"Content-Type": headers["Content-Type"]}, background=background)
        self.headers.update(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        require_asyncio(type(self).__name__)
        if scope["method"] == "HEAD":
            await self._setup.discard()
            await Response(status_code=self.status_code, headers=dict(self.headers))(scope, receive, send)
            return
        inbox = _Inbox(receive)
        async with anyio.create_task_group() as group:
            group.start_soon(self._until_gone, inbox, group.cancel_scope)
            try:
                await self._stream(scope, inbox, send)
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

    async def _stream(self, scope: Scope, inbox: _Inbox, send: Send) -> None:
        request = Request(scope, inbox.receive)
        self._answer = answer = await self._setup.open(Headers(scope=scope).get("last-event-id", ""), request)
        if answer.status != 200:
            refusal = Response(b"".join([data async for data in answer]), answer.status, answer.headers)
            await refusal(scope, inbox.receive, partial(self._send, send))
            return
        self.headers.update(answer.headers)
        self.body_iterator = answer
        await self.stream_response(partial(self._send, send))

    async def _send(self, send: Send, message: Message) -> None:
        try:
            await send(message)
        except OSError as error:  # how a server of ASGI 2.4 says that the reader is gone
            raise _GoneError from error

    async def _until_gone(self, inbox: _Inbox, scope: anyio.CancelScope) -> None:
        await inbox.until_gone()
        self._reader.cancel()
        scope.cancel()

    async def _say_last_word(self, send: Send) -> None:
        """The server ends the request: it shuts down and its patience is over, or there was an error."""
        if self._answer is not None and (word := self._answer.last_word()):
            with contextlib.suppress(Exception), anyio.CancelScope(shield=True), anyio.move_on_after(_LAST_WORD):
                await send({"type": "http.response.body", "body": word, "more_body": False})

    async def _close(self) -> None:
        if self._answer is not None:
            await self._answer.aclose()
        else:
            await self._setup.discard()


class SSEResponse(_Streamed):
    """Server-sent events; `protocols/events.py` shows what they look like.

        @app.get("/ask", response_class=SSEResponse)
        async def ask(question: str):
            return SSEResponse(lambda: engine.query(question))

    Args:
        source: a response of LlamaIndex or of `resilient(engine)`, a run of an agent or a workflow, synchronous or not;
            an awaitable of one; or a function that returns either. With a function the heartbeat covers the retrieval
            as well, a synchronous engine is asked in a thread, not on the event loop, and the recoveries of an agent's
            LLM are told. A generator may yield text, `EventPart(name, data)`, and whole answers.
        protocol: "events"; "ai-sdk" for `useChat`; "openai" for clients of OpenAI's API; "jsonl"; "text"; or an object
            of `serve.protocols`.
        heartbeat: seconds of silence after which a comment is sent, from the beginning on. At most half of the
            shortest idle timeout on the way: nginx and AWS's ALB have 60 s.
        retry: milliseconds that an EventSource waits before it comes back.
        select: is called with each part but the end, and returns what is sent in its place, or None: what of the
            sources, the thoughts and the tools the reader gets is yours to say.
        headers: more headers, or other values for those that a stream needs.

        resumable: with True, the answer outlives its connection: an EventSource that was cut off comes back by itself
            and misses nothing. With a `Generations` of your own you say where answers are kept, for how long, and who
            may read them. `source` is a function then, and is called once, however often its reader comes back.
        owner: whose answer it is; `Generations(may_read=...)` gets to see it.
        payload: JSON-able; what `Generations(take_over=...)` needs to go on with it in another worker.

    `source` may also be what `Generations.get` returns. A request with a `Last-Event-ID` is an EventSource that was cut
    off. A stream that is not resumable tells it that the answer is lost, instead of generating it once more.
    """

    media_type = "text/event-stream"  # what FastAPI's schema names

    def __init__(
        self,
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
        status_code: int = 200,
        background: BackgroundTask | None = None,
    ) -> None:
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
        super().__init__(setup, status_code, background)


class TextResponse(_Streamed):
    """The text and nothing else, for readers who do not know server-sent events: `curl -N`, `fetch`, a terminal.

    Plain text has no place for a heartbeat, nor for a status. An answer that is not whole ends with `note`, and without
    the end that HTTP has: the reader's client raises an error, unless a proxy speaks HTTP/1.0 with the server, or
    middleware of the kind `@app.middleware("http")` is around it, which ends it like any other. Send events there.

    Args:
        source: as for `SSEResponse`.
        note: what an interrupted answer ends with.
        headers: more headers, or other values for those that a stream needs.
    """

    media_type = "text/plain"

    def __init__(
        self,
        source: Source,
        *,
        note: str = NOTE,
        headers: Mapping[str, str] | None = None,
        status_code: int = 200,
        background: BackgroundTask | None = None,
    ) -> None:
        super().__init__(AnswerSetup(source, PlainText(note), headers=headers), status_code, background)


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield
