"""The connection behind a LlamaIndex stream.

Closing a LlamaIndex generator is not enough. The OpenAI SDK's `Stream` (and Anthropic's, which is built alike) and the
generator inside it refer to each other, so the provider goes on sending until the garbage collector happens to pass by.
LlamaIndex keeps that object on its generator's stack, where no name leads to it; the interpreter knows what a suspended
generator refers to.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import socket
import threading
from collections import deque
from types import AsyncGeneratorType, CellType, GeneratorType
from typing import Any

_THROUGH = (GeneratorType, AsyncGeneratorType, CellType)
_FARTHEST = 8  # generators around generators, as decorators make them
_STREAMS = ("Stream", "AsyncStream")


class Upstream:
    """What lies behind one attempt's stream. Empty where nothing of the kind is found, which costs nothing."""

    def __init__(self) -> None:
        self._streams: list[Any] = []
        self._socket: Any = None
        self._lock = threading.Lock()

    def look(self, stream: object) -> None:
        """Find it. `stream` must be suspended: just after its first event."""
        self._streams = _sdk_streams(stream)
        for each in self._streams:
            with contextlib.suppress(Exception):  # not httpx, or not a version that tells
                response = each.response
                if response.http_version != "HTTP/2":  # where other streams share the socket
                    self._socket = response.extensions["network_stream"].get_extra_info("socket")

    def close(self) -> None:
        """Close the response. May be called twice."""
        for each in self._let_go():
            each.close()

    async def aclose(self) -> None:
        """The same for an asynchronous stream."""
        for each in self._let_go():
            closing = each.close()
            if inspect.isawaitable(closing):
                await closing

    def _let_go(self) -> list[Any]:
        with self._lock:  # from here on the socket may be somebody else's: the client pools connections
            streams, self._streams, self._socket = self._streams, [], None
            return streams

    @property
    def can_break(self) -> bool:
        """Whether a read that blocks another thread can be ended."""
        return isinstance(self._socket, socket.socket)

    def break_read(self) -> None:
        """End a read that blocks another thread: closing its socket would not wake it, shutting it down does."""
        with self._lock, contextlib.suppress(OSError):
            if self.can_break:
                # The plain socket's method: that of a TLS socket would take its state away from under the reader.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _sdk_streams(stream: object) -> list[Any]:
    found: list[Any] = []
    seen = {id(stream)}
    todo: deque[tuple[object, int]] = deque([(stream, 0)])
    while todo:
        thing, depth = todo.popleft()
        if type(thing).__name__ in _STREAMS and hasattr(thing, "response") and hasattr(thing, "close"):
            found.append(thing)
        elif isinstance(thing, _THROUGH) and depth < _FARTHEST:
            for next_thing in gc.get_referents(thing):
                if id(next_thing) not in seen:
                    seen.add(id(next_thing))
                    todo.append((next_thing, depth + 1))
    return found
