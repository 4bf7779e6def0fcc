"""Short requests beside a stream: to stop one that its server keeps, and to learn which server it is.

None of them raises or lasts longer than its time. Each runs in a thread or a task of its own: the garbage collector may
drop a stream while this thread uses the very connections that are needed, and a task may be cancelled again and again.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from ..transport.kept_stream import KeptStream
from ..transport.model_owner import SECONDS, OwnerInquiry
from .scope import Scope
from .threads import GRACE, aside, start_thread
from .watchdog import InterruptibleWait

T = TypeVar("T")

_STOP = 1.0  # seconds that a server gets to be told that nobody wants the rest

logger = logging.getLogger("llama_index_resilient_stream")

_running: set[asyncio.Task[Any]] = set()  # loops hold tasks weakly


# ---------------------------------------------------------------- synchronous


def stop_kept(kept: KeptStream | None) -> None:
    """Tell the server to stop generating, where it still does."""
    if kept is not None and kept.runs_on:
        _in_thread(kept.stop, _STOP)


def owner_of_models(inquiry: OwnerInquiry | None, scope: Scope) -> str | None:
    """Return whose models the server has; None where it does not say, or not in time."""
    if inquiry is None:
        return None
    return _in_thread(inquiry.owner, scope.time_left(SECONDS), scope)


def _in_thread(function: Callable[[], T], seconds: float | None, scope: Scope | None = None) -> T | None:
    """Call a function, and wait for what it returns. None when it failed, is late, or the scope was cancelled."""
    answers: queue.SimpleQueue[T | None] = queue.SimpleQueue()
    # In no context: what it sends is not sent on behalf of an attempt.
    ask = partial(_put, answers, function)
    thread = start_thread("resilient-stream-aside", ask, context=contextvars.Context())
    withdraw = None if scope is None else scope.on_cancel(lambda: answers.put(None))
    try:
        answer = answers.get(timeout=None if seconds is None else max(0.0, seconds))
        thread.join(GRACE)
        return answer
    except queue.Empty:
        return None
    finally:
        if withdraw is not None:
            withdraw()


def _put(answers: queue.SimpleQueue[T | None], function: Callable[[], T]) -> None:
    answers.put(_quietly(function))


def _quietly(function: Callable[[], T]) -> T | None:
    try:
        return function()
    except Exception as error:
        logger.debug("a request beside the stream failed: %s", type(error).__name__)
        return None


# ---------------------------------------------------------------- asynchronous


async def astop_kept(kept: KeptStream | None) -> None:
    """Tell the server to stop generating, where it still does."""
    if kept is None or not kept.runs_on:
        return
    stop = kept.astop if kept.is_asynchronous else lambda: aside(lambda: _quietly(kept.stop))
    await _in_task(stop, _STOP)


async def aowner_of_models(inquiry: OwnerInquiry | None, scope: Scope, wait: InterruptibleWait) -> str | None:
    """Return whose models the server has; None where it does not say, or not in time."""
    if inquiry is None:
        return None
    ask = inquiry.aowner if inquiry.is_asynchronous else lambda: aside(lambda: _quietly(inquiry.owner))
    wait.begin(None)
    try:
        return await _in_task(ask, scope.time_left(SECONDS))
    except asyncio.CancelledError:
        if not wait.absorb():
            raise
        return None
    finally:
        wait.end()


async def _in_task(function: Callable[[], Awaitable[T]], seconds: float | None) -> T | None:
    """Call a coroutine function, and wait for what it returns. None when it failed or is late."""
    task = asyncio.get_running_loop().create_task(_aquietly(function), context=contextvars.Context())
    _running.add(task)
    task.add_done_callback(_running.discard)
    done, _ = await asyncio.wait([task], timeout=None if seconds is None else max(0.0, seconds))
    return task.result() if done else None


async def _aquietly(function: Callable[[], Awaitable[T]]) -> T | None:
    try:
        return await function()
    except Exception as error:
        logger.debug("a request beside the stream failed: %s", type(error).__name__)
        return None
