"""The doctor's rules alone: measurements in, findings out. What real servers do is in `test_endpoint.py`."""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_resilient_stream.doctor.endpoint.diagnosis import diagnose
from llama_index_resilient_stream.doctor.endpoint.findings import Finding, Level, timeout_behind
from llama_index_resilient_stream.doctor.endpoint.measurements import (
    Arrival,
    BodyFormat,
    BodyKind,
    Ending,
    EventCounts,
    Framing,
    Measurements,
    Observation,
    Reconnection,
    RouteLatency,
)
from llama_index_resilient_stream.doctor.endpoint.remedies import CAUSES, is_default, lines_for
from llama_index_resilient_stream.doctor.endpoint.sse_counter import EventCounter
from llama_index_resilient_stream.transport.decompression import Decompressor

HEADERS = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}


def answer(
    times: list[float],
    *,
    ended: Ending = Ending.CLEAN,
    at: float | None = None,
    terminal: str = "done",
    ids: bool = True,
    **more: object,
) -> Observation:
    """One event at each time."""
    defaults: dict[str, object] = {
        "status": 200,
        "headers": HEADERS,
        "framing": Framing.CHUNKED,
        "arrivals": tuple(Arrival(time, 40, 1) for time in times),
        "format": BodyFormat(BodyKind.EVENTS, pieces=len(times)),
        "counts": EventCounts(len(times), 0, tuple(map(str, range(len(times)))) if ids else (), terminal),
    }
    over = at if at is not None else (times[-1] if times else 0.0)
    return Observation(ended, over, **{**defaults, **more})  # type: ignore[arg-type]


def even(count: int, step: float = 0.1, start: float = 0.0) -> list[float]:
    return [start + step * number for number in range(1, count + 1)]


GOOD = answer(even(20))


def rules(measurements: Measurements) -> dict[str, tuple[str, ...]]:
    return {finding.rule: finding.causes for finding in diagnose(measurements)}


# Healthy

gaps = st.lists(st.floats(0.06, 1.4), min_size=4, max_size=60)


terminals = st.sampled_from(["done", "[DONE]", "the user's own"])


@st.composite
def healthy(draw: st.DrawFn, terminal: str | None = None) -> Observation:
    times = [0.0]
    for gap in draw(gaps):
        times.append(times[-1] + gap)
    return answer(times[1:], terminal=terminal or draw(terminals), headers_at=draw(st.floats(0.0, times[1])))


@st.composite
def healthy_measurements(draw: st.DrawFn) -> Measurements:
    terminal = draw(terminals)
    main = draw(healthy(terminal))
    direct = (draw(healthy(terminal)),) if draw(st.booleans()) else ()
    last = main.counts.ids[len(main.counts.ids) // 2]
    again = answer([0.1], ended=Ending.STOPPED_EARLY, counts=EventCounts(1, ids=(str(int(last) + 1),)))
    return Measurements(
        (main,),
        direct,
        http10=draw(st.sampled_from([None, replace(GOOD, ended=Ending.STOPPED_EARLY)])),
        reconnection=draw(st.sampled_from([None, Reconnection(last, main.counts.ids, again)])),
        quick_route=draw(st.sampled_from([None, RouteLatency(0.01, 0.2)])),
    )


@given(healthy_measurements())
def test_a_healthy_endpoint_has_no_findings(measurements: Measurements) -> None:
    assert diagnose(measurements) == []


@given(healthy(), st.integers(2, 100), st.floats(0.0, 0.2))
def test_a_crowd_that_is_served_at_once_is_no_step(one: Observation, count: int, spread: float) -> None:
    times = [arrival.at for arrival in one.arrivals]
    crowd = [answer([time + spread * number / count for time in times]) for number in range(count)]
    assert diagnose(Measurements((one,), parallel=tuple(crowd))) == []


# Sick: whatever is measured, something sensible is said

endings = st.sampled_from(list(Ending))
observations = st.builds(
    answer,
    st.lists(st.floats(0, 100), max_size=20).map(sorted),
    ended=endings,
    at=st.floats(100, 200),
    terminal=st.sampled_from(["", "done", "error", "[DONE]"]),
    ids=st.booleans(),
    status=st.sampled_from([0, 200, 200, 200, 204, 301, 403, 500, 502, 504]),
    framing=st.sampled_from(list(Framing)),
    readable=st.booleans(),
    headers=st.sampled_from([HEADERS, {}, {**HEADERS, "content-encoding": "gzip"}]),
)
all_measurements = st.builds(
    Measurements,
    url=st.lists(observations, min_size=1, max_size=3).map(tuple),
    direct=st.lists(observations, max_size=3).map(tuple),
    uncompressed=st.none() | observations,
    http10=st.none() | observations,
    parallel=st.lists(observations, max_size=5).map(tuple),
    quick_route=st.none() | st.builds(RouteLatency, st.floats(0, 1), st.floats(0, 9)),
)


@given(all_measurements)
def test_every_finding_has_causes_and_lines(measurements: Measurements) -> None:
    found = diagnose(measurements)
    assert found == diagnose(measurements)
    assert len({finding.rule for finding in found}) == len(found)
    levels = [list(Level).index(finding.level) for finding in found]
    assert levels == sorted(levels)
    for finding in found:
        assert finding.seen
        assert len(set(finding.causes)) == len(finding.causes) > 0
        assert finding.certain or finding.distinguish_by, "who lists candidates says what would tell which"
        for cause in finding.causes:
            name, fixes = lines_for(finding, cause)
            assert not any(mark in text for text in (name, *(fix.lines for fix in fixes)) for mark in ("{t}", "{half}"))


@given(all_measurements)
def test_a_broken_answer_is_never_called_fine(measurements: Measurements) -> None:
    if (measurements.main.answered and measurements.main.cut) or measurements.main.status >= 400:
        assert any(finding.level is not Level.HINT for finding in diagnose(measurements))


@given(all_measurements)
def test_proxies_are_not_blamed_for_what_the_application_does(measurements: Measurements) -> None:
    """An idle timeout, with the application known to be cut itself, is nobody's."""
    past = measurements.direct_answer
    if past is not None and past.cut and measurements.main.answered:
        blamed = {
            cause for finding in diagnose(measurements) for cause in finding.causes if finding.rule != "hidden_cut"
        }
        assert "idle_timeout" not in blamed


# The order of candidates, and what changes it

CUT = answer(even(5), ended=Ending.CUT, at=3.0, terminal="")  # 2.5 s of silence
FLOWING = answer(even(5), ended=Ending.CUT, at=0.52, terminal="")
PAUSED = answer([*even(5), *even(5, start=4.0)])  # the same silence, and it goes on
UNSAID = answer(even(5), terminal="")
EMPTY = answer([], at=0.1, terminal="")
LATE = answer(even(12, 0.0001, start=2.0))


def the_only(measurements: Measurements) -> Finding:
    findings = [finding for finding in diagnose(measurements) if finding.level is not Level.HINT]
    assert len(findings) == 1, findings
    return findings[0]


TABLE = {
    "idle, nobody else asked": (Measurements((CUT,)), ("idle_timeout", "exception", "killed_worker")),
    "idle, the application is more patient": (Measurements((CUT,), (PAUSED,)), ("idle_timeout",)),
    "idle, the application had no such silence": (
        Measurements((CUT,), (GOOD,)),
        ("idle_timeout", "exception", "killed_worker"),
    ),
    "idle, the application too": (Measurements((CUT,), (CUT,)), ("exception", "killed_worker")),
    "mid-flow": (Measurements((FLOWING,)), ("exception", "killed_worker", "time_limit")),
    "mid-flow, the application is well": (Measurements((FLOWING,), (GOOD,)), ("time_limit", "killed_worker")),
    "mid-flow, same place": (
        Measurements((FLOWING, answer(even(5, 0.3), ended=Ending.CUT, at=1.52, terminal=""))),
        ("exception",),
    ),
    "mid-flow, same time": (
        Measurements((FLOWING, answer(even(9, 0.06), ended=Ending.CUT, at=0.55, terminal=""))),
        ("time_limit",),
    ),
    "mid-flow, same place and time": (Measurements((FLOWING, FLOWING)), ("exception", "killed_worker", "time_limit")),
    "mid-flow, neither": (
        Measurements((FLOWING, answer(even(20, 0.3), ended=Ending.RESET, at=6.1, terminal=""))),
        ("exception", "killed_worker", "time_limit"),
    ),
    "unsaid, nobody else asked": (Measurements((UNSAID,)), ("no_terminal_event", "swallowed_exception", "http10_hop")),
    "unsaid, the application too": (Measurements((UNSAID,), (UNSAID,)), ("no_terminal_event", "swallowed_exception")),
    "unsaid, the application says it": (Measurements((UNSAID,), (GOOD,)), ("http10_hop",)),
    "empty, chunked": (Measurements((EMPTY,)), ("consumed",)),
    "empty, closed": (
        Measurements((replace(EMPTY, framing=Framing.CLOSE),)),
        ("consumed", "wrong_object", "exception"),
    ),
    "empty, closed after a while": (
        Measurements((replace(EMPTY, framing=Framing.CLOSE, ended_at=60.1),)),
        ("idle_timeout", "consumed", "exception"),
    ),
    "one block": (Measurements((LATE,)), ("proxy_buffering", "collected", "llm_at_once", "body_reading_middleware")),
    "one block, the application streams": (Measurements((LATE,), (GOOD,)), ("proxy_buffering",)),
    "one block, the application too": (
        Measurements((LATE,), (LATE,)),
        ("collected", "llm_at_once", "body_reading_middleware"),
    ),
    "one block with a length, the application streams": (
        Measurements((replace(LATE, framing=Framing.LENGTH),), (GOOD,)),
        ("proxy_buffering",),
    ),
    "a long answer in a few blocks": (
        Measurements(
            (answer(even(60), arrivals=tuple(Arrival(at, 800, 20) for at in (2.0, 4.0, 6.0))),),
            (answer(even(60)),),
        ),
        ("proxy_buffering",),
    ),
    "two at a time": (
        Measurements((GOOD,), parallel=tuple(answer(even(5, start=2.0 * (n // 2))) for n in range(8))),
        ("few_workers", "thread_pool"),
    ),
    "eighty at a time": (
        Measurements((GOOD,), parallel=tuple(answer(even(5, start=2.0 * (n // 80))) for n in range(90))),
        ("thread_pool",),
    ),
}


@pytest.mark.parametrize(("measurements", "causes"), TABLE.values(), ids=TABLE)
def test_candidates(measurements: Measurements, causes: tuple[str, ...]) -> None:
    assert the_only(measurements).causes == causes


def test_single_straggler_is_no_queue() -> None:
    crowd = (*[answer(even(5))] * 9, answer(even(5, start=3.0)))
    assert diagnose(Measurements((GOOD,), parallel=crowd)) == []


def test_a_fault_of_the_proxy_does_not_hide_one_of_the_application() -> None:
    unsaid = answer([*even(5), *even(5, start=4.0)], terminal="")
    assert rules(Measurements((CUT,), (unsaid,))) == {
        "cut_after_silence": ("idle_timeout",),
        "no_terminal_event": ("no_terminal_event", "swallowed_exception"),
    }


def test_a_heartbeat_is_no_hint_where_it_is_the_remedy() -> None:
    assert "no_heartbeat" not in rules(Measurements((CUT,), (PAUSED,)))
    assert "no_heartbeat" in rules(Measurements((PAUSED,)))


def test_unreadable_answer_is_not_judged() -> None:
    """Brotli: the answer is asked for again, without."""
    brotli = {**HEADERS, "content-encoding": "br"}
    unread = replace(GOOD, headers=brotli, readable=False, counts=EventCounts())
    assert diagnose(Measurements((unread,), uncompressed=GOOD)) == []
    held = replace(answer([2.0], arrivals=(Arrival(2.0, 400),)), headers=brotli, readable=False, counts=EventCounts())
    measured = Measurements((held,), uncompressed=GOOD)
    assert rules(measured) == {"compressed": ("compression", "gzip_middleware")}
    assert rules(replace(measured, app_compresses=False)) == {"compressed": ("compression",)}
    assert rules(replace(measured, app_compresses=True)) == {"compressed": ("gzip_middleware",)}


@pytest.mark.parametrize(
    ("last", "first", "again"),
    [("5", "6", False), ("5", "0", True), ("5", "5", True), ("b", "a", True), ("b", "c", False), ("b", "x", False)],
)
def test_returning_reader_is_told_the_rest(last: str, first: str, again: bool) -> None:
    back = Reconnection(
        last, ("a", "b", "5"), answer([0.1], ended=Ending.STOPPED_EARLY, counts=EventCounts(1, ids=(first,)))
    )
    assert back.restarts is again
    assert ("restarts_on_reconnect" in rules(Measurements((GOOD,), reconnection=back))) is again


# Reading T


@pytest.mark.parametrize("setting", [1, 2, 15, 29, 30, 60, 100, 300])
@pytest.mark.parametrize("low", [-0.3, -0.2, -0.1, 0.0, 0.05])
def test_a_timeout_is_read_up_to_three_tenths_low(setting: int, low: float) -> None:
    assert timeout_behind(setting + low) == setting


@pytest.mark.parametrize("seconds", [1.3, 2.5, 7.4])
def test_a_timeout_that_is_no_whole_number(seconds: float) -> None:
    assert timeout_behind(seconds) == seconds


def test_the_proxy_whose_default_it_is_comes_first() -> None:
    for timeout, first in ((60.0, "nginx"), (100.0, "Cloudflare"), (30.0, "API Gateway")):
        finding = Finding("cut_after_silence", Level.FAULT, "", ("idle_timeout",), timeout=timeout)
        fixes = lines_for(finding, "idle_timeout")[1]
        assert next(fix.where for fix in fixes if fix.default) == first
        assert is_default(next(fix for fix in fixes if fix.default), timeout)
        assert f"every {timeout / 2:g} s" in fixes[0].lines


def test_every_cause_has_a_name_or_a_fix() -> None:
    assert all(cause.name or cause.fixes for cause in CAUSES.values())


# Counting events

SAMPLES = {
    "ours": (
        b': hi\n\nid: 0\ndata: {"text": "a"}\n\n: ping\n\nid: 1\ndata: {"text": "b"}\n\n'
        b'id: 2\nevent: done\ndata: {"status": "complete"}\n\n',
        EventCounts(3, 2, ("0", "1", "2"), "done", "complete"),
    ),
    "openai": (b'data: {"choices": []}\n\ndata: [DONE]\n\n', EventCounts(2, 0, (), "[DONE]")),
    "windows": (b"id: 0\r\ndata: a\r\n\r\nevent: done\r\ndata:\r\n\r\n", EventCounts(2, 0, ("0",), "done")),
    "old mac": (b"data: a\r\rdata: b\r\r", EventCounts(2)),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", EventCounts(1)),
    "cut in an event": (b"id: 0\ndata: a\n\nid: 1\ndata: b", EventCounts(1, 0, ("0",))),
    "no data, no event": (b"event: done\n\nid: 7\n\nretry: 5\n\n", EventCounts()),
    "failed": (b'event: error\ndata: {"status": "interrupted"}\n\n', EventCounts(1, 0, (), "error", "interrupted")),
    "a status that is text": (b'event: error\ndata: {"status": "my password"}\n\n', EventCounts(1, 0, (), "error")),
    "a status that is none": (
        b'event: error\ndata: ["status"]\n\nevent: error\ndata: {"status": [1]}\n\n',
        EventCounts(2, 0, (), "error"),
    ),
}


@pytest.mark.parametrize(("body", "events"), SAMPLES.values(), ids=SAMPLES)
def test_events_are_counted(body: bytes, events: EventCounts) -> None:
    counter = EventCounter()
    counter.feed(body)
    assert counter.counted == events


@given(st.sampled_from(list(SAMPLES.values())), st.lists(st.integers(0, 200), max_size=8))
def test_events_are_counted_wherever_the_bytes_break(sample: tuple[bytes, EventCounts], breaks: list[int]) -> None:
    body, events = sample
    counter = EventCounter()
    edges = [0, *sorted(min(each, len(body)) for each in breaks), len(body)]
    for start, end in pairwise(edges):
        counter.feed(body[start:end])
    assert counter.counted == events


def test_a_last_word_of_the_users_own_on_a_line_that_nothing_ends() -> None:
    counter = EventCounter("## THE END")
    counter.feed(b"some text\n## THE")
    assert not counter.counted.terminal
    counter.feed(b" END")
    assert counter.counted.terminal == "## THE END"


@given(st.binary(max_size=400), st.integers(1, 50))
def test_compressed_bodies_are_read_in_pieces(body: bytes, size: int) -> None:
    for encoding, bits in (("gzip", 31), ("deflate", 15)):
        packer = zlib.compressobj(wbits=bits)
        packed = packer.compress(body) + packer.flush()
        decompress = Decompressor(encoding)
        assert b"".join(decompress(packed[at : at + size]) for at in range(0, len(packed), size)) == body
        assert decompress.readable


def test_body_not_compressed_as_declared_is_not_read() -> None:
    decompress = Decompressor("gzip")
    assert decompress(b"plain") == b""
    assert not decompress.readable
    assert not Decompressor("br").readable
