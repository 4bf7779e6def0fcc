"""The marks that a wording puts around the anchor: models copy them along, and no reader is to see them."""

from __future__ import annotations

import re

GENERIC = ("<<<", ">>>")
_MARK_BEFORE = re.compile(r"[^\w\s]+$")
_MARK_BEHIND = re.compile(r"[^\w\s]+")


def marks_around_anchor(wording: str) -> tuple[str, str]:
    """Return the marks before and behind `{anchor}` in a wording; ("", "") where it has none.

    Example:
        >>> marks_around_anchor("Go on from [[{anchor}]], please.")
        ('[[', ']]')
    """
    before, found, behind = wording.partition("{anchor}")
    opening = _MARK_BEFORE.search(before) if found else None
    if opening is None:  # what stands behind alone is punctuation
        return "", ""
    closing = _MARK_BEHIND.match(behind)
    return opening[0], closing[0][: len(opening[0])] if closing else ""


class ClosingMarkFilter:
    """Takes away the mark that closes an anchor: just behind it, or at the very end of what it was put around.

    Args:
        closing: The mark.
        opened: Whether the opening mark came. Then the closing one may come at the very end.
        expected: Whether the wording had it. A mark that is neither expected nor opened must be followed by white
            space or nothing: nobody writes on exactly like that.
    """

    def __init__(self, closing: str, *, opened: bool, expected: bool) -> None:
        self._closing = closing
        self._expected = opened or expected
        self._opened = opened
        self._held = ""
        self._begins = True
        self.dropped = 0

    @property
    def done(self) -> bool:
        """Whether all that comes is passed on from here on."""
        return not self._begins and not self._opened

    def feed(self, text: str) -> str:
        """Take a piece of what follows the anchor. Returns what can be shown now."""
        self._held += text
        if self._begins:
            if len(self._held) <= len(self._closing) and self._closing.startswith(self._held):
                return ""
            self._begins = False
            behind = self._held[len(self._closing) :]
            if self._held.startswith(self._closing) and (self._expected or behind[0].isspace()):
                self._drop(behind)
        kept = self._length_of_end() if self._opened else 0
        held, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return held

    def finish(self) -> str:
        """The continuation has ended properly. Returns what was held back and is no mark."""
        if self._held.rstrip() == self._closing:
            self._drop("")
        held, self._held = self._held, ""
        self._begins = self._opened = False
        return held

    def withheld(self) -> str:
        """The continuation was cut. Returns what was held back."""
        held, self._held = self._held, ""
        return held

    def _drop(self, rest: str) -> None:
        self.dropped += len(self._held) - len(rest)
        self._held = rest
        self._opened = False

    def _length_of_end(self) -> int:
        """How many characters at the end may be the mark, or the white space behind it."""
        bare = self._held.rstrip()
        if bare.endswith(self._closing):
            return len(self._held) - len(bare) + len(self._closing)
        fitting = (n for n in range(len(self._closing) - 1, 0, -1) if self._held.endswith(self._closing[:n]))
        return next(fitting, 0)
