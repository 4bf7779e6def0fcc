"""The writer of a chat response, and how to read what it writes without waiting for it for ever.

It is a thread or a task that reads the LLM, fills a queue and writes the memory. From core 0.11.11 to 0.14.16 context
engines have none, and whoever reads the response does the writing. The asynchronous twin stands beside each function.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial

from llama_index.core.chat_engine.types import StreamingAgentChatResponse

from ..errors import StreamInterruptedError
from ..llm.call_log import CallLog
from ..streaming.scope import call_on

_NAP = 1.0  # seconds between two looks at whether a writer that says nothing is still there
_SHORT_NAP = 0.002  # the same when its LLM has said all, and only the memory is to be written
_SEEKING_NAP = 0.05  # the same while its LLM's stream is looked for: core 0.14.22 and .23 read it all before they tell
_STOP = 2.0  # seconds that a writer gets to write down what it has when its LLM was stopped


def has_writer(response: StreamingAgentChatResponse) -> bool:
    """Whether a thread or a task reads the LLM for it. Before core 0.11.11 always, and no attribute says so."""
    return bool(getattr(response, "is_writing_to_memory", True))


def read_writer(response: StreamingAgentChatResponse, calls: CallLog) -> Generator[str, None, None]:
    """Read what a synchronous chat response's writer writes, token by token.

    Raises:
        StreamInterruptedError: the writer died without a word.
    """
    if not has_writer(response):
        for chunk in response.chat_stream or ():
            calls.look()
            yield chunk.delta or ""
        return
    calls.at_end(lambda: response.queue.put(""))
    while True:
        calls.look()
        try:
            if token := response.queue.get(timeout=_nap(calls)):
                yield token
        except queue.Empty:
            if _is_over(response, calls, response.queue.empty):
                return


async def aread_writer(response: StreamingAgentChatResponse, calls: CallLog) -> AsyncGenerator[str, None]:
    """Read what an asynchronous chat response's writer writes; raises what `read_writer` does."""
    if not has_writer(response):
        if response.achat_stream is not None:
            async for chunk in response.achat_stream:
                calls.look()
                yield chunk.delta or ""
        return
    response._ensure_async_setup()
    tokens: asyncio.Queue[str | None] = response.aqueue  # type: ignore[assignment]  # made in the line before
    loop = asyncio.get_running_loop()
    calls.at_end(lambda: call_on(loop, partial(tokens.put_nowait, "")))
    while True:
        calls.look()
        try:
            if token := await _next_of(tokens, _nap(calls)):
                yield token
        except TimeoutError:
            if _is_over(response, calls, tokens.empty):
                return


def _is_over(response: StreamingAgentChatResponse, calls: CallLog, is_empty: Callable[[], bool]) -> bool:
    """Whether nothing comes any more, now that nothing has come for a while; raises what the writer failed of."""
    if response.exception is not None:
        raise response.exception from None
    if response.is_done and is_empty():
        return True
    if _writer_lives(response, calls) or not is_empty() or not _is_dead(response):
        return False
    if calls.scope.cancelled:
        return True
    raise StreamInterruptedError(
        "What wrote this answer was cancelled, or died, in the middle of it.",
        partial_text=calls.text,
        report=calls.report,
        reason="cancelled",
    ) from None


async def _next_of(tokens: asyncio.Queue[str | None], seconds: float) -> str | None:
    if not tokens.empty():
        return tokens.get_nowait()
    # Not `wait_for`: on Python 3.11 it swallows a cancellation that comes together with a token.
    async with asyncio.timeout(seconds):
        return await tokens.get()


def _nap(calls: CallLog) -> float:
    if calls.seeking:
        return _SEEKING_NAP
    return _SHORT_NAP if calls.finished else _NAP


def _writer_lives(response: StreamingAgentChatResponse, calls: CallLog) -> bool:
    """Whether the writer is still there. One that was cancelled, or died of a BaseException, says nothing of it."""
    thread = getattr(response, "write_response_to_history_thread", None)
    if thread is not None:
        return bool(thread.is_alive())
    task = getattr(response, "awrite_response_to_history_task", None)
    if task is not None:
        return not task.done()
    since = response.__dict__.setdefault("_silent_since", None)
    if not calls.finished:  # the LLM still speaks, or was not asked yet
        response.__dict__["_silent_since"] = None
        return True
    if since is None:
        response.__dict__["_silent_since"] = time.monotonic()
        return True
    return bool(time.monotonic() - since < _STOP)


def _is_dead(response: StreamingAgentChatResponse) -> bool:
    """Whether a writer that lives no more left without a word."""
    return not response.is_done and response.exception is None


def let_writer_finish(response: StreamingAgentChatResponse, calls: CallLog) -> None:
    """Give a writer whose LLM was stopped the time to write down what there is."""
    if not has_writer(response):
        with contextlib.suppress(Exception):
            for _ in response.chat_stream or ():
                pass
        return
    until = time.monotonic() + _STOP
    while not response.is_done and response.exception is None and time.monotonic() < until:
        thread = getattr(response, "write_response_to_history_thread", None)
        if thread is not None and not thread.is_alive():
            return
        calls.search()  # what is found is stopped
        time.sleep(0.002)


async def alet_writer_finish(response: StreamingAgentChatResponse, calls: CallLog) -> None:
    """Give an asynchronous writer whose LLM was stopped the time to write down what there is."""
    if not has_writer(response):
        with contextlib.suppress(Exception):
            if response.achat_stream is not None:
                async for _ in response.achat_stream:
                    pass
        return
    until = time.monotonic() + _STOP
    while not response.is_done and response.exception is None and time.monotonic() < until:
        task = getattr(response, "awrite_response_to_history_task", None)
        if task is not None and task.done():
            return
        calls.search()  # what is found is stopped
        await asyncio.sleep(0.002)
