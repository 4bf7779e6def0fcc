"""`python -m llama_index_resilient_stream demo`: LlamaIndex on a broken server, with and without resilience."""

from __future__ import annotations

import time

from rich.console import Console

from .readers import FAST, LIVE, DemoReader, build_index, play
from .scenarios import SCENARIOS, Scenario
from .terminal import Screen


def run(console: Console, *, fast: bool = False) -> list[tuple[Scenario, DemoReader, DemoReader]]:
    """Every scenario, one after another. Returns what each reader got."""
    timing = FAST if fast else LIVE
    screen = Screen(console)
    screen.introduce()
    index = build_index()
    results = []
    for number, scenario in enumerate(SCENARIOS, 1):
        with play(scenario, index, timing) as (plain, resilient):
            screen.show(f"{number}/{len(SCENARIOS)}  {scenario.title}", scenario, plain, resilient)
        results.append((scenario, plain, resilient))
        time.sleep(timing.pause)
    screen.sum_up(results, timing.client_timeout)
    return results
