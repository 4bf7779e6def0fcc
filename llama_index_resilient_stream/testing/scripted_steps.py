"""What a stream of ScriptedLLM does, step by step. Neither sync nor async: its readers do the waiting."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llama_index.core.base.llms.types import MessageRole

from .chunk_builder import ChunkContent
from .payloads import Usage
from .script import Call, CallState, Cut, Fail, ScriptEntry, Stall
from .scripted_model import RequestKind, ScriptedModel


@dataclass(frozen=True)
class Wait:
    """A step that waits for so many seconds. None: until the reader leaves."""

    seconds: float | None


@dataclass(frozen=True)
class StreamOptions:
    """How ScriptedLLM streams. Its constructor describes each option."""

    delay: float = 0.0
    sends_finish_reason: bool = True
    usage: bool = False
    thinking: str = ""
    tool_calls: tuple[tuple[str, str], ...] = ()


class SharedState:
    """Everything of a ScriptedLLM that is not a field. Copies of the LLM share it, as clients share a server."""

    def __init__(self, model: ScriptedModel, script: Sequence[ScriptEntry], options: StreamOptions) -> None:
        self.model = model
        self.script = iter(script)
        self.calls: list[Call] = []
        self.released = threading.Event()
        self.options = options

    def __copy__(self) -> SharedState:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedState:
        return self

    def __reduce__(self) -> Any:
        # LlamaIndex 0.10 drops private attributes that cannot be pickled from every copy.
        return SharedState.healthy, (self.model.text,)

    @classmethod
    def healthy(cls, text: str) -> SharedState:
        """Make the state of an LLM that never breaks."""
        return cls(ScriptedModel(text), (), StreamOptions())


Step = ChunkContent | Wait


def steps_of(shared: SharedState, call: Call) -> Generator[Step, None, None]:
    """Yield the steps of one stream and keep `call.state`. Raises what the script says."""
    call.state = CallState.OPEN
    try:
        yield from _Steps(shared, call)
        call.state = CallState.BROKEN if isinstance(call.script_entry, Cut) else CallState.COMPLETE
    except Exception:
        call.state = CallState.BROKEN
        raise
    finally:
        if call.state is CallState.OPEN:
            call.state = CallState.CLOSED


class _Steps:
    """The steps of one stream."""

    def __init__(self, shared: SharedState, call: Call) -> None:
        self._model = shared.model
        self._options = shared.options
        self._call = call

    def __iter__(self) -> Iterator[Step]:
        entry = self._call.script_entry
        if isinstance(entry, Fail):
            raise entry.error
        parts = self._parts()
        before, rest = self._split(parts, None if entry is None else entry.after)
        if self._call.parsed.kind is RequestKind.ANSWER:
            yield from self._paced(ChunkContent(thinking=piece) for piece in self._tokens(self._options.thinking))
        yield from self._paced(before)
        if isinstance(entry, Cut):
            yield from self._cut(entry)
            return
        if isinstance(entry, Stall):
            yield Wait(entry.seconds)
        yield from self._paced(rest)
        yield from self._end("stop" if parts[0].tool is None else "tool_calls")

    def _cut(self, cut: Cut) -> Iterator[Step]:
        if cut.error is not None:
            raise cut.error
        if cut.finish_reason is not None and self._options.sends_finish_reason:
            yield ChunkContent(finish_reason=cut.finish_reason)

    def _end(self, finish_reason: str) -> Iterator[Step]:
        if self._options.sends_finish_reason:
            yield ChunkContent(finish_reason=finish_reason)
        if self._options.usage:
            yield ChunkContent(usage=self._usage())

    def _parts(self) -> list[ChunkContent]:
        """Return the answer as one piece, or one piece per tool call."""
        calls = self._options.tool_calls
        offered = self._call.kwargs.get("tools") and self._call.messages[-1].role != MessageRole.TOOL
        if offered and calls:
            return [ChunkContent(arguments, tool=index) for index, (_, arguments) in enumerate(calls)]
        return [ChunkContent(self._model.reply(self._call.parsed))]

    def _split(self, parts: list[ChunkContent], after: int | None) -> tuple[list[ChunkContent], list[ChunkContent]]:
        """Return the chunks in front of the character `after`, and those behind it."""
        before: list[ChunkContent] = []
        rest: list[ChunkContent] = []
        room = sum(len(part.text) for part in parts) if after is None else after
        for part in parts:
            if part.tool is not None:
                (before if room > 0 else rest).append(replace(part, text=""))  # the name comes first
            before += [replace(part, text=piece) for piece in self._tokens(part.text[:room])]
            rest += [replace(part, text=piece) for piece in self._tokens(part.text[room:])]
            room = max(0, room - len(part.text))
        return before, rest

    def _paced(self, chunks: Iterable[ChunkContent]) -> Iterator[Step]:
        for chunk in chunks:
            if self._options.delay:
                yield Wait(self._options.delay)
            yield chunk

    def _tokens(self, text: str) -> list[str]:
        return self._model.tokens(text)

    def _usage(self) -> Usage:
        prompt = self._call.prompt + "".join(str(message.content or "") for message in self._call.messages)
        return Usage(len(self._tokens(prompt)), len(self._tokens(self._call.sent)))
