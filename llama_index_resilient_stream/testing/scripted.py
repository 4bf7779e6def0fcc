"""An LLM in this process that streams and fails on cue.

    llm = ScriptedLLM("The answer is 42. And more.", script=[Cut(after=10,
    error=ConnectionResetError("reset"))]) "".join(chunk.delta for chunk in
    llm.stream_chat([ChatMessage(role="user", content="?")]))  # raises llm.calls[0].sent       # "The answer"

Each call takes the next entry of `script`; None, and every call after the last entry, is answered in good
health. A request to go on is recognised and answered in a habit, as by FaultServer.

Endpoints are decorated like those of LlamaIndex's own LLMs, so its events and callbacks are real.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
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

from .chunk_builder import Assembly, Say
from .payloads import Payloads, Usage
from .script import Call, Cue, Cut, Fail, Stall
from .scripted_model import Habit, ScriptedModel, Tokenise

T = TypeVar("T", ChatResponse, CompletionResponse)


@dataclass(frozen=True)
class _Wait:
    """Silence for so many seconds; None is for ever."""

    seconds: float | None


@dataclass(frozen=True)
class _Options:
    """How it streams; see ScriptedLLM."""

    delay: float = 0.0
    sends_finish_reason: bool = True
    usage: bool = False
    thinking: str = ""
    tool_calls: tuple[tuple[str, str], ...] = ()


class _Script:
    """Everything that is not a field. Copies of the LLM share it, as clients share a server."""

    def __init__(self, model: ScriptedModel, cues: Sequence[Cue], options: _Options) -> None:
        self.model = model
        self.cues = iter(cues)
        self.calls: list[Call] = []
        self.released = threading.Event()
        self.options = options

    def __copy__(self) -> _Script:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Script:
        return self

    def __reduce__(self) -> Any:
        # LlamaIndex 0.10 drops private attributes that cannot be pickled from every copy
        return _Script.saying, (self.model.text,)

    @classmethod
    def saying(cls, text: str) -> _Script:
        """A script that never breaks."""
        return cls(ScriptedModel(text), (), _Options())


class ScriptedLLM(FunctionCallingLLM):
    """Says `text`, and breaks as `script` says: one Cut, Stall, Fail or None per call.

    `habit` is how it goes on when it is asked to (a name from HABITS, a function, or a sequence, one per
    continuation). `token` is characters per chunk, or a function that splits a text. `delay` is in seconds
    per chunk. `chat` is what `metadata.is_chat_model` says. With `sends_finish_reason` the chunks' `raw` is a dict like
    OpenAI's, with finish reasons; without, it is None and the end is never told. `usage` adds a last chunk
    with token counts. `thinking` is reasoning, streamed before every first answer. `tool_calls`, pairs of
    (name, JSON arguments), answer calls that offer tools and do not end with a tool's result.
    """

    model: str = "scripted"
    temperature: float = 0.0
    is_chat_model: bool = True

    _script: Any = PrivateAttr()

    def __init__(
        self,
        text: str,
        script: Sequence[Cue] = (),
        *,
        habit: Habit | Sequence[Habit] = "anchor",
        token: Tokenise = 4,
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
        options = _Options(delay, sends_finish_reason, usage, thinking, tuple(tool_calls))
        self._script = _Script(ScriptedModel(text, habit, token), script, options)

    # -- what it knows

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex serialises."""
        return "ScriptedLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks before it prompts."""
        return LLMMetadata(
            model_name=self.model,
            is_chat_model=self.is_chat_model,
            is_function_calling_model=bool(self._script.options.tool_calls),
        )

    @property
    def sends_finish_reason(self) -> bool:
        """Read by ResilientLLM, which cannot know every class."""
        return bool(self._script.options.sends_finish_reason)

    @property
    def text(self) -> str:
        """The text it knows."""
        return str(self._script.model.text)

    @property
    def calls(self) -> list[Call]:
        """Every call so far, also those of its copies."""
        calls: list[Call] = self._script.calls
        return calls

    @property
    def open_streams(self) -> int:
        """Streams that were begun and neither ended nor were closed."""
        return sum(call.state == "open" for call in self.calls)

    @property
    def closed(self) -> int:
        """Streams that the reader closed before their end."""
        return sum(call.state == "closed" for call in self.calls)

    def release(self) -> None:
        """End every sync stall, now and from now on."""
        self._script.released.set()

    # -- LlamaIndex's endpoints

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The whole answer."""
        call, assembly = self._hear("chat", messages, kwargs)
        for _ in self._chunks(call, assembly.chat):
            pass
        return assembly.whole_chat()

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The whole answer."""
        call, assembly = self._hear("achat", messages, kwargs)
        async for _ in self._achunks(call, assembly.chat):
            pass
        return assembly.whole_chat()

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer, chunk by chunk."""
        call, assembly = self._hear("stream_chat", messages, kwargs)
        return self._chunks(call, assembly.chat)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """The answer, chunk by chunk."""
        call, assembly = self._hear("astream_chat", messages, kwargs)
        return self._achunks(call, assembly.chat)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The whole answer to a prompt."""
        call, assembly = self._hear("complete", prompt, kwargs)
        for _ in self._chunks(call, assembly.completion):
            pass
        return assembly.whole_completion()

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The whole answer to a prompt."""
        call, assembly = self._hear("acomplete", prompt, kwargs)
        async for _ in self._achunks(call, assembly.completion):
            pass
        return assembly.whole_completion()

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The answer to a prompt, chunk by chunk."""
        call, assembly = self._hear("stream_complete", prompt, kwargs)
        return self._chunks(call, assembly.completion)

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """The answer to a prompt, chunk by chunk."""
        call, assembly = self._hear("astream_complete", prompt, kwargs)
        return self._achunks(call, assembly.completion)

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
        """The tool calls of a response, as lenient with cut arguments as LlamaIndex's OpenAI class is."""
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

    def _hear(self, endpoint: str, asked: str | Sequence[ChatMessage], kwargs: dict[str, Any]) -> tuple[Call, Assembly]:
        script, prompt = self._script, ""
        messages: tuple[ChatMessage, ...] = ()
        if isinstance(asked, str):
            prompt, heard = asked, script.model.hear_prompt(asked)
        else:
            messages = tuple(asked)
            heard = script.model.hear_turns([(m.role.value, str(m.content or "")) for m in messages])
        call = Call(endpoint, messages, prompt, kwargs, next(script.cues, None), heard)
        script.calls.append(call)
        if isinstance(call.cue, Fail) and call.cue.at_call:
            call.state = "broken"
            raise call.cue.error
        return call, self._assembly(call)

    def _steps(self, call: Call) -> Generator[Say | _Wait, None, None]:
        """What the stream does, step by step; raises what it is to raise. Keeps the state of the call."""
        call.state = "open"
        try:
            yield from self._scripted_steps(call)
            call.state = "broken" if isinstance(call.cue, Cut) else "whole"
        except Exception:
            call.state = "broken"
            raise
        finally:
            if call.state == "open":
                call.state = "closed"

    def _scripted_steps(self, call: Call) -> Iterator[Say | _Wait]:
        cue, options = call.cue, self._script.options
        if isinstance(cue, Fail):
            raise cue.error
        parts = self._parts(call)
        before, rest = self._split(parts, None if cue is None else cue.after)
        if call.heard.kind == "answer":
            yield from self._paced(Say(thinking=piece) for piece in self._tokens(options.thinking))
        yield from self._paced(before)
        if isinstance(cue, Cut):
            if cue.error is not None:
                raise cue.error
            if cue.finish is not None and options.sends_finish_reason:
                yield Say(finish=cue.finish)
            return
        if isinstance(cue, Stall):
            yield _Wait(cue.seconds)
        yield from self._paced(rest)
        if options.sends_finish_reason:
            yield Say(finish="stop" if parts[0].tool is None else "tool_calls")
        if options.usage:
            yield Say(usage=self._usage(call))

    def _parts(self, call: Call) -> list[Say]:
        """The answer in one piece, or one piece per tool call."""
        offered = call.kwargs.get("tools") and call.messages[-1].role != MessageRole.TOOL
        if offered and self._script.options.tool_calls:
            return [Say(arguments, tool=index) for index, (_, arguments) in enumerate(self._script.options.tool_calls)]
        return [Say(self._script.model.reply(call.heard))]

    def _split(self, parts: list[Say], after: int | None) -> tuple[list[Say], list[Say]]:
        """The chunks in front of the character `after`, and those behind it."""
        before: list[Say] = []
        rest: list[Say] = []
        room = sum(len(part.text) for part in parts) if after is None else after
        for part in parts:
            if part.tool is not None:
                (before if room > 0 else rest).append(replace(part, text=""))  # the name comes first
            before += [replace(part, text=piece) for piece in self._tokens(part.text[:room])]
            rest += [replace(part, text=piece) for piece in self._tokens(part.text[room:])]
            room = max(0, room - len(part.text))
        return before, rest

    def _paced(self, says: Iterable[Say]) -> Iterator[Say | _Wait]:
        for say in says:
            if self._script.options.delay:
                yield _Wait(self._script.options.delay)
            yield say

    def _tokens(self, text: str) -> list[str]:
        tokens: list[str] = self._script.model.tokens(text)
        return tokens

    def _usage(self, call: Call) -> Usage:
        prompt = call.prompt + "".join(str(message.content or "") for message in call.messages)
        return Usage(len(self._tokens(prompt)), len(self._tokens(call.sent)))

    # -- the two drivers

    def _chunks(self, call: Call, build: Callable[[Say], T]) -> Generator[T, None, None]:
        with closing(self._steps(call)) as steps:
            for step in steps:
                if isinstance(step, _Wait):
                    self._script.released.wait(step.seconds)
                else:
                    yield build(step)

    async def _achunks(self, call: Call, build: Callable[[Say], T]) -> AsyncGenerator[T, None]:
        with closing(self._steps(call)) as steps:
            for step in steps:
                if isinstance(step, _Wait):
                    await _sleep(step.seconds)
                else:
                    yield build(step)

    def _assembly(self, call: Call) -> Assembly:
        names = [name for name, _ in self._script.options.tool_calls]
        payloads = Payloads(f"scripted-{len(self.calls)}", self.model, chat="chat" in call.endpoint)
        return Assembly(call, payloads, names, self._script.options.sends_finish_reason)


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
