"""Writes docs/providers.md: what is known of each LLM class, and what its tests on the wire have shown.

    python tools/provider_matrix.py            writes the page
    python tools/provider_matrix.py --check    says whether it is what would be written; 1 where it is not

The first table is `llama_index_resilient_stream.providers`, the second docs/providers.json, which
`PROVIDER_MATRIX=docs/providers.json nox -s integrations` writes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from llama_index_resilient_stream.providers import PROVIDERS, SINCE, Provider

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "providers.md"
CELLS = ROOT / "docs" / "providers.json"

SCENARIOS = {
    "complete": "a whole answer",
    "length": "the token limit",
    "filter": "a content filter",
    "cut": "a silent cut",
    "reset": "a reset connection",
    "stall": "a stall",
    "http_503": "status 503",
    "blank": "cut behind white space",
    "leave": "the reader leaves",
}
TELLS = {True: "always", False: "not in every chunk or stream", None: "not known"}
PREFILL = {
    "trailing": "the turn alone",
    "flags": "flags for vLLM and SGLang",
    "marked": "a key in the turn",
    "unsupported": "no",
    "unknown": "not known",
}
NOTES = {
    "BedrockConverse": "The class drops the stop reason: it is read below. Where nothing can be seen there, as with an "
    "HTTP session of your own, a whole answer is `unknown`.",
    "GoogleGenAI": "The class drops chunks without parts, and raises on the one with a limit before it says its text: "
    "both are read below.",
    "HuggingFaceInferenceAPI": "Tool calls in streams fail in the class itself.",
    "Cohere": "Tool calls in streams fail in the class itself; its SDK skips an event that is not JSON: what "
    "was on it is missing, and nothing says so.",
    "Perplexity": "The class drops the last chunk, and errors in mid-stream: both are read below. It skips an "
    "event that is not JSON: what was on it is missing, and nothing says so. It calls no functions.",
    "LiteLLM": "Before 1.110 it says `stop` for a stream that breaks off.",
    "Ollama": "Its errors have no headers: a `Retry-After` is read below.",
    "LMStudio": "The class does not read what an error says: that is read below. It calls no functions.",
    "LlamaCPP": "An error of the native library is not known as one that passes, and so is not asked again.",
    "Anthropic": "llama-index-llms-anthropic 0.12 works with anthropic before 1 only; the error and `doctor` say so.",
}
_HEAD = """# Providers

<!-- Written by tools/provider_matrix.py. Change that, or llama_index_resilient_stream/providers.py. -->

What is known of LlamaIndex's LLM classes, and used. A class that is not here is taken for one that may or may not send
a finish reason; [extending.md](extending.md) says how to add yours.

## What each class does

* **Finish reason**: whether its streams end with one. Where its class drops it, it is read below: see the last section.
* **Prefill**: how a server is made to write on from a last assistant turn with `continuation="prefill"`. Never with
  thinking on. "No" means that it is asked to go on instead.
* **Output limit**: where the class keeps it; a continuation gets what is left of it.
"""
_TAIL = """
## What is read below a class

Where nothing leads to a class's HTTP client, the HTTP library itself tells: httpx, httpx2, urllib3 (and with it
requests and botocore) and aiohttp (and with it aiobotocore). While such a class asks on our behalf, and only then, a
watch sees the bytes go by and the connection is known. So a finish reason that the class drops is seen, a silent cut is
healed, leaving closes the connection at once, a read that blocks a thread can be broken, and the `Retry-After` of a
refusal is kept, also where the class's error has no headers. Over httpx the same holds for what the error says.

Each library's own method is replaced once in a process by one that calls it, as tracers do it; other calls go straight
through. What goes by other ways, gRPC or a native library, is not seen: there the status is what the chunks show.

What goes on by itself below us, as LiteLLM's router may and google-genai 3 does, is not continued twice: it is one
attempt, and `attempt.continued_below` in the report says how many requests were sent without us.
"""


def main() -> int:
    """Write the page, or check it."""
    page = rendered(json.loads(CELLS.read_text(encoding="utf-8")) if CELLS.exists() else {})
    if "--check" in sys.argv[1:]:
        fresh = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page
        sys.stdout.write("" if fresh else "docs/providers.md is old: python tools/provider_matrix.py\n")
        return 0 if fresh else 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


def rendered(cells: dict[str, Any]) -> str:
    """The page.

    Args:
        cells: for each class and scenario whether its test passed, in sync and in async.
    """
    rows = {name: row for name, row in PROVIDERS.items() if name not in ("MockLLM", "ScriptedLLM")}
    lines = [_HEAD, "| Class | Finish reason | Prefill | Output limit | Asynchronous half |", "|---|---|---|---|---|"]
    for name in sorted(rows, key=str.lower):
        lines.append(_row(name, rows[name]))
        if name in SINCE:
            package, first, row = SINCE[name]
            lines.append(_row(f"{name}, {package} {'.'.join(map(str, first))} and later", row))
    lines += ["", "## What was seen on the wire", "", *_matrix(cells), "", *_notes()]
    return "\n".join(lines).rstrip() + "\n" + _TAIL


def _row(name: str, row: Provider) -> str:
    prefill = f'`"{row.prefill_mark}": true` in the turn' if row.prefill_mark else PREFILL[row.prefill]
    limits = ", ".join(f"`{each.lstrip('_')}`" for each in ("max_tokens", *row.output_limits))
    half = {False: "its own", True: "the synchronous one, in a thread"}.get(
        row.async_through_sync if isinstance(row.async_through_sync, bool) else False
    )
    if isinstance(row.async_through_sync, str):
        half = "its own with aioboto3, else the synchronous one in a thread"
    return f"| {name} | {TELLS[row.sends_finish_reason]} | {prefill} | {limits} | {half} |"


def _matrix(cells: dict[str, Any]) -> list[str]:
    if not cells:
        return ["Not run yet: `PROVIDER_MATRIX=docs/providers.json nox -s integrations`."]
    head = "| Class | " + " | ".join(SCENARIOS.values()) + " |"
    lines = [
        "Each real class against a server that speaks its protocol and breaks it, sync / async. Yes: the outcome, the",
        "text and the number of requests are as promised.",
        "",
        head,
        "|---" * (len(SCENARIOS) + 1) + "|",
    ]
    for name in sorted(cells, key=str.lower):
        found = [_cell(cells[name].get(scenario)) for scenario in SCENARIOS]
        lines.append(f"| {name} | " + " | ".join(found) + " |")
    halves = [passed for found in cells.values() for cell in found.values() for passed in cell.values()]
    return [*lines, "", f"{sum(halves)} of {len(halves)} cells."]


def _cell(found: dict[str, bool] | None) -> str:
    if not found:
        return "–"
    said = ["yes" if found[half] else "**no**" for half in ("sync", "async") if half in found]
    return said[0] if len(set(said)) == 1 else " / ".join(said)


def _notes() -> list[str]:
    return [f"* {name}: {note}" for name, note in sorted(NOTES.items())]


if __name__ == "__main__":
    sys.exit(main())
