"""Agents and tools: a cut tool call is never executed, and what was said before it is not said twice."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool

from llama_index_resilient_stream import (
    ConfigurationError,
    ResilientLLM,
    TokenEvent,
)
from llama_index_resilient_stream.testing import FAULTS, Cut, Fail, FaultServer, ScriptedLLM
from support.parts import HAS_CALL_BLOCKS, HAS_THINKING_BLOCKS, PartsLLM, Piece, Thought, Turn
from support.readers import QUICK, Reader, openai_like, question

try:  # since 0.12.12
    from llama_index.core.agent import workflow
except ImportError:
    workflow = None  # type: ignore[assignment]
try:  # until 0.12.52
    from llama_index.core.agent import FunctionCallingAgent  # type: ignore[attr-defined]
except ImportError:
    FunctionCallingAgent = None

needs_workflows = pytest.mark.skipif(workflow is None, reason="no workflow agents in this core")
needs_call_blocks = pytest.mark.skipif(not HAS_CALL_BLOCKS, reason="no ToolCallBlock in this core")
needs_thinking_blocks = pytest.mark.skipif(not HAS_THINKING_BLOCKS, reason="no ThinkingBlock in this core")
needs_legacy_agents = pytest.mark.skipif(FunctionCallingAgent is None, reason="no legacy agents in this core")

# Of LlamaIndex's agents: what they still call, and a database and an event loop (two ends of a Unix socket) that they
# do not close. Connections to a provider are of another family.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings(
        r"ignore:Exception ignored in. <(function (Connection|BaseEventLoop)|socket.socket fd=\d+, family=1,)"
        ":pytest.PytestUnraisableExceptionWarning"
    ),
]

RESET = ConnectionResetError("reset")
ARGUMENTS = '{"amount": 1000, "to": "Ada"}'
PAID = [{"amount": 1000, "to": "Ada"}]
ANSWER = "The money is on its way, all of it."
Serve = Callable[..., FaultServer]


@pytest.fixture(autouse=True, scope="module")
def garbage() -> Iterator[None]:
    """What LlamaIndex does not close shall complain here, where that is ignored."""
    yield
    gc.collect()


class Till:
    """A tool that writes down how it was called."""

    def __init__(self) -> None:
        self.paid: list[dict[str, Any]] = []
        self.tool = FunctionTool.from_defaults(fn=self.pay)

    def pay(self, amount: int, to: str = "nobody") -> str:
        """Pay somebody."""
        self.paid.append({"amount": amount, "to": to})
        return "paid"


@pytest.fixture
def till() -> Till:
    return Till()


async def run(kind: str, llm: Any, tools: list[Any]) -> tuple[str, list[Any]]:
    """An agent's answer, and the events of its stream."""
    agent = {
        "function": lambda: workflow.FunctionAgent(tools=tools, llm=llm),
        "react": lambda: workflow.ReActAgent(tools=tools, llm=llm),
        "workflow": lambda: workflow.AgentWorkflow.from_tools_or_functions(tools, llm=llm),
    }[kind]()
    # The default memory is a database that takes a while to open, and that LlamaIndex does not close.
    memory = ChatMemoryBuffer.from_defaults(token_limit=100_000)
    handler = agent.run(user_msg="Pay Ada what I owe her.", memory=memory)
    events = [event async for event in handler.stream_events()]
    return str(await handler), events


def streamed(events: list[Any]) -> list[Any]:
    return [event for event in events if type(event).__name__ == "AgentStream"]


CUTS = {
    "before-the-name": 0,
    "mid-arguments": 12,
    "mid-number": len('{"amount": 10'),
    "after-a-value": len('{"amount": 1000'),
    "before-the-brace": len(ARGUMENTS) - 1,
    "after-complete-json": len(ARGUMENTS),
}


@needs_workflows
@pytest.mark.parametrize("error", [None, RESET], ids=["clean_eof", "transport-error"])
@pytest.mark.parametrize("after", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("kind", ["function", "workflow"])
async def test_a_cut_call_is_never_executed(kind: str, after: int, error: Exception | None, till: Till) -> None:
    llm = ScriptedLLM(ANSWER, [Cut(after, error)] * 2, tool_calls=[("pay", ARGUMENTS)])
    answer, _ = await run(kind, ResilientLLM(llm, policy=QUICK), [till.tool])
    assert till.paid == PAID
    assert answer == ANSWER
    assert len(llm.calls) == 4


WIRE = ["reset", "fin_in_chunk", "short_length", "clean_eof", "close_eof", "done_without_finish", "half_event",
        "half_event_close", "broken_json", "error_event", "error_finish"]  # fmt: skip


@needs_workflows
@pytest.mark.parametrize("after", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("fault", WIRE)
async def test_a_call_cut_on_the_wire_is_never_executed(fault: str, after: int, till: Till, serve: Serve) -> None:
    server = serve(ANSWER, [FAULTS[fault].at(after)], tool_call=("pay", ARGUMENTS))
    inner = openai_like(server, is_function_calling_model=True)
    try:
        answer, _ = await run("function", ResilientLLM(inner, policy=QUICK), [till.tool])
    finally:
        await inner._get_aclient().close()
    assert till.paid == PAID
    assert answer == ANSWER
    assert len(server.requests) == 3
    assert not server.requests[1].partial_text, "a turn with tools is restarted, not continued"


@needs_workflows
async def test_a_call_cut_by_the_token_limit_is_an_error_and_not_executed(till: Till, serve: Serve) -> None:
    server = serve(ANSWER, [FAULTS["length"].at(CUTS["mid-number"])], tool_call=("pay", ARGUMENTS))
    inner = openai_like(server, is_function_calling_model=True)
    try:
        with pytest.raises(Exception, match="Incomplete stream response"):
            await run("function", ResilientLLM(inner, policy=QUICK), [till.tool])
    finally:
        await inner._get_aclient().close()
    assert till.paid == []


@needs_workflows
@pytest.mark.parametrize("on_exhausted", ["raise", "partial"])
async def test_a_call_that_is_given_up_is_not_executed(on_exhausted: Any, till: Till) -> None:
    llm = ScriptedLLM(ANSWER, [Cut(CUTS["mid-number"])] * 9, tool_calls=[("pay", ARGUMENTS)])
    resilient = ResilientLLM(llm, policy=replace(QUICK, on_exhausted=on_exhausted))
    if on_exhausted == "raise":
        with pytest.raises(Exception, match="Incomplete stream response"):
            await run("function", resilient, [till.tool])
    else:
        await run("function", resilient, [till.tool])
    assert till.paid == []


CALL_CUTS = {
    "mid-name": [Piece("pa")],
    "name-only": [Piece("pay")],
    "mid-arguments": [Piece("pay", '{"amo')],
    "complete-prefix": [Piece("pay", '{"amount": 10'), Piece("", "")],
    "complete-json": [Piece("pay", '{"amount": 10}'), Piece("", "\n")],
}
WHOLE = Turn([Piece("pay", '{"amount": '), Piece("", '1000, "to": "Ada"}')], "tool_calls")
BLOCKS = pytest.mark.parametrize(
    "blocks", [False, pytest.param(True, marks=needs_call_blocks)], ids=["kwargs", "blocks"]
)


@needs_workflows
@BLOCKS
@pytest.mark.parametrize("end", [None, RESET], ids=["clean_eof", "transport-error"])
@pytest.mark.parametrize("parts", CALL_CUTS.values(), ids=CALL_CUTS)
async def test_cut_call_is_found_wherever_the_message_keeps_it(
    parts: list[Any], end: Exception | None, blocks: bool, till: Till
) -> None:
    llm = PartsLLM(Turn(parts, end), WHOLE, Turn([ANSWER]), blocks=blocks)
    answer, events = await run("function", ResilientLLM(llm, policy=QUICK), [till.tool])
    assert till.paid == PAID
    assert answer == ANSWER
    shown = streamed(events)
    assert shown[-1].response == ANSWER


@needs_workflows
@BLOCKS
async def test_text_before_a_cut_call_is_not_shown_twice(blocks: bool, till: Till) -> None:
    told = ["I will ", "pay Ada."]
    llm = PartsLLM(
        Turn([*told, Piece("pay", '{"amount": 10')], RESET),
        Turn([*told, *WHOLE.parts], "tool_calls"),
        Turn([ANSWER]),
        blocks=blocks,
    )
    answer, events = await run("function", ResilientLLM(llm, policy=QUICK), [till.tool])
    assert "".join(event.delta for event in streamed(events)) == "I will pay Ada." + ANSWER
    assert till.paid == PAID
    assert answer == ANSWER
    assistant = llm.asked[2][-2]
    assert str(assistant.content) == "I will pay Ada.", "what the model is told that it said"


class Resets(BaseEventHandler):
    """Counts resets on LlamaIndex's dispatcher."""

    seen: int = 0

    @classmethod
    def class_name(cls) -> str:
        return "Resets"

    def handle(self, event: Any, **kwargs: Any) -> None:
        if event.class_name() == "StreamResetEvent":
            self.seen += 1


@pytest.fixture
def resets() -> Iterator[Resets]:
    root, handler = get_dispatcher(), Resets()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@needs_workflows
@BLOCKS
async def test_how_the_reader_of_an_agent_learns_of_a_reset(blocks: bool, till: Till, resets: Resets) -> None:
    tokens: list[TokenEvent] = []
    llm = PartsLLM(
        Turn(["I will pay ", "Ada.", Piece("pay", '{"amount": 10')], RESET),
        Turn(["Let me pay ", "her.", *WHOLE.parts], "tool_calls"),
        Turn([ANSWER]),
        blocks=blocks,
    )
    resilient = ResilientLLM(llm, policy=QUICK, callbacks=[tokens.append])
    answer, events = await run("function", resilient, [till.tool])
    deltas = [event.delta for event in streamed(events) if event.delta]
    assert deltas == ["I will pay ", "Ada.", "\n\nLet me pay ", "her.", ANSWER]
    at_reset = next(event for event in streamed(events) if event.delta == "\n\nLet me pay ")
    assert at_reset.response == "Let me pay ", "`response` is the new telling alone"
    assert [event.text for event in tokens if event.reset] == ["\n\nLet me pay "]
    assert resets.seen == 1
    assert till.paid == PAID
    assert str(llm.asked[2][-2].content) == "Let me pay her."
    assert answer == ANSWER


THOUGHTS = (
    'Thought: I need to use a tool.\nAction: pay\nAction Input: {"amount": 1000, "to": "Ada"}\n',
    f"Thought: I can answer without using any more tools.\nAnswer: {ANSWER}",
)


@needs_workflows
@pytest.mark.parametrize("error", [None, RESET], ids=["clean_eof", "transport-error"])
@pytest.mark.parametrize("after", [4, 20, 40, 55, 62, 75, len(THOUGHTS[0]) - 2])
async def test_react_recovers_a_cut_thought(after: int, error: Exception | None, till: Till) -> None:
    first = ScriptedLLM(THOUGHTS[0], [Cut(after, error)])
    then = PartsLLM(Turn([THOUGHTS[1]]))

    class Both(ScriptedLLM):
        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            asked = any("Observation: paid" in str(message.content) for message in messages)
            return await (then if asked else first).astream_chat(messages, **kwargs)

    answer, _ = await run("react", ResilientLLM(Both(""), policy=QUICK), [till.tool])
    assert till.paid == PAID
    assert answer == ANSWER
    assert (len(first.calls), len(then.asked)) == (2, 1)


@needs_thinking_blocks
@pytest.mark.parametrize("strategy", ["continued", "restarted"])
def test_thinking_blocks_survive(strategy: str, reader: Reader) -> None:
    halves = ["One two three four. ", "Five six."]
    again = halves[1:] if strategy == "continued" else halves
    llm = PartsLLM(
        Turn([Thought("Hm. "), Thought("Well."), halves[0]], RESET),
        Turn([Thought("Where was I?"), *again]),
    )
    kwargs = {} if strategy == "continued" else {"tools": [{"type": "function"}]}
    result = reader(ResilientLLM(llm, policy=replace(QUICK, unverified="show")), **kwargs)
    assert result.whole == result.text == "".join(halves)
    blocks = result.chunks[-1].message.blocks
    thoughts = [block.content for block in blocks if type(block).__name__ == "ThinkingBlock"]
    assert thoughts == (["Hm. Well.", "Where was I?"] if strategy == "continued" else ["Where was I?"])
    assert [type(block).__name__ for block in blocks][-1] == "TextBlock"
    told = [chunk.additional_kwargs.get("thinking_delta") for chunk in result.chunks]
    assert [thought for thought in told if thought] == ["Hm. ", "Well.", "Where was I?"]


@needs_thinking_blocks
def test_thinking_survives_where_the_continuation_thinks_no_more(reader: Reader) -> None:
    llm = PartsLLM(Turn([Thought("Hm."), "One two "], RESET), Turn(["three "], RESET), Turn(["four."]))
    result = reader(ResilientLLM(llm, policy=replace(QUICK, unverified="show")))
    assert result.whole == "One two three four."
    assert [type(block).__name__ for block in result.chunks[-1].message.blocks] == ["ThinkingBlock", "TextBlock"]


# Without an agent


@pytest.mark.parametrize("script", [[], [Fail(RESET)], [Cut(12, RESET)]], ids=["healthy", "failed", "cut"])
def test_predict_and_call(script: list[Any], till: Till) -> None:
    llm = ScriptedLLM(ANSWER, script, tool_calls=[("pay", ARGUMENTS)])
    response = ResilientLLM(llm, policy=QUICK).predict_and_call([till.tool], user_msg="Pay Ada.")
    assert till.paid == PAID
    assert response.response == "paid"
    assert len(llm.calls) == 1 + len(script)


async def test_apredict_and_call(till: Till) -> None:
    llm = ScriptedLLM(ANSWER, [Fail(RESET)], tool_calls=[("pay", ARGUMENTS)])
    response = await ResilientLLM(llm, policy=QUICK).apredict_and_call([till.tool], user_msg="Pay Ada.")
    assert till.paid == PAID
    assert response.response == "paid"


def test_a_call_that_came_all_at_once_but_cut_is_not_executed(till: Till) -> None:
    llm = ScriptedLLM(ANSWER, [Cut(CUTS["mid-number"], finish_reason="length")], tool_calls=[("pay", ARGUMENTS)])
    with pytest.raises(Exception, match="tool call was cut by the finish reason 'length'"):
        ResilientLLM(llm, policy=QUICK).predict_and_call([till.tool], user_msg="Pay Ada.")
    assert till.paid == []


async def test_chat_with_tools(till: Till) -> None:
    llm = ScriptedLLM(ANSWER, [Fail(RESET), None, Fail(RESET)], tool_calls=[("pay", ARGUMENTS)])
    resilient = ResilientLLM(llm, policy=QUICK)
    responses = [
        resilient.chat_with_tools([till.tool], user_msg="Pay Ada."),
        await resilient.achat_with_tools([till.tool], user_msg="Pay Ada."),
    ]
    for response in responses:
        (call,) = resilient.get_tool_calls_from_response(response)
        assert (call.tool_name, call.tool_kwargs) == ("pay", PAID[0])
    assert len(llm.calls) == 4


PARALLEL = [("pay", '{"amount": 1}'), ("pay", '{"amount": 2}'), ("pay", '{"amount": 3}')]


@pytest.mark.parametrize("after", range(0, 40, 3))
@pytest.mark.parametrize("error", [None, RESET], ids=["clean_eof", "transport-error"])
def test_parallel_calls_come_whole_or_not_at_all(after: int, error: Exception | None, till: Till) -> None:
    llm = ScriptedLLM(ANSWER, [Cut(after, error)], tool_calls=PARALLEL)
    resilient = ResilientLLM(llm, policy=QUICK)
    stream = resilient.stream_chat_with_tools([till.tool], user_msg="Pay.", allow_parallel_tool_calls=True)
    for chunk in stream:
        calls = resilient.get_tool_calls_from_response(chunk, error_on_no_tool_call=False)
    assert [call.tool_kwargs for call in calls] == [{"amount": 1}, {"amount": 2}, {"amount": 3}]
    assert len(llm.calls) == 2


@needs_call_blocks
def test_the_calls_can_be_read_from_every_chunk_of_an_llm_that_knows_only_blocks(till: Till) -> None:
    llm = PartsLLM(Turn([*WHOLE.parts, Piece("pay", '{"amount"', 1)], RESET),
                   Turn([*WHOLE.parts, Piece("pay", '{"amount": 2}', 1)], "tool_calls"), blocks=True)  # fmt: skip
    resilient = ResilientLLM(llm, policy=QUICK)
    seen = [
        [call.tool_kwargs for call in resilient.get_tool_calls_from_response(chunk, error_on_no_tool_call=False)]
        for chunk in resilient.stream_chat_with_tools([till.tool], user_msg="Pay.")
    ]
    assert seen[-1] == [PAID[0], {"amount": 2}]
    assert len(llm.asked) == 2


def test_an_llm_that_cannot_call_functions_says_so(till: Till) -> None:
    llm = ResilientLLM(MockLLM())
    for call in (llm.chat_with_tools, llm.stream_chat_with_tools):
        with pytest.raises(ConfigurationError, match=r"MockLLM cannot call functions.*ResilientLLM\(OpenAI"):
            call([till.tool], user_msg="Pay.")
    with pytest.raises(ConfigurationError, match="MockLLM cannot call functions"):
        llm.get_tool_calls_from_response(MockLLM().chat(question()))


@needs_workflows
async def test_plain_llm_is_not_made_a_function_agent(till: Till) -> None:
    with pytest.raises(Exception, match="FunctionCallingLLM"):
        await run("function", ResilientLLM(MockLLM()), [till.tool])
    agents = workflow.AgentWorkflow.from_tools_or_functions([till.tool], llm=ResilientLLM(MockLLM())).agents
    assert [type(agent).__name__ for agent in agents.values()] == ["ReActAgent"]


# The agents of old


@needs_legacy_agents
@pytest.mark.parametrize("script", [[], [Fail(RESET)], [Cut(9, RESET)]], ids=["healthy", "failed", "cut"])
def test_the_legacy_function_agent(script: list[Any], till: Till) -> None:
    llm = ScriptedLLM(ANSWER, script, tool_calls=[("pay", ARGUMENTS)])
    agent = FunctionCallingAgent.from_tools([till.tool], llm=ResilientLLM(llm, policy=QUICK))
    assert str(agent.chat("Pay Ada.")) == ANSWER
    assert till.paid == PAID


@needs_legacy_agents
@pytest.mark.parametrize("after", [4, 40, 62])
def test_the_legacy_react_agent(after: int, till: Till) -> None:
    from llama_index.core.agent import ReActAgent

    first = ScriptedLLM(THOUGHTS[0], [Cut(after, RESET)])
    then = ScriptedLLM(THOUGHTS[1], [Cut(after, RESET)])

    class Both(ScriptedLLM):
        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            asked = any("Observation: paid" in str(message.content) for message in messages)
            return (then if asked else first).stream_chat(messages, **kwargs)

    agent = ReActAgent.from_tools([till.tool], llm=ResilientLLM(Both(""), policy=QUICK))
    response = agent.stream_chat("Pay Ada.")
    assert "".join(response.response_gen).strip().endswith(ANSWER)
    assert till.paid == PAID
    assert (len(first.calls), len(then.calls)) == (2, 2)
