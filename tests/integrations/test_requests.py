"""LlamaIndex's integrations bare and wrapped: the same requests on the wire, the same results.

Those that are not installed are skipped by name; `nox -s integrations` installs them.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.llm import LLM
from llama_index.core.tools import FunctionTool

from llama_index_resilient_stream import ResilientLLM, StreamInterruptedError
from support.providers_stub import TEXT, Stub, serving
from support.readers import QUICK

pydantic = pytest.importorskip("llama_index.core.bridge.pydantic")
if not hasattr(LLM, "_structured_stream_call"):
    pytest.skip("the integrations' own structured output is newer than this core", allow_module_level=True)

# Clients that an integration does not close, and what it does with its SDK's older names.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class Song(pydantic.BaseModel):  # type: ignore[misc, name-defined]
    """A song."""

    title: str
    year: int


def _imported(package: str, name: str) -> Any:
    module = pytest.importorskip(f"llama_index.llms.{package}", reason=f"llama-index-llms-{package} is not installed")
    return getattr(module, name)


def openai(stub: Stub, model: str = "gpt-4o") -> LLM:
    return _imported("openai", "OpenAI")(model=model, api_key="k", api_base=f"{stub.url}/v1", max_retries=0)  # type: ignore[no-any-return]


def openai_like(stub: Stub) -> LLM:
    kind = {"is_chat_model": True, "is_function_calling_model": True}
    return _imported("openai_like", "OpenAILike")(  # type: ignore[no-any-return]
        model="m", api_key="k", api_base=f"{stub.url}/v1", max_retries=0, **kind
    )


def openai_responses(stub: Stub) -> LLM:
    made = _imported("openai", "OpenAIResponses")
    return made(model="gpt-4o", api_key="k", api_base=f"{stub.url}/v1", max_retries=0)  # type: ignore[no-any-return]


def anthropic(stub: Stub, model: str = "claude-sonnet-4-5") -> LLM:
    return _imported("anthropic", "Anthropic")(model=model, api_key="k", base_url=stub.url, max_retries=0)  # type: ignore[no-any-return]


def ollama(stub: Stub, **kwargs: Any) -> LLM:
    return _imported("ollama", "Ollama")(model="m", base_url=stub.url, context_window=4096, **kwargs)  # type: ignore[no-any-return]


def google_genai(stub: Stub) -> LLM:
    made = _imported("google_genai", "GoogleGenAI")
    options = importlib.import_module("google.genai.types").HttpOptions(base_url=stub.url)
    return made(model="gemini-2.5-flash", api_key="k", http_options=options, max_retries=1)  # type: ignore[no-any-return]


LLMS: dict[str, Callable[[Stub], LLM]] = {
    "openai-json-schema": openai,
    "openai-functions": lambda stub: openai(stub, "gpt-4"),
    "openai-like": openai_like,
    "openai-responses": openai_responses,
    "anthropic-output-config": anthropic,
    "anthropic-functions": lambda stub: anthropic(stub, "claude-3-haiku-20240307"),
    "ollama": ollama,
    "ollama-without-functions": lambda stub: ollama(stub, is_function_calling_model=False),
    "google-genai": google_genai,
}

PROMPT = PromptTemplate("A song about {it}")
MESSAGES = [ChatMessage(role="user", content="A song about rain")]
OBJECTS = ("structured_predict", "stream_structured_predict")
TOOLS = ("chat_with_tools", "stream_chat_with_tools")
TEXTS = ("chat", "stream_chat", "complete", "stream_complete")
STRUCTURED = ("structured_llm.chat", "structured_llm.stream_chat", "structured_llm.complete")
CALLS = [*OBJECTS, *TOOLS, *TEXTS, *STRUCTURED]


def sing(title: str, year: int) -> str:
    """Sing."""
    return f"{title} {year}"


def call(llm: Any, name: str, twin: str) -> Any:
    """Call a method; of a stream everything that came."""
    if name.startswith("structured_llm."):
        llm, name = llm.as_structured_llm(Song), name.partition(".")[2]
    args: tuple[Any, ...] = ("A song",) if "complete" in name else (MESSAGES,)
    kwargs: dict[str, Any] = {}
    if name in OBJECTS:
        args, kwargs = (Song, PROMPT), {"it": "rain"}
    if name in TOOLS:
        args, kwargs = ([FunctionTool.from_defaults(fn=sing)],), {"user_msg": "Sing."}

    async def ask() -> Any:
        answer = await getattr(llm, f"a{name}")(*args, **kwargs)
        return [each async for each in answer] if "stream" in name else answer

    if twin == "async":
        return asyncio.run(ask())
    answer = getattr(llm, name)(*args, **kwargs)
    return list(answer) if "stream" in name else answer


def shown(answer: Any) -> Any:
    """What a user compares results by."""
    if isinstance(answer, list):
        return [shown(each) for each in answer]
    if hasattr(answer, "message"):
        calls = [getattr(block, "tool_kwargs", None) for block in answer.message.blocks]
        raw = answer.raw if isinstance(answer.raw, Song) else None
        return answer.message.content, answer.delta, calls, raw
    return (answer.text, answer.delta) if hasattr(answer, "delta") else repr(answer)


def last(answer: Any) -> Any:
    return answer[-1].model_dump() if isinstance(answer, list) else answer.model_dump()


@pytest.fixture
def stub() -> Iterator[Stub]:
    yield from serving()
    gc.collect()


@pytest.fixture(params=["sync", "async"])
def twin(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("made", LLMS.values(), ids=LLMS)
def test_the_same_request_and_the_same_result(made: Callable[[Stub], LLM], name: str, twin: str, stub: Stub) -> None:
    if name in TOOLS and not made(stub).metadata.is_function_calling_model:
        pytest.skip("this LLM calls no functions")
    answers, sent = [], []
    for wrap in (lambda llm: llm, lambda llm: ResilientLLM(llm, policy=QUICK)):
        stub.seen.clear()
        try:
            answers.append(shown(call(wrap(made(stub)), name, twin)))
        except Exception as error:
            answers.append(f"{type(error).__name__}: {error}")
        sent.append(list(stub.seen))
    bare, wrapped = answers
    assert sent[1] == sent[0]
    assert len(sent[0]) == 1
    if name == "stream_chat" and made is LLMS["openai-responses"] and bare[-1][0] is None:
        # Older releases of this class end with an empty message, and ours has all of it.
        assert wrapped.pop() == ("".join(delta for _, delta, *_ in bare), "", [None], None)
        bare.pop()
    assert wrapped == bare
    assert "Error" not in str(bare), bare


@pytest.mark.parametrize("after", [1, 9, len(TEXT) - 1])
@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("made", LLMS.values(), ids=LLMS)
def test_half_an_object_is_asked_for_again(
    made: Callable[[Stub], LLM], name: str, after: int, twin: str, stub: Stub
) -> None:
    if made is LLMS["anthropic-functions"] and name == "structured_predict":
        pytest.skip("a whole answer has its arguments as an object there, which cannot be cut")
    healthy = last(call(made(stub), name, twin))  # some integrations lose the object of a stream by themselves
    stub.seen.clear()
    stub.texts = [TEXT[:after], TEXT[:after]]
    assert last(call(ResilientLLM(made(stub), policy=QUICK), name, twin)) == healthy
    assert len(stub.seen) == 3
    assert stub.seen[0] == stub.seen[1] == stub.seen[2]


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("made", LLMS.values(), ids=LLMS)
def test_half_an_object_every_time_is_an_error(made: Callable[[Stub], LLM], name: str, twin: str, stub: Stub) -> None:
    if made is LLMS["anthropic-functions"] and name == "structured_predict":
        pytest.skip("a whole answer has its arguments as an object there, which cannot be cut")
    llm = ResilientLLM(made(stub), policy=QUICK)
    stub.texts = [TEXT[:9]] * 9
    with pytest.raises(StreamInterruptedError):
        call(llm, name, twin)


# What LlamaIndex's Anthropic class shows of a call while it is written: arguments that are repaired already

PIECES = [1, 9, len(TEXT) - 1]


def handed_out(llm: Any, twin: str) -> list[list[dict[str, Any]]]:
    """What `get_tool_calls_from_response` makes of each chunk of a stream, up to where it breaks off."""
    given: list[list[dict[str, Any]]] = []

    def take(chunk: Any) -> None:
        calls = llm.get_tool_calls_from_response(chunk, error_on_no_tool_call=False)
        given.append([call.tool_kwargs for call in calls])

    async def aread() -> None:
        async for chunk in await llm.astream_chat_with_tools([FunctionTool.from_defaults(fn=sing)], user_msg="Sing."):
            take(chunk)

    try:
        if twin == "async":
            asyncio.run(aread())
        else:
            for chunk in llm.stream_chat_with_tools([FunctionTool.from_defaults(fn=sing)], user_msg="Sing."):
                take(chunk)
    except StreamInterruptedError:
        pass
    return given


STREAMING_CALLS = {name: LLMS[name] for name in ("openai-functions", "openai-like", "anthropic-functions")}


@pytest.mark.parametrize("made", STREAMING_CALLS.values(), ids=STREAMING_CALLS)
def test_a_call_is_handed_out_when_it_is_whole(made: Callable[[Stub], LLM], twin: str, stub: Stub) -> None:
    given = handed_out(ResilientLLM(made(stub), policy=QUICK), twin)
    assert given[-1] == [json.loads(TEXT)]
    assert all(calls in ([], [{}], [json.loads(TEXT)]) for calls in given)


@pytest.mark.parametrize("after", PIECES)
@pytest.mark.parametrize("made", STREAMING_CALLS.values(), ids=STREAMING_CALLS)
def test_half_a_call_is_never_handed_out(made: Callable[[Stub], LLM], after: int, twin: str, stub: Stub) -> None:
    stub.texts = [TEXT[:after]] * 9
    assert all(calls in ([], [{}]) for calls in handed_out(ResilientLLM(made(stub), policy=QUICK), twin))


@pytest.mark.parametrize("after", PIECES)
def test_half_of_anthropic_s_call_is_no_call_without_arguments(after: int, twin: str, stub: Stub) -> None:
    stub.texts = [TEXT[:after], TEXT]
    given = handed_out(ResilientLLM(LLMS["anthropic-functions"](stub), policy=QUICK), twin)
    assert [calls for calls in given if calls] == [[json.loads(TEXT)]] * sum(map(bool, given))
    assert given[-1] == [json.loads(TEXT)]


@pytest.mark.parametrize("text", ["", "{}", " {} "])
def test_a_call_without_arguments_is_handed_out_at_its_end(text: str, twin: str, stub: Stub) -> None:
    stub.texts = [text]
    assert handed_out(ResilientLLM(LLMS["anthropic-functions"](stub), policy=QUICK), twin)[-1] == [{}]
