"""`tokens()` and `atokens()` read whatever LlamaIndex returns, and say what is wrong with what they cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.chat_engine.types import AgentChatResponse, StreamingAgentChatResponse
from llama_index.core.llms import ChatMessage, ChatResponse

from llama_index_resilient_stream import ConfigurationError, ResilientLLM, atokens, resilient, tokens
from llama_index_resilient_stream.testing import Cut, ScriptedLLM
from support.engines import CHATS, RESET, chat_engine, query_engine
from support.readers import QUICK, question

TEXT = "0123456789"


def llm() -> ResilientLLM:
    return ResilientLLM(ScriptedLLM(TEXT, [Cut(4, RESET)], token=1), policy=QUICK)


def read(response: Any) -> str:
    parts = list(tokens(response))
    assert all(isinstance(part, str) for part in parts)
    return "".join(parts)


async def aread(response: Any) -> str:
    parts = [part async for part in atokens(response)]
    assert all(isinstance(part, str) for part in parts)
    return "".join(parts)


def chunks() -> Iterator[ChatResponse]:
    text = ""
    for character in TEXT:
        text += character
        yield ChatResponse(message=ChatMessage(role="assistant", content=text), delta=character)


async def characters() -> Any:
    for character in TEXT:
        yield character


SYNC = {
    "query": lambda: query_engine(llm()).query("?"),
    "resilient-query": lambda: resilient(query_engine(llm())).query("?"),
    "streaming-response": lambda: StreamingResponse(iter(TEXT)),
    "response": lambda: Response(TEXT),
    "agent-chat": lambda: AgentChatResponse(TEXT),
    "llm-chat": lambda: llm().stream_chat(question()),
    "llm-complete": lambda: llm().stream_complete("?"),
    "generator": lambda: chunks(),
    "characters": lambda: iter(TEXT),
    **{f"chat-{mode}": (lambda mode=mode: chat_engine(llm(), mode).stream_chat("?")) for mode in CHATS},
    **{f"resilient-{mode}": (lambda mode=mode: resilient(chat_engine(llm(), mode)).stream_chat("?")) for mode in CHATS},
    "whole-query": lambda: _not_streaming().query("?"),
    "whole-chat": lambda: chat_engine(llm(), "simple").chat("?"),
    "no-writer": lambda: StreamingAgentChatResponse(chat_stream=chunks(), **_without_writer()),
}


def _without_writer() -> dict[str, Any]:
    known = "is_writing_to_memory" in StreamingAgentChatResponse.__dataclass_fields__
    if not known:
        pytest.skip("a chat response always has a writer in this core")
    return {"is_writing_to_memory": False}


def _not_streaming() -> Any:
    engine = query_engine(llm())
    engine._response_synthesizer._streaming = False  # type: ignore[attr-defined]
    return engine


@pytest.mark.parametrize("make", SYNC.values(), ids=SYNC)
def test_tokens(make: Any) -> None:
    assert read(make()) == TEXT


@pytest.mark.parametrize("mode", CHATS)
def test_a_chat_that_nobody_read_in_time(mode: str) -> None:
    response = chat_engine(llm(), mode).stream_chat("?")
    if thread := getattr(response, "write_response_to_history_thread", None):
        thread.join()
    assert read(response) == TEXT


def test_a_dummy_stream() -> None:
    """LlamaIndex streams a whole text word by word, and sleeps between the words; nothing needs to."""
    assert read(AgentChatResponse("two words", **_dummy())) == "two words"


def _dummy() -> dict[str, Any]:
    return {"is_dummy_stream": True} if "is_dummy_stream" in AgentChatResponse.__dataclass_fields__ else {}


ASYNC = {
    "query": lambda: query_engine(llm()).aquery("?"),
    "resilient-query": lambda: resilient(query_engine(llm())).aquery("?"),
    "streaming-response": lambda: _ready(AsyncStreamingResponse(characters())),
    "field-of-old": lambda: _ready(_of_old()),
    "response": lambda: _ready(Response(TEXT)),
    "agent-chat": lambda: _ready(AgentChatResponse(TEXT)),
    "llm-chat": lambda: llm().astream_chat(question()),
    "llm-complete": lambda: llm().astream_complete("?"),
    "generator": lambda: _ready(characters()),
    **{f"chat-{mode}": (lambda mode=mode: chat_engine(llm(), mode).astream_chat("?")) for mode in CHATS},
    **{
        f"resilient-{mode}": (lambda mode=mode: resilient(chat_engine(llm(), mode)).astream_chat("?")) for mode in CHATS
    },
    "whole-query": lambda: _not_streaming().aquery("?"),
    "whole-chat": lambda: chat_engine(llm(), "simple").achat("?"),
}


async def _ready(response: Any) -> Any:
    return response


def _of_old() -> AsyncStreamingResponse:
    response = AsyncStreamingResponse(characters())
    response.async_response_gen = response.response_gen  # type: ignore[method-assign,assignment]
    return response


@pytest.mark.parametrize("make", ASYNC.values(), ids=ASYNC)
async def test_atokens(make: Any) -> None:
    assert await aread(await make()) == TEXT


# Read before


def test_a_text_that_was_asked_for_can_be_read() -> None:
    response = query_engine(llm()).query("?")
    assert str(response) == TEXT
    assert read(response) == TEXT


async def test_an_asynchronous_text_that_was_asked_for_can_be_read() -> None:
    response = await query_engine(llm()).aquery("?")
    await response.get_response()
    assert await aread(response) == TEXT


@pytest.mark.parametrize("mode", CHATS)
def test_a_chat_that_was_read_has_its_text(mode: str) -> None:
    response = chat_engine(llm(), mode).stream_chat("?")
    assert read(response) == TEXT
    if getattr(response, "is_writing_to_memory", True):
        assert read(response) == TEXT
    else:
        with pytest.raises(ConfigurationError, match="read before"):
            tokens(response)


@pytest.mark.parametrize("mode", CHATS)
async def test_an_asynchronous_chat_that_was_read_has_its_text(mode: str) -> None:
    response = await chat_engine(llm(), mode).astream_chat("?")
    assert await aread(response) == TEXT
    if getattr(response, "is_writing_to_memory", True):
        assert await aread(response) == TEXT
    else:
        with pytest.raises(ConfigurationError, match="read before"):
            atokens(response)


CONSUMED = {
    "query": lambda: query_engine(llm()).query("?"),
    "streaming-response": lambda: StreamingResponse(each for each in TEXT),
    "llm": lambda: llm().stream_chat(question()),
    "generator": lambda: chunks(),
}


@pytest.mark.parametrize("make", CONSUMED.values(), ids=CONSUMED)
def test_plain_response_that_was_read_is_refused(make: Any) -> None:
    response = make()
    assert read(response) == TEXT
    with pytest.raises(ConfigurationError, match=r"read before.*resilient\(response\)"):
        tokens(response)
    if isinstance(response, StreamingResponse):
        with pytest.raises(ConfigurationError, match="read before"):
            resilient(response)


ACONSUMED = {
    "query": lambda: query_engine(llm()).aquery("?"),
    "streaming-response": lambda: _ready(AsyncStreamingResponse(characters())),
    "llm": lambda: llm().astream_chat(question()),
    "generator": lambda: _ready(characters()),
}


@pytest.mark.parametrize("make", ACONSUMED.values(), ids=ACONSUMED)
async def test_plain_async_response_that_was_read_is_refused(make: Any) -> None:
    response = await make()
    if isinstance(response, AsyncStreamingResponse):
        source = response.response_gen
        assert "".join([token async for token in source]) == TEXT  # the field: LlamaIndex keeps no text of it
    else:
        assert await aread(response) == TEXT
    with pytest.raises(ConfigurationError, match=r"read before.*resilient\(response\)"):
        atokens(response)
    if isinstance(response, AsyncStreamingResponse):
        with pytest.raises(ConfigurationError, match="read before"):
            resilient(response)


# The wrong thing


def a_function() -> None: ...


async def a_coroutine() -> str:
    return ""


WRONG = {
    "text": (lambda: "a text", "plain string.*not str"),
    "coroutine": (lambda: query_engine(llm()).aquery("?"), "coroutine.*await engine.aquery"),
    "another-coroutine": (lambda: a_coroutine(), "coroutine"),
    "engine": (lambda: query_engine(llm()), "engine.query"),
    "chat-engine": (lambda: chat_engine(llm(), "simple"), "engine.stream_chat"),
    "resilient-engine": (lambda: resilient(query_engine(llm())), "engine.query"),
    "method": (lambda: query_engine(llm()).query, "Call it first"),
    "function": (lambda: a_function, "Call it first"),
    "generator-method": (lambda: chat_engine(llm(), "simple").astream_chat, "Call it first"),
    "llm": (lambda: llm(), r"An LLM.*stream_chat|no response"),
    "none": (lambda: None, "NoneType"),
    "number": (lambda: 3, "int"),
}


@pytest.mark.parametrize(("make", "says"), WRONG.values(), ids=WRONG)
def test_the_wrong_thing_is_named_with_the_line_that_fixes_it(make: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        tokens(make())
    with pytest.raises(ConfigurationError, match=says):
        atokens(make())


async def test_sync_and_async_responses_are_not_confused() -> None:
    with pytest.raises(ConfigurationError, match="async for token in atokens"):
        tokens(await query_engine(llm()).aquery("?"))
    with pytest.raises(ConfigurationError, match="async for token in atokens"):
        tokens(await chat_engine(llm(), "simple").astream_chat("?"))
    with pytest.raises(ConfigurationError, match="async for token in atokens"):
        tokens(await llm().astream_chat(question()))
    with pytest.raises(ConfigurationError, match="in a thread with tokens"):
        atokens(query_engine(llm()).query("?"))
    with pytest.raises(ConfigurationError, match="in a thread with tokens"):
        atokens(chunks())
