"""ResilientLLM: an LLM like any other, whose streams finish.

Each endpoint is a thin line to `drive.py`. What differs from what one might expect of a LlamaIndex LLM, and why:

1. The endpoints are not decorated with LlamaIndex's LLM callbacks. The wrapped LLM emits its events and callbacks once
   per attempt, which is what a bill shows; decorating ours too would count every token twice.
2. It derives from FunctionCallingLLM whatever it wraps, and passes the metadata through: LlamaIndex asks the metadata
   whether tools can be used, and the class how.
3. Prompt fields (`system_prompt` and the like) are copied from the wrapped LLM: LlamaIndex applies them on the object
   whose `predict` or `stream` is called, which is ours, and not again on the wrapped one.
4. Public attributes it does not have itself are read from the wrapped LLM: `llm.model`, `llm.temperature`.
5. A call that is not streamed and fails for good raises the original exception, with a note of what was tried.
6. An agent's reader sees a reset (a restarted turn that tells it differently) in `AgentStream.response`, which holds
   the new telling alone, while `delta` is a blank line and that telling; LlamaIndex drops a chunk's `additional_kwargs`
   there. The moment is told by `TokenEvent.reset` (`callbacks=`) and `StreamResetEvent` (LlamaIndex's dispatcher).
7. Thinking: a continued answer keeps the thinking blocks of all of its parts; a restarted one has only its own.
8. Streamed objects may start over when a turn is told again; the last one is right, or an error is raised. Objects
   have no place for a mark, so `on_exhausted="partial"` does not apply to them. Where the wrapped class streams
   objects in a JSON mode of its own through its chat endpoints (LlamaIndex's OpenAI), that mode is used.
9. Tracing: one span per stream, open until the stream is over, the attempts inside it (see `tracing.py`). A stream
   that nobody began to read has none. The span of a chat engine's own method ends before its stream, as LlamaIndex has
   it. The subclass that overrides a stream method has it decorated by LlamaIndex again, unless it is `@untraced`.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, overload

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection

from ..callbacks import HOOKS
from ..compat.llama_index import copied, streams_objects_itself, tools_arguments, users_token_counter
from ..errors import ConfigurationError, StreamInterruptedError
from ..policy import RecoveryPolicy
from ..recovery.continuation import STRATEGIES, Continuation
from ..recovery.events import Chunk, Learned
from ..recovery.machine import Recovery
from ..recovery.usage import estimate_tokens
from ..streaming.drivers import adrive, drive
from ..streaming.loops import require_asyncio
from ..streaming.watchdog import AsyncHalt, Halt
from .announcer import Announcer, AsyncAnnouncer, checked, refuse_coroutines
from .call_log import CallLog
from .chunks import ChatPresenter, completion_presenter
from .explanation import CallExplanation, refuses_like_bare
from .requests import Question, aask, acall, always_structured, ask, call, model_of, name_of
from .spans import StreamSpan, awithin, span_of, untraced, within
from .streams import ResilientAsyncStream, ResilientStream
from .structured import Tellings

_Json = dict[str, Any]  # a class with a method `dict` cannot write it any other way

_PROMPT_FIELDS = (
    "system_prompt",
    "messages_to_prompt",
    "completion_to_prompt",
    "output_parser",
    "pydantic_program_mode",
    "query_wrapper_prompt",
)


class ResilientLLM(FunctionCallingLLM):
    """Wraps any LlamaIndex LLM. Its streams are finished, or say honestly that they are not.

        llm = ResilientLLM(OpenAI("gpt-4o-mini", max_retries=0), fallbacks=[Anthropic("claude-sonnet-4-5")])
        index.as_query_engine(llm=llm, streaming=True)

    Args:
        llm: the LLM to wrap.
        fallbacks: asked in this order when a model's patience is used up, also in the middle of an answer.
        policy: how patient to be.
        continuation: how to ask a model to go on: "auto" (by what `providers.py` knows), "ask", "prefill", "append",
            "restart", or a `Continuation` with a wording of your own.
        callbacks: objects with `on_token`, `on_fault`, `on_resume`, `on_end`, or functions of a `TokenEvent`.

    Before the first token the wrapped LLM's own `max_retries` multiply ours. They are counted in
    `policy.max_attempts`; `max_retries=0` on the wrapped LLM leaves the retrying to this package.
    """

    llm: LLM = Field(description="The wrapped LLM.")
    fallbacks: list[LLM] = Field(default_factory=list, description="Asked in turn when the wrapped LLM fails.")
    policy: Any = Field(default=None, exclude=True)
    continuation: Any = Field(default="auto", exclude=True)
    callbacks: Any = Field(default=(), exclude=True)

    _learned: Any = PrivateAttr()
    _calls: Any = PrivateAttr(default=None)
    _objects: bool = PrivateAttr(default=False)

    def __init__(
        self,
        llm: LLM,
        *,
        fallbacks: Sequence[LLM] = (),
        policy: RecoveryPolicy | None = None,
        continuation: Continuation | str = "auto",
        callbacks: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        policy = RecoveryPolicy() if policy is None else policy
        for each in (llm, *fallbacks):
            _check_llm(each)
        _check_settings(policy, continuation)
        callbacks = checked(callbacks)
        _check_names(kwargs, set(self._field_names()))
        inherited = {name: getattr(llm, name) for name in ("callback_manager", *_PROMPT_FIELDS) if hasattr(llm, name)}
        super().__init__(
            llm=llm,
            fallbacks=list(fallbacks),
            policy=policy,
            continuation=continuation,
            callbacks=callbacks,
            **{**inherited, **kwargs},
        )
        # pydantic 1, under core 0.10, copies models on validation; wrapped means these very objects.
        self.__dict__["llm"] = llm
        self.__dict__["fallbacks"] = list(fallbacks)
        self._learned = [Learned() for _ in (llm, *fallbacks)]

    # What it is

    @classmethod
    def _field_names(cls) -> list[str]:
        return list(getattr(cls, "model_fields", None) or cls.__fields__)  # type: ignore[arg-type]

    @classmethod
    def class_name(cls) -> str:
        return "ResilientLLM"

    @property
    def metadata(self) -> LLMMetadata:
        return self.llm.metadata

    def __getattr__(self, name: str) -> Any:
        inner = self.__dict__.get("llm")
        if name.startswith("_") or inner is None:
            parent = getattr(super(), "__getattr__", None)  # pydantic 2 keeps private attributes there
            if parent is None:
                raise AttributeError(name)
            return parent(name)
        return getattr(inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "callback_manager":  # LlamaIndex sets it on us; the events come from the wrapped ones
            for llm in (self.llm, *self.fallbacks):
                llm.callback_manager = value

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        # The wrapped LLM's own repr shows its api_key.
        return [("llm", name_of(self.llm)), ("fallbacks", [name_of(llm) for llm in self.fallbacks])]

    def __repr__(self) -> str:
        return f"ResilientLLM({', '.join(f'{name}={value!r}' for name, value in self.__repr_args__())})"

    __str__ = __repr__

    def to_dict(self, **kwargs: Any) -> _Json:
        """Names only: under core 0.10 the inherited one shows the wrapped LLM's credentials."""
        return {
            "class_name": self.class_name(),
            "llm": {"class_name": self.llm.class_name(), "model": name_of(self.llm)},
            "fallbacks": [{"class_name": llm.class_name(), "model": name_of(llm)} for llm in self.fallbacks],
        }

    def dict(self, **kwargs: Any) -> _Json:
        """The same."""
        return self.to_dict()

    # Per request

    def bind(
        self,
        *,
        policy: RecoveryPolicy | None = None,
        callbacks: Sequence[Any] | None = None,
        continuation: Continuation | str | None = None,
    ) -> ResilientLLM:
        """The same LLM with other settings, for one request. What it has learned of its models stays shared."""
        bound = ResilientLLM(
            self.llm,
            fallbacks=self.fallbacks,
            policy=self.policy if policy is None else policy,
            continuation=self.continuation if continuation is None else continuation,
            callbacks=self.callbacks if callbacks is None else callbacks,
            **{name: getattr(self, name) for name in ("callback_manager", *_PROMPT_FIELDS)},
        )
        bound._learned = self._learned
        return bound

    def _bind_calls(self, calls: CallLog, *, policy: RecoveryPolicy | None = None) -> ResilientLLM:
        """Bound for one call of an engine, which `calls` will know everything about."""
        bound = self.bind(policy=policy)
        bound._calls = calls
        return bound

    @overload
    def resume(self, what: StreamInterruptedError) -> ResilientStream[Any]: ...
    @overload
    def resume(self, what: Sequence[ChatMessage] | str, partial_text: str) -> ResilientStream[Any]: ...
    def resume(self, what: Any, partial_text: str | None = None) -> ResilientStream[Any]:
        """Go on from an interrupted answer's partial text. The deltas hold only what is new, the message is whole.

        llm.resume(error)               # a StreamInterruptedError
        llm.resume(messages, text)      # or a prompt; where the error was another process's, or there was none
        """
        return self._stream(*_interrupted(what, partial_text))

    @overload
    async def aresume(self, what: StreamInterruptedError) -> ResilientAsyncStream[Any]: ...
    @overload
    async def aresume(self, what: Sequence[ChatMessage] | str, partial_text: str) -> ResilientAsyncStream[Any]: ...
    async def aresume(self, what: Any, partial_text: str | None = None) -> ResilientAsyncStream[Any]:
        """The same, asynchronously."""
        return self._astream(*_interrupted(what, partial_text))

    # Streams

    @untraced
    @refuses_like_bare
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        return self._stream(Question(True, messages=list(messages), kwargs=kwargs))

    @untraced
    @refuses_like_bare
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        return self._stream(Question(False, prompt=prompt, formatted=formatted, kwargs=kwargs))

    @untraced
    @refuses_like_bare
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        return self._astream(Question(True, messages=list(messages), kwargs=kwargs))

    @untraced
    @refuses_like_bare
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        return self._astream(Question(False, prompt=prompt, formatted=formatted, kwargs=kwargs))

    def _stream(self, question: Question, partial_text: str = "", restart_only: bool = False) -> ResilientStream[Any]:
        refuse_coroutines(self.callbacks)
        recovery, halt = self._recovery(question, partial_text=partial_text, restart_only=restart_only), Halt()
        trace, show = self._trace(question, recovery), _presenter(question, recovery)
        calls: CallLog = self._calls or CallLog()
        opened = within(trace, partial(ask, [self.llm, *self.fallbacks], question))
        observer = Announcer(self._listeners(calls, trace, show))
        items = drive(opened, recovery, show=show, observer=observer, halt=halt)
        stream: ResilientStream[Any] = ResilientStream(items, recovery, halt, calls)
        calls.add_stream(recovery, stream)
        return stream

    def _astream(
        self, question: Question, partial_text: str = "", restart_only: bool = False
    ) -> ResilientAsyncStream[Any]:
        require_asyncio("An asynchronous stream of ResilientLLM")
        recovery, halt = self._recovery(question, partial_text=partial_text, restart_only=restart_only), AsyncHalt()
        trace, show = self._trace(question, recovery, "a"), _presenter(question, recovery)
        calls: CallLog = self._calls or CallLog()
        opened = awithin(trace, partial(aask, [self.llm, *self.fallbacks], question))
        observer = AsyncAnnouncer(self._listeners(calls, trace, show))
        items = adrive(opened, recovery, show=show, observer=observer, halt=halt)
        stream: ResilientAsyncStream[Any] = ResilientAsyncStream(items, recovery, halt, calls)
        calls.add_stream(recovery, stream)
        return stream

    def _listeners(self, *ours: object) -> Sequence[Any]:
        # Not a bare function: as a callback it would be told of tokens.
        return [*self.callbacks, *(each for each in ours if any(hasattr(each, h) for h in HOOKS))]

    def _trace(self, question: Question, recovery: Recovery, twin: str = "") -> StreamSpan | None:
        asked = {"messages": question.messages} if question.chat else {"prompt": question.prompt}
        method = f"{twin}stream_{'chat' if question.chat else 'complete'}"
        return span_of(self, method, {**asked, **question.kwargs}, recovery)

    # Calls that are not streamed

    @refuses_like_bare
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        answer: ChatResponse = self._call(Question(True, messages=list(messages), kwargs=kwargs))
        return answer

    @refuses_like_bare
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        answer: CompletionResponse = self._call(Question(False, prompt=prompt, formatted=formatted, kwargs=kwargs))
        return answer

    @refuses_like_bare
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        answer: ChatResponse = await self._acall(Question(True, messages=list(messages), kwargs=kwargs))
        return answer

    @refuses_like_bare
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        answer: CompletionResponse = await self._acall(
            Question(False, prompt=prompt, formatted=formatted, kwargs=kwargs)
        )
        return answer

    def _call(self, question: Question) -> Any:
        refuse_coroutines(self.callbacks)
        recovery = self._recovery(question, streamed=False)
        opened = partial(call, [self.llm, *self.fallbacks], question)
        try:
            for answer in drive(  # noqa: B007 - the last one counts: one that ended in an error was asked for again
                opened, recovery, show=_payload, observer=Announcer(self.callbacks), halt=Halt(), watched=False
            ):
                pass
        except StreamInterruptedError as error:
            failure = error
        else:
            return answer
        raise _original(failure)

    async def _acall(self, question: Question) -> Any:
        require_asyncio("An asynchronous call of ResilientLLM")
        recovery = self._recovery(question, streamed=False)
        opened = partial(acall, [self.llm, *self.fallbacks], question)
        observer = AsyncAnnouncer(self.callbacks)
        try:
            async for answer in adrive(  # noqa: B007
                opened, recovery, show=_payload, observer=observer, halt=AsyncHalt(), watched=False
            ):
                pass
        except StreamInterruptedError as error:
            failure = error
        else:
            return answer
        raise _original(failure)

    def _recovery(
        self, question: Question, *, partial_text: str = "", restart_only: bool = False, streamed: bool = True
    ) -> Recovery:
        if self._calls is not None:
            self._calls.check()
        policy: RecoveryPolicy = self.policy
        if not streamed:  # an error is an error there: no half answer to hand out, and nothing to go on from
            policy = replace(policy, on_exhausted="raise", continue_on_length=0)
        models = [
            model_of(llm, question, policy, self.continuation, learned)
            for llm, learned in zip((self.llm, *self.fallbacks), self._learned, strict=True)
        ]
        by_its_settings = any(always_structured(llm) for llm in (self.llm, *self.fallbacks))
        count_tokens = users_token_counter() or estimate_tokens
        recovery = Recovery(
            models,
            policy,
            question=question,
            question_tokens=partial(question.tokens, count_tokens),
            count_tokens=count_tokens,
            answers_tool_result=question.answers_tool_result,
            explanation=CallExplanation((self.llm, *self.fallbacks), question),
            partial_text=partial_text,
            restart_only=restart_only or self._objects or question.structured or by_its_settings or not streamed,
            streamed=streamed,
        )
        if self._calls is not None and not streamed:
            self._calls.add_call(recovery)
        return recovery

    # Objects

    # Their signatures differ from one version of LlamaIndex to the next, so they are passed on as they come.

    def structured_predict(self, *args: Any, **kwargs: Any) -> Any:
        if not streams_objects_itself(self.llm):
            return super().structured_predict(*args, **kwargs)
        return _with_endpoints(self.llm, chat=self.chat).structured_predict(*args, **kwargs)

    async def astructured_predict(self, *args: Any, **kwargs: Any) -> Any:
        if not streams_objects_itself(self.llm):
            return await super().astructured_predict(*args, **kwargs)
        return await _with_endpoints(self.llm, achat=self.achat).astructured_predict(*args, **kwargs)

    def _structured_stream_call(self, *args: Any, **kwargs: Any) -> Iterator[Any]:  # type: ignore[override]
        asked, tellings = self._for_objects()
        try:
            while not tellings.over:
                yield from asked._structured_stream_call(*args, **kwargs)
        finally:
            tellings.close()

    async def _structured_astream_call(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        asked, tellings = self._for_objects()

        async def objects() -> AsyncIterator[Any]:
            try:
                while not tellings.over:
                    async for each in await asked._structured_astream_call(*args, **kwargs):
                        yield each
            finally:
                await tellings.aclose()

        return objects()

    def _for_objects(self) -> tuple[Any, Tellings]:
        """Whom to ask for an object, and the tellings of that one answer."""
        bound = self.bind(policy=replace(self.policy, on_exhausted="raise"))
        bound._calls, bound._objects = self._calls, True
        tellings = Tellings(bound)
        endpoints: _Json = {
            "stream_chat": tellings.stream_chat,
            "stream_complete": tellings.stream_complete,
            "astream_chat": tellings.astream_chat,
            "astream_complete": tellings.astream_complete,
        }
        if streams_objects_itself(self.llm):
            return _with_endpoints(self.llm, **endpoints), tellings
        asked = _with_endpoints(bound, **endpoints)
        for name in ("_structured_stream_call", "_structured_astream_call"):  # LlamaIndex's own, not ours once more
            asked.__dict__[name] = partial(getattr(FunctionCallingLLM, name), asked)
        return asked, tellings

    # Tools

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[Any],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> _Json:
        return tools_arguments(
            self._function_calling_llm(),
            {
                "tools": tools,
                "user_msg": user_msg,
                "chat_history": chat_history,
                "verbose": verbose,
                "allow_parallel_tool_calls": allow_parallel_tool_calls,
                "tool_required": tool_required,
                **kwargs,
            },
        )

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[Any],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        return self._function_calling_llm()._validate_chat_with_tools_response(
            response, tools, allow_parallel_tool_calls=allow_parallel_tool_calls, **kwargs
        )

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        if not isinstance(self.llm, FunctionCallingLLM) and not error_on_no_tool_call:
            return []  # CodeActAgent asks every FunctionCallingLLM by class, whatever its metadata says
        return self._function_calling_llm().get_tool_calls_from_response(
            response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )

    def _function_calling_llm(self) -> FunctionCallingLLM:
        if not isinstance(self.llm, FunctionCallingLLM):
            raise ConfigurationError(
                f"{type(self.llm).__name__} cannot call functions, so ResilientLLM around it cannot either. "
                f"Wrap a function-calling LLM: ResilientLLM(OpenAI(...))."
            )
        return self.llm


def _presenter(question: Question, recovery: Recovery) -> Callable[[Chunk], Any]:
    return ChatPresenter(recovery) if question.chat else completion_presenter(recovery)


def _payload(chunk: Chunk) -> Any:
    return chunk.payload


def _with_endpoints(llm: LLM, **endpoints: Callable[..., Any]) -> Any:
    """A shallow copy of an LLM, some of whose endpoints are others'. It shares its client."""
    made = copied(llm)
    made.__dict__.update(endpoints)
    return made


def _check_llm(llm: Any) -> None:
    if isinstance(llm, ResilientLLM):
        raise ConfigurationError(
            "This LLM is resilient already, and two layers of retries multiply. Change its settings with "
            "llm.bind(policy=...), or wrap the LLM inside: ResilientLLM(llm.llm, ...)."
        )
    if not isinstance(llm, LLM):
        what = f"the class {llm.__name__}" if isinstance(llm, type) else f"{type(llm).__name__} object"
        raise ConfigurationError(
            f"ResilientLLM wraps a LlamaIndex LLM, and got {what}. Write ResilientLLM(OpenAI(model=...))."
        )


def _check_names(kwargs: Mapping[str, Any], known: set[str]) -> None:
    """pydantic would swallow what it does not know, and a misspelt fallback would be missed when it is needed."""
    for name in kwargs.keys() - known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {near[0]}=...?" if near else ""
        raise ConfigurationError(f"ResilientLLM has no setting {name!r}.{hint}")


def _check_settings(policy: Any, continuation: Any) -> None:
    if not isinstance(policy, RecoveryPolicy):
        raise ConfigurationError(
            f"policy must be a RecoveryPolicy, not {type(policy).__name__}. Write policy=RecoveryPolicy(deadline=60)."
        )
    if not isinstance(continuation, Continuation) and continuation not in ("auto", *STRATEGIES):
        names = ", ".join(repr(str(strategy)) for strategy in STRATEGIES)
        raise ConfigurationError(
            f"continuation is {continuation!r}. Use 'auto', {names}, or a Continuation(strategy=..., wording=...)."
        )


def _interrupted(what: Any, text: str | None) -> tuple[Question, str, bool]:
    """What was asked, what was said, and whether it can only be asked again."""
    if text is None and isinstance(what, StreamInterruptedError):
        return _asked_before(what)
    if isinstance(text, str) and isinstance(what, str):
        return Question(False, prompt=what), text, False
    if isinstance(text, str) and isinstance(what, Sequence) and all(isinstance(each, ChatMessage) for each in what):
        return Question(True, messages=list(what)), text, False
    raise ConfigurationError(
        "Only a StreamInterruptedError that a stream of ResilientLLM raised can be resumed: "
        "except StreamInterruptedError as error: stream = llm.resume(error). "
        "Or pass what was asked and the text so far: llm.resume(messages, text)."
    )


def _asked_before(error: StreamInterruptedError) -> tuple[Question, str, bool]:
    if isinstance(error.question, Question):
        return error.question, error.partial_text, error.restart_only
    raise ConfigurationError(
        "This error does not know what was asked: it comes from another process, or is a copy, and prompts do not "
        "travel with errors. Say it again: llm.resume(messages, error.partial_text)."
    )


def _original(error: StreamInterruptedError) -> BaseException:
    original = error.__cause__ or error
    report = error.report
    if report is not None and not any(note.startswith("ResilientLLM") for note in getattr(original, "__notes__", ())):
        original.add_note(
            f"ResilientLLM gave up after {len(report.attempts)} attempts in {report.seconds:.1f} s ({error.reason})."
        )
    return original
