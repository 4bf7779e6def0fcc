"""One span per answer on LlamaIndex's dispatcher, open for as long as the answer is, with its attempts inside.

It is no LLM's span: those are the attempts', which know their provider and count their tokens. LlamaIndex's own
decorator closes a span when the method returns, which for a stream is before its first token; what is asked later, in
another thread perhaps, would be a trace of its own. So the endpoints of `ResilientLLM` are kept from being decorated,
and the span is opened when the LLM is asked and closed when the answer is over, however it ends. Nothing of this costs
anything where no tracer listens.
"""

from __future__ import annotations

import contextlib
import inspect
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.chat_engine import StreamChatEndEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import LLMPredictEndEvent
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.instrumentation.span_handlers import NullSpanHandler

from ..recovery.events import Chunk, Request
from ..recovery.machine import Recovery
from ..report import StreamReport
from ..transport.connection import Upstream

F = TypeVar("F", bound=Callable[..., Any])

dispatcher = get_dispatcher(__name__)


def untraced(method: F) -> F:
    """Keep LlamaIndex from opening a span of its own around a method; this is the mark by which it knows."""
    method.__dispatcher_span_decorated__ = True  # type: ignore[attr-defined]
    return method


class StreamSpanEndEvent(LLMPredictEndEvent, StreamChatEndEvent):
    """Closes the span of a stream. OpenInference takes its output, and lets go of spans that waited for the stream."""

    @classmethod
    def class_name(cls) -> str:
        return "StreamSpanEndEvent"


class StreamSpan:
    """The span of one answer. Listens for its end as any callback does.

    Args:
        llm: the `ResilientLLM` that was asked.
        method: the name of its method.
        arguments: what that was called with, by name.
        recovery: the answer.
        streamed: whether it is a stream, whose end the spans around it may wait for.
    """

    def __init__(
        self, llm: Any, method: str, arguments: Mapping[str, Any], recovery: Recovery, *, streamed: bool = True
    ) -> None:
        self._id = f"{type(llm).__name__}.{method}-{uuid.uuid4()}"
        self._parent = active_span_id.get()
        self._llm = llm
        signature = inspect.Signature([inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in arguments])
        self._arguments = signature.bind(**arguments)
        self._recovery = recovery
        self._streamed = streamed
        self._began = self._ended = False

    def begin(self) -> str:
        """Open the span, unless it is; its id."""
        if not self._began:
            self._began = True
            # In a context that nobody else uses: the reader's own spans are not part of this answer. And of no
            # instance: tracers take a span for that of an LLM by it, and would count one call twice.
            copy_context().run(
                dispatcher.span_enter,
                id_=self._id,
                bound_args=self._arguments,
                instance=None,
                parent_id=self._parent,
                tags={},
            )
        return self._id

    def on_end(self, report: StreamReport) -> None:
        """The answer is over."""
        if not self._began or self._ended:
            return
        self._ended = True
        if self._streamed:
            self._end_stream()
        elif (error := self._recovery.error) is not None:
            cause = error.__cause__ or error
            dispatcher.span_drop(id_=self._id, bound_args=self._arguments, instance=None, err=cause)
        else:
            answer = self._recovery.last_payload
            dispatcher.span_exit(id_=self._id, bound_args=self._arguments, instance=None, result=answer)

    def _end_stream(self) -> None:
        """Spans around a stream may wait for its end, so it has to be told as an LLM's stream tells it."""
        dispatcher.span_exit(id_=self._id, bound_args=self._arguments, instance=self._llm, result=_stream())
        if (error := self._recovery.error) is not None:
            dispatcher.event(ExceptionEvent(span_id=self._id, exception=error))
        else:
            dispatcher.event(StreamSpanEndEvent(span_id=self._id, output=self._recovery.answer))


def _stream() -> Iterator[None]:
    """What a tracer knows a stream by: a generator that has not run to its end."""
    yield None


def span_of(
    llm: Any, method: str, arguments: Mapping[str, Any], recovery: Recovery, *, streamed: bool = True
) -> StreamSpan | None:
    """The span of an answer, or None where nobody listens."""
    return StreamSpan(llm, method, arguments, recovery, streamed=streamed) if _is_watched() else None


def _is_watched() -> bool:
    each: Any = dispatcher
    while each is not None:
        if any(not isinstance(handler, NullSpanHandler) for handler in each.span_handlers):
            return True
        each = each.parent if each.propagate else None
    return False


Ask = Callable[[Upstream, Request], Iterator[Chunk]]
AsyncAsk = Callable[[Upstream, Request], AsyncIterator[Chunk]]


def within(trace: StreamSpan | None, ask: Ask) -> Ask:
    """`ask`, whose LLM finds the trace's span open when it is called."""
    return ask if trace is None else partial(_within, trace, ask)


def awithin(trace: StreamSpan | None, ask: AsyncAsk) -> AsyncAsk:
    """The same, asynchronously."""
    return ask if trace is None else partial(_Awithin, trace, ask)


def _within(trace: StreamSpan, ask: Ask, upstream: Upstream, request: Request) -> Iterator[Chunk]:
    span_id = trace.begin()
    del trace  # a thread that is stuck in here holds on to nothing of ours
    chunks: Any = ask(upstream, request)
    with contextlib.closing(chunks):
        token = active_span_id.set(span_id)
        try:  # the LLM is called when its first chunk is asked for
            first = next(chunks, None)
        finally:
            active_span_id.reset(token)
        if first is not None:
            yield first
            yield from chunks


class _Awithin:
    """An iterator class for the reason that `aask` is one: nobody closes it but its owner."""

    def __init__(self, trace: StreamSpan, ask: AsyncAsk, upstream: Upstream, request: Request) -> None:
        self._trace = trace
        self._chunks: Any = ask(upstream, request)
        self._called = False

    def __aiter__(self) -> _Awithin:
        return self

    async def __anext__(self) -> Chunk:
        if self._called:
            chunk: Chunk = await anext(self._chunks)
            return chunk
        self._called = True
        token = active_span_id.set(self._trace.begin())
        try:
            first: Chunk = await anext(self._chunks)
        finally:
            with contextlib.suppress(ValueError):  # closed by another task than the one that read
                active_span_id.reset(token)
        return first

    async def aclose(self) -> None:
        await self._chunks.aclose()

    @property
    def left_thread(self) -> bool:
        return getattr(self._chunks, "left_thread", False)
