"""A turn with tool calls that is asked again: what is cumulative in its messages never shrinks while both agree."""

from __future__ import annotations

from typing import Any

import pytest

from llama_index_resilient_stream import ResilientLLM
from llama_index_resilient_stream.llm.chunks import calls_in
from llama_index_resilient_stream.testing import Cut, ScriptedLLM
from support.readers import QUICK, Reader

ARGUMENTS = '{"amount": 1000, "to": "Ada"}'
TOOLS = [{"function": {"name": "pay"}}]
RESET = ConnectionResetError("reset")


def shown_by(reader: Reader, script: list[Any], **settings: Any) -> list[list[tuple[str, str]]]:
    llm = ScriptedLLM("", script, tool_calls=[("pay", ARGUMENTS), ("tell", '{"whom": "Bob"}')], token=4, **settings)
    result = reader(ResilientLLM(llm, policy=QUICK), tools=TOOLS)
    assert result.report.status == "complete"
    return [calls_in(chunk.message) for chunk in result.chunks]


@pytest.mark.parametrize("cuts", [[8], [20], [8, 20], [20, 8], [36], [36, 12, 40]], ids=str)
def test_calls_never_shrink(reader: Reader, cuts: list[int]) -> None:
    shown = shown_by(reader, [Cut(after, RESET) for after in cuts])
    lengths = [sum(len(arguments) for _, arguments in calls) for calls in shown]
    assert lengths == sorted(lengths)
    assert shown[-1] == [("pay", ARGUMENTS), ("tell", '{"whom": "Bob"}')]
