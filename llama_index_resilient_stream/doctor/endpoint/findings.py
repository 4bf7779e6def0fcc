"""What the doctor says: what was seen, and what it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LAZY = 0.3
"""nginx looks at its timers late or early by up to so many seconds, so that T is read that much too low."""


class Level(StrEnum):
    FAULT = "fault"
    """Readers lose something today."""
    RISK = "risk"
    """They will when something breaks, and nobody will be told."""
    HINT = "hint"
    """It may matter; nothing has to be done."""


@dataclass(frozen=True)
class Finding:
    """One thing that was seen. `causes` are keys of `remedies.CAUSES`: one where it is certain, else the best first."""

    rule: str
    level: Level
    seen: str
    causes: tuple[str, ...]
    tell_apart: str = ""
    """What would say which of several causes it is."""
    timeout: float = 0.0
    """T, where a timeout was read."""

    @property
    def certain(self) -> bool:
        return len(self.causes) == 1


def is_serious(finding: Finding) -> bool:
    """Whether there is something to fix."""
    return finding.level is not Level.HINT


def timeout_behind(seconds: float) -> float:
    """The setting behind a measured time: a whole number of seconds, where one is near enough."""
    whole = round(seconds + LAZY / 2)
    return float(whole) if whole and -LAZY / 3 <= whole - seconds <= LAZY * 1.1 else round(seconds, 1)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
