"""How each kind of fault is performed on the wire.

A streamed answer is opening, pieces, finish reason, [DONE], end. Four tables say which function takes over, and where:

    BEFORE_HEADERS       in place of the response, or before its headers
    BEFORE_FIRST_EVENT   after the headers
    MIDWAY               behind the first `after` characters
    AFTER_LAST_PIECE     in place of finish reason, [DONE] and the end of the body

Behind the first `after` characters and behind the last piece the function sends all that is still sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .faults import WireFault
from .faults import WireFaultKind as Kind
from .http_connection import Connection, StreamFraming
from .payloads import COMMENT, DONE, Payloads, Usage, event

_HTML = b"<!doctype html>\n<html><body><h1>Just a moment...</h1></body></html>\n"


@dataclass
class SentOutput:
    """What has been sent of one response so far: its text, its tokens and its events."""

    text: str = ""
    tokens: int = 0
    events: int = 0


@dataclass(frozen=True)
class OutgoingResponse:
    """One answer that is being sent.

    Attributes:
        before: The pieces (text or tool arguments) in front of the place of the fault.
        rest: The pieces behind it.
        thinking: The pieces of the reasoning.
        finish_reason: The finish reason of a healthy end.
        delay: Seconds before each piece.
        sent: What has been sent so far.
    """

    connection: Connection
    payloads: Payloads
    fault: WireFault
    before: list[str]
    rest: list[str]
    thinking: list[str]
    finish_reason: str
    delay: float
    usage: Usage
    sent: SentOutput = field(default_factory=SentOutput)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to send: the connection is closed, or another response was sent in its place."""
        return not self.connection.alive or self.fault.kind in (Kind.STATUS, Kind.HTML)

    # -- events

    def emit(self, data: bytes) -> None:
        """Send one event, after a look whether the client has left."""
        self.connection.pause(0)
        self.connection.write(data)
        self.sent.events += 1

    def send_pieces(self, pieces: list[str], delay: float) -> None:
        """Send pieces, each after `delay` seconds."""
        for piece in pieces:
            if delay:
                self.connection.pause(delay)
            self.emit(event(self.payloads.piece(piece)))
            self.sent.text += piece
            self.sent.tokens += 1

    def open_answer(self) -> None:
        """Send the events in front of the first piece."""
        for payload in self.payloads.opening():
            self.emit(event(payload))
        for piece in self.thinking:
            if self.delay:
                self.connection.pause(self.delay)
            self.emit(event(self.payloads.thinking(piece)))
            self.sent.tokens += 1

    def send_finish_reason(self, reason: str | None, *, usage: bool = False) -> None:
        """Send the finish reason, and the usage chunk where the request asked for it or `usage` is true."""
        self.emit(event(self.payloads.finish(reason)))
        if usage or self.payloads.include_usage:
            self.emit(event(self.payloads.usage(self.usage)))

    def send_done(self) -> None:
        """Send [DONE]."""
        self.emit(DONE)

    def send_rest(self) -> None:
        """Send the rest of the answer, and everything that belongs to a healthy end."""
        self.send_pieces(self.rest, self.delay)
        self.send_finish_reason(self.finish_reason)
        self.send_done()
        self.connection.end()

    def send_comments(self) -> None:
        """Send keep-alive comments for as long as the fault says."""
        seconds = self.fault.seconds
        until = None if seconds is None else time.monotonic() + seconds
        while until is None or time.monotonic() < until:
            self.connection.write(COMMENT)
            self.connection.pause(self.fault.interval)

    # -- bytes, for the faults that need them

    @cached_property
    def next_event(self) -> bytes:
        """The event that a healthy answer would send next: a piece, or the finish reason."""
        if self.rest:
            return event(self.payloads.piece(self.rest[0]))
        return event(self.payloads.finish(self.finish_reason))

    def healthy_events(self) -> list[bytes]:
        """Return the events of the whole healthy body."""
        payloads = [*self.payloads.opening(), *map(self.payloads.thinking, self.thinking)]
        payloads += [self.payloads.piece(piece) for piece in (*self.before, *self.rest)]
        payloads.append(self.payloads.finish(self.finish_reason))
        if self.payloads.include_usage:
            payloads.append(self.payloads.usage(self.usage))
        return [*map(event, payloads), DONE]


def perform(response: OutgoingResponse) -> None:
    """Stream the answer, with its fault in its place."""
    fault, connection = response.fault, response.connection
    _before_headers(response)
    if response.is_over:
        return
    length = sum(map(len, response.healthy_events())) if fault.kind is Kind.SHORT_LENGTH else None
    connection.open_stream(StreamFraming.CLOSE if fault.close else StreamFraming.CHUNKED, length)
    if act := BEFORE_FIRST_EVENT.get(fault.kind):
        act(response)
    response.open_answer()
    slow = fault.kind is Kind.SLOW
    response.send_pieces(response.before, (fault.seconds or 0.0) if slow else response.delay)
    if fault.kind in AFTER_LAST_PIECE:
        response.send_pieces(response.rest, response.delay)
    act = MIDWAY.get(fault.kind) or AFTER_LAST_PIECE.get(fault.kind) or OutgoingResponse.send_rest
    act(response)


def perform_whole(response: OutgoingResponse) -> None:
    """Send the answer as one JSON body, as broken as its framing allows: the request asked for no stream."""
    fault, connection = response.fault, response.connection
    _before_headers(response)
    if fault.kind in (*BEFORE_FIRST_EVENT, Kind.STALL, Kind.COMMENTS):
        _stall(response)  # white space would be the only comment in JSON
    if response.is_over:
        return
    text = "".join(response.before if fault.finish_reason else (*response.before, *response.rest))
    reason = None if fault.kind in _WITHOUT_REASON else fault.finish_reason or response.finish_reason
    body = json.dumps(response.payloads.whole(text, reason, response.usage), ensure_ascii=False).encode()
    if fault.kind not in _TORN:
        response.sent.text, response.sent.tokens = text, response.usage.completion
        connection.respond(200, body, "application/json")
        return
    connection.head(200, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    connection.send(body[: len(body) // 2])
    _reset(response) if fault.kind is Kind.RESET else _fin(response)


def _before_headers(response: OutgoingResponse) -> None:
    if act := BEFORE_HEADERS.get(response.fault.kind):
        act(response)


# -- before the headers


def _hang_up(response: OutgoingResponse) -> None:
    response.connection.fin()


def _reset(response: OutgoingResponse) -> None:
    response.connection.reset()


def _status(response: OutgoingResponse) -> None:
    fault = response.fault
    body = json.dumps(fault.error_body()).encode()
    response.connection.respond(fault.status, body, "application/json", fault.all_headers())


def _html(response: OutgoingResponse) -> None:
    response.connection.respond(200, _HTML, "text/html; charset=utf-8", response.fault.headers)


def _stall(response: OutgoingResponse) -> None:
    response.connection.pause(response.fault.seconds)


# -- midway


def _fin(response: OutgoingResponse) -> None:
    response.connection.fin()


def _fin_in_chunk(response: OutgoingResponse) -> None:
    response.connection.write_torn(response.next_event)
    response.connection.fin()


def _end(response: OutgoingResponse) -> None:
    response.connection.end()


def _done_without_finish(response: OutgoingResponse) -> None:
    response.send_done()
    response.connection.end()


def _half_event(response: OutgoingResponse) -> None:
    response.connection.write(response.next_event[: len(response.next_event) // 2])
    response.connection.end()


def _half_character(response: OutgoingResponse) -> None:
    wide = next((char for piece in response.rest for char in piece if ord(char) > 127), "…")
    head, _, _ = event(response.payloads.piece("\0")).partition(b"\\u0000")
    response.connection.write(head + wide.encode()[:-1])
    response.connection.end()


def _broken_json(response: OutgoingResponse) -> None:
    response.emit(response.next_event.rstrip()[:-1] + b"\n\n")
    response.send_pieces(response.rest[1:], response.delay)
    response.send_finish_reason(response.finish_reason)
    response.send_done()
    response.connection.end()


def _error_event(response: OutgoingResponse) -> None:
    response.emit(event(response.fault.error_body()))
    response.connection.end()


def _finish(response: OutgoingResponse) -> None:
    response.send_finish_reason(response.fault.finish_reason)
    response.send_done()
    response.connection.end()


def _stall_then_on(response: OutgoingResponse) -> None:
    _stall(response)
    response.send_rest()


def _comment_then_on(response: OutgoingResponse) -> None:
    response.send_comments()
    response.send_rest()


# -- after the last piece


def _reset_after_finish(response: OutgoingResponse) -> None:
    response.send_finish_reason(response.finish_reason)
    response.connection.reset()


def _eof_after_finish(response: OutgoingResponse) -> None:
    response.send_finish_reason(response.finish_reason)
    response.connection.fin()


def _eof_after_done(response: OutgoingResponse) -> None:
    response.send_finish_reason(response.finish_reason)
    response.send_done()
    response.connection.fin()


def _no_done(response: OutgoingResponse) -> None:
    response.send_finish_reason(response.finish_reason)
    response.connection.end()


def _usage_after_finish(response: OutgoingResponse) -> None:
    response.send_finish_reason(response.finish_reason, usage=True)
    response.send_done()
    response.connection.end()


FaultAction = Callable[[OutgoingResponse], None]

BEFORE_HEADERS: Mapping[Kind, FaultAction] = {
    Kind.HANG_UP: _hang_up,
    Kind.RESET_BEFORE_HEADERS: _reset,
    Kind.STATUS: _status,
    Kind.HTML: _html,
    Kind.STALL_HEADERS: _stall,
}
BEFORE_FIRST_EVENT: Mapping[Kind, FaultAction] = {
    Kind.STALL_FIRST: _stall,
    Kind.COMMENTS_FIRST: OutgoingResponse.send_comments,
}
MIDWAY: Mapping[Kind, FaultAction] = {
    Kind.RESET: _reset,
    Kind.FIN_IN_CHUNK: _fin_in_chunk,
    Kind.SHORT_LENGTH: _fin,
    Kind.CLEAN_EOF: _end,
    Kind.CLOSE_EOF: _end,
    Kind.DONE_WITHOUT_FINISH: _done_without_finish,
    Kind.HALF_EVENT: _half_event,
    Kind.HALF_CHARACTER: _half_character,
    Kind.BROKEN_JSON: _broken_json,
    Kind.ERROR_EVENT: _error_event,
    Kind.FINISH_REASON: _finish,
    Kind.EMPTY: _finish,
    Kind.STALL: _stall_then_on,
    Kind.COMMENTS: _comment_then_on,
}
AFTER_LAST_PIECE: Mapping[Kind, FaultAction] = {
    Kind.RESET_AFTER_FINISH: _reset_after_finish,
    Kind.EOF_AFTER_FINISH: _eof_after_finish,
    Kind.EOF_AFTER_DONE: _eof_after_done,
    Kind.NO_DONE: _no_done,
    Kind.USAGE_AFTER_FINISH: _usage_after_finish,
    Kind.NO_FINISH_REASON: _done_without_finish,
    Kind.NO_FINISH_REASON_NO_DONE: _end,
}


_WITHOUT_REASON = (Kind.NO_FINISH_REASON, Kind.NO_FINISH_REASON_NO_DONE)
_TORN = (
    Kind.RESET,
    Kind.FIN_IN_CHUNK,
    Kind.SHORT_LENGTH,
    Kind.CLEAN_EOF,
    Kind.DONE_WITHOUT_FINISH,
    Kind.CLOSE_EOF,
    Kind.HALF_EVENT,
    Kind.HALF_CHARACTER,
    Kind.BROKEN_JSON,
    Kind.ERROR_EVENT,
)
