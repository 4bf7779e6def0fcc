"""What docs/serving.md and docs/coming_back.md say is true: their blocks run as printed, in what they are for.

The provider is a FaultServer in this process, which sees what nobody else can: whether the LLM was stopped. Streamlit,
Gradio and Chainlit are heavy, and no part of the development environment:

    pip install streamlit gradio chainlit selenium
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llama_index_resilient_stream.testing import FAULTS, FaultServer
from support.chainlit_reader import ChainlitReader
from support.servers import SERVERS, Running, nginx, python, redis_server, require, serving

ROOT = Path(__file__).parent.parent.parent
PAGE = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("serving.md", "coming_back.md"))
BLOCKS = dict(re.findall(r'^```\w+ title="(\S+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL))

TEXT = " ".join(f"Word {number} of the cable." for number in range(120))
LONG = {"token": 8, "delay": 0.03}  # about ten seconds
STREAMLIT = "--server.port={port} --server.address={host} --server.headless=true --browser.gatherUsageStats=false"

SERVERS |= {
    "streamlit": (["streamlit"], python("streamlit", "run", "{app}", *STREAMLIT.split())),
    "gradio": (["gradio"], lambda app, port: [sys.executable, "-c", RUN_GRADIO, app, str(port)]),
    "aiohttp": (["aiohttp"], lambda app, port: [sys.executable, "-c", RUN_AIOHTTP, app, str(port)]),
    "chainlit": (["chainlit"], python("chainlit", "run", "{app}", "-h", "--host", "{host}", "--port", "{port}")),
}
RUN_AIOHTTP = """
import importlib, sys
from aiohttp import web
web.run_app(importlib.import_module(sys.argv[1]).app, host="127.0.0.1", port=int(sys.argv[2]))
"""
DJANGO_APP = """
import django
from django.conf import settings
settings.configure(SECRET_KEY="none", ROOT_URLCONF="django_views", ALLOWED_HOSTS=["*"], INSTALLED_APPS=[])
django.setup()
from django.core.asgi import get_asgi_application
app = get_asgi_application()
"""
RUN_GRADIO = """
import os, runpy, sys
os.environ["GRADIO_SERVER_PORT"] = sys.argv[2]
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def need(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install {package}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The blocks, as files."""
    for name, code in BLOCKS.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    return tmp_path


@pytest.fixture
def provider(serve: Callable[..., FaultServer]) -> Callable[..., FaultServer]:
    return lambda *faults, **how: serve(TEXT, faults, **how)


def surroundings(folder: Path, provider: FaultServer) -> dict[str, str]:
    """OpenAI is the provider, and the embedding model is LlamaIndex's mock."""
    return {
        "OPENAI_API_BASE": provider.url,
        "OPENAI_API_KEY": "none",
        "IS_TESTING": "1",
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "CHAINLIT_APP_ROOT": str(folder),
    }


@contextlib.contextmanager
def running(recipe: str, server: str, folder: Path, provider: FaultServer, **more: str) -> Iterator[Running]:
    app = str(folder / recipe) if recipe.endswith(".py") else recipe
    with serving(app, server, env={**surroundings(folder, provider), **more}) as app_server:
        yield app_server


def until(what: Callable[[], Any], patience: float = 20.0) -> Any:
    end = time.monotonic() + patience
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def has_begun(provider: FaultServer, request: int = 0) -> None:
    until(lambda: len(provider.requests) > request and len(provider.requests[request].sent.text) > 100)


def was_stopped(provider: FaultServer, request: int = 0) -> str:
    """The LLM was left in the middle of its answer, and soon. What it had said."""
    record = provider.requests[request]
    before = len(record.sent.text)
    until(lambda: record.seconds is not None)
    assert record.client_left
    assert len(record.sent.text) - before < 600, "it went on for two seconds and more"
    return record.sent.text


def turns(provider: FaultServer, request: int) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in provider.requests[request].body["messages"]]


# The page


def test_every_block_of_code_has_a_name_and_a_test() -> None:
    blocks = re.findall(r'^```(?:python|html|javascript|nginx)(?: title="(.*)")?$', PAGE, re.MULTILINE)
    assert blocks == list(BLOCKS)
    assert set(BLOCKS) == {
        "engines.py",  # imported by all the others
        *("fastapi_app.py", "flask_app.py", "streamlit_app.py", "gradio_app.py", "chainlit_app.py"),
        *("page.html", "fetch.js", "location.conf", "patient.py"),
        *("agent_app.py", "ai_sdk_app.py", "openai_app.py", "websocket_app.py", "depends_app.py"),
        *("starlette_app.py", "litestar_app.py", "django_views.py", "aiohttp_app.py", "quart_app.py"),
        *("coming_back_app.py", "coming_back.html"),
    }


def test_what_the_page_refers_to_exists() -> None:
    notes = set(re.findall(r"^\[(\d)\] ", PAGE, re.MULTILINE))
    assert set(re.findall(r"\[(\d)\]", PAGE)) == notes
    done = subprocess.run(
        [sys.executable, "-m", "llama_index_resilient_stream", "doctor", "url", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "TERM": "dumb"},
    )
    assert "--direct" in done.stdout, done.stderr


# FastAPI and Flask


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = "message"
    for line in lines:
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))
            kind = "message"


def read(url: str, **headers: str) -> list[tuple[str, dict[str, Any]]]:
    with httpx.stream("GET", url, headers=headers, timeout=30) as response:
        assert response.status_code == 200
        return list(events(response.iter_lines()))


def text_of(heard: list[tuple[str, dict[str, Any]]]) -> str:
    return "".join(data["text"] for kind, data in heard if kind == "message")


def leave_after_some(url: str) -> str:
    """Read a part of it. What was read."""
    with httpx.stream("GET", url, timeout=30) as response:
        said = ""
        for kind, data in events(response.iter_lines()):
            said += data["text"] if kind == "message" else ""
            if len(said) > 100:
                break
        return said


ENDPOINTS = {
    "fastapi-ask": ("fastapi_app:app", "uvicorn-h11", "/ask?question=why"),
    "fastapi-chat": ("fastapi_app:app", "uvicorn-h11", "/chat?question=why&conversation=1"),
    "flask-ask": ("flask_app:app", "flask", "/ask?question=why"),
}


@pytest.mark.parametrize(
    ("app", "server", "path"),
    [
        pytest.param(*row, id=name, marks=[] if name == "fastapi-ask" else [pytest.mark.slow])
        for name, row in ENDPOINTS.items()
    ],
)
def test_an_endpoint_heals_and_stops(
    app: str, server: str, path: str, folder: Path, provider: Callable[..., FaultServer]
) -> None:
    llm = provider(FAULTS["reset"].at(80), None, **LONG)
    with running(app, server, folder, llm) as served:
        said = leave_after_some(served.url + path)
        assert TEXT.startswith(said)
        was_stopped(llm, 1)

    llm = provider(FAULTS["clean_eof"].at(80), None, FAULTS["http_401"])
    with running(app, server, folder, llm) as served:
        heard = read(served.url + path)
        assert text_of(heard) == TEXT
        told = [(kind, data) for kind, data in heard if kind not in ("message", "sources", "usage")]
        assert told == [
            ("recovery", {"attempt": 2, "reason": "truncated"}),
            ("joint", {"attempt": 2, "decision": "anchor", "certainty": "verified"}),
            ("done", {"status": "complete"}),
        ]
        (sources,) = [data["sources"] for kind, data in heard if kind == "sources"]
        assert [each["text"] for each in sources] == ["The cable of 1866 was mended at sea."]
        refused = [(kind, data) for kind, data in read(served.url + path) if kind != "sources"]
        assert refused == [("error", {"status": "interrupted", "reason": "not_retryable", "retryable": False})]
        lost = read(served.url + path, **{"Last-Event-ID": "3"})
        assert lost == [("error", {"status": "lost", "reason": "not_resumable", "retryable": True})]


FRAMEWORKS = {
    "starlette": ("starlette_app:app", "uvicorn-h11"),
    "litestar": ("litestar_app:app", "uvicorn-h11"),
    "django": ("django_app:app", "uvicorn-h11"),
    "aiohttp": ("aiohttp_app", "aiohttp"),
    "quart": ("quart_app:app", "hypercorn"),
}


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework(framework: str, folder: Path, provider: Callable[..., FaultServer]) -> None:
    need(framework)
    app, server = FRAMEWORKS[framework]
    name = app.partition(":")[0].replace("django_app", "django_views")
    assert len([line for line in BLOCKS[f"{name}.py"].splitlines() if line]) <= 15
    (folder / "django_app.py").write_text(DJANGO_APP, encoding="utf-8")
    llm = provider(FAULTS["reset"].at(80), None, None, FAULTS["http_401"], **LONG)
    with running(app, server, folder, llm) as served:
        url = served.url + "/ask?question=why"
        assert text_of(read(url)) == TEXT
        said = leave_after_some(url)
        assert TEXT.startswith(said)
        was_stopped(llm, 2)
        assert read(url)[-1] == ("error", {"status": "interrupted", "reason": "not_retryable", "retryable": False})
        lost = read(url, **{"Last-Event-ID": "3"})
        assert lost == [("error", {"status": "lost", "reason": "not_resumable", "retryable": True})]
        assert httpx.get(url, headers={"Last-Event-ID": "3.end"}).status_code == 204


def test_events_of_ones_own(folder: Path, provider: Callable[..., FaultServer]) -> None:
    with running("agent_app:app", "uvicorn-h11", folder, provider()) as served:
        heard = read(served.url + "/titled?question=why")
        assert [kind for kind, _ in heard if kind != "message"] == ["title", "sources", "follow_ups", "done"]
        assert text_of(heard) == TEXT


@pytest.mark.slow
def test_an_agent(folder: Path, provider: Callable[..., FaultServer]) -> None:
    with running("agent_app:app", "uvicorn-h11", folder, provider(FAULTS["reset"].at(80))) as served:
        heard = read(served.url + "/agent?question=why")
        assert text_of(heard) == TEXT
        assert [kind for kind, _ in heard if kind != "message"][-3:] == ["recovery", "joint", "done"]


@pytest.mark.slow
def test_the_ai_sdks_endpoints(folder: Path, provider: Callable[..., FaultServer]) -> None:
    llm = provider(**LONG)
    with running("ai_sdk_app:app", "uvicorn-h11", folder, llm) as served:
        url = served.url + "/api/chat"
        body = {"id": "c", "messages": [{"role": "user", "parts": [{"type": "text", "text": "why"}]}]}
        assert httpx.get(f"{url}/c/stream").status_code == 204
        with httpx.stream("POST", url, json=body, timeout=30) as response:
            assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
            has_begun(llm)
        with httpx.stream("GET", f"{url}/c/stream", timeout=30) as response:
            lines = response.iter_lines()
            assert next(line for line in lines if line.startswith("data: ")).startswith('data: {"type":"start"')
            assert httpx.delete(f"{url}/c").json() is True
            assert [line for line in lines if line][-2:] == [
                'data: {"type":"abort","reason":"cancelled"}',
                "data: [DONE]",
            ]
        was_stopped(llm)
        assert len(llm.requests) == 1


@pytest.mark.slow
def test_openais_endpoint(folder: Path, provider: Callable[..., FaultServer]) -> None:
    with running("openai_app:app", "uvicorn-h11", folder, provider(FAULTS["reset"].at(80))) as served:
        body = {"model": "m", "messages": [{"role": "user", "content": "why"}]}
        answer = httpx.post(served.url + "/v1/chat/completions", json=body, timeout=30).json()
        assert answer["choices"][0]["message"]["content"] == TEXT
        assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.slow
def test_a_websocket(folder: Path, provider: Callable[..., FaultServer]) -> None:
    need("websockets")
    from websockets.sync.client import connect

    llm = provider(FAULTS["reset"].at(80), None, None, **LONG)
    with running("websocket_app:app", "uvicorn-h11", folder, llm) as served:
        url = served.url.replace("http", "ws") + "/ask"
        with connect(url) as socket:
            socket.send("why")
            parts = [json.loads(line) for lines in socket for line in str(lines).splitlines() if line]
        assert "".join(part["text"] for part in parts if part["type"] == "text") == TEXT
        assert (parts[-1]["type"], parts[-1]["status"]) == ("end", "complete")
        with connect(url) as socket:
            socket.send("why")
            has_begun(llm, 2)
        was_stopped(llm, 2)


@pytest.mark.slow
def test_a_session_lives_as_long_as_the_answer(folder: Path, provider: Callable[..., FaultServer]) -> None:
    llm = provider()
    with running("depends_app:app", "uvicorn-h11", folder, llm) as served:
        assert text_of(read(served.url + "/ask?question=why")) == TEXT
    assert "Ada asks: why" in str(llm.requests[0].body)


@pytest.mark.slow
def test_a_partial_answer_is_part_of_the_conversation(folder: Path, provider: Callable[..., FaultServer]) -> None:
    llm = provider(**LONG)
    with running("fastapi_app:app", "uvicorn-h11", folder, llm) as served:
        leave_after_some(served.url + "/chat?question=why&conversation=1")
        said = was_stopped(llm)
        with httpx.stream("GET", served.url + "/chat?question=and&conversation=1"):
            until(lambda: len(llm.requests) == 2)
    (_, question), (role, partial), (_, next_question) = turns(llm, 1)[-3:]
    assert (question, role, next_question) == ("why", "assistant", "and")
    assert said.startswith(partial)
    assert len(partial) > 90


@pytest.mark.slow
def test_plain_text(folder: Path, provider: Callable[..., FaultServer]) -> None:
    llm = provider(FAULTS["reset"].at(80))
    with running("fastapi_app:app", "uvicorn-h11", folder, llm) as served:
        assert httpx.get(served.url + "/text?question=why", timeout=30).text == TEXT


@pytest.mark.slow
def test_a_reader_whom_the_server_cuts_off_is_told(folder: Path, provider: Callable[..., FaultServer]) -> None:
    llm = provider(**LONG)
    environment = surroundings(folder, llm)
    args = ["--timeout-graceful-shutdown", "1"]
    with (
        serving("fastapi_app:app", "uvicorn-h11", args=args, env=environment) as served,
        httpx.stream("GET", served.url + "/ask?question=why", timeout=30) as response,
    ):
        heard = events(response.iter_lines())
        has_begun(llm)
        served.terminate(signal.SIGTERM)
        assert list(heard)[-1] == ("error", {"status": "interrupted", "reason": "server", "retryable": True})
        was_stopped(llm)


@pytest.mark.slow
def test_behind_nginx(folder: Path, provider: Callable[..., FaultServer]) -> None:
    llm = provider(token=8, delay=0.005)
    lines = BLOCKS["location.conf"].splitlines()
    with running("fastapi_app:app", "uvicorn-h11", folder, llm) as served, nginx(served.port, *lines) as proxy:
        assert text_of(read(proxy.url + "/ask?question=why")) == TEXT
        with httpx.stream("GET", proxy.url + "/text?question=why", timeout=30) as response:
            assert sum(1 for _ in response.iter_raw()) > 10


# Coming back


ADA = {"Cookie": "session=ada"}


def follow(url: str, after: str = "", characters: int = 10**6) -> tuple[str, str, dict[str, Any] | None]:
    """Read on after an event, and leave after so many characters: the text, the last id, and the end, if it came."""
    said, at, end = "", after, None
    headers = ADA | ({"Last-Event-ID": after} if after else {})
    with contextlib.suppress(httpx.TransportError), httpx.stream("GET", url, headers=headers, timeout=30) as response:
        kind = "message"
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                at = value
            elif name == "event":
                kind = value
            elif name == "data":
                data = json.loads(value)
                said += data.get("text", "")
                end = data if kind in ("done", "error") else end
                kind = "message"
            if len(said) >= characters:
                break
    return said, at, end


@pytest.mark.slow
def test_coming_back_to_another_worker(folder: Path, provider: Callable[..., FaultServer]) -> None:
    llm = provider(token=8, delay=0.01)
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        one, two = (
            stack.enter_context(running("coming_back_app:app", "uvicorn-h11", folder, llm, REDIS_URL=redis.url))
            for _ in range(2)
        )
        key = httpx.post(one.url + "/answers", json={"question": "why"}, headers=ADA).json()
        path = f"/answers/{key}"
        assert httpx.post(one.url + "/answers", json={"question": "why"}).status_code == 401
        assert httpx.get(two.url + path).status_code == 404
        assert httpx.get(two.url + path, headers={"Cookie": "session=eve"}).status_code == 404
        assert httpx.delete(two.url + path).status_code == 404

        said, after, end = follow(two.url + path, "", 100)
        assert end is None
        more, after, end = follow(one.url + path, after, 100)
        one.process.kill()
        rest, after, end = follow(two.url + path, after)
        assert said + more + rest == TEXT
        assert end == {"status": "complete"}
        assert len(llm.requests) == 2
        assert follow(two.url + path)[0] == TEXT  # loaded again
        assert httpx.get(two.url + path, headers={**ADA, "Last-Event-ID": after}).status_code == 204

        key = httpx.post(two.url + "/answers", json={"question": "and"}, headers=ADA).json()
        said, after, _ = follow(f"{two.url}/answers/{key}", "", 100)
        assert httpx.delete(f"{two.url}/answers/{key}", headers=ADA).json() is True
        rest, _, end = follow(f"{two.url}/answers/{key}", after)
        assert end == {"status": "cancelled"}
        assert TEXT.startswith(said + rest)
        was_stopped(llm, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_page_that_comes_back(browser: Any, folder: Path, provider: Callable[..., FaultServer]) -> None:
    llm = provider(token=8, delay=0.01)

    def element(selector: str) -> str:
        return str(browser.find_element("css selector", selector).text)

    with (
        redis_server() as redis,
        running("coming_back_app:app", "uvicorn-h11", folder, llm, REDIS_URL=redis.url) as served,
    ):
        browser.get(served.url)
        ask(browser, "input", "why")
        for characters in (100, 400):
            until(lambda wanted=characters: len(element("#answer")) > wanted)
            browser.refresh()
        until(lambda: element("#note") == "complete")
        assert element("#answer") == TEXT
        assert len(llm.requests) == 1

        ask(browser, "input", "and")
        until(lambda: 100 < len(element("#answer")) < 1000)
        browser.find_element("css selector", "#stop").click()
        until(lambda: element("#note") == "cancelled")
        was_stopped(llm, 1)


def test_the_classic_remedies(folder: Path, provider: Callable[..., FaultServer]) -> None:
    llm = provider("http_503", FAULTS["reset"].at(80), None, None)
    code = "from patient import llm; print(llm.complete('a'), llm.policy.stop.max_attempt_number, llm.complete('b'))"
    code = code.replace("llm.complete('a')", "''.join(chunk.delta for chunk in llm.stream_complete('a'))")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **surroundings(folder, llm)},
    )
    assert done.stdout == f"{TEXT} 4 {TEXT}\n", done.stderr
    assert llm.requests[-2].connection == llm.requests[-1].connection


# The browser


@pytest.fixture
def browser() -> Iterator[Any]:
    need("selenium")
    from selenium import webdriver

    require("chromium")
    require("chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for switch in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(switch)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def shown(browser: Any) -> str:
    return str(browser.find_element("css selector", "body").text)


def ask(browser: Any, selector: str, question: str) -> None:
    """Type into the last field that is there, as a reader would."""

    def fields() -> list[Any]:
        return [each for each in browser.find_elements("css selector", selector) if each.is_displayed()]

    field = until(fields)[-1]
    field.click()
    field.send_keys(question)
    until(lambda: field.get_attribute("value") == question or field.text == question)
    field.send_keys("\ue007")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_page_in_a_browser(browser: Any, folder: Path, provider: Callable[..., FaultServer]) -> None:
    llm = provider(FAULTS["reset"].at(80), None, "http_401", token=8, delay=0.002)
    with running("fastapi_app:app", "uvicorn-h11", folder, llm) as served:
        browser.get(served.url)

        def note(text: str) -> None:
            until(lambda: browser.find_element("css selector", "#note").text == text)

        ask(browser, "input", "why")
        note("complete")
        assert browser.find_element("css selector", "#answer").text == TEXT
        time.sleep(3.5)  # an EventSource that was not closed comes back after three seconds
        assert len(llm.requests) == 2

        browser.find_element("css selector", "button").click()
        note("interrupted: not_retryable")

        fetch = "const question = 'why', answer = document.querySelector('#answer'); answer.textContent = '';\n"
        browser.execute_async_script(f"(async () => {{ {fetch}{BLOCKS['fetch.js']} }})().then(arguments[0])")
        assert browser.find_element("css selector", "#answer").text == TEXT


# Streamlit


def test_streamlit_heals_and_remembers(
    folder: Path, provider: Callable[..., FaultServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    need("streamlit")
    llm = provider(FAULTS["reset"].at(80), None, "http_401")
    code = """
from streamlit.testing.v1 import AppTest
app = AppTest.from_file("streamlit_app.py", default_timeout=60).run()
for question in ("why", "and"):
    app.chat_input[0].set_value(question).run()
    assert not app.exception, app.exception
    print([each.value for each in (*app.markdown, *app.caption, *app.error)])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **surroundings(folder, llm)},
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == str(["why", TEXT, "healed: transport"])
    assert second.startswith(str(["why", TEXT, "and"])[:-1])
    assert second.endswith("'interrupted: not_retryable']")
    assert turns(llm, 2)[-3:] == [("user", "why"), ("assistant", TEXT), ("user", "and")]


LEAVING = {
    # recipe: its server, where one types, and its stop button
    "streamlit_app.py": ("streamlit", "textarea", "//*[@data-testid='stStatusWidget']//button"),
    "gradio_app.py": ("gradio", "textarea", "//button[contains(@class, 'stop-button')]"),
    "chainlit_app.py": ("chainlit", "#chat-input", "//button[@id='stop-button']"),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("recipe", LEAVING)
def test_stopping_and_leaving_stop_the_llm(
    recipe: str, browser: Any, folder: Path, provider: Callable[..., FaultServer]
) -> None:
    server, field, stop = LEAVING[recipe]
    need(server)
    llm = provider(**LONG)
    with running(recipe, server, folder, llm) as served:
        browser.get(served.url)
        ask(browser, field, "why")
        has_begun(llm)
        until(lambda: "Word 3" in shown(browser))
        browser.find_element("xpath", stop).click()
        said = was_stopped(llm)
        assert said != TEXT

        until(lambda: not browser.find_elements("xpath", stop))
        ask(browser, field, "and")
        has_begun(llm, 1)
        (_, question), (role, partial), (_, next_question) = turns(llm, 1)[-3:]
        assert (question, role, next_question) == ("why", "assistant", "and")
        assert said.startswith(partial)
        assert len(partial) > 60

        browser.quit()
        was_stopped(llm, 1)


# Gradio


def test_gradio_heals(folder: Path, provider: Callable[..., FaultServer]) -> None:
    need("gradio")
    llm = provider(FAULTS["reset"].at(80))
    with running("gradio_app.py", "gradio", folder, llm) as served, httpx.Client(base_url=served.url) as client:
        api = client.get("/config").json()["api_prefix"]
        session = uuid.uuid4().hex
        functions = client.get("/config").json()["dependencies"]
        chat = next(each["id"] for each in functions if each["api_name"] == "answer")
        asked = {"data": ["why", None], "fn_index": chat, "session_hash": session}
        client.post(f"{api}/queue/join", json=asked).raise_for_status()
        with client.stream("GET", f"{api}/queue/data", params={"session_hash": session}, timeout=30) as answer:
            messages = [data for _, data in events(answer.iter_lines())]
    logged = [message["log"] for message in messages if message["msg"] == "log"]
    assert logged == ["healed: transport"]
    (done,) = (message for message in messages if message["msg"] == "process_completed")
    assert done["success"]
    assert TEXT in json.dumps(done["output"])


# Chainlit


async def test_chainlit_heals_stops_and_lets_go(folder: Path, provider: Callable[..., FaultServer]) -> None:
    need("chainlit", "socketio")
    llm = provider(FAULTS["reset"].at(80), None, None, None, token=8, delay=0.01)
    with running("chainlit_app.py", "chainlit", folder, llm) as served:
        async with ChainlitReader(served.url) as reader:
            await reader.ask("why")
            assert await reader.until_over() == TEXT + "\n\n*healed: transport*"

            await reader.ask("and")
            await reader.until_some()
            await reader.stop()
            await reader.until_over()
            partial = await asyncio.to_thread(was_stopped, llm, 2)

            await reader.ask("so")
            await reader.until_some()
            before = turns(llm, 3)[-5:-1]
            assert before[:3] == [("user", "why"), ("assistant", TEXT), ("user", "and")]
            assert partial.startswith(before[3][1])
        await asyncio.to_thread(was_stopped, llm, 3)
