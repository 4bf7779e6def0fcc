"""What the README and the notebooks say is true: their code runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from run_notebooks import NOTEBOOKS, run, shown

from llama_index_resilient_stream.testing import CONTINUATION_STYLES, FAULTS

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_example_runs_and_heals() -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    done = subprocess.run([sys.executable, "-c", example[1]], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("The cable broke two miles down. They found both ends, joined them, and went on")
    assert "complete | 87 characters | 3 attempts" in done.stdout


def test_every_python_block_of_the_readme_is_python() -> None:
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(block, "README.md", "exec")


def test_the_numbers_of_the_readme() -> None:
    assert f"breaks the wire in {len(FAULTS)} ways" in README
    assert f"lets a model go on in {len(CONTINUATION_STYLES)} ways" in README.replace("\n", " ")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_shows_what_it_shows_when_it_is_run(path: Path) -> None:
    kept = nbformat.read(path, as_version=4)
    fresh = run(path)
    install = fresh.cells[1]
    assert install.source.startswith("%pip install -q ")
    assert "ERROR" not in str(install.outputs)
    assert list(shown(fresh)) == list(shown(kept)), "Run: python tools/run_notebooks.py"
