"""A function-calling LLM that says exactly what a test wants, part by part: thoughts, text and pieces of tool calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms import types
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata, MessageRole
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.utils import parse_partial_json

HAS_CALL_BLOCKS = hasattr(types, "ToolCallBlock")  # since 0.14.5
HAS_THINKING_BLOCKS = hasattr(types, "ThinkingBlock")  # since 0.14.3


@dataclass(frozen=True)
class Piece:
    """A piece of the tool call at `index`."""

    name: str = ""
    arguments: str = ""
    index: int = 0


@dataclass(frozen=True)
class Thought:
    text: str


@dataclass(frozen=True)
class Turn:
    """What it says in answer to one call, and how that ends: with a finish reason, an error, or None: just so."""

    parts: Sequence[str | Piece | Thought]
    end: str | Exception | None = "stop"


class PartsLLM(FunctionCallingLLM):
    """Answers each call with the next turn. With `blocks`, tool calls are in ToolCallBlocks and nowhere else."""

    sends_finish_reason: bool = True
    blocks: bool = False
    _turns: Any = PrivateAttr()
    _asked: Any = PrivateAttr()

    def __init__(self, *turns: Turn, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._turns = list(turns)
        self._asked = []

    @property
    def asked(self) -> list[Sequence[ChatMessage]]:
        """The messages of each call."""
        asked: list[Sequence[ChatMessage]] = self._asked
        return asked

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="parts", is_chat_model=True, is_function_calling_model=True)

    def _say(self, messages: Sequence[ChatMessage]) -> Iterator[ChatResponse]:
        self._asked.append(messages)
        turn: Turn = self._turns.pop(0)
        said = _Said(self.blocks)
        for part in turn.parts:
            yield said.add(part)
        if isinstance(turn.end, Exception):
            raise turn.end
        if turn.end is not None:
            yield said.response(finish=turn.end)

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return list(self._say(messages))[-1]

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self.chat(messages)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        return self._say(messages)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        async def say() -> AsyncIterator[ChatResponse]:
            for response in self._say(messages):
                yield response

        return say()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise NotImplementedError

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    def _prepare_chat_with_tools(
        self, tools: Sequence[Any], user_msg: Any = None, chat_history: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role="user", content=user_msg)
        messages = [*(chat_history or []), *([user_msg] if user_msg else [])]
        return {"messages": messages, "tools": [tool.metadata.to_openai_tool() for tool in tools]}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """As lenient with cut arguments as LlamaIndex's own classes are."""
        calls = [
            (block.tool_call_id, block.tool_name, block.tool_kwargs)
            for block in getattr(response.message, "blocks", ())
            if type(block).__name__ == "ToolCallBlock"
        ] or [
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in response.message.additional_kwargs.get("tool_calls", [])
        ]
        if not calls and error_on_no_tool_call:
            raise ValueError("no tool call")
        return [ToolSelection(tool_id=id_, tool_name=name, tool_kwargs=_parsed(args)) for id_, name, args in calls]


def _parsed(arguments: str) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = parse_partial_json(arguments)
    except ValueError:
        return {}
    return parsed


class _Said:
    """What came so far of one turn."""

    def __init__(self, blocks: bool) -> None:
        self._blocks = blocks
        self._text = self._thoughts = ""
        self._calls: list[dict[str, Any]] = []

    def add(self, part: str | Piece | Thought) -> ChatResponse:
        if isinstance(part, str):
            self._text += part
            return self.response(delta=part)
        if isinstance(part, Thought):
            self._thoughts += part.text
            return self.response(thinking=part.text)
        if part.index == len(self._calls):
            function = {"name": "", "arguments": ""}
            self._calls.append({"id": f"call{part.index}", "type": "function", "function": function})
        function = self._calls[part.index]["function"]
        function["name"] += part.name
        function["arguments"] += part.arguments
        return self.response()

    def response(self, delta: str = "", thinking: str = "", finish: str | None = None) -> ChatResponse:
        return ChatResponse(
            message=self._message(),
            delta=delta,
            raw={"choices": [{"finish_reason": finish}]},
            additional_kwargs={"thinking_delta": thinking} if thinking else {},
        )

    def _message(self) -> ChatMessage:
        if not HAS_THINKING_BLOCKS:
            extra = {"tool_calls": self._calls} if self._calls else {}
            return ChatMessage(role=MessageRole.ASSISTANT, content=self._text, additional_kwargs=extra)
        blocks: list[Any] = [types.ThinkingBlock(content=self._thoughts)] if self._thoughts else []
        blocks += [types.TextBlock(text=self._text)] if self._text else []
        message = ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
        if self._blocks:
            message.blocks += [
                types.ToolCallBlock(
                    tool_call_id=call["id"],
                    tool_name=call["function"]["name"],
                    tool_kwargs=call["function"]["arguments"],
                )
                for call in self._calls
            ]
        elif self._calls:
            message.additional_kwargs = {"tool_calls": self._calls}
        return message
