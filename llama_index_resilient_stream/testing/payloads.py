"""What an OpenAI-compatible server puts into events and bodies: chat, tool calls, legacy completions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"


def event(payload: dict[str, Any]) -> bytes:
    """Encode one server-sent event. Characters outside ASCII are not escaped, so that a cut can fall inside one."""
    return b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n"


@dataclass(frozen=True)
class Usage:
    """Token counts; a token is one piece of the stream."""

    prompt: int
    completion: int

    def payload(self) -> dict[str, int]:
        """Return the counts in OpenAI's form."""
        total = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": total}


@dataclass(frozen=True)
class Payloads:
    """Builds the payloads of one response. With `tool_call` (name, JSON arguments) its pieces are arguments."""

    id: str
    model: str
    chat: bool = True
    tool_call: tuple[str, str] | None = None
    include_usage: bool = False
    fingerprint: str | None = None
    """What the events say of the server that sends them."""

    @property
    def normal_finish(self) -> str:
        """The finish reason of a whole answer."""
        return "tool_calls" if self.tool_call else "stop"

    def opening(self) -> list[dict[str, Any]]:
        """Return the events before the first piece. A completion has none."""
        if not self.chat:
            return []
        if self.tool_call is None:
            return [self.chunk({"role": "assistant", "content": ""})]
        call = self._call(self.tool_call[0], "")
        return [self.chunk({"role": "assistant", "content": None, "tool_calls": [{"index": 0, **call}]})]

    def piece(self, text: str) -> dict[str, Any]:
        """Return one piece of the text, or of the tool's arguments."""
        if self.tool_call is None:
            return self.chunk({"content": text})
        return self.chunk({"tool_calls": [{"index": 0, "function": {"arguments": text}}]})

    def thinking(self, text: str) -> dict[str, Any]:
        """Return one piece of reasoning, in the field that DeepSeek, vLLM and others use."""
        return self.chunk({"reasoning_content": text})

    def finish(self, reason: str | None) -> dict[str, Any]:
        """Return the last chunk with a choice."""
        return self.chunk({} if self.chat else {"content": ""}, reason)

    def usage(self, usage: Usage) -> dict[str, Any]:
        """Return the usage chunk, which has no choices."""
        return {**self._envelope("chat.completion.chunk"), "choices": [], "usage": usage.payload()}

    def whole(self, text: str, reason: str | None, usage: Usage) -> dict[str, Any]:
        """Return the body of a response that is not streamed."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "logprobs": None}
        if not self.chat:
            choice["text"] = text
        elif self.tool_call is None:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            call = self._call(self.tool_call[0], text)
            choice["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
        return {**self._envelope("chat.completion"), "choices": [choice], "usage": usage.payload()}

    def _call(self, name: str, arguments: str) -> dict[str, Any]:
        return {
            "id": f"call_{self.id}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }

    def chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        """Return one event with one choice."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "logprobs": None}
        choice |= {"delta": delta} if self.chat else {"text": delta.get("content", "")}
        chunk = {**self._envelope("chat.completion.chunk"), "choices": [choice]}
        return {**chunk, "usage": None} if self.include_usage else chunk

    def _envelope(self, kind: str) -> dict[str, Any]:
        envelope = {
            "id": self.id,
            "object": kind if self.chat else "text_completion",
            "created": 0,
            "model": self.model,
        }
        return envelope if self.fingerprint is None else {**envelope, "system_fingerprint": self.fingerprint}


def turns_of(messages: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the messages of a chat request as (role, text); parts that are not text are left out."""
    return [(str(message.get("role", "")), _text_of(message.get("content"))) for message in messages]


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
