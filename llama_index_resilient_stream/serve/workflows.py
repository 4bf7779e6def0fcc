"""Agents and workflows: what their handlers are, whichever LlamaIndex they come from, and how one is stopped.

They are known by what they have, not by their classes, which move from release to release.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator
from typing import Any

from ..recovery.finish_reasons import FinishMeaning, finish_reason_of
from .parts import EventPart, Part, ResetPart, TextPart, ThinkingPart, ToolCallPart, ToolResultPart, jsonable

_CANCEL = 5.0  # seconds that a run may take to end


def is_handler(thing: Any) -> bool:
    """Whether it is what `agent.run(...)` returns."""
    return hasattr(thing, "stream_events") and hasattr(thing, "cancel_run") and hasattr(thing, "__await__")


def handler_behind(source: Any) -> Any:
    """The handler whose `stream_events()` this is, so that leaving stops the run; None where it is something else."""
    frame = getattr(source, "ag_frame", None)
    if frame is None or frame.f_code.co_name != "stream_events":
        return None
    owner = frame.f_locals.get("self")
    return owner if is_handler(owner) else None


async def cancel_run(handler: Any) -> None:
    """Stop a run. Returns when it has ended, or does not end."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CANCEL):
            await handler.cancel_run()


def needs_a_loop(error: BaseException) -> bool:
    """Whether a function failed because it was called in a thread: runs begin on an event loop.

    What it had begun is closed: a coroutine that nobody awaits would complain.
    """
    if not isinstance(error, RuntimeError) or "no running event loop" not in str(error):
        return False
    trace = error.__traceback__
    while trace is not None:
        for value in list(trace.tb_frame.f_locals.values()):
            if inspect.iscoroutine(value):
                value.close()
        trace = trace.tb_next
    return True


def is_event(thing: Any) -> bool:
    """Whether it is an event of a workflow."""
    return any(kind.__name__ == "Event" and _is_theirs(kind) for kind in type(thing).__mro__)


async def events_of(handler: Any) -> AsyncGenerator[Any, None]:
    """The events of a run. The last one is its `StopEvent`.

    Raises:
        Exception: what the run failed with.
    """
    async with contextlib.aclosing(handler.stream_events()) as events:
        async for event in events:
            yield event
    await handler  # raises what the run failed with


class EventReader:
    """Makes parts of the events of one run. `result` is what the run returned, if it is not part of the answer yet."""

    def __init__(self) -> None:
        self.result: Any = None
        self.finish: FinishMeaning | None = None  # of the last call, where its provider said
        self._turn = ""  # what the model said in this turn
        self._said = False  # whether anything was said in the whole run

    def parts(self, event: Any) -> list[Part]:
        """What one event is."""
        kinds = [kind.__name__ for kind in type(event).__mro__]
        if "StopEvent" in kinds:
            return self._stop(event, own=kinds[0])
        if (read := _READ.get(kinds[0])) is not None and _is_theirs(type(event)):
            return read(self, event)
        if _is_theirs(type(event)):
            return []  # the machinery's
        if isinstance(delta := _field(event, "delta"), str):
            return self._text(delta)
        return [EventPart(kinds[0], jsonable(_data(event)))]

    def _stop(self, event: Any, own: str) -> list[Part]:
        if own == "StopEvent":
            self.result = _field(event, "result")
            if self._said and (self.result is None or _is_text(self.result)):
                self.result = None
            elif _is_text(self.result):
                text, self.result = str(self.result), None
                return self._text(text)
            return []
        return [] if _is_theirs(type(event)) else [EventPart(own, jsonable(_data(event)))]

    def _text(self, text: str) -> list[Part]:
        self._turn += text
        self._said = self._said or bool(text)
        return [TextPart(text)] if text else []

    def _stream(self, event: Any) -> list[Part]:
        """A piece of an agent's turn. Of one that is told differently, `response` is the new telling alone."""
        self._note_finish(event)
        parts: list[Part] = []
        if thought := _field(event, "thinking_delta"):
            parts.append(ThinkingPart(thought))
        delta, response = event.delta or "", _field(event, "response") or ""
        if self._turn and delta.startswith("\n\n") and response == delta[2:]:
            self._turn, delta = "", delta[2:]
            parts.append(ResetPart())
        return parts + self._text(delta)

    def _output(self, event: Any) -> list[Part]:
        """The end of an agent's turn. One that does not stream says all of it here."""
        self._note_finish(event)
        return [] if self._turn else self._text(str(event.response.content or ""))

    def _note_finish(self, event: Any) -> None:
        if (reason := finish_reason_of(_field(event, "raw"), None)) is not None:
            self.finish = reason.kind

    def _call(self, event: Any) -> list[Part]:
        return [ToolCallPart(event.tool_id, event.tool_name, jsonable(event.tool_kwargs))]

    def _result(self, event: Any) -> list[Part]:
        self._turn, self.finish = "", None
        output = event.tool_output
        failed = bool(getattr(output, "is_error", False))
        return [ToolResultPart(event.tool_id, event.tool_name, str(output.content), failed)]

    def _structured(self, event: Any) -> list[Part]:
        return [EventPart("structured_output", jsonable(event.output))]


_READ = {
    "AgentStream": EventReader._stream,
    "AgentOutput": EventReader._output,
    "ToolCall": EventReader._call,
    "ToolCallResult": EventReader._result,
    "AgentStreamStructuredOutput": EventReader._structured,
}


def retrieved_by(event: Any) -> Any:
    """The answer of a query engine that was a tool, with its `source_nodes`; None elsewhere."""
    return getattr(getattr(event, "tool_output", None), "raw_output", None)


def _is_theirs(kind: type) -> bool:
    return kind.__module__.split(".")[0] in ("llama_index", "workflows", "llama_index_instrumentation")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or type(value).__name__ == "AgentOutput"


def _field(event: Any, name: str) -> Any:
    """Of an event, whose fields may be in its dictionary of others."""
    try:
        return getattr(event, name, None)
    except (AttributeError, KeyError):
        return None


def _data(event: Any) -> Any:
    return event.model_dump() if hasattr(event, "model_dump") else dict(event)
