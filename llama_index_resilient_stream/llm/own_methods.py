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
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms.llm import LLM

from ..compat.llama_index import message_text
from ..errors import StreamInterruptedError, TruncatedStreamError
from ..recovery.events import Chunk, Request
from ..report import StreamReport, StreamStatus
from ..transport.connection import Upstream
from .models import Models
from .question import Question
from .structured import is_broken_json
from .witness import Witness

logger = logging.getLogger("llama_index_resilient_stream")

NOT_SHOWN: Any = object()
"""The payload of a chunk that is evidence and nothing else."""

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
    def needs_tools(self) -> bool:
        return not self.objects and bool(self.named_arguments.get("tools"))

    def can_be_asked_of(self, llm: LLM) -> bool:
        return hasattr(llm, self.method)

    @property
    def answers_tool_result(self) -> bool:
        history: Sequence[ChatMessage] = self.named_arguments.get("chat_history") or ()
        return bool(history) and history[-1].role in (MessageRole.TOOL, MessageRole.FUNCTION)

    def tokens(self, count: Callable[[str], int]) -> int:
        texts = [each for each in (*self.arguments, *self.kwargs.values()) if isinstance(each, str)]
        return sum(map(count, (self.prompt, *map(message_text, self.messages), *texts)))

    def call_on(self, llm: LLM) -> Any:
        """Call the method. Integrations write into `llm_kwargs` and the history, so each call gets its own."""
        return getattr(llm, self.method)(*map(_own, self.arguments), **{n: _own(v) for n, v in self.kwargs.items()})


def own_method(method: str, args: Sequence[Any], kwargs: Mapping[str, Any], **options: Any) -> OwnMethod:
    """The question that is a call of `method` with these arguments; `options` are `OwnMethod`'s other fields."""
    values = [*args, *kwargs.values()]
    templates = [template() for each in values if callable(template := getattr(each, "get_template", None))]
    messages = [each for value in values if isinstance(value, (list, tuple)) for each in value]
    return OwnMethod(
        True,
        messages=[each for each in messages if isinstance(each, ChatMessage)],
        prompt="\n".join(map(str, templates)),
        kwargs=kwargs,
        method=method,
        arguments=args,
        **options,
    )


def _own(value: Any) -> Any:
    return type(value)(value) if type(value) in (dict, list) else value


# Asking


def _witness(models: Models, question: OwnMethod, upstream: Upstream, request: Request) -> Witness:
    fields = question.prompt_fields
    if request.model:  # templates and modes are one model's; what the user says to all of them is everybody's
        fields = {name: value for name, value in fields.items() if name in _FOR_EVERY_MODEL}
    return Witness(models, request.model, upstream, fields, question.output_cls)


def ask_own(models: Models, question: OwnMethod, upstream: Upstream, request: Request) -> Iterator[Chunk]:
    """Call a method that streams, and read what it gives."""
    witness = _witness(models, question, upstream, request)
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


def aask_own(models: Models, question: OwnMethod, upstream: Upstream, request: Request) -> AsyncIterator[Chunk]:
    """Call an asynchronous method that streams, and read what it gives."""
    return _AskedOwn(models, question, upstream, request)


class _AskedOwn:
    """A class and not a generator: nobody closes it but its owner."""

    def __init__(self, models: Models, question: OwnMethod, upstream: Upstream, request: Request) -> None:
        self._question = question
        self._upstream = upstream
        self._witness = _witness(models, question, upstream, request)
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


def call_own(models: Models, question: OwnMethod, upstream: Upstream, request: Request) -> Iterator[Chunk]:
    """One call of a method that is not streamed, as a stream of one chunk."""
    witness = _witness(models, question, upstream, request)
    try:
        with upstream.asking():
            answer = question.call_on(witness.asked)
    except Exception as error:
        if _stumbled_over_a_cut(error, witness):
            raise TruncatedStreamError from error
        raise
    yield witness.whole(answer)


async def acall_own(models: Models, question: OwnMethod, upstream: Upstream, request: Request) -> AsyncIterator[Chunk]:
    """One call of an asynchronous method, as a stream of one chunk."""
    witness = _witness(models, question, upstream, request)
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
        if question.objects and not witness.used:
            raise TruncatedStreamError
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
