"""From measurements to causes. No I/O: the same survey always gets the same words.

Three questions, in three tables of rules: how did it end (`endings`), how did it come (`arrivals`), and what does the
endpoint do or leave out in any case (`manners`).
"""

from __future__ import annotations

from . import delivery_rules as arrivals
from . import ending_rules as endings
from . import practice_rules as manners
from .findings import Finding, Level
from .measurements import Survey

_ORDER = list(Level)


def diagnose(survey: Survey) -> list[Finding]:
    """What is wrong, the worst first; nothing where nothing is."""
    told = [
        endings.ending(survey),
        endings.hidden_cut(survey),
        endings.unstated_past_the_proxies(survey),
        arrivals.arrival(survey),
        *(rule(survey) for rule in manners.RULES),
    ]
    return sorted(_distinct([finding for finding in told if finding]), key=lambda each: _ORDER.index(each.level))


def _distinct(findings: list[Finding]) -> list[Finding]:
    """Without what another finding says better."""
    rules = {finding.rule for finding in findings}
    causes = {cause for finding in findings if finding.level is Level.FAULT for cause in finding.causes}
    spare = {rule for worse, rule in _SAID_BY.items() if worse in causes or worse in rules}
    return [finding for finding in findings if finding.rule not in spare]


_SAID_BY = {
    # their remedy is the heartbeat
    "idle-timeout": "no-heartbeat",
    "gateway-timeout": "no-heartbeat",
    "http10-hop": "blind-hop",
}
"""A cause or a rule, and the rule that adds nothing to it."""
