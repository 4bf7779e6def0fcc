"""What the stream methods return: generators with two more names, `report` and `cancel()`."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

from ..recovery.machine import Recovery
from ..report import StreamReport
from ..streaming.scope import Scope, call_on
from ..streaming.watchdog import InterruptibleWait
from .call_log import CallLog

T = TypeVar("T")


class ResilientStream(Generator[T, None, None], Generic[T]):
    """What `stream_chat` and `stream_complete` return: a generator with two more names, `report` and `cancel()`.

    stream = llm.stream_chat(messages)
    for chunk in stream:
        print(chunk.delta, end="")
    print(stream.report)
    """

    def __init__(self, items: Generator[T, None, None], recovery: Recovery, scope: Scope, calls: CallLog) -> None:
        self.calls = calls
        self.scope = scope
        """Shared with whoever reads this stream, and whoever serves it."""
        self._items = items
        self._recovery = recovery

    @property
    def report(self) -> StreamReport:
        """What happened so far; the whole story once the stream is over."""
        return self._recovery.report

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.report.status}, {self.report.characters:,} characters>"

    @property
    def gi_frame(self) -> Any:
        """None when it is over, as of any generator: tracers look at it."""
        return getattr(self._items, "gi_frame", None)

    def cancel(self) -> None:
        """Stop, from any thread: nothing is asked again, the upstream connection is closed, a waiting reader released.

        A reader that waits in another thread gets the end of the stream, not an error.
        """
        self.close()

    def send(self, value: None = None) -> T:
        """Give the next response, as `next()` does; `value` is None.

        Raises:
            StopIteration: The stream is over, or was cancelled.
            StreamInterruptedError: The answer could not be finished.
        """
        try:
            return self._items.send(value)
        except ValueError:
            if not self.scope.cancelled:
                raise
            self._recovery.cancel()  # another thread is just closing it, and may get to that only later
            raise StopIteration from None

    __next__ = send

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> T:
        """Raise an exception where the stream stands, as in any generator. It ends there."""
        return self._items.throw(typ if val is None else val)

    def close(self) -> None:
        """Stop: no retry, the upstream connection is closed. Of a stream that is over, nothing happens."""
        self.scope.cancel()
        try:
            self._items.close()
        except ValueError:  # another thread is inside it: it stops there
            return
        self._recovery.cancel()  # a generator that never started has no code that could


class ResilientAsyncStream(AsyncGenerator[T, None], Generic[T]):
    """What `astream_chat` and `astream_complete` return: an async generator with `report`, `cancel()`, `acancel()`.

    stream = await llm.astream_chat(messages)
    async for chunk in stream:
        print(chunk.delta, end="")
    print(stream.report)
    """

    def __init__(
        self,
        items: AsyncGenerator[T, None],
        recovery: Recovery,
        scope: Scope,
        calls: CallLog,
        wait: InterruptibleWait,
    ) -> None:
        self.calls = calls
        self.scope = scope
        """Shared with whoever reads this stream, and whoever serves it."""
        self._items = items
        self._recovery = recovery
        self._wait = wait
        self._closing: asyncio.Future[None] | None = None  # the loop itself holds tasks weakly
        ours = weakref.WeakMethod(self._on_cancel)
        scope.on_cancel(lambda: on_cancel() if (on_cancel := ours()) is not None else None)

    @property
    def report(self) -> StreamReport:
        """What happened so far; the whole story once the stream is over."""
        return self._recovery.report

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.report.status}, {self.report.characters:,} characters>"

    @property
    def ag_frame(self) -> Any:
        """None when it is over, as of any async generator: tracers look at it."""
        return getattr(self._items, "ag_frame", None)

    def cancel(self) -> None:
        """Stop, from any task or thread: nothing is asked again, the connection is closed, a waiting reader released.

        A reader that waits in another task gets the end of the stream, not an error.
        """
        self.scope.cancel()

    async def acancel(self) -> None:
        """Stop, and return when the upstream connection is closed."""
        await self.aclose()

    def __anext__(self) -> Coroutine[Any, Any, T]:
        return self._stopped() if self.scope.cancelled else self._items.__anext__()

    def asend(self, value: None) -> Coroutine[Any, Any, T]:
        """Give the next response, as `anext()` does; `value` is None.

        Raises:
            StopAsyncIteration: The stream is over, or was cancelled.
            StreamInterruptedError: The answer could not be finished.
        """
        return self._stopped() if self.scope.cancelled else self._items.asend(value)

    async def _stopped(self) -> T:
        await self._close(wait=True)
        raise StopAsyncIteration

    async def athrow(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> T:
        """Raise an exception where the stream stands, as in any asynchronous generator. It ends there."""
        return await self._items.athrow(typ if val is None else val)

    async def aclose(self) -> None:
        """Stop, and return when the upstream connection is closed. Of a stream that is over, nothing happens."""
        # A callback that leaves runs inside of the reader's own task, which would wait for itself.
        await self._close(wait=not self._wait.is_in_current_task)

    async def _close(self, *, wait: bool) -> None:
        self.scope.cancel()
        try:
            await self._items.aclose()
        except RuntimeError:  # another task is inside it: it stops there
            if wait:
                await self.scope.finished()
            return
        self._recovery.cancel()  # a generator that never started has no code that could

    def _on_cancel(self) -> None:
        """See to it, from any thread, that it is closed."""
        loop = self._wait.loop
        if loop is None or not call_on(loop, self._close_unless_read):
            # Nothing was asked, or the loop is closed, on which everything of it could be: what is left is to say so.
            self._recovery.cancel()
            self.scope.finish(self._recovery.report.status)

    def _close_unless_read(self) -> None:
        """Whoever is inside of the generator just now, reading or closing it, is released, and does the rest."""
        if not getattr(self._items, "ag_running", False) and self.ag_frame is not None:
            self._closing = asyncio.ensure_future(self._close(wait=False))
