"""Structured output: a cut object is asked for again, never repaired; the last object of a stream is right."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import Document, PromptTemplate, SummaryIndex
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.llms.llm import LLM
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.program import LLMTextCompletionProgram
from llama_index.core.types import BasePydanticProgram
from llama_index.llms.openai import OpenAI

from llama_index_resilient_stream import ConfigurationError, ResilientLLM, StreamInterruptedError, TokenEvent
from llama_index_resilient_stream.llm.question import Question
from llama_index_resilient_stream.llm.structured import ObjectText
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
    if (client := getattr(getattr(llm, "llm", None), "_client", None)) is not None:
        client.close()


async def aclose(llm: Any) -> None:
    if (client := getattr(getattr(llm, "llm", None), "_aclient", None)) is not None:
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
def test_structured_llm_answers(mode: Callable[..., ScriptedLLM], twin: str) -> None:
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
async def test_structured_llm_streams(method: str) -> None:
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
def test_structured_output_cut_on_the_wire(fault: str, twin: str, serve: Serve) -> None:
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


# A finish reason under half an object


def finished(after: int) -> Cut:
    return Cut(after, finish_reason="stop")


@MODES
@pytest.mark.parametrize("after", CUTS)
def test_no_finish_reason_closes_half_an_object(mode: Callable[..., ScriptedLLM], after: int, twin: str) -> None:
    inner = mode([finished(after), finished(after)])
    assert as_dict(predict(ResilientLLM(inner, policy=QUICK), twin)) == OBJECT
    assert len(inner.calls) == 3


@needs_streams
@STREAMED_MODES
@pytest.mark.parametrize("after", CUTS)
def test_no_finish_reason_closes_half_a_streamed_object(
    mode: Callable[..., ScriptedLLM], after: int, twin: str
) -> None:
    inner = mode([finished(after), finished(after)])
    assert stream(ResilientLLM(inner, policy=QUICK), twin)[-1] == OBJECT
    assert len(inner.calls) == 3


@MODES
@pytest.mark.parametrize("read", [predict, pytest.param(stream, marks=needs_streams)], ids=["predict", "stream"])
def test_an_object_cut_every_time_is_an_error(mode: Callable[..., ScriptedLLM], read: Any, twin: str) -> None:
    if read is stream and mode is not calling and not STREAMS_TEXT:
        pytest.skip("this core streams objects only from function calls")
    with pytest.raises(StreamInterruptedError, match="Incomplete stream response") as caught:
        read(ResilientLLM(mode([finished(WHOLE.index("0, "))] * 9), policy=QUICK), twin)
    assert caught.value.retryable
    assert len(caught.value.report.attempts) >= 3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("pieces", "cut"),
    [
        ([""], False),
        (["I cannot say."], False),
        (['{"a": 1}'], False),
        (['{"a": 1'], True),
        (["{"], True),
        (['{"a": "}'], True),
        (['{"a": "\\"}'], True),
        (['{"a": "\\', '"}"', "}"], False),
        (['{"a": {"b": [1, 2]'], True),
        (['{"a": {"b": [1, 2]}}'], False),
        (["[1, 2"], True),
        (['[{"a": 1}, {"a"'], True),
        (["```json\n", "[", '{"a": 1}'], True),
        (["```json\n", '{"a"', ": 1}\n```"], False),
        (['Here it is [1]: {"a"', ": 1}. It's {all"], False),
        (["See [1"], False),
    ],
    ids=repr,
)
def test_whether_the_text_of_an_object_is_cut(pieces: list[str], cut: bool) -> None:
    text = ObjectText()
    for piece in pieces:
        text.feed(piece)
    assert text.is_cut is cut


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
).filter(lambda value: isinstance(value, (dict, list)))


@given(JSON, st.integers(min_value=1, max_value=7), st.data())
def test_every_beginning_of_an_object_is_cut_and_the_whole_is_not(value: Any, size: int, data: st.DataObject) -> None:
    whole = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    after = data.draw(st.integers(min_value=1, max_value=len(whole) - 1))
    for text, cut in ((whole, False), (whole[:after], True)):
        watched = ObjectText()
        for start in range(0, len(text), size):
            watched.feed(text[start : start + size])
        assert watched.is_cut is cut


# The wrapped class's own way


class Own(ScriptedLLM):
    """Asks for objects in a way of its own, through its endpoints, as LlamaIndex's OpenAI and Ollama do."""

    def structured_predict(self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **arguments: Any) -> Any:
        llm_kwargs = {} if llm_kwargs is None else llm_kwargs
        llm_kwargs["format"] = output_cls.__name__
        response = self.chat(prompt.format_messages(**arguments), **llm_kwargs)
        return output_cls(**json.loads(str(response.message.content)))

    async def astructured_predict(self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **arguments: Any) -> Any:
        response = await self.achat(prompt.format_messages(**arguments), format=output_cls.__name__)
        return output_cls(**json.loads(str(response.message.content)))

    def stream_structured_predict(self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **arguments: Any) -> Any:
        for chunk in self.stream_chat(prompt.format_messages(**arguments), format=output_cls.__name__):
            yield repaired(output_cls, str(chunk.message.content))

    async def astream_structured_predict(  # type: ignore[override]
        self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **arguments: Any
    ) -> Any:
        async def objects() -> Any:
            async for chunk in await self.astream_chat(prompt.format_messages(**arguments), format=output_cls.__name__):
                yield repaired(output_cls, str(chunk.message.content))

        return objects()


def repaired(output_cls: Any, text: str) -> Any:
    """As lenient as LlamaIndex: half an object is made into one that looks valid."""
    try:
        return output_cls(**json.loads(text))
    except ValueError:
        return output_cls(amount=1, to=text)


READS = pytest.mark.parametrize("read", [predict, stream], ids=["predict", "stream"])


def last(found: Any) -> dict[str, Any]:
    return found[-1] if isinstance(found, list) else as_dict(found)


@READS
@pytest.mark.parametrize(
    "cue",
    [None, Fail(RESET), Cut(20, RESET), Cut(20), finished(20), finished(0)],
    ids=["healthy", "failed", "cut", "clean-end", "stop-under-half", "stop-under-nothing"],
)
def test_the_class_s_own_request_is_used(read: Any, cue: Any, twin: str) -> None:
    inner = Own(WHOLE, [cue], tool_calls=[("Payment", "{}")])
    assert last(read(ResilientLLM(inner, policy=QUICK), twin)) == OBJECT
    assert [call.kwargs for call in inner.calls] == [{"format": "Payment"}] * (1 if cue is None else 2)


@READS
@pytest.mark.parametrize("finish", [None, "stop", "length"])
def test_half_an_object_is_never_handed_out_as_the_last_one(read: Any, finish: str | None, twin: str) -> None:
    inner = Own(WHOLE, [Cut(20, finish_reason=finish)] * 9)
    with pytest.raises(StreamInterruptedError if finish != "length" or read is stream else ValueError):
        read(ResilientLLM(inner, policy=QUICK), twin)


@READS
def test_as_many_objects_as_the_wrapped_llm_gives(read: Any, twin: str) -> None:
    bare, wrapped = read(Own(WHOLE), twin), read(ResilientLLM(Own(WHOLE), policy=QUICK), twin)
    assert bare == wrapped


@READS
def test_a_fallback_asks_in_its_own_way(read: Any, twin: str) -> None:
    if read is stream and not HAS_STREAMS:
        pytest.skip("this core's object streams keep the first value of a field")
    first, second = Own(WHOLE, [Fail(RESET)] * 9), calling([])
    assert last(read(ResilientLLM(first, fallbacks=[second], policy=QUICK), twin)) == OBJECT
    assert "format" not in second.calls[0].kwargs
    assert second.calls[0].kwargs["tools"]


def test_the_wrapped_llm_and_what_is_passed_stay_as_they_are() -> None:
    inner, llm_kwargs = Own(WHOLE, [Cut(9)]), {"top_p": 0.1}
    before = dict(vars(inner))
    ResilientLLM(inner, policy=QUICK).structured_predict(Payment, PROMPT, llm_kwargs=llm_kwargs, hint="?")
    assert vars(inner) == before
    assert llm_kwargs == {"top_p": 0.1}
    assert [call.kwargs["top_p"] for call in inner.calls] == [0.1, 0.1]


@needs_streams
def test_prompt_fields_of_the_wrapper_count(twin: str) -> None:
    inner = calling([])
    predict(ResilientLLM(inner, policy=QUICK, system_prompt="Be exact."), twin)
    asked = [str(message.content) for message in inner.calls[0].messages]
    bare = calling([])
    bare.system_prompt = "Be exact."
    predict(bare, twin)
    assert asked == [str(message.content) for message in bare.calls[0].messages]


class Straight(ScriptedLLM):
    """Asks its SDK itself, past its endpoints, as LlamaIndex's Anthropic and GoogleGenAI do."""

    said: list[str]

    def __init__(self, *said: str) -> None:
        super().__init__("", said=list(said))

    def _text(self) -> str:
        text = self.said.pop(0)
        if text == "reset":
            raise RESET
        return text

    def structured_predict(self, output_cls: Any, *_: Any, **__: Any) -> Any:
        text = self._text()
        parse = getattr(output_cls, "model_validate_json", None) or output_cls.parse_raw
        return parse(text)

    async def astructured_predict(self, output_cls: Any, *_: Any, **__: Any) -> Any:
        return self.structured_predict(output_cls)

    def stream_structured_predict(self, output_cls: Any, *_: Any, **__: Any) -> Any:
        text = self._text()
        for after in range(8, len(text) + 8, 8):
            try:
                yield output_cls(**json.loads(text[:after]))
            except ValueError:
                yield Partial(so_far=text[:after])

    async def astream_structured_predict(self, output_cls: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        async def objects() -> Any:
            for each in self.stream_structured_predict(output_cls):
                yield each

        return objects()


class Partial(BaseModel):
    so_far: str


@READS
@pytest.mark.parametrize("first", ["reset", WHOLE[:1], WHOLE[:20], WHOLE[:-1]], ids=["failed", "1", "20", "all-but-1"])
def test_a_class_that_goes_past_its_endpoints(read: Any, first: str, twin: str) -> None:
    inner = Straight(first, first, WHOLE, "never asked for")
    assert last(read(ResilientLLM(inner, policy=QUICK), twin)) == OBJECT
    assert inner.said == ["never asked for"]


@READS
def test_a_class_that_goes_past_its_endpoints_and_is_cut_every_time(read: Any, twin: str) -> None:
    with pytest.raises(StreamInterruptedError, match="Incomplete"):
        read(ResilientLLM(Straight(*[WHOLE[:20]] * 9), policy=QUICK), twin)


@READS
def test_objects_teach_nothing_about_the_ends_of_streams(read: Any, twin: str) -> None:
    llm = ResilientLLM(Straight(WHOLE), policy=QUICK)
    read(llm, twin)
    assert not llm._learned[0].sends_finish_reason


def test_an_object_of_another_shape_is_not_asked_for_again(twin: str) -> None:
    inner = Straight('{"amount": "many"}', WHOLE)
    with pytest.raises(ValueError, match="amount"):
        predict(ResilientLLM(inner, policy=QUICK), twin)
    assert inner.said == [WHOLE]


# Around a structured LLM


def structured(script: list[Any], **kwargs: Any) -> tuple[ScriptedLLM, ResilientLLM]:
    inner = calling(script)
    return inner, ResilientLLM(inner.as_structured_llm(Payment), policy=QUICK, **kwargs)


MESSAGES = PROMPT.format_messages(hint="?")


async def all_of(stream: Any) -> list[Any]:
    return [each async for each in stream] if hasattr(stream, "__aiter__") else list(stream)


@pytest.mark.parametrize("endpoint", ["chat", "achat", "complete", "acomplete", "stream_chat", "astream_chat"])
@pytest.mark.parametrize("cue", [None, Fail(RESET), Cut(20, RESET), finished(20)], ids=str)
async def test_around_a_structured_llm(endpoint: str, cue: Any) -> None:
    if "stream" in endpoint and not HAS_STREAMS:
        pytest.skip("this core's object streams keep the first value of a field")
    inner, llm = structured([cue])
    answer: Any = getattr(llm, endpoint)("?" if "complete" in endpoint else MESSAGES)
    if endpoint.startswith("a"):
        answer = await answer
    if "stream" in endpoint:
        answer = (await all_of(answer))[-1]
    assert as_dict(answer.raw) == OBJECT
    assert len(inner.calls) == (1 if cue is None else 2)


@pytest.mark.parametrize("method", ["query", "aquery"])
async def test_around_a_structured_llm_in_a_query_engine(method: str) -> None:
    index = SummaryIndex.from_documents([Document(text="Ada gets 1000.")])

    async def ask(llm: Any) -> Any:
        answer = getattr(index.as_query_engine(llm=llm), method)("?")
        return (await answer) if method == "aquery" else answer

    bare, wrapped = await ask(calling([]).as_structured_llm(Payment)), await ask(structured([Fail(RESET)])[1])
    assert type(wrapped) is type(bare)
    assert wrapped.response == bare.response
    assert as_dict(wrapped.response) == OBJECT


@needs_streams
@pytest.mark.parametrize("method", ["stream_chat", "astream_chat"])
async def test_around_a_structured_llm_cut_every_time(method: str) -> None:
    _, llm = structured([finished(20)] * 9)
    answer: Any = getattr(llm, method)(MESSAGES)
    with pytest.raises(StreamInterruptedError):
        await all_of(await answer if method.startswith("a") else answer)


def test_around_a_structured_llm_it_is_both() -> None:
    _, llm = structured([])
    for each in (llm, llm.bind(callbacks=[]), copy.copy(llm)):
        assert isinstance(each, ResilientLLM)
        assert isinstance(each, StructuredLLM)
        assert each.output_cls is Payment

    class Mine(ResilientLLM):
        pass

    mine = Mine(calling([]).as_structured_llm(Payment))
    assert isinstance(mine, Mine)
    assert isinstance(mine, StructuredLLM)


def test_a_structured_llm_around_a_resilient_one_is_not_wrapped_again() -> None:
    with pytest.raises(ConfigurationError, match="resilient already"):
        ResilientLLM(ResilientLLM(calling([])).as_structured_llm(Payment))


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
def test_settings_that_mean_structured_output(kwargs: dict[str, Any], structured: bool) -> None:
    assert Question(True, kwargs=kwargs).structured is structured
