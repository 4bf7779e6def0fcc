"""The caller's own bug is raised as what it is: as the wrapped LLM raises it, at once, and by nobody asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from llama_index_resilient_stream import ConfigurationError, ResilientLLM, StreamInterruptedError, StreamStatus
from llama_index_resilient_stream.testing import FaultServer, ScriptedLLM
from support.readers import QUICK, TEXT, openai_like, question

Ask = Callable[[Any], Any]


def _drained(stream: Any) -> Any:
    return list(stream) if hasattr(stream, "__next__") else stream


def sync(endpoint: str, *args: Any, **kwargs: Any) -> Ask:
    return lambda llm: _drained(getattr(llm, endpoint)(*args, **kwargs))


def asynchronous(endpoint: str, *args: Any, **kwargs: Any) -> Ask:
    async def ask(llm: Any) -> Any:
        answer = await getattr(llm, f"a{endpoint}")(*args, **kwargs)
        return [chunk async for chunk in answer] if hasattr(answer, "__anext__") else answer

    return lambda llm: asyncio.run(ask(llm))


DICTS = [{"role": "user", "content": "?"}]
ARGUMENTS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    **{
        f"{endpoint}-{name}": (endpoint, args, {})
        for endpoint in ("stream_chat", "chat")
        for name, args in {"text": ("hi",), "dicts": (DICTS,), "number": (3,), "none": (None,)}.items()
    },
    **{
        f"{endpoint}-nothing": (endpoint, (), {}) for endpoint in ("stream_chat", "chat", "complete", "stream_complete")
    },
    **{
        f"{endpoint}-unknown-argument": (endpoint, (question() if "chat" in endpoint else "?",), {"foo": 3})
        for endpoint in ("stream_chat", "chat", "complete", "stream_complete")
    },
    "stream_chat-unserializable": ("stream_chat", (question(),), {"user": object()}),
}


def raised(ask: Ask, llm: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
        ask(llm)
    return caught.value


@pytest.mark.parametrize("way", [sync, asynchronous], ids=["sync", "async"])
@pytest.mark.parametrize(("endpoint", "args", "kwargs"), ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_callers_error_is_raised_as_the_wrapped_llm_raises_it(
    serve: Callable[..., FaultServer], way: Any, endpoint: str, args: Any, kwargs: Any
) -> None:
    server = serve(TEXT)
    ask = way(endpoint, *args, **kwargs)
    bare = raised(ask, openai_like(server))
    ours = raised(ask, ResilientLLM(openai_like(server), policy=QUICK))
    assert type(ours) is type(bare)
    assert not isinstance(ours, StreamInterruptedError)
    assert str(ours).splitlines()[:1] == str(bare).splitlines()[:1] or (args, kwargs) == ((), {})
    assert not server.requests


@pytest.mark.parametrize("policy", [QUICK, replace(QUICK, on_exhausted="partial")], ids=["raise", "partial"])
def test_the_report_calls_it_interrupted_and_counts_one_attempt(serve: Callable[..., FaultServer], policy: Any) -> None:
    stream: Any = ResilientLLM(openai_like(serve(TEXT)), policy=policy).stream_chat(question(), foo=3)
    with pytest.raises(TypeError, match="foo"):
        list(stream)
    assert stream.report.status is StreamStatus.INTERRUPTED
    assert len(stream.report.attempts) == 1


def test_a_bug_of_the_wrapped_class_is_not_the_caller_s() -> None:
    class Broken(ScriptedLLM):
        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            raise TypeError("object of type 'NoneType' has no len()")

    with pytest.raises(StreamInterruptedError, match="TypeError") as caught:
        list(ResilientLLM(Broken(TEXT), policy=QUICK).stream_chat(question()))
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize(
    "messages", [question(), tuple(question()), iter(question())], ids=["list", "tuple", "iterator"]
)
def test_valid_conversations_are_asked(messages: Any) -> None:
    assert "".join(chunk.delta or "" for chunk in ResilientLLM(ScriptedLLM(TEXT)).stream_chat(messages)) == TEXT


def test_arguments_by_name_are_asked() -> None:
    llm = ResilientLLM(ScriptedLLM(TEXT))
    assert llm.complete(prompt="?").text == llm.chat(messages=question()).message.content == TEXT


# Other event loops


@pytest.mark.parametrize("endpoint", ["chat", "complete", "stream_chat", "stream_complete"])
def test_trio_is_refused_by_name(endpoint: str) -> None:
    trio = pytest.importorskip("trio")
    llm = ResilientLLM(ScriptedLLM(TEXT))

    async def ask() -> None:
        await getattr(llm, f"a{endpoint}")(question() if "chat" in endpoint else "?")

    with pytest.raises(ConfigurationError, match=r"asyncio only.*trio\.to_thread"):
        trio.run(ask)
    assert isinstance(llm.llm, ScriptedLLM)
    assert not llm.llm.calls


def test_served_stream_under_trio_is_refused() -> None:
    trio = pytest.importorskip("trio")
    serving = pytest.importorskip("llama_index_resilient_stream.serve.fastapi", exc_type=ImportError)
    response = serving.SSEResponse(lambda: ResilientLLM(ScriptedLLM(TEXT)).stream_chat(question()))
    scope = {"type": "http", "method": "GET", "headers": []}
    with pytest.raises(ConfigurationError, match="SSEResponse runs on asyncio only"):
        trio.run(response, scope, None, None)
