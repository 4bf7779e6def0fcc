"""The connection behind a LlamaIndex stream.

Closing a LlamaIndex generator is not enough. The OpenAI SDK's `Stream` (and Anthropic's, which is built alike) and the
generator inside it refer to each other, so the provider goes on sending until the garbage collector happens to pass by.

Our own HTTP client (`http.py`) finds the `Upstream` on whose behalf it sends a request. It hands over the socket before
the first event, then the response, and the watch over its bytes. So does the HTTP library below a class that lets
nobody at its client (`http_libraries.py`). Of any other client the response is searched for: LlamaIndex keeps the SDK's
object on its generator's stack, where `compat/generators.py` finds it.
"""

from __future__ import annotations

import contextlib
import inspect
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextvars import ContextVar, Token
from typing import Any, Protocol, TypeVar

from ..compat.generators import behind
from ..recovery.events import Ended
from ..recovery.finish_reasons import FinishMeaning
from .error_body import ErrorBody
from .kept_stream import KeptStream
from .model_owner import OwnerInquiry
from .watch import Watch

T = TypeVar("T")

_STREAMS = ("Stream", "AsyncStream")
_CUTS = (FinishMeaning.LENGTH, FinishMeaning.FILTER)


class ReaderLeftError(BaseException):
    """Nobody waits for this answer any more. No `Exception`: an SDK would take that for a fault, and ask again."""


class Cancellation(Protocol):
    """Says whether anybody still waits for an attempt; `streaming.scope.Scope` is one."""

    cancelled: bool

    def cancel(self) -> None: ...


class _Detached:
    """Of a connection that nobody else has to do with."""

    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Upstream:
    """What lies behind one attempt's stream. Empty where nothing of the kind is found, which costs nothing.

    Args:
        scope: the attempt's. Once it is cancelled nothing is sent any more on its behalf.
        kept: the stream that this attempt reads on, where it asks for the rest of one.
    """

    def __init__(self, scope: Cancellation | None = None, kept: KeptStream | None = None) -> None:
        self._scope = _Detached() if scope is None else scope
        self.watch: Watch | None = None
        self._responses = 0
        self._responses_before = 0  # the first event came
        self.sees_libraries = False
        """Whether what the HTTP libraries themselves send is to be seen, too: see `http_libraries.py`."""
        self.kept = kept
        """The stream behind it, where the server is asked to keep it."""
        self.inquiry: OwnerInquiry | None = None
        """Asks which server it was, once a request was sent to one that can be asked."""
        self._error_body: ErrorBody | None = None
        self._error_headers: Mapping[str, str] | None = None
        self._requests = 0
        self._closers: list[Callable[[], Any]] = []
        self._socket: Any = None
        # The garbage collector may drop a stream, and so break its read, while this very thread is in here.
        self._lock = threading.RLock()

    # What our HTTP client does

    @staticmethod
    def current() -> Upstream | None:
        """On whose behalf the request is sent that is being sent in this context."""
        return _ASKING.get()

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """While the wrapped LLM asks."""
        token = _ASKING.set(self)
        try:
            yield
        finally:
            _reset(token)

    def seen(self, responses: Iterator[T]) -> Iterator[T]:
        """The rest of the wrapped LLM's responses; what it sends meanwhile is sent on behalf of this attempt."""
        return self._seen(responses) if self.sees_libraries else responses

    def _seen(self, responses: Iterator[T]) -> Iterator[T]:
        while True:
            token = _ASKING.set(self)
            try:
                response = next(responses)
            except StopIteration:
                return
            finally:
                _reset(token)
            yield response

    async def seen_next(self, responses: AsyncIterator[T]) -> T:
        """The next of the wrapped LLM's responses, as `seen` gives them."""
        token = _ASKING.set(self)
        try:
            return await anext(responses)
        finally:
            _reset(token)

    def keep(self) -> None:
        """Have the server keep the stream, so that it can be read on."""
        if self.kept is None:
            self.kept = KeptStream()
        else:
            self.kept.resume()

    def connect(self, sock: object) -> None:
        """A request is about to be sent over this socket, unless it is too late for that."""
        with self._lock:
            if self._scope.cancelled:
                raise ReaderLeftError
            self._socket = sock

    def sends(self) -> None:
        """Count a request that is about to be sent."""
        self._requests += 1
        self._error_headers = None

    def opened(
        self, response: Any, watch: Watch | None, error_body: ErrorBody | None, close: Callable[[], Any]
    ) -> None:
        """Take over the response to a request, to be closed by `close`, and what looks at its body.

        Args:
            response: the HTTP client's.
            watch: the watch over the body if it is called an event stream.
            error_body: what may be an error in place of one.
            close: closes the response.
        """
        self._closers.append(close)
        self._responses += 1
        self.watch = watch or self.watch
        self._error_headers = response.headers if status_of(response) >= 400 else None
        if getattr(response, "is_success", True):  # of another status the SDK makes an error, which says more
            self._error_body = error_body
        self._know_socket_of(response)

    def see(self, watch: Watch | None, error_body: ErrorBody | None) -> None:
        """Take over what looks at the body of a response that was opened without."""
        self.watch = watch or self.watch
        self._error_body = error_body

    def answered(self, response: Any) -> None:
        """Look at a response that was read wholly before it came here, as one that is not streamed is."""
        self.disconnect()
        self._error_headers = response.headers if status_of(response) >= 400 else None
        if response.is_success:
            self._error_body = ErrorBody()
            self._error_body.feed(response.content)

    def disconnect(self) -> None:
        """From here on the socket is somebody else's."""
        with self._lock:
            self._socket = None

    def check(self) -> None:
        """Raise where nobody waits any more."""
        if self._scope.cancelled:
            raise ReaderLeftError

    def ended(self, error: Exception | None = None) -> Ended:
        """The end of this attempt's stream, by itself or with `error`, and what our HTTP client saw of it."""
        answered = self._error_body is not None
        if self._error_body is not None and (said := self._error_body.error()) is not None:
            said.__cause__ = error  # an SDK or LlamaIndex stumbled over what was no answer
            error = said
        requests = self._requests or None
        kept = self.kept is not None and self.kept.is_kept
        watch = self.watch
        if watch is None:
            return Ended(error, answered=answered, requests=requests, kept=kept, error_headers=self._error_headers)
        return Ended(
            error,
            watch.terminated,
            watch.finish_reason,
            answered=answered,
            requests=requests,
            events_before_reason=watch.events_before_reason,
            reason_due=self.sees_libraries and watch.at_the_end and watch.finish_reason is None,
            kept=kept,
            error_headers=self._error_headers,
        )

    def unsaid(self, error: Exception) -> str:
        """What the provider said last, before a limit or a filter, where the wrapped LLM raised instead."""
        reason = self.watch.finish_reason if self.watch is not None else None
        if reason is None or reason.kind not in _CUTS or not isinstance(error, RuntimeError):
            return ""
        return str(getattr(self.watch, "last_text", ""))

    # What whoever reads the stream does

    def look(self, stream: object) -> None:
        """Search for the response behind `stream`, where no HTTP client of ours has handed it over.

        Args:
            stream: LlamaIndex's generator, suspended just after its first event.
        """
        self._responses_before = self._responses
        if self._closers:
            return
        for each in behind(stream, _is_sdk_stream):
            self._closers.append(each.close)
            self._know_socket_of(each.response)

    def _know_socket_of(self, response: Any) -> None:
        with contextlib.suppress(Exception):  # not httpx, or not a version that tells
            if response.http_version != "HTTP/2":  # where other streams share the socket
                self._socket = response.extensions["network_stream"].get_extra_info("socket")

    def close(self) -> None:
        """Close the response. May be called twice."""
        for close in self._let_go():
            close()

    async def aclose(self) -> None:
        """Close the response of an asynchronous stream. May be called twice."""
        for close in self._let_go():
            closing = close()
            if inspect.isawaitable(closing):
                await closing

    def _let_go(self) -> list[Callable[[], Any]]:
        with self._lock:  # from here on the socket may be somebody else's: the client pools connections
            closers, self._closers, self._socket = self._closers, [], None
            return closers

    @property
    def continued_below(self) -> int:
        """How many more requests the wrapped LLM has sent since the first event, to go on by itself."""
        return self._responses - self._responses_before if self._responses_before else 0

    @property
    def can_break(self) -> bool:
        """Whether a read that blocks another thread can be ended."""
        return isinstance(self._socket, socket.socket)

    def break_read(self) -> None:
        """End a read that blocks another thread: closing its socket would not wake it, shutting it down does."""
        with self._lock, contextlib.suppress(OSError):
            self._scope.cancel()
            if self.can_break:
                # The plain socket's method: that of a TLS socket would take its state away from under the reader.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_ASKING: ContextVar[Upstream | None] = ContextVar("resilient_stream_upstream", default=None)


def _reset(token: Token[Upstream | None]) -> None:
    with contextlib.suppress(ValueError):  # thrown away, half-way, in another context
        _ASKING.reset(token)


def status_of(response: Any) -> int:
    """Return the HTTP status of a response of httpx, requests, urllib3 or aiohttp."""
    return int(getattr(response, "status_code", None) or getattr(response, "status", None) or 0)


def _is_sdk_stream(thing: object) -> bool:
    return type(thing).__name__ in _STREAMS and hasattr(thing, "response") and hasattr(thing, "close")
