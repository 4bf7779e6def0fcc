"""The npm package `ai`, and a client that is made of it: ai_sdk_client.mjs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CLIENT = Path(__file__).parent / "ai_sdk_client.mjs"
VERSION = "7"


@pytest.fixture(scope="module")
def node_home(request: pytest.FixtureRequest) -> Path:
    """A folder with the package. It is kept between runs."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    home = Path(str(request.config.cache.mkdir(f"ai-sdk-{VERSION}")))  # type: ignore[union-attr]
    if not (home / "node_modules" / "ai").exists():
        (home / "package.json").write_text("{}", encoding="utf-8")
        # It asks for Node 22, and what is used here runs on 20.
        command = ["npm", "install", f"ai@{VERSION}", "--force", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"the npm package `ai` is not to be had: {done.stderr[-200:]}")
    return home


def run_client(node_home: Path, url: str, kind: str, *cuts: int) -> dict[str, Any]:
    """Ask `url`/api/chat for an answer of this kind, once for each of the cuts. What the client made of them."""
    done = subprocess.run(
        ["node", str(CLIENT), url, kind, *map(str, cuts)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "NODE_HOME": str(node_home)},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
