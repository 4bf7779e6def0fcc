"""Responses of query and chat engines that keep what they were given, and say how it ended.

Divergences from LlamaIndex's classes, whose fields and methods they keep:

1. `response_gen` and `str()` can be used in any order, also both: nothing is lost and nothing comes twice.
2. After an error the response stays failed: iterating raises it again, while `str()`, `print()` and notebooks show the
   partial text and a note. LlamaIndex serves the partial text, or "None", as the answer from then on.
3. A chat response gives every queued token before an error, waits without burning the processor, and stops the LLM when
   its reader leaves instead of waiting for it.
4. `str()` of an asynchronous response is the text so far while a loop runs in this thread, which cannot wait for more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import Any

from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.chat_engine.types import StreamingAgentChatResponse

from ..errors import StreamInterruptedError
from ..llm.call_log import CallLog
from ..report import StreamReport, StreamStatus
from .chat_writer import alet_writer_finish, aread_writer, let_writer_finish, read_writer
from .token_buffer import AsyncTokenBuffer, TokenBuffer


class _Reported:
    """What all three have in common."""

    calls: CallLog
    """The LLM calls that were made for it."""

    @property
    def report(self) -> StreamReport:
        """How the answer came about. Before the LLM was asked, and where none was, an empty report."""
        found = self.calls.report
        return found if found is not None else StreamReport(status=self._status_without_calls())

    def _status_without_calls(self) -> StreamStatus:
        return StreamStatus.UNKNOWN if self._buffer.over else StreamStatus.STREAMING  # type: ignore[attr-defined]

    @property
    def given(self) -> bool:
        """Whether it was read to its end, token by token, so that there is nothing to be given any more."""
        return self._buffer.given  # type: ignore[attr-defined,no-any-return]

    def cancel(self) -> None:
        """Stop the LLM, from any thread: no retry, its connection is closed, waiting readers are released."""
        self.calls.cancel()
        self._buffer.close()  # type: ignore[attr-defined]

    def _watch(self, calls: CallLog) -> None:
        self.calls = calls

    def __del__(self) -> None:
        # Whoever drops a response has left; the thread or task that writes for it would not notice. After the fact
        # somebody may go on reading the original. No finalizer of weakref: its registry would hold on to the calls,
        # and an error among them to the frames that it came through, and so to this response.
        calls = vars(self).get("calls")
        if calls is not None and not calls.found_later:
            calls.cancel()

    @property
    def _kept(self) -> TokenBuffer | AsyncTokenBuffer:
        return self._buffer  # type: ignore[attr-defined,no-any-return]

    @property
    def error(self) -> StreamInterruptedError | None:
        """Why the answer was given up; None where it was not, or not yet."""
        if isinstance(kept := self._kept.error, StreamInterruptedError):
            return kept
        return self.calls.error if self.report.status is StreamStatus.INTERRUPTED else None

    @property
    def partial_text(self) -> str:
        """All of the answer that arrived so far."""
        return self._kept.text

    def _interrupted(self, error: StreamInterruptedError) -> str:
        """The partial text and why there is no more, for people."""
        self.calls.shown_as_text = True
        return (self.partial_text.strip() + _why(error)).lstrip()

    def _repr_markdown_(self) -> str:
        return str(self) + self._note()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.report.status}, {len(self.partial_text):,} characters>"

    def _note(self) -> str:
        if self._kept.error is not None:
            return ""  # str() says it
        report = self.report
        if report.status is StreamStatus.INTERRUPTED:
            return f"\n\n*interrupted: {report.reason}*"
        if not report.recovered:
            return ""
        count = len(report.faults)
        return f"\n\n*healed: {count} fault{'s' if count != 1 else ''}, {len(report.attempts)} attempts*"


class _Live:
    def _ipython_display_(self) -> None:
        from .show import display_in_notebook  # which reads responses, and so imports this module

        display_in_notebook(self)


class ResilientStreamingResponse(_Live, _Reported, StreamingResponse):
    """A query engine's streaming response.

        response = resilient(engine).query("What happened to the cable?")
        for token in response.response_gen:
            print(token, end="")
        print(response.report)

    It is a context manager as well: leaving the block stops the LLM.
    """

    _buffer: TokenBuffer

    @classmethod
    def around(cls, response: StreamingResponse, calls: CallLog) -> ResilientStreamingResponse:
        """Put ours around a response of LlamaIndex, whose report is that of `calls`. `resilient(response)` does it."""
        made = cls(response.response_gen, response.source_nodes, response.metadata, response.response_txt)
        made._watch(calls)
        made._buffer.at_token = calls.look
        return made

    def _tokens(self) -> Generator[str, None, None]:
        # It holds on to the response, for whoever writes `for token in engine.query("...").response_gen`.
        yield from self._buffer.tokens()

    @property
    def response_gen(self) -> Generator[str, None, None]:
        """Give the tokens that were not given before.

        Raises:
            StreamInterruptedError: The answer could not be finished.
        """
        return self._tokens()

    @response_gen.setter
    def response_gen(self, source: Any) -> None:  # the dataclass assigns its field
        self._buffer = TokenBuffer(iter(source or ()))
        vars(self).update(response_gen=source, response_txt=None)  # pydantic 1 looks there, under core 0.10

    @property
    def response_txt(self) -> str | None:
        """The whole text, when it is over and ended without an error; None before."""
        kept = self._buffer
        return kept.text if kept.over and kept.error is None else None

    @response_txt.setter
    def response_txt(self, text: str | None) -> None:
        if text is not None:
            self._buffer.settle(text)

    def __str__(self) -> str:
        try:
            return self._buffer.whole()
        except StreamInterruptedError as error:
            return self._interrupted(error)

    def get_response(self) -> Response:
        """Read it to its end, and return LlamaIndex's response that does not stream, with an attribute `report`.

        Raises:
            StreamInterruptedError: The answer could not be finished.
        """
        return _with_report(Response(self._buffer.whole(), self.source_nodes, self.metadata), self.report)

    def print_response_stream(self) -> None:
        """Print the tokens as they come. Of an answer that could not be finished the last line says so."""
        try:
            for token in self.response_gen:
                print(token, end="", flush=True)
        except StreamInterruptedError as error:
            print(_why(error), flush=True)

    def __enter__(self) -> ResilientStreamingResponse:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.cancel()


class ResilientAsyncStreamingResponse(_Reported, AsyncStreamingResponse):
    """A query engine's streaming response, of `aquery`.

        response = await resilient(engine).aquery("What happened to the cable?")
        async for token in response.response_gen:
            print(token, end="")
        print(response.report)

    It is an asynchronous context manager as well: leaving the block stops the LLM.
    """

    _buffer: AsyncTokenBuffer

    @classmethod
    def around(cls, response: AsyncStreamingResponse, calls: CallLog) -> ResilientAsyncStreamingResponse:
        """Put ours around a response of LlamaIndex, whose report is that of `calls`. `resilient(response)` does it."""
        made = cls(response.response_gen, response.source_nodes, response.metadata, response.response_txt)
        made._watch(calls)
        made._buffer.at_token = calls.look
        return made

    @property
    def response_gen(self) -> AsyncGenerator[str, None]:
        """Give the tokens that were not given before, asynchronously.

        Raises:
            StreamInterruptedError: The answer could not be finished.
        """
        return self.async_response_gen()

    @response_gen.setter
    def response_gen(self, source: Any) -> None:
        self._buffer = AsyncTokenBuffer(aiter(source))
        vars(self).update(response_gen=source, response_txt=None)

    async def async_response_gen(self) -> AsyncGenerator[str, None]:
        """Give the tokens that were not given before, asynchronously.

        Raises:
            StreamInterruptedError: The answer could not be finished.
        """
        async for token in self._buffer.tokens():
            yield token

    @property
    def response_txt(self) -> str | None:
        """The whole text, when it is over and ended without an error; None before."""
        kept = self._buffer
        return kept.text if kept.over and kept.error is None else None

    @response_txt.setter
    def response_txt(self, text: str | None) -> None:
        if text is not None:
            self._buffer.settle(text)

    def __str__(self) -> str:
        try:
            return _text_of_async(self._buffer)
        except StreamInterruptedError as error:
            return self._interrupted(error)

    async def get_response(self) -> Response:
        """Read it to its end, and return LlamaIndex's response that does not stream, with an attribute `report`.

        Raises:
            StreamInterruptedError: The answer could not be finished.
        """
        text = await self._buffer.whole()
        return _with_report(Response(text, self.source_nodes, self.metadata), self.report)

    async def print_response_stream(self) -> None:
        """Print the tokens as they come. Of an answer that could not be finished the last line says so."""
        try:
            async for token in self._buffer.tokens():
                print(token, end="", flush=True)
        except StreamInterruptedError as error:
            print(_why(error), end="", flush=True)
        print()

    async def acancel(self) -> None:
        """Stop the LLM, and return when its connection is closed."""
        await self.calls.acancel()
        await self._buffer.aclose()

    async def __aenter__(self) -> ResilientAsyncStreamingResponse:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.acancel()


class ResilientStreamingAgentChatResponse(_Live, _Reported, StreamingAgentChatResponse):
    """A chat engine's streaming response. It shares its state with the original, which a writer goes on filling.

        response = resilient(engine).stream_chat("What happened to the cable?")
        for token in response.response_gen:         # of astream_chat: async for token in response.async_response_gen()
            print(token, end="")
        print(response.report)

    It is a context manager as well, of both kinds: leaving the block stops the LLM.
    """

    _buffer: TokenBuffer
    _abuffer: AsyncTokenBuffer

    @classmethod
    def around(cls, response: StreamingAgentChatResponse, calls: CallLog) -> ResilientStreamingAgentChatResponse:
        """Put ours around a response of LlamaIndex, whose report is that of `calls`. `resilient(response)` does it."""
        made = object.__new__(cls)
        made.__dict__ = response.__dict__
        made._watch(calls)

        def finish() -> Exception | None:
            return calls.error if calls.raises else None

        async def afinish() -> Exception | None:
            return finish()

        made._buffer = TokenBuffer(read_writer(response, calls), finish)
        made._abuffer = AsyncTokenBuffer(aread_writer(response, calls), afinish)
        return made

    @property
    def response_gen(self) -> Generator[str, None, None]:
        """Give the tokens that were not given before. Closing the generator stops the LLM.

        Raises:
            StreamInterruptedError: The answer could not be finished.
        """
        return self._leaving_stops(self._buffer)

    def _leaving_stops(self, buffer: TokenBuffer) -> Generator[str, None, None]:
        try:
            yield from buffer.tokens()
        except GeneratorExit:
            self.cancel()
            raise
        self.response = self.unformatted_response = buffer.text.strip()

    async def async_response_gen(self) -> AsyncGenerator[str, None]:
        """Give the tokens that were not given before, asynchronously.

        Raises:
            StreamInterruptedError: The answer could not be finished.
        """
        try:
            async for token in self._abuffer.tokens():
                yield token
        except GeneratorExit:  # perhaps from the garbage collector, where nothing can be awaited
            self.cancel()
            raise
        except asyncio.CancelledError:
            await self.acancel()
            raise
        self.response = self.unformatted_response = self._abuffer.text.strip()

    @property
    def _kept(self) -> TokenBuffer | AsyncTokenBuffer:
        return self._buffer if self.achat_stream is None else self._abuffer

    def __str__(self) -> str:
        try:
            if self.achat_stream is None:
                return self._buffer.whole().strip()
            return _text_of_async(self._abuffer).strip()
        except StreamInterruptedError as error:
            return self._interrupted(error)

    def print_response_stream(self) -> None:
        """Print the tokens as they come. Of an answer that could not be finished the last line says so."""
        try:
            for token in self.response_gen:
                print(token, end="", flush=True)
        except StreamInterruptedError as error:
            print(_why(error), flush=True)

    async def aprint_response_stream(self) -> None:
        """Print the tokens as they come. Of an answer that could not be finished the last line says so."""
        try:
            async for token in self.async_response_gen():
                print(token, end="", flush=True)
        except StreamInterruptedError as error:
            print(_why(error), flush=True)

    @property
    def given(self) -> bool:
        """Whether it was read to its end, token by token, so that there is nothing to be given any more."""
        return self._buffer.given or self._abuffer.given

    def cancel(self) -> None:
        """Stop the LLM. What it said so far is in the memory, marked, when this returns."""
        self.calls.cancel()
        if self.achat_stream is None and not self._buffer.over:
            let_writer_finish(self, self.calls)

    async def acancel(self) -> None:
        """Stop the LLM, and return when its connection is closed and what it said so far is in the memory, marked."""
        await self.calls.acancel()
        if not self._abuffer.over:
            await alet_writer_finish(self, self.calls)

    def _status_without_calls(self) -> StreamStatus:
        over = self._buffer.over or self._abuffer.over
        return StreamStatus.UNKNOWN if over else StreamStatus.STREAMING

    def __enter__(self) -> ResilientStreamingAgentChatResponse:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.cancel()

    async def __aenter__(self) -> ResilientStreamingAgentChatResponse:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.acancel()


def _why(error: StreamInterruptedError) -> str:
    return f"\n\n[interrupted: {str(error).removeprefix('Stream interrupted: ')}]"


def _text_of_async(buffer: AsyncTokenBuffer) -> str:
    if buffer.over:
        if buffer.error is not None:
            raise buffer.error
        return buffer.text
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(buffer.whole())
    return buffer.text


def _with_report(response: Response, report: StreamReport) -> Response:
    response.report = report  # type: ignore[attr-defined]  # LlamaIndex's own object, with one attribute more
    return response
