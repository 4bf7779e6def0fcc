"""The command line as it was typed, for usage lines and for what to do next."""

from __future__ import annotations

import sys
from pathlib import PureWindowsPath

SCRIPT = "llama-index-resilient-stream"
MODULE = "python -m llama_index_resilient_stream"


def program_name() -> str:
    """Return the name under which the command line was started: the console script, or the module."""
    return SCRIPT if PureWindowsPath(sys.argv[0]).stem == SCRIPT else MODULE  # which splits at both slashes
