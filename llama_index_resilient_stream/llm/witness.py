"""Watches the endpoints of an LLM while one of its own methods uses them, and says what they said of the end.

A finish reason under half an object or half a tool call is kept from the verdict, and the endpoint raises at its end:
what LlamaIndex would repair never gets so far.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.llm import LLM

from ..compat.llama_index import inner_llm, with_inner_llm
from ..errors import EmptyStreamError, TruncatedStreamError
from ..recovery.events import Chunk, Request
from ..recovery.finish_reasons import OPEN, FinishMeaning, FinishReason
from ..report import Strategy
from ..transport.connection import Upstream
from .chunks import Reader
from .models import Models
from .question import Question
from .requests import aask, acall, ask, call
from .structured import ObjectText
from .tool_calls import has_cut_calls

PARSED = "parsed"
"""The finish reason of an object that nothing but its own class says is whole."""

_CLOSES = (FinishMeaning.COMPLETE, FinishMeaning.TOOL, FinishMeaning.UNKNOWN)


class Witness:
    """Watches the endpoints of one LLM while one of its methods uses them.

    Args:
        models: The chain of LLMs.
        model: The place of this one in it; 0 is the wrapped one.
        fields: What it is to have in place of its own.
        output_cls: The class of the object that is due, where one is.
    """

    def __init__(
        self, models: Models, model: int, upstream: Upstream, fields: Mapping[str, Any], output_cls: Any
    ) -> None:
        self.used = False
        """Whether the method went through an endpoint."""
        self._output_cls = output_cls
        llm = models.llms[model]
        self._models = Models([inner_llm(llm)] * (model + 1), models.rows)
        self._request = Request(model, Strategy.FIRST)
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
        (chunk,) = call(self._models, question, self._upstream, self._request)
        return self._check_call(chunk)

    async def _acall(self, question: Question) -> Any:
        (chunk,) = [chunk async for chunk in acall(self._models, question, self._upstream, self._request)]
        return self._check_call(chunk)

    def _stream(self, question: Question) -> Iterator[Any]:
        ending = self._new_ending()
        source = ask(self._models, question, self._upstream, self._request)
        self._begin(source)
        for chunk in source:
            self._note(ending.read(chunk))
            yield chunk.payload
        ending.check()

    async def _astream(self, question: Question) -> AsyncIterator[Any]:
        ending = self._new_ending()
        source = aask(self._models, question, self._upstream, self._request)
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
            made.server = chunk.server or made.server
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
        self._calls = ""

    def read(self, chunk: Chunk) -> Chunk:
        """A chunk as the verdict may see it: no finish reason closes half an object."""
        self._last = chunk
        self._calls = chunk.tools or self._calls
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
        return self._text.is_cut or OPEN in self._calls or (message is not None and has_cut_calls(message))
