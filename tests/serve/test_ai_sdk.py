"""The AI SDK's UI message stream, as the package `ai` itself reads it, through a proxy that cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.ai_sdk import node_home as node_home  # a fixture
from support.ai_sdk import run_client
from support.cutting_proxy import cutting_proxy
from support.servers import Running, serving

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ai-sdk")]

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def app() -> Iterator[Running]:
    with serving("support.parts_app:app", "uvicorn-h11") as running:
        yield running


@pytest.fixture(scope="module")
def run(node_home: Path, app: Running) -> Iterator[Run]:
    with cutting_proxy(app.port) as url:

        def ask(kind: str, *cuts: int) -> dict[str, Any]:
            return run_client(node_home, url, kind, *cuts)

        yield ask


def events_of(app: Running, kind: str) -> int:
    return httpx.get(f"{app.url}/ask/{kind}/ai-sdk", timeout=30).text.count("data: ")


def test_every_part_is_there(run: Run) -> None:
    (whole,) = run("told", 0)["results"]
    assert (whole["status"], whole["finish"], whole["role"], whole["count"]) == ("ready", "stop", "assistant", 2)
    assert "error" not in whole
    assert [part["type"] for part in whole["parts"]] == [
        "data-title",
        "source-document",
        "source-url",
        "step-start",
        "data-progress",  # the turn was told differently: what was no part of it stays
        "text",
        "dynamic-tool",
        "step-start",
        "dynamic-tool",
        "step-start",
        "text",
        "data-follow_ups",
    ]
    texts = [part["text"] for part in whole["parts"] if part["type"] == "text"]
    assert texts == ["I look.", "It is blue."]
    seen, failed = (part for part in whole["parts"] if part["type"] == "dynamic-tool")
    assert (seen["state"], seen["input"], seen["output"]) == ("output-available", {"city": "Paris"}, {"sky": "blue"})
    assert (failed["state"], failed["errorText"]) == ("output-error", "no such city")
    document, link = whole["parts"][1:3]
    assert document["title"] == "sky.pdf"
    assert document["providerMetadata"]["llamaindex"] == {
        "text": "The sun shines.",
        "score": None,
        "metadata": {"file_name": "sky.pdf", "page": 3},
    }
    assert (link["url"], link["title"]) == ("https://example.com/warm", "Warm")
    assert set(whole["transient"]) >= {"data-recovery", "data-joint"}, "told while it happens, no part of the message"


@pytest.mark.parametrize("kind", ["told", "agent-healed"])
def test_whoever_is_cut_off_and_comes_back_has_the_same_in_the_end(kind: str, run: Run, app: Running) -> None:
    count = events_of(app, kind)
    assert count > 20
    whole, *cut = run(kind, 0, *range(1, count))["results"]
    for each in cut:
        assert (each["parts"], each["status"], each["count"]) == (whole["parts"], "ready", 2), each["cut"]
        assert each["finish"] == whole["finish"] == "stop"


ENDINGS = {
    "complete": ("query", "ready", "stop"),
    "healed": ("healed", "ready", "stop"),
    "length": ("length", "ready", "length"),
}


@pytest.mark.parametrize(("kind", "status", "finish"), ENDINGS.values(), ids=ENDINGS)
def test_how_it_ends(kind: str, status: str, finish: str, run: Run) -> None:
    (whole,) = run(kind, 0)["results"]
    assert (whole["status"], whole["finish"]) == (status, finish)


def test_an_answer_that_is_not_whole_is_an_error(run: Run) -> None:
    (broken,) = run("fails", 0)["results"]
    assert (broken["status"], broken["error"]) == ("error", "The answer is not whole: attempts.")
    assert [part["text"] for part in broken["parts"] if part["type"] == "text"] == ["It is sunny there, a"]


@pytest.mark.parametrize("kind", ["slow", "slow-agent"])
def test_stopping(kind: str, run: Run) -> None:
    (stopped,) = run(kind, 0)["results"]
    assert stopped["stopped"] is True
    assert stopped["status"] == "ready"
    assert len("".join(part["text"] for part in stopped["parts"] if part["type"] == "text")) < 600


def test_where_nothing_is_to_be_resumed_nothing_is(run: Run, app: Running) -> None:
    assert run("query", 0)["nothing"] == {"status": "ready", "count": 0}
    assert httpx.get(f"{app.url}/api/chat/never/stream").status_code == 204


def test_the_headers(app: Running) -> None:
    response = httpx.get(f"{app.url}/ask/query/ai-sdk")
    assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
