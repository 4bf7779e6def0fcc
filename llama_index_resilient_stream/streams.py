"""What the stream methods return: generators with two more names, `report` and `cancel()`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

from .reading import AsyncHalt, Halt
from .recovery.events import Chunk
from .recovery.machine import Recovery
from .report import StreamReport

T = TypeVar("T")


class ResilientStream(Generator[T, None, None], Generic[T]):
    """What `stream_chat` and `stream_complete` return: a generator with two more names, `report` and `cancel()`."""

    def __init__(
        self, chunks: Generator[Chunk, None, None], recovery: Recovery, show: Callable[[Chunk], T], halt: Halt
    ):
        self._recovery = recovery
        self._halt = halt
        self._items = _presented(chunks, show)

    @property
    def report(self) -> StreamReport:
        """What happened so far; the whole story once the stream is over."""
        return self._recovery.report

    def cancel(self) -> None:
        """Stop, from any thread: no retry, the upstream connection is closed, a waiting reader is released."""
        self._halt.set()
        self.close()

    def __next__(self) -> T:
        return next(self._items)

    def send(self, value: None) -> T:
        return self._items.send(value)

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> T:
        return self._items.throw(typ if val is None else val)

    def close(self) -> None:
        try:
            self._items.close()
        except ValueError:  # another thread is inside it: it stops there
            self._halt.set()
            return
        self._recovery.cancel()  # a generator that never started has no code that could


def _presented(chunks: Generator[Chunk, None, None], show: Callable[[Chunk], T]) -> Generator[T, None, None]:
    with contextlib.closing(chunks):
        for chunk in chunks:
            yield chunk.payload if chunk.untouched else show(chunk)


class ResilientAsyncStream(AsyncGenerator[T, None], Generic[T]):
    """What `astream_chat` and `astream_complete` return: an async generator with `report`, `cancel()`, `acancel()`."""

    def __init__(
        self,
        chunks: AsyncGenerator[Chunk, None],
        recovery: Recovery,
        show: Callable[[Chunk], T],
        halt: AsyncHalt,
    ):
        self._recovery = recovery
        self._halt = halt
        self._items = _apresented(chunks, show)

    @property
    def report(self) -> StreamReport:
        """What happened so far; the whole story once the stream is over."""
        return self._recovery.report

    def cancel(self) -> None:
        """Stop, from any task or thread: no retry, the upstream connection is closed, a waiting reader is released."""
        self._halt.set(self.aclose)

    async def acancel(self) -> None:
        """Stop, and return when the upstream connection is closed."""
        self._halt.set()
        await self.aclose()

    def __anext__(self) -> Coroutine[Any, Any, T]:
        return self._items.__anext__()

    def asend(self, value: None) -> Coroutine[Any, Any, T]:
        return self._items.asend(value)

    async def athrow(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> T:
        return await self._items.athrow(typ if val is None else val)

    async def aclose(self) -> None:
        try:
            await self._items.aclose()
        except RuntimeError:  # another task is inside it: it stops there
            self._halt.set()
            return
        self._recovery.cancel()  # a generator that never started has no code that could


async def _apresented(chunks: AsyncGenerator[Chunk, None], show: Callable[[Chunk], T]) -> AsyncGenerator[T, None]:
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            yield chunk.payload if chunk.untouched else show(chunk)
