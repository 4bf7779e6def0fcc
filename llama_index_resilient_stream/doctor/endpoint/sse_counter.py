"""Counts the server-sent events of a body as its bytes arrive, and what is wrong with how they are written.

Keeps none of their text.
"""

from __future__ import annotations

from ..sse import DecodedEvent, EventDecoder, LineDecoder, field_of, is_comment
from .measurements import ERROR, FINISH, BodyFormat, BodyKind, EventCounts, WireProtocol
from .wire_protocols import Meaning, meaning_of, meaning_of_line

_FIELDS = ("data", "event", "id", "retry")
_HEAD = 2_000  # characters that show what kind of body it is
_LOGIN_WORDS = ("password", "log in", "login", "sign in", "signin", "sso")
_SEVERAL = 3


class EventCounter:
    """Counts events.

    Args:
        terminal: A text with which the user's endpoint ends a good answer.
    """

    def __init__(self, terminal: str = "") -> None:
        self._own_terminal = terminal
        self._lines = LineDecoder()
        self._decoder = EventDecoder()
        self._event = _OpenEvent()
        self._end = _EndSeen()
        self._events = self._pings = self._pieces = self._longest = 0
        self._ids: list[str] = []
        self._stray = self._joined = self._split = self._json_lines = 0
        self._ended_in_this_piece = False
        self._head = ""

    @property
    def counted(self) -> EventCounts:
        """The counts so far."""
        # An endpoint that is not SSE may send its last word on a line that nothing ends.
        own = self._own_terminal if self._own_terminal and self._own_terminal in self._lines.rest else ""
        terminal = self._end.terminal or own
        return EventCounts(self._events, self._pings, tuple(self._ids), terminal, self._end.status)

    @property
    def pieces(self) -> int:
        """Events so far that brought a piece of the answer."""
        return self._pieces

    @property
    def format(self) -> BodyFormat:
        """How the body is written, as far as it came."""
        rest = self._lines.rest
        field = field_of(rest)[0] if rest else ""
        return BodyFormat(
            kind=self._kind(),
            pieces=self._pieces,
            longest_piece=self._longest,
            stray_lines=self._stray + bool(rest and field not in _FIELDS and not is_comment(rest)),
            unended_lines=self._event.lines + (field == "data"),
            joined_events=self._joined + self._event.is_joined,
            split_texts=self._split,
            protocol=self._end.protocol,
            end_is_foreign=self._end.is_foreign,
            says_how=self._end.says_how,
        )

    def feed(self, data: bytes) -> None:
        """Count what the next piece of the body brings."""
        self._event.next_piece()
        self._ended_in_this_piece = False
        for line in self._lines.feed(data):
            self._look_at(line)
            if event := self._decoder.feed(line):
                self._count(event)
        if len(self._head) < _HEAD:
            self._head += data[:_HEAD].decode("utf-8", "replace")

    def _look_at(self, line: str) -> None:
        if self._own_terminal and self._own_terminal in line:
            self._end.terminal = self._own_terminal
        if not line:
            self._end_event()
            return
        self._ended_in_this_piece = False
        name, _ = field_of(line)
        if is_comment(line):
            self._pings += 1
        elif name in _FIELDS:
            self._event.take(name)
        elif (meaning := meaning_of_line(line)) is not None:
            self._json_lines += 1
            self._learn(meaning)
        else:
            self._stray += 1

    def _end_event(self) -> None:
        # One blank line more, sent with its event: text that ends with a line end, most often.
        self._split += self._ended_in_this_piece
        self._ended_in_this_piece = bool(self._event.lines)
        self._joined += self._event.is_joined
        self._event = _OpenEvent()

    def _count(self, event: DecodedEvent) -> None:
        self._events += 1
        if event.id:
            self._ids.append(event.id)
        self._learn(meaning_of(event))

    def _learn(self, meaning: Meaning) -> None:
        self._end.learn(meaning)
        if meaning.text:
            self._pieces += 1
            self._longest = max(self._longest, meaning.text)

    def _kind(self) -> BodyKind:
        head = self._head.lstrip("\ufeff \r\n\t").lower()
        if not head:
            return BodyKind.EMPTY
        if head.startswith(("<!doctype html", "<html", "<head", "<body")):
            return BodyKind.LOGIN_PAGE if any(word in head for word in _LOGIN_WORDS) else BodyKind.PAGE
        if self._events or self._event.lines or self._lines.rest.startswith("data:"):
            return BodyKind.EVENTS
        return BodyKind.JSON_LINES if self._json_lines > 1 else BodyKind.TEXT


class _OpenEvent:
    """The event that no blank line has ended yet."""

    def __init__(self) -> None:
        self.lines = 0
        """Lines of data."""
        self._pieces: int = 0  # of the body, that brought them
        self._fresh = True
        self._heads = {"event": 0, "id": 0}

    def next_piece(self) -> None:
        self._fresh = True

    def take(self, name: str) -> None:
        if name in self._heads:
            self._heads[name] += 1
        if name == "data":
            self.lines += 1
            self._pieces += self._fresh
            self._fresh = False

    @property
    def is_joined(self) -> bool:
        """Whether it is several events: no server writes one event bit by bit, or gives it two ids."""
        one_by_one = self._pieces >= max(_SEVERAL, self.lines / _SEVERAL)  # a long event comes in some pieces, too
        return self.lines > 1 and (max(self._heads.values()) > 1 or one_by_one)


class _EndSeen:
    """How the answer ended, by its own events."""

    def __init__(self) -> None:
        self.terminal = self.status = ""
        self.protocol = WireProtocol.UNKNOWN
        self.is_foreign = False
        self.says_how = False
        self._answer_id: str | None = None

    def learn(self, meaning: Meaning) -> None:
        self.protocol = meaning.protocol or self.protocol
        self._compare_ids(meaning)
        if meaning.terminal:
            self.says_how = self.says_how or meaning.terminal in (ERROR, FINISH)
            if self.terminal != ERROR:  # [DONE] may follow, and takes nothing back
                self.terminal, self.status = meaning.terminal, meaning.status

    def _compare_ids(self, meaning: Meaning) -> None:
        if meaning.protocol is not WireProtocol.OPENAI:
            return
        if meaning.terminal and self._answer_id and meaning.answer_id != self._answer_id:
            self.is_foreign = True
        self._answer_id = self._answer_id or meaning.answer_id
