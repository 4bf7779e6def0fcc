"""OpenAI's chat completion chunks: an application with an index behind it is an endpoint that OpenAI's clients read.

    @app.post("/v1/chat/completions")
    async def completions(body: dict):
        question = body["messages"][-1]["content"]
        return SSEResponse(lambda: query_engine.query(question), protocol=OpenAIChat.of(body))

Thoughts are `reasoning_content`, as several servers send them; sources are a key `sources` of a chunk. Tool calls are
left out: the application has run them, and a client would run them again. What is sent cannot be taken back: a turn
that is told differently follows a blank line, but in an answer that is not streamed it replaces what was there.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...report import StreamStatus
from ..parts import EndPart, Part, ResetPart, SourcesPart, TextPart, ThinkingPart, ToolResultPart, UsagePart, to_dict
from ..sse import HEADERS, HEARTBEAT, EventId, ServerSentEvent
from .base import Encoding, written

_FINISH = {
    StreamStatus.COMPLETE: "stop",
    StreamStatus.UNKNOWN: "stop",  # OpenAI has no word for it
    StreamStatus.LENGTH: "length",
    StreamStatus.FILTERED: "content_filter",
}


_HEADERS = {**HEADERS, "Content-Type": "application/json"}


@dataclass(frozen=True)
class OpenAIChat:
    """Chat completions, streamed or not.

    Args:
        model: What the answer says that its model is.
        stream: Whether it is streamed. Otherwise nothing is sent before the end.
        include_usage: Whether a stream ends with a chunk that counts the tokens.
    """

    model: str = "llama-index"
    stream: bool = True
    include_usage: bool = False

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> OpenAIChat:
        """What the body of a request asks for: `model`, `stream` and `stream_options` are read, and nothing else."""
        options = body.get("stream_options") or {}
        return cls(
            str(body.get("model") or cls.model),
            bool(body.get("stream", False)),
            bool(options.get("include_usage", False)),
        )

    def encoding(self) -> Encoding:
        """A new encoding, for one connection."""
        return _ChunkEncoding(self) if self.stream else _CompletionEncoding(self)


class _OpenAIEncoding(Encoding):
    def __init__(self, settings: OpenAIChat, kind: str) -> None:
        self._settings = settings
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": settings.model,
        }

    def refusal(self, end: EndPart) -> bytes:
        return json.dumps(_error(end)).encode()


class _ChunkEncoding(_OpenAIEncoding):
    headers = HEADERS
    heartbeat = HEARTBEAT

    def __init__(self, settings: OpenAIChat) -> None:
        super().__init__(settings, "chat.completion.chunk")
        self._begun = self._said = False
        self._usage: UsagePart | None = None

    def encode(self, part: Part, at: EventId) -> bytes:
        match part:
            case TextPart(text):
                self._said = True
                return self._chunk({"content": text})
            case ThinkingPart(text):
                return self._chunk({"reasoning_content": text})
            case SourcesPart():
                return self._chunk({}, sources=to_dict(part)["sources"])
            case ResetPart():
                return self._chunk({"content": "\n\n"}) if self._said else b""
            case UsagePart():
                self._usage = part
            case EndPart():
                return self._end(part)
        return b""

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        if not self._begun:
            self._begun, delta = True, {"role": "assistant", "content": "", **delta}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data({**self._head, "choices": [choice], **more})

    def _end(self, end: EndPart) -> bytes:
        if (finish := _FINISH.get(end.status)) is None:  # type: ignore[call-overload]
            return _data(_error(end))  # OpenAI's clients raise it; nothing follows
        last = self._chunk({}, finish)
        if self._settings.include_usage:
            last += _data({**self._head, "choices": [], "usage": _usage(self._usage or UsagePart())})
        return last + b"data: [DONE]\n\n"


class _CompletionEncoding(_OpenAIEncoding):
    headers: Mapping[str, str] = _HEADERS
    collects = True

    def __init__(self, settings: OpenAIChat) -> None:
        super().__init__(settings, "chat.completion")
        self._before = self._turn = self._thoughts = ""
        self._usage = UsagePart()
        self._more: dict[str, Any] = {}

    def encode(self, part: Part, at: EventId) -> bytes:
        match part:
            case TextPart(text):
                self._turn += text
            case ThinkingPart(text):
                self._thoughts += text
            case ToolResultPart():
                self._before, self._turn = self._before + self._turn, ""
            case ResetPart():
                self._turn = self._thoughts = ""
            case UsagePart():
                self._usage = part
            case SourcesPart():
                self._more.setdefault("sources", []).extend(to_dict(part)["sources"])
            case EndPart():
                return self._end(part)
        return b""

    def _end(self, end: EndPart) -> bytes:
        if (finish := _FINISH.get(end.status)) is None:  # type: ignore[call-overload]
            self.status = end.code or 502
            # OpenAI's clients ask again after a 5xx, unless this says otherwise.
            self.headers = {**self.headers, "x-should-retry": "true" if end.retryable else "false"}
            return self.refusal(end)
        message = {"role": "assistant", "content": self._before + self._turn}
        if self._thoughts:
            message["reasoning_content"] = self._thoughts
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return written({**self._head, "choices": [choice], "usage": _usage(self._usage), **self._more}).encode()


def _data(value: Any) -> bytes:
    return ServerSentEvent(written(value)).encode()


def _usage(usage: UsagePart) -> dict[str, int]:
    counts = to_dict(usage)
    return {name: counts[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


def _error(end: EndPart) -> dict[str, Any]:
    why = end.detail or f"The answer is not whole: {end.reason or end.status}."
    kind = "invalid_request_error" if 400 <= end.code < 500 else "server_error"
    return {"error": {"message": why, "type": kind, "param": None, "code": end.reason or end.status}}
