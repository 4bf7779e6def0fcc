"""Engines around a ResilientLLM recover, with and without `resilient()`; with it their responses say how it went."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
from conftest import QUICK, TEXT
from llama_index.core import PromptTemplate, SummaryIndex, get_response_synthesizer
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.chat_engine.types import AgentChatResponse, BaseChatEngine, StreamingAgentChatResponse
from llama_index.core.llms.llm import LLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import (
    CitationQueryEngine,
    CustomQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import QueryEngineTool
from tenacity import stop_after_attempt

from llama_index_resilient_stream import (
    ResilientAsyncStreamingResponse,
    ResilientLLM,
    ResilientStreamingAgentChatResponse,
    ResilientStreamingResponse,
    StreamInterruptedError,
    StreamStatus,
    atokens,
    resilient,
    tokens,
)
from llama_index_resilient_stream.testing import Cut, Fail, ScriptedLLM, Stall

RESET = ConnectionResetError("reset")
NODES = ("The cable fell silent in 1858.", "Its ends were joined in 1866.")
IMPATIENT = replace(QUICK, idle_timeout=0.03, first_token_timeout=0.5)

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


ENGINES: dict[str, Callable[[LLM], Any]] = {
    **{f"query-{mode}": (lambda llm, mode=mode: query_engine(llm, mode)) for mode in MODES},
    **{f"chat-{mode}": (lambda llm, mode=mode: chat_engine(llm, mode)) for mode in CHATS},
}


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


def ask_in_a_loop(engine: Any, question: str = "What happened?") -> Answer:
    return asyncio.run(aask(engine, question))


ASKING: dict[str, Callable[..., Answer]] = {"sync": ask, "async": ask_in_a_loop}


@pytest.fixture(params=ASKING, ids=str)
def asking(request: pytest.FixtureRequest) -> Callable[..., Answer]:
    return ASKING[request.param]


def resilient_llm(script: Any = (), text: str = TEXT, **kwargs: Any) -> ResilientLLM:
    return ResilientLLM(ScriptedLLM(text, script), **{"policy": IMPATIENT, **kwargs})


# The contract


@dataclass(frozen=True)
class Case:
    script: Any
    faults: list[str]
    fallback: bool = False


CASES = {
    "healthy": Case([], []),
    "reset": Case([Cut(40, RESET)], ["transport"]),
    "silent-end": Case([Cut(40)], ["truncated"]),
    "stall": Case([Stall(40, 0.2)], ["timeout"]),
    "error": Case([Cut(40, json.JSONDecodeError("broken line", "{", 1))], ["corrupt"]),
    "fails-at-first": Case([Fail(RESET)], ["transport"]),
    "empty": Case([Cut(0)], ["truncated"]),
    "twice": Case([Cut(40, RESET), Cut(90)], ["transport", "truncated"]),
    "fallback-in-the-middle": Case([Cut(40, RESET), Fail(RESET)], ["transport"] * 2, fallback=True),
}


def healed_llm(case: Case) -> ResilientLLM:
    spare = [ScriptedLLM(TEXT, model="spare")] if case.fallback else []
    return resilient_llm(case.script, fallbacks=spare)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("make", ENGINES.values(), ids=ENGINES)
def test_a_plain_engine_recovers(make: Any, case: Case, asking: Any) -> None:
    engine = make(healed_llm(case))
    answer = asking(engine)
    assert answer.text == TEXT
    if isinstance(engine, BaseChatEngine):
        assert [message.content for message in engine.chat_history] == ["What happened?", TEXT]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("make", ENGINES.values(), ids=ENGINES)
def test_a_resilient_engine_recovers_and_reports(make: Any, case: Case, asking: Any) -> None:
    llm = healed_llm(case)
    engine = make(llm)
    answer = asking(resilient(engine))
    assert answer.text == TEXT
    report = answer.response.report
    assert report.status is StreamStatus.COMPLETE
    each = [*report.calls, report]  # "refine" asks once for each of two nodes, the others once
    assert [fault for one in each for fault in one.faults] == case.faults
    assert any(one.recovered for one in each) is bool(case.faults)
    assert each[0].models[-1] == ("spare" if case.fallback else "scripted")
    assert report.characters == len(TEXT)
    assert str(answer.response) == TEXT
    if isinstance(engine, BaseChatEngine):
        assert isinstance(answer.response, ResilientStreamingAgentChatResponse)
        assert [message.content for message in engine.chat_history] == ["What happened?", TEXT]
        assert all("resilient_partial" not in message.additional_kwargs for message in engine.chat_history)
        expected = () if isinstance(engine, SimpleChatEngine) else NODES
    else:
        assert isinstance(answer.response, ResilientStreamingResponse | ResilientAsyncStreamingResponse)
        expected = NODES
    if not isinstance(answer.response, ResilientStreamingAgentChatResponse) or answer.response.source_nodes:
        assert [each.node.text for each in answer.response.source_nodes] == list(expected)
    assert answer.response.source_nodes or not expected or "Question" in type(engine).__name__
