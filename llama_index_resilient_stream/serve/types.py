"""What can be served, as types: `SSEResponse(source)` and everything that takes a source."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.chat_engine.types import AgentChatResponse, StreamingAgentChatResponse

__all__ = ["Answerable", "Source"]

Piece = str | ChatResponse | CompletionResponse

Answerable = (
    Response
    | PydanticResponse
    | StreamingResponse
    | AsyncStreamingResponse
    | AgentChatResponse
    | StreamingAgentChatResponse
    | Iterator[Piece]
    | AsyncIterator[Piece]
)
"""What a query engine, a chat engine or an LLM's stream method returns, of LlamaIndex or of `resilient(engine)`; also a
generator of texts of your own."""

Source = Answerable | Awaitable[Answerable] | Callable[[], Answerable | Awaitable[Answerable]]
"""An answer; an awaitable of one; or a function that returns either. A function is called once, when its answer is
first asked for: in a thread, unless it is a coroutine function."""
