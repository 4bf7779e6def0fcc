"""Who is told what, and what happens when the listener is the problem."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import (
    ConfigurationError,
    FaultEvent,
    RecoveryPolicy,
    ResilientLLM,
    ResumeEvent,
    StreamReport,
    StreamStatus,
    TokenEvent,
)
from llama_index_resilient_stream.testing import Cut, Fail, ScriptedLLM
from support.readers import QUICK, TEXT, Reader, aread, question, read

RESET = ConnectionResetError("reset")


class Diary:
    """Writes down everything."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def on_token(self, event: TokenEvent) -> None:
        self.entries.append(event)

    def on_fault(self, event: FaultEvent) -> None:
        self.entries.append(event)

    def on_resume(self, event: ResumeEvent) -> None:
        self.entries.append(event)

    def on_end(self, report: StreamReport) -> None:
        self.entries.append(report)


class AsyncDiary(Diary):
    async def on_token(self, event: TokenEvent) -> None:  # type: ignore[override]
        self.entries.append(event)

    async def on_end(self, report: StreamReport) -> None:  # type: ignore[override]
        self.entries.append(report)


def test_the_whole_story_in_order(reader: Reader) -> None:
    diary = Diary()
    llm = ScriptedLLM("One two three", [Cut(8, RESET)], token=4)
    result = reader(ResilientLLM(llm, policy=QUICK, callbacks=[diary]))
    kinds = [type(entry).__name__ for entry in diary.entries]
    assert kinds[:4] == ["TokenEvent", "TokenEvent", "FaultEvent", "ResumeEvent"]
    assert kinds[-1] == "StreamReport"
    fault, resume, report = diary.entries[2], diary.entries[3], diary.entries[-1]
    assert (fault.kind, fault.retryable, fault.characters, fault.attempt) == ("transport", True, 8, 1)
    assert (resume.strategy, resume.attempt, resume.characters, resume.delay) == ("ask", 2, 8, 0.0)
    assert report is result.report
    assert report.status is StreamStatus.COMPLETE
    assert report.seconds >= resume.seconds >= fault.seconds
    assert {entry.stream_id for entry in diary.entries} == {report.stream_id}


@pytest.mark.parametrize(("style", "certainty"), [("anchor", "verified"), ("exact", "unverified")])
def test_the_first_piece_of_a_continuation_says_how_it_was_joined(reader: Reader, style: str, certainty: str) -> None:
    diary = Diary()
    llm = ScriptedLLM("One two three", [Cut(8, RESET)], token=2, continuation_style=style)
    policy = replace(QUICK, unverified="show")
    result = reader(ResilientLLM(llm, policy=policy, callbacks=[diary]))
    told = [entry.joint for entry in diary.entries if isinstance(entry, TokenEvent) and entry.joint is not None]
    assert told == result.report.joints
    assert [(joint.attempt, joint.position, joint.certainty) for joint in told] == [(2, 8, certainty)]


async def test_coroutine_functions_on_an_async_stream() -> None:
    diary = AsyncDiary()
    result = await aread(ResilientLLM(ScriptedLLM("One two", [Cut(4, RESET)]), policy=QUICK, callbacks=[diary]))
    assert "".join(e.text for e in diary.entries if isinstance(e, TokenEvent)) == result.text == "One two"
    assert diary.entries[-1] is result.report


def test_a_coroutine_function_on_a_sync_stream_is_refused_when_it_is_opened() -> None:
    llm = ScriptedLLM(TEXT)
    with pytest.raises(ConfigurationError, match=r"on_token of .* is a coroutine function.*await llm\.astream_chat"):
        ResilientLLM(llm, callbacks=[AsyncDiary()]).stream_chat(question())
    assert not llm.calls


def test_a_bare_function_is_told_of_tokens(reader: Reader) -> None:
    texts: list[str] = []
    reader(ResilientLLM(ScriptedLLM(TEXT), callbacks=[lambda event: texts.append(event.text)]))
    assert "".join(texts) == TEXT


@pytest.mark.parametrize("hook", ["on_token", "on_fault", "on_resume", "on_end"])
def test_a_listener_that_raises_does_no_harm(reader: Reader, hook: str, caplog: pytest.LogCaptureFixture) -> None:
    listener = Diary()

    def broken(_event: Any) -> None:
        raise ZeroDivisionError("my own")

    setattr(listener, hook, broken)
    with caplog.at_level(logging.ERROR):
        result = reader(ResilientLLM(ScriptedLLM(TEXT, [Cut(9, RESET)]), policy=QUICK, callbacks=[listener]))
    assert result.text == TEXT
    assert f"stream callback {hook} raised" in caplog.text


@pytest.mark.parametrize("ending", ["complete", "interrupted", "cancelled"])
def test_the_end_is_told_exactly_once(reader: Reader, ending: str) -> None:
    diary = Diary()
    script = [Fail(RESET)] * 3 if ending == "interrupted" else []
    policy = RecoveryPolicy(stop=stop_after_attempt(2), wait=wait_none())
    llm = ResilientLLM(ScriptedLLM(TEXT, script), policy=policy, callbacks=[diary])
    reader(llm, take=2 if ending == "cancelled" else None)
    reports = [entry for entry in diary.entries if isinstance(entry, StreamReport)]
    assert [report.status.value for report in reports] == [ending]


@pytest.fixture
def dispatched() -> Iterator[list[Any]]:
    events: list[Any] = []

    class Handler(BaseEventHandler):
        @classmethod
        def class_name(cls) -> str:
            return "Handler"

        def handle(self, event: Any, **kwargs: Any) -> None:
            events.append(event)

    root, handler = get_dispatcher(), Handler()
    root.add_event_handler(handler)
    yield events
    # Not remove(): in core 0.10 a handler without fields equals every other one, LlamaIndex's own first of all.
    root.event_handlers[:] = [each for each in root.event_handlers if each is not handler]


def test_events_on_llamaindex_s_dispatcher(reader: Reader, dispatched: list[Any]) -> None:
    result = reader(ResilientLLM(ScriptedLLM(TEXT, [Cut(9, RESET)]), policy=QUICK))
    ours = [event for event in dispatched if event.class_name().startswith("Stream")]
    assert [event.class_name() for event in ours] == ["StreamFaultEvent", "StreamResumeEvent", "StreamEndEvent"]
    assert {event.stream_id for event in ours} == {result.report.stream_id}
    assert {event.span_id for event in ours} == {None}, "tracers that do not know them shall not warn"
    starts = [event for event in dispatched if event.class_name() == "LLMChatStartEvent"]
    assert len(starts) == 2, "the wrapped LLM's own, once per attempt"


def test_a_reset_is_announced_everywhere(reader: Reader, dispatched: list[Any]) -> None:
    tokens: list[TokenEvent] = []
    other = ScriptedLLM("Now for something different.", tool_calls=[("look", "{}")])
    first = ScriptedLLM("Let me see.", [Cut(6, RESET), Fail(RESET)])
    llm = ResilientLLM(first, fallbacks=[other], policy=QUICK, callbacks=[tokens.append])
    result = reader(llm, response_format={"type": "json_object"})
    reset = next(event for event in tokens if event.reset)
    assert reset.text.startswith("\n\n")
    marked = [chunk for chunk in result.chunks if chunk.additional_kwargs.get("resilient_reset")]
    assert len(marked) == 1
    assert result.whole == "Now for something different."
    assert result.report.resets == 1
    assert [event.class_name() for event in dispatched].count("StreamResetEvent") == 1


def test_one_line_in_the_log_per_recovery_and_no_text_of_the_user(caplog: pytest.LogCaptureFixture) -> None:
    llm = ScriptedLLM("Secret answer, told in pieces", [Cut(14, RESET), Cut(20)])
    with caplog.at_level(logging.DEBUG, "llama_index_resilient_stream"):
        read(ResilientLLM(llm, policy=QUICK))
    lines = [record.getMessage() for record in caplog.records if record.name == "llama_index_resilient_stream"]
    assert len(lines) == 2
    assert "Secret" not in caplog.text
    assert "mended" not in caplog.text


def test_the_report_is_a_timeline() -> None:
    llm = ScriptedLLM(TEXT, [Cut(40, RESET), Cut(90)])
    report = read(ResilientLLM(llm, policy=QUICK)).report
    text = str(report)
    assert text.startswith(f"complete | {len(TEXT)} characters | 3 attempts | ")
    assert "#1 scripted: 40 characters" in text
    assert "transport: ConnectionResetError" in text
    assert "#2 scripted, ask: 50 characters" in text
    assert "joined: anchor, 40 repeated characters dropped" in text
    assert "truncated: Incomplete stream response" in text
    assert "finish: stop" in text
    assert report.recovered
    assert report.faults == ["transport", "truncated"]
    assert sum(attempt.characters for attempt in report.attempts) == report.characters == len(TEXT)
    as_dict = report.to_dict()
    assert as_dict["status"] == "complete"
    assert len(as_dict["attempts"]) == 3


@pytest.mark.parametrize("hook", ["on_token", "on_fault", "on_resume", "on_end"])
def test_a_listener_that_raises_is_logged_once_per_stream(
    reader: Reader, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Diary(), Diary()

    def broken(_event: Any) -> None:
        raise ZeroDivisionError("my own")

    setattr(first, hook, broken)
    setattr(second, hook, broken)
    script = [Cut(n, RESET) for n in (9, 18, 27)]
    with caplog.at_level(logging.ERROR):
        reader(ResilientLLM(ScriptedLLM(TEXT, script), policy=QUICK, callbacks=[first, second]))
    assert caplog.text.count("Traceback") == 2
    assert len(first.entries) == len(second.entries) > 0, "they are still told the rest"


def test_a_coroutine_from_a_plain_function_is_logged_once_on_a_sync_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def told(_event: TokenEvent) -> None: ...

    with caplog.at_level(logging.ERROR):
        assert read(ResilientLLM(ScriptedLLM(TEXT), callbacks=[lambda event: told(event)])).text == TEXT
    assert caplog.text.count("TypeError: on_token returned a coroutine") == 1


def _generates(event: Any) -> Iterator[Any]:
    yield event


async def _agenerates(event: Any) -> Any:
    yield event


class Numbered(Diary):
    on_fault = 3  # type: ignore[assignment]


class TwoArguments(Diary):
    def on_end(self, report: StreamReport, more: int) -> None:  # type: ignore[override]
        ...


REFUSED = {
    "no-argument": (lambda: None, "on_token of .* cannot be called with one argument"),
    "two-arguments": (lambda _one, _two: None, "on_token of .* cannot be called with one argument"),
    "keyword-only": (lambda *, event: None, "on_token of .* cannot be called with one argument"),
    "method": (TwoArguments(), "on_end of .* cannot be called with one argument"),
    "generator": (_generates, "is a generator function"),
    "async-generator": (_agenerates, "is a generator function"),
    "number": (Numbered(), "on_fault of .* is no function"),
}


@pytest.mark.parametrize(("callback", "says"), REFUSED.values(), ids=REFUSED)
def test_a_hook_that_could_never_work_is_refused_at_once(callback: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        ResilientLLM(ScriptedLLM(TEXT), callbacks=[callback])
    with pytest.raises(ConfigurationError, match=says):
        ResilientLLM(ScriptedLLM(TEXT)).bind(callbacks=[callback])


@pytest.mark.parametrize("wrong", [3, "print", None], ids=repr)
def test_what_is_no_list_of_callbacks_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"callbacks is .*callbacks=\["):
        ResilientLLM(ScriptedLLM(TEXT), callbacks=wrong)


def test_one_object_will_do_as_callbacks(reader: Reader) -> None:
    diary = Diary()
    reader(ResilientLLM(ScriptedLLM(TEXT), callbacks=diary))  # type: ignore[arg-type]
    assert diary.entries


def test_a_finish_reason_that_nobody_knows_is_named_once(reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    llm = ResilientLLM(ScriptedLLM(TEXT, [Cut(20, finish_reason="weird_word")] * 2), policy=QUICK)
    assert [reader(llm).report.status for _ in range(2)] == ["unknown", "unknown"]
    assert sum("weird_word" in record.getMessage() for record in caplog.records) == 1
