"""`python -m llama_index_resilient_stream doctor`: of an installation, of an endpoint, of a provider."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # `--help` needs none of it
    from ...doctor.endpoint.plan import Plan

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=False)

AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


@app.callback(invoke_without_command=True)
def examine_installation(context: typer.Context, as_json: AsJson = False) -> None:
    """Find what is wrong with this installation; with an endpoint: doctor url; with a provider: doctor provider.

    Exits with 1 where something has to be fixed.
    """
    if context.invoked_subcommand is not None:
        return
    # Here, not above, as everywhere in these commands: `--help` needs none of it.
    from rich.console import Console

    from ...doctor.installation.versions import examine
    from . import endpoint_screen as doctor_screen

    found = examine()
    if as_json:
        doctor_screen.as_json(found.to_dict())
    else:
        doctor_screen.show_installation(Console(highlight=False), found)
    raise typer.Exit(0 if found.fine else 1)


@app.command("url", short_help="Ask a streaming endpoint: what do its readers lose, and why?")
def examine_url(
    url: Annotated[str, typer.Argument(help="The endpoint, as its readers ask it: through all proxies.")],
    direct: Annotated[str, typer.Option(metavar="URL", help="The same endpoint, past the proxies.")] = "",
    method: Annotated[str, typer.Option(help="POST, where --data is given.")] = "",
    data: Annotated[str, typer.Option(help="The body of the request, or @FILE.")] = "",
    header: Annotated[list[str], typer.Option(metavar="'NAME: VALUE'", help="Never shown.")] = [],  # noqa: B006
    terminal: Annotated[
        str, typer.Option(metavar="TEXT", help="What your answers end with, if not done or [DONE].")
    ] = "",
    repeat: Annotated[int, typer.Option(min=1, metavar="N", help="Ask so often for an answer that was cut.")] = 2,
    parallel: Annotated[int, typer.Option(min=0, metavar="N", help="Ask so many at once: how many are served?")] = 0,
    quick_url: Annotated[str, typer.Option(metavar="URL", help="A route that needs no time: does it stall?")] = "",
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="For one whole answer.")] = 120.0,
    insecure: Annotated[bool, typer.Option("--insecure", help="Take any certificate.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a streaming endpoint, and say what its readers lose, why, and which lines cure it.

    Ask it for an answer that takes some seconds; each request is one that somebody pays for.
    """
    from ...doctor.endpoint.plan import Plan
    from ...doctor.endpoint.probe import ProbeRequest

    body = _body(data)
    request = ProbeRequest(
        method=(method or ("POST" if body is not None else "GET")).upper(),
        headers=tuple(_header(line) for line in header),
        data=body,
        timeout=timeout,
        terminal=terminal,
        insecure=insecure,
    )
    plan = Plan(url, request, direct=direct, quick_url=quick_url, repeat=repeat, parallel=parallel)
    raise typer.Exit(_examine(plan, as_json))


def _examine(plan: Plan, as_json: bool) -> int:
    from rich.console import Console

    from ...doctor.endpoint.diagnosis import diagnose
    from ...doctor.endpoint.findings import is_serious
    from ...doctor.endpoint.plan import measure
    from . import endpoint_screen as doctor_screen

    try:
        with doctor_screen.progress(Console(stderr=True)) as begin:
            measurements = measure(plan, begin)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except KeyboardInterrupt:
        typer.echo("\nStopped.", err=True)
        return 130
    findings = diagnose(measurements)
    if as_json:
        doctor_screen.as_json(doctor_screen.url_as_dict(plan, measurements, findings))
    else:
        doctor_screen.show_url(Console(highlight=False), plan, measurements, findings)
    return 1 if any(is_serious(finding) for finding in findings) else 0


@app.command("provider", short_help="Ask a provider how its streams end and continue.")
def examine_provider(
    base_url: Annotated[str, typer.Option(help="Of an API in the manner of OpenAI.")],
    model: Annotated[str, typer.Option(help="As the provider calls it.")],
    api_key_env: Annotated[
        str, typer.Option(metavar="NAME", help="The variable that holds the key.")
    ] = "OPENAI_API_KEY",
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="For one whole answer.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Ask a provider how its streams end and continue, and print the settings for it."""
    from rich.console import Console

    from .provider_screen import run

    console = Console(highlight=False)
    raise typer.Exit(
        run(console, base_url=base_url, model=model, api_key_env=api_key_env, as_json=as_json, timeout=timeout)
    )


def _body(data: str) -> bytes | None:
    if not data:
        return None
    if not data.startswith("@"):
        return data.encode()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"--data {data}: {error.strerror}") from None


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        raise typer.BadParameter("--header takes 'Name: value'.")  # the line may be a secret that lost its name
    return name.strip(), value.strip()
