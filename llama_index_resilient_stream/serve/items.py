"""What LlamaIndex answers with, as parts: pieces of streams, whole responses, events of agents."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.chat_engine.types import AgentChatResponse, StreamingAgentChatResponse

from ..errors import ConfigurationError
from ..llm.chunks import RESET_KEY, calls_in, thought_of
from ..recovery.attributes import read
from ..recovery.finish_reasons import FinishMeaning
from ..report import StreamReport, StreamStatus
from .parts import (
    NAMES,
    EndPart,
    Part,
    ResetPart,
    Source,
    SourcesPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    UsagePart,
    jsonable,
)
from .workflows import EventReader, is_event, is_handler, retrieved_by

_STATUS: dict[FinishMeaning | None, StreamStatus] = {
    FinishMeaning.COMPLETE: StreamStatus.COMPLETE,
    FinishMeaning.LENGTH: StreamStatus.LENGTH,
    FinishMeaning.FILTER: StreamStatus.FILTERED,
}

_TELLING = "\n\n"  # comes before a new telling, for readers of plain strings


class ItemReader:
    """Makes parts of the items of one stream: strings, an LLM's chunks, events of a workflow, parts themselves."""

    def __init__(self) -> None:
        self._last: ChatResponse | None = None  # with tool calls
        self._events = EventReader()

    def parts(self, item: Any) -> list[Part]:
        """What one item is.

        Raises:
            ConfigurationError: for what nobody can read.
        """
        if isinstance(item, str):
            return [TextPart(item)] if item else []
        if isinstance(item, ChatResponse | CompletionResponse):
            return self._chunk(item)
        if type(item) in NAMES:
            return [_own(item)]
        if is_event(item):
            return [*self._events.parts(item), *sources_of(retrieved_by(item))]
        if isinstance(delta := getattr(item, "delta", None), str):
            return [TextPart(delta)] if delta else []
        raise ConfigurationError(
            f"A {type(item).__name__} is no piece of an answer. Yield text, a response, or EventPart('title', data)."
        )

    def _chunk(self, chunk: ChatResponse | CompletionResponse) -> list[Part]:
        parts: list[Part] = []
        if thought := thought_of(chunk):
            parts.append(ThinkingPart(thought))
        text = chunk.delta or ""
        if chunk.additional_kwargs.get(RESET_KEY):
            parts.append(ResetPart())
            text = text.removeprefix(_TELLING)
        if text:
            parts.append(TextPart(text))
        if isinstance(chunk, ChatResponse):
            self._last = chunk
        return parts

    def rest(self) -> list[Part]:
        """What is known at the end alone: the tools that an LLM's own stream calls."""
        if self._last is None:
            return []
        calls = calls_in(self._last.message)
        return [
            ToolCallPart(_call_id(self._last, number), name, jsonable(arguments))
            for number, (name, written) in enumerate(calls)
            if (arguments := _parsed(written)) is not None
        ]

    @property
    def status(self) -> StreamStatus:
        """How a run ended that is not watched, as far as its provider said."""
        return _STATUS.get(self._events.finish, StreamStatus.UNKNOWN)

    @property
    def result(self) -> Any:
        """What a workflow returned that is to be read as well; None else."""
        return self._events.result


def _own(part: Part) -> Part:
    if isinstance(part, EndPart):
        raise ConfigurationError("The end of an answer is told by itself: leave EndPart away.")
    return part


def _parsed(arguments: str) -> Any:
    """None for what is no JSON: a call that was cut."""
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return None


def _call_id(response: ChatResponse, number: int) -> str:
    calls = list(response.message.additional_kwargs.get("tool_calls") or ())
    calls += [b for b in getattr(response.message, "blocks", ()) if type(b).__name__ == "ToolCallBlock"]
    found = read(calls[number], "id") or read(calls[number], "tool_call_id") if number < len(calls) else None
    return str(found or f"call-{number}")


def is_answer(item: Any) -> bool:
    """Whether an item of a generator is an answer of its own, to be read in its place."""
    if isinstance(item, str | ChatResponse | CompletionResponse) or type(item) in NAMES or is_event(item):
        return False
    kinds = StreamingResponse | AsyncStreamingResponse | StreamingAgentChatResponse | AgentChatResponse
    return (
        isinstance(item, kinds | Iterator)
        or hasattr(item, "__aiter__")
        or is_handler(item)
        or hasattr(item, "source_nodes")
    )


def sources_of(response: Any) -> list[Part]:
    """The sources of a response, if it has any."""
    nodes = getattr(response, "source_nodes", None)
    if not isinstance(nodes, Iterable):
        return []
    found = tuple(_source(node) for node in nodes if hasattr(node, "node"))
    return [SourcesPart(found)] if found else []


def _source(scored: Any) -> Source:
    node = scored.node
    score = None if scored.score is None or not math.isfinite(scored.score) else float(scored.score)
    return Source(node.node_id, node.get_content(), score, jsonable(dict(node.metadata or {})))


def usage_of(reports: Iterable[StreamReport]) -> list[Part]:
    """The tokens of all calls, if any provider counted them."""
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    known = [report for report in reports if report.usage]
    if not known:
        return []
    counts = {name: sum(report.usage.get(name, 0) for report in known) for name in names}
    return [UsagePart(**counts, estimated=any(report.usage_estimated for report in known))]
