"""`resilient(...)`: query engines, chat engines and responses whose answers finish, and say how they ended.

An engine's own LLM is not touched, and neither is the engine. For each call the tree of objects that leads to its LLMs
is copied, shallowly, with the LLMs bound to one `CallLog` object: so each response has the report of its own call,
however many run at once. Retrievers, postprocessors, query transforms and the memory are the engine's own.

LlamaIndex's legacy agents (`chat_mode="best"` and "react" up to core 0.12) recover and report like the others, with two
exceptions: the partial answer in their memory bears no mark, because they hand the memory on in ways of their own; and
on 0.11.23 and 0.12.52 the legacy ReAct engine shows its first token twice, as it does with any LLM.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.callbacks import CallbackManager
from llama_index.core.chat_engine.types import BaseChatEngine, StreamingAgentChatResponse
from llama_index.core.schema import NodeWithScore, QueryBundle

from ..compat.generators import behind
from ..errors import ConfigurationError
from ..llm.call_log import CallLog
from ..llm.streams import ResilientAsyncStream, ResilientStream
from .binding import AroundEngine, bound_engine
from .chat_memory import MarkingMemory
from .responses import ResilientAsyncStreamingResponse, ResilientStreamingAgentChatResponse, ResilientStreamingResponse
from .token_buffer import refuse_spent
from .whole import with_report

if TYPE_CHECKING:
    from .whole import WholeAsyncResponse, WholeChatResponse, WholeResponse

_RESPONSES = (StreamingResponse, AsyncStreamingResponse)  # which context chat engines read from 0.11.11 to 0.14.16
_OURS = ResilientStreamingResponse | ResilientAsyncStreamingResponse | ResilientStreamingAgentChatResponse


@overload
def resilient(thing: BaseQueryEngine, *, mark: bool = ...) -> ResilientQueryEngine: ...
@overload
def resilient(thing: BaseChatEngine, *, mark: bool = ...) -> ResilientChatEngine: ...
@overload
def resilient(thing: StreamingResponse, *, mark: bool = ...) -> ResilientStreamingResponse: ...
@overload
def resilient(thing: AsyncStreamingResponse, *, mark: bool = ...) -> ResilientAsyncStreamingResponse: ...
@overload
def resilient(thing: StreamingAgentChatResponse, *, mark: bool = ...) -> ResilientStreamingAgentChatResponse: ...
def resilient(thing: Any, *, mark: bool = True) -> Any:
    """Make an engine, or a response after the fact, resilient.

        engine = resilient(index.as_query_engine(llm=llm, streaming=True))
        response = engine.query("...")
        response.report.status

    An engine whose LLM is not a `ResilientLLM` gets one with the default settings around it; a response after the fact
    only has a report, and can only be stopped, if its LLM is one.

    Args:
        thing: A query engine, a chat engine, or a streaming response that was not read yet. It is not changed.
        mark: Whether a partial answer in a chat memory is marked as one, by a key in its `additional_kwargs`. False
            for memories shared with an LLM that cannot bear the key.

    Returns:
        An engine, or a response, of ours. What is one already is returned as it is.

    Raises:
        ConfigurationError: `thing` is something else, or was read before.
    """
    if isinstance(thing, ResilientQueryEngine | ResilientChatEngine | _OURS):
        return thing
    if isinstance(thing, BaseChatEngine):  # asked first: the agents of old are query engines as well
        return ResilientChatEngine(thing, mark=mark)
    if isinstance(thing, BaseQueryEngine):
        return ResilientQueryEngine(thing)
    if isinstance(thing, StreamingResponse | AsyncStreamingResponse) and thing.response_txt is None:
        refuse_spent(thing.response_gen)
    if isinstance(thing, StreamingResponse | AsyncStreamingResponse | StreamingAgentChatResponse):
        return _wrapped(thing, _calls_behind(thing))
    raise ConfigurationError(
        f"resilient() takes a query engine, a chat engine or a streaming response, not {type(thing).__name__}. "
        f"Write resilient(index.as_query_engine(llm=llm, streaming=True)), or ResilientLLM(llm) for an LLM."
    )


def _not_an_engine(thing: Any, method: str) -> ConfigurationError:
    return ConfigurationError(
        f"A {type(thing).__name__} is no engine of that kind. Write resilient(index.{method}(llm=llm))."
    )


def _calls_behind(response: Any) -> CallLog:
    """Of a response after the fact: nobody told its LLM, if that is one of ours, of the object it shall report to."""
    if isinstance(response, StreamingAgentChatResponse):
        source: Any = response.achat_stream if response.chat_stream is None else response.chat_stream
    else:
        source = response.response_gen
    try:
        kept = weakref.ref(source)  # the stream that is to be found ends when nobody else holds on to it
    except TypeError:
        return CallLog()
    calls = CallLog(seek=lambda: behind(kept(), _is_stream, _RESPONSES))
    calls.look()
    return calls


def _is_stream(thing: object) -> bool:
    return isinstance(thing, ResilientStream | ResilientAsyncStream)


def _wrapped(response: Any, calls: CallLog, *, asynchronous: bool = False) -> Any:
    """Our class around a streaming response; any other response gets an attribute `report`."""
    match response:
        case _ if isinstance(response, _OURS):
            return response
        case StreamingResponse():
            return ResilientStreamingResponse.around(response, calls)
        case AsyncStreamingResponse():
            return ResilientAsyncStreamingResponse.around(response, calls)
        case StreamingAgentChatResponse():
            return ResilientStreamingAgentChatResponse.around(response, calls)
    return with_report(response, calls.report, asynchronous=asynchronous)


class ResilientQueryEngine(AroundEngine, BaseQueryEngine):
    """A query engine around another one, which stays as it is. `resilient(engine)` makes it.

        engine = ResilientQueryEngine(index.as_query_engine(llm=llm, streaming=True))
        for token in engine.query("What happened to the cable?").response_gen:
            print(token, end="")

    Args:
        query_engine: The engine that retrieves and answers. What it has besides, such as `retriever`, is read from it.

    Raises:
        ConfigurationError: It is no query engine.
    """

    def __init__(self, query_engine: BaseQueryEngine) -> None:
        if not isinstance(query_engine, BaseQueryEngine):
            raise _not_an_engine(query_engine, "as_query_engine")
        self.engine: BaseQueryEngine = query_engine
        super().__init__(getattr(query_engine, "callback_manager", None) or CallbackManager([]))

    def query(self, str_or_query_bundle: str | QueryBundle) -> WholeResponse | ResilientStreamingResponse:
        """Ask the engine.

            response = engine.query("What happened to the cable?")
            response.print_response_stream()
            print(response.report)

        Args:
            str_or_query_bundle: The question.

        Returns:
            A ResilientStreamingResponse of an engine that streams. Of any other, LlamaIndex's own response, with the
            same names added: `report`, `response_gen`, `print_response_stream()`, `cancel()`.

        Raises:
            StreamInterruptedError: From `response_gen`, when the answer could not be finished. Where the engine does
                not stream, its LLM's own error is raised here.
        """
        calls = CallLog()
        ours = bound_engine(self.engine, calls)
        answer: WholeResponse = _wrapped(calls.made_by(lambda: ours.query(str_or_query_bundle)), calls)
        return answer

    async def aquery(
        self, str_or_query_bundle: str | QueryBundle
    ) -> WholeAsyncResponse | ResilientAsyncStreamingResponse:
        """Ask the engine, asynchronously.

            response = await engine.aquery("What happened to the cable?")
            async for token in response.response_gen:
                print(token, end="")

        Args:
            str_or_query_bundle: The question.

        Returns:
            A ResilientAsyncStreamingResponse of an engine that streams. Of any other, LlamaIndex's own response, with
            the same names added.

        Raises:
            StreamInterruptedError: From `response_gen`, when the answer could not be finished. Where the engine does
                not stream, its LLM's own error is raised here.
        """
        calls = CallLog()
        answer: WholeAsyncResponse = _wrapped(
            await bound_engine(self.engine, calls).aquery(str_or_query_bundle), calls, asynchronous=True
        )
        return answer

    def _query(self, query_bundle: QueryBundle) -> WholeResponse | ResilientStreamingResponse:
        return self.query(query_bundle)

    async def _aquery(self, query_bundle: QueryBundle) -> WholeAsyncResponse | ResilientAsyncStreamingResponse:
        return await self.aquery(query_bundle)

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Retrieve what the engine would answer from, and ask no LLM of ours.

        Args:
            query_bundle: The question.

        Returns:
            The nodes, as the engine's retriever found them.
        """
        return self.engine.retrieve(query_bundle)

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> WholeResponse | ResilientStreamingResponse:
        """Answer a question from these nodes, with nothing retrieved.

            response = engine.synthesize(QueryBundle("What happened?"), nodes)

        Args:
            query_bundle: The question.
            nodes: What to answer from.
            additional_source_nodes: What the response names as sources besides.

        Returns:
            What `query` returns.

        Raises:
            StreamInterruptedError: As for `query`.
        """
        calls = CallLog()
        ours = bound_engine(self.engine, calls)
        answer: WholeResponse = _wrapped(
            calls.made_by(lambda: ours.synthesize(query_bundle, nodes, additional_source_nodes)), calls
        )
        return answer

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> WholeAsyncResponse | ResilientAsyncStreamingResponse:
        """Answer a question from these nodes, with nothing retrieved, asynchronously.

            response = await engine.asynthesize(QueryBundle("What happened?"), nodes)

        Args:
            query_bundle: The question.
            nodes: What to answer from.
            additional_source_nodes: What the response names as sources besides.

        Returns:
            What `aquery` returns.

        Raises:
            StreamInterruptedError: As for `aquery`.
        """
        calls = CallLog()
        ours = bound_engine(self.engine, calls)
        answer: WholeAsyncResponse = _wrapped(
            await ours.asynthesize(query_bundle, nodes, additional_source_nodes), calls, asynchronous=True
        )
        return answer

    def _get_prompts(self) -> Any:
        return self.engine._get_prompts()

    def _get_prompt_modules(self) -> Any:
        return self.engine._get_prompt_modules()

    def _update_prompts(self, prompts: Any) -> None:
        self.engine._update_prompts(prompts)


class ResilientChatEngine(AroundEngine, BaseChatEngine):
    """A chat engine around another one, which stays as it is; both share one memory. `resilient(engine)` makes it.

        engine = ResilientChatEngine(index.as_chat_engine(llm=llm))
        for token in engine.stream_chat("What happened to the cable?").response_gen:
            print(token, end="")

    Args:
        chat_engine: The engine that answers. What it has besides is read from it.
        mark: Whether a partial answer in the memory is marked as one.

    Raises:
        ConfigurationError: It is no chat engine.
    """

    def __init__(self, chat_engine: BaseChatEngine, *, mark: bool = True) -> None:
        if not isinstance(chat_engine, BaseChatEngine):
            raise _not_an_engine(chat_engine, "as_chat_engine")
        self.engine: BaseChatEngine = chat_engine
        self._mark = mark

    def reset(self) -> None:
        """Forget the conversation."""
        self.engine.reset()

    @property
    def chat_history(self) -> list[ChatMessage]:
        """The conversation so far."""
        return self.engine.chat_history

    def chat(self, message: str, chat_history: list[ChatMessage] | None = None, **kwargs: Any) -> WholeChatResponse:
        """Answer in one piece.

            print(engine.chat("What happened to the cable?"))

        Args:
            message: What the user says.
            chat_history: The conversation before it, in place of the memory's.
            **kwargs: Passed on to the engine.

        Returns:
            LlamaIndex's own response, with an attribute `report`.

        Raises:
            Exception: The provider's own error when it fails for good.
        """
        calls = CallLog()
        answer: WholeChatResponse = _wrapped(
            bound_engine(self.engine, calls).chat(message, chat_history, **kwargs), calls
        )
        return answer

    async def achat(
        self, message: str, chat_history: list[ChatMessage] | None = None, **kwargs: Any
    ) -> WholeChatResponse:
        """Answer in one piece, asynchronously.

            print(await engine.achat("What happened to the cable?"))

        Args:
            message: What the user says.
            chat_history: The conversation before it, in place of the memory's.
            **kwargs: Passed on to the engine.

        Returns:
            LlamaIndex's own response, with an attribute `report`.

        Raises:
            Exception: The provider's own error when it fails for good.
        """
        calls = CallLog()
        answer: WholeChatResponse = _wrapped(
            await bound_engine(self.engine, calls).achat(message, chat_history, **kwargs), calls, asynchronous=True
        )
        return answer

    def stream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None, **kwargs: Any
    ) -> ResilientStreamingAgentChatResponse:
        """Stream the answer.

            response = engine.stream_chat("What happened to the cable?")
            for token in response.response_gen:
                print(token, end="")
            print(response.report)

        Args:
            message: What the user says.
            chat_history: The conversation before it, in place of the memory's.
            **kwargs: Passed on to the engine.

        Returns:
            A response with `report` and `cancel()`. The answer, also a partial one, is in the memory when it is over.

        Raises:
            StreamInterruptedError: From `response_gen`, when the answer could not be finished.
        """
        calls = CallLog()
        answer: ResilientStreamingAgentChatResponse = _wrapped(
            self._bound_with_memory(calls).stream_chat(message, chat_history, **kwargs), calls
        )
        return answer

    async def astream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None, **kwargs: Any
    ) -> ResilientStreamingAgentChatResponse:
        """Stream the answer, asynchronously.

            response = await engine.astream_chat("What happened to the cable?")
            async for token in response.async_response_gen():
                print(token, end="")

        Args:
            message: What the user says.
            chat_history: The conversation before it, in place of the memory's.
            **kwargs: Passed on to the engine.

        Returns:
            A response with `report` and `acancel()`. The answer, also a partial one, is in the memory when it is over.

        Raises:
            StreamInterruptedError: From `async_response_gen()`, when the answer could not be finished.
        """
        calls = CallLog()
        answer: ResilientStreamingAgentChatResponse = _wrapped(
            await self._bound_with_memory(calls).astream_chat(message, chat_history, **kwargs), calls
        )
        return answer

    def _bound_with_memory(self, calls: CallLog) -> BaseChatEngine:
        ours = bound_engine(self.engine, calls, writes_memory=True)
        memory = vars(ours).get("_memory")  # the agents of old have a `memory`, which they pass on as what it is
        if memory is not None:
            vars(ours)["_memory"] = MarkingMemory(memory, calls, mark=self._mark)
        return ours

    def __getattr__(self, name: str) -> Any:
        if name == "engine":
            raise AttributeError(name)
        return getattr(self.engine, name)
