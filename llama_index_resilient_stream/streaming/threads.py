"""Threads that read a synchronous iterator, and the channel from them to one reader on an event loop.

Threads of our own, one a stream: a framework's pool has forty, and a stream that waits for its provider would keep one
from everybody else. All of them are daemons, and all of them run `read_iterator`: what differs is where its items go.

    streaming.watchdog   into a queue, one item whenever the stream's reader asks for one
    Offloaded            into a `Channel`, for an asynchronous reader of a synchronous LLM
    serve.source         into a `Channel`, for a connection
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from .scope import Scope, call_on
from .sleeper import Sleeper

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

GRACE = 0.05  # seconds that a thread gets to leave a read that nothing can break
JOIN = 2.0  # seconds that it gets to close what it reads

logger = logging.getLogger("llama_index_resilient_stream")


# ---------------------------------------------------------------- reading


class Sink(Protocol[T_contra]):
    """Where the items of an iterator go that is read in a thread."""

    def put(self, item: T_contra) -> bool:
        """Take one item. Waits until the next one is wanted; False: none is, any more."""

    def end(self, error: BaseException | None) -> None:
        """Nothing follows: it was exhausted, or left (None), or raised this error."""

    def take_over(self, source: Any) -> bool:
        """Whether somebody else reads this source on, and closes it."""


def read_iterator(open_source: Callable[[], Iterator[T]], sink: Sink[T]) -> None:
    """Read an iterator into a sink, and close it.

    A function of the module on purpose: a thread that is stuck in a read holds on to the sink, and to nothing else.
    """
    source: Iterator[T] | None = None
    error: BaseException | None = None
    try:
        source = open_source()
        while sink.put(next(source)):  # without a name for the item: an idle thread keeps none alive
            pass
    except StopIteration:
        pass
    except BaseException as raised:
        error = raised
    if not sink.take_over(source):
        close_quietly(source)
    sink.end(error)


def start_thread(
    name: str, function: Callable[..., object], *args: Any, context: contextvars.Context | None = None
) -> threading.Thread:
    """Start a daemon thread in a copy of the caller's context, so that spans and tags of the caller's apply in it."""
    context = contextvars.copy_context() if context is None else context
    thread = threading.Thread(target=context.run, args=(function, *args), name=name, daemon=True)
    thread.start()
    return thread


def close_quietly(source: object) -> None:
    """Close an iterator that may have no `close()`, or one that raises."""
    try:
        if (close := getattr(source, "close", None)) is not None:
            close()
    except Exception as error:
        logger.debug("closing the upstream stream failed: %s", type(error).__name__)


async def joined(thread: threading.Thread, seconds: float) -> bool:
    """Wait until a thread ends, for at most so many seconds, while the loop goes on. Returns whether it has ended."""
    until = asyncio.get_running_loop().time() + seconds
    nap = 0.001
    while thread.is_alive():
        if asyncio.get_running_loop().time() >= until:
            return False
        await asyncio.sleep(nap)
        nap = min(nap * 2, 0.05)
    return True


# ---------------------------------------------------------------- to an event loop


class Channel(Generic[T]):
    """Items for one reader on the loop that made it. Whoever writes too far ahead waits for the reader.

    The loop is woken once for whatever has piled up, not once for every item.

    Args:
        ahead: how many items may lie unread before a writer has to wait.
        scope: whose cancellation says that the reader is gone, and releases writers that wait.
    """

    def __init__(self, ahead: int = 64, scope: Scope | None = None) -> None:
        self.scope = Scope() if scope is None else scope
        self._ahead = ahead
        self._items: deque[T] = deque()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._reader = Sleeper()
        self._waiting = False
        self._room = threading.Condition()
        self._aroom = asyncio.Event()
        self.scope.on_cancel(self._release_writers)

    # The writers' side

    def push(self, item: T) -> None:
        """Add an item from any thread, without waiting."""
        self._items.append(item)
        # First the item, then the look at the flag; the reader does both the other way round. So one of them sees.
        if self._waiting:
            self._waiting = False
            if threading.get_ident() == self._thread:  # waking a loop from another thread costs it a system call
                self._reader.wake()
            elif not call_on(self._loop, self._reader.wake):
                self.leave()  # the loop is closed, and the reader gone with it

    def put(self, item: T) -> bool:
        """Add an item from a thread of one's own; wait while too much lies unread. False: nobody reads any more."""
        if len(self._items) >= self._ahead:
            with self._room:
                self._room.wait_for(lambda: self.scope.cancelled or len(self._items) < self._ahead)
        if not self.scope.cancelled:
            self.push(item)
        return not self.scope.cancelled

    def offer(self, item: T) -> bool:
        """Add an item on the loop, if there is room and somebody reads: whether it was added."""
        has_room = len(self._items) < self._ahead and not self.scope.cancelled
        if has_room:
            self.push(item)
        return has_room

    async def aput(self, item: T) -> bool:
        """Add an item on the loop; wait while too much lies unread. False: nobody reads any more."""
        while len(self._items) >= self._ahead and not self.scope.cancelled:
            self._aroom.clear()
            await self._aroom.wait()
        if not self.scope.cancelled:
            self.push(item)
        return not self.scope.cancelled

    # The reader's side

    async def take(self, seconds: float | None = None) -> list[T]:
        """Take all that has arrived, at least one item; nothing when `seconds` are over."""
        until = None if seconds is None else self._loop.time() + seconds
        while not self._items:
            self._waiting = True
            if self._items:
                break
            await self._reader.wait(until)  # also woken late, for what was taken already
            if until is not None and self._loop.time() >= until:
                break
        self._waiting = False
        taken = []
        while self._items:
            taken.append(self._items.popleft())
        self._aroom.set()
        with self._room:
            self._room.notify_all()
        return taken

    def leave(self) -> None:
        """Say, from any thread, that nothing will be taken any more."""
        self.scope.cancel()

    def _release_writers(self) -> None:
        with self._room:
            self._room.notify_all()
        call_on(self._loop, self._close)

    def _close(self) -> None:
        self._aroom.set()
        self._reader.close()


class _End:
    """What a thread says last."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _ChannelSink(Generic[T]):
    """Puts items, and then how it ended, into a channel."""

    def __init__(self, channel: Channel[T | _End]) -> None:
        self._channel = channel
        self.put = channel.put

    def end(self, error: BaseException | None) -> None:
        self._channel.push(_End(error))

    def take_over(self, source: Any) -> bool:
        return False


class Offloaded(AsyncIterator[T]):
    """A synchronous iterator as an asynchronous one, read in a thread of its own.

    Args:
        open_source: called in that thread, in a copy of the caller's context.
        break_read: called when the reader leaves while the source is being read, if that can end the read.
    """

    def __init__(self, open_source: Callable[[], Iterator[T]], break_read: Callable[[], object] | None = None) -> None:
        self._open = open_source
        self._break_read = break_read
        self._scope = Scope()
        self._channel: Channel[T | _End] | None = None
        self._taken: deque[T | _End] = deque()
        self._thread: threading.Thread | None = None
        self.left_thread = False

    async def __anext__(self) -> T:
        if self._scope.over:
            raise StopAsyncIteration
        if self._channel is None:
            self._channel = self._start()
        if not self._taken:
            self._taken.extend(await self._channel.take())
        item = self._taken.popleft()
        if not isinstance(item, _End):
            return item
        self._scope.finish("exhausted")
        if item.error is not None:
            raise item.error
        raise StopAsyncIteration

    def _start(self) -> Channel[T | _End]:
        channel: Channel[T | _End] = Channel(ahead=1, scope=self._scope)
        self._thread = start_thread("resilient-stream-offloaded", read_iterator, self._open, _ChannelSink(channel))
        return channel

    def __del__(self) -> None:
        self._scope.cancel()  # or the thread would wait for ever to be read on

    async def aclose(self) -> None:
        """Stop the thread, which closes the source. Never waits long for a read that cannot be broken."""
        thread, exhausted = self._thread, self._scope.over
        if thread is None or not thread.is_alive():
            return
        self._scope.cancel()
        if not exhausted and self._break_read is not None:
            self._break_read()
        patience = JOIN if exhausted or self._break_read is not None else GRACE
        self.left_thread = not await joined(thread, patience)
        self._scope.finish("closed")


async def aside(function: Callable[[], T]) -> T:
    """Call a function that may block in a thread of its own. A caller that stops waiting leaves it to itself."""
    done: Channel[T | _End] = Channel()
    start_thread("resilient-stream-aside", read_iterator, lambda: _once(function), _ChannelSink(done))
    outcome = (await done.take())[0]
    if isinstance(outcome, _End):
        assert outcome.error is not None, "only an error is said this way"
        raise outcome.error
    return outcome


def _once(function: Callable[[], T]) -> Iterator[T]:
    yield function()
