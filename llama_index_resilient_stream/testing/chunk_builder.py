"""Builds LlamaIndex's chunks for ScriptedLLM, with a `raw` in OpenAI's shape."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole

from .payloads import Payloads, Usage
from .script import Call


@dataclass(frozen=True)
class ChunkContent:
    """What one chunk carries: text, or arguments of the tool call `tool`, or reasoning, a finish reason, or usage."""

    text: str = ""
    thinking: str = ""
    tool: int | None = None
    finish_reason: str | None = None
    usage: Usage | None = None


class ChunkBuilder:
    """Builds LlamaIndex's chunks for one call: the text so far, the tool calls so far, and `raw` in OpenAI's shape."""

    def __init__(self, call: Call, payloads: Payloads, tool_names: list[str], sends_finish_reason: bool) -> None:
        self._call = call
        self._payloads = payloads
        self._tool_names = tool_names
        self._sends_finish_reason = sends_finish_reason
        self._text = ""
        # As in LlamaIndex's OpenAI class, later chunks change these very dicts.
        self._tool_calls: list[dict[str, Any]] = []
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

    def chat(self, content: ChunkContent) -> ChatResponse:
        """Build the next chunk of a chat."""
        raw = self._raw(content)
        extra = {"thinking_delta": content.thinking} if content.thinking else {}
        return ChatResponse(
            message=self._message(),
            delta=content.text if content.tool is None else "",
            raw=raw if self._sends_finish_reason else None,
            additional_kwargs=extra,
        )

    def completion(self, content: ChunkContent) -> CompletionResponse:
        """Build the next chunk of a completion."""
        raw = self._raw(content)
        return CompletionResponse(text=self._text, delta=content.text, raw=raw if self._sends_finish_reason else None)

    def whole_chat(self) -> ChatResponse:
        """Build the answer to a chat call that does not stream."""
        return ChatResponse(message=self._message(), raw=self._whole_raw())

    def whole_completion(self) -> CompletionResponse:
        """Build the answer to a completion call that does not stream."""
        return CompletionResponse(text=self._text, raw=self._whole_raw())

    def _message(self) -> ChatMessage:
        extra = {"tool_calls": list(self._tool_calls)} if self._tool_calls else {}
        return ChatMessage(role=MessageRole.ASSISTANT, content=self._text, additional_kwargs=extra)

    def _raw(self, content: ChunkContent) -> dict[str, Any]:
        self._call.sent += content.text
        if content.usage is not None:
            self._usage = content.usage
            return self._payloads.usage(content.usage)
        if content.finish_reason is not None:
            self._finish_reason = content.finish_reason
            return self._payloads.finish(content.finish_reason)
        if content.thinking:
            return self._payloads.thinking(content.thinking)
        if content.tool is not None:
            return self._payloads.chunk({"tool_calls": [self._tool_delta(content.tool, content.text)]})
        self._text += content.text
        return self._payloads.piece(content.text)

    def _tool_delta(self, index: int, arguments: str) -> dict[str, Any]:
        delta: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
        if index == len(self._tool_calls):
            delta |= {"id": f"call_{self._payloads.id}_{index}", "type": "function"}
            delta["function"]["name"] = self._tool_names[index]
            self._tool_calls.append(copy.deepcopy(delta))
        else:
            self._tool_calls[index]["function"]["arguments"] += arguments
        return delta

    def _whole_raw(self) -> dict[str, Any] | None:
        if not self._sends_finish_reason:
            return None
        usage = self._usage or Usage(0, 0)
        raw = self._payloads.whole(self._text, self._finish_reason, usage)
        if self._tool_calls:
            raw["choices"][0]["message"] |= {"content": None, "tool_calls": self._tool_calls}
        return raw if self._usage else {**raw, "usage": None}
