"""Text with halves of characters in it: some servers cut an emoji between the two units of its UTF-16 form.

Python holds such a half, but no request can: UTF-8 has no form for it.
"""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"

_HALF = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def join_halves(text: str) -> str:
    """Return `text` with the two halves of a character put together, where they stand side by side."""
    if text.isascii() or not _HALF.search(text):
        return text
    return _PAIR.sub(_joined, text)


def sendable(text: str) -> str:
    """Return `text` as a request can hold it: halves are joined, a lone one is replaced by U+FFFD."""
    return text if text.isascii() else _HALF.sub(REPLACEMENT, join_halves(text))


def is_half(char: str) -> bool:
    """Return whether a character is half of one."""
    return "\ud800" <= char <= "\udfff"


class HalfJoiner:
    """Joins halves that come in different pieces of a stream.

    Attributes:
        rest: The first half of a character, kept back until the second one has come; "" where there is none.
    """

    def __init__(self) -> None:
        self.rest = ""

    def feed(self, text: str) -> str:
        """Take a piece. Returns what of it can be looked at."""
        text, self.rest = self.rest + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self.rest = text[:-1], text[-1]
        return join_halves(text)

    def finish(self) -> str:
        """Return the half that no second one followed."""
        rest, self.rest = self.rest, ""
        return rest


def _joined(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")
