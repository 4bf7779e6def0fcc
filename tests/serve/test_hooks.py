"""Hooks: who may read, what the application refuses itself, and hooks that are none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("anyio")

from llama_index_resilient_stream import ConfigurationError
from llama_index_resilient_stream.serve import SSEResponse, open_answer
from llama_index_resilient_stream.serve.generations import Generations
from llama_index_resilient_stream.serve.store import Ticket
from llama_index_resilient_stream.testing import ScriptedLLM


@pytest.mark.parametrize("hook", ["may_read", "take_over"])
@pytest.mark.parametrize("wrong", [True, "yes", object()], ids=["true", "word", "object"])
def test_a_hook_that_is_no_function_is_refused(hook: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"{hook} is .*Generations\({hook}="):
        Generations(**{hook: wrong})


async def _forgets_too(request: Any, ticket: Any) -> Any:
    return None


@pytest.mark.parametrize("forgets", [lambda request, ticket: None, _forgets_too], ids=["function", "coroutine"])
async def test_a_hook_that_forgets_to_answer_says_so(forgets: Any) -> None:
    generations = Generations(may_read=forgets)
    async with generations.lifespan():
        key = await generations.start(lambda: ScriptedLLM("A text.").stream_complete("?"))
        with pytest.raises(ConfigurationError, match="Return True or False"):
            await generations.allows(object(), key)


# Who may read, on the wire


class _Reader:
    """One request, against the application itself: what is sent of the answer, and when."""

    def __init__(self, response: SSEResponse, body: bytes = b"", **headers: str) -> None:
        self._response, self._body = response, body
        self._headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.status = 0
        self.sent = b""
        self.seconds = 0.0

    async def read(self, seconds: float = 20.0) -> _Reader:
        """Read to the end, or leave after so many seconds."""
        asked, left = asyncio.Event(), asyncio.Event()
        began = time.monotonic()

        async def receive() -> dict[str, Any]:
            if not asked.is_set():
                asked.set()
                return {"type": "http.request", "body": self._body, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            self.status = message.get("status", self.status)
            self.sent += message.get("body", b"")

        scope = {"type": "http", "method": "GET", "path": "/", "headers": self._headers, "query_string": b""}
        asyncio.get_running_loop().call_later(seconds, left.set)
        await self._response(scope, receive, send)  # type: ignore[arg-type]
        self.seconds = time.monotonic() - began
        return self


def _is_ann(request: Any, ticket: Ticket) -> bool:
    return bool(request.headers.get("x-user") == ticket.owner)


async def _is_ann_in_a_while(request: Any, ticket: Ticket) -> bool:
    await asyncio.sleep(0.3)
    return _is_ann(request, ticket)


def _trips_over_nobody(request: Any, ticket: Ticket) -> bool:
    return bool(ticket.payload["user"] == request.headers.get("x-user"))


async def _reads_the_body(request: Any, ticket: Ticket) -> bool:
    return (await request.body()).decode() == ticket.owner


HOOKS: dict[str, Any] = {
    "function": _is_ann,
    "slow": _is_ann_in_a_while,
    "trips": _trips_over_nobody,
    "body": _reads_the_body,
}


async def _answer() -> Any:
    return ScriptedLLM("A text.").stream_complete("?")


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
async def test_nobody_learns_whether_a_foreign_answer_exists(hook: Any) -> None:
    generations = Generations(may_read=hook, shutdown=0)
    async with generations.lifespan():
        key = await generations.start(_answer, owner="ann", payload={"user": "ann"})
        own = await _Reader(SSEResponse(generations.get(key)), b"ann", x_user="ann").read()
        assert (own.status, own.sent.count(b"event: done")) == (200, 1)
        foreign, never, garbage = [
            await _Reader(SSEResponse(generations.get(each)), b"bob", x_user="bob").read()
            for each in (key, key[::-1], "x")
        ]
        assert (foreign.status, foreign.sent) == (never.status, never.sent) == (garbage.status, garbage.sent)
        assert foreign.status == 404
        assert abs(foreign.seconds - never.seconds) < 0.25
        assert not await generations.allows(_Asks("bob"), key)


class _Asks:
    def __init__(self, user: str) -> None:
        self.headers = {"x-user": user}

    async def body(self) -> bytes:
        return self.headers["x-user"].encode()


async def test_a_hook_that_hangs_holds_up_no_heartbeat() -> None:
    async def hangs(request: Any, ticket: Ticket) -> bool:
        await asyncio.sleep(3600)
        return True

    generations = Generations(may_read=hangs, shutdown=0)
    async with generations.lifespan():
        key = await generations.start(_answer)
        reader = await _Reader(SSEResponse(generations.get(key), heartbeat=0.2)).read(1.5)
        assert reader.status == 200
        assert reader.sent.count(b": still here\n") >= 3
        assert b"data" not in reader.sent
        assert reader.seconds < 4
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_an_http_error_of_a_hook_keeps_its_status() -> None:
    from starlette.exceptions import HTTPException

    async def refuses(request: Any, ticket: Ticket) -> bool:
        raise HTTPException(401, "who are you?")

    generations = Generations(may_read=refuses, shutdown=0)
    async with generations.lifespan():
        key = await generations.start(_answer)
        for each in (key, key[::-1]):
            reader = await _Reader(SSEResponse(generations.get(each))).read()
            assert (reader.status, reader.sent) == (401, b'{"detail": "who are you?"}')


@pytest.mark.parametrize("later", [False, True], ids=["at-once", "later"])
@pytest.mark.parametrize("resumable", [False, True], ids=["live", "resumable"])
async def test_an_http_error_of_the_source(later: bool, resumable: bool) -> None:
    from starlette.exceptions import HTTPException

    async def source() -> AsyncIterator[str]:
        if later:
            yield "a"
            await asyncio.sleep(0.3)
        raise HTTPException(403, "not yours")

    reader = await _Reader(SSEResponse(source, resumable=resumable)).read()
    if later:
        assert reader.status == 200
        assert reader.sent.endswith(
            b'data: {"status":"interrupted","reason":"refused","retryable":false,"code":403,"detail":"not yours"}\n\n'
        )
    else:
        assert (reader.status, reader.sent) == (403, b'{"detail": "not yours"}')


@pytest.mark.parametrize("module", ["openai", "httpx", "somebody"])
async def test_an_error_of_the_provider_is_no_refusal(module: str) -> None:
    kind = type("ProviderError", (Exception,), {"__module__": module, "status_code": 401, "detail": "sk-secret"})

    def source() -> Any:
        raise kind

    reader = await _Reader(SSEResponse(source)).read()
    assert reader.status == 200
    assert b"secret" not in reader.sent
    assert b'"reason":"error"' in reader.sent


def test_trio_is_told_what_to_do() -> None:
    trio = pytest.importorskip("trio")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError("nothing is sent")

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    with pytest.raises(ConfigurationError, match="asyncio"):
        trio.run(SSEResponse(_answer), scope, receive, send)
    with pytest.raises(ConfigurationError, match="asyncio"):
        trio.run(open_answer, _answer)
