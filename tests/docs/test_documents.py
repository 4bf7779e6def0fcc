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
README, JOINTS, TESTING = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/joints.md", "docs/testing.md")
)


def test_the_first_example_runs_and_heals() -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    done = subprocess.run([sys.executable, "-c", example[1]], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("The cable broke two miles down. They found both ends, joined them, and went on")
    assert "complete | 87 characters | 3 attempts" in done.stdout


def test_every_python_block_of_the_readme_is_python() -> None:
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(block, "README.md", "exec")


def test_the_readme_runs_from_top_to_bottom(tmp_path: Path) -> None:
    """Pasted block by block, as its reader does: nothing is taken for granted that was not there before."""
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        input="\n\n".join(blocks) + "\n\nprint('to the end')\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "to the end" in done.stdout, done.stderr[-3000:]
    assert not re.search(r"Error|Traceback|Warning", done.stderr), done.stderr[-3000:]


def test_the_numbers_of_the_pages() -> None:
    assert f"lets a simulated model go on in {len(CONTINUATION_STYLES)} ways" in JOINTS.replace("\n", " ")
    assert f"breaks the wire in {len(FAULTS)} ways" in TESTING.replace("\n", " ")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_shows_what_it_shows_when_it_is_run(path: Path) -> None:
    kept = nbformat.read(path, as_version=4)
    fresh = run(path)
    install = fresh.cells[1]
    assert install.source.startswith("%pip install -q ")
    assert "ERROR" not in str(install.outputs)
    assert list(shown(fresh)) == list(shown(kept)), "Run: python tools/run_notebooks.py"
