"""Functions of a policy that answer with nonsense are refused by name, at once, and never taken for a yes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tenacity import stop_after_attempt

from llama_index_resilient_stream import ConfigurationError, ResilientLLM
from llama_index_resilient_stream.testing import Cut, ScriptedLLM
from support.readers import QUICK, TEXT, Reader

RESET = ConnectionResetError("reset")


async def later(_: Any) -> bool:
    return True


NONSENSE: dict[str, tuple[str, Any]] = {
    "wait-text": ("wait", lambda state: "soon"),
    "wait-nothing": ("wait", lambda state: None),
    "wait-no-number": ("wait", lambda state: float("nan")),
    "wait-for-ever": ("wait", lambda state: float("inf")),
    "wait-true": ("wait", lambda state: True),
    "wait-later": ("wait", later),
    "stop-text": ("stop", lambda state: "no"),
    "stop-later": ("stop", later),
    "retry-text": ("retry", lambda state: "yes"),
    "retry-seconds": ("retry", lambda state: 0.5),
    "retry-later": ("retry", later),
    "fallback-text": ("fallback_on", lambda state: "complete"),
    "fallback-later": ("fallback_on", later),
    "completeness-text": ("completeness", lambda end: "whole"),
    "completeness-later": ("completeness", later),
    "reject-text": ("reject", lambda head: "no"),
    "reject-later": ("reject", later),
}


@pytest.mark.parametrize(("name", "hook"), NONSENSE.values(), ids=NONSENSE)
def test_a_function_that_returns_nonsense_is_refused_at_once(reader: Reader, name: str, hook: Any) -> None:
    script = [Cut(20)] if name == "completeness" else [Cut(20, RESET)]
    policy = replace(QUICK, stop=stop_after_attempt(1)) if name == "fallback_on" else QUICK
    inner = ScriptedLLM(TEXT, script)
    llm = ResilientLLM(inner, fallbacks=[ScriptedLLM(TEXT)], policy=replace(policy, **{name: hook}))
    with pytest.raises(ConfigurationError, match=rf"RecoveryPolicy\.{name} returned .* Write a function that returns"):
        reader(llm)
    assert len(inner.calls) == 1
