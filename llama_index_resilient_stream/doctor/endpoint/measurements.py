"""What was measured on the wire: sizes and times. No text of an answer, no value of a secret header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

from ..sse import OPENAI_DONE

DONE, ERROR, FINISH = "done", "error", "finish"
TERMINALS = (DONE, ERROR, FINISH, OPENAI_DONE)
"""What says that an answer is over; anything else is the user's own text."""

BLOCK_GAP = 0.002
"""Seconds. What arrives this close together is one block: TCP does not keep the sender's writes apart."""
HELD_BACK = 0.5
"""Seconds. An answer that is complete sooner was too quick to show whether something held it back."""
UNKNOWN_HOST = "the host name is not known"
NO_TLS = "no TLS is spoken there"
NO_HANDSHAKE = "the TLS handshake was not answered"


class Framing(StrEnum):
    """How the end of a body is marked (RFC 9112, section 6.3)."""

    CHUNKED = "chunked"
    LENGTH = "content_length"
    CLOSE = "close_delimited"
    """By closing the connection, so that a cut looks like an end."""
    NONE = "none"
    """No body: 204, 304."""


class Ending(StrEnum):
    """How a response ended for its reader."""

    CLEAN = "clean"
    CUT = "cut"
    """The connection was closed before the end was marked."""
    RESET = "reset"
    GAVE_UP = "gave_up"
    """We stopped reading, because `--timeout` was over."""
    STOPPED_EARLY = "stopped_early"
    """We stopped reading, because we had seen what we asked for."""
    NO_ANSWER = "no_answer"
    """Connected, and the connection was closed without a status line."""
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Arrival:
    """Bytes of a body that came out of the socket together, `at` seconds after the request."""

    at: float
    size: int
    pieces: int = 0
    """Events that they completed and that brought a piece of the answer."""


@dataclass(frozen=True)
class EventCounts:
    """Counts of the server-sent events of a body."""

    events: int = 0
    pings: int = 0
    """Comment lines."""
    ids: tuple[str, ...] = ()
    terminal: str = ""
    """What said that it was over: one of `TERMINALS`, or the user's own text."""
    status: str = ""
    """The word behind "status" in the data of the terminal event, where it is one that this package uses."""

    @property
    def failed(self) -> bool:
        """Whether the endpoint itself said that something went wrong."""
        return self.terminal == ERROR


class WireProtocol(StrEnum):
    """Whose protocol the events are, as far as they show it."""

    UNKNOWN = ""
    OPENAI = "openai"
    AI_SDK = "ai_sdk"


class BodyKind(StrEnum):
    """What a body looks like, whatever its content type says."""

    EMPTY = "empty"
    EVENTS = "events"
    JSON_LINES = "json_lines"
    PAGE = "page"
    LOGIN_PAGE = "login_page"
    TEXT = "text"


@dataclass(frozen=True)
class BodyFormat:
    """How a body is written."""

    kind: BodyKind = BodyKind.EMPTY
    pieces: int = 0
    """Events that brought a piece of the answer."""
    longest_piece: int = 0
    """Characters of the longest of them."""
    stray_lines: int = 0
    """Lines that are no field of an event: readers drop them."""
    unended_lines: int = 0
    """Lines of data at the end that no blank line ends: readers drop them."""
    joined_events: int = 0
    """Events that are several, since no blank line is between them."""
    split_texts: int = 0
    """Events with one blank line too many behind them: their text ended with a line end, which is lost."""
    protocol: WireProtocol = WireProtocol.UNKNOWN
    says_how: bool = False
    """Whether it says how the answer ended, and not only that it is over, as [DONE] does."""
    end_is_foreign: bool = False
    """Whether the finish reason has another id than the chunks before it."""


@dataclass(frozen=True)
class Observation:
    """One request and its response. Times are seconds since the request was sent."""

    ended: Ending
    ended_at: float = 0.0
    status: int = 0
    http_version: str = "1.1"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Those of `probe.HEADERS` alone, in lower case."""
    headers_at: float = 0.0
    framing: Framing = Framing.NONE
    arrivals: tuple[Arrival, ...] = ()
    counts: EventCounts = field(default_factory=EventCounts)
    format: BodyFormat = field(default_factory=BodyFormat)
    readable: bool = True
    """False where it was compressed in a way that the standard library does not know."""
    error: str = ""
    certificate_error: int = 0
    """Why OpenSSL does not trust the certificate, as a number; 0 where it does."""
    segments: int = 0
    """TCP segments with data that came, the headers included; 0 where the system does not tell."""
    last_event_at: float = 0.0
    """When the last event came."""
    hung_up: bool = False
    """Whether the server closed the connection behind a proper end, though it was to be kept alive."""

    @property
    def answered(self) -> bool:
        return self.status == 200

    @property
    def cut(self) -> bool:
        return self.ended in (Ending.CUT, Ending.RESET)

    @property
    def whole(self) -> bool:
        """A successful answer that said that it was over."""
        return self.answered and bool(self.counts.terminal) and not self.counts.failed

    @property
    def is_sse(self) -> bool:
        return self.headers.get("content-type", "").lower().startswith("text/event-stream")

    @property
    def encoding(self) -> str:
        encoding = self.headers.get("content-encoding", "").lower()
        return "" if encoding == "identity" else encoding

    @property
    def size(self) -> int:
        return sum(arrival.size for arrival in self.arrivals)

    @cached_property
    def blocks(self) -> tuple[float, ...]:
        """When each block of bytes began."""
        begun: list[float] = []
        last = -BLOCK_GAP
        for arrival in self.arrivals:
            if arrival.at - last >= BLOCK_GAP:
                begun.append(arrival.at)
            last = arrival.at
        return tuple(begun)

    @property
    def first_byte(self) -> float:
        return self.arrivals[0].at if self.arrivals else self.ended_at

    @property
    def last_sign(self) -> float:
        """When something was last heard from the server: bytes of the body, or else its headers."""
        return self.arrivals[-1].at if self.arrivals else self.headers_at

    @property
    def silence(self) -> float:
        """Seconds without a byte before the end."""
        return max(0.0, self.ended_at - self.last_sign)

    @property
    def longest_gap(self) -> float:
        """The longest time without a byte before the last one, the wait for the first one included."""
        times = [0.0, *(arrival.at for arrival in self.arrivals)]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


@dataclass(frozen=True)
class Reconnection:
    """A second request, with the Last-Event-ID of an event in the middle of the first answer."""

    last_id: str
    seen: tuple[str, ...]
    """The ids up to that one."""
    again: Observation

    @property
    def restarts(self) -> bool:
        """Whether it repeated what the reader has. False where the ids do not show their order."""
        if not self.again.answered or not self.again.counts.ids:
            return False
        first = self.again.counts.ids[0]
        if first.isdecimal() and self.last_id.isdecimal():
            return int(first) <= int(self.last_id)
        return first in self.seen


@dataclass(frozen=True)
class RouteLatency:
    """How many seconds a quick route took, alone and while one stream ran beside it."""

    alone: float
    during_stream: float
    """The longest."""


@dataclass(frozen=True)
class Measurements:
    """All that was measured of one endpoint."""

    url: tuple[Observation, ...]
    """Asked as a browser would. Repeated where the first one ended badly."""
    direct: tuple[Observation, ...] = ()
    """The same, past the proxies."""
    uncompressed: Observation | None = None
    """Asked again without Accept-Encoding, where the first answer was compressed."""
    http10: Observation | None = None
    """The headers of the answer to a request in HTTP/1.0, as nginx sent it before 1.29.7."""
    reconnection: Reconnection | None = None
    parallel: tuple[Observation, ...] = ()
    """The answers to requests that were sent at the same time."""
    quick_route: RouteLatency | None = None
    second_reader: Observation | None = None
    """The beginning of the answer to one more request, where nothing else asked the same URL again."""
    is_application: bool = False
    """Whether the URL is the application's own, without a proxy, as far as it shows."""
    app_compresses: bool | None = None
    """Whether a compressed answer is compressed past the proxies, too; None where that is not known."""

    @property
    def main(self) -> Observation:
        return self.url[0]

    @property
    def answers(self) -> tuple[Observation, ...]:
        """All answers that were read to their end, or nearly."""
        more = [each for each in (self.uncompressed, self.second_reader) if each is not None]
        more += [self.reconnection.again] if self.reconnection else []
        return (*self.url, *self.direct, *more, *self.parallel)

    @property
    def uncompressed_answer(self) -> Observation | None:
        """The answer that was not compressed, where the first one was."""
        return self.uncompressed if self.main.answered and self.uncompressed and self.uncompressed.answered else None

    @property
    def direct_answer(self) -> Observation | None:
        """The direct answer, where there is one to compare with."""
        return self.direct[0] if self.direct and self.direct[0].answered else None
