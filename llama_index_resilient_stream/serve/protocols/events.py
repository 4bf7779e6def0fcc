"""Our own server-sent events, made for an `EventSource`.

    id: 1                                   a piece of the answer, of the default type "message"
    data: {"text":"The capital"}

    id: 2                                   an attempt failed, and the answer goes on
    event: recovery
    data: {"attempt":2,"reason":"transport"}

    id: 7.end                               the last event, always: "done", or "error" for an answer that is not whole
    event: done
    data: {"status":"complete"}

Other parts are events of their own name (`parts.NAMES`), the application's own events of the name that they were given.
A comment line comes whenever there was silence for the length of a heartbeat, the time before the first token included.
"""

from __future__ import annotations

from ..parts import NAMES, EndPart, EventPart, Part, TextPart, to_dict
from ..sse import HEADERS, HEARTBEAT, EventId, ServerSentEvent
from .base import WHOLE, Encoding, written


class Events:
    """Server-sent events with ids, which an `EventSource` resumes after."""

    def encoding(self) -> Encoding:
        """A new encoding, for one connection."""
        return _EventEncoding()


class _EventEncoding(Encoding):
    headers = HEADERS
    heartbeat = HEARTBEAT

    def begin(self, retry: int | None) -> bytes:
        return HEARTBEAT if retry is None else f"retry: {retry}\n".encode() + HEARTBEAT

    def encode(self, part: Part, at: EventId) -> bytes:
        if type(part) is TextPart:  # nearly all of them
            return f"id: {at}\ndata: {written({'text': part.text})}\n\n".encode()
        return event_of(part, at).encode()


def event_of(part: Part, at: EventId) -> ServerSentEvent:
    """What a part of an answer is on the wire; `at` is the id after it."""
    match part:
        case TextPart(text):
            return ServerSentEvent(written({"text": text}), id=str(at))
        case EventPart(name, data):
            return ServerSentEvent(written(data), name, str(at))
        case EndPart(status) if status in WHOLE:
            return ServerSentEvent(written({"status": status}), "done", str(at))
        case EndPart():
            return ServerSentEvent(written(end_of(part)), "error", str(at))
        case _:
            return ServerSentEvent(written(to_dict(part)), NAMES[type(part)], str(at))


def end_of(end: EndPart) -> dict[str, object]:
    """The end of an answer that is not whole. The application's own HTTP error is told where there was one."""
    told: dict[str, object] = {"status": end.status, "reason": end.reason, "retryable": end.retryable}
    return {**told, "code": end.code, "detail": end.detail} if end.code else told
