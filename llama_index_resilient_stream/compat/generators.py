"""Searches a generator for the objects that it keeps on its stack, where no name leads to.

LlamaIndex wraps streams in generators in generators, and hands nothing out of them. Three users need what is inside:

* `transport/connection.py`: the SDK's stream, to close it, where neither an HTTP client of ours nor one that
  `transport/sdk_clients.py` looks at has handed its response over;
* `engines/`: our own stream behind a response that is given to `resilient()` only after the fact, and the generators
  behind an asynchronous one, which have to be closed in order.

This is the last resort: `gc.get_referents` and `sys._current_frames` are CPython's. It is done once per stream and
takes 0.1 ms, however many objects and threads the process has. The interpreter knows what a suspended generator refers
to; one that runs just now, in whatever thread, refers to nothing, but its frames can be found in that thread's stack.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import AsyncGeneratorType, CellType, CoroutineType, FrameType, GeneratorType
from typing import Any

_FARTHEST = 10  # generators around generators, as decorators make them
_THROUGH = (GeneratorType, AsyncGeneratorType, CoroutineType, CellType)
_STEPS = ("async_generator_asend", "async_generator_athrow", "coroutine_wrapper")  # types that have no name in Python
_FRAMES = ("gi_frame", "ag_frame", "cr_frame")


def behind(thing: object, wanted: Callable[[object], bool], through: tuple[type, ...] = ()) -> list[Any]:
    """Return the objects that are wanted and stand at the end of a chain of generators, the nearest first.

    Args:
        thing: where the chain begins: a generator, a coroutine, or a wanted object itself.
        wanted: tells whether an object is searched for. It must not raise.
        through: other classes whose objects may be links of such a chain, by what their attributes hold.

    Example:
        behind(llm.stream_chat(messages), lambda each: isinstance(each, openai.Stream))
    """
    found: list[Any] = []
    seen = {id(thing)}
    todo: deque[tuple[object, int]] = deque([(thing, 0)])
    while todo:
        each, depth = todo.popleft()
        if wanted(each):
            found.append(each)
        elif depth < _FARTHEST:
            for referent in _referents(each, through):
                if id(referent) not in seen:
                    seen.add(id(referent))
                    todo.append((referent, depth + 1))
    return found


def _referents(thing: object, through: tuple[type, ...]) -> Iterable[object]:
    if isinstance(thing, through):
        return vars(thing).values()
    if isinstance(thing, _THROUGH) or type(thing).__name__ in _STEPS:
        return (*gc.get_referents(thing), *_in_use(thing))
    return ()


def _in_use(thing: object) -> Iterable[object]:
    """Return what a generator that runs just now has in its own variables, and in those of what it has called."""
    if not getattr(thing, "gi_running", False) and not getattr(thing, "ag_running", False):
        return ()
    own = next((frame for name in _FRAMES if (frame := getattr(thing, name, None)) is not None), None)
    for top in sys._current_frames().values():
        called = list(_down_to(own, top))
        if called and called[-1] is own:
            return [value for frame in reversed(called) for value in list(frame.f_locals.values())]
    return ()


def _down_to(own: FrameType | None, top: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = top
    while frame is not None:
        yield frame
        if frame is own:
            return
        frame = frame.f_back
