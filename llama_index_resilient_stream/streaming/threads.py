"""From a thread or a task that reads a stream to one reader on an event loop.

Threads of our own, one a stream: a framework's pool has forty, and a stream that waits for its provider would keep one
from everybody else. The event loop is woken once for whatever has piled up, not once for every token.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_GRACE = 0.05  # seconds that a thread gets to leave a read that nothing can break
_JOIN = 2.0  # seconds that it gets to close what it reads

logger = logging.getLogger("llama_index_resilient_stream")


class Channel(Generic[T]):
    """Items for one reader on the loop that made it. Whoever writes too far ahead waits for the reader.

    Args:
        ahead: how many items may lie unread before a writer has to wait.
    """

    def __init__(self, ahead: int = 64) -> None:
        self.left = False
        """The reader is gone: writers shall stop."""
        self._ahead = ahead
        self._items: deque[T] = deque()
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._waiting = False
        self._room = threading.Condition()
        self._aroom = asyncio.Event()

    # The writers' side

    def push(self, item: T) -> None:
        """From any thread, without waiting."""
        self._items.append(item)
        # First the item, then the look at the flag; the reader does both the other way round. So one of them sees.
        if self._waiting:
            self._waiting = False
            try:
                self._loop.call_soon_threadsafe(self._arrived.set)
            except RuntimeError:  # the loop is closed, and the reader gone with it
                self.left = True

    def put(self, item: T) -> bool:
        """From a thread of one's own: waits while too much lies unread. False: nobody reads any more."""
        if len(self._items) >= self._ahead:
            with self._room:
                self._room.wait_for(lambda: self.left or len(self._items) < self._ahead)
        if not self.left:
            self.push(item)
        return not self.left

    async def aput(self, item: T) -> bool:
        """The same, on the loop."""
        while len(self._items) >= self._ahead and not self.left:
            self._aroom.clear()
            await self._aroom.wait()
        if not self.left:
            self.push(item)
        return not self.left

    # The reader's side

    async def take(self, seconds: float | None = None) -> list[T]:
        """All that has arrived, at least one item; nothing when `seconds` are over."""
        until = None if seconds is None else self._loop.time() + seconds
        while not self._items:
            self._arrived.clear()
            self._waiting = True
            if self._items:
                break
            try:
                async with asyncio.timeout_at(until):
                    await self._arrived.wait()  # also set late, for what was taken already
            except TimeoutError:
                break
        self._waiting = False
        taken = []
        while self._items:
            taken.append(self._items.popleft())
        self._make_room()
        return taken

    def leave(self) -> None:
        """Nothing will be taken any more."""
        self.left = True
        self._make_room()

    def _make_room(self) -> None:
        self._aroom.set()
        with self._room:
            self._room.notify_all()


class _End:
    """What a thread says last."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Offloaded(AsyncIterator[T]):
    """A synchronous iterator as an asynchronous one, read in a thread of its own.

    Args:
        open_source: called in that thread, in a copy of the caller's context.
        break_read: called when the reader leaves while the source is being read, if that can end the read.
    """

    def __init__(self, open_source: Callable[[], Iterator[T]], break_read: Callable[[], object] | None = None) -> None:
        self._open = open_source
        self._break_read = break_read
        self._channel: Channel[T | _End] | None = None
        self._taken: deque[T | _End] = deque()
        self._thread: threading.Thread | None = None
        self._over = False
        self.left_thread = False

    async def __anext__(self) -> T:
        if self._over:
            raise StopAsyncIteration
        if self._channel is None:
            self._channel = self._start()
        if not self._taken:
            self._taken.extend(await self._channel.take())
        item = self._taken.popleft()
        if not isinstance(item, _End):
            return item
        self._over = True
        if item.error is not None:
            raise item.error
        raise StopAsyncIteration

    def _start(self) -> Channel[T | _End]:
        channel: Channel[T | _End] = Channel(ahead=1)
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(_read, self._open, channel), name="resilient-stream-offloaded", daemon=True
        )
        weakref.finalize(self, channel.leave).atexit = False  # or the thread would wait for ever to be read on
        self._thread.start()
        return channel

    async def aclose(self) -> None:
        """Stop the thread, which closes the source. Never waits long for a read that cannot be broken."""
        thread, channel = self._thread, self._channel
        if thread is None or channel is None or not thread.is_alive():
            return
        channel.leave()
        if not self._over and self._break_read is not None:
            self._break_read()
        patience = _JOIN if self._over or self._break_read is not None else _GRACE
        self.left_thread = not await joined(thread, patience)
        self._over = True


async def joined(thread: threading.Thread, seconds: float) -> bool:
    """Whether the thread ends within so many seconds. The loop goes on meanwhile."""
    until = asyncio.get_running_loop().time() + seconds
    nap = 0.001
    while thread.is_alive():
        if asyncio.get_running_loop().time() >= until:
            return False
        await asyncio.sleep(nap)
        nap = min(nap * 2, 0.05)
    return True


def _read(open_source: Callable[[], Iterator[T]], channel: Channel[T | _End]) -> None:
    """Module level on purpose: a thread that is stuck in a read knows nothing of ours but the channel."""
    source: Iterator[T] | None = None
    end = _End()
    try:
        source = open_source()
        for item in source:
            if not channel.put(item):
                break
    except BaseException as error:
        end = _End(error)
    finally:
        try:
            if (close := getattr(source, "close", None)) is not None:
                close()
        except Exception as error:
            logger.debug("closing the upstream stream failed: %s", type(error).__name__)
        channel.push(end)


async def aside(function: Callable[[], T]) -> T:
    """Call what may block in a thread of its own. Who stops waiting leaves it to itself."""
    done: Channel[T | _End] = Channel()

    def work() -> None:
        try:
            done.push(function())
        except BaseException as error:
            done.push(_End(error))

    threading.Thread(
        target=contextvars.copy_context().run, args=(work,), name="resilient-stream-aside", daemon=True
    ).start()
    (outcome,) = await done.take()
    if isinstance(outcome, _End):
        assert outcome.error is not None, "only an error is said this way"
        raise outcome.error
    return outcome
