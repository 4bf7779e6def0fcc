"""The UI message stream of the AI SDK, the npm package `ai`, version 7: what `useChat` reads.

A turn is a step of it, so that `reset-step` takes back what a `ResetPart` takes back (readers before version 7 do not
know it, and need it only where a restarted tool turn tells it differently). Recoveries and joints are transient data
parts: told while they happen, and no part of the message. A reader who comes back gets the whole message again, under
the same id: the SDK's transport expects that.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from ...report import StreamStatus
from ..parts import (
    EXPIRED,
    NAMES,
    EndPart,
    EventPart,
    JointPart,
    Part,
    RecoveryPart,
    ResetPart,
    Source,
    SourcesPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    UsagePart,
    to_dict,
)
from ..sse import HEADERS, HEARTBEAT, EventId, ServerSentEvent
from .base import Encoding, written

_FINISH = {
    StreamStatus.COMPLETE: "stop",
    StreamStatus.LENGTH: "length",
    StreamStatus.FILTERED: "content-filter",
    StreamStatus.UNKNOWN: "other",
}

Chunk = dict[str, Any]


class AISDK:
    """The AI SDK's UI message stream."""

    def encoding(self) -> Encoding:
        """A new encoding, for one connection."""
        return _MessageEncoding()


_HEADERS = {**HEADERS, "x-vercel-ai-ui-message-stream": "v1"}


class _MessageEncoding(Encoding):
    headers: Mapping[str, str] = _HEADERS
    heartbeat = HEARTBEAT
    replays = True

    def __init__(self) -> None:
        self._began = False
        self._step = 0  # counts from 1; 0 before the first one
        self._turn_over = True  # what the model says next begins a step
        self._block: tuple[str, str] | None = None  # kind and id of what is open
        self._blocks = 0
        self._beside: list[Chunk] = []  # of this step, and not the model's: a reset does not concern it
        self._usage: UsagePart | None = None

    def encode(self, part: Part, at: EventId) -> bytes:
        chunks = self._chunks(part)
        if not self._began:
            self._began = True
            chunks = [{"type": "start", "messageId": _message_id(at.generation)}, *chunks]
        events = b"".join(ServerSentEvent(written(chunk)).encode() for chunk in chunks)
        return events + (b"data: [DONE]\n\n" if isinstance(part, EndPart) else b"")

    def _chunks(self, part: Part) -> list[Chunk]:
        match part:
            case TextPart(text):
                return self._piece("text", text)
            case ThinkingPart(text):
                return self._piece("reasoning", text)
            case ToolCallPart() | ToolResultPart():
                return self._tool(part)
            case ResetPart():
                return self._reset()
            case EndPart():
                return self._end(part)
            case _:
                return self._beside_the_model(part)

    def _beside_the_model(self, part: Part) -> list[Chunk]:
        match part:
            case SourcesPart(sources):
                return self._aside([_source(source) for source in sources])
            case EventPart(name, data):
                return self._aside([{"type": f"data-{name}", "data": data}])
            case RecoveryPart() | JointPart():
                return [{"type": f"data-{NAMES[type(part)]}", "data": to_dict(part), "transient": True}]
            case UsagePart():
                self._usage = part
        return []

    def _piece(self, kind: str, text: str) -> list[Chunk]:
        chunks = self._turn()
        if self._block is None or self._block[0] != kind:
            chunks += self._close_block()
            self._blocks += 1
            self._block = kind, f"{kind}-{self._blocks}"
            chunks.append({"type": f"{kind}-start", "id": self._block[1]})
        return [*chunks, {"type": f"{kind}-delta", "id": self._block[1], "delta": text}]

    def _tool(self, part: ToolCallPart | ToolResultPart) -> list[Chunk]:
        # The application runs it, as a provider would: the browser must not.
        of_it = {"toolCallId": part.id, "dynamic": True, "providerExecuted": True}
        if isinstance(part, ToolCallPart):
            call = {"type": "tool-input-available", **of_it, "toolName": part.name, "input": part.arguments}
            return [*self._turn(), *self._close_block(), call]
        self._turn_over = True
        chunks = self._close_block()
        if part.failed:
            return [*chunks, {"type": "tool-output-error", **of_it, "errorText": str(part.output)}]
        return [*chunks, {"type": "tool-output-available", **of_it, "output": part.output}]

    def _turn(self) -> list[Chunk]:
        """A step begins with what the model says, and after a tool's result."""
        if not self._turn_over:
            return []
        self._turn_over = False
        self._beside = []
        chunks: list[Chunk] = [{"type": "finish-step"}] if self._step else []
        self._step += 1
        return [*self._close_block(), *chunks, {"type": "start-step"}]

    def _aside(self, chunks: list[Chunk]) -> list[Chunk]:
        if not self._turn_over:
            self._beside += chunks
        return [*self._close_block(), *chunks]

    def _reset(self) -> list[Chunk]:
        if self._turn_over:
            return []
        self._block = None
        return [{"type": "reset-step"}, *self._beside]

    def _close_block(self) -> list[Chunk]:
        if self._block is None:
            return []
        (kind, key), self._block = self._block, None
        return [{"type": f"{kind}-end", "id": key}]

    def _end(self, end: EndPart) -> list[Chunk]:
        chunks = self._close_block()
        if (finish := _FINISH.get(end.status)) is not None:  # type: ignore[call-overload]
            last: Chunk = {"type": "finish", "finishReason": finish}
            if self._usage is not None:
                last["messageMetadata"] = {"usage": to_dict(self._usage)}
            return [*chunks, *([{"type": "finish-step"}] if self._step else []), last]
        if end.status == StreamStatus.CANCELLED:
            return [*chunks, {"type": "abort", "reason": "cancelled"}]
        why = end.detail or f"The answer is not whole: {end.reason or end.status}."
        return [*chunks, {"type": "error", "errorText": why}]

    def refusal(self, end: EndPart) -> bytes:
        return (end.detail or EXPIRED).encode()


def _message_id(generation: str) -> str:
    """The same for whoever comes back, and no key to the answer: it will lie in the application's database."""
    if not generation:
        return f"msg-{secrets.token_hex(12)}"
    return f"msg-{hashlib.sha256(generation.encode()).hexdigest()[:24]}"


def _source(source: Source) -> Chunk:
    metadata = dict(source.metadata)
    beside = {"llamaindex": {"text": source.text, "score": source.score, "metadata": metadata}}
    title = next((str(metadata[name]) for name in ("title", "file_name", "filename") if metadata.get(name)), "")
    url = metadata.get("url")
    if isinstance(url, str) and url.startswith(("https://", "http://")):
        return {"type": "source-url", "sourceId": source.id, "url": url, "title": title, "providerMetadata": beside}
    document: Chunk = {"type": "source-document", "sourceId": source.id, "mediaType": "text/plain"}
    return {**document, "title": title or source.id, "providerMetadata": beside}
