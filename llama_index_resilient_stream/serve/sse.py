"""Server-sent events: the format of the WHATWG HTML standard, section 9.2, and the ids that count ours.

`protocols.events` has the events of an answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import ConfigurationError

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    # Nobody on the way may keep it or change it; compressing is a change (RFC 9111, section 5.2.2.6).
    "Cache-Control": "no-store, no-transform",
    # nginx holds back what it proxies unless it is told not to (ngx_http_proxy_module, proxy_buffering).
    "X-Accel-Buffering": "no",
    # Middleware that would compress it, and collect it for that, leaves alone what has an encoding.
    "Content-Encoding": "identity",
}

TEXT_HEADERS = {
    **HEADERS,
    "Content-Type": "text/plain; charset=utf-8",
    "X-Content-Type-Options": "nosniff",  # browsers hold back what they would have to guess the type of
}

# No blank line after it: many clients (httpx-sse, the OpenAI SDK) take that for an event, once they have seen an id.
HEARTBEAT = b": still here\n"

_GENERATION = r"[\w-]{16,64}"
_ID = re.compile(rf"(?:({_GENERATION})\.)?(\d{{1,15}})(\.end)?", re.ASCII)
_LINE_ENDS = re.compile("\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event. `retry` is in milliseconds."""

    data: str
    event: str = ""
    id: str = ""
    retry: int | None = None

    def encode(self) -> bytes:
        """As it goes over the wire.

        Raises ConfigurationError for an event type or an id that the format has no way to write.
        """
        lines = []
        for name, value in (("event", self.event), ("id", self.id)):
            if _LINE_ENDS.search(value) or "\0" in value:
                raise ConfigurationError(f"The {name} of a server-sent event is one line without NUL, not {value!r}.")
            if value:
                lines.append(f"{name}: {value}")
        if self.retry is not None:
            lines.append(f"retry: {self.retry}")
        lines += [f"data: {line}" for line in _LINE_ENDS.split(self.data)]
        return ("\n".join(lines) + "\n\n").encode()


@dataclass(frozen=True, slots=True)
class EventId:
    """Where a reader is: after so many events. `str()` is the id on the wire, `parse` its inverse."""

    count: int
    generation: str = ""
    over: bool = False

    def __str__(self) -> str:
        place = f"{self.generation}.{self.count}" if self.generation else str(self.count)
        return f"{place}.end" if self.over else place

    @classmethod
    def parse(cls, text: str) -> EventId | None:
        """None for what is no id of ours."""
        found = _ID.fullmatch(text)
        return cls(int(found[2]), found[1] or "", bool(found[3])) if found else None


def is_generation(text: str) -> bool:
    """Whether it can be the id of a generation."""
    return re.fullmatch(_GENERATION, text, re.ASCII) is not None
