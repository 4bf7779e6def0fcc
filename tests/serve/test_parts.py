"""What an answer consists of: each kind of part on the wire, in a store, and from what it is made."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step

from llama_index_resilient_stream import ConfigurationError
from llama_index_resilient_stream.serve import (
    EndPart,
    EventPart,
    JointPart,
    Part,
    RecoveryPart,
    ResetPart,
    Source,
    SourcesPart,
    SSEResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    UsagePart,
)
from llama_index_resilient_stream.serve.items import sources_of
from llama_index_resilient_stream.serve.parts import from_json, to_json
from llama_index_resilient_stream.serve.protocols import protocol_of
from llama_index_resilient_stream.serve.source import SourceReader
from llama_index_resilient_stream.serve.sse import EventId
from support.parts import PartsLLM, Piece, Thought, Turn
from support.parts_app import LLMS, RESET, TEXT, agent, engine, llm, source
from support.readers import QUICK, question
from support.servers import Running, serving

# LlamaIndex's own, when an agent is made.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")

SOURCES = SourcesPart((Source("a", "The sun shines.", 0.5, {"page": 3}),))
KINDS: dict[str, Part] = {
    "text": TextPart("a\n\nb"),
    "thinking": ThinkingPart("hm"),
    "tool_call": ToolCallPart("c1", "weather", {"city": "Paris"}),
    "tool_result": ToolResultPart("c1", "weather", ["sunny"], True),
    "sources": SOURCES,
    "usage": UsagePart(1, 2, 3, True),
    "recovery": RecoveryPart(2, "transport"),
    "joint": JointPart(2, "anchor", "verified"),
    "reset": ResetPart(),
    "event": EventPart("title", {"de": "Wetter"}),
    "end": EndPart("interrupted", "refused", True, 403, "no"),
}
PROTOCOLS = ("events", "ai-sdk", "openai", "text", "jsonl")


@pytest.mark.parametrize("part", KINDS.values(), ids=KINDS)
def test_a_store_gives_back_what_it_was_given(part: Part) -> None:
    assert from_json(to_json(part)) == part
    assert from_json(to_json(part).encode()) == part


WIRE = {
    "text": 'id: 1\ndata: {"text":"a\\n\\nb"}\n\n',
    "thinking": 'event: thinking\nid: 1\ndata: {"text":"hm"}\n\n',
    "tool_call": 'event: tool_call\nid: 1\ndata: {"id":"c1","name":"weather","arguments":{"city":"Paris"}}\n\n',
    "tool_result": 'event: tool_result\nid: 1\ndata: {"id":"c1","name":"weather","output":["sunny"],"failed":true}\n\n',
    "sources": 'event: sources\nid: 1\ndata: {"sources":[{"id":"a","text":"The sun shines.","score":0.5,'
    '"metadata":{"page":3}}]}\n\n',
    "usage": 'event: usage\nid: 1\ndata: {"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,'
    '"estimated":true}\n\n',
    "recovery": 'event: recovery\nid: 1\ndata: {"attempt":2,"reason":"transport"}\n\n',
    "joint": 'event: joint\nid: 1\ndata: {"attempt":2,"decision":"anchor","certainty":"verified"}\n\n',
    "reset": "event: reset\nid: 1\ndata: {}\n\n",
    "event": 'event: title\nid: 1\ndata: {"de":"Wetter"}\n\n',
    "end": 'event: error\nid: 1\ndata: {"status":"interrupted","reason":"refused","retryable":true,"code":403,'
    '"detail":"no"}\n\n',
}


@pytest.mark.parametrize("kind", KINDS)
def test_our_events(kind: str) -> None:
    assert protocol_of("events").encoding().encode(KINDS[kind], EventId(1)).decode() == WIRE[kind]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_protocol_takes_every_part(protocol: str, kind: str) -> None:
    encoding = protocol_of(protocol).encoding()
    written = encoding.encode(KINDS[kind], EventId(1))
    assert "403" not in encoding.headers
    if protocol != "text":
        for line in written.decode().splitlines():
            data = line.removeprefix("data: ")
            assert not line or line.startswith(("id: ", "event: ")) or data == "[DONE]" or json.loads(data) is not None


@pytest.mark.parametrize("name", ["text", "done", "error", "message", "", "two words", "1st", "a\nb", "reset"])
def test_an_event_of_ones_own_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"EventPart\('title', data\)"):
        EventPart(name)


@pytest.mark.parametrize("wrong", ["sse", 3, object])
def test_a_protocol_that_is_none(wrong: Any) -> None:
    with pytest.raises(ConfigurationError):
        SSEResponse(source("query"), protocol=wrong)


# What parts are made of


async def parts_of(made: Any, seconds: float = 20.0) -> list[Part]:
    reader = SourceReader(made)
    parts: list[Part] = []
    async with asyncio.timeout(seconds):
        while not reader.over:
            parts += await reader.take()
    await reader.leave()
    return parts


def text_of(parts: list[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def kinds_of(parts: list[Part]) -> list[str]:
    """The kinds, those that follow one another once."""
    names = [type(part).__name__ for part in parts]
    return [name for number, name in enumerate(names) if names[number - 1 : number] != [name]]


def test_sources() -> None:
    class Answer:
        source_nodes = [  # noqa: RUF012
            NodeWithScore(node=TextNode(id_="a", text="x", metadata={"when": time}), score=float("nan")),
            NodeWithScore(node=TextNode(id_="b", text="y"), score=0.25),
        ]

    (part,) = sources_of(Answer())
    assert isinstance(part, SourcesPart)
    one, two = part.sources
    assert (one.id, one.text, one.score, one.metadata) == ("a", "x", None, {"when": str(time)})
    assert (two.id, two.text, two.score, two.metadata) == ("b", "y", 0.25, {})


RUNS: dict[str, Callable[[], Any]] = {
    "function": lambda: lambda: agent("run").run("?"),
    "coroutine-function": lambda: _arun,
    "handler": lambda: agent("run").run("?"),
    "events": lambda: agent("run").run("?").stream_events(),
    "function-of-events": lambda: lambda: agent("run").run("?").stream_events(),
    "generator-of-a-handler": lambda: _within,
}


async def _arun() -> Any:
    return agent("run").run("?")


async def _within() -> AsyncIterator[Any]:
    yield agent("run").run("?")


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
async def test_a_run_of_an_agent(make: Callable[[], Any]) -> None:
    parts = await parts_of(make())
    call, result = parts[:2]
    assert isinstance(call, ToolCallPart)
    assert (call.name, call.arguments) == ("weather", {"city": "Paris"})
    assert result == ToolResultPart(call.id, "weather", "sunny in Paris")
    assert text_of(parts) == TEXT
    assert parts[-1] == EndPart("complete")


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("how", ["leave", "stop"])
async def test_leaving_a_run_stops_it(make: Callable[[], Any], how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.parts_app.llm", lambda name, *script, **more: llm(name, delay=0.02, **more))
    reader = SourceReader(make())
    parts: list[Part] = []
    while len(text_of(parts)) < 8:
        parts += await reader.take()
    await getattr(reader, how)()
    if how == "stop":
        while not reader.over:
            parts += await reader.take()
        assert parts[-1] == EndPart("cancelled")
        await reader.leave()
    sent = sum(len(call.sent) for call in LLMS["run"].calls)
    assert LLMS["run"].open_streams == 0
    assert sent < len(TEXT)
    await asyncio.sleep(0.1)
    assert sum(len(call.sent) for call in LLMS["run"].calls) == sent


async def test_a_run_that_is_never_read_is_stopped() -> None:
    handler = agent("run").run("?")
    await SourceReader(handler).leave()
    assert LLMS["run"].open_streams == 0
    assert handler.is_done()


@pytest.mark.parametrize("make", [RUNS["function"], RUNS["coroutine-function"]], ids=["function", "coroutine"])
async def test_a_run_that_heals(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.parts_app.llm", lambda name, *_, **more: llm(name, None, _cut(20), **more))
    parts = await parts_of(make())
    assert text_of(parts) == TEXT
    at = parts.index(RecoveryPart(2, "transport"))
    assert text_of(parts[:at]) == TEXT[:20]
    (joint,) = [part for part in parts if isinstance(part, JointPart)]
    assert (joint.attempt, joint.certainty) == (2, "aligned")
    assert parts[-1] == EndPart("complete")


def _cut(at: int) -> Any:
    from llama_index_resilient_stream.testing import Cut

    return Cut(at, RESET)


async def test_a_run_that_is_given_up() -> None:
    parts = await parts_of(lambda: agent("run", None, _cut(20), tries=1).run("?"))
    assert text_of(parts) == TEXT[:20]
    assert parts[-1] == EndPart("interrupted", "attempts", retryable=True)


def _weather_agent(*turns: Turn) -> Any:
    from llama_index.core.agent.workflow import FunctionAgent

    from llama_index_resilient_stream import ResilientLLM
    from support.parts_app import weather

    return FunctionAgent(tools=[weather], llm=ResilientLLM(PartsLLM(*turns), policy=QUICK))


async def test_a_turn_that_is_told_differently_replaces_what_was_shown() -> None:
    called = Piece("weather", '{"city": "Paris"}')
    turns = [
        Turn(["Let me ", "see. ", Piece("weather", '{"ci')], RESET),
        Turn(["I look. ", called], "tool_calls"),
        Turn(["It is ", "blue."]),
    ]
    parts = await parts_of(lambda: _weather_agent(*turns).run("?"))
    at = parts.index(ResetPart())
    assert text_of(parts[:at]) == "Let me see. "
    assert text_of(parts[at:]) == "I look. It is blue."
    assert [part.name for part in parts if isinstance(part, ToolCallPart)] == ["weather"]


async def test_an_llms_own_stream_with_thoughts_and_calls() -> None:
    from llama_index_resilient_stream import ResilientLLM

    turn = Turn([Thought("Hm. "), Thought("So."), "I look.", Piece("weather", '{"city": "Paris"}')], "tool_calls")
    parts = await parts_of(ResilientLLM(PartsLLM(turn), policy=QUICK).stream_chat(question()))
    assert kinds_of(parts) == ["ThinkingPart", "TextPart", "ToolCallPart", "EndPart"]
    assert parts[-2] == ToolCallPart("call0", "weather", {"city": "Paris"})


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_thoughts_behind_an_engine(how: str) -> None:
    from llama_index_resilient_stream import ResilientLLM

    made = engine(ResilientLLM(PartsLLM(Turn([Thought("Hm. "), Thought("So."), "It is ", "blue."])), policy=QUICK))
    parts = await parts_of((lambda: made.query("?")) if how == "sync" else (lambda: made.aquery("?")))
    assert kinds_of(parts) == ["SourcesPart", "ThinkingPart", "TextPart", "EndPart"]
    assert [part.text for part in parts if isinstance(part, ThinkingPart)] == ["Hm. ", "So."]


class Progress(Event):
    done: int


class Token(Event):
    delta: str


class Cables(Workflow):
    result: Any = None

    @step
    async def mend(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ctx.write_event_to_stream(Progress(done=1))
        ctx.write_event_to_stream(Token(delta="It is "))
        ctx.write_event_to_stream(Token(delta="mended."))
        return StopEvent(result=self.result)


async def test_a_workflow_with_events_of_its_own() -> None:
    parts = await parts_of(lambda: Cables().run())
    assert parts[:-1] == [EventPart("Progress", {"done": 1}), TextPart("It is "), TextPart("mended.")]
    assert parts[-1] == EndPart("unknown")


async def test_a_workflow_whose_result_is_a_stream() -> None:
    flow = Cables()
    flow.result = await llm("flow").astream_chat(question())
    parts = await parts_of(lambda: flow.run())
    assert text_of(parts) == "It is mended." + TEXT
    assert parts[-1] == EndPart("complete")


async def _mixed() -> AsyncIterator[Any]:
    yield EventPart("title", 1)
    yield await engine(llm("mixed")).aquery("?")
    yield EventPart("follow_ups", [])


def _mixed_too() -> Iterator[Any]:
    yield EventPart("title", 1)
    yield engine(llm("mixed")).query("?")
    yield EventPart("follow_ups", [])


@pytest.mark.parametrize("make", [_mixed, _mixed_too], ids=["async", "sync"])
async def test_answers_within_a_generator(make: Any) -> None:
    parts = await parts_of(make)
    assert kinds_of(parts) == ["EventPart", "SourcesPart", "TextPart", "EventPart", "EndPart"]
    assert text_of(parts) == TEXT
    assert parts[-1] == EndPart("complete"), "as the answer in it says"


@pytest.mark.parametrize("make", [_mixed, _mixed_too], ids=["async", "sync"])
async def test_stopping_an_answer_within_a_generator(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = llm("mixed", delay=0.02)
    monkeypatch.setitem(globals(), "llm", lambda name: slow)
    reader = SourceReader(make)
    parts: list[Part] = []
    while not text_of(parts):
        parts += await reader.take()
    await reader.stop()
    while not reader.over:
        parts += await reader.take()
    await reader.leave()
    assert parts[-1] == EndPart("cancelled")
    assert len([part for part in parts if isinstance(part, EventPart)]) == 1, "what follows is not begun"


# On a server


@pytest.fixture(scope="module")
def app() -> Iterator[Running]:
    with serving("support.parts_app:app", "uvicorn-h11") as running:
        yield running


@pytest.mark.xdist_group("parts-app")
@pytest.mark.parametrize("kind", ["told", "agent-healed"])
@pytest.mark.parametrize("resumable", [False, True], ids=["live", "resumable"])
def test_every_part_arrives(kind: str, resumable: bool, app: Running) -> None:
    answer = httpx.get(f"{app.url}/ask/{kind}/events?resumable={resumable}", timeout=30).text
    lines = httpx.get(f"{app.url}/ask/{kind}/jsonl?resumable={resumable}", timeout=30).text.split("\n")
    types = [json.loads(line)["type"] for line in lines if line]
    names = [line.removeprefix("event: ") for line in answer.split("\n") if line.startswith("event: ")]
    if kind == "told":
        own = {"title": "event", "progress": "event", "follow_ups": "event", "done": "end"}
        assert [own.get(name, name) for name in names] == [name for name in types if name != "text"]
        assert names[:2] == ["title", "sources"]
        assert names[-2:] == ["follow_ups", "done"]
    assert types[-1] == "end"


@pytest.mark.xdist_group("parts-app")
@pytest.mark.parametrize("kind", ["slow", "slow-agent"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_leaving_stops_it_in_every_protocol(kind: str, protocol: str, app: Running) -> None:
    name = f"{kind}-{protocol}"
    with httpx.stream("GET", f"{app.url}/ask/{kind}/{protocol}?name={name}", timeout=30) as response:
        size = 0
        for chunk in response.iter_raw():
            size += len(chunk)
            if b"sunny" in chunk or size > 4000 or (protocol == "text" and size > 10):
                break
    until = time.monotonic() + 5
    while (state := httpx.get(f"{app.url}/state/{name}").json())["open"] and time.monotonic() < until:
        time.sleep(0.05)
    assert state["open"] == 0
    assert state["sent"] < len(TEXT) * 20 / 2


@pytest.mark.xdist_group("parts-app")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_applications_own_refusal_keeps_its_status(protocol: str, app: Running) -> None:
    response = httpx.get(f"{app.url}/ask/refused/{protocol}")
    assert response.status_code == 403
    assert "not yours" in response.text
    assert "retry" not in response.text


@pytest.mark.xdist_group("parts-app")
def test_the_schema_names_event_streams(app: Running) -> None:
    schema = httpx.get(f"{app.url}/openapi.json").json()
    assert list(schema["paths"]["/schema"]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]


async def test_what_is_sent_is_the_applications_choice() -> None:
    def select(part: Part) -> Part | None:
        if isinstance(part, SourcesPart):
            return replace(part, sources=tuple(replace(each, text="", metadata={}) for each in part.sources))
        return None if isinstance(part, JointPart) else part

    from llama_index_resilient_stream.serve import open_answer

    answer = await open_answer(source("healed"), select=select)
    body = b"".join([data async for data in answer]).decode()
    assert '"text":"","score":null,"metadata":{}' in body
    assert "sky.pdf" not in body
    assert "event: joint" not in body
    assert "event: recovery" in body
