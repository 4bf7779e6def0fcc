"""What the README and the notebooks say is true: their code runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llama_index_resilient_stream.testing import CONTINUATION_STYLES, FAULTS

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

RUN_NOTEBOOK = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
nbformat.write(notebook, sys.stdout)
"""


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


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_run_from_top_to_bottom(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_NOTEBOOK, str(path)], capture_output=True, text=True, check=True, cwd=path.parent
    )
    outputs = "".join(
        "".join(output.get("text", []))
        for cell in json.loads(done.stdout)["cells"]
        for output in cell.get("outputs", [])
    )
    assert "complete | " in outputs
    assert "4 requests" in outputs
