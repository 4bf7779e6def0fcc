"""Chooses what watches the body of a response, by the protocol that it shows."""

from __future__ import annotations

from typing import Protocol

from ..recovery.finish_reasons import FinishReason
from .frames import FrameWatch
from .terminator import ReasonWatch, TerminatorWatch, promises

_ENDS_WITH_A_REASON = (":streamGenerateContent",)  # Gemini's, also as Vertex serves it


class Watch(Protocol):
    """Watches the body of one stream as it passes: see `watch_of`."""

    @property
    def terminated(self) -> bool | None:
        """Whether the terminator came. False: promised by the protocol, and not sent. None: nobody can say."""

    @property
    def finish_reason(self) -> FinishReason | None:
        """The last finish reason that no content followed."""

    @property
    def events_before_reason(self) -> int | None:
        """Events before the one with the finish reason. None: that one has more on it, or nobody counted."""

    @property
    def at_the_end(self) -> bool:
        """Whether nothing but the end of the body can follow."""

    def feed(self, data: bytes) -> None:
        """Take in the next piece of the body."""

    def end(self) -> None:
        """Note that the body was read to its end, which the transport takes for a proper one."""


def watch_of(path: str, content_type: str, encoding: str = "") -> Watch | None:
    """Return the watch over a response's body; None where it is no stream of events.

    Args:
        path: the path of the request's URL.
        content_type: the response's Content-Type.
        encoding: the Content-Encoding that the body still has when it is fed.

    Example:
        watch_of("/v1/chat/completions", "text/event-stream; charset=utf-8")
    """
    content_type = content_type.lower()
    if content_type.startswith("application/vnd.amazon.eventstream"):
        return FrameWatch()
    if not content_type.startswith("text/event-stream"):
        return None
    if path.endswith(_ENDS_WITH_A_REASON):
        return ReasonWatch(promised=True, encoding=encoding)
    return TerminatorWatch(promised=promises(path), encoding=encoding)
