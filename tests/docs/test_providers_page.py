"""docs/providers.md is what its command writes, and names every class of the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llama_index_resilient_stream.providers import PROVIDERS

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "providers.md"


def test_the_page_is_what_the_command_writes() -> None:
    command = [sys.executable, str(ROOT / "tools" / "provider_matrix.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(PROVIDERS.keys() - {"MockLLM", "ScriptedLLM"}))
def test_every_row_is_on_the_page(name: str) -> None:
    assert f"| {name} |" in PAGE.read_text(encoding="utf-8")
