"""A sleeper waits until it is woken or its time has come, with one timer for many waits."""

from __future__ import annotations

import asyncio

from llama_index_resilient_stream.streaming.sleeper import Sleeper


async def test_it_is_woken() -> None:
    loop, sleeper = asyncio.get_running_loop(), Sleeper()
    for _ in range(3):
        loop.call_later(0.01, sleeper.wake)
        await asyncio.wait_for(sleeper.wait(loop.time() + 60), 5)
    sleeper.close()


async def test_its_time_comes_however_the_times_before_were() -> None:
    loop, sleeper = asyncio.get_running_loop(), Sleeper()
    for seconds in (0.2, 0.02, 0.1, 0.02):
        loop.call_soon(sleeper.wake)
        await sleeper.wait(loop.time() + 60 * seconds)  # longer or shorter than the next one, and woken before
        until = loop.time() + seconds
        await asyncio.wait_for(sleeper.wait(until), 5)
        assert loop.time() >= until
    sleeper.close()


async def test_one_timer_serves_many_waits() -> None:
    loop, sleeper = asyncio.get_running_loop(), Sleeper()
    before = len(loop._scheduled)  # type: ignore[attr-defined]
    for _ in range(50):
        loop.call_soon(sleeper.wake)
        await sleeper.wait(loop.time() + 60)
    assert len(loop._scheduled) == before + 1  # type: ignore[attr-defined]
    sleeper.close()


async def test_without_a_limit_and_closed_while_nobody_waits() -> None:
    loop, sleeper = asyncio.get_running_loop(), Sleeper()
    sleeper.wake()  # nobody there
    loop.call_soon(sleeper.wake)
    await sleeper.wait(None)
    sleeper.close()
    sleeper.close()
