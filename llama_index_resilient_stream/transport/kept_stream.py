"""Streams that their server keeps: the rest of one that was lost is read, and nothing is generated twice.

How it is asked for is in `keeping_protocols.py`. An SDK reads the whole body again: first what was read of it before,
from here, then the rest, from the server. So whatever it and LlamaIndex's class gather on the way (calls, thoughts, the
message) is as if nothing had been lost, and the core leaves out what its reader has.

A gateway in between may have added something to the body, so that bytes are counted wrongly, or may have damaged it.
Then the whole body is asked for: where an event that was read is no JSON or ends the stream, and where the last bytes
that were read do not come again.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from ..errors import TruncatedStreamError
from .follow_up import brief, follow_up
from .keeping_protocols import KeepingProtocol, Target, protocol_of
from .watch import Watch

MOST = 4 * 1024 * 1024
"""Bytes of a body that are kept here. One that is longer is not resumed; the server keeps no more of it either."""

_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")
_TO_STOP = brief(1.0)


class KeptStream:
    """One stream that its server is asked to keep, over all connections that it is read through.

    kept = KeptStream()
    response = client.send(kept.outgoing(request, client.send), stream=True)
    for part in kept.recorded(response.iter_raw()):
        ...                                      # broken off: the same request once more goes on where it ended
    kept.stop()                                  # where nobody wants the rest
    """

    def __init__(self) -> None:
        self.is_asynchronous = False
        self.watch: Watch | None = None
        """The watch over its body, as far as it was read."""
        self._body = bytearray()
        self._request: Any = None  # that began it
        self._send: Callable[..., Any] | None = None
        self._protocol: KeepingProtocol | None = None
        self._reads_on = False  # the request under way asks for the rest
        self._again = b""  # with which the rest begins
        self._uses_body = True
        self._is_too_long = self._lost = False

    @property
    def is_kept(self) -> bool:
        """Whether the rest of it may be had."""
        if self._request is None or self._protocol is None or self._lost:
            return False
        if self._reads_on and not self._uses_body and self.watch is not None and self.watch.terminated:
            return False  # it was read again from its beginning to its end
        return self._protocol.rest(bytearray(self._body)) is not None

    @property
    def runs_on(self) -> bool:
        """Whether its server may be generating it still."""
        ended = self.watch is not None and (self.watch.terminated or self.watch.finish_reason is not None)
        return self._request is not None and not ended

    # What the HTTP client sends, and gets

    def outgoing(self, request: Any, send: Callable[..., Any], *, asynchronous: bool = False) -> Any:
        """Return the request to send: the one that begins the stream, marked; from then on, one for its rest.

        Args:
            request: what the SDK wants to send. It gets one header more.
            send: sends a request, as the HTTP client does. Also used to stop the stream.
            asynchronous: whether `send` is a coroutine function.
        """
        if self._protocol is None and (protocol := protocol_of(request)) is not None:
            self._protocol = protocol
        if self._protocol is None:
            return request
        self._send, self.is_asynchronous = send, asynchronous
        if not self._reads_on:
            self._protocol.mark(request)
            request.headers["Accept-Encoding"] = "identity"  # bytes are counted as the server wrote them
            self._request = request
            return request
        self._uses_body = self._uses_body and _is_sound(self._body)
        body = self._body if self._uses_body else bytearray()
        rest = self._protocol.rest(body)
        assert rest is not None, "is_kept comes first"
        self._body, (target, self._again) = body, rest
        return self._about(target, request.extensions)

    def resume(self) -> None:
        """From here on, ask for the rest."""
        self._reads_on = True

    def failed(self, error: Exception) -> None:
        """Note that the request could not be sent, or its response did not come."""
        if not self._reads_on and type(error).__name__ in _NEVER_SENT:
            self._request = None

    def answered(self, response: Any) -> bool:
        """Note the head of the response. Returns whether its body is that of the stream."""
        kind = response.headers.get("content-type", "").lower()
        encoding = response.headers.get("content-encoding", "identity").lower()
        if self._request is None:
            return False
        ours: bool = response.status_code == 200 and kind.startswith("text/event-stream") and encoding == "identity"
        self._lost = self._is_too_long or not ours
        refused = not self._reads_on and response.status_code != 200
        if refused or response.status_code == 404:
            self._request = None  # nothing runs
        return ours

    def recorded(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        """Pass the body on: what was read of it before, then what comes."""
        again = self._read_again()
        if self._body:
            yield bytes(self._body)
        for part in parts:
            if new := self._new(part, again):
                yield new

    def recorded_async(self, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass the body on, as `recorded` does."""
        again = self._read_again()
        return _Recorded(bytes(self._body), parts, lambda part: self._new(part, again))

    def _read_again(self) -> bytearray:
        """The last bytes of the body, with which the response is to begin."""
        return bytearray(self._again)

    def _new(self, part: bytes, again: bytearray) -> bytes:
        """What is new of a part of the response. What is not, is taken from `again`."""
        known = bytes(again[: len(part)])
        if not part.startswith(known):
            self._uses_body = False
            raise TruncatedStreamError("What the server kept is not the stream that was lost.")
        del again[: len(known)]
        new = part[len(known) :]
        if not self._is_too_long:
            self._body += new
        if len(self._body) > MOST:
            self._is_too_long = self._lost = True
            self._body.clear()
        return new

    # Stopping it

    def stop(self) -> None:
        """Tell the server that nobody wants the rest. Raises what the HTTP client raises."""
        if self._send is not None and (target := self._stop_target) is not None:
            self._send(self._about(target, _TO_STOP)).close()

    async def astop(self) -> None:
        """Tell the server that nobody wants the rest, asynchronously."""
        if self._send is not None and (target := self._stop_target) is not None:
            sent: Awaitable[Any] = self._send(self._about(target, _TO_STOP))
            await (await sent).aclose()

    @property
    def _stop_target(self) -> Target | None:
        if self._protocol is None or not self.runs_on:
            return None
        self._protocol.rest(bytearray(self._body))  # which finds out its id
        return self._protocol.stop()

    def _about(self, target: Target, extensions: Any) -> Any:
        """A request to the same server about the stream, with the headers of the one that began it."""
        return follow_up(self._request, target.method, target.path, query=target.query, extensions=extensions)


class _Recorded:
    """A class and not a generator: nobody has to close it."""

    def __init__(self, begin: bytes, parts: AsyncIterator[bytes], new: Callable[[bytes], bytes]) -> None:
        self._begin = begin
        self._parts = parts
        self._new = new

    def __aiter__(self) -> _Recorded:
        return self

    async def __anext__(self) -> bytes:
        begin, self._begin = self._begin, b""
        while not begin:
            begin = self._new(await anext(self._parts))
        return begin


def _is_sound(body: bytes | bytearray) -> bool:
    """Whether every event in a body is JSON, so that nothing was damaged and nothing ends it."""
    whole = bytes(body[: max(body.rfind(b"\n"), body.rfind(b"\r")) + 1])
    for line in whole.splitlines():
        if line.startswith(b"data:"):
            try:
                json.loads(line[5:])
            except (ValueError, RecursionError):
                return False
    return True
