"""What a reader of a response has seen: tokens that can be read after, during, or instead of asking for the text.

Every token is kept, so nothing is lost to whoever asks first and nothing is shown twice. A stream that failed stays
failed: its partial text is never served later as the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from types import AsyncGeneratorType
from typing import Any

from ..compat.generators import behind
from ..errors import ConfigurationError, StreamInterruptedError
from ..report import StreamReport, StreamStatus

Finish = Callable[[], Exception | None]
AsyncFinish = Callable[[], Awaitable[Exception | None]]
"""Called once when the source is exhausted: the error that the reader shall get after the last token, if any."""


async def _no_error() -> None:
    return None


def refuse_spent(source: object) -> None:
    """LlamaIndex keeps no text: of a generator that was read to its end, or closed, there is nothing left."""
    report = getattr(source, "report", None)
    if (
        (isinstance(report, StreamReport) and report.status is not StreamStatus.STREAMING)
        or (inspect.isgenerator(source) and inspect.getgeneratorstate(source) == inspect.GEN_CLOSED)
        or (inspect.isasyncgen(source) and source.ag_frame is None)
    ):
        raise ConfigurationError(
            "This response was read before, and LlamaIndex keeps no text: what was read is gone. Read it once, or make "
            "it resilient first: response = resilient(response)."
        )


class _Buffer:
    """The tokens so far, and the place where the reader is."""

    def __init__(self) -> None:
        self.over = False
        self.error: BaseException | None = None
        self.at_token: Callable[[], bool] | None = None
        """Called when a token came, as long as it says True."""
        self._tokens: list[str] = []
        self._read = 0

    @property
    def text(self) -> str:
        """All tokens that came so far."""
        if len(self._tokens) > 1 and self._read >= len(self._tokens):
            self._tokens = ["".join(self._tokens)]
            self._read = 1
        return "".join(self._tokens)

    @property
    def given(self) -> bool:
        """Whether there were tokens, and readers have got them all."""
        return self.over and bool(self._tokens) and self._read >= len(self._tokens)

    def settle(self, text: str) -> None:
        """Somebody knows better what the whole text is."""
        self.over, self.error, self._tokens, self._read = True, None, [text], 0

    def _keep(self, token: str | None) -> None:
        self._tokens.append(token or "")
        if self.at_token is not None and not self.at_token():
            self.at_token = None

    def _next_kept(self) -> str | None:
        if self._read < len(self._tokens):
            self._read += 1
            return self._tokens[self._read - 1]
        return None

    def _stay_failed(self, error: BaseException) -> None:
        self.over = True
        if isinstance(error, Exception):
            self.error = error
        else:  # the reader was interrupted inside the stream, and the stream with it
            self.error = StreamInterruptedError(
                "Reading this response was cancelled in the middle.", partial_text=self.text, reason="cancelled"
            )


class TokenBuffer(_Buffer):
    """Of a synchronous response."""

    def __init__(self, source: Iterator[str], finish: Finish = lambda: None) -> None:
        super().__init__()
        self._source = source
        self._finish = finish
        self._lock = threading.Lock()

    def tokens(self) -> Generator[str, None, None]:
        """The tokens that no reader has been given yet. A native generator: Streamlit insists."""
        while True:
            if (token := self._next_kept()) is not None:
                yield token
            elif not self._pull():
                return

    def whole(self) -> str:
        """The text, when all of it is there."""
        while self._pull():
            pass
        return self.text

    def close(self) -> None:
        """Close the source, unless somebody reads it just now."""
        with contextlib.suppress(ValueError):
            if (close := getattr(self._source, "close", None)) is not None:
                close()

    def _pull(self) -> bool:
        """Get one more token from the source; raises the error that ended it, however often one asks."""
        with self._lock:
            if not self.over:
                try:
                    self._keep(next(self._source))
                    return True
                except StopIteration:
                    self.over, self.error = True, self._finish()
                except BaseException as error:
                    self._stay_failed(error)
                    raise
            if self.error is not None:
                raise self.error
            return False


def _nested(source: object) -> list[Any]:
    """It, and the asynchronous generators in it, the outermost first: closing one does not close what it reads."""
    found = [source]
    for each in found:
        found += behind(each, lambda thing, each=each: thing is not each and isinstance(thing, AsyncGeneratorType))  # type: ignore[misc]
    return found


class AsyncTokenBuffer(_Buffer):
    """Of an asynchronous response."""

    def __init__(self, source: AsyncIterator[str], finish: AsyncFinish = _no_error) -> None:
        super().__init__()
        self._source = source
        self._finish = finish
        self._lock: asyncio.Lock | None = None  # made where there is a loop

    async def tokens(self) -> AsyncGenerator[str, None]:
        """The tokens that no reader has been given yet."""
        while True:
            if (token := self._next_kept()) is not None:
                yield token
            elif not await self._pull():
                return

    async def whole(self) -> str:
        """The text, when all of it is there."""
        while await self._pull():
            pass
        return self.text

    async def aclose(self) -> None:
        """Close the source, unless somebody reads it just now."""
        for source in _nested(self._source):
            with contextlib.suppress(RuntimeError):
                if (aclose := getattr(source, "aclose", None)) is not None:
                    await aclose()

    def close(self) -> None:
        """Only a coroutine can close the source; its LLM stream closes without."""

    async def _pull(self) -> bool:
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:  # for one token only: an abandoned reader holds up nobody
            if not self.over:
                try:
                    self._keep(await anext(self._source))
                    return True
                except StopAsyncIteration:
                    self.over, self.error = True, await self._finish()
                except BaseException as error:
                    self._stay_failed(error)
                    raise
            if self.error is not None:
                raise self.error
            return False
