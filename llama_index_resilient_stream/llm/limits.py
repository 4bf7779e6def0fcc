"""Reduces the output limit of a request that goes on with an answer, by what was said already.

Where a limit was set it is reduced there, and wherever else one stands for the same call: the instance's settings, its
mappings of settings, and the call's keywords. Classes differ in which of them wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.llms.llm import LLM

from ..compat.llama_index import copied
from ..providers import all_settings

LEAST_TOKENS = 16
"""A continuation gets at least this many, however much was said before."""

_NAMES = frozenset(
    {
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",  # OpenAI's Responses, Gemini
        "max_new_tokens",  # Hugging Face
        "num_predict",  # Ollama
    }
)
_MAPPINGS = ("additional_kwargs", "extra_body", "generate_kwargs", "generation_config", "model_kwargs", "options")
_THINKING = ("thinking", "thinking_dict", "thinking_config", "reasoning")
_BUDGETS = ("budget_tokens", "thinking_budget", "max_tokens")  # Anthropic and Bedrock, Gemini, OpenRouter


def with_fewer_tokens(
    llm: LLM, kwargs: Mapping[str, Any], spent: int, fields: tuple[str, ...] = ()
) -> tuple[LLM, dict[str, Any]]:
    """Return the LLM and the keywords for a call that may say `spent` tokens less.

    A limit never falls under the budget for thinking, which several APIs refuse.

    Args:
        llm: is not changed; where its own settings have a limit a copy is returned, which shares its client.
        kwargs: of the call.
        spent: tokens of the answer that there are already.
        fields: names of settings of this class that are a limit beside the usual ones, or mappings with one.

    Example:
        llm, kwargs = with_fewer_tokens(llm, {"max_tokens": 200}, 67)     # {"max_tokens": 133}
    """
    least = _thinking_budget(vars(llm), kwargs) + LEAST_TOKENS
    ours = {name: value for name, value in vars(llm).items() if name in _NAMES or name in _MAPPINGS}
    ours |= {name: value for name in fields if (value := getattr(llm, name, None)) is not None}
    changed = _reduced(ours, spent, least, frozenset(fields))
    llm = copied(llm, **changed) if changed else llm
    return llm, {**kwargs, **_reduced(kwargs, spent, least, frozenset())}


def _reduced(settings: Mapping[str, Any], spent: int, least: int, names: frozenset[str]) -> dict[str, Any]:
    """The settings that have to change, and what to."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            if (name in _MAPPINGS or name in names) and (inside := _reduced(value, spent, least, names)):
                found[name] = {**value, **inside}
        elif (name in _NAMES or name in names) and _is_limit(value):
            found[name] = min(value, max(value - spent, least))
    return found


def _is_limit(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _thinking_budget(*sources: Mapping[str, Any]) -> int:
    """How many tokens the model may think for, out of its output limit; 0 where it does not say."""
    budgets = [
        budget
        for source in sources
        for settings in all_settings(source)
        for name in (*_THINKING, "additional_model_request_fields")
        if (budget := _budget_in(settings.get(name)))
    ]
    return max(budgets, default=0)


def _budget_in(thinking: Any) -> int:
    if not isinstance(thinking, Mapping):
        return 0
    inner = _budget_in(thinking.get("thinking"))  # Bedrock's additional fields hold Anthropic's setting
    return max([inner, *(int(thinking[name]) for name in _BUDGETS if _is_limit(thinking.get(name)))])
