"""The only module that looks at what LlamaIndex version is installed, by its features, never by its number.

Each shim names what lets it be deleted.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

import llama_index.core
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.llm import LLM
from llama_index.core.llms.structured_llm import StructuredLLM

try:  # core >= 0.12.3; delete the fallback when the floor is there
    from llama_index.core.base.llms.types import TextBlock
except ImportError:  # pragma: no cover - depends on the installed version
    TextBlock = None  # type: ignore[assignment,misc]

try:  # pydantic 2, since core 0.11; under pydantic 1 an LLM inside of a model is written by its own `dict()`
    from llama_index.core.bridge.pydantic import model_serializer
except ImportError:  # pragma: no cover - depends on the installed version
    model_serializer = None  # type: ignore[assignment]

# Checking an event, pydantic 1 makes errors that keep alive the frames they came through, until the garbage collector
# runs: those of whoever called LlamaIndex too, and their local variables.
EVENTS_KEEP_FRAMES = model_serializer is None

M = TypeVar("M")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

# TextBlock came in 0.11.11, messages made of blocks in 0.12.3.
HAS_BLOCKS = TextBlock is not None and "blocks" in getattr(ChatMessage, "model_fields", {})


def users_token_counter() -> Callable[[str], int] | None:
    """Counts tokens with LlamaIndex's `Settings.tokenizer`, where one is set; None where not.

    The attribute is read and not the property, which would load tiktoken's data, from the network if need be.
    """
    tokenizer = getattr(llama_index.core, "global_tokenizer", None)
    return None if tokenizer is None else lambda text: len(tokenizer(text))


def blocks_of(message: ChatMessage) -> Sequence[Any]:
    """The blocks of a message; empty where this core's messages have none."""
    return message.blocks if HAS_BLOCKS else ()


def is_text(block: Any) -> bool:
    return HAS_BLOCKS and isinstance(block, TextBlock)


def is_only_text(message: ChatMessage) -> bool:
    """Whether there is nothing in a message but a text, or nothing at all. Runs once per token."""
    if not HAS_BLOCKS:
        return True
    blocks = message.blocks
    return (len(blocks) == 1 and isinstance(blocks[0], TextBlock)) or not blocks


def assistant_message(text: str, like: ChatMessage | None = None) -> ChatMessage:
    """An assistant's message with all of its text in ONE text block, and whatever else `like` has.

    Two text blocks would be joined with a newline between them. The message `like` is neither changed nor reused.
    """
    if not HAS_BLOCKS:
        extra = {} if like is None else dict(like.additional_kwargs)
        return ChatMessage(role=MessageRole.ASSISTANT, content=text, additional_kwargs=extra)
    message = ChatMessage(
        role=MessageRole.ASSISTANT, blocks=_with_one_text(list(blocks_of(like)) if like else [], text)
    )
    if like is not None:
        message.additional_kwargs = dict(like.additional_kwargs)
    return message


def _with_one_text(blocks: list[Any], text: str) -> list[Any]:
    others = [block for block in blocks if not is_text(block)]
    place = next((i for i, block in enumerate(blocks) if is_text(block)), None)
    if place is None:  # thoughts come before words, calls after them
        place = len(_thoughts_in(others))
    return [*others[:place], TextBlock(text=text), *others[place:]]


def message_text(message: ChatMessage) -> str:
    """The text of a message. `content` raises or is None for some messages of blocks."""
    if not HAS_BLOCKS:
        return str(message.content or "")
    return "\n".join(block.text for block in message.blocks if isinstance(block, TextBlock))


def thoughts_of(message: ChatMessage) -> list[Any]:
    """The thinking blocks of a message, which came in 0.14.3."""
    return _thoughts_in(blocks_of(message))


def _thoughts_in(blocks: Sequence[Any]) -> list[Any]:
    return [block for block in blocks if type(block).__name__ == "ThinkingBlock"]


def inner_llm(llm: LLM) -> LLM:
    """The LLM that is asked in the end: the one inside `as_structured_llm`'s, else the LLM itself."""
    return inner_llm(llm.llm) if isinstance(llm, StructuredLLM) else llm


def with_inner_llm(llm: LLM, attributes: Mapping[str, Any]) -> LLM:
    """A shallow copy, whose `inner_llm` has other values in some attributes or fields, methods included.

    They are put past pydantic, which would refuse methods and check fields.
    """
    made = copied(llm)
    if isinstance(llm, StructuredLLM):
        made.__dict__["llm"] = with_inner_llm(llm.llm, attributes)
    else:
        made.__dict__.update(attributes)
    return made


def blocks_the_loop(llm: Any, endpoint: str) -> bool:
    """Whether an asynchronous endpoint is LlamaIndex's stand-in, which reads the synchronous one on the event loop.

    `CustomLLM` has them for whoever writes only the synchronous half. Delete when LlamaIndex reads those in a thread.
    """
    return inspect.unwrap(getattr(type(llm), endpoint)) is inspect.unwrap(getattr(CustomLLM, endpoint))


def tools_arguments(llm: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """What the LLM makes of tools, as keyword arguments of its chat methods.

    `_prepare_chat_with_tools_compat` came in 0.12.42; it drops `tool_required` for classes that do not know it, as is
    done here before.
    """
    prepare = getattr(llm, "_prepare_chat_with_tools_compat", None)
    if prepare is None:
        prepare = llm._prepare_chat_with_tools
        if "tool_required" not in inspect.signature(prepare).parameters:
            arguments = {name: value for name, value in arguments.items() if name != "tool_required"}
    return dict(prepare(**arguments))


def copied(model: M, **changes: Any) -> M:
    """A shallow copy with other values in some fields. It shares all else, an LLM's client included.

    Under core 0.10, copy.copy does neither: of a message it makes a second name for the same fields, and of an LLM one
    with a client of its own that nobody closes, while it takes from the original what cannot be pickled, a function in
    `messages_to_prompt` for one. Delete that half when the floor is 0.11.
    """
    if hasattr(model, "__pydantic_private__"):
        made = copy.copy(model)
        for name, value in changes.items():
            setattr(made, name, value)
        return made
    old: Any = model
    made = type(model).__new__(type(model))
    fields = {name: value for name, value in changes.items() if name not in old.__private_attributes__}
    private = {name: getattr(old, name) for name in old.__private_attributes__ if hasattr(old, name)}
    private |= {name: value for name, value in changes.items() if name in old.__private_attributes__}
    state = {"__dict__": {**vars(old), **fields}, "__fields_set__": {*old.__fields_set__, *fields}, **private}
    for name, value in state.items():
        object.__setattr__(made, name, value)
    return made


def serializer(method: F) -> F:
    """Mark the method that says how a model is written, also as a field of another one."""
    return method if model_serializer is None else model_serializer(mode="plain")(method)


def is_end_of_empty_completion(error: Exception) -> bool:
    """Whether LlamaIndex failed to say that a completion stream without a single chunk has ended.

    Its callback decorator puts the last response into an event that does not allow for there being none (0.14.25, and
    by source since there are events). Delete when it does.
    """
    if type(error).__name__ != "ValidationError":
        return False
    model = getattr(error, "title", None) or getattr(getattr(error, "model", None), "__name__", None)
    return model == "LLMCompletionEndEvent"


def detached(call: Callable[[], T]) -> Generator[T, None, None]:
    """Yield what a function returns, so that no frame which it leaves behind leads to its caller.

    A frame that outlives its call holds on to all frames above it. Above a suspended generator there is none, so keep
    the generator for as long as it matters. Delete with `EVENTS_KEEP_FRAMES` when the floor is 0.11.
    """
    todo = [call]
    del call  # what it refers to is not kept
    yield todo.pop()()


def _workers() -> tuple[type, ...]:
    """The classes, beside engines, in which an engine keeps an LLM. Some of them come and go with the version."""
    places = (
        ("llama_index.core.response_synthesizers.base", "BaseSynthesizer"),
        ("llama_index.core.base.base_selector", "BaseSelector"),
        ("llama_index.core.question_gen.types", "BaseQuestionGenerator"),
        ("llama_index.core.types", "BasePydanticProgram"),
        ("llama_index.core.base.agent.types", "BaseAgentWorker"),  # until 0.13
    )
    found = []
    for module, name in places:
        try:
            found.append(getattr(importlib.import_module(module), name))
        except (ImportError, AttributeError):
            continue
    return tuple(dict.fromkeys(found))


WORKERS = _workers()


__all__ = [
    "EVENTS_KEEP_FRAMES",
    "HAS_BLOCKS",
    "WORKERS",
    "ChatMessage",
    "ChatResponse",
    "CompletionResponse",
    "MessageRole",
    "StructuredLLM",
    "assistant_message",
    "blocks_of",
    "blocks_the_loop",
    "copied",
    "detached",
    "inner_llm",
    "is_end_of_empty_completion",
    "is_only_text",
    "is_text",
    "message_text",
    "serializer",
    "thoughts_of",
    "tools_arguments",
    "with_inner_llm",
]
