"""Watches the bytes of one stream of Bedrock's, whose events are JSON in binary frames.

`{"stopReason": "end_turn"}` of its `messageStop` is the end; LlamaIndex's class passes on the token counts behind it.
"""

from __future__ import annotations

import re

from ..recovery.finish_reasons import FinishReason, meaning_of

_STOP_REASON = re.compile(rb'"stopReason"\s*:\s*"([A-Za-z_]{1,64})"')
_LONGEST_STOP = 96  # bytes, more than the longest match


class FrameWatch:
    """Watches one body as it passes, in whatever pieces. Keeps a few bytes of it.

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
    def events_before_reason(self) -> None:
        """Nobody counts."""
        return None

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the model stopped."""
        return self._finish_reason
