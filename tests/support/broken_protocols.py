"""A server that answers in the streaming protocols of many providers, and breaks as the path says.

    http://127.0.0.1:PORT/cut/...       the first answer ends half-way, cleanly; the next ones are whole

It answers continuations as a model would: from the anchor that it is asked to copy on, or else from the beginning.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.providers_stub import PROTOCOLS as WHOLE
from support.providers_stub import chat_completions, pieces
from support.readers import TEXT

Event = dict[str, Any]

SCENARIOS = ("complete", "length", "filter", "cut", "reset", "stall", "http_503", "blank", "leave")
HEALED = ("cut", "reset", "stall", "http_503", "blank")

_ANCHOR = re.compile(r"copying this text exactly:\\n\\n(.*?)\"", re.S)
_WORDS = {
    "length": {"stop": "length", "end_turn": "max_tokens", "STOP": "MAX_TOKENS", "COMPLETE": "MAX_TOKENS"},
    "filter": {"stop": "content_filter", "end_turn": "refusal", "STOP": "SAFETY", "COMPLETE": "ERROR_TOXIC"},
}


def cohere_chat(body: Event, text: str) -> Iterator[Event]:
    yield {"event_type": "stream-start", "is_finished": False, "generation_id": "g"}
    for piece in pieces(text):
        yield {"event_type": "text-generation", "is_finished": False, "text": piece}
    whole = {"text": text, "generation_id": "g", "finish_reason": "COMPLETE"}
    yield {"event_type": "stream-end", "is_finished": True, "finish_reason": "COMPLETE", "response": whole}


def bedrock_converse(body: Event, text: str) -> Iterator[Event]:
    yield {"messageStart": {"role": "assistant"}}
    for piece in pieces(text):
        yield {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": piece}}}
    yield {"contentBlockStop": {"contentBlockIndex": 0}}
    yield {"messageStop": {"stopReason": "end_turn"}}
    usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
    yield {"metadata": {"usage": usage, "metrics": {"latencyMs": 1}}}


PROTOCOLS = {**WHOLE, "/converse-stream": bedrock_converse, "/v1/chat": cohere_chat}


def _frame(event: Event) -> bytes:
    """One event of Bedrock's, in its binary frame."""
    ((kind, payload),) = event.items()
    headers = b""
    for name, value in ((":event-type", kind), (":content-type", "application/json"), (":message-type", "event")):
        headers += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))


def _encoded(path: str, event: Event) -> bytes:
    if path.endswith("/converse-stream"):
        return _frame(event)
    if path.endswith(("/api/chat", "/v1/chat")):
        return json.dumps(event).encode() + b"\n"
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()


def _kind(path: str) -> str:
    if path.endswith("/converse-stream"):
        return "application/vnd.amazon.eventstream"
    return "application/x-ndjson" if path.endswith("/api/chat") else "text/event-stream"


def _reworded(event: Any, scenario: str) -> Any:
    """The event with other words for its end."""
    if event.get("type") == "response.completed":
        reason = "max_output_tokens" if scenario == "length" else "content_filter"
        response = {**event["response"], "status": "incomplete", "incomplete_details": {"reason": reason}}
        return {**event, "type": "response.incomplete", "response": response}
    words = _WORDS[scenario]
    found = json.dumps(event)
    for key in ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason"):
        for old, new in words.items():
            found = found.replace(f'"{key}": "{old}"', f'"{key}": "{new}"')
    return json.loads(found)


@dataclass
class Log:
    """What the server has seen."""

    bodies: list[Event] = field(default_factory=list)
    written: int = 0
    gone: float | None = None
    """When it saw that the reader had left."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log: Log

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        models = [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]
        limits = {"inputTokenLimit": 9999, "outputTokenLimit": 9999}
        self._send(200, {"object": "list", "data": models, "name": "m", **limits})

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        raw = self.rfile.read(int(self.headers["content-length"] or 0)).decode()
        body = json.loads(raw or "{}")
        if not (path.endswith(("-stream", "streamGenerateContent")) or body.get("stream")):
            self._send(200, {"model_info": {}, "capabilities": ["completion"]})
            return
        self.log.bodies.append(body)
        scenario = path.split("/")[1]
        first = len(self.log.bodies) == 1
        if scenario == "http_503" and first:
            self._send(503, {"error": {"message": "overloaded", "type": "server_error", "code": 503}})
            return
        anchor = _ANCHOR.findall(raw)
        said = json.loads(f'"{anchor[-1]}"') if anchor else ""
        text = TEXT[TEXT.index(said) :] if said and said in TEXT else TEXT
        try:
            self._stream(path, body, text, scenario if first or scenario not in HEALED else "complete")
        except OSError:
            self.log.gone = time.monotonic()
            self.close_connection = True

    def _stream(self, path: str, body: Event, text: str, scenario: str) -> None:
        make = next(make for end, make in PROTOCOLS.items() if path.endswith(end))
        events = list(make({**body, "stream": True, "tools": None}, "\n\n" if scenario == "blank" else text))
        events = events[: len(events) // 2] if scenario in ("cut", "reset", "stall") else events
        if scenario == "blank":
            said = next(event for event in events if "\\n\\n" in json.dumps(event))
            events = [json.loads(json.dumps(said).replace(', "finishReason": "STOP"', ""))]
        self.send_response(200)
        self.send_header("content-type", _kind(path))
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in events:
            sent = _reworded(event, scenario) if scenario in _WORDS else event
            self._chunk(_encoded(path, sent))
            self.log.written += 1
            if scenario == "leave":
                time.sleep(0.03)
        if scenario == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            raise ConnectionResetError
        if scenario == "stall":
            self.connection.settimeout(8)
            if not self.connection.recv(1):
                raise ConnectionResetError
        if make is chat_completions and scenario not in HEALED:
            self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _send(self, status: int, body: Any) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


@contextmanager
def breaking() -> Iterator[tuple[str, Log]]:
    """The server's address and what it has seen."""
    log = Log()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"log": log}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", log
    finally:
        server.shutdown()
        server.server_close()
