"""The applications of examples/: started as their first lines say, and read to the end of an answer that breaks off.

Streamlit and Chainlit are heavy, and no part of the development environment: `nox -s recipes` has them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest

from support.ai_sdk import node_home as node_home  # a fixture
from support.ai_sdk import run_client
from support.chainlit_reader import ChainlitReader
from support.servers import SERVERS, Running, python, serving

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
ENGINES = (EXAMPLES / "engines.py").read_text(encoding="utf-8")
TEXT = "".join(re.findall(r'"(.*)"', ENGINES.partition("TEXT = (")[2].partition("\n)")[0]))
FILES = sorted(path for kind in ("*.py", "*.html", "*.conf", "*.yaml") for path in EXAMPLES.rglob(kind))
MOST_LINES = 80

SERVERS |= {
    "chainlit": (["chainlit"], python("chainlit", "run", "{app}", "-h", "--host", "{host}", "--port", "{port}")),
}


def need(*packages: str) -> None:
    """Skip, in CI too: these are installed by a session of their own."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install {package}")


@contextmanager
def running(app: str, server: str = "uvicorn-h11", folder: Path = EXAMPLES, **more: str) -> Iterator[Running]:
    paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    with serving(app, server, env={"PYTHONPATH": paths, **more}) as served:
        yield served


def read(url: str) -> list[tuple[str, Any]]:
    with httpx.Client(timeout=60) as client, httpx_sse.connect_sse(client, "GET", url) as source:
        return [(event.event, json.loads(event.data)) for event in source.iter_sse()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < MOST_LINES


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*_app.py")), ids=lambda path: path.name)
def test_an_example_says_how_it_is_started(path: Path) -> None:
    documentation = (path.read_text(encoding="utf-8")).split('"""')[1]
    command = re.search(rf"^    \w+ .*\b{path.stem}\b", documentation, re.MULTILINE)
    assert command, documentation
    assert re.search(r"^    pip install ", documentation, re.MULTILINE)


def test_the_page_of_the_documentation_lists_them() -> None:
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*_app.py"):
        command = re.search(rf"^    (\w+ .*\b{path.stem}\b.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert command
        assert f"`{command[1]}`" in page


# FastAPI and Flask


@pytest.mark.parametrize(("app", "server"), [("fastapi_app:app", "uvicorn-h11"), ("flask_app:app", "flask")])
def test_an_answer_is_healed_for_the_page(app: str, server: str) -> None:
    with running(app, server) as served:
        assert "new EventSource" in httpx.get(served.url).text
        heard = read(served.url + "/ask?question=why")
    assert "".join(data["text"] for kind, data in heard if kind == "message") == TEXT
    assert [kind for kind, _ in heard if kind != "message"] == ["sources", "recovery", "joint", "done"]
    assert heard[-1] == ("done", {"status": "complete"})


# The agent


@pytest.fixture(scope="module")
def agent() -> Iterator[Running]:
    with running("agent_app:app") as served:
        yield served


def test_the_agents_tool_call_and_answer_are_cut_and_healed(agent: Running) -> None:
    body = {"id": "a", "messages": [{"role": "user", "parts": [{"type": "text", "text": "How deep is it?"}]}]}
    with httpx.stream("POST", f"{agent.url}/api/chat", json=body, timeout=60) as response:
        assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    parts = [json.loads(line) for line in lines]
    called = [part for part in parts if part["type"].startswith("tool-")]
    assert [part["type"] for part in called] == ["tool-input-available", "tool-output-available"]
    assert called[0]["input"] == {"ocean": "Atlantic"}
    assert called[1]["output"] == "3,600 m"
    text = "".join(part["delta"] for part in parts if part["type"] == "text-delta")
    assert text.startswith("Where the cable lies")
    assert text.endswith("and a quarter of water.")
    assert [part["type"] for part in parts].count("data-recovery") == 2
    assert httpx.get(f"{agent.url}/api/chat/none/stream").status_code == 204


@pytest.mark.slow
@pytest.mark.xdist_group("ai-sdk")
def test_the_npm_package_reads_the_agent(agent: Running, node_home: Path) -> None:
    (seen,) = run_client(node_home, agent.url, "any", 0)["results"]
    assert (seen["status"], seen["finish"]) == ("ready", "stop")
    assert "error" not in seen
    (tool,) = [part for part in seen["parts"] if part.get("toolName") == "depth"]
    assert (tool["state"], tool["output"]) == ("output-available", "3,600 m")


# Streamlit and Chainlit


def test_streamlit() -> None:
    need("streamlit")
    code = """
from streamlit.testing.v1 import AppTest
app = AppTest.from_file("streamlit_app.py", default_timeout=60).run()
for question in ("why", "and"):
    app.chat_input[0].set_value(question).run()
    assert not app.exception, app.exception
    print([each.value for each in (*app.markdown, *app.caption, *app.error)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=EXAMPLES)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == str(["why", TEXT, "healed: truncated"])
    assert second == str(["why", TEXT, "and", TEXT, "healed: truncated"])


async def test_chainlit(tmp_path: Path) -> None:
    need("chainlit", "socketio")
    with running(str(EXAMPLES / "chainlit_app.py"), "chainlit", CHAINLIT_APP_ROOT=str(tmp_path)) as served:
        async with ChainlitReader(served.url) as reader:
            await reader.ask("why")
            assert await reader.until_over() == TEXT + "\n\n*healed: truncated*"
