"""Lossless: the rest of a stream that its server keeps, over real sockets, cut at any byte."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import Continuation, Provider, RecoveryPolicy, ResilientLLM
from llama_index_resilient_stream.http import async_http_client, http_client
from llama_index_resilient_stream.report import Certainty, JoinDecision, Strategy, StreamReport, StreamStatus
from llama_index_resilient_stream.testing import FaultServer
from llama_index_resilient_stream.transport import kept_stream
from support.cutting import Cut, cutting
from support.readers import QUICK, Reader, openai_like, question
from support.sdk_clients import LLMS_OPENAI, needs_observed_sdk_clients

pytestmark = needs_observed_sdk_clients

TEXT = "In 1866 the ends were found – two miles down – and joined. 🐙 It was done."
TOOL = {"type": "function", "function": {"name": "splice", "parameters": {"type": "object", "properties": {}}}}
ARGUMENTS = json.dumps({"cable": "1866", "depth": [2, "miles"], "note": "ends – joined"}, ensure_ascii=False)
DESCENT = RecoveryPolicy(wait=wait_none(), stop=stop_after_attempt(3))


def llm_of(url: str, server: FaultServer, *, continuation: Any = "replay", policy: RecoveryPolicy = QUICK) -> Any:
    inner = openai_like(server)
    inner.api_base = url
    return ResilientLLM(inner, continuation=continuation, policy=policy)


@dataclass
class Told:
    """What a reader got, chunk by chunk, as it was then: LlamaIndex's chunks share what still grows."""

    chunks: list[str]
    report: StreamReport


def _told(llm: Any, **kwargs: Any) -> Told:
    stream = llm.stream_chat(question(), **kwargs)
    chunks = [repr(chunk) for chunk in stream]
    llm.llm._client.close()
    return Told(chunks, stream.report)


async def _atold(llm: Any, **kwargs: Any) -> Told:
    stream = await llm.astream_chat(question(), **kwargs)
    chunks = [repr(chunk) async for chunk in stream]
    await llm.llm._aclient.close()
    return Told(chunks, stream.report)


TELLERS: dict[str, Callable[..., Told]] = {
    "sync": _told,
    "async": lambda llm, **kwargs: asyncio.run(_atold(llm, **kwargs)),
}


@pytest.fixture(params=TELLERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass(frozen=True)
class Turn:
    """A kind of answer."""

    server: dict[str, Any]
    asked: dict[str, Any]


TURNS = {
    "text": Turn({}, {}),
    "usage": Turn({}, {"stream_options": {"include_usage": True}}),
    "thoughts": Turn({"thinking": "The cable broke – where?"}, {}),
    "tool": Turn({"tool_call": ("splice", ARGUMENTS)}, {"tools": [TOOL]}),
    "object": Turn({}, {"response_format": {"type": "json_object"}}),
}


def tell(name: str, kind: str, *cuts: Cut | None, **settings: Any) -> tuple[Told, FaultServer]:
    turn = TURNS[kind]
    with FaultServer(TEXT, keeps_streams=True, **turn.server) as server, cutting(server, *cuts) as proxy:
        return TELLERS[name](llm_of(proxy.url, server, **settings), **turn.asked), server


_uncut: dict[Any, tuple[Told, list[bytes]]] = {}


def uncut(name: str, kind: str) -> tuple[Told, list[bytes]]:
    """What an answer is without a cut, and the events of its body."""
    if (name, kind) not in _uncut:
        told, server = tell(name, kind)
        (kept,) = server.kept_streams.values()
        _uncut[name, kind] = told, kept.events
    return _uncut[name, kind]


@settings(max_examples=25)
@given(
    st.tuples(st.floats(0, 1), st.sampled_from(["rst", "fin", "end"])),
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["rst", "fin"])), max_size=2),
)
@example((0.0, "rst"), [(0.0, "fin"), (0.0, "rst")])
@example((0.0, "end"), [(0.5, "fin"), (0.9, "rst")])
@example((1.0, "fin"), [])
@pytest.mark.parametrize("kind", TURNS)
def test_a_stream_that_was_cut_anywhere_is_byte_for_byte_the_uncut_one(
    name: str, kind: str, first: tuple[float, str], later: list[tuple[float, str]]
) -> None:
    whole, events = uncut(name, kind)
    cuts = [Cut(int(share * len(b"".join(events))), how) for share, how in (first, *later)]
    told, server = tell(name, kind, *cuts)
    if kind != "usage" or len(told.chunks) == len(whole.chunks):  # what is lost behind the finish reason is no fault
        assert told.report.usage == whole.report.usage
        assert told.chunks == whole.chunks
    assert told.chunks == whole.chunks[: len(told.chunks)]
    report = told.report
    assert report.status is StreamStatus.COMPLETE
    assert (report.extra_tokens, report.usage_estimated, len(server.requests)) == (0, False, 1)
    assert {attempt.strategy for attempt in report.attempts[1:]} <= {Strategy.REPLAY}
    assert {(j.strategy, j.decision, j.certainty) for j in report.joints} <= {
        (Strategy.REPLAY, JoinDecision.REPLAY, Certainty.VERIFIED)
    }


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_every_byte_of_one_event(name: str, step: int) -> None:
    whole, events = uncut(name, "text")
    begin = len(b"".join(events[:3]))
    for after in range(begin, begin + len(events[3]) + 1, step):
        told, server = tell(name, "text", Cut(after))
        assert told.chunks == whole.chunks, after
        assert len(server.requests) == 1
        assert len(told.report.joints) == 1


# When a server is asked to keep a stream


@pytest.mark.parametrize(
    ("continuation", "marked"),
    [
        pytest.param("auto", [False, True], id="auto: once the server has shown who it is"),
        pytest.param("replay", [True, True], id="replay"),
        pytest.param(Continuation("replay"), [True, True], id="a Continuation"),
        pytest.param("ask", [False, False], id="another way"),
    ],
)
def test_the_header_is_sent_to_a_server_that_is_known(reader: Reader, continuation: Any, marked: list[bool]) -> None:
    with FaultServer(TEXT, keeps_streams=True) as server:
        llm = llm_of(server.url, server, continuation=continuation)
        for _ in range(2):
            assert reader(llm).text == TEXT
        assert ["x-conversation-id" in request.header_names for request in server.requests] == marked
        assert len(server.kept_streams) == sum(marked)


def test_a_row_says_that_a_server_keeps_its_streams(reader: Reader) -> None:
    with FaultServer(TEXT, keeps_streams=True) as server, cutting(server, Cut(900)) as proxy:
        inner = openai_like(server)
        inner.api_base = proxy.url
        llm = ResilientLLM(inner, provider=Provider(sends_finish_reason=True, strategy="replay"), policy=QUICK)
        assert reader(llm).text == TEXT
        assert len(server.requests) == 1


def test_other_servers_get_no_header(reader: Reader) -> None:
    with FaultServer(TEXT, ["reset"]) as server:
        llm = llm_of(server.url, server, continuation="auto")
        for _ in range(2):
            assert reader(llm).text == TEXT
        assert not any("x-conversation-id" in request.header_names for request in server.requests)
        assert not server.replays


@pytest.mark.skipif(LLMS_OPENAI < (0, 2), reason="this release asks for completions without a prompt")
@pytest.mark.parametrize("endpoint", ["chat", "complete"])
def test_our_own_http_clients_and_both_endpoints(reader: Reader, endpoint: str) -> None:
    clients = {"http_client": http_client(), "async_http_client": async_http_client()}
    with FaultServer(TEXT, keeps_streams=True) as server, cutting(server, Cut(1200)) as proxy:
        inner = openai_like(server, **clients, is_chat_model=endpoint == "chat")
        inner.api_base = proxy.url
        result = reader(ResilientLLM(inner, continuation="replay", policy=QUICK), endpoint=endpoint)
        assert (result.text, result.whole, len(server.requests)) == (TEXT, TEXT, 1)


# Where it fails


def forget(server: FaultServer) -> None:
    server.kept_streams.clear()


def lose_beginning(server: FaultServer) -> None:
    for kept in server.kept_streams.values():
        kept.lost = 100_000


def keep_half(server: FaultServer) -> None:
    for kept in server.kept_streams.values():
        del kept.events[len(kept.events) // 2 :]


def keep_another(server: FaultServer) -> None:
    for kept in server.kept_streams.values():
        kept.events.insert(3, kept.events[3])


LOSSES: dict[str, Callable[[FaultServer], None]] = {
    "gone": forget,
    "offset lost": lose_beginning,
    "nothing more of it": keep_half,
    "another stream": keep_another,
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("kind", ["text", "tool"])
def test_a_replay_that_is_gone_goes_down_the_ladder(reader: Reader, kind: str, lose: Any) -> None:
    turn = TURNS[kind]
    with FaultServer(TEXT, keeps_streams=True, delay=0.001, **turn.server) as server:
        _, events = uncut("sync", kind)
        with cutting(server, Cut(int(len(b"".join(events)) * 0.6), before=lambda: lose(server))) as proxy:
            result = reader(llm_of(proxy.url, server, policy=DESCENT), **turn.asked)
        assert result.error is None
        if kind == "text":
            assert result.whole == TEXT
        else:
            (call,) = result.chunks[-1].message.additional_kwargs["tool_calls"]
            assert json.loads(call.function.arguments) == json.loads(ARGUMENTS)
        assert len(server.requests) == 2
        assert 1 <= len(server.replays) <= 2
        assert [str(each.strategy) for each in result.report.attempts if each.strategy != "replay"] == [
            "first",
            "restart" if kind == "tool" else "prefill",
        ]


@pytest.mark.parametrize("junk", [b": keep-alive\n\n", b"data: [DONE]\n\n", b'data: {"broken\n\n'])
@pytest.mark.parametrize("how", ["rst", "end"])
@pytest.mark.parametrize("kind", ["text", "tool"])
def test_what_a_gateway_adds_is_not_counted(name: str, kind: str, how: str, junk: bytes) -> None:
    whole, events = uncut(name, kind)
    told, server = tell(name, kind, Cut(len(b"".join(events[:5])), how, junk))
    assert told.chunks == whole.chunks
    assert len(server.requests) == 1


def test_a_body_that_is_too_long_is_not_kept_here_either(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_stream, "MOST", 1000)
    with FaultServer(TEXT, keeps_streams=True) as server, cutting(server, Cut(2000)) as proxy:
        assert reader(llm_of(proxy.url, server)).text == TEXT
        assert (len(server.requests), server.replays) == (2, [])


def test_the_policy_decides_whether_to_go_on(reader: Reader) -> None:
    once = RecoveryPolicy(stop=stop_after_attempt(1))
    with FaultServer(TEXT, keeps_streams=True) as server, cutting(server, Cut(900)) as proxy:
        assert reader(llm_of(proxy.url, server, policy=once)).error is not None
        assert not server.replays
        assert all(kept.stopped_after is not None for kept in server.kept_streams.values())


def test_the_next_way_is_taken_once_the_old_stream_is_stopped(reader: Reader) -> None:
    with FaultServer(TEXT, keeps_streams=True, delay=0.01) as server:
        with cutting(server, Cut(900, before=lambda: lose_beginning(server))) as proxy:
            assert reader(llm_of(proxy.url, server)).text == TEXT
        first, second = server.kept_streams.values()
        assert first.stopped_after is not None
        assert second.stopped_after is None


# Leaving


def breaks(llm: Any) -> None:
    for number, _ in enumerate(llm.stream_chat(question())):
        if number == 3:
            break


def cancels(llm: Any) -> None:
    stream = llm.stream_chat(question())
    for number, _ in enumerate(stream):
        if number == 3:
            stream.cancel()


def drops(llm: Any) -> None:
    stream = llm.stream_chat(question())
    next(stream)
    del stream
    gc.collect()


async def acancels(llm: Any) -> None:
    stream = await llm.astream_chat(question())
    async for _ in stream:
        stream.cancel()


async def abreaks(llm: Any) -> None:
    stream = await llm.astream_chat(question())
    async for _ in stream:
        break
    await stream.aclose()


async def is_cancelled(llm: Any) -> None:
    async def read() -> None:
        async for _ in await llm.astream_chat(question()):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def is_cancelled_by_a_task_group(llm: Any) -> None:
    import anyio

    async def read() -> None:
        async for _ in await llm.astream_chat(question()):
            pass

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await asyncio.sleep(0.2)
        group.cancel_scope.cancel()
    await asyncio.sleep(0.1)  # of a task that is cancelled again and again, nothing can be waited for


WAYS_TO_LEAVE: dict[str, Any] = {
    "break": breaks,
    "cancel": cancels,
    "drop": drops,
    "async cancel": acancels,
    "async break": abreaks,
    "task cancelled": is_cancelled,
    "task group cancelled": is_cancelled_by_a_task_group,
}


@pytest.mark.parametrize("leave", WAYS_TO_LEAVE.values(), ids=WAYS_TO_LEAVE)
@pytest.mark.parametrize("cuts", [(), (Cut(800),)], ids=["whole", "after a replay"])
def test_leaving_stops_the_generation(leave: Any, cuts: tuple[Cut, ...]) -> None:
    with FaultServer(TEXT * 20, keeps_streams=True, delay=0.02) as server, cutting(server, *cuts) as proxy:
        llm = llm_of(proxy.url, server)
        began = time.monotonic()
        leaving = leave(llm)
        if leaving is not None:

            async def run() -> None:
                await leaving
                await llm.llm._aclient.close()

            asyncio.run(run())
        seconds = time.monotonic() - began
        (kept,) = server.kept_streams.values()
        assert kept.stopped_after is not None
        assert kept.stopped_after < seconds + 1
        assert not kept.is_whole


def test_leaving_during_the_wait_for_a_replay() -> None:
    class Leaves:
        stream: Any

        def on_fault(self, event: Any) -> None:
            self.stream.cancel()

    leaves = Leaves()
    with FaultServer(TEXT * 20, keeps_streams=True, delay=0.02) as server, cutting(server, Cut(800)) as proxy:
        llm = ResilientLLM(
            llm_of(proxy.url, server).llm, continuation="replay", policy=RecoveryPolicy(), callbacks=[leaves]
        )
        leaves.stream = stream = llm.stream_chat(question())
        for _ in stream:
            pass
        (kept,) = server.kept_streams.values()
        assert kept.stopped_after is not None
        assert not server.replays


def test_what_is_over_is_not_stopped(reader: Reader) -> None:
    with FaultServer(TEXT, keeps_streams=True) as server:
        assert reader(llm_of(server.url, server)).text == TEXT
        (kept,) = server.kept_streams.values()
        assert kept.stopped_after is None


def test_a_dead_server_keeps_nobody_who_leaves() -> None:
    server = FaultServer(TEXT * 20, keeps_streams=True, delay=0.02).start()
    stream = llm_of(server.url, server).stream_chat(question())
    next(stream)
    server.close()
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 1.5
