"""An LLM in this process that streams one text, and breaks its streams as a script says.

    llm = ScriptedLLM("The answer is 42. And more.", script=[Cut(after=10, error=ConnectionResetError("reset"))])
    for chunk in llm.stream_complete("?"):  # raises ConnectionResetError after "The answer"
        ...
    assert llm.calls[0].sent == "The answer"

Each call takes the next entry of `script`; None, and every call after the last entry, is answered in good health. A
request to continue an answer is recognised and answered in a continuation style, as by FaultServer.

The endpoints are decorated like those of LlamaIndex's own LLMs, so that its events and callbacks are the real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import closing
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.utils import parse_partial_json

from .chunk_builder import ChunkBuilder, ChunkContent
from .payloads import Payloads
from .script import Call, CallState, Fail, ScriptEntry, check_script
from .scripted_model import ScriptedModel, StyleOrName, Tokenizer
from .scripted_steps import SharedState, StreamOptions, Wait, steps_of

T = TypeVar("T", ChatResponse, CompletionResponse)


class ScriptedLLM(FunctionCallingLLM):
    """Streams one text, and breaks its streams as a script says. Needs no network.

        llm = ScriptedLLM("The answer is 42.", script=[Cut(after=10), Fail(TimeoutError()), None])
        stream = ResilientLLM(llm).stream_complete("?")
        assert "".join(chunk.delta for chunk in stream) == llm.text

    Args:
        text: The text that it knows.
        script: One Cut, Stall, Fail or None (good health) per call. All calls after the last entry are healthy.
        continuation_style: How it continues when it is asked to: a name from CONTINUATION_STYLES, a function
            (text, partial_text, anchor) -> continuation, or a sequence of them, one per continuation.
        token: Characters per chunk, or a function that splits a text.
        delay: Seconds before each chunk.
        chat: The value of `metadata.is_chat_model`.
        sends_finish_reason: Whether `raw` of the chunks is a dict in OpenAI's form, with finish reasons. Otherwise
            `raw` is None, and nothing says that an answer is complete.
        usage: Whether a last chunk has token counts.
        thinking: Reasoning that is streamed before every first answer.
        tool_calls: Pairs of a name and JSON arguments, which answer calls that offer tools and do not end with a
            tool's result.
        model: The name of the model.

    Raises:
        ConfigurationError: There is no continuation style of that name.
    """

    model: str = "scripted"
    temperature: float = 0.0
    is_chat_model: bool = True

    _shared: Any = PrivateAttr()

    def __init__(
        self,
        text: str,
        script: Sequence[ScriptEntry] = (),
        *,
        continuation_style: StyleOrName | Sequence[StyleOrName] = "anchor",
        token: Tokenizer = 4,
        delay: float = 0.0,
        chat: bool = True,
        sends_finish_reason: bool = True,
        usage: bool = False,
        thinking: str = "",
        tool_calls: Sequence[tuple[str, str]] = (),
        model: str = "scripted",
        **kwargs: Any,
    ) -> None:
        super().__init__(model=model, is_chat_model=chat, **kwargs)
        options = StreamOptions(delay, sends_finish_reason, usage, thinking, tuple(tool_calls))
        check_script(script)
        self._shared = SharedState(ScriptedModel(text, continuation_style, token), script, options)

    # -- what it is, and what was asked of it

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex serialises."""
        return "ScriptedLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """The name and the kind of the model, for LlamaIndex."""
        return LLMMetadata(
            model_name=self.model,
            is_chat_model=self.is_chat_model,
            is_function_calling_model=bool(self._shared.options.tool_calls),
        )

    @property
    def sends_finish_reason(self) -> bool:
        """Whether chunks carry finish reasons. ResilientLLM reads it."""
        return bool(self._shared.options.sends_finish_reason)

    @property
    def text(self) -> str:
        """The text that it knows."""
        return str(self._shared.model.text)

    @property
    def calls(self) -> list[Call]:
        """Every call so far, also those of its copies."""
        calls: list[Call] = self._shared.calls
        return calls

    @property
    def open_streams(self) -> int:
        """How many streams were begun, and have neither ended nor been closed."""
        return sum(call.state is CallState.OPEN for call in self.calls)

    @property
    def closed_streams(self) -> int:
        """How many streams the reader closed before their end."""
        return sum(call.state is CallState.CLOSED for call in self.calls)

    def release(self) -> None:
        """End every stall of a sync stream, now and from now on."""
        self._shared.released.set()

    # -- LlamaIndex's endpoints

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the whole answer."""
        call, builder = self._begin("chat", messages, kwargs)
        for _ in self._chunks(call, builder.chat):
            pass
        return builder.whole_chat()

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the whole answer."""
        call, builder = self._begin("achat", messages, kwargs)
        async for _ in self._achunks(call, builder.chat):
            pass
        return builder.whole_chat()

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Stream the answer."""
        call, builder = self._begin("stream_chat", messages, kwargs)
        return self._chunks(call, builder.chat)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Stream the answer."""
        call, builder = self._begin("astream_chat", messages, kwargs)
        return self._achunks(call, builder.chat)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Return the whole answer to a prompt."""
        call, builder = self._begin("complete", prompt, kwargs)
        for _ in self._chunks(call, builder.completion):
            pass
        return builder.whole_completion()

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Return the whole answer to a prompt."""
        call, builder = self._begin("acomplete", prompt, kwargs)
        async for _ in self._achunks(call, builder.completion):
            pass
        return builder.whole_completion()

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Stream the answer to a prompt."""
        call, builder = self._begin("stream_complete", prompt, kwargs)
        return self._chunks(call, builder.completion)

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Stream the answer to a prompt."""
        call, builder = self._begin("astream_complete", prompt, kwargs)
        return self._achunks(call, builder.completion)

    # -- tools

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[Any],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        if user_msg is not None:
            messages.append(user_msg)
        return {"messages": messages, "tools": [tool.metadata.to_openai_tool() for tool in tools], **kwargs}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the tool calls of a response, as lenient with cut arguments as LlamaIndex's OpenAI class is."""
        calls = response.message.additional_kwargs.get("tool_calls") or []
        if not calls and error_on_no_tool_call:
            raise ValueError("Expected at least one tool call, but got 0 tool calls.")
        return [
            ToolSelection(
                tool_id=call["id"],
                tool_name=call["function"]["name"],
                tool_kwargs=_arguments(call["function"]["arguments"]),
            )
            for call in calls
        ]

    # -- calls

    def _begin(
        self, endpoint: str, asked: str | Sequence[ChatMessage], kwargs: dict[str, Any]
    ) -> tuple[Call, ChunkBuilder]:
        shared, prompt = self._shared, ""
        messages: tuple[ChatMessage, ...] = ()
        if isinstance(asked, str):
            prompt, parsed = asked, shared.model.parse_prompt(asked)
        else:
            messages = tuple(asked)
            parsed = shared.model.parse_turns([(m.role.value, str(m.content or "")) for m in messages])
        call = Call(endpoint, messages, prompt, kwargs, next(shared.script, None), parsed)
        shared.calls.append(call)
        if isinstance(call.script_entry, Fail) and call.script_entry.at_call:
            call.state = CallState.BROKEN
            raise call.script_entry.error
        return call, self._builder(call)

    # -- the two drivers

    def _chunks(self, call: Call, build: Callable[[ChunkContent], T]) -> Generator[T, None, None]:
        with closing(steps_of(self._shared, call)) as steps:
            for step in steps:
                if isinstance(step, Wait):
                    self._shared.released.wait(step.seconds)
                else:
                    yield build(step)

    async def _achunks(self, call: Call, build: Callable[[ChunkContent], T]) -> AsyncGenerator[T, None]:
        with closing(steps_of(self._shared, call)) as steps:
            for step in steps:
                if isinstance(step, Wait):
                    await _sleep(step.seconds)
                else:
                    yield build(step)

    def _builder(self, call: Call) -> ChunkBuilder:
        names = [name for name, _ in self._shared.options.tool_calls]
        payloads = Payloads(f"scripted-{len(self.calls)}", self.model, chat="chat" in call.endpoint)
        return ChunkBuilder(call, payloads, names, self._shared.options.sends_finish_reason)


def _arguments(text: str) -> dict[str, Any]:
    try:
        return dict(parse_partial_json(text))
    except ValueError:
        return {}


async def _sleep(seconds: float | None) -> None:
    if seconds is None:
        await asyncio.get_running_loop().create_future()  # ends by cancellation only
    else:
        await asyncio.sleep(seconds)
