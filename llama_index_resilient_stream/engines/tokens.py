"""`tokens(response)` and `atokens(response)`: any response of any LlamaIndex, token by token."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.chat_engine.types import AgentChatResponse, BaseChatEngine, StreamingAgentChatResponse

from ..errors import ConfigurationError
from .chat_writer import has_writer
from .responses import ResilientAsyncStreamingResponse, ResilientStreamingAgentChatResponse, ResilientStreamingResponse
from .token_buffer import refuse_spent

_OURS = (ResilientStreamingResponse, ResilientAsyncStreamingResponse, ResilientStreamingAgentChatResponse)


def tokens(response: Any) -> Generator[str, None, None]:
    """Read a response token by token, whether it streams or not; of an LLM's own stream, its deltas.

        for token in tokens(engine.query("What happened to the cable?")):
            print(token, end="")

    Args:
        response: What a query engine, a chat engine or an LLM's stream method returns, synchronously.

    Returns:
        A generator of texts. Closing it stops the LLM of a response of ours.

    Raises:
        ConfigurationError: When it is called, for whatever cannot be read, with the line that fixes it.
        StreamInterruptedError: From the generator, when the answer could not be finished.
    """
    refuse_common_mistakes(response)
    if isinstance(response, AsyncStreamingResponse) or hasattr(response, "__aiter__") or _is_async_chat(response):
        raise ConfigurationError(
            "This response is asynchronous. Write: async for token in atokens(response), or use query() for aquery() "
            "and stream_chat() for astream_chat()."
        )
    return _texts(_source(response))


def atokens(response: Any) -> AsyncGenerator[str, None]:
    """Read a response token by token, asynchronously, whether it streams or not.

        async for token in atokens(await engine.aquery("What happened to the cable?")):
            print(token, end="")

    Args:
        response: What a query engine, a chat engine or an LLM's stream method returns, awaited. A synchronous response
            that does not stream is read too.

    Returns:
        An asynchronous generator of texts.

    Raises:
        ConfigurationError: When it is called, for whatever cannot be read, with the line that fixes it.
        StreamInterruptedError: From the generator, when the answer could not be finished.
    """
    refuse_common_mistakes(response)
    if isinstance(response, AsyncStreamingResponse):
        known = None if isinstance(response, _OURS) else response.response_txt
        return _atexts(_asource(response)) if known is None else _aone(known)
    if _is_async_chat(response):
        return _of_async_chat(response)
    if isinstance(response, StreamingResponse | StreamingAgentChatResponse | Iterator):
        raise ConfigurationError(
            "This response is synchronous and would block the event loop. Write: await engine.aquery(...), or "
            "await engine.astream_chat(...); or read it in a thread with tokens(response)."
        )
    if hasattr(response, "__aiter__"):
        return _atexts(_unread(response))
    return _aone("".join(_texts(_source(response))))


def _of_async_chat(response: Any) -> AsyncGenerator[str, None]:
    if not isinstance(response, _OURS):
        if not has_writer(response):
            refuse_spent(response.achat_stream)
        elif response.is_done and response.aqueue is not None and response.aqueue.empty():
            return _aone(response.response)
    return _atexts(response.async_response_gen())


def refuse_common_mistakes(response: Any) -> None:
    """Raises ConfigurationError for what is given in place of a response, with the line that fixes it."""
    if isinstance(response, str):
        raise ConfigurationError("This is a plain string. Pass the response itself, not str(response).")
    if inspect.iscoroutine(response):
        response.close()  # it shall not warn besides that nobody awaited it
        raise ConfigurationError("This is a coroutine. Await it first: response = await engine.aquery(...).")
    if isinstance(response, BaseQueryEngine | BaseChatEngine):
        ask = "stream_chat" if isinstance(response, BaseChatEngine) else "query"
        raise ConfigurationError(f"This is an engine. Ask it first: response = engine.{ask}(...).")
    if inspect.isfunction(response) or inspect.ismethod(response):
        raise ConfigurationError("This is a function. Call it first, and pass what it returns.")


def refuse_unreadable(response: Any) -> None:
    """Raises ConfigurationError for whatever both `tokens` and `atokens` would refuse. Nothing is opened."""
    refuse_common_mistakes(response)
    if isinstance(response, _OURS):
        if response.given:
            raise ConfigurationError("This response was read before: its tokens were given to somebody else.")
    elif (source := _stream_behind(response)) is not None:
        refuse_spent(source)
    elif not _is_streaming(response) and not _is_whole(response):
        raise _no_response(response)


def _is_streaming(response: Any) -> bool:
    return isinstance(response, StreamingResponse | AsyncStreamingResponse | StreamingAgentChatResponse)


def _stream_behind(response: Any) -> Any:
    """What the tokens of a response that is not ours come from, if somebody may have read it; None else."""
    if isinstance(response, StreamingResponse | AsyncStreamingResponse):
        return response.response_gen if response.response_txt is None else None
    if isinstance(response, StreamingAgentChatResponse):
        if has_writer(response):
            return None
        return response.achat_stream if response.chat_stream is None else response.chat_stream
    return response if isinstance(response, Iterator) or hasattr(response, "__aiter__") else None


def _is_whole(response: Any) -> bool:
    is_answer = isinstance(response, AgentChatResponse)
    return is_answer or hasattr(response, "response") or hasattr(response, "get_response")


def _no_response(thing: Any) -> ConfigurationError:
    return ConfigurationError(
        f"A {type(thing).__name__} is no response. Pass what engine.query(...) or engine.stream_chat(...) returns."
    )


def _is_async_chat(response: Any) -> bool:
    return isinstance(response, StreamingAgentChatResponse) and response.achat_stream is not None


def _source(response: Any) -> Any:
    """Whatever gives the tokens of a synchronous response."""
    if isinstance(response, _OURS):
        return response.response_gen
    if isinstance(response, StreamingResponse):
        known = response.response_txt
        return _unread(response.response_gen) if known is None else (known,)
    if isinstance(response, StreamingAgentChatResponse):
        return _source_of_chat(response)
    if isinstance(response, AgentChatResponse):
        return (response.response,)
    if isinstance(response, Iterator):
        return _unread(response)
    if _is_whole(response):
        return (str(response),)
    raise _no_response(response)


def _source_of_chat(response: StreamingAgentChatResponse) -> Any:
    if not has_writer(response):
        refuse_spent(response.chat_stream)
    elif response.is_done and response.queue.empty():
        return (response.response,)
    return response.response_gen


def _unread(source: Any) -> Any:
    refuse_spent(source)
    return source


def _asource(response: Any) -> Any:
    """`async_response_gen` was a field once, and is a method that may be a coroutine function elsewhere."""
    if not isinstance(response, _OURS):
        refuse_spent(getattr(response, "response_gen", None))
    source = getattr(response, "async_response_gen", None)
    return source() if callable(source) else source


def _texts(source: Any) -> Generator[str, None, None]:
    for item in source:
        yield item if isinstance(item, str) else getattr(item, "delta", None) or ""


async def _atexts(source: Any) -> AsyncGenerator[str, None]:
    opened: AsyncIterator[Any] = await source if inspect.isawaitable(source) else source
    async for item in opened:
        yield item if isinstance(item, str) else getattr(item, "delta", None) or ""


async def _aone(text: str) -> AsyncGenerator[str, None]:
    yield text
