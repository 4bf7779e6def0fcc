"""`python -m llama_index_resilient_stream` and `llama-index-resilient-stream`: the command line (extra `cli`)."""

from __future__ import annotations

import sys
from pathlib import Path

_EXTRA = ("typer", "click", "rich", "packaging", "openai", "llama_index.llms")


def main() -> None:
    """Run the command line, or say how to install it."""
    try:
        from .cli import app

        app(prog_name=_name())
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(_EXTRA):
            raise
        print(
            f"The command line needs {error.name}, which is not installed. Install it with:\n\n"
            '    pip install "llama-index-resilient-stream[cli]"',
            file=sys.stderr,
        )
        raise SystemExit(1) from None


def _name() -> str:
    """Return the command as it was typed, for usage lines."""
    script = Path(sys.argv[0]).stem
    return script if script == "llama-index-resilient-stream" else "python -m llama_index_resilient_stream"


if __name__ == "__main__":
    main()
