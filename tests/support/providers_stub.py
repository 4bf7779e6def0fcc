"""A server that answers in the protocols of seven providers, to compare what LlamaIndex's integrations send to it."""

from __future__ import annotations

import itertools
import json
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OBJECT = {"title": "Rain", "year": 1999}
TEXT = json.dumps(OBJECT)

Body = dict[str, Any]
Answer = Callable[[Body, str], Iterator[Any]]
"""From a request's body and the text of its answer to the events of it; a whole answer is one event."""


def pieces(text: str) -> list[str]:
    return [text[at : at + 9] for at in range(0, len(text), 9)]


def chat_completions(body: Body, text: str) -> Iterator[Any]:
    tools = body.get("tools")
    finish = "tool_calls" if tools else "stop"
    base = {"id": "1", "created": 1, "model": "m"}

    def message(part: str, first: bool) -> Body:
        if not tools:
            return {"role": "assistant", "content": part}
        function = {"name": tools[0]["function"]["name"] if first else None, "arguments": part}
        call = {"index": 0, "id": "c1" if first else None, "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    if not body.get("stream"):
        choice = {"index": 0, "message": message(text, True), "finish_reason": finish}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        yield {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
        return
    base["object"] = "chat.completion.chunk"
    for number, piece in enumerate(pieces(text)):
        yield {**base, "choices": [{"index": 0, "delta": message(piece, number == 0), "finish_reason": None}]}
    yield {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}


def responses(body: Body, text: str) -> Iterator[Any]:
    tools = body.get("tools")
    item: Body = {"type": "message", "id": "i1", "role": "assistant", "status": "completed"}
    item["content"] = [{"type": "output_text", "text": text, "annotations": []}]
    if tools:
        item = {"type": "function_call", "id": "i1", "call_id": "c1", "status": "completed"}
        item |= {"name": tools[0]["name"], "arguments": text}
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2, **details}
    whole = {"id": "r1", "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": [item]}
    whole |= {"parallel_tool_calls": False, "tool_choice": "auto", "tools": [], "usage": usage}
    if not body.get("stream"):
        yield whole
        return
    begun = {**item, "status": "in_progress", **({"arguments": ""} if tools else {"content": []})}
    place = {"item_id": "i1", "output_index": 0}
    events: list[Body] = [
        {"type": "response.created", "response": {**whole, "status": "in_progress", "output": [], "usage": None}},
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
    ]
    if tools:
        kind = "response.function_call_arguments"
        events += [{"type": f"{kind}.delta", **place, "delta": piece} for piece in pieces(text)]
        events += [{"type": f"{kind}.done", **place, "arguments": text, "name": item["name"]}]
    else:
        place |= {"content_index": 0, "logprobs": []}
        events += [{"type": "response.output_text.delta", **place, "delta": piece} for piece in pieces(text)]
        events += [{"type": "response.output_text.done", **place, "text": text}]
    events += [{"type": "response.output_item.done", "output_index": 0, "item": item}]
    events += [{"type": "response.completed", "response": whole}]
    for number, event in enumerate(events):
        yield {**event, "sequence_number": number}


def anthropic_messages(body: Body, text: str) -> Iterator[Any]:
    tools = body.get("tools")
    stop = {"stop_reason": "tool_use" if tools else "end_turn", "stop_sequence": None}
    usage = {"input_tokens": 1, "output_tokens": 1}
    head = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "usage": usage}
    call = {"type": "tool_use", "id": "t1", "name": tools[0]["name"], "input": {}} if tools else {}
    if not body.get("stream"):
        block = {**call, "input": json.loads(text)} if tools else {"type": "text", "text": text}
        yield {**head, "content": [block], **stop}
        return
    yield {"type": "message_start", "message": {**head, "content": [], "stop_reason": None, "stop_sequence": None}}
    yield {"type": "content_block_start", "index": 0, "content_block": call or {"type": "text", "text": ""}}
    for piece in pieces(text):
        delta = {"type": "input_json_delta", "partial_json": piece} if tools else {"type": "text_delta", "text": piece}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 1}}
    yield {"type": "message_stop"}


def ollama_chat(body: Body, text: str) -> Iterator[Any]:
    tools = body.get("tools")
    head = {"model": "m", "created_at": "2026-01-01T00:00:00Z"}
    end = {**head, "done": True, "done_reason": "stop", "prompt_eval_count": 1, "eval_count": 1}
    calls: list[Body] = []
    if tools:
        calls = [{"function": {"name": tools[0]["function"]["name"], "arguments": json.loads(text)}}]
    if not body.get("stream"):
        yield {**end, "message": {"role": "assistant", "content": "" if tools else text, "tool_calls": calls or None}}
        return
    for piece in [""] if tools else pieces(text):
        yield {**head, "done": False, "message": {"role": "assistant", "content": piece, "tool_calls": calls or None}}
    yield {**end, "message": {"role": "assistant", "content": ""}}


def generate_content(body: Body, text: str) -> Iterator[Any]:
    tools = body.get("tools")
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}

    def answer(part: Body, finish: str | None) -> Body:
        candidate = {"index": 0, "content": {"role": "model", "parts": [part]}}
        return {"candidates": [candidate | ({"finishReason": finish} if finish else {})], "usageMetadata": usage}

    if tools:
        name = tools[0]["functionDeclarations"][0]["name"]
        yield answer({"functionCall": {"name": name, "args": json.loads(text)}}, "STOP")
        return
    parts = pieces(text) if body["stream"] else [text]
    for number, piece in enumerate(parts, 1):
        yield answer({"text": piece}, "STOP" if number == len(parts) else None)


def mistral(body: Body, text: str) -> Iterator[Any]:
    """As OpenAI has it, but a call comes whole, and the usage with the finish reason."""
    if not body.get("stream") or not body.get("tools"):
        for event in chat_completions(body, text):
            for choice in event["choices"] if not body.get("stream") else ():
                choice["message"]["content"] = choice["message"]["content"] or ""
            yield event
        return
    head = {"id": "1", "created": 1, "model": "m", "object": "chat.completion.chunk"}
    function = {"name": body["tools"][0]["function"]["name"], "arguments": text}
    call = {"index": 0, "id": "c12345678", "type": "function", "function": function}
    for delta, finish in (({"content": "", "tool_calls": [call]}, None), ({"content": ""}, "tool_calls")):
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def converse(body: Body, text: str) -> Iterator[Any]:
    """Of a stream pairs of an event's type and its payload."""
    tools = (body.get("toolConfig") or {}).get("tools")
    stop = "tool_use" if tools else "end_turn"
    usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
    name = tools[0]["toolSpec"]["name"] if tools else ""
    if not body.get("stream"):
        use = {"toolUse": {"toolUseId": "u1", "name": name, "input": json.loads(text)}} if tools else {"text": text}
        message = {"role": "assistant", "content": [use]}
        yield {"output": {"message": message}, "stopReason": stop, "usage": usage, "metrics": {"latencyMs": 1}}
        return
    yield "messageStart", {"role": "assistant"}
    if tools:
        start = {"toolUse": {"toolUseId": "u1", "name": name}}
        yield "contentBlockStart", {"contentBlockIndex": 0, "start": start}
    for piece in pieces(text):
        delta = {"toolUse": {"input": piece}} if tools else {"text": piece}
        yield "contentBlockDelta", {"contentBlockIndex": 0, "delta": delta}
    yield "contentBlockStop", {"contentBlockIndex": 0}
    yield "messageStop", {"stopReason": stop}
    yield "metadata", {"usage": usage, "metrics": {"latencyMs": 1}}


def aws_event(kind: str, payload: Body) -> bytes:
    """One message of AWS's event stream: lengths, headers and payload, each with its checksum."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    data = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(head) + len(data), len(head))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + data
    return message + struct.pack(">I", zlib.crc32(message))


def gives_tool_results(body: Body) -> bool:
    """Whether a tool's result is what was said last."""
    turns = body.get("messages") or body.get("contents") or body.get("input") or [{}]
    last = turns[-1] if isinstance(turns, list) else {}
    parts = [part for part in (last.get("content") or last.get("parts") or ()) if isinstance(part, dict)]
    kinds = {last.get("role"), last.get("type"), *(part.get("type") for part in parts), *(k for p in parts for k in p)}
    return bool(kinds & {"tool", "function_call_output", "tool_result", "functionResponse", "toolResult"})


def without_tools(body: Body) -> Body:
    return {name: value for name, value in body.items() if name not in ("tools", "toolConfig")}


PROTOCOLS: dict[str, Answer] = {
    "/mistral/v1/chat/completions": mistral,
    "/converse": converse,
    "/converse-stream": converse,
    "/chat/completions": chat_completions,
    "/responses": responses,
    "/messages": anthropic_messages,
    "/api/chat": ollama_chat,
    ":generateContent": generate_content,
    ":streamGenerateContent": generate_content,
}


@dataclass
class Stub:
    """What was sent, and the texts of the answers to come: each is said once, then `TEXT` for ever."""

    url: str = ""
    seen: list[tuple[str, Body]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    status: int = 200
    """What every request is answered with; anything else has no stream behind it."""
    after_tools: str = "Rain is sung."
    """The answer to a tool's result."""
    breaks: bool = False
    """Whether every stream breaks off behind its first words, or behind its call's first arguments."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    def do_GET(self) -> None:
        name = "models/" + self.path.rpartition("/")[2]
        self._send(json.dumps({"name": name, "inputTokenLimit": 4096, "outputTokenLimit": 4096}), "application/json")

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.stub.seen.append((path, body))
        if self.stub.status != 200:
            self._send(json.dumps({"error": {"message": "try again"}}), "application/json", self.stub.status)
            return
        protocol = next(each for each in PROTOCOLS if path.endswith(each))
        streamed = bool(body.get("stream")) or "stream" in path
        text = self.stub.texts.pop(0) if self.stub.texts else TEXT
        if gives_tool_results(body):
            body, text = without_tools(body), self.stub.after_tools
        events = list(PROTOCOLS[protocol]({**body, "stream": streamed}, text))
        if not streamed:
            self._send(json.dumps(events[0]), "application/json")
        else:
            kind, parts = _on_the_wire(path, events)
            self._send(b"".join(parts), kind, said=_half(parts, text) if self.stub.breaks else None)

    def _send(self, text: str | bytes, kind: str, status: int = 200, said: bytes | None = None) -> None:
        """Send a text, or no more of it than `said`, whose end comes too early."""
        payload = text if isinstance(text, bytes) else text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(payload)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(payload if said is None else said)

    def log_message(self, *_: Any) -> None:
        pass


def _on_the_wire(path: str, events: list[Any]) -> tuple[str, list[bytes]]:
    """The content type of a stream, and its events as they are sent."""
    if path.endswith("/converse-stream"):
        return "application/vnd.amazon.eventstream", [aws_event(*event) for event in events]
    if path.endswith("/api/chat"):
        return "application/x-ndjson", [json.dumps(event).encode() + b"\n" for event in events]
    names = (f"event: {event['type']}\n" if "type" in event else "" for event in events)
    parts = [f"{name}data: {json.dumps(event)}\n\n".encode() for name, event in zip(names, events, strict=True)]
    return "text/event-stream", parts + [b"data: [DONE]\n\n"] * ("completions" in path)


def _half(parts: list[bytes], text: str) -> bytes:
    """What is sent of a stream that breaks: all that comes before the last words of the text."""
    last = json.dumps(pieces(text)[-1])[1:-1].encode()
    before = b"".join(itertools.takewhile(lambda part: last not in part, parts))
    return before or parts[0][: len(parts[0]) // 2]


def serving() -> Iterator[Stub]:
    """Serve until the generator is closed; for a fixture."""
    stub = Stub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"stub": stub}))
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
