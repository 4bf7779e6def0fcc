"""`python -m llama_index_resilient_stream demo`: LlamaIndex on a broken server, with and without resilience."""

from __future__ import annotations

import time

from rich.console import Console

from .readers import FAST, LIVE, Lane, build_index, play
from .scenarios import SCENES, Scene
from .terminal import Screen


def run(console: Console, *, fast: bool = False) -> list[tuple[Scene, Lane, Lane]]:
    """Every scene, one after another. Returns what each reader got."""
    tempo = FAST if fast else LIVE
    screen = Screen(console)
    screen.introduce()
    index = build_index()
    results = []
    for number, scene in enumerate(SCENES, 1):
        with play(scene, index, tempo) as (plain, resilient):
            screen.show(f"{number}/{len(SCENES)}  {scene.title}", scene, plain, resilient)
        results.append((scene, plain, resilient))
        time.sleep(tempo.pause)
    screen.sum_up(results, tempo.client_timeout)
    return results
