"""OpenAIResponses(track_previous_responses=True): no request is ever chained to a broken response."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from llama_index_resilient_stream import ResilientLLM
from support.broken_protocols import Log, breaking
from support.readers import QUICK, READERS, TEXT, Read, aread, read

OpenAIResponses: Any = getattr(pytest.importorskip("llama_index.llms.openai"), "OpenAIResponses", None)
if OpenAIResponses is None:
    pytest.skip("this release of llms-openai has no OpenAIResponses", allow_module_level=True)


@pytest.fixture
def server() -> Iterator[tuple[str, Log]]:
    with breaking() as running:
        yield running


def responses(url: str) -> Any:
    return OpenAIResponses(
        model="gpt-4o", api_key="k", api_base=f"{url}/v1", max_retries=0, track_previous_responses=True
    )


@pytest.mark.parametrize("half", READERS)
def test_the_next_turn_is_chained_to_a_complete_response(half: str, server: tuple[str, Log]) -> None:
    url, log = server
    llm = responses(f"{url}/complete")

    def twice() -> list[Read]:
        results = [read(ResilientLLM(llm, policy=QUICK)) for _ in range(2)]
        llm._client.close()
        return results

    async def atwice() -> list[Read]:
        results = [await aread(ResilientLLM(llm, policy=QUICK)) for _ in range(2)]
        await llm._aclient.close()
        return results

    results = twice() if half == "sync" else asyncio.run(atwice())
    assert [result.text for result in results] == [TEXT, TEXT]
    assert [body.get("previous_response_id") for body in log.bodies] == [None, "r1"]


@pytest.mark.parametrize("half", READERS)
def test_a_continuation_is_not_chained_to_what_was_cut(half: str, server: tuple[str, Log]) -> None:
    url, log = server
    llm = responses(f"{url}/cut")
    assert READERS[half](ResilientLLM(llm, policy=QUICK)).text == TEXT
    assert [body.get("previous_response_id") for body in log.bodies] == [None, None]
    assert llm._previous_response_id == "r1"


@pytest.mark.parametrize("half", READERS)
def test_an_answer_that_was_not_finished_is_no_link(half: str, server: tuple[str, Log]) -> None:
    url, _ = server
    llm = responses(f"{url}/filter")
    READERS[half](ResilientLLM(llm, policy=QUICK))
    assert llm._previous_response_id is None
