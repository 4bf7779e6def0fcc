"""The pages of the documentation: their Python runs from top to bottom, and the site builds without a warning.

What the recipes of serving.md and coming_back.md need is in test_recipes.py; extending.md is in test_extending.py.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_index_resilient_stream.testing import FaultServer
from support.pages import BLOCK

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
RUN_ELSEWHERE = {"serving.md", "coming_back.md", "extending.md"}
WITH_CODE = sorted(
    path.name for path in DOCS.glob("*.md") if BLOCK.search(path.read_text("utf-8")) and path.name not in RUN_ELSEWHERE
)
TEXT = "The cable broke two miles down. They found both ends, joined them, and went on talking."
ANSWERS = {"engines.md": '{"name": "the Atlantic", "depth_in_miles": 2}'}  # it asks for an object, too


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[] if page == "index.md" else [pytest.mark.slow]) for page in WITH_CODE]
)
def test_the_python_of_a_page_runs(page: str, serve: Callable[..., FaultServer]) -> None:
    provider = serve(ANSWERS.get(page, TEXT))
    done = subprocess.run(
        [sys.executable, "-m", "support.pages", str(DOCS / page), provider.url],
        capture_output=True,
        text=True,
        cwd=ROOT / "tests",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Nothing but what is printed: no warning, no traceback of a thread.
    assert not re.search(r"Traceback|Warning", done.stderr), done.stderr[-3000:]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'{package} is not installed: pip install -e ".[docs]"')
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    as_text = [page.parent.name for page in tmp_path.rglob("index.html") if "<p>```" in page.read_text("utf-8")]
    assert as_text == [], "blocks of code that are shown as text"
