"""From measurements to causes. No I/O: the same measurements always give the same findings.

Three tables of rules answer three questions: how did the answer end (`ending_rules`), how was it delivered
(`delivery_rules`), and what does the endpoint do or leave out in any case (`practice_rules`).
"""

from __future__ import annotations

from . import delivery_rules, ending_rules, practice_rules
from .findings import Finding, Level
from .measurements import Measurements

_ORDER = list(Level)


def diagnose(measurements: Measurements) -> list[Finding]:
    """Return what is wrong, the worst first."""
    found = [
        ending_rules.ending(measurements),
        ending_rules.hidden_cut(measurements),
        ending_rules.unstated_past_the_proxies(measurements),
        delivery_rules.delivery(measurements),
        *(rule(measurements) for rule in practice_rules.RULES),
    ]
    return sorted(_distinct([finding for finding in found if finding]), key=lambda each: _ORDER.index(each.level))


def _distinct(findings: list[Finding]) -> list[Finding]:
    """Leave out what another finding says better."""
    rules = {finding.rule for finding in findings}
    causes = {cause for finding in findings if finding.level is Level.FAULT for cause in finding.causes}
    spare = {rule for worse, rule in _COVERED_BY.items() if worse in causes or worse in rules}
    return [finding for finding in findings if finding.rule not in spare]


_COVERED_BY = {
    # their remedy is the heartbeat
    "idle_timeout": "no_heartbeat",
    "gateway_timeout": "no_heartbeat",
    "http10_hop": "http10_without_chunks",
}
"""A cause or a rule, and the rule that says nothing more."""
