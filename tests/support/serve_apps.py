"""The apps that the tests of serving put on real servers: one for ASGI, one for WSGI, with the same routes.

An answer is 200 tokens, one each 20 ms. Each has a name, given by who asks, and under that name `/state` tells what
became of it. `WITHOUT_GC`, what is closed was closed by somebody.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from flask import Flask, jsonify
from flask import Response as FlaskResponse
from flask import request as flask_request
from llama_index.core import SummaryIndex
from llama_index.core.base.response.schema import StreamingResponse as LlamaIndexResponse
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import TextNode
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM, resilient
from llama_index_resilient_stream.llm.chunks import PARTIAL_KEY
from llama_index_resilient_stream.serve.fastapi import SSEResponse, TextResponse
from llama_index_resilient_stream.serve.flask import sse_response, text_response
from llama_index_resilient_stream.testing import Cut, ScriptedLLM, Stall

TOKENS = 200
PACE = 0.02
TEXT = "".join(f"{number:03} " for number in range(TOKENS))
SILENCE = 2.0
CASES = list(itertools.product(("query", "chat"), ("resilient", "plain"), ("sync", "async")))
FAILS_AT = 20

if os.environ.get("WITHOUT_GC"):  # in a server of its own, not in the tests' process
    gc.collect()
    gc.disable()
WITHOUT_GC = {"WITHOUT_GC": "1"}


@dataclass
class Asked:
    """One answer."""

    llm: ScriptedLLM
    engine: Any
    response: Any = None
    closed: list[str] = field(default_factory=list)


ASKED: dict[str, Asked] = {}
SCRIPTS: dict[str, list[Any]] = {
    "whole": [],
    "healed": [Cut(FAILS_AT * 4, ConnectionResetError("reset"))],
    "fails": [Cut(FAILS_AT * 4, ConnectionResetError("reset"))] * 2,
    "silent": [Stall(0, SILENCE)],
    "stalls": [Stall(FAILS_AT * 4, SILENCE)],
}


def asked(name: str, kind: str, engine: str, script: str = "whole", tokens: int = TOKENS) -> Asked:
    """Make an engine for one answer. `kind` is "query" or "chat", `engine` "resilient" or "plain"."""
    inner = ScriptedLLM(TEXT[: tokens * 4], SCRIPTS[script], token=4, delay=PACE)
    tries = 1 if script == "fails" else 4
    llm = ResilientLLM(inner, policy=RecoveryPolicy(stop=stop_after_attempt(tries), wait=wait_none()))
    index = SummaryIndex([TextNode(text="The cable fell silent in 1858.")])
    made: Any
    if kind == "query":
        made = index.as_query_engine(llm=llm, streaming=True)
    else:
        memory = ChatMemoryBuffer.from_defaults(token_limit=100_000)
        made = ContextChatEngine.from_defaults(retriever=index.as_retriever(), llm=llm, memory=memory)
    ASKED[name] = Asked(inner, resilient(made) if engine == "resilient" else made)
    return ASKED[name]


def source(made: Asked, kind: str, how: str) -> Callable[[], Any]:
    """What goes into the response: a function that calls a synchronous engine, or a coroutine function."""

    def ask() -> Any:
        made.response = made.engine.query("?") if kind == "query" else made.engine.stream_chat("?")
        return made.response

    async def aask() -> Any:
        made.response = await (made.engine.aquery("?") if kind == "query" else made.engine.astream_chat("?"))
        return made.response

    return ask if how == "sync" else aask


def reads(thread: threading.Thread) -> bool:
    """Whether it reads one answer; that of the loop that Flask's answers share stays."""
    return thread.name == "resilient-answer" or thread.name.startswith("resilient-stream")


def state_of(name: str) -> dict[str, Any]:
    """What became of an answer."""
    made = ASKED.get(name)
    if made is None:
        return {"sent": 0, "states": [], "history": [], "closed": []}
    calls = made.llm.calls
    history = getattr(made.engine, "chat_history", [])
    return {
        "sent": sum(len(call.sent) for call in calls) // 4,
        "states": [call.state for call in calls],
        "history": [[m.role.value, str(m.content), m.additional_kwargs.get(PARTIAL_KEY)] for m in history],
        "closed": made.closed,
        "threads": [each.name for each in threading.enumerate() if reads(each)],
    }


def noted(made: Asked) -> Iterator[str]:
    """A generator of the user's own, which notes who closed it."""
    try:
        for number in range(TOKENS):
            threading.Event().wait(PACE)
            yield f"{number:03} "
    finally:
        made.closed.append(threading.current_thread().name)


# ASGI

api = FastAPI()


@api.get("/ask/{name}/{kind}/{engine}/{how}")
async def ask(
    name: str, kind: str, engine: str, how: str, script: str = "whole", heartbeat: float = 15.0, tokens: int = TOKENS
) -> Any:
    made = asked(name, kind, engine, script, tokens)
    return SSEResponse(source(made, kind, how), heartbeat=heartbeat)


@api.get("/text/{name}/{how}")
async def text(name: str, how: str, script: str = "whole", tokens: int = TOKENS) -> Any:
    return TextResponse(source(asked(name, "query", "resilient", script, tokens), "query", how))


@api.get("/generator/{name}")
async def generator(name: str) -> Any:
    made = asked(name, "query", "plain")
    return SSEResponse(LlamaIndexResponse(noted(made)))


@api.get("/state/{name}")
async def state(name: str) -> Any:
    return state_of(name)


@api.post("/stop/{name}")
async def stop(name: str) -> Any:
    response = resilient(ASKED[name].response)  # a plain engine's response gets its `cancel` that late
    await asyncio.to_thread(response.cancel)
    return {}


@api.get("/wrong/{what}")
async def wrong(what: str) -> Any:
    made = asked("wrong", "query", "resilient", tokens=3)
    if what == "engine":
        return SSEResponse(made.engine)
    return SSEResponse(str(await asyncio.to_thread(made.engine.query, "?")))


@api.get("/wrong-made/{what}")
async def wrong_made(what: str) -> Any:
    made = asked("wrong", "query", "resilient", tokens=3)
    return SSEResponse(lambda: made.engine if what == "engine" else str(made.engine.query("?")))


@api.get("/light")
async def light() -> Any:
    return {}


@api.get("/pooled")
def pooled() -> Any:
    """Runs in the framework's pool of threads."""
    return {}


@api.get("/collect")
async def collect() -> Any:
    """On the event loop, as the garbage collector may at any time."""
    return {"collected": gc.collect()}


@api.get("/ticker")
async def ticker() -> Any:
    async def ticks() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.02)
            yield b".\n"

    return StreamingResponse(ticks(), media_type="text/plain")


async def pass_on(request: Request, call_next: Any) -> Any:
    return await call_next(request)


class Within:
    """The same app behind middleware, under /within."""

    def __init__(self, app: Any) -> None:
        self.bare = app
        self.wrapped = Middleware(GZipMiddleware, minimum_size=1), Middleware(BaseHTTPMiddleware, dispatch=pass_on)
        for each in reversed(self.wrapped):
            app = each.cls(app, *each.args, **each.kwargs)
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/within/"):
            scope = {**scope, "path": scope["path"][len("/within") :], "raw_path": scope["path"][7:].encode()}
            await self.app(scope, receive, send)
        else:
            await self.bare(scope, receive, send)


asgi = Within(api)


# WSGI

wsgi = Flask(__name__)


@wsgi.get("/ask/<name>/<kind>/<engine>/<how>")
def flask_ask(name: str, kind: str, engine: str, how: str) -> FlaskResponse:
    args = flask_request.args
    tokens = args.get("tokens", TOKENS, int)
    made = asked(name, kind, engine, args.get("script", "whole"), tokens)
    return sse_response(source(made, kind, how), heartbeat=args.get("heartbeat", 15.0, float))


@wsgi.get("/text/<name>/<how>")
def flask_text(name: str, how: str) -> FlaskResponse:
    args = flask_request.args
    made = asked(name, "query", "resilient", args.get("script", "whole"), args.get("tokens", TOKENS, int))
    return text_response(source(made, "query", how))


@wsgi.get("/state/<name>")
def flask_state(name: str) -> Any:
    return jsonify(state_of(name))


@wsgi.post("/stop/<name>")
def flask_stop(name: str) -> Any:
    resilient(ASKED[name].response).cancel()
    return jsonify({})


@wsgi.get("/light")
def flask_light() -> Any:
    return jsonify({})


def wsgi_that_was_asked() -> Flask:
    """As `wsgi`, with an event loop and threads from before the workers are forked."""
    answer = wsgi.test_client().get("/ask/before/query/resilient/sync?tokens=2")
    assert b"event: done" in answer.data
    return wsgi
