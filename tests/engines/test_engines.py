"""Engines around a ResilientLLM recover, with and without `resilient()`; with it their responses say how it went."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
from llama_index.core import MockEmbedding, Settings, VectorStoreIndex, get_response_synthesizer
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import Response
from llama_index.core.chat_engine import (
    CondenseQuestionChatEngine,
    SimpleChatEngine,
)
from llama_index.core.chat_engine.types import AgentChatResponse, BaseChatEngine
from llama_index.core.llms.llm import LLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.objects import ObjectIndex
from llama_index.core.query_engine import (
    CitationQueryEngine,
    CustomQueryEngine,
    RetrieverRouterQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
    ToolRetrieverRouterQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.schema import TextNode
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
    resilient,
)
from llama_index_resilient_stream.engines.binding import FOLLOWED
from llama_index_resilient_stream.testing import Cut, Fail, ScriptedLLM, Stall
from support.engines import CHATS, MODES, NODES, RESET, Answer, aask, ask, chat_engine, index, query_engine
from support.readers import QUICK, TEXT

# Not 0.1: before core 0.13.3 an answer that is whole just when LlamaIndex's own 0.1 s of polling end loses its rest.
IMPATIENT = replace(QUICK, idle_timeout=0.06)


ENGINES: dict[str, Callable[[LLM], Any]] = {
    **{f"query-{mode}": (lambda llm, mode=mode: query_engine(llm, mode)) for mode in MODES},
    **{f"chat-{mode}": (lambda llm, mode=mode: chat_engine(llm, mode)) for mode in CHATS},
}


@contextlib.contextmanager
def unless_it_nests_loops() -> Iterator[None]:
    """Older releases run a loop inside of the running one in some engines, with any LLM, and so cannot be asked."""
    try:
        yield
    except RuntimeError as error:
        if "nested async" not in str(error):
            raise
        with warnings.catch_warnings(action="ignore"):  # the coroutines that it then does not await
            nested: BaseException | None = error
            while nested is not None:
                traceback.clear_frames(nested.__traceback__)
                nested = nested.__context__
            gc.collect()
        pytest.skip("this LlamaIndex nests event loops here")


def ask_in_a_loop(engine: Any, question: str = "What happened?") -> Answer:
    return asyncio.run(aask(engine, question))


ASKING: dict[str, Callable[..., Answer]] = {"sync": ask, "async": ask_in_a_loop}


@pytest.fixture(params=ASKING, ids=str)
def asking(request: pytest.FixtureRequest) -> Callable[..., Answer]:
    return ASKING[request.param]


def resilient_llm(script: Any = (), text: str = TEXT, **kwargs: Any) -> ResilientLLM:
    return ResilientLLM(ScriptedLLM(text, script), **{"policy": QUICK, **kwargs})


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
    "stall": Case([Stall(40, 0.6)], ["timeout"]),
    "error": Case([Cut(40, json.JSONDecodeError("broken line", "{", 1))], ["corrupt"]),
    "fails-at-first": Case([Fail(RESET)], ["transport"]),
    "empty": Case([Cut(0)], ["truncated"]),
    "twice": Case([Cut(40, RESET), Cut(90)], ["transport", "truncated"]),
    "fallback-in-the-middle": Case([Cut(40, RESET), Fail(RESET)], ["transport"] * 2, fallback=True),
}


def healed_llm(case: Case) -> ResilientLLM:
    spare = [ScriptedLLM(TEXT, model="spare")] if case.fallback else []
    stalls = any(isinstance(cue, Stall) for cue in case.script)
    return resilient_llm(case.script, fallbacks=spare, policy=IMPATIENT if stalls else QUICK)


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


# Engines in engines


def condense_engine_in_a_chat(llm: LLM) -> Any:
    return CondenseQuestionChatEngine.from_defaults(
        query_engine=resilient(query_engine(llm)),
        llm=llm,
        memory=ChatMemoryBuffer.from_defaults(token_limit=100_000),
    )


def tool(engine: Any, name: str) -> QueryEngineTool:
    return QueryEngineTool.from_defaults(engine, name=name, description=f"Knows {name}.")


def router(llm: LLM, engine: Any = None, **kwargs: Any) -> RouterQueryEngine:
    tools = [tool(engine or query_engine(llm), "cables"), tool(query_engine(llm), "ships")]
    return RouterQueryEngine(
        selector=LLMSingleSelector.from_defaults(llm=llm), query_engine_tools=tools, llm=llm, **kwargs
    )


class Asker(CustomQueryEngine):
    """Asks its LLM by itself, and again if that fails."""

    llm: Any
    again: bool = False

    def custom_query(self, query_str: str) -> Any:
        try:
            return self.llm.complete(query_str).text
        except Exception:
            if not self.again:
                raise
            return self.llm.complete(query_str).text


CHOICE = '[{"choice": 1, "reason": "cables"}]'
QUESTIONS = '```json\n[{"sub_question": "What broke?", "tool_name": "cables"}]\n```'


class Answering(ScriptedLLM):
    """Chooses where it is asked to choose, and asks where it is asked for questions."""

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return self._instead(prompt, super().complete(prompt, formatted, **kwargs), "text")

    def chat(self, messages: Any, **kwargs: Any) -> Any:
        return self._instead(str(messages), super().chat(messages, **kwargs), "message")

    async def achat(self, messages: Any, **kwargs: Any) -> Any:
        return self._instead(str(messages), await super().achat(messages, **kwargs), "message")

    def _instead(self, asked: str, response: Any, field: str) -> Any:
        told = CHOICE if "Knows ships" in asked and "choice" in asked else None
        told = QUESTIONS if "sub_question" in asked else told
        if told is not None:
            value = told if field == "text" else response.message.__class__(role="assistant", content=told)
            setattr(response, field, value)
        return response


def answering(script: Any = (), **kwargs: Any) -> ResilientLLM:
    return ResilientLLM(Answering(TEXT, script), **{"policy": QUICK, **kwargs})


def test_a_router_reports_the_answer_and_lists_the_choice(asking: Any) -> None:
    answer = asking(resilient(router(answering([None, Cut(40, RESET)]))))
    assert answer.text == TEXT
    assert answer.response.report.faults == ["transport"]
    assert [call.status for call in answer.response.report.calls] == [StreamStatus.COMPLETE]
    assert [each.node.text for each in answer.response.source_nodes] == list(NODES)


@pytest.mark.parametrize("outer", [resilient, lambda engine: engine], ids=["both", "inner-only"])
def test_a_resilient_engine_in_a_router(outer: Any, asking: Any) -> None:
    llm = answering([None, Cut(40, RESET)])
    answer = asking(outer(router(llm, resilient(query_engine(llm)))))
    assert answer.text == TEXT
    assert answer.response.report.faults == ["transport"]
    assert len(answer.response.report.calls) == (1 if outer is resilient else 0)


def test_condensing_over_a_resilient_engine(asking: Any) -> None:
    engine = resilient(condense_engine_in_a_chat(resilient_llm([None, None, Cut(40, RESET)])))
    asking(engine)
    answer = asking(engine, "And then?")
    assert answer.text == TEXT
    assert answer.response.report.faults == ["transport"]
    assert [call.status for call in answer.response.report.calls] == [StreamStatus.COMPLETE]


@pytest.mark.parametrize("mode", ["condense_plus_context", "condense_question"])
def test_the_second_turn_lists_the_condensing(mode: str, asking: Any) -> None:
    engine = resilient(chat_engine(resilient_llm([None, None, Cut(40)]), mode))
    asking(engine)
    answer = asking(engine, "And then?")
    assert answer.text == TEXT
    assert answer.response.report.faults == ["truncated"]
    assert len(answer.response.report.calls) == 1


def test_sub_questions() -> None:
    llm = answering([None, Cut(40, RESET)])
    engine = SubQuestionQueryEngine.from_defaults(
        query_engine_tools=[tool(query_engine(llm), "cables"), tool(query_engine(llm), "ships")],
        llm=llm,
        question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
        response_synthesizer=get_response_synthesizer(llm=llm, streaming=True),
        use_async=False,
        verbose=False,
    )
    answer = ask(resilient(engine))
    assert answer.text == TEXT
    assert answer.response.report.status is StreamStatus.COMPLETE
    assert len(answer.response.report.calls) == 2
    assert [fault for call in answer.response.report.calls for fault in call.faults] == ["transport"]


async def test_sub_questions_asynchronously() -> None:
    llm = answering([None, Cut(40, RESET)])
    engine = SubQuestionQueryEngine.from_defaults(
        query_engine_tools=[tool(query_engine(llm), "cables"), tool(query_engine(llm), "ships")],
        llm=llm,
        question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
        response_synthesizer=get_response_synthesizer(llm=llm, streaming=True),
        verbose=False,
    )
    with unless_it_nests_loops():
        answer = await aask(resilient(engine))
    assert answer.text == TEXT
    assert answer.response.report.status is StreamStatus.COMPLETE
    assert len(answer.response.report.calls) == 2
    assert [fault for call in answer.response.report.calls for fault in call.faults] == ["transport"]


def retrieving_router(llm: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> BaseQueryEngine:
    """Routers that find the engine they ask only when they are asked."""
    monkeypatch.setattr(Settings, "_llm", llm)  # one of them insists on it
    embedding = MockEmbedding(embed_dim=4)
    if kind == "nodes":
        nodes = VectorStoreIndex([TextNode(text=NODES[0])], embed_model=embedding)
        return RetrieverRouterQueryEngine(nodes.as_retriever(similarity_top_k=1), lambda _node: query_engine(llm))
    tools = ObjectIndex.from_objects(
        [tool(query_engine(llm), "cables")], index_cls=VectorStoreIndex, embed_model=embedding
    )
    summarizer = get_response_synthesizer(llm=llm, response_mode=ResponseMode.TREE_SUMMARIZE)
    return ToolRetrieverRouterQueryEngine(tools.as_retriever(similarity_top_k=1), summarizer=summarizer)


@pytest.mark.parametrize("kind", ["nodes", "tools"])
def test_routers_that_retrieve_their_engines(kind: str, asking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = resilient(retrieving_router(resilient_llm([Cut(40, RESET)]), kind, monkeypatch))
    with unless_it_nests_loops():
        answer = asking(engine)
    assert answer.text == TEXT
    assert answer.response.report.faults == ["transport"]


@pytest.mark.parametrize("kind", ["nodes", "tools"])
def test_engines_that_are_retrieved_become_resilient(kind: str, asking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = resilient(retrieving_router(ScriptedLLM(TEXT, [Cut(40, RESET)]), kind, monkeypatch))
    with unless_it_nests_loops():
        answer = asking(engine)
    assert answer.text == TEXT


def test_citations(asking: Any) -> None:
    llm = resilient_llm([Cut(40, RESET)])
    engine = CitationQueryEngine(
        retriever=index().as_retriever(),
        llm=llm,
        response_synthesizer=get_response_synthesizer(llm=llm, streaming=True),
    )
    answer = asking(resilient(engine))
    assert answer.text == TEXT
    assert answer.response.report.faults == ["transport"]
    assert "Source 1" in answer.response.source_nodes[0].node.text


def test_a_custom_engine_keeps_its_llm() -> None:
    llm = resilient_llm([Cut(0, RESET)])
    engine = Asker(llm=llm)
    before = engine.llm
    response = resilient(engine).query("?")
    assert type(response) is Response
    assert str(response) == TEXT
    assert response.report.faults == ["transport"]  # type: ignore[union-attr]
    assert engine.llm is before


def test_an_engine_that_was_told_of_a_failure_may_ask_again() -> None:
    policy = replace(QUICK, stop=stop_after_attempt(1))
    response = resilient(Asker(llm=resilient_llm([Fail(RESET)], policy=policy), again=True)).query("?")
    assert str(response) == TEXT


@pytest.mark.parametrize("on_exhausted", ["raise", "partial"])
def test_half_an_intermediate_answer_goes_no_further(on_exhausted: Any, asking: Any) -> None:
    policy = replace(QUICK, stop=stop_after_attempt(1), on_exhausted=on_exhausted)
    llm = resilient_llm([Cut(40, RESET)], policy=policy)
    with pytest.raises(StreamInterruptedError):
        asking(resilient(query_engine(llm, "refine")))
    assert all(TEXT[:40] not in str(call.messages) for call in llm.llm.calls)  # type: ignore[attr-defined]


def test_a_whole_answer_stays_llama_index_own() -> None:
    engine = index().as_query_engine(llm=resilient_llm([Cut(9, RESET)]))
    response = resilient(engine).query("?")
    assert type(response) is Response
    assert str(response) == TEXT
    assert response.report.faults == ["transport"]  # type: ignore[union-attr]
    chat = resilient(chat_engine(resilient_llm([Cut(9, RESET)]), "simple")).chat("?")
    assert type(chat) is AgentChatResponse
    assert chat.report.faults == ["transport"]  # type: ignore[attr-defined]


# The user's engine


def deep(thing: Any, seen: dict[int, Any]) -> dict[int, Any]:
    """The engines, their workers and LLMs below this one, and which objects their attributes are."""
    if isinstance(thing, list | dict):
        for value in thing if isinstance(thing, list) else thing.values():
            deep(value, seen)
    elif isinstance(thing, (*FOLLOWED, LLM)) and id(thing) not in seen:
        # LlamaIndex itself gives its LLMs the callback manager of whatever engine they answer for
        seen[id(thing)] = {name: id(value) for name, value in vars(thing).items() if name != "callback_manager"}
        for value in vars(thing).values():
            deep(value, seen)
    return seen


MADE: dict[str, Callable[[LLM], Any]] = {**ENGINES, "router": router, "custom": lambda llm: Asker(llm=llm)}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@pytest.mark.parametrize("bare", [False, True], ids=["resilient", "bare"])
def test_the_engine_is_never_changed(make: Any, bare: bool) -> None:
    inner = Answering(TEXT)
    engine = make(inner if bare else ResilientLLM(inner))
    before = deep(engine, {})
    response = resilient(engine).query("?") if isinstance(engine, BaseQueryEngine) else ask(resilient(engine)).response
    assert str(response) == TEXT
    assert response.report.status is StreamStatus.COMPLETE
    assert deep(engine, {}) == before


# Many at once

MANY = 100


class EachItsOwn(ScriptedLLM):
    """Cuts the answer of question n after n characters, once."""

    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        return _cut(super().stream_chat(messages, **kwargs), messages)

    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        stream = await super().astream_chat(messages, **kwargs)

        async def chunks() -> Any:
            number, sent = _number(messages), 0
            async for chunk in stream:
                sent += len(chunk.delta or "")
                if number is not None and sent > number + 1:
                    await stream.aclose()
                    raise RESET
                yield chunk

        return chunks()


def _number(messages: Any) -> int | None:
    """The number in the question; None in a request to go on."""
    if any(message.role.value == "assistant" for message in messages):
        return None
    return next((n for n in reversed(range(MANY)) if f"No. {n:03}" in str(messages[-1].content)), None)


def _cut(stream: Any, messages: Any) -> Any:
    number, sent = _number(messages), 0
    for chunk in stream:
        sent += len(chunk.delta or "")
        if number is not None and sent > number + 1:
            stream.close()
            raise RESET
        yield chunk


def check_each(answers: list[Answer]) -> None:
    assert [answer.text for answer in answers] == [TEXT] * MANY
    reports = [answer.response.report for answer in answers]
    assert len({report.stream_id for report in reports}) == MANY
    assert [report.attempts[0].characters for report in reports] == list(range(1, MANY + 1))
    assert [report.faults for report in reports] == [["transport"]] * MANY


def one_engine() -> Any:
    return resilient(query_engine(ResilientLLM(EachItsOwn(TEXT, token=1), policy=QUICK)))


def test_a_hundred_threads_through_one_engine() -> None:
    engine = one_engine()
    with ThreadPoolExecutor(25) as pool:
        check_each(list(pool.map(lambda n: ask(engine, f"No. {n:03}"), range(MANY))))


async def test_a_hundred_tasks_through_one_engine() -> None:
    engine = one_engine()
    check_each(list(await asyncio.gather(*(aask(engine, f"No. {n:03}") for n in range(MANY)))))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the legacy agents say that they are
@pytest.mark.parametrize("script", [[Cut(80, ConnectionResetError("reset"))], [Cut(80)]], ids=["reset", "silent"])
def test_the_best_chat_engine_recovers(script: list[Any]) -> None:
    """Up to core 0.12 a legacy ReAct agent, from 0.13 on condense_plus_context."""
    text = f"Thought: I can answer without using any more tools.\nAnswer: {TEXT}"
    llm = ScriptedLLM(text, script)
    memory = ChatMemoryBuffer.from_defaults(token_limit=100_000)
    engine = resilient(index().as_chat_engine(chat_mode="best", llm=ResilientLLM(llm, policy=QUICK), memory=memory))
    response = engine.stream_chat("How was it mended?")
    assert "".join(response.response_gen).endswith(TEXT)
    assert response.report.status is StreamStatus.COMPLETE
    assert len(llm.calls) == 2
    assert [message.role.value for message in engine.chat_history] == ["user", "assistant"]
