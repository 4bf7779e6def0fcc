"""The door for every framework: an answer as an asynchronous iterator of bytes, with a status and headers.

    answer = await open_answer(lambda: query_engine.query(question))
    # answer.status, answer.headers
    async for data in answer:
        ...
    await answer.aclose()

`serve.fastapi` and `serve.flask` are thin layers over it; docs/serving.md has a recipe for each of several frameworks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from ..errors import ConfigurationError, StreamInterruptedError
from ..report import StreamStatus
from ..streaming.loops import require_asyncio
from ..streaming.scope import call_on
from .endings import http_error
from .feeds import Feed, Sent
from .generations import Generation, Generations
from .parts import EXPIRED, EndPart, EndReason, Part
from .protocols import Encoding, Protocol, protocol_of
from .resumption import GONE, NOT_FOUND, EventStreamSetup, Select
from .sse import EventId
from .types import Source

logger = logging.getLogger("llama_index_resilient_stream")

_FIRST = 0.2  # seconds that the head waits for the first part: what fails at once can still say so by its status
_DECISION = 3.0  # seconds that it waits for who may read
_LEAVE = 10.0  # seconds that leaving may take, the source's own limits included
_COLLECT = 15.0  # seconds between two looks at an answer that is sent at its end

_leaving: set[asyncio.Task[None]] = set()  # the loop holds its tasks weakly


class AnswerStream(AsyncIterator[bytes]):
    """An answer on its way to one reader. `open_answer` makes one.

    It is closed when it has been read to its end, when the task that reads it is cancelled, when `aclose()` is called,
    and when it is dropped: an answer that is not resumable stops its LLM then.
    """

    status: int
    """The HTTP status."""
    headers: dict[str, str]
    """The HTTP headers, `Content-Type` among them."""

    def __init__(
        self, feed: Feed | None, encoding: Encoding, heartbeat: float, retry: int | None, select: Select | None
    ) -> None:
        self._feed, self._encoding, self._heartbeat, self._select = feed, encoding, heartbeat, select
        self._ready: list[bytes] = []
        self._ended = False
        self._leaving: asyncio.Task[None] | None = None
        self._break: StreamInterruptedError | None = None
        self._loop = asyncio.get_running_loop()
        self.status, self.headers = 200, dict(encoding.headers)
        self._begin = encoding.begin(retry)

    async def open(self) -> AnswerStream:
        """Decide the status and the headers. Waits a moment for what fails at once, and until it is known who may read.

        Raises:
            Exception: what went wrong before anything could be sent. It is closed then.
        """
        try:
            await self._open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def _open(self) -> None:
        if self._feed is None:
            return self._refuse(GONE)
        try:
            sent = await self._first(self._feed)
        except Exception as error:
            if (end := http_error(error)) is None:
                raise
            return self._refuse(end.code, self._encoding.refusal(end))
        if sent and isinstance(first := sent[0][1], EndPart) and (status := self._status_of(first)):
            return self._refuse(status, b"" if status == GONE else self._encoding.refusal(first))
        self._put(self._begin)
        if sent:
            self._encode(sent)
        if self._encoding.collects:
            self.status, self.headers = self._encoding.status, dict(self._encoding.headers)
        return None

    def _status_of(self, end: EndPart) -> int:
        """The status that says what this end says, where there is nothing else to send; 0 where it is to be sent."""
        if self._encoding.replays and end.status == EXPIRED:
            return GONE
        if self._feed is not None and self._feed.refused:
            return NOT_FOUND
        return end.code if not self._encoding.collects else 0

    async def _first(self, feed: Feed) -> list[Sent]:
        """What comes within a moment, and is needed to decide the status."""
        loop = asyncio.get_running_loop()
        began, patience = loop.time(), min(_FIRST, self._heartbeat)
        sent = list(await feed.take(patience))
        while not sent and not feed.decided and loop.time() - began < min(_DECISION, self._heartbeat):
            sent += await feed.take(patience)
        while self._encoding.collects and not feed.over:
            sent += await feed.take(_COLLECT)
        return sent

    def _refuse(self, status: int, body: bytes = b"") -> None:
        self.status, self._ended = status, True
        self.headers = {"Cache-Control": "no-store", **({"Content-Type": "application/json"} if body else {})}
        self._put(body)

    def _put(self, data: bytes) -> None:
        if data:
            self._ready.append(data)

    def _encode(self, sent: list[Sent]) -> None:
        self._put(b"".join(self._encoded(part, at) for at, part in sent))
        _, part = sent[-1]
        if not isinstance(part, EndPart):
            return
        self._ended = True
        if self._encoding.breaks_off and part.status == StreamStatus.INTERRUPTED:
            self._break = StreamInterruptedError(
                "The answer was interrupted, and so is its transfer.", reason=part.reason
            )

    def _encoded(self, part: Part, at: EventId) -> bytes:
        chosen = part if self._select is None or isinstance(part, EndPart) else self._select(part)
        return b"" if chosen is None else self._encoding.encode(chosen, at)

    def __aiter__(self) -> AnswerStream:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes; something comes at least once in a heartbeat, where the protocol has one.

        Raises:
            StopAsyncIteration: that was all.
            StreamInterruptedError: the answer is not whole, and this protocol says so by breaking off.
        """
        try:
            while not self._ready and not self._ended and self._leaving is None:
                await self._more()
        except BaseException:  # cancelled: a server that shuts down has a last word to say, and does not wait
            self._begin_to_leave()
            raise
        if self._ready:
            return self._ready.pop(0)
        await self.aclose()
        if self._break is not None:
            error, self._break = self._break, None
            raise error
        raise StopAsyncIteration

    async def _more(self) -> None:
        assert self._feed is not None, "without one it has ended"
        try:
            if sent := list(await self._feed.take(self._heartbeat)):
                self._encode(sent)
            else:
                self._put(self._encoding.heartbeat)
        except Exception as error:
            logger.error("an answer could not be sent on", exc_info=error)
            end = http_error(error) or EndPart(StreamStatus.INTERRUPTED, EndReason.ERROR)
            self._encode([(EventId(0, over=True), end)])

    def last_word(self) -> bytes:
        """What a server that shuts down can still tell its reader; empty where the reader is better cut off.

        One who is cut off comes back, and finds the rest in another worker.
        """
        if self._ended or self._feed is None or self._feed.elsewhere or self._encoding.breaks_off:
            return b""
        end = EndPart(StreamStatus.INTERRUPTED, EndReason.SERVER, retryable=True)
        return self._encoding.encode(end, EventId(0, over=True))

    async def aclose(self) -> None:
        """The reader has gone. Returns when nothing is left behind, soon, whatever the LLM does."""
        if (leaving := self._begin_to_leave()) is not None:
            await asyncio.wait([leaving], timeout=_LEAVE)

    def _begin_to_leave(self) -> asyncio.Task[None] | None:
        """In a task of its own, which goes on where whoever waits is cancelled."""
        if self._leaving is None and self._feed is not None:
            self._leaving = asyncio.ensure_future(self._feed.leave())
        return self._leaving

    async def __aenter__(self) -> AnswerStream:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # A framework that is cancelled while it sends drops what it sends.
        feed = self._feed
        if feed is not None and self._leaving is None and not self._loop.is_closed():
            call_on(self._loop, lambda: _leave_later(feed))


def _leave_later(feed: Feed) -> None:
    task = asyncio.ensure_future(feed.leave())
    _leaving.add(task)
    task.add_done_callback(_leaving.discard)


class AnswerSetup:
    """A source, and how it is to be served: to be opened for one request. See `open_answer`.

    Raises:
        ConfigurationError: for settings that mean nothing, and a source that cannot be served in this way.
    """

    def __init__(
        self,
        source: Source | Generation,
        protocol: str | Protocol = "events",
        *,
        heartbeat: float = 15.0,
        retry: int | None = None,
        resumable: bool | Generations = False,
        owner: str | None = None,
        payload: Any = None,
        select: Select | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not heartbeat > 0:
            raise ConfigurationError(f"heartbeat is {heartbeat!r}. It is in seconds, and more than 0: heartbeat=15.")
        if select is not None and not callable(select):
            raise ConfigurationError(f"select is {select!r}. Pass a function of a part: select=lambda part: part.")
        self._encoding = protocol_of(protocol).encoding()
        self._heartbeat, self._retry, self._select, self._headers = heartbeat, retry, select, headers or {}
        self._setup = EventStreamSetup(source, resumable, owner, payload, replays=self._encoding.replays)

    @property
    def headers(self) -> dict[str, str]:
        """Those of an answer that is given."""
        return {**self._encoding.headers, **self._headers}

    async def open(self, last_event_id: str, request: Any) -> AnswerStream:
        """Begin to serve it."""
        require_asyncio("Serving an answer")
        feed = await self._setup.open(last_event_id, request)
        answer = await AnswerStream(feed, self._encoding, self._heartbeat, self._retry, self._select).open()
        if answer.status == 200:
            answer.headers.update(self._headers)
        return answer

    async def discard(self) -> None:
        """Nobody shall have it."""
        await self._setup.discard()


async def open_answer(
    source: Source | Generation,
    *,
    protocol: str | Protocol = "events",
    last_event_id: str | None = "",
    request: Any = None,
    heartbeat: float = 15.0,
    retry: int | None = None,
    resumable: bool | Generations = False,
    owner: str | None = None,
    payload: Any = None,
    select: Select | None = None,
    headers: Mapping[str, str] | None = None,
) -> AnswerStream:
    """Begin to serve an answer, in any framework that runs on asyncio.

        answer = await open_answer(lambda: query_engine.query(question), protocol="ai-sdk")
        return StreamingHttpResponse(answer, status=answer.status, headers=answer.headers)

    Args:
        source: as for `serve.fastapi.SSEResponse`.
        protocol: "events", "ai-sdk", "openai", "text", "jsonl", or an object of `serve.protocols`.
        last_event_id: the request's header `Last-Event-ID`.
        request: the framework's request, for `Generations(may_read=...)`.
        heartbeat: seconds of silence after which something is sent, where the protocol has something to send.
        retry: milliseconds that an EventSource waits before it comes back.
        resumable: whether the answer outlives its connection, or where it is kept.
        owner: whose answer it is, where it is resumable.
        payload: what another worker needs to go on with it, where it is resumable.
        select: is called with each part but the end, and returns what is sent in its place, or None.
        headers: more headers, or other values for those that a stream needs.

    Returns:
        An asynchronous iterator of bytes, with `status` and `headers`.

    Raises:
        ConfigurationError: for what cannot be served in this way, with the line that fixes it.
        StoreUnreachableError: a resumable answer could not be begun.
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
    return await setup.open(last_event_id or "", request)
