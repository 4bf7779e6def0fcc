"""What the README and the notebooks say is true: their code runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
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


def test_what_the_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_sdist_has_what_a_document_links_to(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    document = (ROOT / name).read_text(encoding="utf-8")
    for target in [name, *re.findall(r"\]\((?!https?:)([^)#]+)\)", document)]:
        assert any(f"/{target}/".startswith(f"{each}/") for each in included), target


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_shows_what_it_shows_when_it_is_run(path: Path) -> None:
    kept = nbformat.read(path, as_version=4)
    fresh = run(path)
    install = fresh.cells[1]
    assert install.source.startswith("%pip install -q ")
    assert "ERROR" not in str(install.outputs)
    assert list(shown(fresh)) == list(shown(kept)), "Run: python tools/notebooks/run_notebooks.py"
