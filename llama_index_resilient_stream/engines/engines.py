"""`resilient(...)`: query engines, chat engines and responses whose answers finish, and say how they ended.

An engine's own LLM is not touched, and neither is the engine. For each call the tree of objects that leads to its LLMs
is copied, shallowly, with the LLMs bound to one `CallLog` object: so each response has the report of its own call,
however many run at once. Retrievers, postprocessors, query transforms and the memory are the engine's own.

LlamaIndex's legacy agents (`chat_mode="best"` and "react" up to core 0.12) recover and report like the others, with two
exceptions: the partial answer in their memory bears no mark, because they hand the memory on in ways of their own; and
on 0.11.23 and 0.12.52 the legacy ReAct engine shows its first token twice, as it does with any LLM.
"""

from __future__ import annotations

import contextlib
import copy
import types
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, overload

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.callbacks import CallbackManager
from llama_index.core.chat_engine.types import BaseChatEngine, StreamingAgentChatResponse
from llama_index.core.llms.llm import LLM
from llama_index.core.objects import ObjectRetriever
from llama_index.core.query_engine import RetrieverRouterQueryEngine
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import QueryEngineTool

from ..compat.generators import behind
from ..compat.llama_index import WORKERS
from ..errors import ConfigurationError
from ..llm.call_log import CallLog
from ..llm.resilient_llm import ResilientLLM
from ..llm.streams import ResilientAsyncStream, ResilientStream
from .chat_memory import MarkingMemory
from .responses import ResilientAsyncStreamingResponse, ResilientStreamingAgentChatResponse, ResilientStreamingResponse
from .token_buffer import refuse_spent

T = TypeVar("T")

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
    only has a report, and can only be stopped, if its LLM is one. `mark=False` leaves partial answers in a chat memory
    without the mark that says so, for memories shared with an LLM that cannot bear it.
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


def _wrapped(response: Any, calls: CallLog) -> Any:
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
    if calls.report is not None:
        with contextlib.suppress(AttributeError, TypeError, ValueError):  # an engine may return anything, also a string
            response.report = calls.report
    return response


class ResilientQueryEngine(BaseQueryEngine):
    """A query engine around another one, which stays as it is."""

    def __init__(self, engine: BaseQueryEngine) -> None:
        self.engine = engine
        super().__init__(getattr(engine, "callback_manager", None) or CallbackManager([]))

    def query(self, str_or_query_bundle: str | QueryBundle) -> Any:
        calls = CallLog()
        return _wrapped(_bound(self.engine, calls).query(str_or_query_bundle), calls)

    async def aquery(self, str_or_query_bundle: str | QueryBundle) -> Any:
        calls = CallLog()
        return _wrapped(await _bound(self.engine, calls).aquery(str_or_query_bundle), calls)

    def _query(self, query_bundle: QueryBundle) -> Any:
        return self.query(query_bundle)

    async def _aquery(self, query_bundle: QueryBundle) -> Any:
        return await self.aquery(query_bundle)

    def retrieve(self, query_bundle: QueryBundle) -> Any:
        return self.engine.retrieve(query_bundle)

    def synthesize(self, query_bundle: QueryBundle, nodes: Any, additional_source_nodes: Any = None) -> Any:
        calls = CallLog()
        bound = _bound(self.engine, calls)
        return _wrapped(bound.synthesize(query_bundle, nodes, additional_source_nodes), calls)

    async def asynthesize(self, query_bundle: QueryBundle, nodes: Any, additional_source_nodes: Any = None) -> Any:
        calls = CallLog()
        bound = _bound(self.engine, calls)
        return _wrapped(await bound.asynthesize(query_bundle, nodes, additional_source_nodes), calls)

    def _get_prompts(self) -> Any:
        return self.engine._get_prompts()

    def _get_prompt_modules(self) -> Any:
        return self.engine._get_prompt_modules()

    def _update_prompts(self, prompts: Any) -> None:
        self.engine._update_prompts(prompts)

    def __getattr__(self, name: str) -> Any:
        if name == "engine":
            raise AttributeError(name)
        return getattr(self.engine, name)


class ResilientChatEngine(BaseChatEngine):
    """A chat engine around another one, which stays as it is; both share one memory."""

    def __init__(self, engine: BaseChatEngine, *, mark: bool = True) -> None:
        self.engine = engine
        self._mark = mark

    def reset(self) -> None:
        self.engine.reset()

    @property
    def chat_history(self) -> list[ChatMessage]:
        return self.engine.chat_history

    def chat(self, message: str, chat_history: list[ChatMessage] | None = None, **kwargs: Any) -> Any:
        calls = CallLog()
        return _wrapped(_bound(self.engine, calls).chat(message, chat_history, **kwargs), calls)

    async def achat(self, message: str, chat_history: list[ChatMessage] | None = None, **kwargs: Any) -> Any:
        calls = CallLog()
        return _wrapped(await _bound(self.engine, calls).achat(message, chat_history, **kwargs), calls)

    def stream_chat(self, message: str, chat_history: list[ChatMessage] | None = None, **kwargs: Any) -> Any:
        calls = CallLog()
        return _wrapped(self._bound_with_memory(calls).stream_chat(message, chat_history, **kwargs), calls)

    async def astream_chat(self, message: str, chat_history: list[ChatMessage] | None = None, **kwargs: Any) -> Any:
        calls = CallLog()
        return _wrapped(await self._bound_with_memory(calls).astream_chat(message, chat_history, **kwargs), calls)

    def _bound_with_memory(self, calls: CallLog) -> BaseChatEngine:
        bound = _bound(self.engine, calls, writes_memory=True)
        memory = vars(bound).get("_memory")  # the agents of old have a `memory`, which they pass on as what it is
        if memory is not None:
            vars(bound)["_memory"] = MarkingMemory(memory, calls, mark=self._mark)
        return bound

    def __getattr__(self, name: str) -> Any:
        if name == "engine":
            raise AttributeError(name)
        return getattr(self.engine, name)


# Binding


def _bound(engine: T, calls: CallLog, *, writes_memory: bool = False) -> T:
    """A copy of the engine whose LLMs report to `calls`.

    Where a writer fills a chat memory, an answer that is given up ends as a partial one: LlamaIndex's writer keeps what
    was said only from a stream that ends. The response raises the error in the end, where the policy wants one.
    """

    def bind(llm: LLM) -> ResilientLLM:
        ours = llm if isinstance(llm, ResilientLLM) else ResilientLLM(llm)
        if ours.policy.on_exhausted == "partial":
            calls.raises = False
        policy = replace(ours.policy, on_exhausted="partial") if writes_memory else ours.policy
        return ours._bind_calls(calls, policy=policy)

    return _Binding(bind).copy_of(engine)


class _Binding:
    """Copies a tree of objects as far as LLMs hang on it; each object once."""

    def __init__(self, bind: Callable[[LLM], LLM]) -> None:
        self._bind = bind
        self._made: dict[int, Any] = {}

    def copy_of(self, thing: T) -> T:
        made: T
        if id(thing) in self._made:
            return self._made[id(thing)]  # type: ignore[no-any-return]
        if isinstance(thing, ResilientQueryEngine | ResilientChatEngine):
            return self.copy_of(thing.engine)  # type: ignore[return-value]  # it would count the calls by itself
        made = self._made[id(thing)] = copy.copy(thing)
        if vars(made) is vars(thing):  # what pydantic 1 calls a copy, under core 0.10
            object.__setattr__(made, "__dict__", dict(vars(thing)))
        for name, value in list(vars(thing).items()):
            if (replacement := self._replacement(value, thing, made)) is not value:
                made.__dict__[name] = replacement
        return made

    def _replacement(self, value: Any, original: Any, made: Any) -> Any:
        if isinstance(value, LLM):
            if id(value) not in self._made:
                self._made[id(value)] = self._bind(value)
            return self._made[id(value)]
        if isinstance(value, _FOLLOWED):
            return self.copy_of(value)
        if isinstance(value, types.MethodType) and value.__self__ is original:
            return value.__func__.__get__(made)  # else it would lead back to the original and its LLM
        if isinstance(value, ObjectRetriever):
            return _BoundRetriever(value, self)
        if isinstance(value, types.FunctionType) and isinstance(original, RetrieverRouterQueryEngine):
            return lambda node: self.copy_of(value(node))  # its `node_to_query_engine_fn`
        if isinstance(value, dict) and any(isinstance(each, _FOLLOWED) for each in value.values()):
            return {key: self._replacement(each, original, made) for key, each in value.items()}
        if isinstance(value, list | tuple) and any(isinstance(each, _FOLLOWED) for each in value):
            return type(value)(self._replacement(each, original, made) for each in value)
        return value


class _BoundRetriever:
    """Retrieves what it retrieves, the engines in it bound: which they are turns out when a router asks."""

    def __init__(self, retriever: Any, binding: _Binding) -> None:
        self._retriever = retriever
        self._binding = binding

    def retrieve(self, query: Any) -> list[Any]:
        return [self._bound(each) for each in self._retriever.retrieve(query)]

    async def aretrieve(self, query: Any) -> list[Any]:
        return [self._bound(each) for each in await self._retriever.aretrieve(query)]

    def _bound(self, thing: Any) -> Any:
        if isinstance(thing, QueryEngineTool):
            return QueryEngineTool(self._binding.copy_of(thing.query_engine), thing.metadata)
        return thing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._retriever, name)


_FOLLOWED: tuple[type, ...] = (BaseQueryEngine, BaseChatEngine, *WORKERS)
