"""What the doctor reports: what was seen, and the causes of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NGINX_TIMER_SLACK = 0.3
"""Seconds. nginx looks at its timers up to this much too early or too late, so that a timeout is read too low."""


class Level(StrEnum):
    """How bad a finding is."""

    FAULT = "fault"
    """Readers lose something today."""
    RISK = "risk"
    """Readers will lose something when something breaks, and nothing will say so."""
    HINT = "hint"
    """It may matter. Nothing has to be done."""


@dataclass(frozen=True)
class Finding:
    """One thing that was seen. `causes` are keys of `remedies.CAUSES`: one where it is certain, else the best first."""

    rule: str
    level: Level
    seen: str
    causes: tuple[str, ...]
    distinguish_by: str = ""
    """How to find out which of several causes it is."""
    timeout: float = 0.0
    """Seconds of the timeout that was read from the measurements; 0 where none was."""

    @property
    def certain(self) -> bool:
        return len(self.causes) == 1


def is_serious(finding: Finding) -> bool:
    """Whether there is something to fix."""
    return finding.level is not Level.HINT


def timeout_behind(seconds: float) -> float:
    """Return the setting behind a measured time: a whole number of seconds, where one is near enough."""
    whole = round(seconds + NGINX_TIMER_SLACK / 2)
    return (
        float(whole)
        if whole and -NGINX_TIMER_SLACK / 3 <= whole - seconds <= NGINX_TIMER_SLACK * 1.1
        else round(seconds, 1)
    )


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
