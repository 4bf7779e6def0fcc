"""What was measured on the wire: sizes and times, never a text, never the value of a secret header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

BLOCK = 0.05
"""Bytes that arrive this close together, in seconds, are one block: TCP does not keep the sender's writes apart."""
PATIENCE = 0.5
"""A body that comes sooner than this, in seconds, was too quick to tell whether it was held back."""


class Framing(StrEnum):
    """How the end of a body is marked (RFC 9112, section 6.3)."""

    CHUNKED = "chunked"
    LENGTH = "content-length"
    CLOSE = "close-delimited"
    """By closing the connection: a cut looks like an end."""
    NONE = "none"
    """No body: 204, 304."""


class Ending(StrEnum):
    """How a response ended for its reader."""

    CLEAN = "clean"
    CUT = "cut"
    """The connection was closed before the end was marked."""
    RESET = "reset"
    GAVE_UP = "gave up"
    """We stopped reading: `--timeout`."""
    ENOUGH = "enough"
    """We stopped reading: what was asked for had been seen."""
    NO_ANSWER = "no answer"
    """Connected, and the connection was closed without a status line."""
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Arrival:
    """Bytes of a body, as they came out of the socket."""

    at: float
    size: int


@dataclass(frozen=True)
class Events:
    """The server-sent events of a body, counted."""

    events: int = 0
    pings: int = 0
    """Comment lines."""
    ids: tuple[str, ...] = ()
    terminal: str = ""
    """What said that it was over: "done", "error", "[DONE]", or the user's own text."""
    status: str = ""
    """The word behind "status" in the data of the terminal event, where it is one that this package uses."""

    @property
    def failed(self) -> bool:
        """Whether the endpoint itself said that something went wrong."""
        return self.terminal == "error"


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
    stream: Events = field(default_factory=Events)
    readable: bool = True
    """False where it was compressed in a way that the standard library does not know."""
    error: str = ""

    @property
    def answered(self) -> bool:
        return self.status == 200

    @property
    def cut(self) -> bool:
        return self.ended in (Ending.CUT, Ending.RESET)

    @property
    def whole(self) -> bool:
        """A successful answer that said that it was over."""
        return self.answered and bool(self.stream.terminal) and not self.stream.failed

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
        last = -BLOCK
        for arrival in self.arrivals:
            if arrival.at - last >= BLOCK:
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

    @property
    def one_block(self) -> bool:
        """All at once, after a wait. One event alone could not have come otherwise."""
        several = self.stream.events > 2 if self.is_sse and self.readable else True
        return len(self.blocks) == 1 and self.first_byte >= PATIENCE and several

    @property
    def streams(self) -> bool:
        return len(self.blocks) >= 3


@dataclass(frozen=True)
class Reconnection:
    """A second request, with the Last-Event-ID of an event in the middle of the first answer."""

    last_id: str
    seen: tuple[str, ...]
    """The ids up to that one."""
    again: Observation

    @property
    def begins_again(self) -> bool:
        """Whether it told again what the reader has; ids that mean nothing to us are given the benefit of the doubt."""
        if not self.again.answered or not self.again.stream.ids:
            return False
        first = self.again.stream.ids[0]
        if first.isdecimal() and self.last_id.isdecimal():
            return int(first) <= int(self.last_id)
        return first in self.seen


@dataclass(frozen=True)
class Light:
    """How long a URL that needs no time took, alone and while one stream ran beside it. Seconds."""

    alone: float
    beside: float
    """The longest."""


@dataclass(frozen=True)
class Survey:
    """All that was measured of one endpoint."""

    url: tuple[Observation, ...]
    """Asked as a browser would. Repeated where the first one ended badly."""
    direct: tuple[Observation, ...] = ()
    """The same, past the proxies."""
    uncompressed: Observation | None = None
    """Asked again without Accept-Encoding, where the first answer was compressed."""
    old: Observation | None = None
    """The headers that the application gives to a request in HTTP/1.0, which nginx sent before 1.29.7."""
    reconnection: Reconnection | None = None
    crowd: tuple[Observation, ...] = ()
    """Requests that were sent at the same time."""
    light: Light | None = None

    @property
    def main(self) -> Observation:
        return self.url[0]

    @property
    def plain(self) -> Observation | None:
        """The answer that was not compressed, where the first one was."""
        return self.uncompressed if self.main.answered and self.uncompressed and self.uncompressed.answered else None

    @property
    def past(self) -> Observation | None:
        """The direct answer, where there is one to compare with."""
        return self.direct[0] if self.direct and self.direct[0].answered else None
