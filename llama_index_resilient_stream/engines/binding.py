"""Copies an engine for one call, with its LLMs bound to the call's `CallLog`. The user's engine is never changed."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.llms.llm import LLM
from llama_index.core.objects import ObjectRetriever
from llama_index.core.query_engine import RetrieverRouterQueryEngine
from llama_index.core.tools import QueryEngineTool

from ..compat.llama_index import WORKERS
from ..llm.call_log import CallLog
from ..llm.resilient_llm import ResilientLLM

T = TypeVar("T")

FOLLOWED: tuple[type, ...] = (BaseQueryEngine, BaseChatEngine, *WORKERS)
"""The classes in which an engine keeps an LLM. Retrievers, postprocessors and query transforms are left alone."""


class AroundEngine:
    """An engine of ours around another one, from which it reads what it has not itself."""

    engine: Any

    def __getattr__(self, name: str) -> Any:
        if name == "engine":
            raise AttributeError(name)
        return getattr(self.engine, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {type(self.engine).__name__}>"


def bound_engine(engine: T, calls: CallLog, *, writes_memory: bool = False) -> T:
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
        if isinstance(thing, AroundEngine):
            return self.copy_of(thing.engine)  # type: ignore[no-any-return]  # it would count the calls by itself
        made = self._made[id(thing)] = copy.copy(thing)
        if vars(made) is vars(thing):  # what pydantic 1 calls a copy, under core 0.10
            object.__setattr__(made, "__dict__", dict(vars(thing)))
        for name, value in list(vars(thing).items()):
            if (replacement := self._replacement(value, thing, made)) is not value:
                made.__dict__[name] = replacement
        return made

    def _replacement(self, value: Any, original: Any, made: Any) -> Any:
        """What stands in the copy for what stands in the original; the same object where no LLM hangs on it."""
        if isinstance(value, LLM):
            return self._bound_llm(value)
        if isinstance(value, FOLLOWED):
            return self.copy_of(value)
        if isinstance(value, dict | list | tuple):
            return self._of_container(value, original, made)
        if isinstance(value, types.MethodType) and value.__self__ is original:
            return value.__func__.__get__(made)  # else it would lead back to the original and its LLM
        if isinstance(value, ObjectRetriever):
            return _BoundRetriever(value, self)
        if isinstance(value, types.FunctionType) and isinstance(original, RetrieverRouterQueryEngine):
            return lambda node: self.copy_of(value(node))  # its `node_to_query_engine_fn`
        return value

    def _bound_llm(self, llm: LLM) -> LLM:
        if id(llm) not in self._made:
            self._made[id(llm)] = self._bind(llm)
        bound: LLM = self._made[id(llm)]
        return bound

    def _of_container(self, value: Any, original: Any, made: Any) -> Any:
        items = value.values() if isinstance(value, dict) else value
        if not any(isinstance(each, FOLLOWED) for each in items):
            return value
        if isinstance(value, dict):
            return {key: self._replacement(each, original, made) for key, each in value.items()}
        return type(value)(self._replacement(each, original, made) for each in value)


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
