"""The marks that some servers want inside the last assistant turn, to write on from it instead of answering it.

    DeepSeek, Mistral    "prefix": true
    Kimi, Qwen           "partial": true

LlamaIndex's classes send no such key. Those that speak OpenAI's protocol take the whole conversation a second time, as
it is to be sent, in `extra_body`; MistralAI makes its messages of its SDK's classes, which a copy of it can be given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms.llm import LLM

from ..compat.llama_index import copied
from ..providers import Provider

_SERVERS = {
    "api.deepseek.com": "prefix",
    "mistral.ai": "prefix",
    "moonshot.": "partial",
    "dashscope": "partial",
}
"""What stands in a server's address, and the key that it wants."""


def mark_of(llm: LLM, row: Provider) -> str:
    """Return the key that this LLM's server wants in the last turn; "" where it wants none."""
    address = getattr(llm, "api_base", None)
    if isinstance(address, str):
        for part, key in _SERVERS.items():
            if part in address:
                return key
    return row.prefill_mark


def marked(
    llm: LLM, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any], key: str
) -> tuple[LLM, dict[str, Any]]:
    """Return the LLM and the keywords for a call whose last message has the mark; as they were where nothing can do it.

    Args:
        llm: is not changed.
        messages: with the partial answer as the last one.
        kwargs: of the call.
        key: the mark, see `mark_of`.
    """
    models = getattr(llm, "_models", None)
    if hasattr(models, "AssistantMessage"):
        turns = sum(message.role == MessageRole.ASSISTANT for message in messages)
        return copied(llm, _models=_Marking(models, turns)), dict(kwargs)
    try:
        sent = _as_sent(llm, list(messages))
    except Exception:  # no such package, or no class of its kind
        return llm, dict(kwargs)
    sent[-1] = {**sent[-1], key: True}
    body = kwargs.get("extra_body")
    return llm, {**kwargs, "extra_body": {**(body if isinstance(body, Mapping) else {}), "messages": sent}}


def _as_sent(llm: LLM, messages: list[ChatMessage]) -> list[Any]:
    from llama_index.llms.openai.utils import to_openai_message_dicts

    try:
        return list(to_openai_message_dicts(messages, model=getattr(llm, "model", None)))
    except TypeError:  # a release that does not look at the model
        return list(to_openai_message_dicts(messages))


class _Marking:
    """The Mistral SDK's models, whose last assistant message of a conversation is marked."""

    def __init__(self, models: Any, turns: int) -> None:
        self._models = models
        self._left = turns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    def AssistantMessage(self, **fields: Any) -> Any:
        self._left -= 1
        return self._models.AssistantMessage(**{**fields, **({"prefix": True} if not self._left else {})})
