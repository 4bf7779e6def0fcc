"""From a `Request` of the core to a call of one LLM's endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole
from llama_index.core.llms.llm import LLM

from ..compat.llama_index import copied
from ..providers import Provider
from ..recovery.events import Chunk, Request
from ..recovery.surrogates import sendable
from ..report import Strategy
from .chunks import Read, Reader, without_mark
from .history import readable
from .keywords import leave_away
from .limits import with_fewer_tokens
from .models import Models
from .prefill import mark_of, marked
from .question import Question
from .rendering import rendered, signed
from .response_chain import keeping_response

_Endpoint = tuple[LLM, str, "Sequence[ChatMessage] | str", dict[str, Any], Read]


@dataclass
class Call:
    """A call of one endpoint, and how to read what it answers."""

    llm: LLM
    endpoint: str
    what: Sequence[ChatMessage] | str
    kwargs: dict[str, Any]
    read: Read
    of_fallback: bool = False

    def whole(self) -> Any:
        """Call the endpoint that is not streamed."""
        while True:
            try:
                return self._signed(getattr(self.llm, self.endpoint)(self.what, **self.kwargs))
            except Exception as error:
                if not self.mends(error):
                    raise

    async def awhole(self) -> Any:
        """Call the asynchronous endpoint that is not streamed."""
        while True:
            try:
                return self._signed(await getattr(self.llm, f"a{self.endpoint}")(self.what, **self.kwargs))
            except Exception as error:
                if not self.mends(error):
                    raise

    def stream(self) -> tuple[Any, Iterator[Any], Any]:
        """Open the stream, and read its first response: only when that is asked for, many classes do anything."""
        while True:
            try:
                stream = getattr(self.llm, f"stream_{self.endpoint}")(self.what, **self.kwargs)
                responses = iter(stream)
                return stream, responses, next(responses, None)
            except Exception as error:
                if not self.mends(error):
                    raise

    async def astream(self) -> AsyncIterator[Any]:
        """Open the asynchronous stream, of which nothing is read yet."""
        opened: AsyncIterator[Any] = await getattr(self.llm, f"astream_{self.endpoint}")(self.what, **self.kwargs)
        return opened

    def mends(self, error: Exception) -> bool:
        """Whether a fallback's class refused a keyword of the caller's, which is left away now."""
        return self.of_fallback and leave_away(error, self.llm, self.kwargs)

    def _signed(self, response: Any) -> Any:
        return signed(response, self.llm) if self.of_fallback else response


def call_of(models: Models, llm: LLM, question: Question, request: Request) -> Call:
    """Which endpoint to call, with what, and how to read what it answers.

    Args:
        models: Those of the answer.
        llm: The one of them that the request is for, as it is to be called.
        question: What the user asked.
        request: What the core wants of it.
    """
    asked, endpoint, what, kwargs, read = _endpoint(models, llm, question, request.original or request)
    read = keeping_response(read, models.llms[request.model], asked)
    if not request.model:
        return Call(asked, endpoint, what, kwargs, read)
    return Call(asked, endpoint, what, kwargs, lambda response: read(signed(response, llm)), of_fallback=True)


def _endpoint(models: Models, llm: LLM, question: Question, request: Request) -> _Endpoint:
    row = models.row(request.model)
    reader = Reader(mends_content=row.mends_content)
    given, kwargs = rendered(question, llm, request.model)
    kwargs = _arguments(llm, kwargs, request)
    messages = [without_mark(message) for message in (readable(given, llm) if len(models.llms) > 1 else given)]
    if request.spent_tokens:
        llm, kwargs = with_fewer_tokens(llm, kwargs, request.spent_tokens, row.output_limits)
    if request.strategy in (Strategy.FIRST, Strategy.RESTART):
        return _as_given(llm, question, messages, kwargs, reader)
    if request.strategy is Strategy.APPEND:
        text = _as_one_text(llm, question) + sendable(request.partial_text)
        return llm, "complete", text, {"formatted": True, **kwargs}, _as_asked(question.chat, False, reader.completion)
    return _continued(llm, question, messages, kwargs, request, reader, row)


def _arguments(llm: LLM, kwargs: dict[str, Any], request: Request) -> dict[str, Any]:
    """The arguments of the call. OpenAI's responses are kept where they say so."""
    kept = request.keep and any(cls.__name__ == "OpenAIResponses" for cls in type(llm).__mro__)
    return {**kwargs, "background": True, "store": True} if kept else kwargs


def _continued(
    llm: LLM,
    question: Question,
    messages: Sequence[ChatMessage],
    kwargs: dict[str, Any],
    request: Request,
    reader: Reader,
    row: Provider,
) -> _Endpoint:
    """The call that goes on with an answer by more turns."""
    for name, value in request.extra.items():
        llm, kwargs = _with(llm, kwargs, name, value)
    turns = [ChatMessage(role=MessageRole(turn.role), content=turn.text) for turn in request.turns]
    asked = messages or [ChatMessage(role=MessageRole.USER, content=question.prompt)]
    conversation = [*asked, *turns]
    if request.strategy is Strategy.PREFILL and (key := mark_of(llm, row)):
        llm, kwargs = marked(llm, conversation, kwargs, key)
    return llm, "chat", conversation, kwargs, _as_asked(question.chat, True, reader.chat)


def _as_given(
    llm: LLM, question: Question, messages: Sequence[ChatMessage], kwargs: dict[str, Any], reader: Reader
) -> _Endpoint:
    if question.chat:
        return llm, "chat", messages, kwargs, reader.chat
    kwargs = {"formatted": question.formatted, **kwargs}
    return llm, "complete", question.prompt, kwargs, reader.completion


def _as_asked(asked_chat: bool, came_as_chat: bool, read: Read) -> Read:
    """A continuation may come through the other endpoint; what follows must not see the difference."""
    if asked_chat == came_as_chat:
        return read

    def read_other(response: ChatResponse | CompletionResponse) -> Chunk:
        chunk = read(response)
        chunk.payload = _translated(response)
        return chunk

    return read_other


def _translated(response: ChatResponse | CompletionResponse) -> ChatResponse | CompletionResponse:
    """The same response in the other endpoint's class; its text is replaced when it is shown."""
    if isinstance(response, ChatResponse):
        return CompletionResponse(
            text="", delta=response.delta, raw=response.raw, additional_kwargs=response.additional_kwargs
        )
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, content=""),
        delta=response.delta,
        raw=response.raw,
        additional_kwargs=response.additional_kwargs,
    )


def _as_one_text(llm: LLM, question: Question) -> str:
    if question.chat:
        return str(llm.messages_to_prompt(question.messages))  # type: ignore[misc]  # LlamaIndex fills it in
    if question.formatted:
        return question.prompt
    return str(llm.completion_to_prompt(question.prompt))  # type: ignore[misc]


def _with(llm: LLM, kwargs: dict[str, Any], name: str, value: Any) -> tuple[LLM, dict[str, Any]]:
    """A keyword argument for one call, merged into the user's where that is a mapping.

    In LlamaIndex's OpenAI classes the instance's `additional_kwargs` win over a call's keywords, and the user's LLM is
    not ours to change: a shallow copy shares its client.
    """
    fixed = getattr(llm, "additional_kwargs", None)
    on_instance = isinstance(fixed, Mapping) and name in fixed
    before = fixed[name] if on_instance else kwargs.get(name)  # type: ignore[index]  # told apart in the line above
    if isinstance(value, Mapping) and isinstance(before, Mapping):
        value = {**before, **value}
    if not on_instance:
        return llm, {**kwargs, name: value}
    return copied(llm, additional_kwargs={**fixed, name: value}), kwargs  # type: ignore[dict-item]
