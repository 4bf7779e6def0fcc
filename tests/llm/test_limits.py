"""The output limit of a continuation, wherever a class keeps it."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.llms import MockLLM

from llama_index_resilient_stream import Provider
from llama_index_resilient_stream.llm.calls import call_of
from llama_index_resilient_stream.llm.limits import LEAST_TOKENS, with_fewer_tokens
from llama_index_resilient_stream.llm.models import Models
from llama_index_resilient_stream.llm.question import Question
from llama_index_resilient_stream.recovery.events import Request
from llama_index_resilient_stream.report import Strategy


class Configured(MockLLM):
    """Has the settings of many classes."""

    max_output_tokens: Any = None
    additional_kwargs: dict[str, Any] = {}  # noqa: RUF012 - a field of pydantic's
    gemini: dict[str, Any] = {}  # noqa: RUF012
    generate_kwargs: dict[str, Any] = {}  # noqa: RUF012
    thinking_dict: Any = None
    num_output: Any = None


def llm_with(**settings: Any) -> Any:
    llm = Configured(max_tokens=None)
    for name, value in settings.items():
        setattr(llm, name, value)
    return llm


THINKING = {"type": "enabled", "budget_tokens": 1024}


@pytest.mark.parametrize(
    ("settings", "kwargs", "fields", "wanted"),
    [
        pytest.param({"max_tokens": 200}, {}, (), ({"max_tokens": 133}, {}), id="a field"),
        pytest.param({}, {"max_tokens": 200}, (), ({}, {"max_tokens": 133}), id="a keyword"),
        pytest.param({"max_output_tokens": 200}, {}, (), ({"max_output_tokens": 133}, {}), id="OpenAIResponses"),
        pytest.param(
            {"additional_kwargs": {"num_predict": 200, "top_k": 3}},
            {},
            (),
            ({"additional_kwargs": {"num_predict": 133, "top_k": 3}}, {}),
            id="Ollama",
        ),
        pytest.param(
            {"gemini": {"max_output_tokens": 1000}},
            {"generation_config": {"max_output_tokens": 200}},
            ("gemini",),
            ({"gemini": {"max_output_tokens": 933}}, {"generation_config": {"max_output_tokens": 133}}),
            id="GoogleGenAI",
        ),
        pytest.param({"num_output": 200}, {}, ("num_output",), ({"num_output": 133}, {}), id="Hugging Face"),
        pytest.param({"num_output": 200}, {}, (), ({"num_output": 200}, {}), id="a field that is only metadata"),
        pytest.param(
            {"generate_kwargs": {"max_tokens": 200}},
            {},
            (),
            ({"generate_kwargs": {"max_tokens": 133}}, {}),
            id="LlamaCPP",
        ),
        pytest.param({"max_tokens": 50}, {}, (), ({"max_tokens": LEAST_TOKENS}, {}), id="never less than a few"),
        pytest.param({"max_tokens": 10}, {}, (), ({"max_tokens": 10}, {}), id="never more than it was"),
        pytest.param({"max_tokens": 0}, {"max_tokens": True}, (), ({"max_tokens": 0}, {"max_tokens": True}), id="none"),
        pytest.param(
            {"max_tokens": 1060, "thinking_dict": THINKING},
            {},
            (),
            ({"max_tokens": 1024 + LEAST_TOKENS}, {}),
            id="never under the budget for thinking",
        ),
        pytest.param(
            {"max_tokens": 1060},
            {"thinking": THINKING},
            (),
            ({"max_tokens": 1024 + LEAST_TOKENS}, {"thinking": THINKING}),
            id="a budget of the call",
        ),
        pytest.param(
            {"max_tokens": 1060, "additional_kwargs": {"thinking_config": {"thinking_budget": 512}}},
            {},
            (),
            ({"max_tokens": 993}, {}),
            id="a budget that is far",
        ),
    ],
)
def test_the_limit_is_reduced_by_what_was_said(
    settings: dict[str, Any], kwargs: dict[str, Any], fields: tuple[str, ...], wanted: tuple[Any, Any]
) -> None:
    llm = llm_with(**settings)
    before = {name: vars(llm)[name] for name in settings}
    asked, sent = with_fewer_tokens(llm, kwargs, 67, fields)
    assert {name: getattr(asked, name) for name in wanted[0]} == wanted[0]
    assert sent == wanted[1]
    assert {name: vars(llm)[name] for name in settings} == before, "the user's LLM is not changed"


@pytest.mark.parametrize(("rows", "left"), [((), 200), ((Provider(output_limits=("num_output",)),), 133)])
def test_what_the_user_says_of_a_model_counts_for_its_limit(rows: Any, left: int) -> None:
    llm = llm_with(num_output=200)
    request = Request(0, Strategy.APPEND, "Half an answer", spent_tokens=67)
    made = call_of(Models([llm], rows), llm, Question(False, prompt="Why?"), request)
    assert getattr(made.llm, "num_output", None) == left
