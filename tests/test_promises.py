"""The promises, as properties: any text, any cuts, sync and async.

P1 no silent truncation   P2 append-only           P3 one answer            P4 cut calls never execute
P5 leaving is no fault    P6 giving up is honest   P7 budgets hold          P8 a healthy stream is left alone
"""

from __future__ import annotations

import json
import threading
from typing import Any, ClassVar

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from llama_index.core.llms import MessageRole
from tenacity import stop_after_attempt, stop_never, wait_none

from llama_index_resilient_stream import (
    RecoveryPolicy,
    ResilientLLM,
    StreamInterruptedError,
    StreamStatus,
    TokenEvent,
)
from llama_index_resilient_stream.recovery.continuation import anchor_of
from llama_index_resilient_stream.recovery.ending import is_unfinished
from llama_index_resilient_stream.testing import Cut, Fail, ScriptedLLM
from support.readers import QUICK, Read, Reader, question

ERRORS = [ConnectionResetError("reset"), TimeoutError("slow"), json.JSONDecodeError("bad", "{", 1), None]

PATIENT = RecoveryPolicy(stop=stop_never, wait=wait_none(), max_attempts=200)
ENDED = set(StreamStatus) - {StreamStatus.STREAMING}

texts = st.one_of(
    st.text(min_size=1, max_size=200),
    st.text(alphabet="ab. \n", min_size=1, max_size=120),
    st.lists(
        st.sampled_from(["alpha", "beta.", "Gamma", "日本語。", "👩‍🚀", "\n\n", "| a | b |\n", "```py\n"]), min_size=1
    ).map(" ".join),
)  # fmt: skip


def apart(script: list[Cut]) -> list[Cut]:
    """No two silent cuts in a row: a second round that ends by itself and adds nothing ends the model's turn."""
    return [Cut(cut.after, cut.error if i % 2 else ERRORS[0]) for i, cut in enumerate(script)]


def assert_ended_well(result: Read, text: str) -> None:
    """Complete; or unknown where all had been said before the cut, and who writes on may have stopped half-way."""
    last = result.report.attempts[-1]
    added = text[len(text) - last.characters :]
    doubtful = last.strategy == "ask" or is_unfinished(text)
    unknown = last.number > 1 and last.strategy != "restart" and not added.strip() and doubtful
    assert result.report.status is (StreamStatus.UNKNOWN if unknown else StreamStatus.COMPLETE)


cuts = st.lists(st.builds(Cut, st.integers(0, 120), st.sampled_from(ERRORS)), max_size=6).map(apart)
tokens = st.integers(1, 9)


@given(text=texts, script=cuts, token=tokens)
@example(text="◁think▷", script=apart([Cut(1, ERRORS[0])]), token=1)
@settings(max_examples=150)
@pytest.mark.parametrize("endpoint", ["chat", "complete"])
def test_p2_the_reader_sees_the_text_when_the_model_repeats_the_anchor(
    reader: Reader, endpoint: str, text: str, script: list[Cut], token: int
) -> None:
    llm = ScriptedLLM(text, script, continuation_style="anchor", token=token)
    result = reader(ResilientLLM(llm, policy=PATIENT), endpoint=endpoint)
    assert result.text == text
    assert_ended_well(result, text)
    assert result.whole == text


@given(words=st.lists(st.integers(0, 10_000), min_size=1, max_size=60, unique=True), script=cuts, token=tokens)
@settings(max_examples=150)
def test_p2_the_reader_sees_the_text_when_the_model_continues_exactly(
    reader: Reader, words: list[int], script: list[Cut], token: int
) -> None:
    text = " ".join(f"w{word:x}" for word in words)
    partial_text = ""
    for cut in script:  # where each continuation begins, if all is well
        partial_text = text[: len(partial_text) + (cut.after or 0)]
        assume(not partial_text or not text[len(partial_text) :].startswith(anchor_of(partial_text)))
    llm = ScriptedLLM(text, script, continuation_style="exact", token=token)
    result = reader(ResilientLLM(llm, policy=PATIENT))
    assert result.text == text


@given(text=texts, script=cuts, token=tokens)
@settings(max_examples=100)
def test_p2_a_completion_model_goes_on_from_its_own_words(
    reader: Reader, text: str, script: list[Cut], token: int
) -> None:
    llm = ScriptedLLM(text, script, continuation_style="exact", token=token, chat=False)
    result = reader(ResilientLLM(llm, policy=PATIENT), endpoint="complete")
    assert_ended_well(result, result.text)
    assert len(result.text) >= len(text.rstrip()) or result.text == text


@given(text=texts, script=cuts, token=tokens)
@settings(max_examples=100)
def test_p3_one_growing_message(reader: Reader, text: str, script: list[Cut], token: int) -> None:
    llm = ScriptedLLM(text, script, token=token, usage=True)
    result = reader(ResilientLLM(llm, policy=PATIENT))
    seen = ""
    for chunk in result.chunks:
        seen += chunk.delta or ""
        assert chunk.message.role == MessageRole.ASSISTANT
        assert (chunk.message.content or "") == seen


@given(
    text=texts,
    script=st.lists(
        st.one_of(
            st.none(),
            st.builds(Fail, st.sampled_from(ERRORS[:3])),
            st.builds(Cut, st.integers(0, 90), st.sampled_from([*ERRORS, ValueError("our own bug")])),
            st.builds(Cut, st.integers(0, 90), st.none(), st.sampled_from(["length", "content_filter", "error"])),
        ),
        max_size=8,
    ),
    sends_finish_reason=st.booleans(),
    completeness=st.sampled_from(["auto", "strict", "lenient"]),
    on_exhausted=st.sampled_from(["raise", "partial"]),
)
@settings(max_examples=200)
def test_p1_every_stream_ends_in_a_stated_outcome(
    reader: Reader, text: str, script: Any, sends_finish_reason: bool, completeness: Any, on_exhausted: Any
) -> None:
    policy = RecoveryPolicy(wait=wait_none(), completeness=completeness, on_exhausted=on_exhausted)
    llm = ScriptedLLM(text, script, sends_finish_reason=sends_finish_reason)
    result = reader(ResilientLLM(llm, policy=policy))
    status = result.report.status
    assert status in ENDED
    if status is not StreamStatus.UNKNOWN:  # a silent cut inside the anchor looks like a very short rest
        assert text.startswith(result.text), "append-only, and nothing but the text"
    if status is StreamStatus.COMPLETE:
        assert result.text == text
    if status is StreamStatus.INTERRUPTED:
        assert (result.error is not None) == (on_exhausted == "raise")
    else:
        assert result.error is None
    assert llm.open_streams == 0
    # P7, with the default patience
    assert len(llm.calls) <= 16
    # P6
    if result.error is not None:
        assert result.error.partial_text == result.text
        assert result.error.report is result.report
        assert result.error.__cause__ is not None


def test_p1_unknown_is_never_called_complete(reader: Reader) -> None:
    llm = ScriptedLLM("A whole answer.", sends_finish_reason=False)
    result = reader(ResilientLLM(llm))
    assert result.text == "A whole answer."
    assert result.report.status is StreamStatus.UNKNOWN
    assert len(llm.calls) == 1


def test_p1_a_model_that_has_told_once_is_held_to_it(reader: Reader) -> None:
    class Custom(ScriptedLLM):
        sends_finish_reason: ClassVar[None] = None  # type: ignore[assignment]  # a class that nobody knows

    llm = ResilientLLM(Custom("An answer of some length.", [None, Cut(after=8)]), policy=QUICK)
    assert reader(llm).report.status is StreamStatus.COMPLETE
    healed = reader(llm)
    assert healed.text == "An answer of some length."
    assert healed.report.faults == ["truncated"]


@given(
    arguments=st.dictionaries(st.text(max_size=8), st.integers(), min_size=1, max_size=4),
    after=st.integers(0, 60),
    error=st.sampled_from(ERRORS),
)
@settings(max_examples=60)
def test_p4_a_cut_tool_call_is_never_the_last_word(
    reader: Reader, arguments: dict[str, int], after: int, error: Exception | None
) -> None:
    whole = json.dumps(arguments)
    llm = ScriptedLLM("", [Cut(after, error)], tool_calls=[("pay", whole)])
    result = reader(ResilientLLM(llm, policy=QUICK), tools=[{"function": {"name": "pay"}}])
    calls = result.chunks[-1].message.additional_kwargs["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == [whole]
    assert result.report.status is StreamStatus.COMPLETE


@pytest.mark.parametrize("after", range(1, 16))
def test_p4_not_even_in_a_class_that_never_tells(reader: Reader, after: int) -> None:
    llm = ScriptedLLM(
        "", [Cut(after)], tool_calls=[("pay", '{"amount": 1000}')], sends_finish_reason=False, token=after
    )
    policy = RecoveryPolicy(stop=stop_after_attempt(1))
    result = reader(ResilientLLM(llm, policy=policy), tools=[{"function": {"name": "pay"}}])
    assert result.report.status is StreamStatus.INTERRUPTED
    assert result.error is not None


@pytest.mark.parametrize("sends_finish_reason", [True, False])
def test_p4_a_cut_tool_call_is_not_the_last_word_when_given_up(reader: Reader, sends_finish_reason: bool) -> None:
    cut = Cut(12)
    policy = RecoveryPolicy(stop=stop_after_attempt(2), wait=wait_none(), on_exhausted="partial")
    llm = ScriptedLLM("", [cut] * 4, tool_calls=[("pay", '{"amount": 1000}')], sends_finish_reason=sends_finish_reason)
    result = reader(ResilientLLM(llm, policy=policy), tools=[{"function": {"name": "pay"}}])
    assert result.report.status is StreamStatus.INTERRUPTED
    last = result.chunks[-1]
    assert not last.message.additional_kwargs.get("tool_calls")
    assert last.additional_kwargs["resilient_status"] == "interrupted"


@given(text=st.text(min_size=20, max_size=80), take=st.integers(1, 5), script=cuts)
@settings(max_examples=60)
def test_p5_leaving_is_no_fault(reader: Reader, text: str, take: int, script: list[Cut]) -> None:
    before = threading.active_count()
    llm = ScriptedLLM(text, script, token=2)
    result = reader(ResilientLLM(llm, policy=PATIENT), take=take)
    calls = len(llm.calls)
    assert len(result.chunks) == take
    assert result.report.status is StreamStatus.CANCELLED
    assert llm.open_streams == 0
    assert len(llm.calls) == calls
    assert threading.active_count() <= before


@given(
    limit=st.integers(1, 6),
    cut=st.builds(Cut, st.integers(0, 3), st.sampled_from(ERRORS)),
    fallbacks=st.integers(0, 2),
)
@settings(max_examples=60)
def test_p7_attempts_are_bounded_over_all_models(reader: Reader, limit: int, cut: Cut, fallbacks: int) -> None:
    models = [ScriptedLLM("some longer text", [cut] * 99, token=1) for _ in range(fallbacks + 1)]
    policy = RecoveryPolicy(stop=stop_never, wait=wait_none(), max_attempts=limit)
    result = reader(ResilientLLM(models[0], fallbacks=models[1:], policy=policy))
    assert sum(len(model.calls) for model in models) <= limit
    assert len(result.report.attempts) <= limit


@given(budget=st.integers(1, 400), after=st.integers(1, 40))
@settings(max_examples=60)
def test_p7_extra_tokens_are_bounded(reader: Reader, budget: int, after: int) -> None:
    text = "word " * 200
    llm = ScriptedLLM(text, [Cut(after, ConnectionResetError())] * 99)
    policy = RecoveryPolicy(stop=stop_never, wait=wait_none(), max_attempts=99, max_extra_tokens=budget)
    result = reader(ResilientLLM(llm, policy=policy))
    spent = sum(len(call.partial_text) // 4 for call in llm.calls[1:])
    assert spent <= budget
    assert result.report.reason in ("extra_tokens", "attempts", "")


def test_p8_a_healthy_stream_passes_untouched(reader: Reader) -> None:
    given_out: list[Any] = []

    class Recording(ScriptedLLM):
        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            for chunk in super().stream_chat(messages, **kwargs):
                given_out.append(chunk)
                yield chunk

        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            async def chunks() -> Any:
                async for chunk in await super(Recording, self).astream_chat(messages, **kwargs):
                    given_out.append(chunk)
                    yield chunk

            return chunks()

    result = reader(ResilientLLM(Recording("One token at a time, as it was given.", usage=True)))
    assert [id(chunk) for chunk in result.chunks] == [id(chunk) for chunk in given_out]


def test_p8_nothing_is_read_ahead() -> None:
    llm = ScriptedLLM("0123456789", token=1)
    stream = ResilientLLM(llm).stream_chat(question())
    for count in range(1, 5):
        next(stream)
        assert len(llm.calls[0].sent) == count
    stream.close()


def test_token_events_are_what_the_reader_sees(reader: Reader) -> None:
    events: list[TokenEvent] = []
    text = "Something that is told in several pieces, and cut twice on its way."
    llm = ScriptedLLM(text, [Cut(20, ConnectionResetError()), Cut(30)])
    result = reader(ResilientLLM(llm, policy=QUICK, callbacks=[events.append]))
    assert "".join(event.text for event in events) == result.text == text
    assert [event.index for event in events] == list(range(len(events)))
    assert {event.attempt for event in events} == {1, 2, 3}
    assert len({event.stream_id for event in events}) == 1
    assert [event.seconds for event in events] == sorted(event.seconds for event in events)


def test_giving_up_keeps_the_very_exception(reader: Reader) -> None:
    cause = ConnectionResetError("the cable is cut")
    llm = ScriptedLLM("Some words of an answer.", [Cut(8, cause)] + [Fail(cause)] * 9)
    result = reader(ResilientLLM(llm, policy=QUICK))
    assert isinstance(result.error, StreamInterruptedError)
    assert result.error.__cause__ is cause
    assert result.error.partial_text == "Some wor"
    assert result.error.retryable
