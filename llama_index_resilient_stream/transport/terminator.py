"""Whether a stream's own terminator passed by on the wire.

A clean end of the body proves nothing: a proxy that loses its upstream ends the body as cleanly as a server that is
done. What a protocol ends its streams with does:

    data: [DONE]                 OpenAI's chat completions and completions, and whoever speaks like them ("the stream
                                 [is] terminated by a data: [DONE] message", OpenAI API reference); SDKs swallow it
    event: message_stop          Anthropic's messages
    event: response.completed    OpenAI's responses

Lines end with CR LF, LF or CR, and one space after the colon is optional (WHATWG HTML, "Interpreting an event
stream"). What follows `[DONE]` on its line is not looked at, as in the SDKs. Model text cannot feign any of this: it
travels as JSON, where a line end is escaped.
"""

from __future__ import annotations

import re

from .decompression import Decompressor

_TERMINATOR = re.compile(rb"[\r\n](?:data: ?\[DONE\]|event: ?(?:message_stop|response\.completed)[\r\n])")
_TAIL = 32  # bytes, more than the longest terminator
_ENDS_WITH_A_TERMINATOR = ("/completions", "/messages")


def promises(path: str) -> bool:
    """Whether the protocol spoken at this URL path ends every stream with a terminator known here."""
    return path.endswith(_ENDS_WITH_A_TERMINATOR)


class TerminatorWatch:
    """Looks at one body as it passes, in whatever pieces, and keeps nothing of it.

    `encoding` is the body's Content-Encoding. gzip and deflate are read, what is coded otherwise is not: then only the
    end of the transport is seen, and nothing is claimed.
    """

    def __init__(self, *, promised: bool, encoding: str = "") -> None:
        self._promised = promised
        self._decompress = Decompressor(encoding)
        self._tail = b"\n"  # the first line begins as if one had ended
        self._seen = self._ended = False

    def feed(self, data: bytes) -> None:
        """The next piece of the body."""
        if self._seen or not self._decompress.readable:
            return
        window = self._tail + self._decompress(data)
        self._seen = _TERMINATOR.search(window) is not None
        self._tail = window[-_TAIL:]

    def end(self) -> None:
        """The body was read to its end, which the transport takes for a proper one."""
        self._ended = True

    @property
    def terminated(self) -> bool | None:
        """True: seen. False: promised by the protocol, and not sent. None: nobody can say."""
        if self._seen:
            return True
        return False if self._ended and self._promised and self._decompress.readable else None
