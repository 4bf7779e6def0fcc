"""Watches the bytes of one event stream: did its own terminator come, and which finish reason passed last.

A clean end of the body proves nothing: a proxy that loses its upstream ends the body as cleanly as a server that is
done. What a protocol ends its streams with does:

    data: [DONE]                 OpenAI's chat completions and completions, and whoever speaks like them ("the stream
                                 [is] terminated by a data: [DONE] message", OpenAI API reference); SDKs swallow it
    event: message_stop          Anthropic's messages
    event: response.completed    OpenAI's responses
    "finishReason": "STOP"       Gemini's, which have nothing behind it: of these streams the reason itself is the end

Lines end with CR LF, LF or CR, and one space after the colon is optional (WHATWG HTML, "Interpreting an event
stream"). What follows `[DONE]` on its line is not looked at, as in the SDKs. Model text cannot feign any of this: it
travels as JSON, where a line end is escaped.

LlamaIndex drops some chunks together with the finish reason on them: one without `delta`, as Azure's content filter
sends it, and in its asynchronous half a first chunk without content. So the finish reason is noted here as well. A
search for a few bytes decides whether an event is worth parsing; of a healthy stream that is one event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..recovery.finish_reasons import FinishMeaning, FinishReason, finish_reason_of
from .decompression import Decompressor
from .wire_events import event_on, has_content, has_nothing_else, is_refusal, text_of

_TERMINATOR = re.compile(rb"[\r\n](?:data: ?\[DONE\]|event: ?(?:message_stop|response\.completed)[\r\n])")
_TAIL = 32  # bytes, more than the longest terminator
_LONGEST_LINE = 65536  # bytes; a longer event is not kept, so its finish reason is not noted
_ENDS_WITH_A_TERMINATOR = ("/completions", "/messages")

# A key of JSON with text behind it. In model text the quote would be escaped. Each begins with the same few letters
# in every spelling (finish_reason, finishReason, stop_reason, reason), which makes the search several times faster.
_REASON = re.compile(rb'eason"\s*:\s*"[^"]')
_REFUSAL = re.compile(rb'efusal(?:\.delta"|"\s*:\s*"[^"])')

_REFUSED = FinishReason(FinishMeaning.FILTER, "refusal")
_OUTWEIGHED_BY_A_REFUSAL = (FinishMeaning.COMPLETE, FinishMeaning.UNKNOWN)
_END_WITHOUT_A_REASON = ("message_stop", "response.completed")  # events that LlamaIndex's chunks are told by


def promises(path: str) -> bool:
    """Return whether the protocol spoken at this URL path ends every stream with a terminator known here.

    Args:
        path: the path of the request's URL, such as `/v1/chat/completions`.
    """
    return path.endswith(_ENDS_WITH_A_TERMINATOR)


class TerminatorWatch:
    """Watches one body as it passes, in whatever pieces. Keeps no more of it than one unfinished line.

    Args:
        promised: whether the protocol ends every stream with a terminator, see `promises`.
        encoding: the body's Content-Encoding. gzip and deflate are read. Of a body coded otherwise only the end of
            the transport is seen, and nothing is claimed.

    Example:
        watch = TerminatorWatch(promised=True)
        for piece in body:
            watch.feed(piece)
        watch.end()
        watch.terminated, watch.finish_reason
    """

    def __init__(self, *, promised: bool, encoding: str = "") -> None:
        self._promised = promised
        self._decompress = Decompressor(encoding)
        self._tail = b"\n"  # the first line begins as if one had ended
        self._seen = self._ended = False
        self._finish_reason: FinishReason | None = None
        self._refused = False
        self._events = 0
        self._counts = True
        self._events_before_reason: int | None = None

    def feed(self, data: bytes) -> None:
        """Take in the next piece of the body."""
        if not self._seen and self._decompress.readable:
            self._look_at(self._tail + self._decompress(data))

    def _look_at(self, window: bytes) -> None:
        end = max(window.rfind(b"\n"), window.rfind(b"\r"), 0)
        if b"[DONE]" in window or b"event:" in window:  # several times faster than the pattern
            terminator = _TERMINATOR.search(window)
            self._seen = terminator is not None
            end = end if terminator is None else terminator.start()
        if self._finish_reason is not None:
            self._note_finish_reasons(window[:end], self._events)
        elif found := _first(_REASON.search(window, 0, end), _REFUSAL.search(window, 0, end)):
            line = max(window.rfind(b"\n", 0, found), window.rfind(b"\r", 0, found), 0)
            self._note_finish_reasons(window[line:end], self._events + _events_in(window[:line]))
        self._events += _events_in(window[:end])
        is_kept = len(window) - end <= _LONGEST_LINE
        self._counts = self._counts and is_kept
        self._tail = window[end if is_kept else -_TAIL :]

    def end(self) -> None:
        """Note that the body was read to its end, which the transport takes for a proper one."""
        self._ended = True

    @property
    def terminated(self) -> bool | None:
        """Whether the terminator came. False: promised by the protocol, and not sent. None: nobody can say."""
        if self._seen:
            return True
        return False if self._ended and self._promised and self._decompress.readable else None

    @property
    def at_the_end(self) -> bool:
        """Whether nothing but the end of the body can follow."""
        return self._seen

    @property
    def finish_reason(self) -> FinishReason | None:
        """The last finish reason that no content followed, or the refusal that the content was; None without either."""
        reason = self._finish_reason
        if self._refused and (reason is None or reason.kind in _OUTWEIGHED_BY_A_REFUSAL):
            return _REFUSED
        return reason

    @property
    def events_before_reason(self) -> int | None:
        """Events before the one with the finish reason. None: that one has more on it, or nobody counted."""
        return self._events_before_reason if self._counts and self._finish_reason is not None else None

    def _note_finish_reasons(self, lines: bytes, before: int) -> None:
        """Look at these lines; `before` is how many events stand in front of them."""
        for line in lines.splitlines():
            before += line.startswith(b"data:")
            if (event := event_on(line)) is not None:
                self._note_event(event, before - 1)

    def _note_event(self, event: Mapping[str, Any], before: int) -> None:
        if has_content(event):
            self._finish_reason = None  # the reason before it was not the end
        reason = finish_reason_of(event, None)
        if reason is not None and reason.word not in _END_WITHOUT_A_REASON:
            self._finish_reason = reason
            self._events_before_reason = before if has_nothing_else(event) else None
        self._refused = self._refused or is_refusal(event)


class ReasonWatch(TerminatorWatch):
    """Watches a stream whose protocol ends with a finish reason and nothing else, as Gemini's does."""

    last_text = ""
    """What the event with the reason said: LlamaIndex's class raises at a limit, before it passes that on."""
    _was_followed = False

    def end(self) -> None:
        super().end()
        self._note_finish_reasons(self._tail, self._events)  # a last line that nothing ends

    @property
    def terminated(self) -> bool | None:
        """False where the body ended without a reason. A reason that was followed by more before proves nothing."""
        if self._was_followed:
            return None
        return True if self._finish_reason is not None else super().terminated

    def _note_event(self, event: Mapping[str, Any], before: int) -> None:
        self.last_text = text_of(event)
        self._was_followed = self._was_followed or (self._finish_reason is not None and has_content(event))
        super()._note_event(event, before)


def _first(*matches: re.Match[bytes] | None) -> int:
    """Where the first of these matches begins; 0 where there is none."""
    return min((match.start() for match in matches if match is not None), default=0)


def _events_in(lines: bytes) -> int:
    """How many `data:` lines there are, each behind a line end."""
    return lines.count(b"\ndata:") + lines.count(b"\rdata:")
