"""Types that users rely on: typical uses pass strict type checkers, mistakes do not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TYPICAL, WRONG = HERE / "typical_uses.py", HERE / "wrong_uses.py"

# What pyright has against LlamaIndex's own signatures.
NOT_OURS = re.compile(r'^Type of "as_(query|chat)_engine" is partially unknown')


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=HERE.parent.parent, timeout=500
    )


def mypy(tmp_path: Path) -> dict[Path, dict[int, str]]:
    """The errors of each file, by line."""
    pytest.importorskip("mypy")
    done = run("mypy", "--strict", f"--cache-dir={tmp_path}", str(TYPICAL), str(WRONG))
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[Path, dict[int, str]] = {TYPICAL: {}, WRONG: {}}
    for name, line, message in re.findall(r"^(\S+?):(\d+): error: (.*)$", done.stdout, re.MULTILINE):
        found[HERE / Path(name).name][int(line)] = message
    return found


def pyright(tmp_path: Path) -> dict[Path, dict[int, str]]:
    pytest.importorskip("pyright", reason='pyright is not installed: pip install "pyright[nodejs]"')
    done = run("pyright", "--outputjson", "--pythonpath", sys.executable, str(TYPICAL), str(WRONG))
    if not done.stdout.startswith("{"):
        pytest.skip(f'pyright found no Node.js: pip install "pyright[nodejs]" ({done.stderr[-200:]})')
    found: dict[Path, dict[int, str]] = {TYPICAL: {}, WRONG: {}}
    for each in json.loads(done.stdout)["generalDiagnostics"]:
        if each["severity"] == "error" and not NOT_OURS.match(each["message"]):
            found[HERE / Path(each["file"]).name][each["range"]["start"]["line"] + 1] = each["message"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("check", [mypy, pyright], ids=["mypy", "pyright"])
def test_strict_checkers_pass_typical_uses_and_find_mistakes(check: object, tmp_path: Path) -> None:
    found = check(tmp_path)  # type: ignore[operator]
    assert found[TYPICAL] == {}
    lines = WRONG.read_text(encoding="utf-8").splitlines()
    assert set(found[WRONG]) == {number for number, line in enumerate(lines, 1) if "  # wrong" in line}
