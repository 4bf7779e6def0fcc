"""The scope of an answer: cancelled from anywhere, once; over, once; and nobody is left waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_resilient_stream.streaming.scope import Scope


def test_cancelling_calls_everybody_once() -> None:
    scope, called = Scope(), []
    scope.on_cancel(lambda: called.append("first"))
    withdraw = scope.on_cancel(lambda: called.append("withdrawn"))
    scope.on_cancel(lambda: called.append("last"))
    withdraw()
    withdraw()
    scope.cancel()
    scope.cancel()
    assert called == ["first", "last"]
    assert scope.cancelled
    assert not scope.over


def test_whoever_comes_late_is_called_at_once() -> None:
    scope, called = Scope(), []
    scope.cancel()
    scope.on_cancel(lambda: called.append("cancel"))
    scope.finish("cancelled")
    scope.on_finish(lambda: called.append("finish"))
    assert called == ["cancel", "finish"]


def test_nobody_is_woken_when_it_is_over() -> None:
    scope, called = Scope(), []
    scope.on_cancel(lambda: called.append("before"))
    scope.finish("complete")
    scope.on_cancel(lambda: called.append("after"))
    scope.cancel()
    assert called == []
    assert not scope.cancelled
    assert scope.outcome == "complete"


def test_what_ended_first_is_the_outcome() -> None:
    scope = Scope()
    scope.finish("complete")
    scope.finish("cancelled")
    assert scope.outcome == "complete"


def test_a_callback_that_fails_keeps_nobody_from_being_woken(caplog: pytest.LogCaptureFixture) -> None:
    scope, called = Scope(), []
    scope.on_cancel(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    scope.on_cancel(lambda: called.append("woken"))
    scope.cancel()
    assert called == ["woken"]
    assert "ZeroDivisionError" in caplog.text


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(0, 20))
def test_cancelling_a_scope_cancels_all_below_it_and_nothing_above(parents: list[int], which: int) -> None:
    scopes = [Scope()]
    for number, parent in enumerate(parents):
        scopes.append(Scope(scopes[parent % (number + 1)]))
    which %= len(scopes)
    scopes[which].cancel()
    below = {which}
    for number, parent in enumerate(parents):
        if parent % (number + 1) in below:
            below.add(number + 1)
    assert {number for number, scope in enumerate(scopes) if scope.cancelled} == below


def test_a_child_of_what_was_cancelled_is_cancelled() -> None:
    parent, other = Scope(), Scope()
    parent.cancel()
    parent.adopt(other)
    assert Scope(parent).cancelled
    assert other.cancelled


def test_a_child_that_is_over_is_forgotten() -> None:
    parent = Scope()
    for _ in range(100):
        Scope(parent).finish("complete")
    assert not parent._on_cancel


@pytest.mark.parametrize(
    ("deadline", "seconds", "left"),
    [(None, None, None), (None, 3.0, 3.0), (12.0, None, 2.0), (12.0, 1.0, 1.0), (12.0, 3.0, 2.0), (9.0, 3.0, -1.0)],
)
def test_the_time_that_is_left(deadline: float | None, seconds: float | None, left: float | None) -> None:
    assert Scope(deadline=deadline, clock=lambda: 10.0).time_left(seconds) == left


def test_sleep_ends_when_another_thread_cancels() -> None:
    scope = Scope()
    threading.Timer(0.02, scope.cancel).start()
    began = time.monotonic()
    scope.sleep(60)
    scope.sleep(60)  # cancelled it stays
    assert time.monotonic() - began < 30
    assert not scope._on_cancel


async def test_a_task_waits_until_it_is_over() -> None:
    scope = Scope()
    threading.Timer(0.02, scope.finish, ["complete"]).start()
    await asyncio.wait_for(scope.finished(), 30)
    await asyncio.wait_for(scope.finished(), 30)
    assert not scope._on_finish


def test_threads_that_cancel_and_finish_at_once_call_everybody_once() -> None:
    for _ in range(50):
        scope, called, start = Scope(), [], threading.Barrier(6)
        scope.on_cancel(lambda called=called: called.append("cancel"))  # type: ignore[misc]
        scope.on_finish(lambda called=called: called.append("finish"))  # type: ignore[misc]

        def run(function: Callable[[], object], start: threading.Barrier = start) -> None:
            start.wait()
            function()

        functions: list[Callable[[], object]] = [scope.cancel] * 3 + [lambda scope=scope: scope.finish("over")] * 3  # type: ignore[misc]
        threads = [threading.Thread(target=run, args=(function,)) for function in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert called.count("finish") == 1
        assert called.count("cancel") == scope.cancelled
