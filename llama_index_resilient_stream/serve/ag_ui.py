"""For routers that do not stop a workflow when its reader leaves, such as LlamaIndex's own for AG-UI."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from .workflows import cancel_run

__all__ = ["stop_when_left"]

_stopping: set[asyncio.Task[None]] = set()  # the loop holds its tasks weakly


def stop_when_left(workflow_factory: Callable[[], Any]) -> Callable[[], Any]:
    """Make the runs of a router's workflows stop when nobody reads their events any more.

        from llama_index.protocols.ag_ui.router import get_ag_ui_workflow_router, get_default_workflow_factory

        factory = stop_when_left(get_default_workflow_factory(llm=llm))
        app.include_router(get_ag_ui_workflow_router(workflow_factory=factory))

    Args:
        workflow_factory: returns a workflow, or an awaitable of one.

    Returns:
        A factory of the same workflows, whose runs are stopped within a token when the generator of their events is
        closed, cancelled or dropped before its end.
    """

    async def factory() -> Any:
        made = workflow_factory()
        return _Workflow(await made if inspect.isawaitable(made) else made)

    return factory


class _Delegate:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Workflow(_Delegate):
    def run(self, *args: Any, **kwargs: Any) -> Any:
        return _Handler(self._inner.run(*args, **kwargs))


class _Handler(_Delegate):
    def __await__(self) -> Generator[Any, None, Any]:
        result: Generator[Any, None, Any] = self._inner.__await__()
        return result

    async def stream_events(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        has_ended = False
        try:
            async for event in self._inner.stream_events(*args, **kwargs):
                yield event
            has_ended = True
        finally:
            if not has_ended:  # in a task of its own: this one may be cancelled
                stopping = asyncio.ensure_future(cancel_run(self._inner))
                _stopping.add(stopping)
                stopping.add_done_callback(_stopping.discard)
