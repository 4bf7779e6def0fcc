"""Mistakes that a type checker has to find, each in a line that ends with `# wrong`. Nothing of this runs."""

# pyright: strict

from __future__ import annotations

from llama_index.core.llms import ChatMessage

from llama_index_resilient_stream import (
    Continuation,
    FaultEvent,
    Provider,
    RecoveryPolicy,
    ResilientChatEngine,
    ResilientLLM,
    ResilientQueryEngine,
    StreamReport,
    register_provider,
    resilient,
)
from llama_index_resilient_stream.serve.fastapi import SSEResponse
from llama_index_resilient_stream.serve.generations import Generations
from llama_index_resilient_stream.testing import ScriptedLLM

llm = ResilientLLM(ScriptedLLM("x"))
messages = [ChatMessage(content="?")]


def settings() -> None:
    llm.policy = 3  # wrong
    llm.continuation = "beg"  # wrong
    llm.fallbacks = "gpt-4o"  # wrong
    ResilientLLM("gpt-4o")  # wrong
    ResilientLLM(ScriptedLLM("x"), policy={"deadline": 3})  # wrong
    ResilientLLM(ScriptedLLM("x"), callbacks=[42])  # wrong
    ResilientLLM(ScriptedLLM("x"), provider="openai")  # wrong
    llm.bind(policy=RecoveryPolicy)  # wrong
    Continuation("beg")  # wrong
    Provider(strategy="beg")  # wrong
    register_provider(ScriptedLLM, {"sends_finish_reason": True})  # wrong
    resilient(llm)  # wrong


def streams() -> None:
    stream = llm.stream_chat(messages)
    stream.reprot  # wrong  # noqa: B018
    for response in stream:
        response.text  # wrong  # noqa: B018
    llm.resume(messages)  # wrong
    llm.policy.patience  # wrong  # noqa: B018


def engines(query: ResilientQueryEngine, chat: ResilientChatEngine) -> None:
    query.query("?").reprot  # wrong  # noqa: B018
    query.query(3)  # wrong
    chat.stream_chat("?").reprot  # wrong  # noqa: B018
    chat.chat("?").reprot  # wrong  # noqa: B018


def serving() -> None:
    SSEResponse("a text")  # wrong
    SSEResponse(3)  # wrong
    SSEResponse(lambda: 3)  # wrong
    Generations(may_read=True)  # wrong


class Wrong:
    """A callback whose hook takes something else."""

    def on_end(self, event: FaultEvent) -> None:
        print(event)


def ended(report: StreamReport) -> None:
    print(report)


ResilientLLM(ScriptedLLM("x"), callbacks=[Wrong()])  # wrong
ResilientLLM(ScriptedLLM("x"), callbacks=[ended])  # wrong
