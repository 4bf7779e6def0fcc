"""What tells one LLM's answers from another's: its class and its settings, without credentials.

LlamaIndex makes the keys of its ingestion cache of what a transformation's `to_dict` says, LLMs inside it included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from llama_index.core.llms.llm import LLM

_SECRET = re.compile(
    r"(^|_)(api_?key|key|token|secret|passw(or)?d|credentials?|auth(orization)?|bearer|cookies?|headers?)(s|_id)?($|_)",
    re.IGNORECASE,
)
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY_OF_URL = re.compile(r"(://[^\s?#]*)\?[^\s#]*")
_DEPTH = 6


def identity_of(llm: LLM) -> dict[str, Any]:
    """The class and the settings of an LLM, as plain data that is the same in every process.

        identity_of(OpenAI("gpt-4o", temperature=0.2))   # {"class_name": "openai_llm", "model": "gpt-4o", ...}

    Args:
        llm: any LLM, also one that wraps others.

    Returns:
        A dictionary without credentials: settings named like one (`api_key`, `default_headers`) are left out,
        and so are users and query strings in addresses. Of what is no plain data only its class is named.
    """
    settings = {name: value for name, value in vars(llm).items() if name not in _excluded(llm)}
    return {"class_name": llm.class_name(), **_plain_mapping(settings, _DEPTH)}


def _excluded(llm: LLM) -> frozenset[str]:
    """Fields that LlamaIndex itself leaves out: functions, callbacks, whatever cannot be written down."""
    fields: Mapping[str, Any] = getattr(type(llm), "model_fields", None) or getattr(type(llm), "__fields__", {})
    return frozenset(
        name
        for name, each in fields.items()
        if getattr(each, "exclude", None) or getattr(getattr(each, "field_info", None), "exclude", None)
    )


def _plain_mapping(values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    return {
        str(name): _plain(value, depth)
        for name, value in values.items()
        if not str(name).startswith("_") and not is_credential(str(name), value)
    }


def without_credentials(address: str) -> str:
    """Return an address without its user and its query string."""
    return _QUERY_OF_URL.sub(r"\1", _USER_IN_URL.sub("", address))


def is_credential(name: str, value: Any) -> bool:
    """Return whether a setting of this name and value is one that nobody else may see."""
    # `max_tokens` is a number; a credential never is.
    return not isinstance(value, (int, float, type(None))) and _SECRET.search(_snake(name)) is not None


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-.\s]", "_", name)


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, depth)
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return _plain_container(value, depth - 1) if depth > 0 else _class_name(value)


def _plain_container(value: Any, depth: int) -> Any:
    if isinstance(value, LLM):
        return identity_of(value)
    if isinstance(value, Mapping):
        return _plain_mapping(value, depth)
    if isinstance(value, (list, tuple)):
        return [_plain(each, depth) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(_plain(each, depth)) for each in value)
    if hasattr(type(value), "model_fields") or hasattr(type(value), "__fields__"):
        return {"class_name": _class_name(value), **_plain_mapping(vars(value), depth)}
    return _class_name(value)


def _class_name(value: Any) -> str:
    return type(value).__name__
