"""What the user asked, as it was given: nothing here belongs to one model more than to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms.llm import LLM

from ..compat.llama_index import message_text, tools_arguments
from ..providers import all_settings
from .keywords import warn_of
from .tool_choice import choice_of

_FLAGS = ("tools", "user_msg", "chat_history", "verbose", "allow_parallel_tool_calls", "tool_required")

# With any of these in a call the turn is restarted, never continued: half a call or half an object cannot be.
_STRUCTURED = (
    "tools", "functions", "tool_choice", "function_call", "response_format", "response_model", "output_cls", "format",
    "response_schema", "guided_json", "guided_grammar", "guided_regex", "guided_choice", "json_schema", "json_mode",
    "grammar",
)  # fmt: skip


@dataclass(frozen=True)
class ToolsCall:
    """What a method like `stream_chat_with_tools` was called with."""

    arguments: Mapping[str, Any] = field(repr=False)
    """By name, as the caller gave them."""
    rendered: frozenset[str] = frozenset()
    """The keywords that the wrapped LLM's class made of them."""

    @property
    def tools(self) -> Sequence[Any]:
        """The tools that were given."""
        return self.arguments.get("tools") or ()

    @property
    def conversation(self) -> list[ChatMessage]:
        """The history, with what the user says now at its end."""
        said = self.arguments.get("user_msg")
        if isinstance(said, str):
            said = ChatMessage(role=MessageRole.USER, content=said)
        return [*(self.arguments.get("chat_history") or ()), *([said] if said is not None else [])]

    def as_given(self, llm: LLM) -> dict[str, Any]:
        """Return the messages and keywords that the wrapped LLM's class makes of it."""
        history = self.arguments.get("chat_history")
        own = {**self.arguments, "tools": list(self.tools)}
        return tools_arguments(llm, {**own, "chat_history": None if history is None else list(history)})

    def for_fallback(self, llm: LLM) -> dict[str, Any]:
        """Return the messages and keywords that another LLM's class makes of it."""
        extra = {name: value for name, value in self.arguments.items() if name not in _FLAGS}
        flags = {name: self.arguments[name] for name in _FLAGS if name in self.arguments}
        choice = choice_of(extra.pop("tool_choice", None), tool_required=bool(flags.get("tool_required")))
        flags["tool_required"] = choice.tool_required
        # Not every class appends a message of the user's; all of them take one at the end of the history.
        flags |= {"tools": list(self.tools), "user_msg": None, "chat_history": self.conversation}
        made = tools_arguments(llm, {**flags, **extra})
        for name in extra:
            if name not in made and extra[name] is not None:
                warn_of(llm, name)
        return choice.put_into(made, llm) if self.tools else made


class Conversation(list[ChatMessage]):
    """The messages that were made of a call with tools, and the call that they were made of."""

    def __init__(self, messages: Sequence[ChatMessage], made_of: ToolsCall) -> None:
        super().__init__(messages)
        self.made_of = made_of


@dataclass(frozen=True)
class Question:
    """What the user asked, and through which endpoint. Not in its repr: it is the user's text."""

    chat: bool
    messages: Sequence[ChatMessage] = field(default=(), repr=False)
    prompt: str = field(default="", repr=False)
    formatted: bool = False
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    made_of: ToolsCall | None = None
    """The call with tools that the messages and keywords were made of, where there was one."""

    @property
    def endpoint(self) -> str:
        return "chat" if self.chat else "complete"

    @property
    def structured(self) -> bool:
        """Whether the answer must have a form that a continuation cannot keep."""
        return asks_for_form(self.kwargs)

    @property
    def has_tools(self) -> bool:
        return bool(self.kwargs.get("tools") or self.kwargs.get("functions"))

    @property
    def needs_tools(self) -> bool:
        """Whether only a model that calls functions can be asked it."""
        return bool(self.made_of.tools) if self.made_of is not None else self.has_tools

    def can_be_asked_of(self, llm: LLM) -> bool:
        """Whether the class of an LLM knows a way to be given the tools."""
        return self.made_of is None or hasattr(llm, "_prepare_chat_with_tools")

    @property
    def answers_tool_result(self) -> bool:
        """Whether a tool's result was given last, to which saying nothing is an answer."""
        return bool(self.messages) and self.messages[-1].role in (MessageRole.TOOL, MessageRole.FUNCTION)

    def tokens(self, count: Callable[[str], int]) -> int:
        """What asking it once more costs."""
        if not self.chat:
            return count(self.prompt)
        return sum(count(message_text(message)) for message in self.messages)


def conversation(messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> Question:
    """What is asked by a chat endpoint, which LlamaIndex's methods for tools go through as well."""
    return Question(True, messages=list(messages), kwargs=kwargs, made_of=getattr(messages, "made_of", None))


def asks_for_form(settings: Mapping[str, Any]) -> bool:
    """Whether settings of a call or an LLM ask for calls, an object or another form."""
    return any(source.get(name) for source in all_settings(settings) for name in _STRUCTURED)
