"""From measurements to causes. No I/O: the same measurements always give the same findings.

Three tables of rules answer three questions: how did the answer end (`ending_rules`), how was it delivered
(`delivery_rules`), and what does the endpoint do or leave out in any case (`practice_rules`).
"""

from __future__ import annotations

from . import delivery_rules, ending_rules, made_up_rules, practice_rules
from .findings import Finding, Level
from .measurements import Measurements

_ORDER = list(Level)


def diagnose(measurements: Measurements) -> list[Finding]:
    """Return what is wrong, the worst first."""
    found = [
        made_up_rules.false_end(measurements),
        ending_rules.ending(measurements),
        ending_rules.hidden_cut(measurements),
        ending_rules.unstated_past_the_proxies(measurements),
        delivery_rules.delivery(measurements),
        *(rule(measurements) for rule in practice_rules.RULES),
    ]
    return sorted(_distinct([finding for finding in found if finding]), key=lambda each: _ORDER.index(each.level))


def _distinct(findings: list[Finding]) -> list[Finding]:
    """Leave out what another finding says better."""
    named = {finding.rule for finding in findings}
    for finding in findings:
        named.update(finding.causes if finding.level is Level.FAULT else ())
    spare = {rule for worse in named for rule in _COVERED_BY.get(worse, ())}
    return [finding for finding in findings if finding.rule not in spare]


_ALL_OF_A_PAGE = ("not_sse", "one_block", "one_block_with_length", "http10_without_chunks", "no_accel_header")
_COVERED_BY = {
    # their remedy is the heartbeat
    "idle_timeout": ("no_heartbeat",),
    "gateway_timeout": ("no_heartbeat",),
    "http10_hop": ("http10_without_chunks",),
    "web_page": (*_ALL_OF_A_PAGE, "too_quick_to_tell", "from_a_cache"),
    # what cannot be read as events says nothing of them
    "no_blank_line": ("http10_without_chunks", "no_ids", "no_heartbeat"),
    "lines_outside": ("http10_without_chunks", "no_ids", "no_heartbeat"),
    "from_a_cache": ("restarts_on_reconnect",),
    "false_end": ("hidden_cut", "end_without_reason"),
}
"""A cause or a rule, and the rules that say nothing more."""
