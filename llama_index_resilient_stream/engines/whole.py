"""Answers that do not stream: LlamaIndex's own objects, with the names of a streaming one added.

Whether an engine streams is not part of its type. So whatever `ResilientQueryEngine.query` returns can be read in one
way: `report`, `response_gen`, `print_response_stream()` and `cancel()` are there, where nothing is left to be stopped.
What is added can be copied and pickled as the answer itself can. A chat engine's answer gets `report` alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from llama_index.core.base.response.schema import Response
from llama_index.core.chat_engine.types import AgentChatResponse

from ..report import StreamReport

if TYPE_CHECKING:

    class WholeResponse(Response):
        """What `query` returns of an engine that does not stream."""

        report: StreamReport
        response_gen: Iterable[str]

        def print_response_stream(self) -> None: ...
        def cancel(self) -> None: ...

    class WholeAsyncResponse(Response):
        """What `aquery` returns of an engine that does not stream."""

        report: StreamReport
        response_gen: AsyncText

        def async_response_gen(self) -> AsyncText: ...
        async def print_response_stream(self) -> None: ...
        def cancel(self) -> None: ...
        async def acancel(self) -> None: ...

    class WholeChatResponse(AgentChatResponse):
        """What `chat` and `achat` return."""

        report: StreamReport


class AsyncText:
    """A text as an asynchronous stream of one piece, as often as it is asked for."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def __aiter__(self) -> AsyncIterator[str]:
        yield self._text


def with_report(answer: Any, report: StreamReport | None, *, asynchronous: bool) -> Any:
    """Add what belongs to the answer of a query engine, or of a chat engine. It may be anything, also a string."""
    if report is None:
        return answer
    names: dict[str, Any] = {"report": report}
    if isinstance(answer, Response):
        names |= _of_async(answer) if asynchronous else _of_sync(answer)
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        for name, value in names.items():
            setattr(answer, name, value)
    return answer


def _of_sync(answer: Response) -> dict[str, Any]:
    text = answer.response or ""
    return {"response_gen": (text,), "print_response_stream": partial(print, text, end="", flush=True), "cancel": _over}


def _of_async(answer: Response) -> dict[str, Any]:
    text = answer.response or ""
    return {
        "response_gen": AsyncText(text),
        "async_response_gen": partial(AsyncText, text),
        "print_response_stream": partial(_aprint, text),
        "cancel": _over,
        "acancel": _aover,
    }


def _over() -> None:
    """Nothing is left to be stopped."""


async def _aover() -> None:
    """Nothing is left to be stopped."""


async def _aprint(text: str) -> None:
    print(text, flush=True)
