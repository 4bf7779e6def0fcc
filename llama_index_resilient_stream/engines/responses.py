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
import weakref
from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import Any

from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.chat_engine.types import StreamingAgentChatResponse

from ..errors import StreamInterruptedError
from ..llm.call_log import CallLog
from ..report import StreamReport, StreamStatus
from .chat_writer import alet_writer_finish, aread_writer, let_writer_finish, read_writer
from .token_buffer import AsyncTranscript, Transcript


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
        return StreamStatus.UNKNOWN if self._transcript.over else StreamStatus.STREAMING  # type: ignore[attr-defined]

    @property
    def given(self) -> bool:
        """Whether it was read to its end, token by token, so that there is nothing to be given any more."""
        return self._transcript.given  # type: ignore[attr-defined,no-any-return]

    def cancel(self) -> None:
        """Stop the LLM, from any thread: no retry, its connection is closed, waiting readers are released."""
        self.calls.cancel()
        self._transcript.close()  # type: ignore[attr-defined]

    def _watch(self, calls: CallLog) -> None:
        self.calls = calls
        # Whoever drops a response has left; the thread or task that writes for it would not notice. After the fact
        # somebody may go on reading the original.
        if not calls.found_later:
            weakref.finalize(self, calls.cancel).atexit = False

    @property
    def _kept(self) -> Transcript | AsyncTranscript:
        return self._transcript  # type: ignore[attr-defined,no-any-return]

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


class ResilientStreamingResponse(_Reported, StreamingResponse):
    """A query engine's streaming response."""

    _transcript: Transcript

    @classmethod
    def around(cls, response: StreamingResponse, calls: CallLog) -> ResilientStreamingResponse:
        made = cls(response.response_gen, response.source_nodes, response.metadata, response.response_txt)
        made._watch(calls)
        made._transcript.at_token = calls.look
        return made

    def _tokens(self) -> Generator[str, None, None]:
        # It holds on to the response, for whoever writes `for token in engine.query("...").response_gen`.
        yield from self._transcript.tokens()

    @property
    def response_gen(self) -> Generator[str, None, None]:
        return self._tokens()

    @response_gen.setter
    def response_gen(self, source: Any) -> None:  # the dataclass assigns its field
        self._transcript = Transcript(iter(source or ()))
        vars(self).update(response_gen=source, response_txt=None)  # pydantic 1 looks there, under core 0.10

    @property
    def response_txt(self) -> str | None:
        kept = self._transcript
        return kept.text if kept.over and kept.error is None else None

    @response_txt.setter
    def response_txt(self, text: str | None) -> None:
        if text is not None:
            self._transcript.settle(text)

    def __str__(self) -> str:
        try:
            return self._transcript.whole()
        except StreamInterruptedError as error:
            return self._interrupted(error)

    def get_response(self) -> Response:
        return _with_report(Response(self._transcript.whole(), self.source_nodes, self.metadata), self.report)

    def print_response_stream(self) -> None:
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
    """The same, asynchronous."""

    _transcript: AsyncTranscript

    @classmethod
    def around(cls, response: AsyncStreamingResponse, calls: CallLog) -> ResilientAsyncStreamingResponse:
        made = cls(response.response_gen, response.source_nodes, response.metadata, response.response_txt)
        made._watch(calls)
        made._transcript.at_token = calls.look
        return made

    @property
    def response_gen(self) -> AsyncGenerator[str, None]:
        return self.async_response_gen()

    @response_gen.setter
    def response_gen(self, source: Any) -> None:
        self._transcript = AsyncTranscript(aiter(source))
        vars(self).update(response_gen=source, response_txt=None)

    async def async_response_gen(self) -> AsyncGenerator[str, None]:
        async for token in self._transcript.tokens():
            yield token

    @property
    def response_txt(self) -> str | None:
        kept = self._transcript
        return kept.text if kept.over and kept.error is None else None

    @response_txt.setter
    def response_txt(self, text: str | None) -> None:
        if text is not None:
            self._transcript.settle(text)

    def __str__(self) -> str:
        try:
            return _text_of_async(self._transcript)
        except StreamInterruptedError as error:
            return self._interrupted(error)

    async def get_response(self) -> Response:
        text = await self._transcript.whole()
        return _with_report(Response(text, self.source_nodes, self.metadata), self.report)

    async def print_response_stream(self) -> None:
        try:
            async for token in self._transcript.tokens():
                print(token, end="", flush=True)
        except StreamInterruptedError as error:
            print(_why(error), end="", flush=True)
        print()

    async def acancel(self) -> None:
        """Stop the LLM, and return when its connection is closed."""
        await self.calls.acancel()
        await self._transcript.aclose()

    async def __aenter__(self) -> ResilientAsyncStreamingResponse:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.acancel()


class ResilientStreamingAgentChatResponse(_Reported, StreamingAgentChatResponse):
    """A chat engine's streaming response. It shares its state with the original, which a writer goes on filling."""

    _transcript: Transcript
    _atranscript: AsyncTranscript

    @classmethod
    def around(cls, response: StreamingAgentChatResponse, calls: CallLog) -> ResilientStreamingAgentChatResponse:
        made = object.__new__(cls)
        made.__dict__ = response.__dict__
        made._watch(calls)

        def finish() -> Exception | None:
            return calls.error if calls.raises else None

        async def afinish() -> Exception | None:
            return finish()

        made._transcript = Transcript(read_writer(response, calls), finish)
        made._atranscript = AsyncTranscript(aread_writer(response, calls), afinish)
        return made

    @property
    def response_gen(self) -> Generator[str, None, None]:
        return self._leaving_stops(self._transcript)

    def _leaving_stops(self, transcript: Transcript) -> Generator[str, None, None]:
        try:
            yield from transcript.tokens()
        except GeneratorExit:
            self.cancel()
            raise
        self.response = self.unformatted_response = transcript.text.strip()

    async def async_response_gen(self) -> AsyncGenerator[str, None]:
        try:
            async for token in self._atranscript.tokens():
                yield token
        except GeneratorExit:  # perhaps from the garbage collector, where nothing can be awaited
            self.cancel()
            raise
        except asyncio.CancelledError:
            await self.acancel()
            raise
        self.response = self.unformatted_response = self._atranscript.text.strip()

    @property
    def _kept(self) -> Transcript | AsyncTranscript:
        return self._transcript if self.achat_stream is None else self._atranscript

    def __str__(self) -> str:
        try:
            if self.achat_stream is None:
                return self._transcript.whole().strip()
            return _text_of_async(self._atranscript).strip()
        except StreamInterruptedError as error:
            return self._interrupted(error)

    def print_response_stream(self) -> None:
        try:
            for token in self.response_gen:
                print(token, end="", flush=True)
        except StreamInterruptedError as error:
            print(_why(error), flush=True)

    async def aprint_response_stream(self) -> None:
        try:
            async for token in self.async_response_gen():
                print(token, end="", flush=True)
        except StreamInterruptedError as error:
            print(_why(error), flush=True)

    @property
    def given(self) -> bool:
        return self._transcript.given or self._atranscript.given

    def cancel(self) -> None:
        """Stop the LLM. What it said so far is in the memory, marked, when this returns."""
        self.calls.cancel()
        if self.achat_stream is None and not self._transcript.over:
            let_writer_finish(self, self.calls)

    async def acancel(self) -> None:
        """The same, asynchronously."""
        await self.calls.acancel()
        if not self._atranscript.over:
            await alet_writer_finish(self, self.calls)

    def _status_without_calls(self) -> StreamStatus:
        over = self._transcript.over or self._atranscript.over
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


def _text_of_async(transcript: AsyncTranscript) -> str:
    if transcript.over:
        if transcript.error is not None:
            raise transcript.error
        return transcript.text
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(transcript.whole())
    return transcript.text


def _with_report(response: Response, report: StreamReport) -> Response:
    response.report = report  # type: ignore[attr-defined]  # LlamaIndex's own object, with one attribute more
    return response
