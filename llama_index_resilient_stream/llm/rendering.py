"""A question as each model of a chain is asked it.

The wrapped LLM gets what the caller gave. Of a call with tools its class makes messages and keywords of its own
protocol, which no other class understands; so the tools, the history and the flags are kept as they were given, and a
fallback's class makes its own of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.llm import LLM
from llama_index.core.tools import FunctionTool

from ..compat.llama_index import tools_arguments
from ..report import PassReason
from .keywords import FORM_KEYWORDS, is_read, that_are_read
from .question import Conversation, Question, ToolsCall

ANSWERED_BY_KEY = "resilient_answered_by"
"""In the `additional_kwargs` of a response that a fallback gave: the name of its class."""


def prepared(llm: LLM, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the class of the wrapped LLM makes of a call with tools; its messages know the call.

    Args:
        llm: The wrapped LLM.
        arguments: Of the call, by name. The caller's history is not changed.
    """
    history = arguments.get("chat_history")
    given = {**arguments, "tools": list(arguments.get("tools") or ()), "chat_history": history and list(history)}
    made = ToolsCall(given).as_given(llm)
    call = ToolsCall(given, frozenset(made) - {"messages"})
    return {**made, "messages": Conversation(made.get("messages") or [], call)}


def rendered(question: Question, llm: LLM, model: int) -> tuple[Sequence[ChatMessage], dict[str, Any]]:
    """Return the messages and the keywords with which a model is asked.

    Args:
        question: What the user asked.
        llm: Who is asked.
        model: Its place in the chain; 0 is the wrapped LLM.
    """
    if not model:
        return question.messages, dict(question.kwargs)
    if question.made_of is None:
        return question.messages, that_are_read(llm, question.kwargs)
    made = question.made_of.for_fallback(llm)
    added = {name: value for name, value in question.kwargs.items() if name not in question.made_of.rendered}
    return made.pop("messages"), {**that_are_read(llm, added), **made}


def signed(response: Any, llm: LLM) -> Any:
    """Return a fallback's response, on which stands whose it is."""
    if isinstance(extra := getattr(response, "additional_kwargs", None), dict):
        extra[ANSWERED_BY_KEY] = type(llm).__name__
    return response


def answered_by(response: Any, models: Sequence[LLM]) -> LLM:
    """Return the LLM of the chain whose class gave a response, and so can read it."""
    name = (getattr(response, "additional_kwargs", None) or {}).get(ANSWERED_BY_KEY)
    return next((llm for llm in models if type(llm).__name__ == name), models[0])


# What a fallback can take


def unfit(models: Sequence[LLM], model: int, question: Question, tokens: Callable[[], int]) -> PassReason | None:
    """Return why a fallback cannot be asked a question; None where it can.

    Args:
        models: The chain.
        model: The place of the fallback in it.
        question: What is asked.
        tokens: Counts what is to be sent. Called only where the model says how much it takes.
    """
    llm = models[model]
    try:
        metadata = llm.metadata
    except Exception:  # what is wrong with it, the call itself will say
        return None
    if question.needs_tools and not (metadata.is_function_calling_model and question.can_be_asked_of(llm)):
        return PassReason.NO_TOOLS
    if not _understands(llm, question, models[0]):
        return PassReason.KEYWORDS
    # LlamaIndex's default means that nobody has said.
    window = metadata.context_window
    if window and window > 0 and window != DEFAULT_CONTEXT_WINDOW and tokens() > window:
        return PassReason.CONTEXT_WINDOW
    return None


def _understands(llm: LLM, question: Question, first: LLM) -> bool:
    """Whether the keywords that cannot be left away mean the same to this LLM's class."""
    if question.made_of is not None:
        return True
    kwargs = question.kwargs
    if any(kwargs.get(name) and not is_read(llm, name) for name in FORM_KEYWORDS):
        return False
    if kwargs.get("functions"):
        return type(llm) is type(first)
    tools = kwargs.get("tools")
    return not tools or type(llm) is type(first) or _shape(tools) == _shape(_tools_of(llm))


def _tools_of(llm: LLM) -> Any:
    """Tools in the words of an LLM's class."""
    try:
        return tools_arguments(llm, {"tools": [_PROBE], "chat_history": []}).get("tools")
    except Exception:  # a class without tools
        return None


def _no_operation() -> str:
    """Do nothing."""
    return ""


_PROBE = FunctionTool.from_defaults(fn=_no_operation)


def _shape(tools: Any) -> Any:
    """What tells the tools of one protocol from those of another: where the schema of a tool is found."""
    if isinstance(tools, Mapping):
        return "mapping", frozenset(tools) & {"tools"}
    if not isinstance(tools, Sequence) or not tools:
        return type(tools)
    first = tools[0]
    if not isinstance(first, Mapping):
        return type(first)
    return frozenset(name for name, value in first.items() if isinstance(value, Mapping))
