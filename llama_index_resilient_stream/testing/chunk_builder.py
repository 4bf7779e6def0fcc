"""Builds LlamaIndex's chunks for ScriptedLLM, with a `raw` in OpenAI's shape."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole

from .payloads import Payloads, Usage
from .script import Call


@dataclass(frozen=True)
class Say:
    """One chunk: text, or arguments of the call at `tool`, or reasoning, or a finish reason, or usage."""

    text: str = ""
    thinking: str = ""
    tool: int | None = None
    finish: str | None = None
    usage: Usage | None = None


class Assembly:
    """Builds LlamaIndex's chunks: the text so far, the tool calls so far, and `raw` in OpenAI's shape."""

    def __init__(self, call: Call, payloads: Payloads, tool_names: list[str], sends_finish_reason: bool) -> None:
        self._call = call
        self._payloads = payloads
        self._tool_names = tool_names
        self._tells = sends_finish_reason
        self._text = ""
        # As in LlamaIndex's OpenAI class, later chunks change these very dicts.
        self._tool_calls: list[dict[str, Any]] = []
        self._finish: str | None = None
        self._usage: Usage | None = None

    def chat(self, say: Say) -> ChatResponse:
        """The next chunk of a chat."""
        raw = self._raw(say)
        extra = {"thinking_delta": say.thinking} if say.thinking else {}
        return ChatResponse(
            message=self._message(),
            delta=say.text if say.tool is None else "",
            raw=raw if self._tells else None,
            additional_kwargs=extra,
        )

    def completion(self, say: Say) -> CompletionResponse:
        """The next chunk of a completion."""
        raw = self._raw(say)
        return CompletionResponse(text=self._text, delta=say.text, raw=raw if self._tells else None)

    def whole_chat(self) -> ChatResponse:
        """The answer that was not streamed."""
        return ChatResponse(message=self._message(), raw=self._whole_raw())

    def whole_completion(self) -> CompletionResponse:
        """The completion that was not streamed."""
        return CompletionResponse(text=self._text, raw=self._whole_raw())

    def _message(self) -> ChatMessage:
        extra = {"tool_calls": list(self._tool_calls)} if self._tool_calls else {}
        return ChatMessage(role=MessageRole.ASSISTANT, content=self._text, additional_kwargs=extra)

    def _raw(self, say: Say) -> dict[str, Any]:
        self._call.sent += say.text
        if say.usage is not None:
            self._usage = say.usage
            return self._payloads.usage(say.usage)
        if say.finish is not None:
            self._finish = say.finish
            return self._payloads.finish(say.finish)
        if say.thinking:
            return self._payloads.thinking(say.thinking)
        if say.tool is not None:
            return self._payloads.chunk({"tool_calls": [self._tool_delta(say.tool, say.text)]})
        self._text += say.text
        return self._payloads.piece(say.text)

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
        if not self._tells:
            return None
        usage = self._usage or Usage(0, 0)
        raw = self._payloads.whole(self._text, self._finish, usage)
        if self._tool_calls:
            raw["choices"][0]["message"] |= {"content": None, "tool_calls": self._tool_calls}
        return raw if self._usage else {**raw, "usage": None}
