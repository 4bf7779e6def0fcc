"""What users write. `pyright` in its strict mode and `mypy --strict` find nothing here that is ours to mend.

Nothing of this runs; `test_types.py` has it checked.
"""

# pyright: strict

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, assert_type

from fastapi import FastAPI
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.llms import LLM, ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.llms.openai import OpenAI
from tenacity import retry_if_exception_type, stop_after_attempt, wait_random_exponential

from llama_index_resilient_stream import (
    Continuation,
    Fault,
    FaultEvent,
    FaultKind,
    Provider,
    RecoveryPolicy,
    ResilientAsyncStream,
    ResilientAsyncStreamingResponse,
    ResilientChatEngine,
    ResilientLLM,
    ResilientQueryEngine,
    ResilientStream,
    ResilientStreamingAgentChatResponse,
    ResilientStreamingResponse,
    ResumeEvent,
    StreamCallback,
    StreamEnd,
    StreamInterruptedError,
    StreamReport,
    StreamStatus,
    TokenEvent,
    Turn,
    atokens,
    register_provider,
    resilient,
    retry_if_fault,
    retry_if_outcome,
    tokens,
    trace,
)
from llama_index_resilient_stream.http import async_http_client, http_client
from llama_index_resilient_stream.serve.fastapi import SSEResponse, TextResponse
from llama_index_resilient_stream.serve.generations import Generations
from llama_index_resilient_stream.serve.redis import RedisStore
from llama_index_resilient_stream.serve.store import Ticket
from llama_index_resilient_stream.serve.types import Answerable
from llama_index_resilient_stream.testing import FAULTS, Cut, Fail, FaultServer, ScriptedLLM

# The LLM

llm = ResilientLLM(
    OpenAI("gpt-4o-mini", max_retries=0, http_client=http_client(), async_http_client=async_http_client()),
    fallbacks=[OpenAI("gpt-4o", max_retries=0)],
    policy=RecoveryPolicy(
        stop=stop_after_attempt(3),
        wait=wait_random_exponential(0.5, max=8),
        deadline=120,
        max_extra_tokens=20_000,
        first_token_timeout="auto",
        on_exhausted="partial",
    ),
    continuation="ask",
    callbacks=[lambda event: print(event.text)],
)
Settings.llm = llm
messages = [ChatMessage(role="user", content="What happened to the cable?")]


def read_a_chat() -> str:
    stream = llm.stream_chat(messages)
    text = ""
    for response in stream:
        text += response.delta or ""
        if len(text) > 1000:
            stream.cancel()
    print(stream.report.status, stream.report.recovered, stream.report)
    return text


def read_a_completion(prompt: str) -> Iterator[str]:
    stream = llm.stream_complete(prompt)
    for response in stream:
        yield response.delta or ""
    if stream.report.status is not StreamStatus.COMPLETE:
        print(stream.report.finish_reason, stream.report.faults[:1])


async def read_asynchronously() -> AsyncIterator[str]:
    stream = await llm.astream_chat(messages)
    async for response in stream:
        yield response.delta or ""
    await stream.acancel()
    async for completion in await llm.astream_complete("Once"):
        yield completion.text


async def know_the_types() -> None:
    assert_type(llm.stream_chat(messages), ResilientStream[ChatResponse])
    assert_type(llm.stream_complete("Once"), ResilientStream[CompletionResponse])
    assert_type(await llm.astream_chat(messages), ResilientAsyncStream[ChatResponse])
    assert_type(await llm.astream_complete("Once"), ResilientAsyncStream[CompletionResponse])
    assert_type(llm.chat(messages), ChatResponse)
    assert_type(await llm.acomplete("Once"), CompletionResponse)
    assert_type(llm.resume("Once", "upon"), ResilientStream[CompletionResponse])
    assert_type(llm.resume(messages, "upon"), ResilientStream[ChatResponse])
    assert_type(await llm.aresume(messages, "upon"), ResilientAsyncStream[ChatResponse])
    assert_type(llm.bind(callbacks=()), ResilientLLM)
    assert_type(llm.policy, RecoveryPolicy)
    assert_type(llm.fallbacks, tuple[LLM, ...])
    assert_type(llm.llm, LLM)


def change_settings() -> None:
    llm.policy = RecoveryPolicy(deadline=30)
    llm.continuation = "prefill"
    llm.continuation = Continuation(wording="Fahre fort. Beginne mit: {anchor}")
    llm.temperature = 0.1
    patient = llm.bind(policy=RecoveryPolicy(max_attempts=8), callbacks=[Meter()], continuation="restart")
    print(patient.metadata.model_name, patient.policy.deadline)


def go_on_later() -> str:
    text = ""
    try:
        for response in llm.stream_chat(messages):
            text += response.delta or ""
    except StreamInterruptedError as error:
        print(error.partial_text, error.report, error.code, error.reason)
        if error.retryable:
            for rest in llm.resume(error):
                text += rest.delta or ""
    return text


async def go_on_later_asynchronously(error: StreamInterruptedError) -> str:
    stream = await llm.aresume(error)
    return "".join([response.delta or "" async for response in stream])


# Callbacks


class Meter:
    """An object with two of the four methods."""

    def __init__(self) -> None:
        self.characters = 0

    def on_token(self, event: TokenEvent) -> None:
        self.characters += len(event.text)

    def on_end(self, report: StreamReport) -> None:
        print(report.status, report.usage, self.characters)


class AsyncMeter(StreamCallback):
    """One that derives, with coroutine functions."""

    async def on_fault(self, event: FaultEvent) -> None:
        if event.kind is FaultKind.RATE_LIMIT:
            print(event.message, event.retryable)

    async def on_resume(self, event: ResumeEvent) -> None:
        print(event.attempt, event.strategy, event.delay, event.cause)


def print_token(event: TokenEvent) -> None:
    print(event.text, end="", flush=True)


with_callbacks = ResilientLLM(ScriptedLLM("x"), callbacks=[print_token, Meter(), AsyncMeter()])
with_one_callback = ResilientLLM(ScriptedLLM("x"), callbacks=print_token)


# What users decide


class Calm(Continuation):
    """A way of asking of one's own."""

    def turns(self, partial_text: str) -> tuple[Turn, ...]:
        return Turn("assistant", partial_text), Turn("user", f"Please go on. Begin with: {self.anchor(partial_text)}")


class MyLLM(OpenAI):
    """An LLM class of one's own."""


register_provider(MyLLM, Provider(sends_finish_reason=True, strategy="prefill", prefill="trailing"))
register_provider("SomeGateway", Provider(untrusted_finish_reasons=frozenset({"stop"})))
calm = ResilientLLM(MyLLM(model="m"), continuation=Calm("ask"), provider=Provider(sends_finish_reason=False))
both = ResilientLLM(MyLLM(model="m"), fallbacks=[OpenAI()], provider=[Provider(sends_finish_reason=True), None])


class MyGatewayError(Exception):
    """What nobody but the user's own gateway raises."""


def ends_with_a_full_stop(end: StreamEnd) -> bool | None:
    return end.text.rstrip().endswith(".") or (None if end.finish_reason else False)


decided = RecoveryPolicy(
    retry=retry_if_fault() | retry_if_exception_type(MyGatewayError),
    fallback_on=retry_if_fault(FaultKind.OVERLOADED, "rate_limit") | retry_if_outcome("filtered", "refused"),
    completeness=ends_with_a_full_stop,
    reject=lambda head: head.startswith("I cannot"),
)


def is_worth_a_page(fault: Fault) -> bool:
    return fault.kind is FaultKind.OVERLOADED and fault.retryable


# Engines


def ask_an_engine(index: VectorStoreIndex) -> str:
    engine = resilient(index.as_query_engine(llm=llm, streaming=True))
    assert_type(engine, ResilientQueryEngine)
    response = engine.query("What happened?")
    for token in response.response_gen:
        print(token, end="")
    response.print_response_stream()
    response.cancel()
    print(response.report.status, [node.score for node in response.source_nodes])
    if isinstance(response, ResilientStreamingResponse):
        print(response.get_response(), response.given)
    return str(response)


async def ask_an_engine_asynchronously(index: VectorStoreIndex) -> str:
    engine = resilient(index.as_query_engine(llm=llm, streaming=True))
    response = await engine.aquery("What happened?")
    async for token in response.response_gen:
        print(token, end="")
    await response.print_response_stream()
    await response.acancel()
    if isinstance(response, ResilientAsyncStreamingResponse):
        print(await response.get_response())
    print(response.report)
    return str(response)


def synthesize(engine: ResilientQueryEngine, nodes: Sequence[NodeWithScore]) -> StreamReport:
    found = engine.retrieve(QueryBundle("What happened?"))
    return engine.synthesize(QueryBundle("What happened?"), [*nodes, *found]).report


def chat(index: VectorStoreIndex) -> None:
    engine = resilient(index.as_chat_engine(llm=llm), mark=False)
    assert_type(engine, ResilientChatEngine)
    response = engine.stream_chat("What happened?")
    assert_type(response, ResilientStreamingAgentChatResponse)
    for token in response.response_gen:
        print(token, end="")
    response.cancel()
    print(response.report.status, str(response), response.source_nodes)
    print(engine.chat("And then?").report.seconds, engine.chat_history)
    engine.reset()


async def chat_asynchronously(engine: ResilientChatEngine) -> None:
    response = await engine.astream_chat("What happened?")
    async for token in response.async_response_gen():
        print(token, end="")
    await response.acancel()
    print((await engine.achat("And then?")).response)


def read_anything(response: Any) -> str:
    followed = trace(response)
    text = "".join(followed) or "".join(tokens(response))
    print(followed.summary.longest_gap)
    return text


async def read_anything_asynchronously(response: Any) -> str:
    return "".join([token async for token in atokens(response)])


# Serving

app = FastAPI()


def may_read(request: Any, ticket: Ticket) -> bool:
    return bool(request.headers["user"] == ticket.owner)


def take_over(ticket: Ticket, text: str) -> Answerable:
    return llm.resume(str(ticket.payload), text)


async def words() -> AsyncIterator[str]:
    yield "a text of one's own"


generations = Generations(RedisStore("redis://localhost"), may_read=may_read, take_over=take_over)


def serve(engine: ResilientQueryEngine, chat_engine: ResilientChatEngine) -> None:
    @app.get("/ask")
    async def ask(question: str) -> SSEResponse:
        return SSEResponse(lambda: engine.query(question), resumable=generations, owner="ada")

    @app.get("/chat")
    async def chat(message: str) -> SSEResponse:
        return SSEResponse(lambda: chat_engine.astream_chat(message), heartbeat=10, resumable=True)

    @app.get("/llm")
    async def complete(prompt: str) -> SSEResponse:
        return SSEResponse(llm.stream_complete(prompt))

    @app.get("/words")
    async def own() -> SSEResponse:
        return SSEResponse(words, retry=1000)

    @app.get("/again")
    async def again(key: str) -> SSEResponse:
        return SSEResponse(generations.get(key))

    @app.get("/text")
    async def text(question: str) -> TextResponse:
        return TextResponse(await engine.aquery(question))

    print(ask, chat, complete, own, again, text)


# Testing


def test_an_answer_that_is_cut() -> None:
    flaky = ScriptedLLM("A long answer.", script=[Cut(after=6, error=ConnectionResetError()), Fail(TimeoutError())])
    stream = ResilientLLM(flaky).stream_complete("?")
    assert "".join(response.delta or "" for response in stream) == "A long answer."
    assert len(flaky.calls) == 3


def test_on_the_wire() -> None:
    with FaultServer("A long answer.", faults=[FAULTS["reset"].at(6), "http_503", None]) as server:
        assert OpenAI(api_base=server.url, api_key="k").complete("?").text
        assert server.requests
