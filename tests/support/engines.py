"""The engines that tests ask: every kind that LlamaIndex makes, around any LLM."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from llama_index.core import SummaryIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import StreamingResponse
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.llms.llm import LLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.schema import TextNode

from llama_index_resilient_stream import atokens, tokens
from llama_index_resilient_stream.testing import ScriptedLLM

RESET = ConnectionResetError("reset")
NODES = ("The cable fell silent in 1858.", "Its ends were joined in 1866.")
MODES = ("compact", "refine", "simple_summarize", "tree_summarize", "generation")
CHATS = ("simple", "context", "condense_plus_context", "condense_question")


def index() -> SummaryIndex:
    return SummaryIndex([TextNode(text=text, id_=f"node-{i}") for i, text in enumerate(NODES)])


def query_engine(llm: LLM, mode: str = "compact", **kwargs: Any) -> BaseQueryEngine:
    engine: BaseQueryEngine = index().as_query_engine(
        llm=llm, streaming=True, response_mode=ResponseMode(mode), **kwargs
    )
    return engine


def chat_engine(llm: LLM, mode: str) -> BaseChatEngine:
    memory = ChatMemoryBuffer.from_defaults(token_limit=100_000)
    if mode == "simple":
        return SimpleChatEngine.from_defaults(llm=llm, memory=memory)
    retriever = index().as_retriever()
    if mode == "context":
        return ContextChatEngine.from_defaults(retriever=retriever, llm=llm, memory=memory)
    if mode == "condense_plus_context":
        return CondensePlusContextChatEngine.from_defaults(retriever=retriever, llm=llm, memory=memory)
    return CondenseQuestionChatEngine.from_defaults(query_engine=query_engine(llm), llm=llm, memory=memory)


@dataclass
class Answer:
    text: str
    response: Any


def ask(engine: Any, question: str = "What happened?") -> Answer:
    is_query = isinstance(engine, BaseQueryEngine)
    response = engine.query(question) if is_query else engine.stream_chat(question)
    return Answer("".join(tokens(response)), response)


async def aask(engine: Any, question: str = "What happened?") -> Answer:
    is_query = isinstance(engine, BaseQueryEngine)
    response = await (engine.aquery(question) if is_query else engine.astream_chat(question))
    if isinstance(response, StreamingResponse):  # core 0.10 forgets that it is asynchronous, in the mode "generation"
        return Answer("".join(tokens(response)), response)
    return Answer("".join([token async for token in atokens(response)]), response)


# Core 0.14.22 to 0.14.24 collect what compact and refine say and hand it out in one piece. There is nothing to be read
# token by token then but the simple engine, and a query engine in another mode.
def streams() -> bool:
    with asyncio.Runner() as runner:  # or LlamaIndex opens an event loop, and never closes it
        asyncio.set_event_loop(runner.get_loop())
        return len(list(query_engine(ScriptedLLM("two tokens", token=5)).query("?").response_gen)) > 1


STREAMS = streams()
MODE = "compact" if STREAMS else "simple_summarize"
MODES_OF_CHAT = CHATS if STREAMS else ("simple",)
