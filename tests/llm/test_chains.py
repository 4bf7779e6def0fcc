"""Chains of LLM objects: circuit breakers of the process, calls with tools that every class renders for itself."""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import (
    CircuitBreaker,
    CircuitEvent,
    RecoveryPolicy,
    ResilientLLM,
    StreamInterruptedError,
)
from llama_index_resilient_stream.llm.circuits import circuit_of
from llama_index_resilient_stream.llm.tool_choice import ToolChoice, choice_of
from llama_index_resilient_stream.testing import FAULTS, Fail, FaultServer, ScriptedLLM
from support.readers import TEXT, Reader, aread, openai_like

RESET = ConnectionResetError("reset")
POLICY = RecoveryPolicy(stop=stop_after_attempt(1), wait=wait_none(), breaker=CircuitBreaker(failures=2, seconds=60))


# Which LLM objects share a circuit


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        pytest.param({}, True, id="the-same"),
        pytest.param({"temperature": 0.9, "max_tokens": 7}, True, id="other-settings"),
        pytest.param({"model": "gpt-4o-mini"}, False, id="another-model"),
        pytest.param({"api_base": "http://other/v1"}, False, id="another-address"),
        pytest.param({"api_key": "sk-other"}, False, id="another-account"),
    ],
)
def test_a_circuit_belongs_to_a_model(other: dict[str, Any], shared: bool) -> None:
    settings = {"model": "gpt-4o", "api_key": "sk-secret", "api_base": "http://here/v1"}
    assert (circuit_of(OpenAI(**settings)) is circuit_of(OpenAI(**{**settings, **other}))) is shared


def test_it_is_the_class_s_own() -> None:
    settings = {"model": "m", "api_key": "k", "api_base": "http://here/v1"}
    assert circuit_of(OpenAILike(**settings)) is not circuit_of(OpenAI(**settings))


def test_an_llm_without_an_address_has_one_for_itself() -> None:
    assert circuit_of(ScriptedLLM(TEXT)) is not circuit_of(ScriptedLLM(TEXT))


def test_no_key_is_kept() -> None:
    from llama_index_resilient_stream.llm import circuits

    llm = OpenAI(model="m", api_key="sk-secret", api_base="http://user:sk-secret@here/v1?key=sk-secret")
    circuit_of(llm)
    assert "sk-secret" not in repr(circuits._circuits)


def test_copies_of_an_llm_share_it() -> None:
    llm = ResilientLLM(OpenAI(model="m", api_key="k", api_base="http://here/v1"), fallbacks=[ScriptedLLM(TEXT)])
    copied = copy.deepcopy(llm)
    assert copied._learned[0].circuit is llm._learned[0].circuit
    if hasattr(llm, "__pydantic_private__"):  # under core 0.10 a deep copy is made anew, by the LLM's settings
        assert copied._learned[1].circuit is llm._learned[1].circuit
    assert pickle.loads(pickle.dumps(llm._learned[0].circuit)).failures == 0


# As users see it


class Circuits:
    def __init__(self) -> None:
        self.events: list[CircuitEvent] = []

    def on_circuit(self, event: CircuitEvent) -> None:
        self.events.append(event)


def test_it_opens_for_all_answers_and_is_told(reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    dead, told = ScriptedLLM(TEXT, [Fail(RESET)] * 9), Circuits()
    llm = ResilientLLM(dead, fallbacks=[ScriptedLLM(TEXT)], policy=POLICY, callbacks=[told])
    with caplog.at_level(logging.WARNING):
        reports = [reader(llm).report for _ in range(5)]
    assert [len(report.attempts) for report in reports] == [2, 2, 1, 1, 1]
    assert [event.state for event in told.events] == ["open"]
    assert told.events[0].stream_id == reports[1].stream_id
    assert [each.reason for each in reports[2].passed_over] == ["circuit_open"]
    assert "is open" in caplog.text


def test_a_call_that_fails_notes_who_was_not_asked() -> None:
    def dead(name: str) -> ScriptedLLM:
        return ScriptedLLM(TEXT, [Fail(ConnectionResetError("reset")) for _ in range(9)], model=name)

    llm = ResilientLLM(dead("first"), fallbacks=[dead("second")], policy=POLICY)
    for _ in range(3):
        with pytest.raises(ConnectionResetError) as caught:
            llm.chat([ChatMessage(role="user", content="?")])
    assert "first was passed over: circuit open." in "".join(caught.value.__notes__)


def test_bind_exchanges_the_fallbacks(reader: Reader) -> None:
    dead, other = ScriptedLLM(TEXT, [Fail(RESET)] * 9), ScriptedLLM("Another one.")
    llm = ResilientLLM(dead, fallbacks=[ScriptedLLM(TEXT)], policy=POLICY)
    reader(llm), reader(llm)
    assert reader(llm.bind(fallbacks=[other])).text == "Another one."
    with pytest.raises(StreamInterruptedError):
        raise reader(llm.bind(fallbacks=())).error or AssertionError
    assert llm.fallbacks[0] is not other
    assert len(reader(llm).report.attempts) == 1, "what was learned stays"


def test_a_dead_primary_costs_the_reader_nothing(serve: Callable[..., FaultServer], reader: Reader) -> None:
    dead, healthy = serve(TEXT, ["http_503"] * 99), serve(TEXT)
    policy = RecoveryPolicy(stop=stop_after_attempt(1), wait=wait_none())

    def answer() -> None:
        """As an application asks, with objects that it makes for each request."""
        assert reader(ResilientLLM(openai_like(dead), fallbacks=[openai_like(healthy)], policy=policy)).text == TEXT

    for _ in range(5):
        answer()
    assert len(dead.requests) == 5
    for _ in range(10):
        answer()
    assert len(dead.requests) == 5, "nobody waits for what is known to be dead"


# Calls with tools


def pay(amount: int, to: str) -> str:
    """Pay."""
    return f"{amount} paid to {to}"


TOOLS = [FunctionTool.from_defaults(fn=pay)]
ARGUMENTS = {"amount": 1000, "to": "Ada"}


class Dialect(FunctionCallingLLM):
    """An LLM whose API has tools and calls in words of its own."""

    name: str = "one"
    down: bool = False
    window: int = 100_000
    calls_functions: bool = True
    seen: list[Any] = []  # noqa: RUF012 - a field

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            model_name=self.name,
            context_window=self.window,
            is_chat_model=True,
            is_function_calling_model=self.calls_functions,
        )

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[Any],
        user_msg: Any = None,
        chat_history: Any = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = chat_history or []
        if isinstance(user_msg, str):  # as Anthropic's class has it, and only then
            messages.append(ChatMessage(role="user", content=user_msg))
        made = {f"tools_{self.name}": [tool.metadata.name for tool in tools], f"must_{self.name}": tool_required}
        return {"messages": messages, **made, f"parallel_{self.name}": allow_parallel_tool_calls, **kwargs}

    def _asked(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> None:
        for keyword in kwargs:
            if not keyword.endswith(f"_{self.name}"):
                raise TypeError(f"create() got an unexpected keyword argument '{keyword}'")
        self.seen.append(([message.content for message in messages], kwargs))
        if self.down:
            raise ConnectionResetError("reset")

    def _answer(self) -> ChatResponse:
        message = ChatMessage(role="assistant", content="So:", additional_kwargs={f"call_{self.name}": ARGUMENTS})
        return ChatResponse(message=message, delta="", raw={"finish_reason": "stop"})

    def chat(self, messages: Any, **kwargs: Any) -> Any:
        self._asked(messages, kwargs)
        return self._answer()

    async def achat(self, messages: Any, **kwargs: Any) -> Any:
        return self.chat(messages, **kwargs)

    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        def gen() -> Iterator[ChatResponse]:
            self._asked(messages, kwargs)
            yield ChatResponse(message=ChatMessage(role="assistant", content="So:"), delta="So:")
            yield self._answer()

        return gen()

    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        async def gen() -> Any:
            for each in self.stream_chat(messages, **kwargs):
                yield each

        return gen()

    complete = acomplete = stream_complete = astream_complete = chat

    def get_tool_calls_from_response(
        self, response: Any, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        found = response.message.additional_kwargs.get(f"call_{self.name}")
        return [ToolSelection(tool_id="1", tool_name="pay", tool_kwargs=found)] if found else []


class Other(Dialect):
    name: str = "two"


def chain(**second: Any) -> tuple[ResilientLLM, Dialect, Dialect]:
    first, other = Dialect(down=True, seen=[]), Other(seen=[], **second)
    return ResilientLLM(first, fallbacks=[other], policy=POLICY), first, other


@pytest.fixture(params=["chat_with_tools", "stream_chat_with_tools", "achat_with_tools", "astream_chat_with_tools"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call a method for tools; of a stream the last response."""

    def call(llm: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(llm, request.param)
        if not request.param.startswith("a"):
            answer = method(*args, **kwargs)
            return list(answer)[-1] if "stream" in request.param else answer

        async def asked() -> Any:
            answer = await method(*args, **kwargs)
            return [each async for each in answer][-1] if "stream" in request.param else answer

        return asyncio.run(asked())

    return call


@pytest.mark.parametrize("user_msg", [None, "Pay her.", ChatMessage(role="user", content="Pay her.")], ids=repr)
def test_each_class_renders_the_call_and_reads_the_answer(ask: Callable[..., Any], user_msg: Any) -> None:
    llm, _, second = chain()
    history = [ChatMessage(role="user", content="Hello."), ChatMessage(role="assistant", content="Hello.")]
    answer = ask(llm, TOOLS, user_msg=user_msg, chat_history=history, tool_required=True)
    ((sent, kwargs),) = second.seen
    assert sent == ["Hello.", "Hello.", *(["Pay her."] if user_msg else [])]
    assert kwargs == {"tools_two": ["pay"], "must_two": True, "parallel_two": False}
    assert len(history) == 2, "the caller's list is the caller's"
    assert [call.tool_kwargs for call in llm.get_tool_calls_from_response(answer)] == [ARGUMENTS]
    assert answer.additional_kwargs["resilient_answered_by"] == "Other"


def test_the_wrapped_class_renders_and_reads_its_own(ask: Callable[..., Any]) -> None:
    llm, first, second = chain()
    first.down = False
    answer = ask(llm, TOOLS, user_msg="Pay her.")
    assert answer.additional_kwargs == {}
    assert [call.tool_kwargs for call in llm.get_tool_calls_from_response(answer)] == [ARGUMENTS]
    assert second.seen == []


def test_keywords_that_a_class_does_not_take_are_left_away(
    ask: Callable[..., Any], caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    llm, first, second = chain()
    mine = f"seed{abs(hash(request.node.name))}_one"
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            ask(llm, TOOLS, user_msg="Pay her.", **{mine: 7})
    assert first.seen[0][1][mine] == 7
    assert all(mine not in kwargs for _, kwargs in second.seen)
    assert len([each for each in caplog.records if mine in each.message]) == 1


def test_a_keyword_that_the_wrapped_class_does_not_take_is_the_caller_s_bug(ask: Callable[..., Any]) -> None:
    llm, _, second = chain()
    with pytest.raises(TypeError, match="sede"):
        ask(llm, TOOLS, user_msg="Pay her.", sede=7)
    assert second.seen == []


@pytest.mark.parametrize(
    ("second", "reason"),
    [({"calls_functions": False}, "no_tools"), ({"window": 5}, "context_window")],
    ids=["no-tools", "too-small"],
)
def test_who_cannot_take_it_is_not_asked(second: dict[str, Any], reason: str) -> None:
    llm, _, other = chain(**second)
    stream = llm.stream_chat_with_tools(TOOLS, user_msg="Pay her, and tell her that it is for the cable.")
    with pytest.raises(StreamInterruptedError) as caught:
        list(stream)
    assert other.seen == []
    assert [each.reason for each in stream.report.passed_over] == [reason]  # type: ignore[attr-defined]
    assert isinstance(caught.value.__cause__, ConnectionResetError)


@pytest.mark.parametrize("name", ["predict_and_call", "apredict_and_call"])
def test_predict_and_call(name: str) -> None:
    llm, _, _ = chain()
    made = getattr(llm, name)(TOOLS, user_msg="Pay her.")
    assert str(asyncio.run(made) if name.startswith("a") else made) == "1000 paid to Ada"


@pytest.mark.parametrize(
    ("said", "required", "read"),
    [
        (None, False, ToolChoice("auto", said=False)),
        (None, True, ToolChoice("required", said=False)),
        ("auto", True, ToolChoice("auto")),
        ("none", True, ToolChoice("none")),
        ("required", False, ToolChoice("required")),
        ("any", False, ToolChoice("required")),
        ("pay", False, ToolChoice("tool", "pay")),
        ({"type": "function", "function": {"name": "pay"}}, False, ToolChoice("tool", "pay")),
        ({"type": "function", "name": "pay"}, False, ToolChoice("tool", "pay")),
        ({"type": "tool", "name": "pay"}, False, ToolChoice("tool", "pay")),
        ({"type": "any"}, False, ToolChoice("required")),
        ({"type": "none"}, False, ToolChoice("none")),
        ({"tool": {"name": "pay"}}, False, ToolChoice("tool", "pay")),
        ({"any": {}}, False, ToolChoice("required")),
        ({"auto": {}}, False, ToolChoice("auto")),
    ],
    ids=str,
)
def test_a_choice_is_read_in_every_provider_s_words(said: Any, required: bool, read: ToolChoice) -> None:
    assert choice_of(said, tool_required=required) == read


# Under load


@pytest.mark.slow
def test_200_answers_while_the_primary_dies_recovers_and_dies(serve: Callable[..., FaultServer]) -> None:
    state = {"dead": False}
    call = ("pay", '{"amount": 1000, "to": "Ada"}')
    primary = serve(TEXT, tool_call=call)
    primary._faults = (FAULTS["http_503"] if state["dead"] else None for _ in itertools.repeat(None))
    fallback = serve(TEXT, tool_call=call)
    breaker = CircuitBreaker(failures=5, seconds=1)
    policy = RecoveryPolicy(stop=stop_after_attempt(1), wait=wait_none(), breaker=breaker)
    answers: list[Any] = []

    def chain() -> ResilientLLM:
        models = [openai_like(each, is_function_calling_model=True, timeout=60.0) for each in (primary, fallback)]
        return ResilientLLM(models[0], fallbacks=[models[1]], policy=policy)

    async def one(llm: ResilientLLM, number: int) -> None:
        if number % 4:
            answers.append((await aread(llm)).text == TEXT)
            return
        stream = await llm.astream_chat_with_tools(TOOLS, user_msg="Pay her.")
        last = [chunk async for chunk in stream][-1]
        answers.append(llm.get_tool_calls_from_response(last)[0].tool_kwargs == ARGUMENTS)

    async def phase(llm: ResilientLLM, dead: bool, count: int) -> tuple[int, float]:
        """How many requests went to the primary, and how long it took."""
        state["dead"], before, began = dead, len(primary.requests), time.monotonic()
        for start in range(0, count, 20):  # twenty at a time
            await asyncio.gather(*(one(llm, number) for number in range(start, start + 20)))
        return len(primary.requests) - before, time.monotonic() - began

    async def run() -> list[tuple[int, float]]:
        llm = chain()
        made = [await phase(llm, False, 40), await phase(llm, True, 60)]
        state["dead"] = False
        await asyncio.sleep(breaker.seconds)
        made += [await phase(llm, False, 40), await phase(llm, True, 60)]
        for each in (llm.llm, *llm.fallbacks):
            await each._aclient.close()  # type: ignore[attr-defined]
        return made

    phases = asyncio.run(run())
    assert answers == [True] * 200
    for requests, seconds in (phases[1], phases[3]):
        assert requests <= 20 + seconds / breaker.seconds + 1, (
            "those that were under way when it opened, and the probes"
        )
    assert phases[0][0] == 40
    assert phases[2][0] >= 20, "it is asked again when it is back"
