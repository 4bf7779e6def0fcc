"""Chains of different providers: each of seven real integrations stands in for each of the others.

Those that are not installed are skipped by name; `nox -s integrations` installs them.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.llm import LLM
from llama_index.core.tools import FunctionTool
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM, StreamReport
from support.providers_stub import OBJECT, TEXT, Stub, serving

pydantic = pytest.importorskip("llama_index.core.bridge.pydantic")
try:
    from llama_index.core.base.llms.types import ImageBlock, TextBlock, ThinkingBlock
except ImportError:
    pytest.skip("the integrations' messages have other blocks than this core's", allow_module_level=True)

# Clients that an integration does not close, and what it does with its SDK's older names.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

POLICY = RecoveryPolicy(stop=stop_after_attempt(1), wait=wait_none())
# Of a PNG, in base64.
PIXEL = b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

LONG = (
    "It was raining when the ship came in, and nobody on the quay had thought of an umbrella. They sang all the time."
)


class Song(pydantic.BaseModel):  # type: ignore[misc, name-defined]
    """A song."""

    title: str
    year: int


def sing(title: str, year: int) -> str:
    """Sing."""
    return f"{title} was sung in {year}."


def hum(title: str) -> str:
    """Hum."""
    return title


TOOLS = [FunctionTool.from_defaults(fn=sing), FunctionTool.from_defaults(fn=hum)]


def _imported(package: str, name: str) -> Any:
    module = pytest.importorskip(f"llama_index.llms.{package}", reason=f"llama-index-llms-{package} is not installed")
    return getattr(module, name)


def openai(url: str, **kwargs: Any) -> LLM:
    made = _imported("openai", "OpenAI")
    return made(model="gpt-4o", api_key="k", api_base=f"{url}/v1", max_retries=0, **kwargs)  # type: ignore[no-any-return]


def openai_responses(url: str, **kwargs: Any) -> LLM:
    made = _imported("openai", "OpenAIResponses")
    return made(model="gpt-4o", api_key="k", api_base=f"{url}/v1", max_retries=0, **kwargs)  # type: ignore[no-any-return]


def anthropic(url: str, **kwargs: Any) -> LLM:
    made = _imported("anthropic", "Anthropic")
    return made(model="claude-sonnet-4-5", api_key="k", base_url=url, max_retries=0, **kwargs)  # type: ignore[no-any-return]


def google_genai(url: str, **kwargs: Any) -> LLM:
    made = _imported("google_genai", "GoogleGenAI")
    options = importlib.import_module("google.genai.types").HttpOptions(base_url=url)
    return made(model="gemini-2.5-flash", api_key="k", http_options=options, max_retries=1, **kwargs)  # type: ignore[no-any-return]


def bedrock(url: str, **kwargs: Any) -> LLM:
    made = _imported("bedrock_converse", "BedrockConverse")
    account = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    model = "anthropic.claude-3-5-sonnet-20240620-v1:0"
    once = importlib.import_module("botocore.config").Config(retries={"total_max_attempts": 1})
    return made(model=model, endpoint_url=url, max_retries=1, botocore_config=once, **account, **kwargs)  # type: ignore[no-any-return]


def mistral(url: str, **kwargs: Any) -> LLM:
    made = _imported("mistralai", "MistralAI")
    return made(api_key="k", endpoint=f"{url}/mistral", max_retries=0, **kwargs)  # type: ignore[no-any-return]


def ollama(url: str, **kwargs: Any) -> LLM:
    return _imported("ollama", "Ollama")(model="m", base_url=url, context_window=4096, **kwargs)  # type: ignore[no-any-return]


CLASSES: dict[str, Callable[..., LLM]] = {
    "OpenAI": openai,
    "OpenAIResponses": openai_responses,
    "Anthropic": anthropic,
    "GoogleGenAI": google_genai,
    "BedrockConverse": bedrock,
    "MistralAI": mistral,
    "Ollama": ollama,
}
PAIRS = [(first, second) for first in CLASSES for second in CLASSES if first != second]


@pytest.fixture
def servers() -> Iterator[tuple[Stub, Stub]]:
    """The primary's, which is down, and the fallback's."""
    first, second = serving(), serving()
    down, up = next(first), next(second)
    down.status = 503
    yield down, up
    first.close(), second.close()
    gc.collect()


@pytest.fixture(params=["sync", "async"])
def twin(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PAIRS, ids="-".join)
def chain(request: pytest.FixtureRequest, servers: tuple[Stub, Stub]) -> ResilientLLM:
    (first, second), (down, up) = request.param, servers
    return ResilientLLM(CLASSES[first](down.url), fallbacks=[CLASSES[second](up.url)], policy=POLICY)


def call(llm: Any, twin: str, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method; of a stream the last thing that came, and the report."""

    async def ask() -> Any:
        answer = await getattr(llm, f"a{name}")(*args, **kwargs)
        return [each async for each in answer][-1] if "stream" in name else answer

    if twin == "async":
        return asyncio.run(ask())
    answer = getattr(llm, name)(*args, **kwargs)
    return list(answer)[-1] if "stream" in name else answer


def told(llm: Any, twin: str, name: str, *args: Any) -> tuple[str, StreamReport]:
    """The deltas of a stream as its reader joins them, and its report."""

    async def read() -> tuple[str, Any]:
        stream = await getattr(llm, f"a{name}")(*args)
        return "".join([each.delta or "" async for each in stream]), stream.report

    if twin == "async":
        return asyncio.run(read())
    stream = getattr(llm, name)(*args)
    return "".join(each.delta or "" for each in stream), stream.report


def calls_of(llm: Any, response: Any) -> list[tuple[str, Any]]:
    calls = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    return [(call.tool_name, call.tool_kwargs) for call in calls]


def ending(response: Any) -> str:
    """The last line of the text: LlamaIndex's class for Mistral puts every chunk's text so far in front of it."""
    return str(response.message.content).rpartition("\n")[2]


def last_request(servers: tuple[Stub, Stub]) -> dict[str, Any]:
    down, up = servers
    assert len(down.seen) == 1
    assert len(up.seen) == 1
    sent = up.seen[0][1]
    down.seen.clear(), up.seen.clear()
    return sent


def bare_request(llm: ResilientLLM, servers: tuple[Stub, Stub], twin: str, name: str, **kwargs: Any) -> dict[str, Any]:
    """What the fallback's class sends by itself."""
    _, up = servers
    up.seen.clear()
    call(llm.fallbacks[0], twin, name, **kwargs)
    return up.seen.pop()[1]


def test_text(chain: ResilientLLM, servers: tuple[Stub, Stub], twin: str) -> None:
    messages = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="A song")]
    for name in ("chat", "stream_chat"):
        assert ending(call(chain, twin, name, messages)) == TEXT
        sent = last_request(servers)
        assert sent == bare_request(chain, servers, twin, name, messages=messages)


def test_a_text_that_breaks_off(chain: ResilientLLM, servers: tuple[Stub, Stub], twin: str) -> None:
    """Another provider's model writes on; it tells the answer again from its beginning, which nobody sees."""
    down, up = servers
    down.status, down.breaks = 200, True
    for server in servers:
        server.texts.append(LONG)
    read, report = told(chain, twin, "stream_chat", [ChatMessage(role="user", content="A song")])
    assert read == LONG
    assert [attempt.strategy for attempt in report.attempts] == ["first", "ask"]
    assert all(attempt.characters for attempt in report.attempts), "each wrote some of it"
    assert rules_broken(up.seen[-1]) == []


def test_a_call_that_breaks_off(chain: ResilientLLM, servers: tuple[Stub, Stub], twin: str) -> None:
    down, up = servers
    down.status, down.breaks = 200, True
    answer = call(chain, twin, "stream_chat_with_tools", TOOLS, user_msg="Sing.")
    assert calls_of(chain, answer) == [("sing", OBJECT)]
    assert len(down.seen) == len(up.seen) == 1


@pytest.mark.parametrize("required", [False, True], ids=["may", "must"])
def test_tools(chain: ResilientLLM, servers: tuple[Stub, Stub], twin: str, required: bool) -> None:
    history = [ChatMessage(role="system", content="Be brief.")]
    kwargs: dict[str, Any] = {"tools": TOOLS, "user_msg": "Sing.", "tool_required": required}
    for name in ("chat_with_tools", "stream_chat_with_tools"):
        answer = call(chain, twin, name, chat_history=history, **kwargs)
        assert calls_of(chain, answer) == [("sing", OBJECT)]
        assert len(history) == 1, "the caller's history is the caller's"
        sent = last_request(servers)
        assert sent == bare_request(chain, servers, twin, name, chat_history=list(history), **kwargs)


def test_objects(
    chain: ResilientLLM, servers: tuple[Stub, Stub], twin: str, record_property: Callable[[str, object], None]
) -> None:
    for name in ("structured_predict", "stream_structured_predict"):
        made = call(chain, twin, name, Song, PromptTemplate("A song about {it}"), it="rain")
        last_request(servers)
        # Some integrations lose the object of a stream by themselves; the table of conftest.py names them.
        bare = call(chain.fallbacks[0], twin, name, Song, PromptTemplate("A song about {it}"), it="rain")
        assert made.model_dump() == bare.model_dump()
        assert "stream" in name or made.model_dump() == OBJECT
        if made.model_dump() != OBJECT:
            record_property("as_bare", name)
        servers[1].seen.clear()


def test_images(chain: ResilientLLM, servers: tuple[Stub, Stub], twin: str) -> None:
    blocks = [TextBlock(text="What is it?"), ImageBlock(image=PIXEL, image_mimetype="image/png")]
    messages = [ChatMessage(role="user", blocks=blocks)]
    assert ending(call(chain, twin, "stream_chat", messages)) == TEXT
    sent = last_request(servers)
    assert PIXEL.decode()[:60] in json.dumps(sent)
    assert sent == bare_request(chain, servers, twin, "stream_chat", messages=messages)


@pytest.mark.parametrize("signed", [{"signature": "U0lH"}, {}], ids=["signed", "unsigned"])
def test_a_history_with_thoughts(
    chain: ResilientLLM, servers: tuple[Stub, Stub], twin: str, signed: dict[str, str]
) -> None:
    thought = ThinkingBlock(content="Rain, of course.", additional_information=signed)
    messages = [
        ChatMessage(role="user", content="A song"),
        ChatMessage(role="assistant", blocks=[thought, TextBlock(text="Rain.")]),
        ChatMessage(role="user", content="Another"),
    ]
    assert calls_of(chain, call(chain, twin, "stream_chat_with_tools", TOOLS, chat_history=messages))
    assert rules_broken(("", {}) if not servers[1].seen else servers[1].seen[0]) == []
    last_request(servers)


def test_a_tool_call_of_the_first_is_answered_to_the_second(
    chain: ResilientLLM, servers: tuple[Stub, Stub], twin: str
) -> None:
    down, up = servers
    down.status = 200
    history = [ChatMessage(role="user", content="Sing.")]
    first = call(chain, twin, "stream_chat_with_tools", TOOLS, chat_history=list(history))
    (selection,) = chain.get_tool_calls_from_response(first)
    assert not up.seen
    history += [
        first.message,
        ChatMessage(role="tool", content="Done.", additional_kwargs={"tool_call_id": selection.tool_id}),
    ]
    down.status = 503
    second = call(chain, twin, "stream_chat_with_tools", TOOLS, chat_history=list(history))
    assert ending(second) == up.after_tools
    assert calls_of(chain, second) == []
    assert rules_broken(up.seen[-1]) == []
    # And back: the first goes on from what the second wrote.
    down.status, down.seen = 200, []
    third = call(chain, twin, "stream_chat_with_tools", TOOLS, chat_history=[*history, second.message, history[0]])
    assert calls_of(chain, third) == [("sing", OBJECT)]
    assert rules_broken(down.seen[-1]) == []


def test_a_tool_call_of_the_second_is_answered_to_the_first(
    chain: ResilientLLM, servers: tuple[Stub, Stub], twin: str
) -> None:
    down, _up = servers
    history = [ChatMessage(role="user", content="Sing.")]
    first = call(chain, twin, "stream_chat_with_tools", TOOLS, chat_history=list(history))
    (selection,) = chain.get_tool_calls_from_response(first)
    history += [
        first.message,
        ChatMessage(role="tool", content="Done.", additional_kwargs={"tool_call_id": selection.tool_id}),
    ]
    down.status, down.seen = 200, []
    second = call(chain, twin, "stream_chat_with_tools", TOOLS, chat_history=list(history))
    assert ending(second) == down.after_tools
    assert rules_broken(down.seen[-1]) == []


def test_predict_and_call(chain: ResilientLLM, servers: tuple[Stub, Stub], twin: str) -> None:
    assert str(call(chain, twin, "predict_and_call", TOOLS, user_msg="Sing.")) == "Rain was sung in 1999."
    last_request(servers)


RING = [*zip(CLASSES, [*list(CLASSES)[1:], "OpenAI"], strict=True)]


@pytest.mark.parametrize(("first", "second"), RING, ids=["-".join(pair) for pair in RING])
@pytest.mark.parametrize("kind", ["FunctionAgent", "AgentWorkflow"])
def test_an_agent_survives_its_provider(first: str, second: str, kind: str, servers: tuple[Stub, Stub]) -> None:
    workflow = pytest.importorskip("llama_index.core.agent.workflow")
    down, up = servers
    llm = ResilientLLM(CLASSES[first](down.url), fallbacks=[CLASSES[second](up.url)], policy=POLICY)
    sung: list[tuple[str, int]] = []

    def sing(title: str, year: int) -> str:
        """Sing."""
        sung.append((title, year))
        down.status = 200  # the provider is back, and reads what the other one has written
        return "Done."

    async def run() -> str:
        agent = workflow.FunctionAgent(tools=[sing], llm=llm, name="Singer", description="It sings.")
        agent = agent if kind == "FunctionAgent" else workflow.AgentWorkflow(agents=[agent], root_agent="Singer")
        return str(await agent.run("Sing."))

    answer = asyncio.run(run())
    assert sung == [("Rain", 1999)]
    assert answer.rpartition("\n")[2] == down.after_tools
    assert len(up.seen) == 1
    assert rules_broken(down.seen[-1]) == []


@pytest.mark.parametrize("fallback", CLASSES)
def test_keywords_that_a_fallback_does_not_take_are_left_away(
    fallback: str, servers: tuple[Stub, Stub], twin: str, caplog: pytest.LogCaptureFixture
) -> None:
    down, up = servers
    llm = ResilientLLM(openai_responses(down.url), fallbacks=[CLASSES[fallback](up.url)], policy=POLICY)
    messages = [ChatMessage(role="user", content="A song")]
    keyword = f"truncation_{fallback}_{twin}"  # nobody's: the wrapped LLM is down before it says so
    from_extra = {"extra_body": {keyword: "auto"}} if fallback == "OpenAIResponses" else {"prompt_cache_key": keyword}
    for _ in range(2):
        call(llm, twin, "stream_chat", messages, **from_extra)
    assert len(up.seen) == 2
    taken = keyword in json.dumps(up.seen)
    warned = [r.message for r in caplog.records if "does not take the keyword" in r.message]
    assert len(warned) == 0 if taken else len(warned) <= 1, "once in the process"


CHOICES = {
    "name": "hum",
    "openai": {"type": "function", "function": {"name": "hum"}},
    "anthropic": {"type": "tool", "name": "hum"},
    "bedrock": {"tool": {"name": "hum"}},
}
CHOSEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "OpenAI": lambda body: body["tool_choice"] == {"type": "function", "function": {"name": "hum"}},
    "OpenAIResponses": lambda body: body["tool_choice"] == {"type": "function", "name": "hum"},
    "Anthropic": lambda body: (body["tool_choice"]["type"], body["tool_choice"]["name"]) == ("tool", "hum"),
    "GoogleGenAI": lambda body: body["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"] == ["hum"],
    "BedrockConverse": lambda body: body["toolConfig"]["toolChoice"] == {"tool": {"name": "hum"}},
    "MistralAI": lambda body: body["tool_choice"]["function"]["name"] == "hum",
    "Ollama": lambda body: "tool_choice" not in body,
}


@pytest.mark.parametrize("fallback", CLASSES)
@pytest.mark.parametrize("choice", CHOICES)
def test_the_choice_of_a_tool_in_each_protocol(fallback: str, choice: str, servers: tuple[Stub, Stub]) -> None:
    down, up = servers
    llm = ResilientLLM(openai(down.url), fallbacks=[CLASSES[fallback](up.url)], policy=POLICY)
    call(llm, "sync", "stream_chat_with_tools", TOOLS, user_msg="Hum.", tool_choice=CHOICES[choice])
    assert CHOSEN[fallback](up.seen[0][1]), up.seen[0][1]


# What the real APIs refuse


def rules_broken(seen: tuple[str, dict[str, Any]]) -> list[str]:
    """What the provider's real API would say about a request with tools."""
    path, body = seen
    if path.startswith("/mistral"):
        return _openai_rules(body, objects=True) + _mistral_rules(body)
    if path.endswith("/responses"):
        return _responses_rules(body)
    if path.endswith("/chat/completions"):
        return _openai_rules(body)
    if path.endswith("/messages"):
        return _blocks_rules(body, "tool_use", "tool_result", body.get("tools"))
    if "/converse" in path:
        return _blocks_rules(body, "toolUse", "toolResult", body.get("toolConfig"))
    return []


def _openai_rules(body: dict[str, Any], *, objects: bool = False) -> list[str]:
    broken, open_calls = [], set()
    for message in body["messages"]:
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_calls:
                broken.append(f"a result of no call: {message.get('tool_call_id')!r}")
            open_calls.discard(message.get("tool_call_id"))
        elif open_calls:
            broken.append("calls without a result")
        for one in message.get("tool_calls") or ():
            if not isinstance(one.get("id"), str) or not one["id"]:
                broken.append("a call without an id")
            arguments = one["function"]["arguments"]
            if not isinstance(arguments, str) and not objects:
                broken.append(f"arguments that are no JSON text: {arguments!r}")
            open_calls.add(one.get("id"))
    return broken


def _mistral_rules(body: dict[str, Any]) -> list[str]:
    ids = [one["id"] for message in body["messages"] for one in message.get("tool_calls") or ()]
    return [f"an id that is refused: {each}" for each in ids if not re.fullmatch("[a-zA-Z0-9]{9}", each)]


def _responses_rules(body: dict[str, Any]) -> list[str]:
    broken, open_calls = [], set()
    for item in body["input"]:
        if item.get("type") == "function_call":
            open_calls.add(item.get("call_id"))
            if not isinstance(item["arguments"], str) or not isinstance(json.loads(item["arguments"]), dict):
                broken.append(f"arguments that are no JSON text: {item['arguments']!r}")
        if item.get("type") == "function_call_output" and item.get("call_id") not in open_calls:
            broken.append(f"a result of no call: {item.get('call_id')!r}")
    return broken


def _blocks_rules(body: dict[str, Any], use: str, result: str, tools: Any) -> list[str]:
    broken, open_calls = [], set()
    for message in body["messages"]:
        for block in message["content"] if isinstance(message["content"], list) else ():
            thought = block.get("reasoningContent", {}).get("reasoningText") or block
            if (block.get("type") == "thinking" or thought is not block) and not thought.get("signature"):
                broken.append("a thought without a signature")
            if (call := block.get(use) if use in block else block if block.get("type") == use else None) is not None:
                if not isinstance(call["input"], dict):
                    broken.append(f"input that is no object: {call['input']!r}")
                open_calls.add(call.get("id") or call.get("toolUseId"))
            done = block.get(result) if result in block else block if block.get("type") == result else None
            if done is not None and (done.get("tool_use_id") or done.get("toolUseId")) not in open_calls:
                broken.append("a result of no call")
    if open_calls and not tools:
        broken.append("calls without tools")
    return broken
