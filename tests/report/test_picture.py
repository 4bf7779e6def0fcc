"""The timeline of a report, as a picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_resilient_stream import ResilientLLM
from llama_index_resilient_stream.report import (
    Attempt,
    Certainty,
    CircuitChange,
    CircuitState,
    FaultKind,
    JoinDecision,
    Joint,
    PassedOver,
    PassReason,
    Strategy,
    StreamReport,
    StreamStatus,
)
from llama_index_resilient_stream.testing import Cut, Fail, ScriptedLLM
from support.readers import QUICK, read

SVG = "{http://www.w3.org/2000/svg}"
TEXT = "The cable broke two miles down. They found both ends, joined them, and went on talking."


def drawn(report: StreamReport) -> ElementTree.Element:
    return ElementTree.fromstring(report.to_svg())


def words(report: StreamReport) -> str:
    return "\n".join(element.text or "" for element in drawn(report).iter(SVG + "text"))


def test_a_healed_answer() -> None:
    script = [Cut(after=18, error=ConnectionResetError()), Fail(TimeoutError()), Cut(after=60)]
    report = read(ResilientLLM(ScriptedLLM(TEXT, script=script), policy=QUICK)).report
    said = words(report)
    for expected in (
        "complete | 87 characters | 4 attempts",
        "18 characters, transport",
        "timeout",
        "truncated",
        "stop",
    ):
        assert expected in said
    joints = [path for path in drawn(report).iter(SVG + "path") if "joint" in path.get("class", "")]
    assert [path.find(SVG + "title").text for path in joints] == ["joined: anchor, verified"] * 2  # type: ignore[union-attr]


def test_no_text_of_the_answer_is_in_it() -> None:
    report = read(ResilientLLM(ScriptedLLM(TEXT, script=[Cut(after=18)]), policy=QUICK)).report
    assert "cable" not in report.to_svg()


def test_a_report_says_in_a_line_what_it_is() -> None:
    report = StreamReport(
        status=StreamStatus.COMPLETE, characters=87, seconds=1.5, attempts=[Attempt(1, "m", Strategy.FIRST, 0)]
    )
    assert repr(report) == "<StreamReport: complete | 87 characters | 1 attempt | 1.50 s>"


def test_the_timeline_is_in_the_order_of_time() -> None:
    report = StreamReport(
        attempts=[
            Attempt(1, "one", Strategy.FIRST, 0.1, ended=0.4, fault=FaultKind.SERVER, detail="503"),
            Attempt(2, "three", Strategy.FIRST, 0.6, ended=2, finish_reason="stop"),
        ],
        circuits=[CircuitChange("one", CircuitState.HALF_OPEN, 0.05), CircuitChange("one", CircuitState.OPEN, 0.4)],
        passed_over=[PassedOver("two", PassReason.CIRCUIT_OPEN, 0.5)],
    )
    assert [" ".join(line.split()) for line in str(report).splitlines()] == [
        "streaming | 0 characters | 2 attempts | 0.00 s | 1 model passed over",
        "0.05 s the circuit breaker of one is half open",
        "0.10 s #1 one: 0 characters",
        "0.40 s server: 503",
        "0.40 s the circuit breaker of one is open",
        "0.50 s two was passed over: circuit open",
        "0.60 s #2 three: 0 characters",
        "2.00 s finish: stop",
    ]


def test_a_notebook_shows_it() -> None:
    report = StreamReport()
    assert report._repr_svg_() == report.to_svg()


times = st.floats(0, 10_000, allow_nan=False)
attempts = st.builds(
    Attempt,
    number=st.integers(1, 9),
    model=st.text(max_size=40).filter(lambda text: text.isprintable()),
    strategy=st.sampled_from(Strategy),
    started=times,
    waited=times,
    first_token=st.none() | times,
    ended=st.none() | times,
    fault=st.none() | st.sampled_from(FaultKind),
    finish_reason=st.none() | st.sampled_from(["stop", "a<b>&"]),
)
joints = st.builds(
    Joint,
    attempt=st.integers(1, 9),
    position=st.integers(0, 99),
    strategy=st.sampled_from(Strategy),
    decision=st.sampled_from(JoinDecision),
    certainty=st.sampled_from(Certainty),
)


@given(st.lists(attempts, max_size=6), st.lists(joints, max_size=4), st.sampled_from(StreamStatus), times)
def test_any_report_is_drawn_inside_its_card(
    tried: list[Attempt], joined: list[Joint], status: StreamStatus, seconds: float
) -> None:
    root = drawn(StreamReport(attempts=tried, joints=joined, status=status, seconds=seconds))
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for element in root.iter():
        for name, limit in (("x", width), ("y", height)):
            if (value := element.get(name)) is not None:
                assert 0 <= float(value) <= limit
        if element.get("width") is not None and element is not root:
            assert float(element.get("x", "")) + float(element.get("width", "")) <= width


@pytest.mark.parametrize("status", StreamStatus, ids=str)
def test_an_answer_without_attempts_has_a_picture(status: StreamStatus) -> None:
    assert str(status) in words(StreamReport(status=status))
