"""Tool calls: cut ones are never handed out, and LLMs that call functions without LlamaIndex's base class work."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata, MessageRole
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.tools import FunctionTool

from llama_index_resilient_stream import ConfigurationError, ResilientLLM, StreamInterruptedError
from llama_index_resilient_stream.compat.llama_index import HAS_BLOCKS
from llama_index_resilient_stream.llm.chunks import Reader
from llama_index_resilient_stream.llm.tool_calls import (
    RepairedArguments,
    arguments_are_whole,
    has_cut_calls,
    without_cut_calls,
)
from llama_index_resilient_stream.recovery.finish_reasons import OPEN
from llama_index_resilient_stream.testing import Cut, Fail, ScriptedLLM
from support.readers import QUICK

try:
    from llama_index.core.base.llms.types import ToolCallBlock
except ImportError:  # came in 0.14.3
    ToolCallBlock = None  # type: ignore[assignment,misc]

# Of LlamaIndex's agents: what they still call, and a database and an event loop that they do not close.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings(
        r"ignore:Exception ignored in. <(function (Connection|BaseEventLoop)|socket.socket fd=\d+, family=1,)"
        ":pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture(autouse=True, scope="module")
def garbage() -> Iterator[None]:
    """What LlamaIndex does not close shall complain here, where that is ignored."""
    yield
    gc.collect()


RESET = ConnectionResetError("reset")
ARGUMENTS = '{"amount": 1000, "to": "Ada"}'
PAID = [{"amount": 1000, "to": "Ada"}]
CUTS = [1, 12, ARGUMENTS.index("0, "), ARGUMENTS.index(', "to"'), len(ARGUMENTS) - 1]


@pytest.mark.parametrize(
    ("arguments", "whole"),
    [
        ("", True),
        (" \n", True),
        (None, True),
        ({}, True),
        ({"a": 1}, True),
        ("{}", True),
        (' {"a": 1}\n', True),
        ('{"a": "line\nbreak"}', True),
        ('{"a": 1', False),
        ('{"a"', False),
        ("{", False),
        ('{"a": 1} {"a"', False),
        ("1", False),
        ("[1]", False),
        ('"a"', False),
        ([1], False),
        (RepairedArguments({"a": 1}), False),
        (RepairedArguments(), False),
    ],
    ids=repr,
)
def test_whether_arguments_are_whole(arguments: Any, whole: bool) -> None:
    assert arguments_are_whole(arguments) is whole


# Where the arguments of a call are found


def in_dicts(*arguments: Any) -> ChatMessage:
    calls = [
        {"id": str(i), "type": "function", "function": {"name": "pay", "arguments": a}} for i, a in enumerate(arguments)
    ]
    return ChatMessage(role=MessageRole.ASSISTANT, content="", additional_kwargs={"tool_calls": calls})


def in_objects(*arguments: Any) -> ChatMessage:
    calls = [SimpleNamespace(id="1", function=SimpleNamespace(name="pay", arguments=a)) for a in arguments]
    return ChatMessage(role=MessageRole.ASSISTANT, content="", additional_kwargs={"tool_calls": calls})


def as_inputs(*arguments: Any) -> ChatMessage:
    calls = [{"id": "1", "name": "pay", "input": a} for a in arguments]
    return ChatMessage(role=MessageRole.ASSISTANT, content="", additional_kwargs={"tool_calls": calls})


def in_blocks(*arguments: Any) -> ChatMessage:
    blocks = [ToolCallBlock(tool_call_id="1", tool_name="pay", tool_kwargs=a) for a in arguments]
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)


IN_BLOCKS = pytest.param(in_blocks, marks=pytest.mark.skipif(ToolCallBlock is None, reason="no tool call blocks here"))
SHAPES = pytest.mark.parametrize(
    "shape",
    [
        in_dicts,
        in_objects,
        as_inputs,
        IN_BLOCKS,
    ],
)


def count(message: ChatMessage) -> int:
    blocks = message.blocks if HAS_BLOCKS else []
    calls = [block for block in blocks if type(block).__name__ == "ToolCallBlock"]
    return len(message.additional_kwargs.get("tool_calls", [])) + len(calls)


@SHAPES
def test_cut_calls_are_left_out(shape: Callable[..., ChatMessage]) -> None:
    response = ChatResponse(message=shape(ARGUMENTS, ARGUMENTS[:12], "", {"a": 1}))
    assert count(without_cut_calls(response).message) == 3
    assert count(response.message) == 4, "the response itself stays as it is"


@SHAPES
def test_a_response_of_whole_calls_is_passed_on_as_it_is(shape: Callable[..., ChatMessage]) -> None:
    response = ChatResponse(message=shape(ARGUMENTS, f" {ARGUMENTS}\n", ""))
    assert without_cut_calls(response) is response


def test_a_cut_function_call_of_the_old_kind_is_left_out() -> None:
    extra = {"function_call": {"name": "pay", "arguments": ARGUMENTS[:9]}}
    response = ChatResponse(message=ChatMessage(role="assistant", content="", additional_kwargs=extra))
    assert without_cut_calls(response).message.additional_kwargs == {}


# What ResilientLLM hands out


class Till:
    def __init__(self) -> None:
        self.paid: list[dict[str, Any]] = []
        self.tool = FunctionTool.from_defaults(fn=self.pay, name="pay")

    def pay(self, amount: int, to: str = "nobody") -> str:
        """Pay somebody."""
        self.paid.append({"amount": amount, "to": to})
        return "paid"


@pytest.fixture
def till() -> Till:
    return Till()


@pytest.fixture(params=["sync", "async"])
def twin(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(llm: Any, method: str, twin: str, *args: Any, **kwargs: Any) -> Any:
    if twin == "sync":
        answer = getattr(llm, method)(*args, **kwargs)
        return list(answer) if method.startswith("stream") else answer

    async def ask() -> Any:
        answer = await getattr(llm, f"a{method}")(*args, **kwargs)
        return [each async for each in answer] if method.startswith("stream") else answer

    return asyncio.run(ask())


def paying(script: Any = (), arguments: str = ARGUMENTS) -> ScriptedLLM:
    return ScriptedLLM("Done.", script, tool_calls=[("pay", arguments)])


def test_no_chunk_of_a_stream_hands_out_half_a_call(till: Till, twin: str) -> None:
    llm = ResilientLLM(paying([Cut(20, RESET)]), policy=QUICK)
    seen = [
        [call.tool_kwargs for call in llm.get_tool_calls_from_response(chunk, error_on_no_tool_call=False)]
        for chunk in run(llm, "stream_chat_with_tools", twin, [till.tool], user_msg="Pay Ada.")
    ]
    assert seen[-1] == PAID
    assert all(calls in ([], PAID, [{}]) for calls in seen), "a call without arguments is one that has only begun"


def test_without_a_whole_call_it_is_as_if_there_was_none() -> None:
    llm = ResilientLLM(paying(), policy=QUICK)
    with pytest.raises(ValueError, match="tool call"):
        llm.get_tool_calls_from_response(ChatResponse(message=in_dicts(ARGUMENTS[:20])))


@pytest.mark.parametrize("finish", ["stop", "tool_calls", None])
@pytest.mark.parametrize("after", CUTS)
def test_a_call_cut_all_at_once_is_asked_for_again(after: int, finish: str | None, till: Till, twin: str) -> None:
    inner = paying([Cut(after, finish_reason=finish)])
    run(ResilientLLM(inner, policy=QUICK), "predict_and_call", twin, [till.tool], user_msg="Pay Ada.")
    assert till.paid == PAID
    assert len(inner.calls) == 2


@pytest.mark.parametrize("method", ["predict_and_call", "chat_with_tools"])
def test_a_call_cut_all_at_once_every_time_is_an_error(method: str, till: Till, twin: str) -> None:
    llm = ResilientLLM(paying([Cut(20, finish_reason="tool_calls")] * 9), policy=QUICK)
    with pytest.raises(Exception, match=r"Incomplete|cut"):
        run(llm, method, twin, [till.tool], user_msg="Pay Ada.")
    assert till.paid == []


@pytest.mark.parametrize("arguments", ["", "{}", " {}\n", f"  {ARGUMENTS} "], ids=repr)
@pytest.mark.parametrize("method", ["chat_with_tools", "stream_chat_with_tools"])
def test_calls_that_are_legal_are_asked_for_once(arguments: str, method: str, till: Till, twin: str) -> None:
    inner = paying(arguments=arguments)
    llm = ResilientLLM(inner, policy=QUICK)
    answer = run(llm, method, twin, [till.tool], user_msg="Pay Ada.")
    (call,) = llm.get_tool_calls_from_response(answer[-1] if isinstance(answer, list) else answer)
    assert call.tool_kwargs == (PAID[0] if "amount" in arguments else {})
    assert len(inner.calls) == 1


def _anthropic_chunk(index: int, piece: str, repaired: dict[str, Any]) -> ChatResponse:
    """As LlamaIndex's Anthropic class makes them: the arguments repaired, and what came in the event."""
    raw = {"type": "content_block_delta", "index": index, "delta": SimpleNamespace(partial_json=piece)}
    return ChatResponse(message=in_dicts(repaired), delta="", raw=raw)


@pytest.mark.parametrize("after", [1, 9, len(ARGUMENTS) - 1])
def test_a_call_that_the_integration_repairs_while_it_comes_is_open_until_it_is_whole(after: int) -> None:
    reads = Reader()
    pieces = ["", ARGUMENTS[:after], ARGUMENTS[after:], "\n"]
    prints = [reads.chat(_anthropic_chunk(0, piece, {"amount": 1})).tools for piece in pieces]
    assert [OPEN in (each or "") for each in prints] == [False, True, False, False]
    assert OPEN in (reads.chat(_anthropic_chunk(1, "{", {})).tools or ""), "another call begins"


def _event(kind: str, piece: str | None = None, **delta: Any) -> dict[str, Any]:
    if piece is not None:
        delta["partial_json"] = piece
    return {"type": kind, "index": 0, "delta": SimpleNamespace(**delta)}


@pytest.mark.parametrize(
    ("events", "whole"),
    [
        ([_event("content_block_delta", "")], False),
        ([_event("content_block_delta", '{"amount": 1')], False),
        ([_event("content_block_delta", '{"amount": 1'), _event("content_block_stop")], False),
        ([_event("content_block_delta", '{"amount": 1'), _event("message_delta", stop_reason="tool_use")], False),
        ([_event("content_block_delta", '{"amount": 1'), _event("content_block_delta", "}")], True),
        ([_event("content_block_delta", '{"amount": 1}'), _event("content_block_stop")], True),
        ([_event("content_block_delta", ""), _event("content_block_stop")], True),
        ([_event("content_block_delta", ""), _event("message_delta", stop_reason="tool_use")], True),
    ],
)
@pytest.mark.parametrize("shape", [as_inputs, IN_BLOCKS])
def test_what_was_repaired_is_known_chunk_by_chunk(
    events: list[Any], whole: bool, shape: Callable[..., ChatMessage]
) -> None:
    reads = Reader()
    for event in events:
        message = shape({"amount": 1})
        response = ChatResponse(message=message, delta="", raw=event)
        chunk = reads.chat(response)
    assert chunk.payload == response, "nothing else is different"
    assert message == shape({"amount": 1}), "the wrapped class's own is as it was"
    assert not has_cut_calls(message)
    assert has_cut_calls(chunk.payload.message) is not whole


# Functions by metadata and methods, without LlamaIndex's base class


class Duck(CustomLLM):
    """Calls functions, says so in its metadata, and is no FunctionCallingLLM."""

    inner: Any

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="duck", is_chat_model=True, is_function_calling_model=True)

    def complete(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.complete(*args, **kwargs)

    def stream_complete(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.stream_complete(*args, **kwargs)

    def chat(self, messages: Any, **kwargs: Any) -> Any:
        return self.inner.chat(messages, **kwargs)

    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        return self.inner.stream_chat(messages, **kwargs)

    async def achat(self, messages: Any, **kwargs: Any) -> Any:
        return await self.inner.achat(messages, **kwargs)

    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        return await self.inner.astream_chat(messages, **kwargs)

    def chat_with_tools(self, tools: Any, user_msg: Any = None, chat_history: Any = None, **kwargs: Any) -> Any:
        return self.chat(**self._asked(tools, user_msg, chat_history))

    async def achat_with_tools(self, tools: Any, user_msg: Any = None, chat_history: Any = None, **kwargs: Any) -> Any:
        return await self.achat(**self._asked(tools, user_msg, chat_history))

    def stream_chat_with_tools(self, tools: Any, user_msg: Any = None, chat_history: Any = None, **kwargs: Any) -> Any:
        return self.stream_chat(**self._asked(tools, user_msg, chat_history))

    async def astream_chat_with_tools(
        self, tools: Any, user_msg: Any = None, chat_history: Any = None, **kwargs: Any
    ) -> Any:
        return await self.astream_chat(**self._asked(tools, user_msg, chat_history))

    def get_tool_calls_from_response(self, response: Any, error_on_no_tool_call: bool = True, **kwargs: Any) -> Any:
        return self.inner.get_tool_calls_from_response(response, error_on_no_tool_call=error_on_no_tool_call)

    def _asked(self, tools: Any, user_msg: Any, chat_history: Any) -> dict[str, Any]:
        asked: dict[str, Any] = self.inner._prepare_chat_with_tools(tools, user_msg, chat_history)
        return asked


class DuckThatCalls(Duck):
    """One with a way of its own to predict and call."""

    def predict_and_call(self, tools: Any, user_msg: Any = None, **kwargs: Any) -> Any:
        return [
            self._run(tools, call) for call in self.get_tool_calls_from_response(self.chat_with_tools(tools, user_msg))
        ]

    async def apredict_and_call(self, tools: Any, user_msg: Any = None, **kwargs: Any) -> Any:
        response = await self.achat_with_tools(tools, user_msg)
        return [self._run(tools, call) for call in self.get_tool_calls_from_response(response)]

    def _run(self, tools: Any, call: ToolSelection) -> str:
        return str(tools[0].call(**call.tool_kwargs))


@pytest.mark.parametrize("cue", [None, Fail(RESET), Cut(20, RESET), Cut(20), Cut(20, finish_reason="stop")], ids=str)
@pytest.mark.parametrize("method", ["chat_with_tools", "stream_chat_with_tools"])
def test_functions_without_the_base_class(method: str, cue: Any, till: Till, twin: str) -> None:
    inner = paying([cue])
    llm = ResilientLLM(Duck(inner=inner), policy=QUICK)
    answer = run(llm, method, twin, [till.tool], user_msg="Pay Ada.")
    (call,) = llm.get_tool_calls_from_response(answer[-1] if isinstance(answer, list) else answer)
    assert call.tool_kwargs == PAID[0]
    assert len(inner.calls) == (1 if cue is None else 2)


def test_a_stream_without_the_base_class_is_one_of_ours(till: Till) -> None:
    llm = ResilientLLM(Duck(inner=paying([Cut(20)] * 9)), policy=QUICK)
    stream: Any = llm.stream_chat_with_tools([till.tool], user_msg="Pay Ada.")
    with pytest.raises(StreamInterruptedError):
        list(stream)
    assert stream.report.status == "interrupted"


def test_the_class_s_own_way_to_predict_and_call(till: Till, twin: str) -> None:
    inner = paying([Fail(RESET), Cut(20, finish_reason="stop")])
    llm = ResilientLLM(DuckThatCalls(inner=inner), policy=QUICK)
    assert run(llm, "predict_and_call", twin, [till.tool], user_msg="Pay Ada.") == ["paid"]
    assert till.paid == PAID, "the tool ran once"
    assert len(inner.calls) == 3


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("cut", [None, "error", "stop"])
async def test_an_agent_without_the_base_class(cut: str | None, streaming: bool, till: Till) -> None:
    # An exception of its own, not the module's: its traceback would keep the agent alive.
    error = ConnectionResetError("reset") if cut == "error" else None
    cue = None if cut is None else Cut(20, error, "stop" if error is None else None)
    workflow = pytest.importorskip("llama_index.core.agent.workflow", reason="no workflow agents in this core")
    inner = paying([cue])
    llm = ResilientLLM(Duck(inner=inner), policy=QUICK)

    async def run_agent() -> str:
        try:
            agent = workflow.FunctionAgent(tools=[till.tool], llm=llm, streaming=streaming)
        except (TypeError, ValueError):
            pytest.skip("agents of this core always stream")
        return str(await agent.run(user_msg="Pay Ada."))

    assert await run_agent() == "Done."
    assert till.paid == PAID


class Mute(CustomLLM):
    """Cannot call functions."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="mute")

    def complete(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def stream_complete(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def test_an_llm_without_functions_says_so(till: Till) -> None:
    llm: LLM = ResilientLLM(Mute())
    with pytest.raises(ConfigurationError, match="cannot call functions"):
        llm.chat_with_tools([till.tool], user_msg="Pay Ada.")  # type: ignore[attr-defined]
    assert llm.get_tool_calls_from_response(ChatResponse(message=in_dicts()), False) == []  # type: ignore[attr-defined]
