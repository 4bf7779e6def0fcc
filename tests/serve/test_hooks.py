"""Hooks of Generations that are no hooks, or that answer with nothing, are refused."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("anyio")

from llama_index_resilient_stream import ConfigurationError
from llama_index_resilient_stream.serve.generations import Generations
from llama_index_resilient_stream.testing import ScriptedLLM


@pytest.mark.parametrize("hook", ["may_read", "take_over"])
@pytest.mark.parametrize("wrong", [True, "yes", object()], ids=["true", "word", "object"])
def test_a_hook_that_is_no_function_is_refused(hook: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"{hook} is .*Generations\({hook}="):
        Generations(**{hook: wrong})


async def _forgets_too(request: Any, ticket: Any) -> Any:
    return None


@pytest.mark.parametrize("forgets", [lambda request, ticket: None, _forgets_too], ids=["function", "coroutine"])
async def test_a_hook_that_forgets_to_answer_says_so(forgets: Any) -> None:
    generations = Generations(may_read=forgets)
    async with generations.lifespan():
        key = await generations.start(lambda: ScriptedLLM("A text.").stream_complete("?"))
        with pytest.raises(ConfigurationError, match="Return True or False"):
            await generations.allows(object(), key)
