"""A server that answers every request with the same events, and keeps what it was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Sent:
    """One request as it came over the wire. Two are equal where every byte is, but for the connection."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class EventServer(ThreadingHTTPServer):
    """Serves on a free port while its `with` block lasts. An event is an object, or text as it stands.

    Args:
        events: what the first request is answered with, in one piece.
        then: what all others are answered with; the same unless said otherwise.
    """

    daemon_threads = True

    def __init__(self, *events: Any, then: Sequence[Any] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies = [_body(events), _body(events if then is None else then)]
        self.requests: list[Sent] = []
        self.connections: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> EventServer:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        self._thread.join(3)
        self.server_close()


def _body(events: Sequence[Any]) -> bytes:
    data = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return "".join(f"data: {each}\n\n" for each in data).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EventServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.server.bodies[bool(self.server.requests)]
        self.server.requests.append(Sent(self.requestline, tuple(self.headers.items()), body))
        self.server.connections.append(self.client_address[1])
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        pass
