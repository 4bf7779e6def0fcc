"""ResilientLLM around `llm.as_structured_llm(X)`: its answers are X, by itself and in LlamaIndex's engines.

LlamaIndex knows a structured LLM by its class. So what `ResilientLLM(...)` makes around one is both, and its endpoints
are asked as methods of the structured LLM, whose object is whole or an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
)

from ..compat.llama_index import StructuredLLM
from .resilient_llm import ResilientLLM
from .spans import untraced
from .streams import ResilientAsyncStream, ResilientStream


class ResilientStructuredLLM(ResilientLLM, StructuredLLM):
    """What `ResilientLLM(llm.as_structured_llm(X))` makes.

    llm = ResilientLLM(OpenAI("gpt-4o").as_structured_llm(Invoice))
    llm.complete("...").raw                        # an Invoice
    index.as_query_engine(llm=llm).query("?")      # its response is an Invoice
    """

    def __init__(self, llm: Any, **kwargs: Any) -> None:
        super().__init__(llm, **{"output_cls": llm.output_cls, **kwargs})

    @untraced
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        answer: ChatResponse = self._call(self._own_method("chat", (list(messages),), kwargs))
        return answer

    @untraced
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        answer: ChatResponse = await self._acall(self._own_method("achat", (list(messages),), kwargs))
        return answer

    @untraced
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ResilientStream[ChatResponse]:
        return self._stream(self._own_method("stream_chat", (list(messages),), kwargs))

    @untraced
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ResilientAsyncStream[ChatResponse]:
        return self._astream(self._own_method("astream_chat", (list(messages),), kwargs))

    @untraced
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        answer: CompletionResponse = self._call(self._own_method("complete", (prompt, formatted), kwargs))
        return answer

    @untraced
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        answer: CompletionResponse = await self._acall(self._own_method("acomplete", (prompt, formatted), kwargs))
        return answer


@lru_cache(maxsize=64)
def resilient_structured(cls: type[ResilientLLM]) -> type[ResilientLLM]:
    """The class for a structured LLM that belongs to `ResilientLLM` or to a subclass of the user's."""
    if cls is ResilientLLM:
        return ResilientStructuredLLM
    return type(cls.__name__, (ResilientStructuredLLM, cls), {"__module__": cls.__module__})
