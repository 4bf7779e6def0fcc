"""Methods of the wrapped class asked as a whole: its own request, and one call of the method is one attempt.

LlamaIndex's integrations ask for objects in ways of their own (`response_format`, `format`, `output_config`), some
through their chat endpoints, some straight through their SDK. So the method itself is called, on a copy of the LLM
whose endpoints are watched on the way (`Witness`): what they say of the end is what the verdict needs. Where a method
goes past them, the object that comes out is the only evidence: one of the class that was asked for is whole.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.llms.llm import LLM

from ..compat.llama_index import inner_llm, message_text, with_inner_llm
from ..errors import EmptyStreamError, StreamInterruptedError, TruncatedStreamError
from ..recovery.events import Chunk, Request
from ..recovery.finish_reasons import FinishMeaning, FinishReason
from ..report import Strategy, StreamReport, StreamStatus
from ..transport.connection import Upstream
from .chunks import Reader
from .requests import Question, aask, acall, ask, call
from .structured import ObjectText, is_broken_json
from .tool_calls import has_cut_calls

logger = logging.getLogger("llama_index_resilient_stream")

PARSED = "parsed"
"""The finish reason of an object that nothing but its own class says is whole."""
NOT_SHOWN: Any = object()
"""The payload of a chunk that is evidence and nothing else."""

_CLOSES = (FinishMeaning.COMPLETE, FinishMeaning.TOOL, FinishMeaning.UNKNOWN)
_FOR_EVERY_MODEL = ("system_prompt", "query_wrapper_prompt", "output_parser")


@dataclass(frozen=True)
class OwnMethod(Question):
    """A question that is a call of one of the wrapped class's own methods."""

    method: str = ""
    """Its name, of the synchronous or the asynchronous half."""
    arguments: Sequence[Any] = field(default=(), repr=False)
    prompt_fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The prompt fields of the LLM that was asked, which the wrapped one is to use."""
    output_cls: Any = None
    """The class of the object that is asked for, where one is."""
    objects: bool = False
    """Whether it answers with such objects themselves, and not with LlamaIndex's responses."""

    @property
    def endpoint(self) -> str:
        return self.method

    @property
    def named_arguments(self) -> dict[str, Any]:
        """What it is called with, by name, for tracers."""
        names = ("output_cls", "prompt", "llm_kwargs") if self.objects else ("tools", "user_msg", "chat_history")
        return {**dict(zip(names, self.arguments, strict=False)), **self.kwargs}

    @property
    def structured(self) -> bool:
        return True

    @property
    def has_tools(self) -> bool:
        return True

    @property
    def answers_tool_result(self) -> bool:
        history: Sequence[ChatMessage] = self.named_arguments.get("chat_history") or ()
        return bool(history) and history[-1].role in (MessageRole.TOOL, MessageRole.FUNCTION)

    def tokens(self, count: Callable[[str], int]) -> int:
        texts = [each for each in (*self.arguments, *self.kwargs.values()) if isinstance(each, str)]
        for each in (*self.arguments, self.kwargs.get("prompt")):
            if callable(template := getattr(each, "get_template", None)):
                texts.append(str(template()))
            elif isinstance(each, (list, tuple)):
                texts += [message_text(message) for message in each if isinstance(message, ChatMessage)]
        return sum(map(count, texts))

    def call_on(self, llm: LLM) -> Any:
        """Call the method. Integrations write into `llm_kwargs`, so each call gets its own."""
        return getattr(llm, self.method)(*map(_own, self.arguments), **{n: _own(v) for n, v in self.kwargs.items()})


def _own(value: Any) -> Any:
    return dict(value) if type(value) is dict else value


class Witness:
    """Watches the endpoints of one LLM while one of its methods uses them."""

    def __init__(self, llm: LLM, upstream: Upstream, fields: Mapping[str, Any], output_cls: Any) -> None:
        self.used = False
        """Whether the method went through an endpoint."""
        self._output_cls = output_cls
        self._llm = inner_llm(llm)
        self._upstream = upstream
        self._seen: list[Chunk] = []
        self._sources: list[Any] = []
        self._reader = Reader()  # of responses that came past the endpoints
        self._ending = self._new_ending()
        endpoints = ("chat", "complete", "stream_chat", "stream_complete")
        watched = {name: getattr(self, name) for each in endpoints for name in (each, f"a{each}")}
        self.asked: LLM = with_inner_llm(llm, {**fields, **watched})
        """A copy of the LLM that tells this object what it does. It shares its client."""

    # The endpoints of the copy

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        return self._call(Question(True, messages=list(messages), kwargs=kwargs))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return self._call(Question(False, prompt=prompt, formatted=formatted, kwargs=kwargs))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Iterator[Any]:
        return self._stream(Question(True, messages=list(messages), kwargs=kwargs))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[Any]:
        return self._stream(Question(False, prompt=prompt, formatted=formatted, kwargs=kwargs))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        return await self._acall(Question(True, messages=list(messages), kwargs=kwargs))

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return await self._acall(Question(False, prompt=prompt, formatted=formatted, kwargs=kwargs))

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncIterator[Any]:
        return self._astream(Question(True, messages=list(messages), kwargs=kwargs))

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> AsyncIterator[Any]:
        return self._astream(Question(False, prompt=prompt, formatted=formatted, kwargs=kwargs))

    def _call(self, question: Question) -> Any:
        (chunk,) = call([self._llm], question, self._upstream, _FIRST)
        return self._check_call(chunk)

    async def _acall(self, question: Question) -> Any:
        (chunk,) = [chunk async for chunk in acall([self._llm], question, self._upstream, _FIRST)]
        return self._check_call(chunk)

    def _stream(self, question: Question) -> Iterator[Any]:
        ending = self._new_ending()
        source = ask([self._llm], question, self._upstream, _FIRST)
        self._begin(source)
        for chunk in source:
            self._note(ending.read(chunk))
            yield chunk.payload
        ending.check()

    async def _astream(self, question: Question) -> AsyncIterator[Any]:
        ending = self._new_ending()
        source = aask([self._llm], question, self._upstream, _FIRST)
        self._begin(source)
        async for chunk in source:
            self._note(ending.read(chunk))
            yield chunk.payload
        ending.check()

    def _new_ending(self) -> _Ending:
        return _Ending(object_due=self._output_cls is not None)

    def _begin(self, source: Any) -> None:
        self.used = True
        self._sources.append(source)

    def _check_call(self, chunk: Chunk) -> Any:
        self.used = True
        ending = self._new_ending()
        self._note(ending.read(chunk))
        ending.check()
        return chunk.payload

    def _note(self, chunk: Chunk) -> None:
        self._seen.append(chunk)

    # What it has seen

    def chunk(self, payload: Any) -> Chunk:
        """What the method gave, with what its endpoints have said since the last time."""
        if self.used:
            return self._evidence(payload)
        if self._output_cls is None and isinstance(payload, ChatResponse):
            return self._ending.read(self._reader.chat(payload))
        return Chunk("", payload, progress=True, tools=PARSED)

    def rest(self, last: Any) -> Chunk | None:
        """What was said after the last thing that the method gave. Raises where that cannot have been all."""
        if self.used:
            chunk = self._evidence(last)
            return chunk if chunk.finish_reason is not None or chunk.usage else None
        if self._output_cls is None:
            self._ending.check()
            return None
        if not isinstance(getattr(last, "raw", last), self._output_cls):
            raise TruncatedStreamError
        return Chunk("", last, finish_reason=FinishReason(FinishMeaning.COMPLETE, PARSED), tools=PARSED)

    def whole(self, payload: Any) -> Chunk:
        """What a method that is not streamed gave. Raises where that cannot have been all."""
        chunk = self.chunk(payload)
        if not self.used and self._output_cls is None:
            self._ending.check()
        return chunk

    def _evidence(self, payload: Any) -> Chunk:
        made = Chunk("", payload)
        for chunk in self._seen:
            made.text += chunk.text
            made.progress = made.progress or chunk.progress
            made.finish_reason = chunk.finish_reason or made.finish_reason
            made.tools = chunk.tools or made.tools
            made.usage = chunk.usage or made.usage
        self._seen = []
        return made

    def close(self) -> None:
        """Close what the endpoints still read."""
        for source in self._sources:
            source.close()

    async def aclose(self) -> None:
        """Close what the asynchronous endpoints still read."""
        for source in self._sources:
            await source.aclose()


class _Ending:
    """Whether the answer of one endpoint is whole."""

    def __init__(self, *, object_due: bool) -> None:
        self._object_due = object_due
        self._text = ObjectText()
        self._last: Chunk | None = None
        self._finish_reason: FinishReason | None = None
        self._said = False

    def read(self, chunk: Chunk) -> Chunk:
        """A chunk as the verdict may see it: no finish reason closes half an object."""
        self._last = chunk
        self._said = self._said or bool(chunk.text) or chunk.tools is not None
        self._text.feed(chunk.text)
        self._finish_reason = chunk.finish_reason or self._finish_reason
        if chunk.finish_reason is None or chunk.finish_reason.kind not in _CLOSES or not self._is_cut:
            return chunk
        return replace(chunk, finish_reason=None)

    def check(self) -> None:
        """At the end of the answer: raise where it was cut, unless a limit or a filter says so itself."""
        finish_reason = self._finish_reason
        if finish_reason is not None and finish_reason.kind not in _CLOSES:
            return
        empty = self._object_due and not self._said
        if self._is_cut or (empty and finish_reason is None):
            raise TruncatedStreamError
        if empty:
            raise EmptyStreamError("The model ended its answer without a single word.")

    @property
    def _is_cut(self) -> bool:
        payload = self._last.payload if self._last is not None else None
        message = getattr(payload, "message", None)
        return self._text.is_cut or (message is not None and has_cut_calls(message))


_FIRST = Request(0, Strategy.FIRST)


# Asking


def _witness(llms: Sequence[LLM], question: OwnMethod, upstream: Upstream, request: Request) -> Witness:
    fields = question.prompt_fields
    if request.model:  # templates and modes are one model's; what the user says to all of them is everybody's
        fields = {name: value for name, value in fields.items() if name in _FOR_EVERY_MODEL}
    return Witness(llms[request.model], upstream, fields, question.output_cls)


def ask_own(llms: Sequence[LLM], question: OwnMethod, upstream: Upstream, request: Request) -> Iterator[Chunk]:
    """Call a method that streams, and read what it gives."""
    witness = _witness(llms, question, upstream, request)
    stream: Any = None
    last: Any = NOT_SHOWN
    try:
        with upstream.asking():
            stream = iter(question.call_on(witness.asked))
            first = next(stream, NOT_SHOWN)
        if not witness.used:
            upstream.look(stream)
        while first is not NOT_SHOWN:
            last = first
            yield witness.chunk(first)
            first = next(stream, NOT_SHOWN)
        if (rest := _rest(witness, question, last)) is not None:
            yield rest
    except Exception as error:
        if _stumbled_over_a_cut(error, witness):
            raise TruncatedStreamError from error
        raise
    finally:
        for close in (upstream.close, getattr(stream, "close", None), witness.close):
            try:
                if close is not None:
                    close()
            except Exception as error:
                logger.debug("closing the upstream stream failed: %s", type(error).__name__)


def aask_own(llms: Sequence[LLM], question: OwnMethod, upstream: Upstream, request: Request) -> AsyncIterator[Chunk]:
    """Call an asynchronous method that streams, and read what it gives."""
    return _AskedOwn(llms, question, upstream, request)


class _AskedOwn:
    """A class and not a generator: nobody closes it but its owner."""

    def __init__(self, llms: Sequence[LLM], question: OwnMethod, upstream: Upstream, request: Request) -> None:
        self._question = question
        self._upstream = upstream
        self._witness = _witness(llms, question, upstream, request)
        self._stream: Any = None
        self._last: Any = NOT_SHOWN
        self._over = False

    def __aiter__(self) -> _AskedOwn:
        return self

    async def __anext__(self) -> Chunk:
        if self._over:
            raise StopAsyncIteration
        try:
            self._last = await self._next()
            return self._witness.chunk(self._last)
        except StopAsyncIteration:
            self._over = True
            if (rest := _rest(self._witness, self._question, self._last)) is not None:
                return rest
            raise
        except Exception as error:
            if _stumbled_over_a_cut(error, self._witness):
                raise TruncatedStreamError from error
            raise

    async def _next(self) -> Any:
        if self._stream is not None:
            return await anext(self._stream)
        with self._upstream.asking():
            made = self._question.call_on(self._witness.asked)
            self._stream = aiter(await made if inspect.isawaitable(made) else made)
            first = await anext(self._stream)
        if not self._witness.used:
            self._upstream.look(self._stream)
        return first

    async def aclose(self) -> None:
        for aclose in (self._upstream.aclose, getattr(self._stream, "aclose", None), self._witness.aclose):
            try:
                if aclose is not None:
                    await aclose()
            except Exception as error:
                logger.debug("closing the upstream stream failed: %s", type(error).__name__)


def call_own(llms: Sequence[LLM], question: OwnMethod, upstream: Upstream, request: Request) -> Iterator[Chunk]:
    """One call of a method that is not streamed, as a stream of one chunk."""
    witness = _witness(llms, question, upstream, request)
    try:
        with upstream.asking():
            answer = question.call_on(witness.asked)
    except Exception as error:
        if _stumbled_over_a_cut(error, witness):
            raise TruncatedStreamError from error
        raise
    yield witness.whole(answer)


async def acall_own(
    llms: Sequence[LLM], question: OwnMethod, upstream: Upstream, request: Request
) -> AsyncIterator[Chunk]:
    """One call of an asynchronous method, as a stream of one chunk."""
    witness = _witness(llms, question, upstream, request)
    try:
        with upstream.asking():
            answer = await question.call_on(witness.asked)
    except Exception as error:
        if _stumbled_over_a_cut(error, witness):
            raise TruncatedStreamError from error
        raise
    yield witness.whole(answer)


def _rest(witness: Witness, question: OwnMethod, last: Any) -> Chunk | None:
    if last is NOT_SHOWN:
        return None
    chunk = witness.rest(last)
    if chunk is not None and question.objects:
        chunk.payload = NOT_SHOWN
    return chunk


def _stumbled_over_a_cut(error: Exception, witness: Witness) -> bool:
    """Whether a method that asked its SDK itself stumbled over half an object."""
    return not witness.used and is_broken_json(error)


# What the reader of objects gets


def objects_of(stream: Generator[Any, None, None]) -> Generator[Any, None, None]:
    """The objects of a stream. Raises at its end where the last one is not whole."""
    with contextlib.closing(stream):
        for each in stream:
            if each is not NOT_SHOWN:
                yield each
        _check(stream)


async def objects_of_async(stream: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """The objects of an asynchronous stream. Raises at its end where the last one is not whole."""
    async with contextlib.aclosing(stream):
        async for each in stream:
            if each is not NOT_SHOWN:
                yield each
        _check(stream)


def _check(stream: Any) -> None:
    report: StreamReport = stream.report
    if report.status in (StreamStatus.LENGTH, StreamStatus.FILTERED):
        error = TruncatedStreamError(f"An object was cut by the finish reason {report.finish_reason!r}.")
        raise StreamInterruptedError(
            str(error), report=report, retryable=False, code=error.code, reason="cut"
        ) from error
