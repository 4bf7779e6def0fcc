"""Structured output: a cut object is asked for again, never repaired; the last object of a stream is right."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.llms.llm import LLM
from llama_index.core.program import LLMTextCompletionProgram
from llama_index.core.types import BasePydanticProgram
from llama_index.llms.openai import OpenAI

from llama_index_resilient_stream import ResilientLLM, StreamInterruptedError, TokenEvent
from llama_index_resilient_stream.llm.requests import Question
from llama_index_resilient_stream.testing import FAULTS, Cut, Fail, FaultServer, ScriptedLLM
from support.readers import QUICK, openai_like

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # LlamaIndex and pydantic, among themselves

HAS_STREAMS = hasattr(LLM, "_structured_stream_call")  # since 0.12.42; before, healthy streams stick to cut values, too
needs_streams = pytest.mark.skipif(not HAS_STREAMS, reason="this core's object streams keep the first value of a field")
HAS_JSON_MODE = hasattr(OpenAI, "_structured_stream_call")
STREAMS_TEXT = LLMTextCompletionProgram.stream_call is not BasePydanticProgram.stream_call  # in late 0.14 only
needs_json_mode = pytest.mark.skipif(not HAS_JSON_MODE, reason="this OpenAI class has no JSON mode")

RESET = ConnectionResetError("reset")
PROMPT = PromptTemplate("Who gets what? {hint}")
Serve = Callable[..., FaultServer]


class Payment(BaseModel):
    """Who gets what."""

    amount: int
    to: str
    note: str | None = None


WHOLE = '{"amount": 1000, "to": "Ada", "note": "for the engine"}'
OBJECT = {"amount": 1000, "to": "Ada", "note": "for the engine"}
CUTS = [1, 12, WHOLE.index("0, "), WHOLE.index(', "to"'), WHOLE.index("da"), WHOLE.index(" the"), len(WHOLE) - 1]


def as_dict(thing: Any) -> dict[str, Any]:
    return json.loads(thing.model_dump_json() if hasattr(thing, "model_dump_json") else thing.json())


def calling(script: list[Any], arguments: str = WHOLE) -> ScriptedLLM:
    return ScriptedLLM("", script, tool_calls=[("Payment", arguments)])


def writing(script: list[Any], text: str = WHOLE) -> ScriptedLLM:
    return ScriptedLLM(text, script, chat=True)


def completing(script: list[Any], text: str = WHOLE) -> ScriptedLLM:
    return ScriptedLLM(text, script, chat=False)


MODES = pytest.mark.parametrize("mode", [calling, writing, completing], ids=["functions", "chat-text", "completion"])


_NO_TEXT = pytest.mark.skipif(not STREAMS_TEXT, reason="this core streams objects only from function calls")
STREAMED_MODES = pytest.mark.parametrize(
    "mode",
    [calling, pytest.param(writing, marks=_NO_TEXT), pytest.param(completing, marks=_NO_TEXT)],
    ids=["functions", "chat-text", "completion"],
)


def predict(llm: Any, twin: str) -> Any:
    async def run() -> Any:
        try:
            return await llm.astructured_predict(Payment, PROMPT, hint="?")
        finally:
            await aclose(llm)

    try:
        return asyncio.run(run()) if twin == "async" else llm.structured_predict(Payment, PROMPT, hint="?")
    finally:
        close(llm)


def stream(llm: Any, twin: str) -> list[dict[str, Any]]:
    """All objects of a stream."""

    async def run() -> list[dict[str, Any]]:
        try:
            objects = await llm.astream_structured_predict(Payment, PROMPT, hint="?")
            return [as_dict(each) async for each in objects]
        finally:
            await aclose(llm)

    if twin == "async":
        return asyncio.run(run())
    try:
        return [as_dict(each) for each in llm.stream_structured_predict(Payment, PROMPT, hint="?")]
    finally:
        close(llm)


def close(llm: Any) -> None:
    """Close the HTTP client, where there is one."""
    if (client := getattr(llm.llm, "_client", None)) is not None:
        client.close()


async def aclose(llm: Any) -> None:
    if (client := getattr(llm.llm, "_aclient", None)) is not None:
        await client.close()


@pytest.fixture(params=["sync", "async"])
def twin(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# All at once


@MODES
@pytest.mark.parametrize("fault", [None, Fail(RESET), Cut(12, RESET)], ids=["healthy", "failed", "cut"])
def test_an_object(mode: Callable[..., ScriptedLLM], fault: Any, twin: str) -> None:
    inner = mode([fault])
    assert as_dict(predict(ResilientLLM(inner, policy=QUICK), twin)) == OBJECT
    assert len(inner.calls) == (1 if fault is None else 2)


@MODES
def test_an_object_cut_by_the_token_limit_is_an_error(mode: Callable[..., ScriptedLLM], twin: str) -> None:
    inner = mode([Cut(WHOLE.index("0, "), finish_reason="length")] * 9)
    with pytest.raises(Exception):  # noqa: B017, PT011 - LlamaIndex's parsers have many; what matters is that no object comes
        predict(ResilientLLM(inner, policy=QUICK), twin)


@MODES
def test_as_structured_llm(mode: Callable[..., ScriptedLLM], twin: str) -> None:
    llm = ResilientLLM(mode([Fail(RESET)]), policy=QUICK).as_structured_llm(Payment)
    messages = PROMPT.format_messages(hint="?")
    response = asyncio.run(llm.achat(messages)) if twin == "async" else llm.chat(messages)
    assert as_dict(response.raw) == OBJECT


# Streamed


@needs_streams
@STREAMED_MODES
@pytest.mark.parametrize("error", [None, RESET], ids=["clean_eof", "transport-error"])
@pytest.mark.parametrize("after", CUTS)
def test_a_cut_object_is_asked_for_again(
    mode: Callable[..., ScriptedLLM], after: int, error: Exception | None, twin: str
) -> None:
    inner = mode([Cut(after, error), Cut(after, error)])
    objects = stream(ResilientLLM(inner, policy=QUICK), twin)
    assert objects[-1] == OBJECT
    assert len(inner.calls) == 3
    assert {call.partial_text for call in inner.calls} == {""}, "asked anew each time, never to go on"


@needs_streams
@pytest.mark.parametrize("method", ["stream_chat", "astream_chat"])
async def test_as_structured_llm_streams(method: str) -> None:
    inner = calling([Cut(20, RESET)])
    llm = ResilientLLM(inner, policy=QUICK).as_structured_llm(Payment)
    messages = PROMPT.format_messages(hint="?")
    if method == "stream_chat":
        responses = list(llm.stream_chat(messages))
    else:
        responses = [each async for each in await llm.astream_chat(messages)]
    assert as_dict(responses[-1].raw) == OBJECT
    assert len(inner.calls) == 2


@needs_streams
@STREAMED_MODES
def test_an_object_told_with_fewer_fields_is_not_mixed_with_the_cut_one(
    mode: Callable[..., ScriptedLLM], twin: str
) -> None:
    short = '{"amount": 7, "to": "Ada"}'
    first, second = mode([Cut(len(WHOLE) - 6, RESET), Fail(RESET)]), mode([], short)
    tokens: list[TokenEvent] = []
    llm = ResilientLLM(first, fallbacks=[second], policy=QUICK, callbacks=[tokens.append])
    objects = stream(llm, twin)
    assert objects[-1] == {"amount": 7, "to": "Ada", "note": None}
    if mode is not calling:  # tool arguments are no text: there it is the resumed attempt that announces it
        assert sum(event.reset for event in tokens) == 1


@needs_streams
def test_starting_over_is_announced(twin: str) -> None:
    class Diary:
        def __init__(self) -> None:
            self.resumed: list[str] = []

        def on_resume(self, event: Any) -> None:
            self.resumed.append(event.strategy)

    diary = Diary()
    objects = stream(ResilientLLM(calling([Cut(40, RESET)]), policy=QUICK, callbacks=[diary]), twin)
    amounts = [each.get("amount") for each in objects]
    begun = amounts.index(1000)
    assert None in amounts[begun:], "the object starts over"
    assert diary.resumed == ["restart"]


@needs_streams
@STREAMED_MODES
@pytest.mark.parametrize("on_exhausted", ["raise", "partial"])
def test_an_object_given_up_is_an_error(mode: Callable[..., ScriptedLLM], on_exhausted: Any, twin: str) -> None:
    llm = ResilientLLM(mode([Cut(WHOLE.index("0, "))] * 9), policy=replace(QUICK, on_exhausted=on_exhausted))
    with pytest.raises(StreamInterruptedError, match="Incomplete stream response"):
        stream(llm, twin)


@needs_streams
@STREAMED_MODES
def test_a_streamed_object_cut_by_the_token_limit_is_an_error(mode: Callable[..., ScriptedLLM], twin: str) -> None:
    inner = mode([Cut(WHOLE.index("0, "), finish_reason="length")])
    with pytest.raises(StreamInterruptedError) as caught:
        stream(ResilientLLM(inner, policy=QUICK), twin)
    assert "finish reason 'length'" in str(caught.value.__cause__)
    assert not caught.value.retryable


@needs_streams
def test_leaving_closes_the_stream() -> None:
    inner = calling([])
    objects = ResilientLLM(inner, policy=QUICK).stream_structured_predict(Payment, PROMPT, hint="?")
    next(objects)
    objects.close()
    assert [call.state for call in inner.calls] == ["closed"]


@needs_streams
async def test_leaving_asynchronously_closes_the_stream() -> None:
    inner = calling([])
    objects: Any = await ResilientLLM(inner, policy=QUICK).astream_structured_predict(Payment, PROMPT, hint="?")
    await anext(objects)
    await objects.aclose()
    assert len(inner.calls) == 1
    for _ in range(20):  # LlamaIndex leaves the inner generators to the loop
        await asyncio.sleep(0)
    assert not inner.open_streams


# On the wire


@pytest.mark.parametrize("fault", ["reset", "clean_eof", "done_without_finish", "half_event"])
@needs_streams
def test_on_the_wire(fault: str, twin: str, serve: Serve) -> None:
    server = serve("", [FAULTS[fault].at(16)], tool_call=("Payment", WHOLE))
    inner = openai_like(server, is_function_calling_model=True)
    assert stream(ResilientLLM(inner, policy=QUICK), twin)[-1] == OBJECT
    assert len(server.requests) == 2


def json_mode(server: FaultServer) -> OpenAI:
    inner = OpenAI(model="gpt-4o", api_base=server.url, api_key="sk-secret", max_retries=0)
    if not inner._should_use_structure_outputs():
        pytest.skip("this OpenAI class has no JSON mode for this model")
    return inner


@needs_json_mode
@pytest.mark.parametrize("after", CUTS)
def test_openai_s_json_mode(after: int, twin: str, serve: Serve) -> None:
    server = serve(WHOLE, [FAULTS["clean_eof"].at(after)])
    inner = json_mode(server)
    assert stream(ResilientLLM(inner, policy=QUICK), twin)[-1] == OBJECT
    assert [record.body["response_format"]["type"] for record in server.requests] == ["json_schema"] * 2
    assert not server.requests[1].partial_text


@needs_json_mode
def test_openai_s_json_mode_all_at_once(twin: str, serve: Serve) -> None:
    server = serve(WHOLE, ["http_503"])
    inner = json_mode(server)
    assert as_dict(predict(ResilientLLM(inner, policy=QUICK), twin)) == OBJECT
    assert [record.body["response_format"]["type"] for record in server.requests] == ["json_schema"] * 2


# Which requests are known to be structured


@pytest.mark.parametrize(
    ("kwargs", "structured"),
    [
        ({}, False),
        ({"temperature": 0.1}, False),
        ({"tools": None, "tool_choice": None}, False),
        ({"tools": [{"type": "function"}]}, True),
        ({"response_format": {"type": "json_object"}}, True),
        ({"extra_body": {"guided_json": {}, "guided_regex": "a+"}}, True),
    ],
    ids=["nothing", "a-setting", "no-tools", "tools", "json-mode", "guided"],
)
def test_what_is_structured(kwargs: dict[str, Any], structured: bool) -> None:
    assert Question(True, kwargs=kwargs).structured is structured
