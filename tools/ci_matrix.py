"""Turn the list of nox sessions into the matrix of a workflow: a name, the session, and the Python it runs on.

    nox --list --json -s tests > sessions.json && python tools/ci_matrix.py sessions.json

A session that names no Python runs on DEFAULT.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DEFAULT = "3.12"


def matrix(sessions: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "name": each["session"].replace("'", ""),
            "session": each["session"],
            "python": each["python"] or DEFAULT,
        }
        for each in sessions
    ]


if __name__ == "__main__":
    print(json.dumps(matrix(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
