"""`show(response)` and `ashow(response)`: an answer as it comes, for notebooks and terminals.

    show(engine.query("What happened to the cable?"))           # a notebook: Markdown that grows; else: printed
    await ashow(await engine.aquery("What happened to the cable?"))

In a notebook a line below the text says how it goes, and a small mark stands where the answer was cut and joined.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing, closing
from typing import Any, Protocol

from ..errors import StreamInterruptedError
from ..recovery.seam.markdown import open_fence
from ..report import StreamReport
from .tokens import atokens, tokens

MARK = "‸"  # U+2038 CARET, the proofreaders' sign for what was put in


class Display(Protocol):
    """Where an answer is shown."""

    def update(self, view: View) -> None:
        """Show the answer as it is now."""

    def finish(self, view: View) -> None:
        """Show the answer as it is at its end."""


class View:
    """An answer as far as it came, and a line about it.

    Args:
        response: What is read.
        clock: In seconds.
    """

    def __init__(self, response: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self.text = ""
        self.tokens = 0
        self.error: StreamInterruptedError | None = None
        self._response = response
        self._clock = clock
        self._began = clock()

    def add(self, token: str) -> None:
        """Take the next token."""
        self.text += token
        self.tokens += 1

    @property
    def report(self) -> StreamReport | None:
        """How the answer came about; None where the response has none."""
        found = getattr(self._response, "report", None)
        return found if isinstance(found, StreamReport) else None

    def line(self, *, over: bool) -> str:
        """Return the line below the text."""
        report = self.report
        status = str(report.status) if report is not None else "over" if over else "streaming"
        seconds = [f"{self._clock() - self._began:.1f} s"] if over else []
        return " | ".join([status, self._counted(), *self._faults(report, over=over), *seconds])

    def _counted(self) -> str:
        seconds = self._clock() - self._began
        rate = f", {self.tokens / seconds:,.0f} a second" if seconds >= 1 else ""
        return f"{self.tokens:,} token{'' if self.tokens == 1 else 's'}{rate}"

    def _faults(self, report: StreamReport | None, *, over: bool) -> list[str]:
        count = len(report.faults) if report is not None else 0
        if report is None or not count:
            return []
        word = "cut" if not over else "healed" if report.recovered else "tried again"
        return [f"{word}: {count} fault{'' if count == 1 else 's'}"]

    def markdown(self, *, over: bool) -> str:
        """Return the text, with a mark at each joint, and the line below it."""
        text = self.text
        for joint in reversed(self.report.joints if self.report is not None else []):
            if joint.position <= len(text) and not _is_code(text[: joint.position]):
                text = text[: joint.position] + MARK + text[joint.position :]
        if not over and (fence := open_fence(text + "\n")) is not None:
            text += f"\n{fence[1]}"  # so that the line below is not code
        note = f"\n\n**The answer is not complete:** {self.error}" if self.error is not None else ""
        return f"{text}{note}\n\n<small>{self.line(over=over)}</small>"


def _is_code(before: str) -> bool:
    """Whether a mark there would stand in code, and be read as a part of it."""
    last_line = before[before.rfind("\n") + 1 :]
    return open_fence(before + "\n") is not None or last_line.count("`") % 2 == 1


class NotebookDisplay:
    """Markdown that is replaced as it grows, ten times a second at the most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shown_at = clock()
        self._handle = _ipython_display().display(self._markdown(""), display_id=True)

    @staticmethod
    def _markdown(text: str) -> Any:
        return _ipython_display().Markdown(text)

    def update(self, view: View) -> None:
        """Show the answer as it is now, unless that was done just before."""
        if self._clock() - self._shown_at >= 0.1:
            self._shown_at = self._clock()
            self._handle.update(self._markdown(view.markdown(over=False)))

    def finish(self, view: View) -> None:
        """Show the answer as it is at its end."""
        self._handle.update(self._markdown(view.markdown(over=True)))


def _ipython_display() -> Any:  # parts of it are typed in some releases
    import IPython.display

    return IPython.display


class PrintDisplay:
    """What comes is printed, and the line about it at the end."""

    def __init__(self) -> None:
        self._printed = 0

    def update(self, view: View) -> None:
        """Print what is new."""
        print(view.text[self._printed :], end="", flush=True)
        self._printed = len(view.text)

    def finish(self, view: View) -> None:
        """Print the line about it."""
        self.update(view)
        note = f"\nThe answer is not complete: {view.error}" if view.error is not None else ""
        print(f"{note}\n\n[{view.line(over=True)}]")


def _display() -> Display:
    """A notebook's, where this runs in one."""
    try:
        from IPython.core.getipython import get_ipython
    except ModuleNotFoundError:
        return PrintDisplay()
    shell = get_ipython()  # type: ignore[no-untyped-call, unused-ignore]
    return NotebookDisplay() if shell is not None and hasattr(shell, "kernel") else PrintDisplay()


def display_in_notebook(response: Any) -> None:
    """Show a synchronous response of ours that is the last line of a cell; one that was read, as it is."""
    if response.given or response.error is not None:
        display = _ipython_display()
        display.display(display.Markdown(response._repr_markdown_()))
    else:
        show(response)


def show(response: Any) -> None:
    """Show an answer as it comes: in a notebook as Markdown that grows, elsewhere printed.

    An answer that is given up is no error here: what came is shown, and why there is no more.

    Args:
        response: What `tokens()` can read: a response of an engine, an LLM's stream. One of `resilient()` or
            `ResilientLLM` has a report, which the line below the text is made of.

    Raises:
        ConfigurationError: It cannot be read; the message has the line that fixes it.

    Example:
        >>> show(engine.query("What happened to the cable?"))
    """
    source = tokens(response)
    view, display = View(response), _display()
    with closing(source):
        try:
            for token in source:
                view.add(token)
                display.update(view)
        except StreamInterruptedError as error:
            view.error = error
    display.finish(view)


async def ashow(response: Any) -> None:
    """Show an answer as it comes, asynchronously: in a notebook as Markdown that grows, elsewhere printed.

    An answer that is given up is no error here: what came is shown, and why there is no more.

    Args:
        response: What `atokens()` can read: an awaited response of an engine, or an LLM's stream.

    Raises:
        ConfigurationError: It cannot be read; the message has the line that fixes it.

    Example:
        >>> await ashow(await engine.aquery("What happened to the cable?"))
    """
    source = atokens(response)
    view, display = View(response), _display()
    async with aclosing(source):
        try:
            async for token in source:
                view.add(token)
                display.update(view)
        except StreamInterruptedError as error:
            view.error = error
    display.finish(view)
