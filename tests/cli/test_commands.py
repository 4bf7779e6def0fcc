"""The commands: on narrow screens, with addresses that are wrong, and what their last lines say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points

import pytest
import uvicorn
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from llama_index_resilient_stream.cli import app
from llama_index_resilient_stream.testing import FaultServer

MODULE = ["python", "-m", "llama_index_resilient_stream"]


def run(*arguments: str, columns: int = 200) -> Result:
    """Run a command in this process."""
    environment = {"COLUMNS": str(columns), "OPENAI_API_KEY": None}
    return CliRunner().invoke(app, arguments, env=environment, prog_name=" ".join(MODULE), catch_exceptions=False)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server that speaks http and knows one path."""
    site = FastAPI()
    site.add_api_route("/ask", lambda: {"text": "an answer"})
    site.add_api_route("/private", lambda: None, status_code=401)
    server = uvicorn.Server(uvicorn.Config(site, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


# How it is started


def test_the_console_script_is_the_module() -> None:
    (script,) = entry_points(group="console_scripts", name="llama-index-resilient-stream")
    assert script.value == "llama_index_resilient_stream.__main__:main"


@pytest.mark.parametrize(
    ("started", "shown"),
    [
        ("/venv/bin/llama-index-resilient-stream", "llama-index-resilient-stream"),
        ("C:\\venv\\Scripts\\llama-index-resilient-stream.exe", "llama-index-resilient-stream"),
        ("/src/llama_index_resilient_stream/__main__.py", "python -m llama_index_resilient_stream"),
    ],
    ids=["script", "script on Windows", "module"],
)
def test_next_steps_name_the_command_as_it_was_typed(started: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert f"{shown} doctor url URL" in run("doctor").stdout


# Narrow screens

COMMANDS = [(), ("demo",), ("serve-demo",), ("doctor",), ("doctor", "url"), ("doctor", "provider")]

SHOW_HELP = """
import json, sys
from typer.testing import CliRunner
from llama_index_resilient_stream.cli import app
from llama_index_resilient_stream.testing import FaultServer
asked = [CliRunner().invoke(app, [*command, "--help"], prog_name="it") for command in json.loads(sys.argv[1])]
print(json.dumps([each.stdout for each in asked]))
"""


@pytest.mark.parametrize("columns", [40, 60])
def test_help_fits_and_nothing_of_it_is_cut(columns: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOW_HELP, json.dumps(COMMANDS)],  # the width is that of the terminal at its start
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": str(columns)},
    )
    for shown in json.loads(done.stdout):
        assert shown.startswith("Usage: it")
        assert max(map(len, shown.split("\n"))) <= columns
        assert not re.search(r"[a-z]\.\.\.$", shown, re.MULTILINE)


# Addresses that are wrong: what was typed, and the likelier cause


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "127.0.0.1:{port}/ask",
            ["127.0.0.1:{port}/ask is no URL: the scheme is missing", "http://127.0.0.1:{port}/ask"],
        ),
        ("http:/127.0.0.1:{port}/ask", ["http:/127.0.0.1:{port}/ask is no URL. Write http://127.0.0.1:{port}/ask"]),
        ("https:127.0.0.1/ask", ["Write https://127.0.0.1/ask"]),
        ("http://127.0.0.1:1/ask", ["Connection refused", "nothing listens on that port", "is it running?"]),
        ("http://127.0.0.1:{port}/aks", ["answered 404", "there is no such path", "check the path"]),
        ("http://127.0.0.1:{port}/private", ["answered 401", "who asks", "--header 'Authorization: Bearer ...'"]),
        ("https://127.0.0.1:{port}/ask", ["https where http is spoken", "ask http:// in place of https://"]),
        ("http://host.invalid/ask", ["the host name is not known", "check the host"]),
    ],
    ids=[
        "no scheme",
        "one slash",
        "no slash",
        "closed port",
        "wrong path",
        "no key",
        "https for http",
        "unknown host",
    ],
)
def test_doctor_url(port: int, url: str, words: list[str]) -> None:
    url = url.format(port=port)
    done = run("doctor", "url", url)
    assert done.exit_code in (1, 2)
    for each in (url, *words):
        assert each.format(port=port) in done.stdout + done.stderr


def test_doctor_url_with_https_for_a_server_of_the_testing_kit() -> None:
    with FaultServer("An answer.") as server:
        url = server.url.replace("http:", "https:")
        done = run("doctor", "url", url)
    for each in (url, "no TLS is spoken there", "ask http:// in place of https://"):
        assert each in done.stdout


def test_doctor_url_with_another_method_than_the_endpoints(port: int) -> None:
    done = run("doctor", "url", f"http://127.0.0.1:{port}/ask", "--data", "{}")
    assert "the path is right, the method is not" in done.stdout
    assert "--method GET or POST" in done.stdout


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        ("127.0.0.1:{port}/v1", "the scheme is missing"),
        ("http://127.0.0.1:1/v1", "is the server running, are host and port right"),
        ("https://127.0.0.1:{port}/v1", "is it http:// or https://?"),
        ("http://127.0.0.1:{port}", "HTTP 404: there is no such path or model; most base URLs end with /v1"),
        ("http://127.0.0.1:{port}/chat/completions", "a base URL ends before /chat/completions"),
    ],
    ids=["no scheme", "closed port", "https for http", "no v1", "a whole path"],
)
def test_doctor_provider(port: int, base_url: str, words: str) -> None:
    done = run("doctor", "provider", "--base-url", base_url.format(port=port), "--model", "m")
    assert done.exit_code == 2
    assert f"{base_url.format(port=port)}: " in done.stdout
    assert words in done.stdout
    assert "OPENAI_API_KEY" not in done.stdout  # no key is missing here
    assert done.stdout.rstrip().endswith("Next: mend that, and run this command again.")


# Last lines


@pytest.mark.parametrize("columns", [40, 100])
def test_an_installation(columns: int) -> None:
    done = run("doctor", columns=columns)
    last = " ".join(done.stdout.split())
    assert last.endswith(("doctor url URL", "and run this command again."))
    assert max(map(len, done.stdout.split("\n"))) <= columns


def test_an_endpoint(port: int) -> None:
    done = run("doctor", "url", f"http://127.0.0.1:{port}/aks", columns=80)
    assert done.stdout.rstrip().endswith("Next: fix the first one, and run this command again.")
