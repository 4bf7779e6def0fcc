"""Readers of served answers, over HTTP: some stay to the end, and some leave."""

from __future__ import annotations

import itertools
import json
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import httpx_sse

from support.serve_apps import CASES, TEXT
from support.servers import HOST, Running

LEFT_AT = 5
A_SECOND = 50  # tokens
_names = itertools.count()
get = partial(httpx.get, timeout=10, verify=False)  # to read the certificates, which nobody needs, takes a while


def name() -> str:
    return f"answer-{next(_names)}"


def eventually(condition: Callable[[], Any], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(condition())


def state(app: Running, which: str) -> dict[str, Any]:
    found: dict[str, Any] = get(f"{app.url}/state/{which}").json()
    return found


def leave(port: int, path: str, at: int = LEFT_AT, *, reset: bool = False) -> None:
    """Read so many tokens, and go: with FIN, or with RST."""
    with socket.create_connection((HOST, port), 10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        received = b""
        while received.count(b'data: {"text"') < at:
            chunk = connection.recv(4096)
            assert chunk, received
            received += chunk
        assert b"event: done" not in received
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@dataclass
class Read:
    """What a reader got."""

    events: list[httpx_sse.ServerSentEvent] = field(default_factory=list)
    chunks: int = 0
    error: str = ""
    raw: bytes = b""
    status: int = 0

    @property
    def text(self) -> str:
        return "".join(json.loads(each.data)["text"] for each in self.events if each.event == "message")

    @property
    def last(self) -> dict[str, Any]:
        found: dict[str, Any] = {"event": self.events[-1].event, **json.loads(self.events[-1].data)}
        return found


def read(url: str, *, during: Callable[[], object] | None = None, **kwargs: Any) -> Read:
    """Read to the end, whatever the end is. `during` is called after the first tokens."""
    result = Read()
    with httpx.Client(timeout=30, verify=False) as client, client.stream("GET", url, **kwargs) as response:
        result.status = response.status_code
        try:
            for chunk in response.iter_bytes():
                result.raw += chunk
                result.chunks += 1
                if during is not None and result.raw.count(b'data: {"text"') >= LEFT_AT:
                    during()
                    during = None
        except httpx.HTTPError as error:
            result.error = type(error).__name__
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=result.raw)
    result.events = list(httpx_sse.EventSource(response).iter_sse())
    return result


def check_left(app: Running, which: str, kind: str, engine: str) -> None:
    assert eventually(lambda: state(app, which)["states"] == ["closed"], 2.0), state(app, which)
    left = state(app, which)
    assert left["sent"] <= LEFT_AT + A_SECOND
    assert eventually(lambda: state(app, which)["threads"] == []), "a thread was left behind"
    assert state(app, which)["sent"] == left["sent"], "it went on"
    if kind == "chat" and engine == "resilient":
        assert eventually(lambda: len(state(app, which)["history"]) == 2)
        (_, _, _), (role, text, mark) = state(app, which)["history"]
        assert (role, mark) == ("assistant", "cancelled")
        assert TEXT.startswith(text)
        assert len(text) >= LEFT_AT * 4 - 1


def of_all_cases(app: Running, query: str = "", during: Callable[[str], object] | None = None) -> list[Read]:
    """All cases at once."""

    def one(case: tuple[str, str, str]) -> Read:
        which = name()
        url = f"{app.url}/ask/{which}/{'/'.join(case)}?{query}"
        return read(url, during=None if during is None else lambda: during(which))

    with ThreadPoolExecutor(len(CASES)) as readers:
        return list(readers.map(one, CASES))
