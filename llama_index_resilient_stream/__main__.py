"""`python -m llama_index_resilient_stream`: the command line, where the extra `cli` is installed."""

from __future__ import annotations

import sys

_EXTRA = ("typer", "click", "rich", "packaging", "openai", "llama_index.llms")


def main() -> None:
    """Run the command line, or say how to install it."""
    try:
        from .cli import app

        app(prog_name="python -m llama_index_resilient_stream")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(_EXTRA):
            raise
        print(
            f"The command line needs {error.name}, which is not installed. Install it with:\n\n"
            '    pip install "llama-index-resilient-stream[cli]"',
            file=sys.stderr,
        )
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
