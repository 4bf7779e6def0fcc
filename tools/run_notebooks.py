"""Runs the notebooks from top to bottom and keeps their outputs: python tools/run_notebooks.py [NAME ...]

A test runs them, too, and compares what it gets with what is kept, but for what a clock says.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
_RATE = re.compile(r", [\d,]+ a second")  # which is said of answers that take a second or more
_BY_THE_CLOCK = re.compile(r"\d+(?:\.\d+)? s\b|:\d{4,5}\b|\b0x[0-9a-f]+\b")


def run(path: Path) -> Any:
    """Return the notebook, freshly run."""
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def shown(notebook: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield each cell of code with what it shows, but for seconds, ports and addresses of objects."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and not cell.source.startswith("%pip"):
            yield cell.source, [_timeless(text) for output in cell.outputs for text in _texts(output)]


def _timeless(text: str) -> str:
    return _BY_THE_CLOCK.sub("…", _RATE.sub("", text))


def _texts(output: Any) -> Iterator[str]:
    if "text" in output:
        yield output.text
    for kind in ("text/markdown", "text/plain"):
        if kind in output.get("data", {}):
            yield output.data[kind]
            return


if __name__ == "__main__":
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if not sys.argv[1:] or path.stem in sys.argv[1:]:
            print(path.name, flush=True)
            nbformat.write(run(path), path)
