"""An answer that FaultServer keeps, as llama.cpp's server does: generated to its end, whether it is read or not."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .http_connection import Connection


class KeptAnswer:
    """The events of one answer. Nothing generates them: how many there are is a question of time.

    Args:
        events: The whole body, event by event.
        delay: Seconds that each event takes.
    """

    def __init__(self, events: Sequence[bytes], delay: float) -> None:
        self.lost = 0
        """The bytes at its beginning that are kept no more."""
        self.stopped_after: float | None = None
        """Seconds until somebody stopped it; None: nobody did."""
        self.events = list(events)
        """The whole body, event by event."""
        self._delay = delay
        self._began = time.monotonic()

    @property
    def generated(self) -> int:
        """How many events there are by now."""
        seconds = time.monotonic() - self._began if self.stopped_after is None else self.stopped_after
        return min(len(self.events), int(seconds / self._delay)) if self._delay else len(self.events)

    @property
    def is_whole(self) -> bool:
        """Whether it was generated to its end."""
        return self.generated == len(self.events)

    def stop(self) -> None:
        """Generate no more of it."""
        if self.stopped_after is None:
            self.stopped_after = time.monotonic() - self._began

    def replay(self, connection: Connection, start: int) -> None:
        """Send the body from this byte on, also while it is being generated."""
        connection.open_stream()
        sent = 0
        for number, each in enumerate(self.events, 1):
            while self.generated < number:
                if self.stopped_after is not None:
                    break
                connection.pause(self._delay / 4)
            if self.generated < number:
                break
            if part := each[max(0, start - sent) :]:
                connection.write(part)
            sent += len(each)
        connection.end()
