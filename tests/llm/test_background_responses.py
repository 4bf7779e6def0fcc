"""Lossless: OpenAIResponses in background mode, over the real SDK, cut at any byte."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llama_index_resilient_stream import ResilientLLM
from llama_index_resilient_stream.report import Strategy
from support.readers import QUICK, question
from support.responses_server import events_of, responses
from support.sdk_clients import needs_observed_sdk_clients

pytestmark = needs_observed_sdk_clients

OpenAIResponses: Any = getattr(pytest.importorskip("llama_index.llms.openai"), "OpenAIResponses", None)
if OpenAIResponses is None:
    pytest.skip("this release of llms-openai has no OpenAIResponses", allow_module_level=True)

TEXT = "The ends were found – two miles down."
ARGUMENTS = json.dumps({"cable": "1866", "note": "ends – joined"}, ensure_ascii=False)
TURNS = {"text": events_of(TEXT), "tool": events_of("", ARGUMENTS), "both": events_of(TEXT, ARGUMENTS)}


def llm_of(url: str, *, continuation: Any = "replay", **kwargs: Any) -> Any:
    inner = OpenAIResponses(model="gpt-4o-mini", api_base=url, api_key="x", max_retries=0, timeout=10.0, **kwargs)
    return ResilientLLM(inner, continuation=continuation, policy=QUICK)


def told_sync(llm: Any) -> Any:
    stream = llm.stream_chat(question())
    chunks = [repr(chunk) for chunk in stream]
    llm.llm._client.close()
    return chunks, stream.report


def told_async(llm: Any) -> Any:
    async def run() -> Any:
        stream = await llm.astream_chat(question())
        chunks = [repr(chunk) async for chunk in stream]
        await llm.llm._aclient.close()
        return chunks, stream.report

    return asyncio.run(run())


TELLERS = {"sync": told_sync, "async": told_async}


@settings(max_examples=15)
@given(st.lists(st.floats(0, 0.97), min_size=1, max_size=2))
@example([0.0])
@example([0.5, 0.9])
@pytest.mark.parametrize("kind", TURNS)
@pytest.mark.parametrize("name", TELLERS)
def test_a_response_that_was_cut_anywhere_is_the_uncut_one(name: str, kind: str, places: list[float]) -> None:
    events = TURNS[kind]
    length = len(b"".join(events))
    with responses(events) as server:
        whole, _ = TELLERS[name](llm_of(server.url))
    first = max(int(places[0] * length), len(events[0]))  # before its first event a response has no name
    with responses(events, first, *(int(share * length) + 1 for share in places[1:])) as server:
        told, report = TELLERS[name](llm_of(server.url))
    assert told == whole
    assert len(server.asked) == 1
    assert (server.asked[0]["background"], server.asked[0]["store"]) == (True, True)
    assert report.extra_tokens == 0
    assert {attempt.strategy for attempt in report.attempts[1:]} == {Strategy.REPLAY}
    assert server.starts
    assert server.starts == sorted(server.starts)


@pytest.mark.parametrize("name", TELLERS)
def test_what_the_user_asked_for_in_the_background_is_replayed(name: str) -> None:
    with responses(TURNS["text"], 900) as server:
        llm = llm_of(server.url, continuation="auto", additional_kwargs={"background": True, "store": True})
        _, report = TELLERS[name](llm)
        assert [str(attempt.strategy) for attempt in report.attempts] == ["first", "replay"]
        assert len(server.asked) == 1


@pytest.mark.parametrize("name", TELLERS)
def test_nobody_else_s_response_goes_to_the_background(name: str) -> None:
    with responses(TURNS["text"]) as server:
        TELLERS[name](llm_of(server.url, continuation="auto"))
        assert "background" not in server.asked[0]


@pytest.mark.parametrize("name", TELLERS)
def test_a_response_that_is_gone_goes_down_the_ladder(name: str) -> None:
    with responses(TURNS["tool"], 1500) as server:
        server.gone = True
        _, report = TELLERS[name](llm_of(server.url))
        assert [str(attempt.strategy) for attempt in report.attempts] == ["first", "replay", "restart"]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_leaving_cancels_the_response(asynchronous: bool) -> None:
    with responses(TURNS["both"], delay=0.05) as server:
        llm = llm_of(server.url)
        began = time.monotonic()
        if asynchronous:

            async def run() -> None:
                stream = await llm.astream_chat(question())
                await anext(stream)
                await stream.aclose()
                await llm.llm._aclient.close()

            asyncio.run(run())
        else:
            stream = llm.stream_chat(question())
            next(stream)
            stream.close()
        assert server.cancelled_after is not None
        assert server.cancelled_after < time.monotonic() - began + 1
