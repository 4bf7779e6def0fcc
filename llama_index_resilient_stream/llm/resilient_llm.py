"""ResilientLLM: an LLM like any other, whose streams finish.

Each endpoint is a thin line to `drive.py`. What differs from what one might expect of a LlamaIndex LLM, and why:

1. The endpoints are not decorated with LlamaIndex's LLM callbacks. The wrapped LLM emits its events and callbacks once
   per attempt, which is what a bill shows; decorating ours too would count every token twice.
2. It derives from FunctionCallingLLM whatever it wraps, and passes the metadata through: LlamaIndex asks the metadata
   whether tools can be used, and the class how.
3. Prompt fields (`system_prompt` and the like) are copied from the wrapped LLM: LlamaIndex applies them on the object
   whose `predict` or `stream` is called, which is ours, and not again on the wrapped one.
4. Public attributes it does not have itself are read from the wrapped LLM: `llm.model`, `llm.temperature`.
5. A call that is not streamed and fails for good raises the original exception, with a note of what was tried. An
   object that was cut every time has none: that is a `StreamInterruptedError`, streamed or not.
6. An agent's reader sees a reset (a restarted turn that tells it differently) in `AgentStream.response`, which holds
   the new telling alone, while `delta` is a blank line and that telling; LlamaIndex drops a chunk's `additional_kwargs`
   there. The moment is told by `TokenEvent.reset` (`callbacks=`) and `StreamResetEvent` (LlamaIndex's dispatcher).
7. Thinking: a continued answer keeps the thinking blocks of all of its parts; a restarted one has only its own.
8. Objects are asked for as the wrapped class asks for them (`structured_predict` and its kin are its own methods, see
   `own_methods.py`). Streamed ones may start over when a turn is told again; the last one is right, or an error is
   raised. Objects have no place for a mark, so `on_exhausted="partial"` does not apply to them.
9. Around `llm.as_structured_llm(X)` it is a structured LLM, too: `ResilientLLM(...)` makes a subclass of both.
10. `get_tool_calls_from_response` leaves out calls whose arguments are no JSON object, which LlamaIndex repairs.
11. Tracing: one span per answer, open until it is over, the attempts inside it (see `spans.py`). A stream that nobody
   began to read has none. The span of a chat engine's own method ends before its stream, as LlamaIndex has it. The
   subclass that overrides an endpoint has it decorated by LlamaIndex again, unless it is `@untraced`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from functools import partial
from inspect import getattr_static
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection

from ..callbacks import Callback
from ..compat.llama_index import (
    StructuredLLM,
    copied,
    serializer,
    with_inner_llm,
)
from ..errors import ConfigurationError, StreamInterruptedError
from ..policy import RecoveryPolicy
from ..recovery.events import Learned
from .answering import Answering
from .call_log import CallLog
from .circuits import circuit_of
from .explanation import refuses_like_bare
from .identity import identity_of
from .models import Models, name_of
from .own_methods import (
    OwnMethod,
    objects_of,
    objects_of_async,
    own_method,
)
from .question import Question, conversation
from .rendering import answered_by, prepared
from .settings import CHECKS, ContinuationSetting, ProviderSetting, check_names, did_you_mean
from .spans import untraced
from .streams import ResilientAsyncStream, ResilientStream
from .tool_calls import without_cut_calls

_Json = dict[str, Any]  # a class with a method `dict` cannot write it any other way

S = TypeVar("S", bound="ResilientLLM")

# The types of the settings are for type checkers. pydantic, of either version, would copy, convert or refuse what
# `settings.py` checks better: a subclass of Continuation, an object with two of the four hooks.
if TYPE_CHECKING:
    _Fallbacks = tuple[LLM, ...]
    _Policy = RecoveryPolicy
    _Continuation = ContinuationSetting
    _Callbacks = tuple[Callback, ...]
    _Provider = ProviderSetting
else:
    _Fallbacks = _Policy = _Continuation = _Callbacks = _Provider = Any

# Read from the wrapped LLM, whenever they are asked for, where nobody set them on ours.
_PROMPT_FIELDS = (
    "system_prompt",
    "messages_to_prompt",
    "completion_to_prompt",
    "output_parser",
    "pydantic_program_mode",
    "query_wrapper_prompt",
)
_INHERITED = ("callback_manager", *_PROMPT_FIELDS)


_ENDPOINTS = tuple(
    f"{a}{stream}{kind}" for kind in ("chat", "complete") for stream in ("", "stream_") for a in ("", "a")
)
_TOOL_METHODS = tuple(f"{name}_with_tools" for name in _ENDPOINTS if name.endswith("chat"))


class ResilientLLM(FunctionCallingLLM):
    """Wraps any LlamaIndex LLM. Its streams are finished, or say that they are not.

        llm = ResilientLLM(OpenAI("gpt-4o-mini", max_retries=0), fallbacks=[Anthropic("claude-sonnet-4-5")])
        index.as_query_engine(llm=llm, streaming=True)

    Args:
        llm: The LLM to wrap.
        fallbacks: LLMs that are asked in this order when `policy.stop` gives a model up, also in the middle of an
            answer.
        policy: When to wait, when to ask again, when to stop.
        continuation: How to ask a model to go on: "auto" (by what `providers.py` knows), "ask", "prefill", "append",
            "restart", "replay" (the server keeps its streams), or a `Continuation`, also one of your own subclass.
        callbacks: Objects with some of `on_token`, `on_fault`, `on_resume`, `on_end`, or functions of a `TokenEvent`.
        provider: What is known of the wrapped LLM, in place of its class's row in `providers.py`. With fallbacks also
            a sequence, one for each LLM, None where the row is right.
        **kwargs: Fields of every LlamaIndex LLM, such as `system_prompt`. What is not given is read from the wrapped
            LLM.

    Raises:
        ConfigurationError: A setting cannot work, here and when it is assigned later: `llm.policy = 3`.

    Before the first token the wrapped LLM's own `max_retries` multiply ours. They are counted in
    `policy.max_attempts`; `max_retries=0` on the wrapped LLM leaves the retrying to this package.
    """

    llm: LLM = Field(description="The wrapped LLM.")
    fallbacks: _Fallbacks = Field(default=(), description="Asked in turn when the wrapped LLM fails.")
    policy: _Policy = Field(default_factory=RecoveryPolicy, exclude=True)
    continuation: _Continuation = Field(default="auto", exclude=True)
    callbacks: _Callbacks = Field(default=(), exclude=True)
    provider: _Provider = Field(default=None, exclude=True)

    _learned: list[Learned] = PrivateAttr()
    _calls: Any = PrivateAttr(default=None)

    def __new__(cls, llm: Any = None, *_: Any, **__: Any) -> ResilientLLM:
        """Around `llm.as_structured_llm(X)`, an LLM that LlamaIndex knows as a structured one."""
        if isinstance(llm, StructuredLLM) and not issubclass(cls, StructuredLLM):
            from .structured_llm import resilient_structured

            cls = resilient_structured(cls)
        return super().__new__(cls)

    def __init__(
        self,
        llm: LLM,
        *,
        fallbacks: Sequence[LLM] = (),
        policy: RecoveryPolicy | None = None,
        continuation: ContinuationSetting = "auto",
        callbacks: Sequence[Callback] | Callback = (),
        provider: ProviderSetting = None,
        **kwargs: Any,
    ) -> None:
        settings = {
            "llm": llm,
            "fallbacks": fallbacks,
            "policy": RecoveryPolicy() if policy is None else policy,
            "continuation": continuation,
            "callbacks": callbacks,
            "provider": provider,
        }
        settings = {name: CHECKS[name](value) for name, value in settings.items()}
        check_names(kwargs, self._field_names())
        super().__init__(**settings, **kwargs)
        # pydantic 1, under core 0.10, copies models on validation; wrapped means these very objects.
        self.__dict__.update(settings)
        for name in (*_INHERITED, "provider"):
            if kwargs.get(name, settings.get(name)) is None:
                self.__dict__.pop(name, None)  # found by __getattr__ from now on
        self._learned = [_nothing_learned(llm) for llm in self._models]

    # What it is

    @classmethod
    def _field_names(cls) -> list[str]:
        return list(getattr(cls, "model_fields", None) or cls.__fields__)  # type: ignore[arg-type]

    @property
    def _models(self) -> tuple[LLM, ...]:
        return (self.llm, *self.fallbacks)

    @classmethod
    def class_name(cls) -> str:
        """The name by which LlamaIndex knows this class."""
        return "ResilientLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What the wrapped LLM says of itself: its model's name, its context window, whether it calls functions."""
        return self.llm.metadata

    def __getattr__(self, name: str) -> Any:
        inner = self.__dict__.get("llm")
        if inner is None or name in self.__private_attributes__ or not _is_shared(inner, name):
            parent = getattr(super(), "__getattr__", None)  # pydantic 2 keeps private attributes there
            if parent is None:
                raise AttributeError(name)
            return parent(name)
        try:
            return getattr(inner, name)
        except AttributeError:
            if name == "provider":  # a setting of ours that nobody made, and a field of some LLMs
                return None
            if getattr_static(inner, name, None) is not None:
                raise  # a property of the wrapped LLM failed, and says why
        raise AttributeError(self._unknown(name), name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_of_wrapped(name, value):
            self._set_on_wrapped(name, value)
            return
        if (check := CHECKS.get(name)) is not None:
            value = check(value)
        known = list(zip(self._models, self._learned, strict=True)) if name in ("llm", "fallbacks") else []
        super().__setattr__(name, value)
        if known:
            self._learned = _learned_of(self._models, known)
        if name == "callback_manager":  # LlamaIndex sets it on us; the events come from the wrapped ones
            for llm in self._models:
                llm.callback_manager = value

    def _is_of_wrapped(self, name: str, value: Any) -> bool:
        if name == "provider":  # a setting of ours; some LLMs have a field of that name, which is a word
            return isinstance(value, str)
        is_ours = name.startswith("_") or name in self._field_names() or getattr_static(self, name, None) is not None
        return not is_ours

    def _set_on_wrapped(self, name: str, value: Any) -> None:
        """`llm.temperature = 0.1` means the wrapped LLM's; what it has not is a mistake."""
        if not hasattr(self.llm, name):
            raise ConfigurationError(self._unknown(name))
        setattr(self.llm, name, value)

    def _unknown(self, name: str) -> str:
        known = [each for each in {*dir(type(self)), *self._field_names(), *vars(self.llm)} if not each.startswith("_")]
        around = type(self.llm).__name__
        return f"Neither {type(self).__name__} nor the {around} in it has {name!r}.{did_you_mean(name, known)}"

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        # The wrapped LLM's own repr shows its api_key.
        return [("llm", name_of(self.llm)), ("fallbacks", [name_of(llm) for llm in self.fallbacks])]

    def __repr__(self) -> str:
        return f"ResilientLLM({', '.join(f'{name}={value!r}' for name, value in self.__repr_args__())})"

    __str__ = __repr__

    def to_dict(self, **kwargs: Any) -> _Json:
        """What tells this LLM's answers from another's, without credentials: LlamaIndex's caches use it as a key."""
        return {
            "class_name": self.class_name(),
            "system_prompt": self.system_prompt,
            "pydantic_program_mode": str(getattr(self.pydantic_program_mode, "value", self.pydantic_program_mode)),
            "llm": identity_of(self.llm),
            "fallbacks": [identity_of(llm) for llm in self.fallbacks],
        }

    def dict(self, **kwargs: Any) -> _Json:
        """What `to_dict()` says."""
        return self.to_dict()

    @serializer
    def custom_model_dump(self) -> _Json:  # type: ignore[override]
        """What `to_dict()` says, also where this LLM is a field of another model."""
        return self.to_dict()

    @classmethod
    def from_dict(cls, data: _Json, **kwargs: Any) -> NoReturn:
        """Refuse: `to_dict` tells models apart, and holds no credentials and no policy.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            "A ResilientLLM cannot be loaded from to_dict() or to_json(), which tell its models apart and hold no "
            "credentials and no policy. Load the wrapped LLM and wrap it: "
            "ResilientLLM(OpenAI.from_dict(...), policy=...)."
        )

    # Per request

    def bind(
        self: S,
        *,
        policy: RecoveryPolicy | None = None,
        callbacks: Sequence[Callback] | Callback | None = None,
        continuation: ContinuationSetting | None = None,
        fallbacks: Sequence[LLM] | None = None,
    ) -> S:
        """Give the same LLM other settings, for one request. What it has learned of its models stays shared.

            llm.bind(policy=RecoveryPolicy(deadline=30)).stream_chat(messages)
            llm.bind(fallbacks=()).stream_chat(messages)    # the wrapped LLM or nobody, its circuit breaker or not

        Args:
            policy: In place of the LLM's own policy.
            callbacks: In place of its callbacks; `callbacks=()` for none.
            continuation: In place of its way to go on.
            fallbacks: In place of its fallbacks; `fallbacks=()` for none.

        Returns:
            A new LLM, of the same class, around the same models. This one is not changed.

        Raises:
            ConfigurationError: A setting cannot work.
        """
        given = {"policy": policy, "callbacks": callbacks, "continuation": continuation, "fallbacks": fallbacks}
        changes = {name: CHECKS[name](value) for name, value in given.items() if value is not None}
        bound = copied(self, **changes)
        if fallbacks is not None:
            known = list(zip(self._models, self._learned, strict=True))
            object.__setattr__(bound, "_learned", _learned_of(bound._models, known))
        bound._calls = None
        return bound

    def _bind_calls(self, calls: CallLog, *, policy: RecoveryPolicy | None = None) -> ResilientLLM:
        """Bound for one call of an engine, which `calls` will know everything about."""
        bound = self.bind(policy=policy)
        bound._calls = calls
        return bound

    @overload
    def resume(self, what: StreamInterruptedError) -> ResilientStream[ChatResponse | CompletionResponse]: ...
    @overload
    def resume(self, what: str, partial_text: str) -> ResilientStream[CompletionResponse]: ...
    @overload
    def resume(self, what: Sequence[ChatMessage], partial_text: str) -> ResilientStream[ChatResponse]: ...
    def resume(self, what: Any, partial_text: str | None = None) -> ResilientStream[Any]:
        """Go on from an interrupted answer's partial text.

            llm.resume(error)               # a StreamInterruptedError
            llm.resume(messages, text)      # or a prompt; where the error was another process's, or there was none

        Args:
            what: The error that a stream of ours raised; or the messages, or the prompt, that were asked.
            partial_text: The text so far, where `what` is no error.

        Returns:
            A stream whose deltas hold only what is new; its message, or text, is the whole answer so far.

        Raises:
            ConfigurationError: This cannot be resumed.
        """
        return self._stream(*_interrupted(what, partial_text))

    @overload
    async def aresume(
        self, what: StreamInterruptedError
    ) -> ResilientAsyncStream[ChatResponse | CompletionResponse]: ...
    @overload
    async def aresume(self, what: str, partial_text: str) -> ResilientAsyncStream[CompletionResponse]: ...
    @overload
    async def aresume(self, what: Sequence[ChatMessage], partial_text: str) -> ResilientAsyncStream[ChatResponse]: ...
    async def aresume(self, what: Any, partial_text: str | None = None) -> ResilientAsyncStream[Any]:
        """Go on from an interrupted answer's partial text, asynchronously.

            stream = await llm.aresume(error)

        Args:
            what: The error that a stream of ours raised; or the messages, or the prompt, that were asked.
            partial_text: The text so far, where `what` is no error.

        Returns:
            A stream whose deltas hold only what is new; its message, or text, is the whole answer so far.

        Raises:
            ConfigurationError: This cannot be resumed.
        """
        return self._astream(*_interrupted(what, partial_text))

    # Streams

    @untraced
    @refuses_like_bare
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ResilientStream[ChatResponse]:
        """Stream the answer to a conversation.

            stream = llm.stream_chat([ChatMessage(content="What happened to the cable?")])
            for response in stream:
                print(response.delta, end="")
            print(stream.report)

        Args:
            messages: The conversation. Its messages are not changed.
            **kwargs: Passed on to the wrapped LLM. With tools or a response format among them the turn is asked again
                after a cut, and not continued.

        Returns:
            A generator of responses with `report` and `cancel()`. Nothing is sent before its first `next()`.

        Raises:
            ConfigurationError: A callback is a coroutine function, which a synchronous stream cannot await.
            StreamInterruptedError: From the generator, when the answer could not be finished; `partial_text` has
                what came. With `policy.on_exhausted="partial"` the stream ends instead.
        """
        return self._stream(conversation(messages, kwargs))

    @untraced
    @refuses_like_bare
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> ResilientStream[CompletionResponse]:
        """Stream the completion of a prompt.

            for response in llm.stream_complete("What happened to the cable?"):
                print(response.delta, end="")

        Args:
            prompt: The text to complete.
            formatted: Whether the prompt has the form that the model expects, so that `completion_to_prompt` is left
                out.
            **kwargs: Passed on to the wrapped LLM.

        Returns:
            A generator of responses with `report` and `cancel()`. Nothing is sent before its first `next()`.

        Raises:
            ConfigurationError: A callback is a coroutine function, which a synchronous stream cannot await.
            StreamInterruptedError: From the generator, when the answer could not be finished; `partial_text` has
                what came. With `policy.on_exhausted="partial"` the stream ends instead.
        """
        return self._stream(Question(False, prompt=prompt, formatted=formatted, kwargs=kwargs))

    @untraced
    @refuses_like_bare
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ResilientAsyncStream[ChatResponse]:
        """Stream the answer to a conversation, asynchronously.

            stream = await llm.astream_chat([ChatMessage(content="What happened to the cable?")])
            async for response in stream:
                print(response.delta, end="")

        Args:
            messages: The conversation. Its messages are not changed.
            **kwargs: Passed on to the wrapped LLM. With tools or a response format among them the turn is asked again
                after a cut, and not continued.

        Returns:
            An async generator of responses with `report`, `cancel()` and `acancel()`. Nothing is sent before its first
            `anext()`.

        Raises:
            StreamInterruptedError: From the generator, when the answer could not be finished; `partial_text` has
                what came. With `policy.on_exhausted="partial"` the stream ends instead.
        """
        return self._astream(conversation(messages, kwargs))

    @untraced
    @refuses_like_bare
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> ResilientAsyncStream[CompletionResponse]:
        """Stream the completion of a prompt, asynchronously.

            async for response in await llm.astream_complete("What happened to the cable?"):
                print(response.delta, end="")

        Args:
            prompt: The text to complete.
            formatted: Whether the prompt has the form that the model expects, so that `completion_to_prompt` is left
                out.
            **kwargs: Passed on to the wrapped LLM.

        Returns:
            An async generator of responses with `report`, `cancel()` and `acancel()`. Nothing is sent before its first
            `anext()`.

        Raises:
            StreamInterruptedError: From the generator, when the answer could not be finished; `partial_text` has
                what came. With `policy.on_exhausted="partial"` the stream ends instead.
        """
        return self._astream(Question(False, prompt=prompt, formatted=formatted, kwargs=kwargs))

    def _stream(self, question: Question, partial_text: str = "", restart_only: bool = False) -> ResilientStream[Any]:
        return self._answering(question).stream(partial_text, restart_only=restart_only)

    def _astream(
        self, question: Question, partial_text: str = "", restart_only: bool = False
    ) -> ResilientAsyncStream[Any]:
        return self._answering(question).astream(partial_text, restart_only=restart_only)

    # Calls that are not streamed

    @untraced
    @refuses_like_bare
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation in one piece. Failed requests are sent again, as the policy says.

            response = llm.chat([ChatMessage(content="What happened to the cable?")])

        Args:
            messages: The conversation. Its messages are not changed.
            **kwargs: Passed on to the wrapped LLM.

        Returns:
            The wrapped LLM's own response.

        Raises:
            ConfigurationError: A callback is a coroutine function, which a synchronous call cannot await.
            Exception: The provider's own error when it fails for good, with a note of what was tried.
        """
        answer: ChatResponse = self._call(conversation(messages, kwargs))
        return answer

    @untraced
    @refuses_like_bare
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Complete a prompt in one piece. Failed requests are sent again, as the policy says.

            response = llm.complete("What happened to the cable?")

        Args:
            prompt: The text to complete.
            formatted: Whether the prompt has the form that the model expects, so that `completion_to_prompt` is left
                out.
            **kwargs: Passed on to the wrapped LLM.

        Returns:
            The wrapped LLM's own response.

        Raises:
            ConfigurationError: A callback is a coroutine function, which a synchronous call cannot await.
            Exception: The provider's own error when it fails for good, with a note of what was tried.
        """
        answer: CompletionResponse = self._call(Question(False, prompt=prompt, formatted=formatted, kwargs=kwargs))
        return answer

    @untraced
    @refuses_like_bare
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation in one piece, asynchronously. Failed requests are sent again, as the policy says.

            response = await llm.achat([ChatMessage(content="What happened to the cable?")])

        Args:
            messages: The conversation. Its messages are not changed.
            **kwargs: Passed on to the wrapped LLM.

        Returns:
            The wrapped LLM's own response.

        Raises:
            Exception: The provider's own error when it fails for good, with a note of what was tried.
        """
        answer: ChatResponse = await self._acall(conversation(messages, kwargs))
        return answer

    @untraced
    @refuses_like_bare
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Complete a prompt in one piece, asynchronously. Failed requests are sent again, as the policy says.

            response = await llm.acomplete("What happened to the cable?")

        Args:
            prompt: The text to complete.
            formatted: Whether the prompt has the form that the model expects, so that `completion_to_prompt` is left
                out.
            **kwargs: Passed on to the wrapped LLM.

        Returns:
            The wrapped LLM's own response.

        Raises:
            Exception: The provider's own error when it fails for good, with a note of what was tried.
        """
        answer: CompletionResponse = await self._acall(
            Question(False, prompt=prompt, formatted=formatted, kwargs=kwargs)
        )
        return answer

    def _call(self, question: Question) -> Any:
        return self._answering(question).call()

    async def _acall(self, question: Question) -> Any:
        return await self._answering(question).acall()

    def _answering(self, question: Question) -> Answering:
        models = Models(self._models, self.__dict__.get("provider") or ())
        return Answering(self, models, self._learned, self._calls, question)

    # Objects

    # Their signatures differ from one version of LlamaIndex to the next, so they are passed on as they come.

    @untraced
    def structured_predict(self, *args: Any, **kwargs: Any) -> Any:
        """Answer a prompt with an object of a pydantic class, as the wrapped class does it; arguments are LlamaIndex's.

        Raises:
            Exception: The provider's own error when it fails for good.
        """
        return self._call(self._own_method("structured_predict", args, kwargs, objects=True))

    @untraced
    async def astructured_predict(self, *args: Any, **kwargs: Any) -> Any:
        """Answer a prompt with an object of a pydantic class, asynchronously; arguments are LlamaIndex's.

        Raises:
            Exception: The provider's own error when it fails for good.
        """
        return await self._acall(self._own_method("astructured_predict", args, kwargs, objects=True))

    @untraced
    def stream_structured_predict(self, *args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        return objects_of(self._stream(self._own_method("stream_structured_predict", args, kwargs, objects=True)))

    @untraced
    async def astream_structured_predict(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        question = self._own_method("astream_structured_predict", args, kwargs, objects=True)
        return objects_of_async(self._astream(question))

    def _own_method(
        self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, objects: bool = False
    ) -> OwnMethod:
        output_cls = (args[0] if args else kwargs.get("output_cls")) if objects else getattr(self, "output_cls", None)
        # What is set on a structured LLM does not concern the one inside.
        fields = {} if isinstance(self.llm, StructuredLLM) else {name: getattr(self, name) for name in _PROMPT_FIELDS}
        return own_method(method, args, kwargs, prompt_fields=fields, output_cls=output_cls, objects=objects)

    # Tools

    def chat_with_tools(self, *args: Any, **kwargs: Any) -> ChatResponse:
        if not self._has_own("chat_with_tools"):
            return super().chat_with_tools(*args, **kwargs)
        answer: ChatResponse = self._call(self._own_method("chat_with_tools", args, kwargs))
        return answer

    async def achat_with_tools(self, *args: Any, **kwargs: Any) -> ChatResponse:
        if not self._has_own("achat_with_tools"):
            return await super().achat_with_tools(*args, **kwargs)
        answer: ChatResponse = await self._acall(self._own_method("achat_with_tools", args, kwargs))
        return answer

    def stream_chat_with_tools(self, *args: Any, **kwargs: Any) -> ChatResponseGen:
        if not self._has_own("stream_chat_with_tools"):
            return super().stream_chat_with_tools(*args, **kwargs)
        return self._stream(self._own_method("stream_chat_with_tools", args, kwargs))

    async def astream_chat_with_tools(self, *args: Any, **kwargs: Any) -> ChatResponseAsyncGen:
        if not self._has_own("astream_chat_with_tools"):
            return await super().astream_chat_with_tools(*args, **kwargs)
        return self._astream(self._own_method("astream_chat_with_tools", args, kwargs))

    def predict_and_call(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the model which tool to call, and call it; arguments are LlamaIndex's."""
        return self._predicting("predict_and_call")(*args, **kwargs)

    async def apredict_and_call(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the model which tool to call, and call it, asynchronously; arguments are LlamaIndex's."""
        return await self._predicting("apredict_and_call")(*args, **kwargs)

    def _predicting(self, method: str) -> Callable[..., Any]:
        """The wrapped class's way to predict and call, whose requests go through this LLM. Tools run once."""
        inner = self.llm
        if not isinstance(inner, FunctionCallingLLM):
            if not self._has_own(method):
                return partial(getattr(LLM, method), self)
        elif not self._has_own(method):
            return partial(getattr(FunctionCallingLLM, method), self)
        names = (*_ENDPOINTS, *_TOOL_METHODS, "get_tool_calls_from_response")
        endpoints = {name: getattr(self, name) for name in names if hasattr(inner, name)}
        made: Callable[..., Any] = getattr(with_inner_llm(inner, endpoints), method)
        return made

    def _has_own(self, method: str) -> bool:
        """Whether the wrapped class has this method from nobody but itself or a class of the user's."""
        own = getattr(type(self.llm), method, None)
        return own not in (None, *(getattr(cls, method, None) for cls in (FunctionCallingLLM, LLM)))

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
        self._need("_prepare_chat_with_tools")
        return prepared(
            self.llm,
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
        validate = getattr(answered_by(response, self._models), "_validate_chat_with_tools_response", None)
        if validate is None:
            return response
        validated: ChatResponse = validate(
            response, tools, allow_parallel_tool_calls=allow_parallel_tool_calls, **kwargs
        )
        return validated

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls of a response, as the class that gave it reads them, without those that were cut.

        Args:
            response: a whole answer or any chunk of a stream.
            error_on_no_tool_call: whether a response without a whole call is an error.

        Returns:
            The calls whose arguments are a JSON object, or empty for tools without parameters. Others are left out,
            though LlamaIndex would repair them.
        """
        llm = answered_by(response, self._models)
        if not hasattr(llm, "get_tool_calls_from_response") and not error_on_no_tool_call:
            return []  # CodeActAgent asks every FunctionCallingLLM by class, whatever its metadata says
        calls: list[ToolSelection] = self._need("get_tool_calls_from_response", llm)(
            without_cut_calls(response), error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )
        return calls

    def _need(self, method: str, llm: LLM | None = None) -> Callable[..., Any]:
        """A method of the wrapped LLM, or of a fallback, that only those have that can call functions."""
        llm = self.llm if llm is None else llm
        found: Callable[..., Any] | None = getattr(llm, method, None)
        if found is None:
            raise ConfigurationError(
                f"{type(llm).__name__} cannot call functions, so ResilientLLM around it cannot either. "
                f"Wrap a function-calling LLM: ResilientLLM(OpenAI(...))."
            )
        return found


def _nothing_learned(llm: LLM) -> Learned:
    return Learned(circuit=circuit_of(llm))


def _learned_of(models: Sequence[LLM], known: Sequence[tuple[LLM, Learned]]) -> list[Learned]:
    return [next((has for llm, has in known if llm is each), None) or _nothing_learned(each) for each in models]


def _is_shared(inner: LLM, name: str) -> bool:
    """Whether a name that ours has not is looked for on the wrapped LLM: every public one, and private methods.

    Subclasses of an integration, and its users, call helpers like `_get_model_kwargs`. Private state is not shared:
    pydantic keeps it where ours has its own.
    """
    if not name.startswith("_"):
        return True
    return not name.startswith("__") and callable(getattr(type(inner), name, None))


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
