"""Below classes that swallow the finish reason and hold their connection: whatever HTTP library they use."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM, StreamStatus
from llama_index_resilient_stream.recovery.finish_reasons import FinishMeaning
from llama_index_resilient_stream.report import FaultKind
from llama_index_resilient_stream.transport.connection import Upstream
from llama_index_resilient_stream.transport.frames import FrameWatch
from llama_index_resilient_stream.transport.terminator import ReasonWatch, TerminatorWatch
from llama_index_resilient_stream.transport.watch import watch_of
from support.readers import QUICK, READERS, TEXT
from support.swallowing import (
    GoesOn,
    Log,
    OverAiohttp,
    OverAiohttpLines,
    OverHttpx,
    OverRequests,
    OverUrllib3,
    RaisesForStatus,
    gemini,
)

WAYS = [
    ("sync", OverHttpx),
    ("async", OverHttpx),
    ("sync", OverRequests),
    ("sync", OverUrllib3),
    ("async", OverAiohttp),
    ("async", OverAiohttpLines),
]
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of sessions that the classes leave open


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]}-{way[1].__name__}")
def way(request: pytest.FixtureRequest) -> tuple[str, type]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def server() -> Iterator[tuple[str, Log]]:
    with gemini() as running:
        yield running


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("healthy", StreamStatus.COMPLETE),
        ("bare_stop", StreamStatus.COMPLETE),
        ("stop_beside_text", StreamStatus.COMPLETE),
        ("max_tokens", StreamStatus.LENGTH),
        ("safety", StreamStatus.FILTERED),
    ],
)
def test_a_reason_that_the_class_drops_is_seen(
    how: str, status: StreamStatus, way: tuple[str, type], server: tuple[str, Log]
) -> None:
    url, log = server
    result = READERS[way[0]](ResilientLLM(way[1](base=url, how=how), policy=QUICK))
    assert (result.text, result.report.status, log.requests) == (TEXT, status, 1)
    assert result.report.finish_reason == {"safety": "safety", "max_tokens": "max_tokens"}.get(how, "stop")


def test_a_silent_cut_is_healed(way: tuple[str, type], server: tuple[str, Log]) -> None:
    url, log = server
    result = READERS[way[0]](ResilientLLM(way[1](base=url, how="cut"), policy=QUICK))
    assert (result.text, result.report.status, log.requests) == (TEXT, StreamStatus.COMPLETE, 2)


@pytest.mark.parametrize("half", READERS)
def test_what_goes_on_by_itself_is_not_continued_twice_and_the_report_says_so(
    half: str, server: tuple[str, Log]
) -> None:
    url, log = server
    result = READERS[half](ResilientLLM(GoesOn(base=url, how="cut"), policy=QUICK))
    assert (result.text, result.report.status, log.requests) == (TEXT, StreamStatus.COMPLETE, 2)
    assert [attempt.continued_below for attempt in result.report.attempts] == [1]


def test_the_wait_that_a_server_asks_for_is_kept_where_the_error_has_no_headers(
    way: tuple[str, type], server: tuple[str, Log]
) -> None:
    url, log = server
    result = READERS[way[0]](ResilientLLM(way[1](base=url, how="busy"), policy=QUICK))
    assert (result.text, log.requests) == (TEXT, 2)
    assert result.report.attempts[1].waited >= 0.3


@pytest.mark.parametrize("half", READERS)
def test_what_an_error_says_is_known_where_the_class_does_not_read_it(half: str, server: tuple[str, Log]) -> None:
    url, log = server
    result = READERS[half](ResilientLLM(RaisesForStatus(base=url, how="too_long"), policy=QUICK))
    assert result.error is not None
    assert "maximum context length" in str(result.error)
    assert [attempt.fault for attempt in result.report.attempts] == [FaultKind.CONTEXT_WINDOW]
    assert log.requests == 1


def test_leaving_closes_the_connection_at_once(way: tuple[str, type], server: tuple[str, Log]) -> None:
    url, log = server
    READERS[way[0]](ResilientLLM(way[1](base=url, how="slow"), policy=QUICK), take=3)
    left = time.monotonic()
    while not log.gone and time.monotonic() - left < 3:
        time.sleep(0.01)
    assert log.gone, "the server has noticed nothing"
    assert log.gone[0] - left < 1
    assert log.written < 12


def test_a_stalled_read_is_broken_and_leaves_no_thread(way: tuple[str, type], server: tuple[str, Log]) -> None:
    url, log = server
    before = threading.active_count()
    policy = RecoveryPolicy(wait=wait_none(), stop=stop_after_attempt(2), idle_timeout=0.3)
    result = READERS[way[0]](ResilientLLM(way[1](base=url, how="stall"), policy=policy))
    assert (result.text, result.report.status, log.requests) == (TEXT, StreamStatus.COMPLETE, 2)
    assert not any(attempt.left_thread for attempt in result.report.attempts)
    until = time.monotonic() + 2
    while threading.active_count() > before + 1 and time.monotonic() < until:  # the server has one per connection
        time.sleep(0.01)
    assert threading.active_count() <= before + 1


def test_whoever_asks_for_nobody_is_left_alone(server: tuple[str, Log]) -> None:
    url, _ = server
    READERS["sync"](ResilientLLM(OverHttpx(base=url, how="healthy"), policy=QUICK))  # from here on the library tells
    assert Upstream.current() is None
    with httpx.Client() as client:
        request = client.build_request("POST", f"{url}/healthy/models/m:streamGenerateContent", json={})
        response = client.send(request, stream=True)
        response.read()
    assert "trace" not in request.extensions
    assert not hasattr(response.stream, "_watch")


# The watches


def gemini_events(*, reasons: list[str | None]) -> bytes:
    lines = []
    for number, reason in enumerate(reasons):
        candidate: dict[str, Any] = {"content": {"parts": [{"text": f"word {number} "}]}}
        if reason is not None:
            candidate["finishReason"] = reason
        lines.append(f"data: {json.dumps({'candidates': [candidate]})}\r\n\r\n")
    return "".join(lines).encode()


def in_pieces(watch: Any, data: bytes, cuts: list[int]) -> Any:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, end in pairwise(places):
        watch.feed(data[begin:end])
    watch.end()
    return watch


cuts = st.lists(st.integers(0, 2000), max_size=6)


@given(cuts)
def test_gemini_ends_with_its_reason_wherever_the_pieces_are_cut(cuts: list[int]) -> None:
    watch = in_pieces(ReasonWatch(promised=True), gemini_events(reasons=[None, None, "MAX_TOKENS"]), cuts)
    assert watch.terminated
    assert watch.finish_reason.kind is FinishMeaning.LENGTH


@given(cuts)
def test_gemini_without_a_reason_is_cut(cuts: list[int]) -> None:
    watch = in_pieces(ReasonWatch(promised=True), gemini_events(reasons=[None, None]), cuts)
    assert watch.terminated is False
    assert watch.finish_reason is None


@given(cuts)
def test_a_reason_on_every_chunk_proves_nothing(cuts: list[int]) -> None:
    watch = in_pieces(ReasonWatch(promised=True), gemini_events(reasons=["STOP", "STOP", "STOP"]), cuts)
    assert watch.terminated is None


def frames(*events: dict[str, Any]) -> bytes:
    return b"".join(
        b"\x00\x00\x00\x9e\x0b:event-type\x07" + json.dumps(event).encode() + b"\xf0\x9f" for event in events
    )


@given(cuts)
def test_bedrock_s_reason_is_found_in_its_frames(cuts: list[int]) -> None:
    said = {"delta": {"text": 'They said "stopReason":"end_turn", and went on.'}}
    data = frames(said, {"stopReason": "guardrail_intervened"}, {"usage": {"outputTokens": 9}})
    watch = in_pieces(FrameWatch(), data, cuts)
    assert watch.terminated
    assert watch.finish_reason.kind is FinishMeaning.FILTER


@given(cuts)
def test_bedrock_s_text_feigns_no_reason(cuts: list[int]) -> None:
    watch = in_pieces(FrameWatch(), frames({"delta": {"text": '"stopReason":"end_turn"'}}), cuts)
    assert watch.terminated is False


@pytest.mark.parametrize(
    ("path", "content_type", "kind"),
    [
        ("/v1/chat/completions", "text/event-stream; charset=utf-8", TerminatorWatch),
        ("/v1beta/models/gemini-3:streamGenerateContent", "text/event-stream", ReasonWatch),
        ("/model/x/converse-stream", "application/vnd.amazon.eventstream", FrameWatch),
        ("/v1/chat/completions", "application/json", None),
        ("/api/chat", "application/x-ndjson", None),
    ],
)
def test_which_watch_a_body_gets(path: str, content_type: str, kind: type | None) -> None:
    watch = watch_of(path, content_type)
    assert watch is None if kind is None else type(watch) is kind
