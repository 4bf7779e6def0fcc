"""Sends the requests of the core to the wrapped LLMs, and reads their responses as chunks.

Plain functions on purpose: a reader thread stuck in one of them keeps the wrapped LLM alive, and nothing of ours.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from llama_index.core.llms.llm import LLM

from ..compat.llama_index import blocks_the_loop, is_end_of_empty_completion
from ..recovery.events import Chunk, Request
from ..streaming.threads import Offloaded
from ..transport.connection import Upstream
from ..transport.http_libraries import watch_libraries
from ..transport.sdk_clients import hides_its_client, observed
from .calls import Call, call_of
from .chunks import read_whole
from .models import Models
from .question import Question
from .response_chain import unchained

logger = logging.getLogger("llama_index_resilient_stream")


def ask(models: Models, question: Question, upstream: Upstream, request: Request) -> Iterator[Chunk]:
    """Open the stream that answers the request, and read it."""
    made = call_of(models, _seen(models.llms[request.model], upstream, asynchronous=False), question, request)
    read = made.read
    if request.keep:
        upstream.keep()
    stream: Any = None
    try:
        with upstream.asking():
            stream, responses, first = made.stream()
        if first is not None:
            upstream.look(stream)
            yield read(first)
            for response in upstream.seen(responses):
                yield read(response)
    except Exception as error:
        if text := upstream.unsaid(error):
            yield Chunk(text, progress=True, untouched=False)
        if not is_end_of_empty_completion(error):
            raise
    finally:
        # The connection first: with it closed, closing what LlamaIndex put around it waits for nothing.
        for close in (upstream.close, getattr(stream, "close", None)):
            try:
                if close is not None:
                    close()
            except Exception as error:
                logger.debug("closing the upstream stream failed: %s", type(error).__name__)


def _seen(llm: LLM, upstream: Upstream, *, asynchronous: bool) -> LLM:
    """The LLM to ask, whose connections the `upstream` gets to know."""
    if hides_its_client(type(llm)):
        upstream.sees_libraries = True
        watch_libraries()
        return llm
    return unchained(llm, observed(llm, asynchronous=asynchronous))


def aask(models: Models, question: Question, upstream: Upstream, request: Request) -> AsyncIterator[Chunk]:
    """Open the stream that answers the request, and read it, asynchronously.

    An LLM whose asynchronous endpoints block is asked in a thread.
    """
    llm, endpoint = models.llms[request.model], f"astream_{question.endpoint}"
    if blocks_the_loop(llm, endpoint) or models.row(request.model).reads_in_thread(llm):
        return Offloaded(partial(ask, models, question, upstream, request), upstream.break_read)
    return _Asked(models, question, upstream, request)


class _Asked:
    """A class and not a generator: nobody closes it but its owner, while a generator's finalizer may come between."""

    def __init__(self, models: Models, question: Question, upstream: Upstream, request: Request) -> None:
        self._asked = (models, question, request)
        self._upstream = upstream
        self._stream: Any = None
        self._responses: AsyncIterator[Any] | None = None
        self._call: Call
        self._error: Exception | None = None  # comes behind what the class did not say

    def __aiter__(self) -> _Asked:
        return self

    async def __anext__(self) -> Chunk:
        if self._error is not None:
            raise self._error
        try:
            if self._responses is None:
                return await self._first()
            upstream, responses = self._upstream, self._responses
            return self._call.read(await (upstream.seen_next if upstream.sees_libraries else anext)(responses))
        except Exception as error:
            if is_end_of_empty_completion(error):
                raise StopAsyncIteration from None
            if not (text := self._upstream.unsaid(error)):
                raise
            self._error = error
            return Chunk(text, progress=True, untouched=False)

    async def _first(self) -> Chunk:
        models, question, request = self._asked
        seen = _seen(models.llms[request.model], self._upstream, asynchronous=True)
        self._call = call_of(models, seen, question, request)
        if request.keep:
            self._upstream.keep()
        with self._upstream.asking():
            response = await self._open()
        self._upstream.look(self._stream)
        return self._call.read(response)

    async def _open(self) -> Any:
        while True:
            try:
                self._stream = await self._call.astream()
                self._responses = aiter(self._stream)
                return await anext(self._responses)
            except Exception as error:
                if not self._call.mends(error):
                    raise

    async def aclose(self) -> None:
        for aclose in (self._upstream.aclose, getattr(self._stream, "aclose", None)):
            try:
                if aclose is not None:
                    await aclose()
            except Exception as error:
                logger.debug("closing the upstream stream failed: %s", type(error).__name__)


def call(models: Models, question: Question, upstream: Upstream, request: Request) -> Iterator[Chunk]:
    """One call that is not streamed, as a stream of one chunk."""
    made = call_of(models, observed(models.llms[request.model], asynchronous=False), question, request)
    with upstream.asking():
        response = made.whole()
    yield read_whole(response)


async def acall(models: Models, question: Question, upstream: Upstream, request: Request) -> AsyncIterator[Chunk]:
    """Make one call that is not streamed, asynchronously, as a stream of one chunk."""
    if blocks_the_loop(models.llms[request.model], f"a{question.endpoint}"):
        async for chunk in Offloaded(partial(call, models, question, upstream, request)):
            yield chunk
        return
    made = call_of(models, observed(models.llms[request.model], asynchronous=True), question, request)
    with upstream.asking():
        response = await made.awhole()
    yield read_whole(response)
