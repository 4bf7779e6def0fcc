"""ResilientLLM is an LLM like any other."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from llama_index.core import PromptTemplate, Settings
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import ChatMessage, ChatResponse, MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import (
    ConfigurationError,
    Continuation,
    RecoveryPolicy,
    ResilientLLM,
    StreamInterruptedError,
    StreamStatus,
    TruncatedStreamError,
)
from llama_index_resilient_stream.llm.chunks import Reader as Reader_
from llama_index_resilient_stream.llm.models import model_of
from llama_index_resilient_stream.llm.question import Question
from llama_index_resilient_stream.providers import provider_of
from llama_index_resilient_stream.recovery.events import Learned
from llama_index_resilient_stream.testing import Cut, Fail, ScriptedLLM
from support.readers import QUICK, TEXT, Reader, question, read

KEY = "sk-very-secret"
RESET = ConnectionResetError("reset")


def test_resilient_llm_is_an_llm() -> None:
    names = [base.__name__ for base in ResilientLLM.__mro__]
    assert BaseLLM.__name__ in names
    assert FunctionCallingLLM.__name__ in names
    assert ResilientLLM.class_name() == "ResilientLLM"


@pytest.mark.parametrize("by_name", [True, False])
def test_resilient_llm_wraps_the_very_object(by_name: bool) -> None:
    inner = OpenAI(model="gpt-4o-mini", api_key=KEY, temperature=0.25)
    llm = ResilientLLM(llm=inner) if by_name else ResilientLLM(inner)
    assert llm.llm is inner
    assert llm.metadata == inner.metadata
    assert llm.model == "gpt-4o-mini"
    assert llm.temperature == 0.25
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = llm.no_such_thing


def test_resilient_llm_can_be_settings_llm() -> None:
    llm = ResilientLLM(ScriptedLLM("x"))
    before = Settings._llm
    try:
        Settings.llm = llm
        assert Settings.llm is llm
    finally:
        Settings._llm = before


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("gpt-4o-mini", r"str object.*ResilientLLM\(OpenAI"),
        (OpenAI, r"the class OpenAI.*ResilientLLM\(OpenAI"),
        (None, "NoneType object"),
        (ResilientLLM(MockLLM()), r"resilient already.*llm\.bind"),
    ],
    ids=["a-name", "a-class", "nothing", "twice"],
)
def test_what_is_no_llm_is_refused_with_the_line_that_fixes_it(wrong: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        ResilientLLM(wrong)
    with pytest.raises(ConfigurationError, match=says):
        ResilientLLM(MockLLM(), fallbacks=[wrong])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"policy": {"deadline": 3}}, "policy=RecoveryPolicy"),
        ({"continuation": "beg"}, "'auto', 'ask', 'prefill'"),
        ({"callbacks": [42]}, "on_token, on_fault"),
        ({"callbacks": [dict]}, "on_token, on_fault"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        ResilientLLM(MockLLM(), **settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"stop": 3}, "stop=tenacity.stop_after_attempt"),
        ({"wait": 1.0}, "wait=tenacity.wait_fixed"),
        ({"max_attempts": 0}, "whole number from 1"),
        ({"deadline": 0}, "deadline=None"),
        ({"idle_timeout": -1}, "idle_timeout=None"),
        ({"first_token_timeout": "soon"}, "first_token_timeout=None"),
        ({"completeness": "loose"}, "'auto', 'strict', 'lenient'"),
        ({"on_exhausted": "cry"}, "'raise', 'partial'"),
        ({"continue_on_length": -1}, "whole number from 0"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        RecoveryPolicy(**settings)


@pytest.mark.parametrize("settings", [{"strategy": "beg"}, {"anchor_length": 0}], ids=["strategy", "anchor-length"])
def test_a_continuation_that_cannot_work_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"'ask', 'prefill'|at least 1"):
        Continuation(**settings)


def test_no_credentials_anywhere() -> None:
    llm = ResilientLLM(
        OpenAI(model="gpt-4o-mini", api_key=KEY, default_headers={"x-key": KEY}),
        fallbacks=[OpenAILike(model="m", api_key=KEY)],
    )
    shown = [repr(llm), str(llm), json.dumps(llm.to_dict()), llm.to_json(), str(llm.dict()), llm.json()]
    if hasattr(llm, "to_payload"):
        shown.append(json.dumps(llm.to_payload(), default=str))
    for text in shown:
        assert KEY not in text


def test_prompt_fields_behave_as_on_the_wrapped_llm() -> None:
    inner = ScriptedLLM("Aye.", system_prompt="You are a pirate.")
    llm = ResilientLLM(inner)
    assert llm.predict(PromptTemplate("Hello {name}"), name="Ada") == "Aye."
    messages = inner.calls[0].messages
    assert [message.role.value for message in messages] == ["system", "user"]
    assert messages[0].content == "You are a pirate."


def test_the_callback_manager_reaches_the_wrapped_llms() -> None:
    inner, fallback = ScriptedLLM(TEXT, [Cut(40, RESET)]), ScriptedLLM(TEXT)
    llm = ResilientLLM(inner, fallbacks=[fallback], policy=QUICK)
    counter = TokenCountingHandler(tokenizer=str.split)
    manager = CallbackManager([counter])
    llm.callback_manager = manager
    assert inner.callback_manager is fallback.callback_manager is llm.callback_manager is manager
    assert read(llm).text == TEXT
    assert len(counter.llm_token_counts) == len(inner.calls) == 2  # each attempt once: what was paid


# Calls that are not streamed


@pytest.mark.parametrize("endpoint", ["chat", "complete", "achat", "acomplete"])
def test_calls_are_retried(endpoint: str) -> None:
    inner = ScriptedLLM("Whole.", [Fail(RESET), Fail(TimeoutError()), None])
    llm = ResilientLLM(inner, policy=QUICK)
    asked: Any = question() if "chat" in endpoint else "?"
    answer: Any = getattr(llm, endpoint)(asked)
    if endpoint.startswith("a"):
        answer = asyncio.run(answer)
    assert (answer.message.content if "chat" in endpoint else answer.text) == "Whole."
    assert len(inner.calls) == 3


@pytest.mark.parametrize("endpoint", ["chat", "acomplete"])
def test_a_call_that_fails_for_good_raises_the_original(endpoint: str) -> None:
    inner = ScriptedLLM("Whole.", [Fail(RESET)] * 9)
    llm = ResilientLLM(inner, policy=RecoveryPolicy(stop=stop_after_attempt(3), wait=wait_none()))
    ask = {"chat": lambda: llm.chat(question()), "acomplete": lambda: asyncio.run(llm.acomplete("?"))}[endpoint]
    with pytest.raises(ConnectionResetError) as caught:
        ask()
    assert caught.value is RESET
    assert any("gave up after 3 attempts" in note for note in caught.value.__notes__)
    assert len(inner.calls) == 3
    del caught.value.__notes__


def test_a_call_falls_back() -> None:
    first, second = ScriptedLLM("", [Fail(RESET)] * 9), ScriptedLLM("From the second.")
    llm = ResilientLLM(first, fallbacks=[second], policy=QUICK)
    assert llm.complete("?").text == "From the second."
    assert len(first.calls) == 2


def test_an_empty_answer_to_a_call_is_an_answer() -> None:
    assert ResilientLLM(ScriptedLLM("")).complete("?").text == ""


# Binding and resuming


def test_bound_for_one_request() -> None:
    inner = ScriptedLLM(TEXT, [Cut(40, RESET)], system_prompt="Be brief.")
    llm = ResilientLLM(inner, policy=QUICK)
    events: list[str] = []
    bound = llm.bind(callbacks=[lambda event: events.append(event.text)])
    assert bound.llm is inner
    assert bound.policy is llm.policy
    assert bound.system_prompt == "Be brief."
    assert bound._learned is llm._learned
    assert read(bound).text == "".join(events) == TEXT
    assert llm.callbacks == ()


def test_going_on_from_an_interrupted_answer(reader: Reader) -> None:
    inner = ScriptedLLM(TEXT, [Cut(50, RESET), Fail(RESET), Fail(RESET), Fail(RESET)])
    llm = ResilientLLM(inner, policy=QUICK)
    error = reader(llm).error
    assert isinstance(error, StreamInterruptedError)
    assert error.partial_text == TEXT[:50]
    chunks = list(llm.resume(error))
    assert error.partial_text + "".join(chunk.delta for chunk in chunks) == TEXT
    assert chunks[-1].message.content == TEXT
    assert inner.calls[-1].partial_text == TEXT[:50]


async def test_going_on_asynchronously() -> None:
    inner = ScriptedLLM(TEXT, [Cut(50, RESET), Fail(ValueError("a bug"))])
    llm = ResilientLLM(inner, policy=QUICK)
    stream: Any = await llm.astream_complete("?")
    with pytest.raises(StreamInterruptedError) as caught:
        async for _ in stream:
            pass
    resumed = await llm.aresume(caught.value)
    rest = "".join([chunk.delta async for chunk in resumed])
    assert caught.value.partial_text + rest == TEXT
    assert resumed.report.status is StreamStatus.COMPLETE


@pytest.mark.parametrize("said", [0, 1, 50, len(TEXT)])
@pytest.mark.parametrize("what", [question(), "How was it mended?"], ids=["messages", "prompt"])
async def test_going_on_from_a_text_alone(what: Any, said: int) -> None:
    """Another process has asked, and is gone."""
    inner = ScriptedLLM(TEXT, [Cut(30, RESET), None, Cut(30, RESET)])
    llm = ResilientLLM(inner, policy=QUICK)
    chunks = list(llm.resume(what, TEXT[:said]))
    resumed = await llm.aresume(what, TEXT[:said])
    achunks = [chunk async for chunk in resumed]
    assert inner.calls[0].partial_text == TEXT[:said]
    for each in (chunks, achunks):
        assert TEXT[:said] + "".join(chunk.delta for chunk in each) == TEXT
        last: Any = each[-1]
        assert (last.message.content if isinstance(what, list) else last.text) == TEXT
    # A model that is asked for the rest, and has none, may as well have stopped early. So it tells all of it again.
    assert resumed.report.status is StreamStatus.COMPLETE
    assert (resumed.report.attempts[-1].strategy == "restart") is (said == len(TEXT))


@pytest.mark.parametrize(
    "arguments",
    [(ValueError("other"),), (ValueError("x"), "text"), (question(),), ("prompt",), (["x"], "text"), (None, "")],
)
def test_sources_that_cannot_be_resumed(arguments: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"llm\.resume\(error\).*llm\.resume\(messages, text\)"):
        ResilientLLM(MockLLM()).resume(*arguments)


# What it makes of the question


@pytest.mark.parametrize(
    ("kwargs", "structured"),
    [
        ({}, False),
        ({"temperature": 0.1, "tools": []}, False),
        ({"tools": None, "tool_choice": None}, False),
        ({"tools": [{"type": "function"}]}, True),
        ({"functions": [{}]}, True),
        ({"response_format": {"type": "json_object"}}, True),
        ({"extra_body": {"guided_json": {"type": "object"}}}, True),
        ({"extra_body": {"top_k": 3}}, False),
        ({"text": {"format": {"type": "json_schema"}}}, True),
    ],
)
def test_turns_with_a_form_are_restarted(kwargs: dict[str, Any], structured: bool) -> None:
    assert Question(True, kwargs=kwargs).structured is structured


@pytest.mark.parametrize(
    ("model", "kwargs", "seconds"),
    [
        ("gpt-4o-mini", {}, 60.0),
        ("gpt-4o-mini", {"tools": [{}]}, 300.0),
        ("o3-mini", {}, 300.0),
        ("deepseek-reasoner", {}, 300.0),
        ("gpt-4o-mini", {"reasoning_effort": "high"}, 300.0),
    ],
)
def test_the_first_token_may_take_longer_where_the_model_thinks(
    model: str, kwargs: dict[str, Any], seconds: float
) -> None:
    llm = OpenAILike(model=model, api_key="x")
    described = model_of(llm, Question(True, kwargs=kwargs), RecoveryPolicy(), "auto", Learned())
    assert described.first_token_timeout == seconds


def test_the_wrapped_llm_s_own_retries_are_known() -> None:
    described = model_of(OpenAI(api_key="x"), Question(True), RecoveryPolicy(), "auto", Learned())
    assert described.own_retries == 3


def test_own_retries_are_warned_of_once_when_they_matter(caplog: pytest.LogCaptureFixture) -> None:
    class Retrying(ScriptedLLM):
        max_retries: int = 5

    llm = ResilientLLM(Retrying(TEXT, [Fail(RESET), Fail(RESET), None, Cut(9, RESET)]), policy=QUICK)
    with caplog.at_level(logging.WARNING, "llama_index_resilient_stream"):
        read(llm)
        read(llm)
    warnings = [record.message for record in caplog.records if "max_retries" in record.message]
    assert len(warnings) == 1
    assert "max_retries=0" in warnings[0]


def test_the_user_s_messages_are_not_touched(reader: Reader) -> None:
    messages = [ChatMessage(role="system", content="You are a parrot."), ChatMessage(role="user", content="Hello")]
    inner = ScriptedLLM(TEXT, [Cut(50, RESET)])
    llm = ResilientLLM(inner, policy=QUICK)
    assert "".join(chunk.delta for chunk in llm.stream_chat(messages)) == TEXT
    assert len(messages) == 2
    asked = inner.calls[1].messages
    assert list(asked[:2]) == messages
    assert [message.role.value for message in asked] == ["system", "user", "assistant", "user"]


def test_the_wording_is_the_user_s_to_change(reader: Reader) -> None:
    inner = ScriptedLLM(TEXT, [Cut(50, RESET)])
    wording = "Fahre fort. Beginne mit: {anchor}"
    result = reader(ResilientLLM(inner, policy=QUICK, continuation=Continuation(wording=wording)))
    assert result.text == TEXT
    last = inner.calls[1].messages[-1].content
    assert last is not None
    assert last.startswith("Fahre fort. Beginne mit: ")


def test_thinking_and_extras_pass_through_after_a_recovery(reader: Reader) -> None:
    inner = ScriptedLLM(TEXT, [Fail(RESET)], thinking="Hm, let me see. ")
    result = reader(ResilientLLM(inner, policy=QUICK))
    assert result.text == TEXT
    thoughts = [chunk.additional_kwargs.get("thinking_delta") or "" for chunk in result.chunks]
    assert "".join(thoughts) == "Hm, let me see. "


def test_function_calling_needs_a_function_calling_llm() -> None:
    llm = ResilientLLM(MockLLM())
    with pytest.raises(ConfigurationError, match=r"MockLLM cannot call functions.*ResilientLLM\(OpenAI"):
        llm.stream_chat_with_tools([], user_msg="?")
    response = MockLLM().chat(question())
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []


def test_the_mark_of_a_partial_answer_is_not_sent(reader: Reader) -> None:
    marked = ChatMessage(role="assistant", content="Half an", additional_kwargs={"resilient_partial": "interrupted"})
    inner = ScriptedLLM(TEXT, [Cut(50, RESET)])
    stream = ResilientLLM(inner, policy=QUICK).stream_chat([*question(), marked, *question("Go on?")])
    assert "".join(chunk.delta for chunk in stream) == TEXT
    for call in inner.calls:
        assert not any("resilient_partial" in message.additional_kwargs for message in call.messages)
    assert marked.additional_kwargs == {"resilient_partial": "interrupted"}, "the memory keeps it"


@pytest.mark.parametrize("shape", ["growing", "at-once"])
def test_streams_without_deltas_are_read_by_their_growth(reader: Reader, shape: str) -> None:
    pieces = ["Hello", "Hello world", "Hello world, all of it."] if shape == "growing" else ["Hello world, all of it."]

    class NoDeltas(ScriptedLLM):
        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            self.calls.append(None)  # type: ignore[arg-type]
            return (ChatResponse(message=ChatMessage(role="assistant", content=piece)) for piece in pieces)

        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            stream = self.stream_chat(messages)

            async def chunks() -> Any:
                for chunk in stream:
                    yield chunk

            return chunks()

    inner = NoDeltas("", sends_finish_reason=False)
    result = reader(ResilientLLM(inner, policy=QUICK))
    assert len(inner.calls) == 1
    assert result.report.status is StreamStatus.UNKNOWN
    assert result.report.characters == len("Hello world, all of it.")
    assert result.whole == "Hello world, all of it."


def test_a_form_asked_for_on_the_instance_is_restarted(reader: Reader) -> None:
    class Json(ScriptedLLM):
        json_mode: bool = True

    inner = Json('{"name": "Ada", "born": 1815}', [Cut(12, RESET)])
    result = reader(ResilientLLM(inner, policy=QUICK))
    assert result.text == '{"name": "Ada", "born": 1815}'
    assert [attempt.strategy for attempt in result.report.attempts] == ["first", "restart"]


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"no setting 'fallback'. Did you mean fallbacks="):
        ResilientLLM(MockLLM(), fallback=[MockLLM()])  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"deadline": 60}, r"policy=RecoveryPolicy\(deadline=\.\.\.\)"),
        ({"max_attempts": 3}, r"policy=RecoveryPolicy\(max_attempts=\.\.\.\)"),
        ({"max_retries": 3}, r"policy=RecoveryPolicy\(stop=tenacity\.stop_after_attempt\(3\)\)"),
        ({"fallbacks": ["gpt-4o"]}, r"got str object\. Write ResilientLLM\(.*fallbacks=\[OpenAI"),
    ],
    ids=["deadline", "attempts", "retries", "a fallback's name"],
)
def test_a_setting_in_the_wrong_place_is_answered_with_the_right_one(given: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigurationError, match=line):
        ResilientLLM(MockLLM(), **given)


@pytest.mark.parametrize("value", ["10s", timedelta(seconds=10), -1, True], ids=repr)
@pytest.mark.parametrize("name", ["deadline", "idle_timeout", "first_token_timeout"])
def test_a_time_limit_is_a_number_of_seconds(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name} must be a number of seconds above 0, not .* {name}=60"):
        RecoveryPolicy(**{name: value})


def test_one_function_will_do_as_callbacks() -> None:
    texts: list[str] = []
    read(ResilientLLM(ScriptedLLM("Hello"), callbacks=lambda event: texts.append(event.text)))  # type: ignore[arg-type]
    assert "".join(texts) == "Hello"


def test_copies_keep_the_default_patience() -> None:
    first, second = ScriptedLLM("", [Fail(RESET)] * 9), ScriptedLLM("Here.")
    llm = copy.deepcopy(ResilientLLM(first, fallbacks=[second], policy=QUICK))
    assert read(llm).text == "Here."
    assert len(first.calls) == 2


def test_a_thinking_block_that_grows_is_progress(reader: Reader) -> None:
    blocks = pytest.importorskip("llama_index.core.base.llms.types", reason="no blocks")
    if not hasattr(blocks, "ThinkingBlock"):
        pytest.skip("this core has no thinking blocks")
    reads = Reader_()
    progress = [
        reads.chat(
            ChatResponse(message=ChatMessage(role="assistant", blocks=[blocks.ThinkingBlock(content=text)]), delta="")
        ).progress
        for text in ("Hm", "Hm, so", "Hm, so")
    ]
    assert progress == [True, True, False]


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_a_cut_call_of_an_answer_that_is_not_streamed_is_refused(finish: str) -> None:
    inner = ScriptedLLM("", [Cut(12, finish_reason=finish)], tool_calls=[("pay", '{"amount": 1000}')])
    with pytest.raises(TruncatedStreamError, match="A tool call was cut"):
        ResilientLLM(inner, policy=QUICK).chat(question(), tools=[{"function": {"name": "pay"}}])


def test_a_refused_continuation_is_not_the_cause(reader: Reader) -> None:
    class Refused(Exception):
        status_code = 400

    # Each way to go on, and the question again.
    inner = ScriptedLLM(TEXT, [Cut(50, RESET), *[Fail(Refused())] * 4])
    error = reader(ResilientLLM(inner, policy=QUICK)).error
    assert error is not None
    assert error.__cause__ is RESET
    assert error.reason == "not_retryable"


def test_a_class_of_one_s_own_is_not_held_to_what_its_base_swallows() -> None:
    class Telling(MockLLM):
        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    assert provider_of(MockLLM).sends_finish_reason is not True
    assert provider_of(Telling).sends_finish_reason is None


@pytest.mark.parametrize("blank", ["\n\n", " ", "\n \t"], ids=repr)
def test_a_cut_behind_white_space_alone_asks_the_question_again(reader: Reader, blank: str) -> None:
    """Several APIs refuse a turn of white space, and there is nothing to go on from."""
    inner = ScriptedLLM(blank + TEXT, [Cut(len(blank))], token=1)
    result = reader(ResilientLLM(inner, policy=QUICK))
    assert result.text == blank + TEXT
    assert [attempt.strategy for attempt in result.report.attempts] == ["first", "restart"]
    assert (result.report.status, result.report.resets) == ("complete", 0)
