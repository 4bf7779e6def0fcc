"""Endpoints that misbehave, each in one way that people really get wrong. For `doctor/test_endpoint.py`.

Pure ASGI and WSGI where the framework does not matter, FastAPI and Flask where it does. Twelve tokens make an answer.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from flask import Flask, request, stream_with_context
from flask import Response as FlaskResponse

TOKENS = 12
STEP = 0.06
SSE = "text/event-stream"
UNBUFFERED = {"X-Accel-Buffering": "no", "Cache-Control": "no-cache, no-transform"}
DONE = 'event: done\ndata: {"status": "complete"}\n\n'

RESUME_AT = ContextVar("RESUME_AT", default=0)


class Resuming:
    """Middleware that takes Last-Event-ID."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        last = dict(scope.get("headers", ())).get(b"last-event-id")
        RESUME_AT.set(int(last) + 1 if last else 0)
        await self.app(scope, receive, send)


asgi = FastAPI()
asgi.add_middleware(Resuming)
flask = Flask(__name__)


def another_pace() -> float:
    """No two answers in a row take the same time: that tells a limit from an exception."""
    with open("asked", "a+b") as asked:  # in the server's own folder; a worker that was killed has forgotten
        asked.write(b".")
        return (1.0, 4.0)[asked.tell() % 2]


class Oops(Exception):
    """Not a bug of the tests."""


def event(number: int, *, ids: bool = True) -> str:
    return (f"id: {number}\n" if ids else "") + f'data: {{"text": "token {number} "}}\n\n'


async def answer(
    *,
    first: int | None = None,
    silent_at: int = -1,
    silence: float = 0.0,
    beat: float = 0.0,
    fail_at: int = -1,
    kill_at: int = -1,
    pace: float = 1.0,
    done: str = DONE,
    ids: bool = True,
) -> AsyncIterator[str]:
    for number in range(RESUME_AT.get() if first is None else first, TOKENS):
        if number == silent_at:
            async for ping in pause(silence, beat):
                yield ping
        if number == fail_at:
            raise Oops
        if number == kill_at:
            os._exit(1)
        yield event(number, ids=ids)
        await asyncio.sleep(STEP * pace)
    if done:
        yield done


async def pause(seconds: float, beat: float) -> AsyncIterator[str]:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        await asyncio.sleep(min(left, beat or left))
        if beat:
            yield ": ping\n\n"


def stream(source: Any, *, headers: dict[str, str] | None = UNBUFFERED, media_type: str = SSE) -> Response:
    return StreamingResponse(source, headers=headers, media_type=media_type)


@asgi.get("/good")
async def good() -> Response:
    return stream(answer())


@asgi.post("/posted")
async def posted(asked: Request) -> Response:
    if asked.headers.get("authorization") != "Bearer sk-secret" or await asked.json() != {"q": "?"}:
        return PlainTextResponse("no", 403)
    return stream(answer())


@asgi.get("/beating")
async def beating() -> Response:
    return stream(answer(silent_at=4, silence=1.7, beat=0.4))


@asgi.get("/beating-first")
async def beating_first() -> Response:
    return stream(answer(silent_at=0, silence=1.7, beat=0.4))


@asgi.get("/no-accel")
async def no_accel() -> Response:
    return stream(answer(), headers=None)


@asgi.get("/openai")
async def openai() -> Response:
    return stream(answer(done="data: [DONE]\n\n"))


@asgi.get("/own-end")
async def own_end() -> Response:
    return stream(answer(done="data: ## THE END ##\n\n"))


@asgi.get("/string")
async def string() -> Response:
    return PlainTextResponse("".join([token async for token in answer()]), media_type=SSE, headers=UNBUFFERED)


@asgi.get("/consumed")
def consumed() -> Response:
    source = iter(["a", "b"])
    "".join(source)
    return stream(source)


@asgi.get("/object")
async def response_object() -> Response:
    return stream(Oops())


@asgi.get("/returned")
async def returned() -> Any:
    return Oops()


@asgi.get("/silent")
async def silent() -> Response:
    return stream(answer(silent_at=4, silence=1.7))


@asgi.get("/silent-first")
async def silent_first() -> Response:
    return stream(answer(silent_at=0, silence=1.7))


@asgi.get("/late")
async def late() -> Response:
    await asyncio.sleep(1.5)
    return stream(answer())


@asgi.get("/raises")
async def raises() -> Response:
    return stream(answer(fail_at=5, pace=another_pace()))


@asgi.get("/raises-first")
async def raises_first() -> Response:
    return stream(answer(fail_at=0))


@asgi.get("/raises-after-silence")
async def raises_after_silence() -> Response:
    return stream(answer(silent_at=5, silence=1.2, fail_at=5))


@asgi.get("/killed")
async def killed() -> Response:
    return stream(answer(kill_at=5))


@asgi.get("/unsaid")
async def unsaid() -> Response:
    return stream(answer(done=""))


@asgi.get("/unsaid-silent")
async def unsaid_silent() -> Response:
    return stream(answer(done="", silent_at=4, silence=1.7))


@asgi.get("/error-event")
async def error_event() -> Response:
    return stream(answer(done='event: error\ndata: {"status": "interrupted", "message": "sk-secret"}\n\n'))


@asgi.get("/plain-text")
async def plain_text() -> Response:
    return stream((f"token {n} " async for n in numbers()), media_type="text/plain")


async def numbers() -> AsyncIterator[int]:
    for number in range(TOKENS):
        yield number
        await asyncio.sleep(STEP)


@asgi.get("/no-ids")
async def no_ids() -> Response:
    return stream(answer(ids=False))


@asgi.get("/again")
async def again() -> Response:
    return stream(answer(first=0))


@asgi.get("/over")
async def over() -> Response:
    return Response(status_code=204)


@asgi.get("/at-once")
async def at_once() -> Response:
    async def held() -> AsyncIterator[str]:
        await asyncio.sleep(0.7)
        for token in [event(number) for number in range(RESUME_AT.get(), TOKENS)]:
            yield token
        yield DONE

    return stream(held())


try:
    from fastapi.sse import EventSourceResponse, ServerSentEvent
except ImportError:
    pass  # an older FastAPI, of which nothing is asked here
else:

    @asgi.get("/swallowed", response_class=EventSourceResponse)
    async def swallowed() -> AsyncIterator[ServerSentEvent]:
        for number in range(RESUME_AT.get(), TOKENS):
            if number == 8:
                raise Oops
            yield ServerSentEvent(data={"text": f"token {number} "}, id=str(number))
            await asyncio.sleep(STEP)


@asgi.get("/sync")
def sync() -> Response:
    """Keeps one of the pool's threads for each wait."""
    return stream(slowly())


def slowly() -> Iterator[str]:
    for number in range(3):
        time.sleep(0.4)
        yield event(number)
    yield DONE


@asgi.get("/sync-whole")
def sync_whole() -> Response:
    """Works in a thread of the pool before it answers at all."""
    time.sleep(1.2)
    return stream(iter([event(0), event(1), DONE]))


@asgi.get("/blocks")
async def blocks() -> Response:
    """Synchronous work on the event loop."""

    async def tokens() -> AsyncIterator[str]:
        for token in slowly():
            yield token

    return stream(tokens())


@asgi.get("/light")
async def light() -> str:
    return "ok"


class Collecting:
    """Middleware that reads the body to its end."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        start: dict[str, Any] = {}
        body = b""

        async def collect(message: Any) -> None:
            nonlocal body
            if message["type"] != "http.response.body":
                start.update(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                length = (b"content-length", str(len(body)).encode())
                await send({**start, "headers": [*start["headers"], length]})
                await send({"type": "http.response.body", "body": body})

        if scope["type"] == "http":
            await self.app(scope, receive, collect)
        else:
            await self.app(scope, receive, send)


collecting = Collecting(asgi)


# WSGI


@flask.get("/good")
def flask_good() -> FlaskResponse:
    return FlaskResponse(_flask_answer(TOKENS, STEP), mimetype=SSE, headers=UNBUFFERED)


@flask.get("/unsaid")
def flask_unsaid() -> FlaskResponse:
    return FlaskResponse(_flask_answer(TOKENS, STEP, done=""), mimetype=SSE, headers=UNBUFFERED)


@flask.get("/long")
def flask_long() -> FlaskResponse:
    return FlaskResponse(_flask_answer(80, STEP * another_pace()), mimetype=SSE, headers=UNBUFFERED)


@flask.get("/raises")
def flask_raises() -> FlaskResponse:
    return FlaskResponse(_flask_answer(TOKENS, STEP * another_pace(), fail_at=5), mimetype=SSE, headers=UNBUFFERED)


def _resume_at() -> int:
    last = request.headers.get("last-event-id")
    return int(last) + 1 if last else 0


@stream_with_context
def _flask_answer(count: int, step: float, fail_at: int = -1, done: str = DONE) -> Iterator[str]:
    for number in range(_resume_at(), count):
        if number == fail_at:
            raise Oops
        yield event(number)
        time.sleep(step)
    if done:
        yield done
