"""Endpoints as people write them: healthy ones at any pace, and ones with a fault each. For `doctor/test_faults.py`."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from llama_index.core.llms import ChatMessage
from starlette.middleware.base import BaseHTTPMiddleware

from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM
from llama_index_resilient_stream.serve.fastapi import SSEResponse, TextResponse
from llama_index_resilient_stream.testing import Cut, ScriptedLLM

SSE = "text/event-stream"
HEADERS = {"X-Accel-Buffering": "no", "Cache-Control": "no-store, no-transform"}
DONE = 'event: done\ndata: {"status": "complete"}\n\n'
TOKENS, PACE, WAIT = 25, 100.0, 0.55  # pieces, pieces a second, seconds

asgi = FastAPI()


class Oops(Exception):
    """Not a bug of the tests."""


async def tokens(count: int = TOKENS, pace: float = PACE, wait: float = WAIT, fail_at: int = -1) -> AsyncIterator[str]:
    """What a model says."""
    await asyncio.sleep(wait)
    for number in range(count):
        if number == fail_at:
            raise Oops
        yield f"token {number} "
        await asyncio.sleep(1 / pace)


def event(text: str) -> str:
    return f"data: {json.dumps(text)}\n\n"


async def answer(
    source: AsyncIterator[str], write: Callable[[str], str] = event, done: str = DONE
) -> AsyncIterator[str]:
    async for text in source:
        yield write(text)
    if done:
        yield done


def stream(source: AsyncIterator[str], media_type: str = SSE, headers: dict[str, str] | None = None) -> Response:
    return StreamingResponse(source, media_type=media_type, headers=HEADERS if headers is None else headers)


# Healthy


@asgi.get("/pace/{pace}/{count}")
async def paced(pace: float, count: int) -> Response:
    return stream(answer(tokens(count, pace)))


@asgi.get("/bare/{pace}/{count}")
async def bare(pace: float, count: int) -> Response:
    return stream(answer(tokens(count, pace)), headers={})


@asgi.post("/posted")
async def posted() -> Response:
    return stream(answer(tokens()))


def ai_sdk(kind: str, **more: Any) -> str:
    return f"data: {json.dumps({'type': kind, **more})}\n\n"


def text_delta(text: str) -> str:
    return ai_sdk("text-delta", id="t", delta=text)


async def ai_sdk_answer(*end: str, fail_at: int = -1) -> AsyncIterator[str]:
    yield ai_sdk("start", messageId="m") + ai_sdk("start-step") + ai_sdk("text-start", id="t")
    async for chunk in answer(tokens(fail_at=fail_at), text_delta, ""):
        yield chunk
    for chunk in end:
        yield chunk


AI_SDK_END = (ai_sdk("text-end", id="t"), ai_sdk("finish-step"), ai_sdk("finish", finishReason="stop"))
OPENAI_DONE = "data: [DONE]\n\n"


@asgi.get("/ai-sdk")
async def ai_sdk_whole() -> Response:
    return stream(ai_sdk_answer(*AI_SDK_END, OPENAI_DONE))


@asgi.get("/ai-sdk/error")
async def ai_sdk_error() -> Response:
    return stream(ai_sdk_answer(ai_sdk("error", errorText="sk-secret"), OPENAI_DONE))


@asgi.get("/ai-sdk/cut")
async def ai_sdk_cut() -> Response:
    return stream(ai_sdk_answer(OPENAI_DONE))


def chunk(text: str = "", finish: str | None = None, key: str = "chatcmpl-1") -> str:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return f"data: {json.dumps({'id': key, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


@asgi.get("/openai/{end}")
async def openai(end: str) -> Response:
    ends = {
        "whole": chunk(finish="stop") + OPENAI_DONE,
        "without-done": chunk(finish="stop"),
        "done-alone": OPENAI_DONE,
        "foreign": chunk(finish="stop", key="proxy") + OPENAI_DONE,
        "error": 'data: {"error": {"message": "sk-secret", "type": "server_error"}}\n\n',
    }
    return stream(answer(tokens(), chunk, ends[end]))


def llm(**settings: Any) -> ResilientLLM:
    text = "".join(f"token {number} " for number in range(TOKENS))
    return ResilientLLM(ScriptedLLM(text, delay=1 / PACE, **settings), policy=RecoveryPolicy(max_attempts=1))


async def reply(**settings: Any) -> Any:
    return await llm(**settings).astream_chat([ChatMessage(role="user", content="?")])


@asgi.get("/ours")
async def ours() -> Response:
    return SSEResponse(lambda: reply())


@asgi.get("/ours/synchronous")
async def ours_synchronous() -> Response:
    return SSEResponse(lambda: llm().stream_chat([ChatMessage(role="user", content="?")]))


@asgi.get("/ours/resumable")
async def ours_resumable() -> Response:
    return SSEResponse(lambda: reply(), resumable=True)


@asgi.get("/ours/text")
async def ours_text() -> Response:
    return TextResponse(lambda: reply())


@asgi.get("/ours/cut")
async def ours_cut() -> Response:
    return SSEResponse(lambda: reply(script=[Cut(after=60)]))


# It is collected


@asgi.get("/collected/list")
async def collected_list() -> Response:
    async def collected() -> AsyncIterator[str]:
        for text in [text async for text in tokens()]:
            yield event(text)
        yield DONE

    return stream(collected())


@asgi.get("/collected/before")
async def collected_before() -> Response:
    texts = [text async for text in tokens()]

    async def again() -> AsyncIterator[str]:
        for text in texts:
            yield event(text)
        yield DONE

    return stream(again())


@asgi.get("/collected/heartbeats")
async def collected_heartbeats() -> Response:
    async def beating() -> AsyncIterator[str]:
        yield ": ping\n\n"
        async for each in answer(tokens()):
            kept.append(each)
        yield "".join(kept)

    kept: list[str] = []
    return stream(beating())


@asgi.get("/collected/one-chunk")
async def one_chunk() -> Response:
    async def whole() -> AsyncIterator[str]:
        yield event("".join([text async for text in tokens()]))
        yield DONE

    return stream(whole())


# It is written wrongly


def no_blank_line(text: str) -> str:
    return f"data: {json.dumps(text)}\n"


@asgi.get("/written/no-blank-line")
async def written_no_blank_line() -> Response:
    return stream(answer(tokens(), no_blank_line, "event: done\ndata: {}\n"))


@asgi.get("/written/no-blank-line-but-the-last")
async def written_no_blank_line_but_the_last() -> Response:
    return stream(answer(tokens(), no_blank_line, DONE))


@asgi.get("/written/last-unended")
async def written_last_unended() -> Response:
    return stream(answer(tokens(), event, "event: done\ndata: {}\n"))


@asgi.get("/written/escaped")
async def written_escaped() -> Response:
    return stream(answer(tokens(), lambda text: f"data: {text}\\n\\n", "data: [DONE]\\n\\n"))


@asgi.get("/written/newlines")
async def written_newlines() -> Response:
    return stream(answer(tokens(), lambda text: f"data: {text}\n\nnext paragraph\n\n"))


@asgi.get("/written/one-newline")
async def written_one_newline() -> Response:
    return stream(answer(tokens(), lambda text: f"data: {text}\nnext line\n\n"))


@asgi.get("/written/newlines-at-the-end")
async def written_newlines_at_the_end() -> Response:
    def write(text: str) -> str:
        return f"data: {text}{'.' + 2 * chr(10) if text.startswith('token 7') else ''}\n\n"

    return stream(answer(tokens(), write))


@asgi.get("/written/without-data")
async def written_without_data() -> Response:
    return stream(answer(tokens(), str, ""))


@asgi.get("/written/as-html")
async def written_as_html() -> Response:
    return stream(answer(tokens()), "text/html")


@asgi.get("/written/lines")
async def written_lines() -> Response:
    return stream(
        answer(tokens(), lambda text: json.dumps({"delta": text}) + "\n", '{"done": true}\n'), "application/x-ndjson"
    )


@asgi.get("/written/ai-sdk-4")
async def written_ai_sdk_4() -> Response:
    return stream(answer(tokens(), lambda text: f"0:{json.dumps(text)}\n", 'd:{"finishReason":"stop"}\n'), "text/plain")


# It ends wrongly


@asgi.get("/ends/kept-open")
async def kept_open() -> Response:
    async def going_on() -> AsyncIterator[str]:
        async for each in answer(tokens()):
            yield each
        await asyncio.sleep(3600)

    return stream(going_on())


@asgi.get("/ends/kept-open-beating")
async def kept_open_beating() -> Response:
    async def going_on() -> AsyncIterator[str]:
        async for each in answer(tokens()):
            yield each
        while True:
            yield ": ping\n\n"
            await asyncio.sleep(0.5)

    return stream(going_on())


@asgi.get("/ends/caught")
async def caught() -> Response:
    async def catching() -> AsyncIterator[str]:
        try:
            async for each in answer(tokens(fail_at=12)):
                yield each
        except Oops:
            pass

    return stream(catching())


@asgi.get("/ends/raises")
async def raises() -> Response:
    return stream(answer(tokens(fail_at=12)))


@asgi.get("/ends/afterwards")
async def afterwards(tasks: BackgroundTasks) -> Response:
    response = stream(answer(tokens()))
    response.background = tasks
    tasks.add_task(asyncio.sleep, 0.2)
    return response


# It is not answered

asked: set[str] = set()


@asgi.get("/refused/later/{status}/{key}")
async def limited(status: int, key: str) -> Response:
    """Answer the first one who asks with this key."""
    if key not in asked:
        asked.add(key)
        return stream(answer(tokens(), lambda text: f"id: {text.split()[1]}\n{event(text)}"))
    return JSONResponse({"detail": "slow down"}, status, {"Retry-After": "30"})


@asgi.get("/refused/login")
async def login() -> Response:
    return HTMLResponse("<!doctype html><title>Log in</title><form><input type=password></form>" + "x" * 500)


@asgi.get("/refused/page")
async def page() -> Response:
    return HTMLResponse("<html><body><div id=root></div></body></html>")


@asgi.get("/kept")
async def kept() -> Response:
    return stream(answer(tokens()), headers={"Cache-Control": "public, max-age=60"})


@asgi.get("/string")
async def string() -> Response:
    return PlainTextResponse("".join([text async for text in tokens()]), headers=HEADERS)


async def plain(request: Request, call_next: Any) -> Any:
    return await call_next(request)


with_middleware = FastAPI()
with_middleware.mount("/", asgi)
with_middleware.add_middleware(BaseHTTPMiddleware, dispatch=plain)


class Compressing:
    """Middleware that compresses and never flushes, as Starlette's GZipMiddleware did before 0.46."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        compress = zlib.compressobj(wbits=31)
        wanted = b"gzip" in dict(scope.get("headers", ())).get(b"accept-encoding", b"")

        async def packed(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"content-encoding", b"gzip")]}
            else:
                body = compress.compress(message.get("body", b""))
                message = {**message, "body": body if message.get("more_body") else body + compress.flush()}
            await send(message)

        await self.app(scope, receive, packed if wanted else send)


compressing = Compressing(asgi)
