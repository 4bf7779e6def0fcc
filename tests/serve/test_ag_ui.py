"""LlamaIndex's own router for AG-UI: an answer heals there, and stops when its reader leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.servers import Running, serving

pytest.importorskip("llama_index.protocols.ag_ui", reason="pip install llama-index-protocols-ag-ui")

INPUT = {
    "threadId": "t",
    "runId": "r",
    "state": {},
    "messages": [{"id": "1", "role": "user", "content": "How was it mended?"}],
    "tools": [],
    "context": [],
    "forwardedProps": {},
}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving("support.ag_ui_app:app") as app:
        yield app


def events_in(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def test_a_cut_after_a_tool_call_heals(running: Running) -> None:
    events = events_in(httpx.post(f"{running.url}/cut/run", json=INPUT, timeout=30).text)
    kinds = [event["type"] for event in events]
    assert kinds[0] == "RUN_STARTED"
    assert kinds[-1] == "RUN_FINISHED"
    assert "TOOL_CALL_CHUNK" in kinds or "TOOL_CALL_START" in kinds
    text = "".join(event["delta"] for event in events if event["type"].startswith("TEXT_MESSAGE") and "delta" in event)
    assert text == httpx.get(f"{running.url}/text").json()[:400]


@pytest.mark.parametrize("after", [1, 3, 12], ids=["at once", "in the call", "in the text"])
@pytest.mark.parametrize("kind", ["resilient", "plain"])
async def test_leaving_stops_the_llm(running: Running, kind: str, after: int) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        begun = len((await http.get(f"{running.url}/sent/{kind}")).json())
        async with http.stream("POST", f"{running.url}/{kind}/run", json=INPUT) as response:
            seen = 0
            async for line in response.aiter_lines():
                seen += line.startswith("data: ")
                if seen >= after:
                    break
        sent: list[int] = []
        for _ in range(3):
            await asyncio.sleep(0.7)
            sent.append(sum((await http.get(f"{running.url}/sent/{kind}")).json()[begun:]))
    assert sent[-1] == sent[-2], "it talks on, for nobody"
    assert sent[-1] < 1000
