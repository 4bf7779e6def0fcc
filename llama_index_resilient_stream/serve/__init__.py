"""Streaming answers over HTTP: every stream says how it ended, is never silent for long, and stops when nobody reads.

    from llama_index_resilient_stream.serve import SSEResponse

    @app.get("/ask")
    async def ask(question: str):
        return SSEResponse(lambda: query_engine.query(question))

serve.fastapi     for FastAPI and Starlette: `SSEResponse`, `TextResponse`
serve.flask       for Flask and other WSGI frameworks
serve.door        for every other framework: `open_answer`
serve.parts       what an answer consists of, and events of one's own
serve.protocols   how it is sent: our events, the AI SDK's, OpenAI's, text, JSON lines
serve.ag_ui       for LlamaIndex's own AG-UI router: `stop_when_left`
serve.generations answers that outlive their connections: `SSEResponse(..., resumable=True)`

What is imported from here is loaded when it is asked for: each framework is needed by its own names alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ag_ui import stop_when_left
    from .door import AnswerStream, open_answer
    from .fastapi import SSEResponse, TextResponse
    from .flask import sse_response, text_response
    from .generations import Generation, Generations
    from .parts import (
        EndPart,
        EventPart,
        JointPart,
        Part,
        RecoveryPart,
        ResetPart,
        Source,
        SourcesPart,
        TextPart,
        ThinkingPart,
        ToolCallPart,
        ToolResultPart,
        UsagePart,
    )
    from .protocols import AISDK, Events, JSONLines, OpenAIChat, PlainText
    from .redis import RedisStore
    from .store import MemoryStore, StoreFullError, StoreUnreachableError, Ticket

_HOMES = {
    "ag_ui": ("stop_when_left",),
    "door": ("AnswerStream", "open_answer"),
    "fastapi": ("SSEResponse", "TextResponse"),
    "flask": ("sse_response", "text_response"),
    "generations": ("Generation", "Generations"),
    "parts": (
        "EndPart",
        "EventPart",
        "JointPart",
        "Part",
        "RecoveryPart",
        "ResetPart",
        "Source",
        "SourcesPart",
        "TextPart",
        "ThinkingPart",
        "ToolCallPart",
        "ToolResultPart",
        "UsagePart",
    ),
    "protocols": ("AISDK", "Events", "JSONLines", "OpenAIChat", "PlainText"),
    "redis": ("RedisStore",),
    "store": ("MemoryStore", "StoreFullError", "StoreUnreachableError", "Ticket"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AISDK",
    "AnswerStream",
    "EndPart",
    "EventPart",
    "Events",
    "Generation",
    "Generations",
    "JSONLines",
    "JointPart",
    "MemoryStore",
    "OpenAIChat",
    "Part",
    "PlainText",
    "RecoveryPart",
    "RedisStore",
    "ResetPart",
    "SSEResponse",
    "Source",
    "SourcesPart",
    "StoreFullError",
    "StoreUnreachableError",
    "TextPart",
    "TextResponse",
    "ThinkingPart",
    "Ticket",
    "ToolCallPart",
    "ToolResultPart",
    "UsagePart",
    "open_answer",
    "sse_response",
    "stop_when_left",
    "text_response",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(__import__(f"{__name__}.{_HOME[name]}", fromlist=[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
