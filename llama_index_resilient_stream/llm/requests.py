"""From a `Request` of the core to a call of the wrapped LLM, and its responses back to chunks.

Plain functions on purpose: a reader thread stuck in one of them keeps the wrapped LLM alive, and nothing of ours.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole
from llama_index.core.llms.llm import LLM

from ..compat.llama_index import blocks_the_loop, copied, is_end_of_empty_completion, message_text
from ..policy import RecoveryPolicy
from ..providers import KEEPING_SERVERS, SERVERS, Provider, all_settings, provider_of, reasons
from ..recovery.continuation import Continuation
from ..recovery.events import Chunk, Learned, Model, Prefilling, Request, Unfit, fits
from ..recovery.surrogates import sendable
from ..report import Strategy
from ..streaming.threads import Offloaded
from ..transport.connection import Upstream
from ..transport.http_libraries import watch_libraries
from ..transport.sdk_clients import hides_its_client, observed
from .chunks import Read, Reader, read_whole, without_mark
from .history import readable
from .keywords import leave_away
from .limits import with_fewer_tokens
from .prefill import mark_of, marked
from .rendering import ToolsCall, rendered, signed
from .response_chain import keeping_response, unchained

logger = logging.getLogger("llama_index_resilient_stream")

FIRST_TOKEN_TIMEOUT = 60.0
FIRST_TOKEN_TIMEOUT_THINKING = 300.0

# With any of these in a call the turn is restarted, never continued: half a call or half an object cannot be.
_STRUCTURED = (
    "tools", "functions", "tool_choice", "function_call", "response_format", "response_model", "output_cls", "format",
    "response_schema", "guided_json", "guided_grammar", "guided_regex", "guided_choice", "json_schema", "json_mode",
    "grammar",
)  # fmt: skip


_NO_WORD: Any = object()


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
        return _asks_for_form(self.kwargs)

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


def _asks_for_form(settings: Mapping[str, Any]) -> bool:
    return any(source.get(name) for source in all_settings(settings) for name in _STRUCTURED)


def always_structured(llm: LLM) -> bool:
    """Whether this LLM was made to answer in a form, by `json_mode=True` or a `response_format` of its own."""
    return _asks_for_form(_public_fields(llm))


def model_of(
    llm: LLM,
    question: Question,
    policy: RecoveryPolicy,
    continuation: Continuation | Strategy | str,
    learned: Learned,
    provider: Provider | None = None,
    unfit: Unfit = fits,
) -> Model:
    """What the core has to know of this LLM for this question. `provider` stands in for its class's row.

    `unfit` says why the question cannot be asked of it, as a fallback.
    """
    # A class of one's own need not be in the table: it can say so itself.
    own_word = getattr(llm, "sends_finish_reason", _NO_WORD) if provider is None else _NO_WORD
    provider = provider_of(type(llm)) if provider is None else provider
    name = name_of(llm)
    timeout = policy.first_token_timeout
    thinks = reasons(name, {**_public_fields(llm), **question.kwargs})
    if timeout == "auto":
        patient = question.has_tools or thinks
        timeout = FIRST_TOKEN_TIMEOUT_THINKING if patient else FIRST_TOKEN_TIMEOUT
    return Model(
        name=name,
        continuation=_continuation(llm, continuation, provider, thinks=thinks),
        sends_finish_reason=provider.sends_finish_reason if own_word is _NO_WORD else own_word,
        untrusted_finish_reasons=provider.untrusted_finish_reasons,
        first_token_timeout=timeout,
        prefills_on={} if thinks else _prefills_on(continuation),
        keep=_is_kept(llm, question, continuation, provider),
        keeps_on=KEEPING_SERVERS if continuation == "auto" else frozenset(),
        own_retries=_own_retries(llm),
        learned=learned,
        unfit=unfit,
    )


def _own_retries(llm: LLM) -> int:
    retries = getattr(llm, "max_retries", 0)
    return retries if isinstance(retries, int) and retries > 0 else 0


def name_of(llm: LLM) -> str:
    """The model's name, or its class's where it has none."""
    try:
        return llm.metadata.model_name or llm.class_name()
    except Exception:  # a model unknown to its integration still has a class
        return llm.class_name()


def is_chat_model(llm: LLM) -> bool:
    try:
        return llm.metadata.is_chat_model
    except Exception:  # the call itself will say what is wrong, in its own words
        return True


def _public_fields(llm: LLM) -> dict[str, Any]:
    return {name: value for name, value in vars(llm).items() if not name.startswith("_")}


def _prefills_on(wanted: Continuation | Strategy | str) -> Mapping[str, Prefilling]:
    """On which servers a model is made to write on from its own text: on none where the user chose another way."""
    strategy = wanted.strategy if isinstance(wanted, Continuation) else wanted
    return SERVERS if strategy in ("auto", Strategy.PREFILL, Strategy.REPLAY) else {}


def _is_kept(llm: LLM, question: Question, wanted: Continuation | Strategy | str, provider: Provider) -> bool:
    """Whether the user says, or the row of the class, that the server keeps its streams, or it is asked for that."""
    strategy = wanted.strategy if isinstance(wanted, Continuation) else wanted
    if strategy != "auto":
        return strategy == Strategy.REPLAY
    settings = all_settings({**_public_fields(llm), **question.kwargs})
    return provider.strategy == Strategy.REPLAY or any(source.get("background") is True for source in settings)


def _arguments(llm: LLM, kwargs: dict[str, Any], request: Request) -> dict[str, Any]:
    """The arguments of the call. OpenAI's responses are kept where they say so."""
    kept = request.keep and any(cls.__name__ == "OpenAIResponses" for cls in type(llm).__mro__)
    return {**kwargs, "background": True, "store": True} if kept else kwargs


def _continuation(llm: LLM, wanted: Continuation | Strategy | str, provider: Provider, *, thinks: bool) -> Continuation:
    if isinstance(wanted, Continuation):
        chosen = wanted
    else:
        chosen = Continuation(strategy=provider.strategy if wanted == "auto" else wanted)  # type: ignore[arg-type]
    fitting = _fitting(llm, chosen, provider, thinks=thinks)
    chosen = chosen.with_strategy(fitting)
    if not provider.prefill_keeps_space:
        chosen = chosen.without_trailing_space()
    return chosen.with_extra(provider.prefill_extra) if fitting is Strategy.PREFILL else chosen


def _fitting(llm: LLM, chosen: Continuation, provider: Provider, *, thinks: bool) -> Strategy:
    """The way to continue that was chosen, or the one that takes its place with this model."""
    strategy = Strategy(chosen.strategy)
    if strategy is Strategy.REPLAY:  # where that fails, the ways of "auto"
        strategy = Strategy.ASK if provider.strategy == Strategy.REPLAY else Strategy(provider.strategy)
    if not is_chat_model(llm):  # one text is all that it understands
        return Strategy.APPEND if strategy in (Strategy.ASK, Strategy.PREFILL) else strategy
    if strategy == Strategy.PREFILL:
        # Thoughts would be due before the text that it is to write on from; no API allows both.
        refused = thinks or (provider.prefill == "unsupported" and not chosen.extra)
        return Strategy.ASK if refused else strategy
    return Strategy.ASK if strategy == Strategy.APPEND else strategy


# Asking


def ask(llms: Sequence[LLM], question: Question, upstream: Upstream, request: Request) -> Iterator[Chunk]:
    """Open the stream that answers the request, and read it."""
    llm = llms[request.model]
    method, to, kwargs, read = _call(_seen(llm, upstream, asynchronous=False), question, request, llms)
    read = keeping_response(read, llm, to.llm)
    if request.keep:
        upstream.keep()
    stream: Any = None
    try:
        with upstream.asking():
            stream, responses, first = _first(method, to, kwargs, request)
        if first is not None:
            upstream.look(stream)
            yield read(first)
            for response in upstream.seen(responses):
                yield read(response)
    except Exception as error:
        if text := upstream.unsaid(error):
            yield Chunk(text, progress=True, untouched=False)
        if not is_end_of_empty_completion(error):
            raise
    finally:
        # The connection first: with it closed, closing what LlamaIndex put around it waits for nothing.
        for close in (upstream.close, getattr(stream, "close", None)):
            try:
                if close is not None:
                    close()
            except Exception as error:
                logger.debug("closing the upstream stream failed: %s", type(error).__name__)


def _first(method: str, to: _To, kwargs: dict[str, Any], request: Request) -> tuple[Any, Iterator[Any], Any]:
    """The stream, and its first response: only when that is asked for, many classes look at their keywords."""
    while True:
        try:
            stream = getattr(to.llm, f"stream_{method}")(to.what, **kwargs)
            responses = iter(stream)
            return stream, responses, next(responses, None)
        except Exception as error:
            if not _is_mended(error, to, kwargs, request):
                raise


def _seen(llm: LLM, upstream: Upstream, *, asynchronous: bool) -> LLM:
    """The LLM to ask, whose connections the `upstream` gets to know."""
    if hides_its_client(type(llm)):
        upstream.sees_libraries = True
        watch_libraries()
        return llm
    return unchained(llm, observed(llm, asynchronous=asynchronous))


def aask(llms: Sequence[LLM], question: Question, upstream: Upstream, request: Request) -> AsyncIterator[Chunk]:
    """Open the stream that answers the request, and read it, asynchronously.

    An LLM whose asynchronous endpoints block is asked in a thread.
    """
    llm, endpoint = llms[request.model], f"astream_{question.endpoint}"
    if blocks_the_loop(llm, endpoint) or provider_of(type(llm)).reads_in_thread(llm):
        return Offloaded(partial(ask, llms, question, upstream, request), upstream.break_read)
    return _Asked(llms, question, upstream, request)


class _Asked:
    """A class and not a generator: nobody closes it but its owner, while a generator's finalizer may come between."""

    def __init__(self, llms: Sequence[LLM], question: Question, upstream: Upstream, request: Request) -> None:
        self._asked = (llms, question, request)
        self._upstream = upstream
        self._stream: Any = None
        self._responses: AsyncIterator[Any] | None = None
        self._read: Read
        self._error: Exception | None = None  # comes behind what the class did not say

    def __aiter__(self) -> _Asked:
        return self

    async def __anext__(self) -> Chunk:
        if self._error is not None:
            raise self._error
        try:
            if self._responses is not None:
                upstream, responses = self._upstream, self._responses
                return self._read(await (upstream.seen_next if upstream.sees_libraries else anext)(responses))
            llms, question, request = self._asked
            llm = llms[request.model]
            seen = _seen(llm, self._upstream, asynchronous=True)
            method, to, kwargs, read = _call(seen, question, request, llms)
            self._read = keeping_response(read, llm, to.llm)
            if request.keep:
                self._upstream.keep()
            with self._upstream.asking():
                response = await self._first(method, to, kwargs, request)
            self._upstream.look(self._stream)
            return self._read(response)
        except Exception as error:
            if is_end_of_empty_completion(error):
                raise StopAsyncIteration from None
            if not (text := self._upstream.unsaid(error)):
                raise
            self._error = error
            return Chunk(text, progress=True, untouched=False)

    async def _first(self, method: str, to: _To, kwargs: dict[str, Any], request: Request) -> Any:
        while True:
            try:
                self._stream = await getattr(to.llm, f"astream_{method}")(to.what, **kwargs)
                self._responses = aiter(self._stream)
                return await anext(self._responses)
            except Exception as error:
                if not _is_mended(error, to, kwargs, request):
                    raise

    async def aclose(self) -> None:
        for aclose in (self._upstream.aclose, getattr(self._stream, "aclose", None)):
            try:
                if aclose is not None:
                    await aclose()
            except Exception as error:
                logger.debug("closing the upstream stream failed: %s", type(error).__name__)


def call(llms: Sequence[LLM], question: Question, upstream: Upstream, request: Request) -> Iterator[Chunk]:
    """One call that is not streamed, as a stream of one chunk."""
    method, to, kwargs, _ = _call(observed(llms[request.model], asynchronous=False), question, request, llms)
    with upstream.asking():
        response = _whole(method, to, kwargs, request)
    yield read_whole(signed(response, to.llm) if request.model else response)


async def acall(llms: Sequence[LLM], question: Question, upstream: Upstream, request: Request) -> AsyncIterator[Chunk]:
    """Make one call that is not streamed, asynchronously, as a stream of one chunk."""
    if blocks_the_loop(llms[request.model], f"a{question.endpoint}"):
        async for chunk in Offloaded(partial(call, llms, question, upstream, request)):
            yield chunk
        return
    method, to, kwargs, _ = _call(observed(llms[request.model], asynchronous=True), question, request, llms)
    with upstream.asking():
        response = await _awhole(method, to, kwargs, request)
    yield read_whole(signed(response, to.llm) if request.model else response)


@dataclass(frozen=True)
class _To:
    llm: LLM
    what: Sequence[ChatMessage] | str


def _whole(method: str, to: _To, kwargs: dict[str, Any], request: Request) -> Any:
    while True:
        try:
            return getattr(to.llm, method)(to.what, **kwargs)
        except Exception as error:
            if not _is_mended(error, to, kwargs, request):
                raise


async def _awhole(method: str, to: _To, kwargs: dict[str, Any], request: Request) -> Any:
    while True:
        try:
            return await getattr(to.llm, f"a{method}")(to.what, **kwargs)
        except Exception as error:
            if not _is_mended(error, to, kwargs, request):
                raise


def _is_mended(error: Exception, to: _To, kwargs: dict[str, Any], request: Request) -> bool:
    """Whether a fallback's class refused a keyword of the caller's, which is left away now."""
    return bool(request.model) and leave_away(error, to.llm, kwargs)


def _call(
    llm: LLM, question: Question, request: Request, chain: Sequence[LLM]
) -> tuple[str, _To, dict[str, Any], Read]:
    """Which endpoint of which LLM, with what, and how to read what it answers."""
    method, to, kwargs, read = _rendered_call(llm, question, request, chained=len(chain) > 1)
    if not request.model:
        return method, to, kwargs, read
    return method, to, kwargs, lambda response: read(signed(response, llm))


def _rendered_call(
    llm: LLM, question: Question, request: Request, *, chained: bool
) -> tuple[str, _To, dict[str, Any], Read]:
    request = request.original or request
    row = provider_of(type(llm))
    reader = Reader(mends_content=row.mends_content)
    given, kwargs = rendered(question, llm, request.model)
    kwargs = _arguments(llm, kwargs, request)
    messages = [without_mark(message) for message in (readable(given, llm) if chained else given)]
    if request.spent_tokens:
        llm, kwargs = with_fewer_tokens(llm, kwargs, request.spent_tokens, row.output_limits)
    if request.strategy in (Strategy.FIRST, Strategy.RESTART):
        return _as_given(llm, question, messages, kwargs, reader)
    if request.strategy is Strategy.APPEND:
        text = _as_one_text(llm, question) + sendable(request.partial_text)
        return (
            "complete",
            _To(llm, text),
            {"formatted": True, **kwargs},
            _as_asked(question.chat, False, reader.completion),
        )
    return _continued(llm, question, messages, kwargs, request, reader)


def _continued(
    llm: LLM,
    question: Question,
    messages: Sequence[ChatMessage],
    kwargs: dict[str, Any],
    request: Request,
    reader: Reader,
) -> tuple[str, _To, dict[str, Any], Read]:
    """The call that goes on with an answer by more turns."""
    for name, value in request.extra.items():
        llm, kwargs = _with(llm, kwargs, name, value)
    turns = [ChatMessage(role=MessageRole(turn.role), content=turn.text) for turn in request.turns]
    asked = messages or [ChatMessage(role=MessageRole.USER, content=question.prompt)]
    conversation = [*asked, *turns]
    if request.strategy is Strategy.PREFILL and (key := mark_of(llm, provider_of(type(llm)))):
        llm, kwargs = marked(llm, conversation, kwargs, key)
    return "chat", _To(llm, conversation), kwargs, _as_asked(question.chat, True, reader.chat)


def _as_given(
    llm: LLM, question: Question, messages: Sequence[ChatMessage], kwargs: dict[str, Any], reader: Reader
) -> tuple[str, _To, dict[str, Any], Read]:
    if question.chat:
        return "chat", _To(llm, messages), kwargs, reader.chat
    kwargs = {"formatted": question.formatted, **kwargs}
    return "complete", _To(llm, question.prompt), kwargs, reader.completion


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
