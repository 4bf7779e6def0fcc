"""`doctor provider` on a terminal, or as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import httpx
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...doctor.provider.examiner import MOST_ANSWER_TOKENS, MOST_PROMPT_TOKENS, MOST_REQUESTS, examine
from ...doctor.provider.profile import Profile, profile_lines
from ...doctor.provider.rungs import rungs_of
from ...doctor.provider.settings import Setting, advise, program
from ..program import program_name

FINE, TO_SET, NOTHING_SEEN = 0, 1, 2
_STYLE = {"yes": "green", "no": "yellow", "unknown": "dim"}
_CONNECT = 10.0  # seconds


def run(console: Console, *, base_url: str, model: str, api_key_env: str, as_json: bool, timeout: float) -> int:
    """Examine, show, and say by the exit code whether something needs setting. `timeout` is in seconds per request."""
    key = os.environ.get(api_key_env, "").strip()
    if not as_json:
        console.print(
            f"At most {MOST_REQUESTS} small requests with a fixed text: about {MOST_PROMPT_TOKENS:,} tokens of prompt "
            f"and {MOST_ANSWER_TOKENS:,} of answers; and one for the list of models."
        )
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Timeout(timeout, connect=min(_CONNECT, timeout))
    with httpx.Client(headers=headers, timeout=limits, follow_redirects=True) as client:
        profile = examine(client, base_url, model, timeout=timeout)
    settings = [] if profile.obstacle else advise(profile)
    address = _without_secrets(base_url)
    code = program(
        settings,
        base_url=address,
        model=model,
        api_key=f'os.environ["{api_key_env}"]' if key else '"none"',
        tools=profile.finish_reason_of_tools is not None,
    )
    if as_json:
        console.out(_as_json(profile, settings, address, model, code), highlight=False)
    elif profile.obstacle:
        asked_for_key = not key and any(status in profile.obstacle for status in ("HTTP 401", "HTTP 403"))
        unset = f" The environment variable {api_key_env} is not set, so no key was sent." if asked_for_key else ""
        console.print(f"[bold]{escape(address)}[/bold]: {escape(profile.obstacle)}.{escape(unset)}", highlight=False)
        console.print("[bold]Next: mend that, and run this command again.[/bold]", highlight=False)
    else:
        _show(console, profile, settings, address, model, code)
    return _exit_code(profile, settings)


def _exit_code(profile: Profile, settings: list[Setting]) -> int:
    if profile.obstacle:
        return NOTHING_SEEN
    return TO_SET if any(setting.needed for setting in settings) else FINE


def _show(console: Console, profile: Profile, settings: list[Setting], address: str, model: str, code: str) -> None:
    title = f"{escape(model)} at {escape(address)}, {profile.requests} requests"
    table = Table(box=box.SIMPLE, title=title, title_justify="left", show_header=False)
    for line in profile_lines(profile):
        style = _STYLE[line.answer]
        table.add_row(line.question, f"[{style}]{line.answer}[/{style}]", escape(line.seen))
    console.print(table)
    ways = ", then ".join(rungs_of(profile))
    behind = f" ({profile.server})" if profile.server else ""
    console.print(f"[bold]After a cut[/bold] ResilientLLM goes on here{escape(behind)} by: {ways}.\n", highlight=False)
    console.print("[bold]What to set[/bold]\n", highlight=False)
    console.out(code, highlight=False)
    console.print()
    for setting in settings:
        mark = "[bold]needed[/bold]" if setting.needed else "better"
        console.print(f"{mark}: {escape(setting.code)}\n    {escape(setting.because)}", highlight=False)
    console.print(f"\nNext: these lines in your app; then its endpoint, {program_name()} doctor url URL", markup=False)


def _as_json(profile: Profile, settings: list[Setting], address: str, model: str, code: str) -> str:
    return json.dumps(
        {
            "base_url": address,
            "model": model,
            "obstacle": profile.obstacle,
            "requests": profile.requests,
            "seen": {name: value for name, value in asdict(profile).items() if name not in ("obstacle", "requests")},
            "lines": [asdict(line) for line in profile_lines(profile)] if not profile.obstacle else [],
            "rungs": [str(rung) for rung in rungs_of(profile)] if not profile.obstacle else [],
            "settings": [{"code": s.code, "because": s.because, "needed": s.needed} for s in settings],
            "code": code if not profile.obstacle else "",
        },
        indent=2,
    )


def _without_secrets(base_url: str) -> str:
    """The address without a user's name and password, and without a query, where keys have been seen, too."""
    try:
        return str(httpx.URL(base_url).copy_with(username=None, password=None, query=None, fragment=None)).rstrip("/")
    except httpx.InvalidURL:
        return "(no valid address)"
