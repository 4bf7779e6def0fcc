"""`trace(response)`: who waits for what, token by token, without a debugger and without a print in the loop.

    for token in trace(engine.query("...")):        # or: async for, with aquery and astream_chat
        ...

Counts and times only: no text of an answer is ever logged, and no message of an exception, which may quote it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError, StreamInterruptedError
from ..report import StreamReport
from .tokens import atokens, tokens

_LOGGER = logging.getLogger("llama_index_resilient_stream")
_numbers = itertools.count(1)

Write = Callable[[str], Any]


@dataclass
class TraceSummary:
    """What a stream took. Time in which the reader was busy with a token is part of `seconds` alone."""

    tokens: int = 0
    """Those with text in them."""
    characters: int = 0
    first_token: float | None = None
    """Seconds from the first `next()` to the first token with text."""
    longest_gap: float = 0.0
    """The longest wait for a token after the first one, in seconds."""
    gap_before: int = 0
    """The number of the token that it was waited for; counted from 1."""
    seconds: float = 0.0
    """From the first `next()` to now, or to the end."""
    ended: str = "streaming"
    """What the report says ("complete", "interrupted", ...); "unknown" where there is none and it ended without an
    error; "left" by its reader; or the name of the exception."""

    def __str__(self) -> str:
        count = f"{self.tokens:,} token{'' if self.tokens == 1 else 's'}"
        parts = [self.ended, f"{count}, {self.characters:,} characters", f"{self.seconds:.2f} s"]
        if self.first_token is not None:
            parts.append(f"first after {self.first_token:.2f} s")
        if self.gap_before:
            parts.append(f"longest gap {self.longest_gap:.2f} s, before token {self.gap_before:,}")
        return " | ".join(parts)


class Trace:
    """Give it to `for` or to `async for`, once. `summary` is up to date at any time."""

    def __init__(self, response: Any, write: Write, warn: Write, every: float, clock: Callable[[], float]) -> None:
        self.summary = TraceSummary()
        self._response = response
        self._name = f"stream {next(_numbers)}"
        self._write, self._warn, self._every, self._clock = write, warn, every, clock
        self._started = self._asked = self._written = 0.0

    def __repr__(self) -> str:
        return f"<Trace: {self.summary}>"

    def __iter__(self) -> Generator[str, None, None]:
        with closing(tokens(self._response)) as source:
            self._begin()
            try:
                for token in source:
                    self._received(token)
                    yield token
                    if token:
                        self._asked = self._clock()
            except BaseException as error:
                self._failed(error)
                raise
            self._end(self._status())

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        async with aclosing(atokens(self._response)) as source:
            self._begin()
            try:
                async for token in source:
                    self._received(token)
                    yield token
                    if token:
                        self._asked = self._clock()
            except BaseException as error:
                self._failed(error)
                raise
            self._end(self._status())

    def _begin(self) -> None:
        self._started = self._asked = self._written = self._clock()

    def _received(self, token: str) -> None:
        now = self._clock()
        summary, waited = self.summary, now - self._asked
        summary.seconds = now - self._started
        if not token:  # some engines yield an empty one first; its wait is the next one's
            return
        summary.tokens += 1
        summary.characters += len(token)
        if summary.first_token is None:
            summary.first_token = summary.seconds
            self._write(f"{self._name}: first token after {summary.seconds:.2f} s")
        elif waited > summary.longest_gap:
            summary.longest_gap, summary.gap_before = waited, summary.tokens
        if now - self._written >= self._every:
            self._written = now
            self._write(f"{self._name}: {summary}")

    def _status(self) -> str:
        report = getattr(self._response, "report", None)
        return str(report.status) if isinstance(report, StreamReport) else "unknown"

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, GeneratorExit | asyncio.CancelledError):
            return self._end("left")
        why = f" ({error.code}: {error.reason})" if isinstance(error, StreamInterruptedError) else ""
        return self._end(f"{type(error).__name__}{why}")

    def _end(self, how: str) -> None:
        self.summary.ended = how
        self.summary.seconds = self._clock() - self._started
        well = how in ("complete", "unknown", "left", "cancelled")
        (self._write if well else self._warn)(f"{self._name}: {self.summary}")


def trace(
    response: Any,
    *,
    logger: logging.Logger | Write | None = None,
    every: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Trace:
    """Log counts and gaps while a response is read: the first token, a line now and then, the end. No text is logged.

        for token in trace(engine.query("What happened to the cable?"), logger=print):
            ...

    Args:
        response: What `tokens` and `atokens` read.
        logger: A logger, which gets INFO, and WARNING where the answer did not end well; or a function that takes a
            line, such as `print`. By default the logger "llama_index_resilient_stream".
        every: Seconds between two lines in the middle of an answer.
        clock: Seconds that go on, for tests.

    Returns:
        The tokens, unchanged, for `for` or `async for`; its `summary` has the figures.

    Raises:
        ConfigurationError: When it is iterated, for a response that cannot be read; at once, for another `logger`.
    """
    if logger is not None and not callable(logger) and not isinstance(logger, logging.Logger):
        raise ConfigurationError(
            f"logger is {logger!r}. Pass a logging.Logger, or a function that takes a line: "
            f"trace(response, logger=print)."
        )
    if isinstance(every, bool) or not isinstance(every, int | float) or every < 0:
        raise ConfigurationError(f"every is {every!r}. Pass seconds: trace(response, every=5.0).")
    if callable(logger):
        return Trace(response, logger, logger, every, clock)
    log = logger or _LOGGER
    return Trace(response, log.info, log.warning, every, clock)
