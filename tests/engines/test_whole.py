"""Answers of engines that do not stream can be read like those of engines that do."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from llama_index.core import SummaryIndex
from llama_index.core.base.response.schema import Response
from llama_index.core.schema import TextNode

from llama_index_resilient_stream import (
    ConfigurationError,
    ResilientChatEngine,
    ResilientQueryEngine,
    resilient,
    tokens,
)
from llama_index_resilient_stream.report import StreamReport, StreamStatus
from llama_index_resilient_stream.testing import ScriptedLLM

TEXT = "The cable broke two miles down."


@pytest.fixture(params=[False, True], ids=["whole", "streaming"])
def engine(request: pytest.FixtureRequest) -> ResilientQueryEngine:
    index = SummaryIndex([TextNode(text="The cable fell silent in 1858.")])
    return resilient(index.as_query_engine(llm=ScriptedLLM(TEXT), streaming=request.param))


@pytest.mark.parametrize("way", ["tokens", "print"])
def test_either_is_read_in_the_same_way(
    engine: ResilientQueryEngine, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    response = engine.query("?")
    if way == "tokens":
        assert "".join(response.response_gen) == TEXT
    else:
        response.print_response_stream()
        assert capsys.readouterr().out == TEXT
    response.cancel()
    assert response.report.status is StreamStatus.COMPLETE
    assert str(response) == TEXT
    assert response.source_nodes


@pytest.mark.parametrize("way", ["field", "method", "print"])
async def test_either_is_read_in_the_same_way_asynchronously(
    engine: ResilientQueryEngine, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    response = await engine.aquery("?")
    if way == "print":
        await response.print_response_stream()
        assert capsys.readouterr().out.strip() == TEXT
    else:
        source = response.response_gen if way == "field" else response.async_response_gen()
        assert "".join([token async for token in source]) == TEXT
    await response.acancel()
    response.cancel()
    assert response.report.status is StreamStatus.COMPLETE


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
@pytest.mark.parametrize("ask", ["query", "aquery"])
async def test_what_is_added_can_be_copied_and_pickled(ask: str, copied: Any) -> None:
    whole = resilient(SummaryIndex([TextNode(text="x")]).as_query_engine(llm=ScriptedLLM(TEXT)))
    response: Any = whole.query("?") if ask == "query" else await whole.aquery("?")
    assert type(response) is Response
    other = copied(response)
    assert other == response
    assert isinstance(other.report, StreamReport)
    assert "".join(tokens(other)) == TEXT


@pytest.mark.parametrize("engine_class", [ResilientQueryEngine, ResilientChatEngine])
@pytest.mark.parametrize("wrong", [3, None, ScriptedLLM("x")], ids=["number", "none", "llm"])
def test_what_is_no_engine_is_refused(engine_class: Any, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Write resilient\(index\.as_"):
        engine_class(wrong)
