"""What is said to people about an error, and whose it is.

Two questions that only whoever knows the user's call can answer: which words of a provider's message came from that
call and must not be repeated, and whether an error is the caller's own bug.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.llm import LLM

from ..compat.llama_index import blocks_of, message_text
from ..compat.versions import cannot_work
from ..recovery.faults.messages import Sent, provider_message
from .models import name_of
from .question import Question

F = TypeVar("F", bound=Callable[..., Any])

_SECRET = re.compile(r"key|token(?!s|izer)|secret|passw|auth|credential|cookie|headers|signature", re.IGNORECASE)
_NAMES = ("model", "model_name", "model_id", "engine", "azure_deployment", "deployment_name")
_ARGUMENT = re.compile(r"(?:unexpected keyword|multiple values for(?: keyword)?) argument '(\w+)'")


class CallExplanation:
    """Explains the errors of one call.

    Args:
        llms: whom it may reach.
        question: what is asked.
    """

    def __init__(self, llms: Sequence[LLM], question: Question) -> None:
        self._llms = llms
        self._question = question

    def message(self, error: BaseException | None, answer: str) -> str:
        """What the provider said, in one line without secrets and without what was sent; "" where there is nothing.

        Where the error is none of a provider's, and packages are installed that do not work together: that.
        """
        why = ""
        if isinstance(error, (TypeError, AttributeError)):
            why = next(filter(None, (cannot_work(type(llm)) for llm in self._llms)), "")
        return why or provider_message(error, self._sent(answer))

    def is_callers(self, error: BaseException | None) -> bool:
        """Whether the error says that an argument of this very call is wrong, which no provider was asked about."""
        if type(error) is not TypeError:
            return False
        text = str(error)
        found = _ARGUMENT.search(text)
        return text.endswith("is not JSON serializable") or (found is not None and found[1] in self._question.kwargs)

    def _sent(self, answer: str) -> Sent:
        question = self._question
        sources = [*map(vars, self._llms), question.kwargs]
        named = [source.get(field) for source in sources for field in _NAMES]
        names = [*map(name_of, self._llms), *(name for name in named if isinstance(name, str))]
        prompts = [source.get("system_prompt") for source in sources]
        messages = [text for message in question.messages for text in _texts(message)]
        texts = [question.prompt, answer, *messages, *_strings([prompts, question.kwargs])]
        return Sent(texts, [text for source in sources for text in _secrets(source)], names)


def _texts(message: ChatMessage) -> list[str]:
    return [message_text(message), *_strings([message.additional_kwargs, *map(vars, blocks_of(message))])]


def _strings(thing: Any) -> Iterator[str]:
    """All texts in nested settings."""
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, Mapping):
        yield from _strings(list(thing.values()))
    elif isinstance(thing, (list, tuple, set)):
        for item in thing:
            yield from _strings(item)


def _secrets(settings: Mapping[str, Any]) -> Iterable[str]:
    """The values of settings whose names speak of a key, a token or headers."""
    for name, value in settings.items():
        value = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if _SECRET.search(str(name)):
            for text in _strings(value):
                yield text
                yield from text.split()[1:]  # an Authorization header without its scheme
        elif isinstance(value, Mapping):
            yield from _secrets(value)


# The caller's own bug


def refuses_like_bare(method: F) -> F:
    """Let the wrapped LLM itself say what is wrong with messages that are none, or a prompt that is none.

    Its error is the caller's to mend. It is raised as what it is and at once, never as an interrupted stream.
    """
    name = method.__name__
    argument, fits = ("messages", _are_messages) if name.endswith("chat") else ("prompt", _is_prompt)

    def is_wrong(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return not fits(args[0] if args else kwargs.get(argument))

    @functools.wraps(method)
    def ask(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (getattr(self.llm, name) if is_wrong(args, kwargs) else functools.partial(method, self))(*args, **kwargs)

    @functools.wraps(method)
    async def aask(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await ask(self, *args, **kwargs)

    return cast("F", aask if inspect.iscoroutinefunction(method) else ask)


def _are_messages(value: Any) -> bool:
    if isinstance(value, Sequence):
        return not isinstance(value, str) and all(isinstance(each, ChatMessage) for each in value)
    return hasattr(value, "__iter__") and not isinstance(value, Mapping)


def _is_prompt(value: Any) -> bool:
    return isinstance(value, str)
