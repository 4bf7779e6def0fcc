"""`python -m llama_index_resilient_stream` and `llama-index-resilient-stream`: the command line (extra `cli`)."""

from __future__ import annotations

import sys

_EXTRA = ("typer", "click", "rich", "packaging", "openai", "llama_index.llms")


def main() -> None:
    """Run the command line, or say how to install it."""
    try:
        from .cli import app
        from .cli.program import program_name

        app(prog_name=program_name())
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
