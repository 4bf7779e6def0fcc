"""What the README and the notebooks say is true: their code runs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from run_notebooks import NOTEBOOKS, run, shown

from llama_index_resilient_stream.testing import CONTINUATION_STYLES, FAULTS

ROOT = Path(__file__).parent.parent.parent
README, JOINTS, TESTING = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/joints.md", "docs/testing.md")
)
NOTEBOOK_NAMES = {"quickstart", "chat_and_agents", "providers_and_fallbacks", "serving", "observability", "real_model"}
REAL_MODEL = NOTEBOOKS / "real_model.ipynb"
LLAMA_SERVER = "xllamacpp==2026.10.11549"  # as in noxfile.py


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


def test_all_notebooks_are_there() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == NOTEBOOK_NAMES


def run_whole(path: Path) -> Any:
    notebook = run(path)
    install = notebook.cells[1]
    assert install.source.startswith("%pip install -q ")
    assert "ERROR" not in str(install.outputs)
    return notebook


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.name, marks=[] if path.stem == "quickstart" else [pytest.mark.slow])
        for path in sorted(set(NOTEBOOKS.glob("*.ipynb")) - {REAL_MODEL})
    ],
)
def test_a_notebook_shows_what_it_shows_when_it_is_run(path: Path) -> None:
    kept = nbformat.read(path, as_version=4)
    assert list(shown(run_whole(path))) == list(shown(kept)), "Run: python tools/run_notebooks.py"


def test_the_notebook_of_a_real_model_runs_and_shows_as_much() -> None:
    """Not the same: which word is the likeliest may depend on the processor."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip(f"xllamacpp is not installed: pip install {LLAMA_SERVER}")
    kept = nbformat.read(REAL_MODEL, as_version=4)
    assert f" {LLAMA_SERVER}" in kept.cells[1].source
    fresh = list(shown(run_whole(REAL_MODEL)))
    assert [(code, len(outputs)) for code, outputs in fresh] == [(code, len(outputs)) for code, outputs in shown(kept)]
    assert "as it would have been uncut: " in str(fresh)
