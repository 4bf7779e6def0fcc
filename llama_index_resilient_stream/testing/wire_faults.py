"""How each kind of fault is performed on the wire.

A streamed answer is opening, pieces, finish, [DONE], end. A break is a function that takes over at its place:

    BEFORE   in place of the response, or before its headers
    EARLY    after the headers, before the first event
    MIDWAY   behind the first `after` characters
    LATE     behind the last piece; finish reason, [DONE] and the end of the body are theirs

What a function leaves unsaid stays unsaid.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .faults import Fault, Kind
from .http_connection import Connection
from .payloads import COMMENT, DONE, Payloads, Usage, event

_HTML = b"<!doctype html>\n<html><body><h1>Just a moment...</h1></body></html>\n"


@dataclass
class Sent:
    """What has gone out of one response so far."""

    text: str = ""
    tokens: int = 0
    events: int = 0


@dataclass(frozen=True)
class Stream:
    """One streamed answer on its way out.

    `before` and `rest` are the pieces (text or tool arguments) in front of the place of the fault and behind
    it, `thinking` those of the reasoning. `finish_reason` is that of a healthy end. `delay` is in seconds per
    piece.
    """

    connection: Connection
    payloads: Payloads
    fault: Fault
    before: list[str]
    rest: list[str]
    thinking: list[str]
    finish_reason: str
    delay: float
    usage: Usage
    sent: Sent = field(default_factory=Sent)

    # -- events

    def emit(self, data: bytes) -> None:
        """One event. Notices first whether the client has left."""
        self.connection.pause(0)
        self.connection.write(data)
        self.sent.events += 1

    def say(self, pieces: list[str], delay: float) -> None:
        """Pieces, each after its delay."""
        for piece in pieces:
            if delay:
                self.connection.pause(delay)
            self.emit(event(self.payloads.piece(piece)))
            self.sent.text += piece
            self.sent.tokens += 1

    def open_answer(self) -> None:
        """The events in front of the first piece."""
        for payload in self.payloads.opening():
            self.emit(event(payload))
        for piece in self.thinking:
            if self.delay:
                self.connection.pause(self.delay)
            self.emit(event(self.payloads.thinking(piece)))
            self.sent.tokens += 1

    def finish(self, reason: str | None, *, usage: bool = False) -> None:
        """The finish reason, and the usage chunk where it was asked for or `usage` is true."""
        self.emit(event(self.payloads.finish(reason)))
        if usage or self.payloads.include_usage:
            self.emit(event(self.payloads.usage(self.usage)))

    def done(self) -> None:
        """[DONE]."""
        self.emit(DONE)

    def go_on(self) -> None:
        """The rest of the answer, whole, with everything that belongs to its end."""
        self.say(self.rest, self.delay)
        self.finish(self.finish_reason)
        self.done()
        self.connection.end()

    def comment(self) -> None:
        """Keep-alive comments for as long as the fault says."""
        seconds = self.fault.seconds
        until = None if seconds is None else time.monotonic() + seconds
        while until is None or time.monotonic() < until:
            self.connection.write(COMMENT)
            self.connection.pause(self.fault.interval)

    # -- bytes, for the breaks that need them

    @cached_property
    def next_event(self) -> bytes:
        """The event that would come next: a piece, or the finish reason."""
        if self.rest:
            return event(self.payloads.piece(self.rest[0]))
        return event(self.payloads.finish(self.finish_reason))

    def length(self) -> int:
        """The number of bytes of the whole healthy body."""
        payloads = [*self.payloads.opening(), *map(self.payloads.thinking, self.thinking)]
        payloads += [self.payloads.piece(piece) for piece in (*self.before, *self.rest)]
        payloads.append(self.payloads.finish(self.finish_reason))
        if self.payloads.include_usage:
            payloads.append(self.payloads.usage(self.usage))
        return sum(len(event(payload)) for payload in payloads) + len(DONE)


def perform(stream: Stream) -> None:
    """Send the answer, with its fault in its place."""
    fault, connection = stream.fault, stream.connection
    if fault.kind in BEFORE:
        BEFORE[fault.kind](stream)
    if not connection.alive or fault.kind in ("status", "html"):
        return
    connection.open_stream(
        "close" if fault.close else "chunked", stream.length() if fault.kind == "short-length" else None
    )
    if fault.kind in EARLY:
        EARLY[fault.kind](stream)
    stream.open_answer()
    stream.say(stream.before, (fault.seconds or 0.0) if fault.kind == "slow" else stream.delay)
    if fault.kind in LATE:
        stream.say(stream.rest, stream.delay)
    (MIDWAY.get(fault.kind) or LATE.get(fault.kind, Stream.go_on))(stream)


# -- before the headers


def _hang_up(stream: Stream) -> None:
    stream.connection.fin()


def _reset(stream: Stream) -> None:
    stream.connection.reset()


def _status(stream: Stream) -> None:
    fault = stream.fault
    body = json.dumps(fault.error_body()).encode()
    stream.connection.respond(fault.status, body, "application/json", fault.all_headers())


def _html(stream: Stream) -> None:
    stream.connection.respond(200, _HTML, "text/html; charset=utf-8", stream.fault.headers)


def _stall(stream: Stream) -> None:
    stream.connection.pause(stream.fault.seconds)


# -- midway


def _fin(stream: Stream) -> None:
    stream.connection.fin()


def _fin_in_chunk(stream: Stream) -> None:
    stream.connection.write_torn(stream.next_event)
    stream.connection.fin()


def _end(stream: Stream) -> None:
    stream.connection.end()


def _done_without_finish(stream: Stream) -> None:
    stream.done()
    stream.connection.end()


def _half_event(stream: Stream) -> None:
    stream.connection.write(stream.next_event[: len(stream.next_event) // 2])
    stream.connection.end()


def _half_character(stream: Stream) -> None:
    wide = next((char for piece in stream.rest for char in piece if ord(char) > 127), "…")
    head, _, _ = event(stream.payloads.piece("\0")).partition(b"\\u0000")
    stream.connection.write(head + wide.encode()[:-1])
    stream.connection.end()


def _broken_json(stream: Stream) -> None:
    stream.emit(stream.next_event.rstrip()[:-1] + b"\n\n")
    stream.say(stream.rest[1:], stream.delay)
    stream.finish(stream.finish_reason)
    stream.done()
    stream.connection.end()


def _error_event(stream: Stream) -> None:
    stream.emit(event(stream.fault.error_body()))
    stream.connection.end()


def _finish(stream: Stream) -> None:
    stream.finish(stream.fault.finish)
    stream.done()
    stream.connection.end()


def _stall_then_on(stream: Stream) -> None:
    _stall(stream)
    stream.go_on()


def _comment_then_on(stream: Stream) -> None:
    stream.comment()
    stream.go_on()


# -- behind the last piece


def _reset_after_finish(stream: Stream) -> None:
    stream.finish(stream.finish_reason)
    stream.connection.reset()


def _eof_after_finish(stream: Stream) -> None:
    stream.finish(stream.finish_reason)
    stream.connection.fin()


def _eof_after_done(stream: Stream) -> None:
    stream.finish(stream.finish_reason)
    stream.done()
    stream.connection.fin()


def _no_done(stream: Stream) -> None:
    stream.finish(stream.finish_reason)
    stream.connection.end()


def _usage_after_finish(stream: Stream) -> None:
    stream.finish(stream.finish_reason, usage=True)
    stream.done()
    stream.connection.end()


Break = Callable[[Stream], None]

BEFORE: Mapping[Kind, Break] = {
    "hang-up": _hang_up,
    "reset-before-headers": _reset,
    "status": _status,
    "html": _html,
    "stall-headers": _stall,
}
EARLY: Mapping[Kind, Break] = {"stall-first": _stall, "comments-first": Stream.comment}
MIDWAY: Mapping[Kind, Break] = {
    "reset": _reset,
    "fin-in-chunk": _fin_in_chunk,
    "short-length": _fin,
    "clean-eof": _end,
    "close-eof": _end,
    "done-without-finish": _done_without_finish,
    "half-event": _half_event,
    "half-character": _half_character,
    "broken-json": _broken_json,
    "error-event": _error_event,
    "finish": _finish,
    "empty": _finish,
    "stall": _stall_then_on,
    "comments": _comment_then_on,
}
LATE: Mapping[Kind, Break] = {
    "reset-after-finish": _reset_after_finish,
    "eof-after-finish": _eof_after_finish,
    "eof-after-done": _eof_after_done,
    "no-done": _no_done,
    "usage-after-finish": _usage_after_finish,
    "never-tells": _done_without_finish,
    "never-tells-no-done": _end,
}


def perform_whole(stream: Stream) -> None:
    """The same for a request that asked for no stream: one JSON body, as broken as its framing allows."""
    fault, connection = stream.fault, stream.connection
    if fault.kind in BEFORE:
        BEFORE[fault.kind](stream)
    elif fault.kind in (*EARLY, "stall", "comments"):
        _stall(stream)  # white space would be the only comment in JSON
    if not connection.alive or fault.kind in ("status", "html"):
        return
    torn = fault.kind in _TORN
    text = "".join(stream.before if fault.finish else (*stream.before, *stream.rest))
    reason = None if fault.kind in _SILENT else fault.finish or stream.finish_reason
    body = json.dumps(stream.payloads.whole(text, reason, stream.usage), ensure_ascii=False).encode()
    if not torn:
        stream.sent.text, stream.sent.tokens = text, stream.usage.completion
        connection.respond(200, body, "application/json")
        return
    connection.head(200, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    connection.send(body[: len(body) // 2])
    _reset(stream) if fault.kind == "reset" else _fin(stream)


_SILENT = ("never-tells", "never-tells-no-done")
_TORN = (
    "reset", "fin-in-chunk", "short-length", "clean-eof", "done-without-finish", "close-eof", "half-event",
    "half-character", "broken-json", "error-event",
)  # fmt: skip
