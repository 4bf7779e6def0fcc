"""Keywords of a call that a fallback's class does not take: they are left away, with one warning.

The caller wrote them for the wrapped LLM. Most classes hand what they do not know to their SDK, which refuses it before
anything is sent; the next try is without it. Some drop it and say nothing: what those read is in a table.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from llama_index.core.llms.llm import LLM

logger = logging.getLogger("llama_index_resilient_stream")

ALL_THAT_IS_READ: dict[str, frozenset[str]] = {
    "GoogleGenAI": frozenset({"tools", "tool_config", "generation_config"}),
    "Ollama": frozenset({"tools", "think", "format"}),
}
"""The keywords of a chat call that a class reads, where it drops all others. By the names of classes."""

TOOL_KEYWORDS = frozenset({"tools", "functions", "tool_choice", "function_call", "tool_config", "parallel_tool_calls"})

FORM_KEYWORDS = frozenset(
    {
        "response_format", "response_model", "output_cls", "format", "response_schema", "guided_json",
        "guided_grammar", "guided_regex", "guided_choice", "json_schema", "json_mode", "grammar",
    }
)  # fmt: skip
"""Keywords that give an answer its form. Without them it would be another answer, so that they are not left away."""

_UNKNOWN = (
    ("TypeError", re.compile(r"unexpected keyword argument '(\w+)'")),
    ("ParamValidationError", re.compile(r'Unknown parameter in input: "(\w+)"')),  # botocore
)

_warned: set[tuple[str, str]] = set()


def is_read(llm: LLM, name: str) -> bool:
    """Return whether a class takes notice of a keyword, as far as that is known."""
    for cls in type(llm).__mro__:
        if (read := ALL_THAT_IS_READ.get(cls.__name__)) is not None:
            return name in read
    return True


def that_are_read(llm: LLM, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords without those that the class of this LLM is known to drop."""
    kept = {}
    for name, value in keywords.items():
        if is_read(llm, name):
            kept[name] = value
        elif value is not None:
            warn_of(llm, name)
    return kept


def leave_away(error: Exception, llm: LLM, keywords: dict[str, Any]) -> bool:
    """Take out the keyword that an error says is unknown. Return whether there was one, so that a new try may help.

    Args:
        error: What the call raised, before anything was sent.
        llm: The LLM that was called.
        keywords: Of the call; one is taken out of them.
    """
    for kind, pattern in _UNKNOWN:
        if type(error).__name__ != kind or (found := pattern.search(str(error))) is None:
            continue
        name = found[1]
        if name in keywords and name not in FORM_KEYWORDS and name != "tools":
            del keywords[name]
            warn_of(llm, name)
            return True
    return False


def warn_of(llm: LLM, name: str) -> None:
    """Say once in the process that a class gets a keyword no more."""
    kind = type(llm).__name__
    if (kind, name) not in _warned:
        _warned.add((kind, name))
        logger.warning("%s does not take the keyword %r; as a fallback it is asked without it.", kind, name)
