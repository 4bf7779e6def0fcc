"""How an answer was delivered, judged by recorded arrivals alone: any pace, any jitter, held back or not."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_resilient_stream.doctor.endpoint.diagnosis import diagnose
from llama_index_resilient_stream.doctor.endpoint.findings import is_serious
from llama_index_resilient_stream.doctor.endpoint.measurements import (
    Arrival,
    BodyFormat,
    BodyKind,
    Ending,
    EventCounts,
    Framing,
    Measurements,
    Observation,
)
from llama_index_resilient_stream.doctor.endpoint.spans import came_at_once, is_lumpier, written_bit_by_bit

HEADERS = {"content-type": "text/event-stream", "x-accel-buffering": "no"}
TEXT = {"content-type": "text/plain", "x-content-type-options": "nosniff", "cache-control": "no-store, no-transform"}
SIZE = 45  # bytes of one event


@dataclass(frozen=True)
class Answer:
    """What a model wrote, and when: `pace` pieces a second after `wait` seconds."""

    pace: float
    count: int
    wait: float

    @property
    def written(self) -> list[float]:
        return [self.wait + number / self.pace for number in range(self.count)]


def late(times: list[float], jitter: float, seed: int) -> list[float]:
    """Each arrives up to `jitter` seconds late, and none overtakes another."""
    chance = random.Random(seed)
    return list(accumulate((time + chance.uniform(0, jitter) for time in times), max))


def buffered(times: list[float], size: int) -> list[float]:
    """What a buffer for so many pieces makes of them."""
    last = len(times) - 1
    return [times[min(number - number % size + size - 1, last)] for number in range(len(times))]


def dumped(times: list[float], seconds: float) -> list[float]:
    """All of it at the end, within so many seconds."""
    return [times[-1] + seconds * number / len(times) for number in range(len(times))]


def seen(times: list[float], *, beat: bool = False, headers: dict[str, str] = HEADERS) -> Observation:
    arrivals = [Arrival(time, SIZE, 1) for time in times]
    if headers is TEXT:
        arrivals = [Arrival(time, 5) for time in times]
    if beat:
        arrivals.insert(0, Arrival(0.01, 13))
    return Observation(
        Ending.CLEAN,
        times[-1],
        status=200,
        headers=headers,
        framing=Framing.CHUNKED,
        arrivals=tuple(arrivals),
        counts=EventCounts(len(times), int(beat), tuple(map(str, range(len(times)))), "done"),
        format=BodyFormat(BodyKind.EVENTS, pieces=len(times), longest_piece=8),
    )


paces = st.floats(5, 200)
waits = st.floats(0.0, 20)
seeds = st.integers(0, 10_000)
bodies = st.sampled_from([HEADERS, TEXT])


def answers(least: int) -> st.SearchStrategy[Answer]:
    return st.builds(Answer, paces, st.integers(least, 400), waits)


def faults(measurements: Measurements) -> list[str]:
    return [finding.rule for finding in diagnose(measurements) if is_serious(finding)]


@given(answers(1), st.floats(0, 0.015), seeds, st.booleans(), bodies)
def test_a_stream_is_healthy_at_any_pace(
    answer: Answer, jitter: float, seed: int, beat: bool, headers: dict[str, str]
) -> None:
    times = late(answer.written, jitter, seed)
    assert faults(Measurements((seen(times, beat=beat, headers=headers),))) == []


@given(answers(20), st.floats(0, 0.07), seeds)
def test_more_jitter_does_no_harm_to_a_longer_one(answer: Answer, jitter: float, seed: int) -> None:
    assert faults(Measurements((seen(late(answer.written, jitter, seed)),))) == []


@given(answers(1), answers(1), st.floats(0, 0.05), seeds)
def test_two_answers_of_different_length_and_pace_are_healthy(
    through: Answer, past: Answer, jitter: float, seed: int
) -> None:
    """As when a provider was busier for one of them."""
    both = (seen(late(each.written, jitter, seed)) for each in (through, past))
    assert not is_lumpier(*both)


@given(answers(12), st.floats(0, 0.003), st.booleans())
def test_what_is_held_to_its_end_is_named_at_any_pace(answer: Answer, seconds: float, beat: bool) -> None:
    times = dumped(answer.written, seconds)
    if times[0] >= 0.5:
        found = diagnose(Measurements((seen(times, beat=beat),)))
        assert [finding.rule for finding in found if is_serious(finding)] == ["one_block"]
        # A proxy that held it back would have held the heartbeat back as well.
        assert ("proxy_buffering" in found[0].causes) is not (beat and times[0] >= 0.5)


@given(answers(25), answers(25), st.floats(0, 0.02), seeds)
def test_a_path_that_holds_it_to_its_end_is_named_beside_the_direct_answer(
    through: Answer, past: Answer, jitter: float, seed: int
) -> None:
    held = seen(late(dumped(through.written, 0.002), 0.001, seed))
    direct = seen(late(past.written, jitter, seed))
    if held.arrivals[0].at >= past.wait + 0.5:
        assert "held_back" in faults(Measurements((held,), (direct,)))


@given(paces, st.integers(60, 400), st.integers(5, 100), st.floats(0, 0.02), seeds)
def test_a_buffer_on_the_way_is_named_beside_the_direct_answer(
    pace: float, count: int, size: int, jitter: float, seed: int
) -> None:
    """At any pace at which a reader can see it: the average piece waits for at least a fifth of a second."""
    answer = Answer(pace, count, 0.8)
    if size / pace > 0.4 and size <= count / 2:
        held = seen(late(buffered(answer.written, size), 0.001, seed))
        assert faults(Measurements((held,), (seen(late(answer.written, jitter, seed)),))) == ["held_back"]


@given(answers(25), st.integers(2, 60))
def test_an_application_that_writes_in_lumps_does_not_accuse_the_proxy(answer: Answer, size: int) -> None:
    lumps = seen(buffered(answer.written, size))
    causes = {cause for finding in diagnose(Measurements((lumps,), (lumps,))) for cause in finding.causes}
    assert "proxy_buffering" not in causes


@given(answers(1), answers(1), st.floats(0, 0.05), seeds)
def test_the_same_arrivals_give_the_same_judgement(a: Answer, b: Answer, jitter: float, seed: int) -> None:
    one, other = (seen(late(each.written, jitter, seed)) for each in (a, b))
    assert came_at_once(one) == came_at_once(replace(one))
    assert is_lumpier(one, other) == is_lumpier(replace(one), replace(other))


@pytest.mark.parametrize("pace", [5, 10, 20, 25, 50, 100, 150, 200])
@pytest.mark.parametrize("count", [12, 30, 150, 300])
def test_the_table_of_paces(pace: float, count: int) -> None:
    answer = Answer(pace, count, 0.8)
    flowing, held = seen(answer.written), seen(dumped(answer.written, 0.002))
    assert faults(Measurements((flowing,))) == []
    assert faults(Measurements((held,))) == ["one_block"]
    assert faults(Measurements((held,), (flowing,))) == ["held_back"]
    assert faults(Measurements((held,), (held,))) == ["one_block"]


@pytest.mark.parametrize(
    ("segments", "arrivals", "bit_by_bit"),
    [(28, 1, True), (2, 1, False), (4, 3, False), (0, 1, False), (0, 3, True)],
    ids=["many writes, read as one", "one write", "few", "not told, one read", "not told, several reads"],
)
def test_who_writes_event_by_event_is_told_from_who_passes_on_a_buffer(
    segments: int, arrivals: int, bit_by_bit: bool
) -> None:
    answer = replace(
        seen([2.0]), segments=segments, arrivals=(Arrival(2.0, 600 // arrivals, 25 // arrivals),) * arrivals
    )
    assert written_bit_by_bit(answer) is bit_by_bit
