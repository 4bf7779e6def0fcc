"""P5: leaving is no fault, and nothing is left behind: no thread, no task, no socket, no reference."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from llama_index.llms.openai_like import OpenAILike
from tenacity import stop_never, wait_fixed

from llama_index_resilient_stream import ResilientLLM, StreamStatus
from llama_index_resilient_stream.testing import FAULTS, Cut, Fail, FaultServer, ScriptedLLM, Stall
from support.readers import QUICK, TEXT, openai_like, question
from support.sdk_clients import needs_observed_sdk_clients

Serve = Callable[..., FaultServer]
SLOW = replace(QUICK, wait=wait_fixed(60))


def eventually(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.005)
    return condition()


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("resilient-stream")]


def sockets() -> int:
    names = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    return sum(os.readlink(name).startswith("socket:") for name in names if os.path.lexists(name))


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert eventually(lambda: not readers())


# Between two tokens


def test_closing_a_sync_stream_closes_the_connection_at_once(serve: Serve) -> None:
    server = serve(TEXT, delay=0.01)
    inner = openai_like(server)
    stream: Any = ResilientLLM(inner).stream_chat(question())
    for _ in range(3):
        next(stream)
    stream.close()
    assert eventually(lambda: server.requests[0].client_left, 0.5)
    assert stream.report.status is StreamStatus.CANCELLED
    assert len(server.requests) == 1
    inner._client.close()


async def test_closing_an_async_stream_closes_the_connection_at_once(serve: Serve) -> None:
    server = serve(TEXT, delay=0.01)
    inner = openai_like(server)
    stream: Any = await ResilientLLM(inner).astream_chat(question())
    for _ in range(3):
        await anext(stream)
    await stream.aclose()
    assert await asyncio.to_thread(eventually, lambda: server.requests[0].client_left, 0.5)
    assert stream.report.status is StreamStatus.CANCELLED
    assert len(server.requests) == 1
    await inner._aclient.close()


def test_dropping_the_last_reference_closes_the_connection(serve: Serve) -> None:
    server = serve(TEXT, delay=0.01)
    inner = openai_like(server)
    stream: Any = ResilientLLM(inner).stream_chat(question())
    next(stream)
    gone = weakref.ref(stream)
    gc.disable()  # by reference count alone: a collection may be minutes away
    try:
        del stream
        assert gone() is None
        assert eventually(lambda: server.requests[0].client_left, 0.5)
    finally:
        gc.enable()
    inner._client.close()


def test_the_consumer_s_own_bug_is_not_retried() -> None:
    llm = ScriptedLLM(TEXT)
    stream: Any = ResilientLLM(llm, policy=QUICK).stream_chat(question())
    next(stream)
    with pytest.raises(ZeroDivisionError):
        stream.throw(ZeroDivisionError("mine"))
    assert len(llm.calls) == 1
    assert llm.open_streams == 0
    assert stream.report.status is StreamStatus.CANCELLED


# During a wait


@pytest.mark.parametrize("fault", ["stall", "comments", "stall_first", "stall_headers"])
@pytest.mark.parametrize(
    "client",
    [
        pytest.param(None, id="sdk-client", marks=needs_observed_sdk_clients),
        pytest.param(httpx.Client, id="user-client"),
    ],
)
def test_cancelling_from_another_thread_releases_a_reader_that_waits(serve: Serve, fault: str, client: Any) -> None:
    server = serve(TEXT, [FAULTS[fault]])
    inner = openai_like(server, http_client=client and client())
    inner._get_client()  # the first one takes long to import
    before_the_first_event = fault in ("stall_first", "stall_headers")
    left = before_the_first_event and client is not None
    stream: Any = ResilientLLM(inner).stream_chat(question())
    received: list[Any] = []
    reader = threading.Thread(target=lambda: received.extend(stream))
    reader.start()
    assert eventually(lambda: bool(server.requests) and (len(received) >= 3 or before_the_first_event))
    time.sleep(0.05)  # the reader shall be inside its wait
    began = time.monotonic()
    stream.cancel()
    reader.join(2)
    assert not reader.is_alive()
    assert time.monotonic() - began < 0.5
    assert stream.report.status is StreamStatus.CANCELLED
    # Through a client of the user's such a read cannot be broken: the report names the thread it leaves behind.
    assert stream.report.attempts[0].left_thread is left
    assert eventually(lambda: not readers()) is not left
    assert len(server.requests) == 1
    server.close()  # ends what the client's own timeout would end
    assert eventually(lambda: not readers())
    if inner._http_client is not None:
        inner._http_client.close()
    inner._client.close()


@pytest.mark.parametrize("fault", ["stall", "comments"])
def test_a_stalled_read_that_was_given_up_leaves_no_thread(serve: Serve, fault: str) -> None:
    server = serve(TEXT, [FAULTS[fault].at(40)])
    inner = openai_like(server)
    stream: Any = ResilientLLM(inner, policy=replace(QUICK, idle_timeout=0.1)).stream_chat(question())
    assert "".join(chunk.delta for chunk in stream) == TEXT
    assert not stream.report.attempts[0].left_thread
    assert eventually(lambda: server.requests[0].client_left, 0.5)
    inner._client.close()


@pytest.mark.parametrize("fault", ["stall", "comments", "stall_first", "comments_first", "stall_headers"])
async def test_cancelling_a_task_that_waits(serve: Serve, fault: str) -> None:
    server = serve(TEXT, [FAULTS[fault]])
    inner = openai_like(server)
    stream: Any = await ResilientLLM(inner).astream_chat(question())

    async def consume() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    assert await asyncio.to_thread(eventually, lambda: bool(server.requests))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.report.status is StreamStatus.CANCELLED
    assert await asyncio.to_thread(eventually, lambda: server.requests[0].client_left, 0.5)
    assert len(asyncio.all_tasks()) == 1
    await inner._aclient.close()


@pytest.mark.parametrize("fault", ["stall", "comments_first", "stall_headers"])
async def test_cancelling_an_async_stream_from_elsewhere(serve: Serve, fault: str) -> None:
    server = serve(TEXT, [FAULTS[fault]])
    inner = openai_like(server)
    stream: Any = await ResilientLLM(inner).astream_chat(question())

    async def consume() -> str:
        return "".join([chunk.delta async for chunk in stream])

    task = asyncio.create_task(consume())
    assert await asyncio.to_thread(eventually, lambda: bool(server.requests))
    await asyncio.sleep(0.05)
    stream.cancel()
    text = await asyncio.wait_for(task, 1)  # it ends, and is not cancelled itself
    assert TEXT.startswith(text)
    assert stream.report.status is StreamStatus.CANCELLED
    assert await asyncio.to_thread(eventually, lambda: server.requests[0].client_left, 0.5)
    await inner._aclient.close()


async def test_an_async_stream_cancelled_between_two_tokens_closes_by_itself(serve: Serve) -> None:
    server = serve(TEXT, delay=0.01)
    inner = openai_like(server)
    stream: Any = await ResilientLLM(inner).astream_chat(question())
    await anext(stream)
    stream.cancel()
    assert await asyncio.to_thread(eventually, lambda: server.requests[0].client_left, 0.5)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await inner._aclient.close()


# During the back-off


def test_leaving_ends_the_back_off() -> None:
    llm = ScriptedLLM(TEXT, [Fail(ConnectionResetError())])
    stream: Any = ResilientLLM(llm, policy=SLOW).stream_chat(question())
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    assert eventually(lambda: bool(stream.report.faults))
    time.sleep(0.02)
    stream.cancel()
    reader.join(1)
    assert not reader.is_alive()
    assert stream.report.status is StreamStatus.CANCELLED
    assert len(llm.calls) == 1


async def test_leaving_ends_an_async_back_off() -> None:
    llm = ScriptedLLM(TEXT, [Fail(ConnectionResetError())] * 2)
    for leave in ("task", "stream"):
        stream: Any = await ResilientLLM(llm, policy=SLOW).astream_chat(question())

        async def consume(stream: Any = stream) -> None:
            async for _ in stream:
                pass

        task = asyncio.create_task(consume())
        while not stream.report.faults:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        if leave == "task":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            stream.cancel()
            await asyncio.wait_for(task, 1)
        assert stream.report.status is StreamStatus.CANCELLED
    assert len(llm.calls) == 2


# In numbers


@pytest.mark.slow
def test_two_hundred_broken_closed_and_cancelled_streams_leave_nothing(serve: Serve) -> None:
    faults = ["reset", "stall", "clean_eof", None, "fin_in_chunk", "http_503", None, "comments", "half_event", None]
    server = serve(TEXT, [FAULTS[f].at(100) if f else None for f in faults] * 60)
    inner = openai_like(server)
    policy = replace(QUICK, stop=stop_never, max_attempts=99, idle_timeout=0.1, first_token_timeout=2.0)
    llm = ResilientLLM(inner, policy=policy)
    gc.collect()
    before = sockets(), threading.active_count()
    for number in range(200):
        stream: Any = llm.stream_chat(question())
        for count, _ in enumerate(stream):
            if number % 3 == 0 and count == number % 7:
                stream.close()
            elif number % 3 == 1 and count == number % 5:
                stream.cancel()
        assert stream.report.status in (StreamStatus.COMPLETE, StreamStatus.CANCELLED)
    assert eventually(lambda: not readers())
    server.wait_idle(5)
    inner._client.close()
    server.wait_closed(5)
    assert eventually(lambda: (sockets(), threading.active_count()) <= before)


@pytest.mark.slow
async def test_two_hundred_async_streams_leave_nothing(serve: Serve) -> None:
    faults = ["reset", "stall", "clean_eof", None, "fin_in_chunk", "http_503", None, "comments", "half_event", None]
    server = serve(TEXT, [FAULTS[f].at(100) if f else None for f in faults] * 60)
    inner = openai_like(server)
    policy = replace(QUICK, stop=stop_never, max_attempts=99, idle_timeout=0.1, first_token_timeout=2.0)
    llm = ResilientLLM(inner, policy=policy)

    async def one(number: int) -> None:
        stream: Any = await llm.astream_chat(question())
        count = 0
        async for _ in stream:
            if number % 3 == 0 and count == number % 7:
                await stream.aclose()
            elif number % 3 == 1 and count == number % 5:
                stream.cancel()
            count += 1
        assert stream.report.status in (StreamStatus.COMPLETE, StreamStatus.CANCELLED)

    for group in range(20):
        await asyncio.gather(*(one(group * 10 + i) for i in range(10)))
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) == 1
    assert await asyncio.to_thread(server.wait_idle, 5)
    await inner._aclient.close()
    assert await asyncio.to_thread(server.wait_closed, 5)


def test_a_thread_left_behind_keeps_nothing_of_ours_alive() -> None:
    llm = ScriptedLLM(TEXT, [Stall(after=0)])
    resilient = ResilientLLM(llm, policy=replace(QUICK, first_token_timeout=0.05, max_attempts=1))
    stream: Any = resilient.stream_chat(question())
    list_error = pytest.raises(Exception, match="No first token within")
    with list_error as caught:
        list(stream)
    assert stream.report.attempts[0].left_thread
    assert "a thread stays" in str(stream.report)
    assert len(readers()) == 1
    gone = [weakref.ref(stream), weakref.ref(resilient)]
    del stream, resilient, caught, list_error
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    llm.release()


def test_a_healed_stream_is_freed_by_reference_count() -> None:
    llm = ScriptedLLM(TEXT, [Cut(30, ConnectionResetError())])
    stream: Any = ResilientLLM(llm, policy=QUICK).stream_chat(question())
    recovery = weakref.ref(stream._recovery)
    gc.collect()
    gc.disable()
    try:
        assert "".join(chunk.delta for chunk in stream) == TEXT
        del stream
        assert recovery() is None
    finally:
        gc.enable()


# Found the hard way


def test_leaving_a_stream_that_is_over_leaves_the_others_alone(serve: Serve) -> None:
    server = serve(TEXT, ["no_done", None], delay=0.002)  # read to its end, the connection goes back to the pool
    inner = openai_like(server)
    llm = ResilientLLM(inner)
    first: Any = llm.stream_chat(question())
    assert "".join(chunk.delta for chunk in first) == TEXT
    second: Any = llm.stream_chat(question())
    received = [next(second) for _ in range(5)]
    first.cancel()
    first.close()
    received += list(second)
    assert "".join(chunk.delta for chunk in received) == TEXT
    assert not second.report.faults
    inner._client.close()


@pytest.mark.parametrize("leave", ["cancel", "acancel", "aclose"])
async def test_an_async_reader_sees_an_end_when_another_task_closes(leave: str) -> None:
    class SlowToClose(ScriptedLLM):
        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            async def chunks() -> Any:
                try:
                    async for chunk in await super(SlowToClose, self).astream_chat(messages, **kwargs):
                        yield chunk
                finally:
                    await asyncio.sleep(0.05)

            return chunks()

    stream: Any = await ResilientLLM(SlowToClose(TEXT)).astream_chat(question())
    await anext(stream)
    closing = getattr(stream, leave)()
    task = asyncio.ensure_future(closing) if closing is not None else None
    await asyncio.sleep(0.01)  # the closing is under way; the reader was busy with its token
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert stream.report.status is StreamStatus.CANCELLED
    if task is not None:
        await task


async def test_acancel_returns_when_the_connection_is_closed(serve: Serve) -> None:
    server = serve(TEXT, ["stall"])
    inner = openai_like(server)
    stream: Any = await ResilientLLM(inner).astream_chat(question())

    async def consume() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    assert await asyncio.to_thread(eventually, lambda: bool(server.requests))
    await asyncio.sleep(0.05)
    await stream.acancel()
    assert stream.report.status is StreamStatus.CANCELLED
    assert await asyncio.to_thread(eventually, lambda: server.requests[0].client_left, 0.2)
    await task
    await inner._aclient.close()


async def test_a_callback_may_leave(serve: Serve) -> None:
    streams: list[Any] = []

    async def leave(_event: Any) -> None:
        await streams[0].acancel()

    llm = ResilientLLM(ScriptedLLM(TEXT), callbacks=[leave])
    streams.append(await llm.astream_chat(question()))
    received = [chunk async for chunk in streams[0]]
    assert len(received) == 1
    assert streams[0].report.status is StreamStatus.CANCELLED


def test_a_loop_that_ends_with_an_open_stream_logs_nothing(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(TEXT, delay=0.01)
    inner = openai_like(server)
    kept: list[Any] = []

    async def abandon() -> None:
        kept.append(await ResilientLLM(inner).astream_chat(question()))
        await anext(kept[0])

    asyncio.run(abandon())
    assert not [record for record in caplog.records if record.name == "asyncio"]
    assert eventually(lambda: server.requests[0].client_left, 0.5)


def test_a_stream_keeps_the_context_that_it_began_in(serve: Serve) -> None:
    place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="nowhere")
    seen: list[str] = []
    server = serve(TEXT)

    class Placed(OpenAILike):
        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            inside = super().stream_chat(messages, **kwargs)

            def chunks() -> Any:
                token = place.set("inside")
                for chunk in inside:
                    seen.append(place.get())
                    yield chunk
                place.reset(token)

            return chunks()

    inner = Placed(model="m", api_base=server.url, api_key="x", is_chat_model=True, max_retries=0)
    stream: Any = ResilientLLM(inner, policy=QUICK).stream_chat(question())
    assert "".join(chunk.delta for chunk in stream) == TEXT
    assert set(seen) == {"inside"}
    assert not stream.report.faults
    inner._client.close()


# A loop that is closed under a stream


def abandoned(llm: ResilientLLM, take: int, made: list[Any]) -> None:
    """Read a few tokens, keep the stream, and let its loop be closed as a thread that dies would."""

    async def begin() -> None:
        made.append(await llm.astream_chat(question()))
        for _ in range(take):
            await anext(made[0])

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()


@pytest.mark.parametrize("how", ["cancel", "cancel-in-another-thread", "drop"])
@pytest.mark.parametrize("take", [0, 1, 5])
def test_a_stream_whose_loop_was_closed_has_an_outcome(how: str, take: int) -> None:
    made: list[Any] = []
    abandoned(ResilientLLM(ScriptedLLM(TEXT, token=8), policy=QUICK), take, made)
    stream = made.pop()
    report, scope = stream.report, stream.scope
    assert report.status is StreamStatus.STREAMING
    if how == "cancel":
        stream.cancel()
    elif how == "drop":
        del stream
        gc.collect()
    else:
        thread = threading.Thread(target=stream.cancel)
        thread.start()
        thread.join()
    assert report.status is StreamStatus.CANCELLED
    assert scope.over


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_stream_that_nobody_began_to_read_has_an_outcome_when_it_is_dropped(is_async: bool) -> None:
    llm = ResilientLLM(ScriptedLLM(TEXT), policy=QUICK)
    stream: Any = asyncio.run(llm.astream_chat(question())) if is_async else llm.stream_chat(question())
    report = stream.report
    del stream
    gc.collect()
    assert report.status is StreamStatus.CANCELLED


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_one_token_of_a_stream_that_nobody_keeps(is_async: bool) -> None:
    llm = ResilientLLM(ScriptedLLM(TEXT, token=8), policy=QUICK)

    async def first() -> Any:
        return await anext(await llm.astream_chat(question()))  # type: ignore[call-overload]

    chunk = asyncio.run(first()) if is_async else next(iter(llm.stream_chat(question())))
    assert chunk.delta == TEXT[:8]
