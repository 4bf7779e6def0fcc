"""A server of OpenAI's Responses API that keeps what was asked for in the background, and cuts its streams."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


def events_of(text: str, arguments: str = "") -> list[bytes]:
    """The events of a whole response: a text, and a call of `splice` with these arguments."""
    base = {"id": "resp_1", "object": "response", "created_at": 0, "model": "m", "parallel_tool_calls": True}
    output: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**base, "status": "in_progress", "output": [], "tools": []}}
    ]
    if text:
        part = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
        output.append({**item, "content": [{"type": "output_text", "text": text, "annotations": []}]})
        told.append({"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}})
        pieces = [text[at : at + 4] for at in range(0, len(text), 4)]
        told += [{"type": "response.output_text.delta", **part, "delta": piece, "logprobs": []} for piece in pieces]
        told.append({"type": "response.output_item.done", "output_index": 0, "item": output[-1]})
    if arguments:
        call = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "splice", "status": "completed"}
        place = {"item_id": "fc_1", "output_index": len(output)}
        told.append({"type": "response.output_item.added", **place, "item": {**call, "arguments": ""}})
        pieces = [arguments[at : at + 4] for at in range(0, len(arguments), 4)]
        told += [{"type": "response.function_call_arguments.delta", **place, "delta": piece} for piece in pieces]
        told.append(
            {"type": "response.function_call_arguments.done", **place, "name": "splice", "arguments": arguments}
        )
        output.append({**call, "arguments": arguments})
        told.append({"type": "response.output_item.done", **place, "item": output[-1]})
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    usage = {"input_tokens": 3, "output_tokens": 9, "total_tokens": 12, **details}
    whole = {**base, "status": "completed", "output": output, "tools": [], "usage": usage}
    told.append({"type": "response.completed", "response": whole})
    return [
        f"event: {each['type']}\ndata: {json.dumps({**each, 'sequence_number': number})}\n\n".encode()
        for number, each in enumerate(told)
    ]


class ResponsesServer(ThreadingHTTPServer):
    """Serves one response. `cuts`: bytes of each stream's body that are sent before it is cut; None: all."""

    daemon_threads = True

    def __init__(self, events: list[bytes], cuts: Iterable[int | None], delay: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events = events
        self.cuts = iter(cuts)
        self.delay = delay
        self.asked: list[dict[str, Any]] = []
        self.starts: list[int] = []
        self.cancelled_after: float | None = None
        self.gone = False
        self.began = time.monotonic()

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that leave: that is what is tested."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ResponsesServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"] or 0)) or b"{}")
        if self.path.endswith("/cancel"):
            self.server.cancelled_after = time.monotonic() - self.server.began
            self._answer(200, b"{}")
            return
        self.server.asked.append(body)
        self.server.began = time.monotonic()
        self._stream(0)

    def do_GET(self) -> None:
        start = int(parse_qs(urlsplit(self.path).query).get("starting_after", ["-1"])[0]) + 1
        self.server.starts.append(start)
        if self.server.gone:
            self._answer(404, b'{"error": {"message": "gone"}}')
        else:
            self._stream(start)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, start: int) -> None:
        left = next(self.server.cuts, None)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for each in self.server.events[start:]:
            if self.server.delay:
                time.sleep(self.server.delay)
            part = each if left is None else each[:left]
            left = None if left is None else left - len(part)
            if part:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            if left == 0:
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def responses(events: list[bytes], *cuts: int | None, delay: float = 0.0) -> Iterator[ResponsesServer]:
    """Serve a response whose streams are cut, one after the other."""
    server = ResponsesServer(events, cuts, delay)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
