"""Print what the changelog says of a version, for the release of that tag; fail where the files are not ready for it.

python tools/release_notes.py v0.1.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def notes(tag: str, root: Path = ROOT) -> str:
    """Return the changelog's section. Raises ValueError: of another version than the package's, or without a date."""
    version = tag.removeprefix("v")
    source = (root / "llama_index_resilient_stream" / "__init__.py").read_text(encoding="utf-8")
    if f'__version__ = "{version}"' not in source:
        raise ValueError(f"{tag} is not the version in llama_index_resilient_stream/__init__.py")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(
        rf"^## {re.escape(version)} - (\d{{4}}-\d\d-\d\d)\n(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE
    )
    if section is None:
        raise ValueError(f"CHANGELOG.md has no section `## {version} - YEAR-MONTH-DAY`")
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    for line in (f"version: {version}", f'date-released: "{section[1]}"'):
        if line not in citation.splitlines():
            raise ValueError(f"CITATION.cff has no line `{line}`")
    return section[2].strip() + "\n"


if __name__ == "__main__":
    try:
        sys.stdout.write(notes(sys.argv[1]))
    except ValueError as error:
        raise SystemExit(str(error)) from None
