"""Counts the server-sent events of a body as its bytes arrive. Keeps none of their text."""

from __future__ import annotations

import json

from ...report import StreamStatus
from ..sse import OPENAI_DONE, DecodedEvent, EventDecoder, LineDecoder, is_comment
from .measurements import EventCounts

TERMINAL_EVENTS = ("done", "error")
_STATUSES = {str(status) for status in StreamStatus}


class EventCounter:
    """Counts events.

    Args:
        terminal: A text with which the user's endpoint ends a good answer.
    """

    def __init__(self, terminal: str = "") -> None:
        self._own_terminal = terminal
        self._lines = LineDecoder()
        self._decoder = EventDecoder()
        self._events = self._pings = 0
        self._ids: list[str] = []
        self._terminal = self._status = ""

    @property
    def counted(self) -> EventCounts:
        """The counts so far."""
        # An endpoint that is not SSE may send its last word on a line that nothing ends.
        own = self._own_terminal if self._own_terminal and self._own_terminal in self._lines.rest else ""
        return EventCounts(self._events, self._pings, tuple(self._ids), self._terminal or own, self._status)

    def feed(self, data: bytes) -> None:
        """Count what the next piece of the body brings."""
        for line in self._lines.feed(data):
            if self._own_terminal and self._own_terminal in line:
                self._terminal = self._own_terminal
            self._pings += is_comment(line)
            if event := self._decoder.feed(line):
                self._count(event)

    def _count(self, event: DecodedEvent) -> None:
        self._events += 1
        if event.id:
            self._ids.append(event.id)
        if event.name in TERMINAL_EVENTS:
            self._terminal, self._status = event.name, _status(event.data)
        elif event.data.strip() == OPENAI_DONE:
            self._terminal = OPENAI_DONE


def _status(data: str) -> str:
    """Return the status only where it is a word of this package: any other could be text of an answer."""
    try:
        status = json.loads(data)["status"]
    except (ValueError, KeyError, TypeError):
        return ""
    return status if isinstance(status, str) and status in _STATUSES else ""
