"""The commands of `python -m llama_index_resilient_stream`. Needs the extra `cli`."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from .doctor import commands as doctor

_MARGIN = 2  # columns, as click leaves free
_WIDEST, _NARROWEST = 80, 30

# Click writes help for 50 columns at least, and a narrow terminal then breaks each of its lines once more.
_columns = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns)) - _MARGIN

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"terminal_width": _columns},
)

# `short_help` is shown whole; of a docstring click shows a piece.
app.add_typer(doctor.app, name="doctor", short_help="Find what is wrong: here, with an endpoint, with a provider.")


def _print_version(wanted: bool) -> None:
    if wanted:
        from ..doctor.installation.versions import package_version

        typer.echo(package_version())
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    """LlamaIndex streams that finish."""


@app.command("demo", short_help="Watch answers survive a broken server.")
def run_demo(  # a function `demo` would stand where the module `cli.demo` is looked for
    fast: Annotated[bool, typer.Option("--fast", help="No artificial delays.")] = False,
) -> None:
    """Watch answers survive a broken server.

    LlamaIndex with ResilientLLM, next to plain LlamaIndex on the same faults. Half a minute; no key, no network.
    """
    # Here, not above: indices and LLM clients take a while to import, and `--help` needs none of them.
    from rich.console import Console

    from .demo.run import run

    try:
        run(Console(highlight=False), fast=fast)
    except KeyboardInterrupt:
        typer.echo("\nStopped.")
        raise typer.Exit(130) from None


@app.command("serve-demo", short_help="Chat in a browser, and break the answers.")
def run_serve_demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Chat with an index in a browser, and break the answers.

    A FastAPI app on 127.0.0.1; no key, no network. Needs the extra `serve`.
    """
    try:
        from .serve_demo import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("fastapi", "starlette", "uvicorn"):
            raise
        typer.echo(
            f"The chat page needs {error.name}, which is not installed. Install it with:\n\n"
            '    pip install "llama-index-resilient-stream[cli,serve]"',
            err=True,
        )
        raise typer.Exit(1) from None
    try:
        run(port, open_page=open_page)
    except KeyboardInterrupt:
        typer.echo("\nStopped.")
        raise typer.Exit(130) from None
