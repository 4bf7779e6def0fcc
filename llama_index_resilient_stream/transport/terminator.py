"""Watches the bytes of one event stream: did its own terminator come, and which finish reason passed last.

A clean end of the body proves nothing: a proxy that loses its upstream ends the body as cleanly as a server that is
done. What a protocol ends its streams with does:

    data: [DONE]                 OpenAI's chat completions and completions, and whoever speaks like them ("the stream
                                 [is] terminated by a data: [DONE] message", OpenAI API reference); SDKs swallow it
    event: message_stop          Anthropic's messages
    event: response.completed    OpenAI's responses
    "finishReason": "STOP"       Gemini's, which have nothing behind it: of these streams the reason itself is the end
    {"stopReason": "end_turn"}   Bedrock's messageStop, in a binary frame

Lines end with CR LF, LF or CR, and one space after the colon is optional (WHATWG HTML, "Interpreting an event
stream"). What follows `[DONE]` on its line is not looked at, as in the SDKs. Model text cannot feign any of this: it
travels as JSON, where a line end is escaped.

LlamaIndex drops some chunks together with the finish reason on them: one without `delta`, as Azure's content filter
sends it, and in its asynchronous half a first chunk without content. So the finish reason is noted here as well. A
search for a few bytes decides whether an event is worth parsing; of a healthy stream that is one event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from ..recovery.attributes import dig, first_of
from ..recovery.finish_reasons import FinishMeaning, FinishReason, finish_reason_of, meaning_of
from .decompression import Decompressor

_TERMINATOR = re.compile(rb"[\r\n](?:data: ?\[DONE\]|event: ?(?:message_stop|response\.completed)[\r\n])")
_TAIL = 32  # bytes, more than the longest terminator
_LONGEST_LINE = 65536  # bytes; a longer event is not kept, so its finish reason is not noted
_ENDS_WITH_A_TERMINATOR = ("/completions", "/messages")
_ENDS_WITH_A_REASON = (":streamGenerateContent",)  # Gemini's, also as Vertex serves it

# A key of JSON with text behind it. In model text the quote would be escaped. Each begins with the same few letters
# in every spelling (finish_reason, finishReason, stop_reason, reason), which makes the search several times faster.
_REASON = re.compile(rb'eason"\s*:\s*"[^"]')
_REFUSAL = re.compile(rb'efusal(?:\.delta"|"\s*:\s*"[^"])')

_STOP_REASON = re.compile(rb'"stopReason"\s*:\s*"([A-Za-z_]{1,64})"')
_LONGEST_STOP = 96  # bytes, more than the longest match

_REFUSED = FinishReason(FinishMeaning.FILTER, "refusal")
_OUTWEIGHED_BY_A_REFUSAL = (FinishMeaning.COMPLETE, FinishMeaning.UNKNOWN)
_END_WITHOUT_A_REASON = ("message_stop", "response.completed")  # events that LlamaIndex's chunks are told by
_CONTENT = ("content", "reasoning_content", "reasoning", "tool_calls", "function_call")


def promises(path: str) -> bool:
    """Return whether the protocol spoken at this URL path ends every stream with a terminator known here.

    Args:
        path: the path of the request's URL, such as `/v1/chat/completions`.
    """
    return path.endswith(_ENDS_WITH_A_TERMINATOR)


class Watch(Protocol):
    """Watches the body of one stream as it passes: see `watch_of`."""

    @property
    def terminated(self) -> bool | None:
        """Whether the terminator came. False: promised by the protocol, and not sent. None: nobody can say."""

    @property
    def finish_reason(self) -> FinishReason | None:
        """The last finish reason that no content followed."""

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
        self._reason_was_followed = False

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
            self._note_finish_reasons(window[:end])
        elif found := _first(_REASON.search(window, 0, end), _REFUSAL.search(window, 0, end)):
            line = max(window.rfind(b"\n", 0, found), window.rfind(b"\r", 0, found), 0)
            self._note_finish_reasons(window[line:end])
        self._tail = window[end if len(window) - end <= _LONGEST_LINE else -_TAIL :]

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

    def _note(self, event: Mapping[str, Any]) -> None:
        """Look at an event that has a reason, or follows one."""

    def _note_finish_reasons(self, lines: bytes) -> None:
        for line in lines.splitlines():
            event = _event_on(line)
            if event is None:
                continue
            self._note(event)
            if _has_content(event):
                self._reason_was_followed = self._reason_was_followed or self._finish_reason is not None
                self._finish_reason = None  # the reason before it was not the end
            reason = finish_reason_of(event, None)
            if reason is not None and reason.word not in _END_WITHOUT_A_REASON:
                self._finish_reason = reason
            self._refused = self._refused or _is_refusal(event)


class ReasonWatch(TerminatorWatch):
    """Watches a stream whose protocol ends with a finish reason and nothing else, as Gemini's does."""

    last_text = ""
    """What the event with the reason said: LlamaIndex's class raises at a limit, before it passes that on."""

    def _note(self, event: Mapping[str, Any]) -> None:
        self.last_text = _text_of(event)

    def end(self) -> None:
        super().end()
        self._note_finish_reasons(self._tail)  # a last line that nothing ends

    @property
    def terminated(self) -> bool | None:
        """False where the body ended without a reason. A reason that was followed by more before proves nothing."""
        if self._reason_was_followed:
            return None
        return True if self._finish_reason is not None else super().terminated


class FrameWatch:
    """Watches a body of Bedrock's, whose events are JSON in binary frames. Keeps a few bytes of it.

    The reason is the only thing that is looked for. Model text cannot feign it: its quotes are escaped.
    """

    def __init__(self) -> None:
        self._tail = b""
        self._ended = False
        self._finish_reason: FinishReason | None = None

    def feed(self, data: bytes) -> None:
        """Take in the next piece of the body."""
        window = self._tail + data
        if (found := _STOP_REASON.search(window)) is not None:
            self._finish_reason = meaning_of(found[1].decode("ascii", "replace"))
        self._tail = window[-_LONGEST_STOP:]

    def end(self) -> None:
        """Note that the body was read to its end, which the transport takes for a proper one."""
        self._ended = True

    @property
    def terminated(self) -> bool | None:
        """Whether `messageStop` came; None while the body may bring it yet, or broke off."""
        return True if self._finish_reason is not None else (False if self._ended else None)

    @property
    def at_the_end(self) -> bool:
        """False: the token counts follow."""
        return False

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the model stopped."""
        return self._finish_reason


def _text_of(event: Mapping[str, Any]) -> str:
    """The text of a piece of Gemini's, without thoughts."""
    parts = dig(first_of(event.get("candidates")), "content", "parts")
    said = [part for part in parts if isinstance(part, dict) and not part.get("thought")] if parts else []
    return "".join(str(part.get("text") or "") for part in said)


def _first(*matches: re.Match[bytes] | None) -> int:
    """Where the first of these matches begins; 0 where there is none."""
    return min((match.start() for match in matches if match is not None), default=0)


def _event_on(line: bytes) -> dict[str, Any] | None:
    """The JSON object on a `data:` line."""
    if not line.startswith(b"data:"):
        return None
    try:
        event = json.loads(line[5:])
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _has_content(event: Mapping[str, Any]) -> bool:
    """Whether an event carries text, thinking or tool arguments."""
    kind = event.get("type")
    if isinstance(kind, str) and (kind == "content_block_delta" or kind.endswith(".delta")):
        return True
    if any(choice.get("text") or any(map(_delta(choice).get, _CONTENT)) for choice in _choices(event)):
        return True
    return _has_parts(first_of(event.get("candidates")))


def _has_parts(candidate: Any) -> bool:
    """Whether a piece of Gemini's carries anything. Its last one has no parts, or one with an empty text."""
    parts = dig(candidate, "content", "parts")
    return isinstance(parts, list) and any(part and part != {"text": ""} for part in parts)


def _is_refusal(event: Mapping[str, Any]) -> bool:
    """Whether an event carries a piece of a refusal, in OpenAI's chat completions or its responses."""
    return event.get("type") == "response.refusal.delta" or any(
        bool(_delta(choice).get("refusal")) for choice in _choices(event)
    )


def _choices(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = event.get("choices")
    return [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []


def _delta(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    delta = choice.get("delta")
    return delta if isinstance(delta, dict) else {}
