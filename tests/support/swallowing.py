"""LLM classes that keep their HTTP client and the finish reason to themselves, one for each HTTP library, and a server.

The server speaks Gemini's protocol and breaks it as the path says; the classes pass on chunks with text and no others,
as LlamaIndex's GoogleGenAI does.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp
import httpx
import requests
import urllib3
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.llms.llm import LLM

from support.readers import TEXT

ENDS = {"bare_stop": "STOP", "stop_beside_text": "STOP", "max_tokens": "MAX_TOKENS", "safety": "SAFETY"}
REFUSALS: dict[str, tuple[int, dict[str, str], str]] = {
    "busy": (429, {"Retry-After": "0.3"}, "Slow down."),
    "too_long": (400, {}, "This model's maximum context length is 8 tokens."),
}
"""How the first request is refused: the status, headers, and what the error says."""
PIECE = 16


@dataclass
class Log:
    """What the server has seen."""

    requests: int = 0
    gone: list[float] = field(default_factory=list)
    """When it saw that a reader had left."""
    written: int = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])) or "{}")
        log: Log = self.server.log  # type: ignore[attr-defined]
        log.requests += 1
        how = self.path.split("/")[1]
        if how in REFUSALS and log.requests == 1:
            return self._refuse(*REFUSALS[how])
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            self._answer("healthy" if log.requests > 1 and how in ("cut", "stall") else how, body, log)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            log.gone.append(time.monotonic())
            self.close_connection = True

    def _refuse(self, status: int, headers: dict[str, str], said: str) -> None:
        body = json.dumps({"error": {"message": said}}).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, how: str, body: Any, log: Log) -> None:
        text = TEXT
        if (anchor := body.get("anchor")) and anchor in TEXT:
            text = TEXT[TEXT.index(anchor) :]
        pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
        for number, piece in enumerate(pieces):
            if how in ("cut", "stall") and number == len(pieces) // 2:
                break
            last = number == len(pieces) - 1
            self._event([{"text": piece}], ENDS[how] if last and how == "stop_beside_text" else None)
            log.written += 1
            if how == "slow":
                time.sleep(0.05)
        if how == "stall":
            self.connection.settimeout(5)
            if not self.connection.recv(1):
                raise ConnectionError
        if how in ENDS and how != "stop_beside_text":
            self._event(None, ENDS[how])
        if how in ("healthy", "slow", *REFUSALS):
            self._event([{"text": ""}], "STOP")

    def _event(self, parts: Any, reason: str | None) -> None:
        candidate: dict[str, Any] = {"index": 0}
        if parts is not None:
            candidate["content"] = {"role": "model", "parts": parts}
        if reason is not None:
            candidate["finishReason"] = reason
        data = f"data: {json.dumps({'candidates': [candidate]})}\r\n\r\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


@contextmanager
def gemini() -> Iterator[tuple[str, Log]]:
    """A server and what it has seen. The first part of a path says how it answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.log = Log()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.log  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()


class StatusError(Exception):
    """Says the status and nothing else, as the Ollama client's `ResponseError` does."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status_code = status


def _check(status: int) -> None:
    if status >= 400:
        raise StatusError(status)


class Swallowing(LLM):
    """Asks `{base}/{how}`; which library it asks with is the subclass's to say."""

    base: str = ""
    how: str = ""
    settings: dict[str, Any] = {}  # noqa: RUF012 - a field of pydantic's

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="swallowing", is_chat_model=True)

    @property
    def url(self) -> str:
        return f"{self.base}/{self.how}/models/m:streamGenerateContent"

    def body(self, messages: Any) -> dict[str, Any]:
        last = str(messages[-1].content)
        return {"anchor": last.rpartition("\n\n")[2] if "copying" in last else ""}

    def lines(self, body: Any) -> Iterator[str]:
        raise NotImplementedError

    def alines(self, body: Any) -> AsyncIterator[str]:
        raise NotImplementedError

    def stream_chat(self, messages: Any, **_: Any) -> Any:
        def chunks() -> Iterator[ChatResponse]:
            text = ""
            for line in self.lines(self.body(messages)):
                if piece := _text_on(line):
                    text += piece
                    yield _chunk(text, piece)

        return chunks()

    async def astream_chat(self, messages: Any, **_: Any) -> Any:
        async def chunks() -> AsyncIterator[ChatResponse]:
            text = ""
            async for line in self.alines(self.body(messages)):
                if piece := _text_on(line):
                    text += piece
                    yield _chunk(text, piece)

        return chunks()

    def chat(self, messages: Any, **_: Any) -> ChatResponse:
        raise NotImplementedError

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
        raise NotImplementedError

    achat = chat  # type: ignore[assignment]
    acomplete = complete  # type: ignore[assignment]
    astream_complete = stream_complete


def _chunk(text: str, piece: str) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role="assistant", content=text), delta=piece)


def _text_on(line: str) -> str:
    if not line.startswith("data:"):
        return ""
    content = json.loads(line[5:])["candidates"][0].get("content")
    return str(content["parts"][0]["text"]) if content else ""


class OverHttpx(Swallowing):
    def lines(self, body: Any) -> Iterator[str]:
        with httpx.Client(timeout=10) as client, client.stream("POST", self.url, json=body) as response:
            _check(response.status_code)
            yield from response.iter_lines()

    async def alines(self, body: Any) -> AsyncIterator[str]:
        async with httpx.AsyncClient(timeout=10) as client, client.stream("POST", self.url, json=body) as response:
            _check(response.status_code)
            async for line in response.aiter_lines():
                yield line


class RaisesForStatus(OverHttpx):
    """Raises what httpx makes of an error's status, without reading its body, as LMStudio does."""

    def lines(self, body: Any) -> Iterator[str]:
        with httpx.Client(timeout=10) as client, client.stream("POST", self.url, json=body) as response:
            response.raise_for_status()
            yield from response.iter_lines()

    async def alines(self, body: Any) -> AsyncIterator[str]:
        async with httpx.AsyncClient(timeout=10) as client, client.stream("POST", self.url, json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                yield line


class GoesOn(OverHttpx):
    """Goes on by itself where a stream was cut, as LiteLLM's router does."""

    def lines(self, body: Any) -> Iterator[str]:
        said = ""
        for line in super().lines(body):
            said += _text_on(line)
            yield line
        if said != TEXT:
            yield from super().lines({"anchor": TEXT[len(said) :]})

    async def alines(self, body: Any) -> AsyncIterator[str]:
        said = ""
        async for line in super().alines(body):
            said += _text_on(line)
            yield line
        if said != TEXT:
            async for line in super().alines({"anchor": TEXT[len(said) :]}):
                yield line


class OverRequests(Swallowing):
    def lines(self, body: Any) -> Iterator[str]:
        with requests.post(self.url, json=body, stream=True, timeout=10) as response:
            _check(response.status_code)
            yield from response.iter_lines(chunk_size=1, decode_unicode=True)


class OverUrllib3(Swallowing):
    def lines(self, body: Any) -> Iterator[str]:
        pool = urllib3.PoolManager()
        sent = json.dumps(body).encode()
        response = pool.request("POST", self.url, body=sent, preload_content=False, timeout=10)
        _check(response.status)
        held = b""
        for part in response.stream(64):
            *lines, held = (held + part).split(b"\r\n")
            yield from (line.decode() for line in lines)


class OverAiohttp(Swallowing):
    async def alines(self, body: Any) -> AsyncIterator[str]:
        async with aiohttp.ClientSession() as session, session.post(self.url, json=body) as response:
            _check(response.status)
            if self.settings.get("read") == "readline":
                while line := await response.content.readline():
                    yield line.decode()
                return
            held = b""
            async for part in response.content.iter_any():
                *lines, held = (held + part).split(b"\r\n")
                for each in lines:
                    yield each.decode()


class OverAiohttpLines(OverAiohttp):
    settings: dict[str, Any] = {"read": "readline"}  # noqa: RUF012 - a field of pydantic's
