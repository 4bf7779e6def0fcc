"""The chat page of `serve-demo`: its three routes, and what a reader sees in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from support.servers import HEEDING_COMMAND, HOST, free_port, require

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

import uvicorn

from llama_index_resilient_stream.cli import app as cli
from llama_index_resilient_stream.cli.chat import app as chat
from llama_index_resilient_stream.cli.chat.knowledge import ANSWERS, answer_to
from llama_index_resilient_stream.cli.chat.provider import FAULT_CHOICES, ChatTiming, FlakyProvider
from llama_index_resilient_stream.cli.demo.corpus import PARAGRAPHS

pytestmark = pytest.mark.xdist_group("chromium")

COMMAND = [*HEEDING_COMMAND, "serve-demo"]
PATIENCE = 25.0  # seconds; only a failure takes that long

SHORT, STORY = "Why did the cable of 1858 fail?", "Tell me the whole story."
TIMING = ChatTiming(token=0.004, thinking=0.05, back_off=0.05, idle_timeout=1.5, client_timeout=1.0)

# What the reader of each sees of it: the story under the answer, and how many seams are in it.
HEALED = {
    "none": ("", 0),
    "reset": ("2 attempts: connection broke", 1),
    "silent_cut": ("2 attempts: cut off without a word", 1),
    "stall": ("2 attempts: fell silent", 1),
    "503": ("3 attempts: overloaded, overloaded", 0),
    "token_limit": ("2 attempts: token limit", 1),
    "three_faults": ("4 attempts: overloaded, overloaded, connection broke", 2),
}


def until(said: Callable[[], Any], what: str) -> Any:
    """Wait for it to be so."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if value := said():
            return value
        time.sleep(0.02)
    pytest.fail(f"it never came: {what}")


# The server


@dataclass
class Road:
    """Between the page and the app. `ahead` says what happens to its next requests: "cut", "503" or nothing."""

    app: Any
    ahead: list[str] = field(default_factory=list)
    travelled: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """For answers, in this test: their methods."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        about_answers = scope["type"] == "http" and scope["path"].startswith("/answers")
        self.requests += [scope["method"]] * about_answers
        if not about_answers or not self.ahead:
            await self.app(scope, receive, send)
            return
        fate = self.ahead.pop(0)
        self.travelled.append(fate)
        if fate == "503":
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body"})
            return
        left = 12 if fate == "cut" else sys.maxsize

        async def carry(message: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise ConnectionResetError
            await send(message)

        await self.app(scope, receive, carry)


@dataclass
class Site:
    url: str
    road: Road

    @property
    def providers(self) -> set[FlakyProvider]:
        found: set[FlakyProvider] = self.road.app.state.providers
        return found

    def ask(self, question: str, fault: str = "none", **more: Any) -> tuple[str, str]:
        """The id of the answer, and that of its conversation."""
        started = httpx.post(
            f"{self.url}/answers", json={"question": question, "fault": fault, **more}, trust_env=False
        )
        assert started.status_code == 200, started.text
        return started.json()["id"], started.json()["conversation"]

    def read(self, key: str, after: str = "") -> list[tuple[str, str, dict[str, Any]]]:
        """All events: id, type, data."""
        body = httpx.get(
            f"{self.url}/answers/{key}", params={"after": after}, trust_env=False, timeout=PATIENCE
        ).content.decode()
        events = []
        for block in body.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
            if "data" in fields:
                events.append((fields["id"], fields.get("event", "message"), json.loads(fields["data"])))
        return events


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving(TIMING) as site:
        yield site


@contextmanager
def serving(timing: ChatTiming) -> Iterator[Site]:
    road = Road(chat.create_app(timing))
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(road, host=HOST, port=port, log_level="critical", ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started, "the server")
    # Some of Starlette is imported with the first file. pytest compiles that, and Python 3.11 cannot do it while the
    # garbage collector reports a task that plain LlamaIndex has dropped.
    assert httpx.get(f"http://{HOST}:{port}/", trust_env=False).status_code == 200
    try:
        yield Site(f"http://{HOST}:{port}", road)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
    assert not thread.is_alive()


def cut(fault: str) -> int:
    """Behind how many characters of the short answer it comes."""
    return round(FAULT_CHOICES[fault][0][1] * len(ANSWERS[SHORT]))


def said(events: list[tuple[str, str, dict[str, Any]]]) -> str:
    return "".join(data["text"] for _, kind, data in events if kind == "message")


# The routes


def test_an_answer_is_read_as_often_and_from_wherever_one_likes(site: Site) -> None:
    key, _ = site.ask(SHORT, "reset")
    events = site.read(key)
    assert said(events) == ANSWERS[SHORT]
    assert [kind for _, kind, _ in events if kind != "message"] == ["sources", "recovery", "joint", "done"]
    assert events[-1][2] == {"status": "complete"}
    for at in range(0, len(events) - 1, 17):
        assert site.read(key, after=events[at][0]) == events[at + 1 :]


def test_the_recovery_comes_behind_the_last_text_before_it(site: Site) -> None:
    events = site.read(site.ask(SHORT, "reset")[0])
    at = [kind for _, kind, _ in events].index("recovery")
    assert said(events[:at]) == ANSWERS[SHORT][: cut("reset")]


def test_a_stop_reaches_the_provider(site: Site) -> None:
    key, _ = site.ask(STORY)
    (provider,) = until(lambda: list(site.providers), "a provider")
    until(lambda: provider.server.tokens_sent > 3, "some tokens")
    assert httpx.delete(f"{site.url}/answers/{key}", trust_env=False).status_code == 204
    events = site.read(key)
    assert events[-1][1:] == ("done", {"status": "cancelled"})
    assert ANSWERS[STORY].startswith(said(events))
    until(lambda: not site.providers, "the provider's end")
    with pytest.raises(RuntimeError, match="not running"):
        _ = provider.server.port
    assert [record.client_left for record in provider.server.requests] == [True]


def test_the_model_remembers_the_conversation_and_no_other(site: Site) -> None:
    key, conversation = site.ask("How was it found again?")
    site.read(key)
    turns = []
    for same in (conversation, ""):
        key, _ = site.ask(SHORT, conversation=same)
        (provider,) = until(lambda: list(site.providers), "a provider")
        site.read(key)
        turns.append([turn["role"] for turn in provider.server.requests[0].body["messages"]])
        until(lambda: not site.providers, "the provider's end")
    assert turns == [["system", "user", "assistant", "user"], ["system", "user"]]


def test_the_same_question_after_a_stopped_answer_is_answered_whole(site: Site) -> None:
    key, conversation = site.ask(SHORT)
    until(lambda: any(provider.server.tokens_sent > 3 for provider in site.providers), "some tokens")
    httpx.delete(f"{site.url}/answers/{key}", trust_env=False)
    assert 0 < len(said(site.read(key))) < len(ANSWERS[SHORT])
    assert said(site.read(site.ask(SHORT, "reset", conversation=conversation)[0])) == ANSWERS[SHORT]


def test_plain_llamaindex_shows_half_an_answer_as_whole_or_an_error(site: Site) -> None:
    ends = {}
    for fault in ("silent_cut", "reset", "stall"):
        events = site.read(site.ask(SHORT, fault, plain=True)[0])
        assert 0 < len(said(events)) < len(ANSWERS[SHORT])
        ends[fault] = events[-1][2]["status"]
    assert ends == {"silent_cut": "unknown", "reset": "interrupted", "stall": "interrupted"}


def test_an_answer_that_is_not_there_is_said_to_be_gone(site: Site) -> None:
    for key in ("of-a-server-that-was-restarted", "x", "%22%3E%3Cb"):
        assert [data["status"] for _, _, data in site.read(key)] == ["expired"]


@pytest.mark.parametrize(
    "body",
    [{}, {"question": ""}, {"question": "x" * 2001}, {"question": "Why?", "fault": "../reset"}],
    ids=["nothing", "empty", "long", "fault"],
)
def test_source_that_cannot_be_asked_is_refused(site: Site, body: dict[str, str]) -> None:
    assert httpx.post(f"{site.url}/answers", json=body, trust_env=False).status_code == 422


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.fault_choices: list[str] = []
        self.questions: list[str] = []
        self._tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tags.append(tag)
        if tag == "option":
            self.fault_choices.append(dict(attrs)["value"] or "")

    def handle_data(self, data: str) -> None:
        if self._tags[-2:] == ["li", "button"] and data.strip():
            self.questions.append(data)


def test_the_page_offers_what_the_server_knows(site: Site) -> None:
    page = Page(httpx.get(site.url, trust_env=False).text)
    assert sorted(page.fault_choices) == sorted(FAULT_CHOICES)
    assert page.questions == list(ANSWERS)


def test_the_page_needs_nothing_from_elsewhere(site: Site) -> None:
    for path, kind in {"": "text/html", "page.js": "text/javascript", "page.css": "text/css"}.items():
        sent = httpx.get(f"{site.url}/{path}", trust_env=False)
        assert sent.headers["content-type"].startswith(kind)
        assert not re.search(r"://|@import|innerHTML|insertAdjacentHTML|document\.write|eval\(", sent.text)
    assert httpx.get(f"{site.url}/app.py", trust_env=False).status_code == 404


# The page in a browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    require("selenium", "chromium", "chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = _program("chromium")
    for switch in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "--window-size=900,700"),
    ):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(_program("chromedriver")))
    driver.set_script_timeout(PATIENCE)
    yield driver
    driver.quit()


def _program(name: str) -> str:
    return shutil.which(name) or name


class Reader:
    """Somebody in front of the page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.forgiven = "(?!)"
        """What the browser's console may complain about."""

    def open(self, url: str) -> None:
        """In a tab of its own, which remembers nothing."""
        old = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        new = self.driver.current_window_handle
        self.driver.switch_to.window(old)
        self.driver.close()
        self.driver.switch_to.window(new)
        self.driver.get(url)

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def ask(self, question: str, fault: str = "none") -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.find("#fault")).select_by_value(fault)
        self.find("#question").send_keys(question, "\n")

    def all(self, name: str) -> list[str]:
        texts: list[str] = self.js(
            f"return [...document.querySelectorAll('article .{name}')].map((e) => e.textContent)"
        )
        return texts

    @property
    def text(self) -> str:
        return (self.all("text") or [""])[-1]

    @property
    def state(self) -> str:
        return (self.all("state") or [""])[-1]

    @property
    def busy(self) -> bool:
        return bool(self.js("return document.querySelector('[aria-busy=\"true\"]') !== null"))

    def read_on(self, characters: int) -> None:
        until(lambda: len(self.text) >= characters, f"{characters} characters")

    def read_to_the_end(self) -> None:
        until(lambda: self.all("state") and not self.busy, f"an end; it says {self.state!r}")

    def complaints(self) -> list[str]:
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        return [message for message in messages if not re.search(self.forgiven, message)]


@pytest.fixture
def reader(chromium: Any, site: Site) -> Iterator[Reader]:
    site.road.ahead.clear()
    site.road.travelled.clear()
    site.road.requests.clear()
    reader = Reader(chromium)
    reader.open(site.url)
    yield reader
    assert reader.complaints() == []


@pytest.mark.parametrize("fault", [choice for choice in FAULT_CHOICES if choice != "down"])
def test_an_answer_heals(reader: Reader, fault: str) -> None:
    reader.ask(SHORT, fault)
    reader.read_to_the_end()
    story, seams = HEALED[fault]
    assert reader.text == ANSWERS[SHORT]
    assert reader.all("question") == [SHORT]
    assert (reader.state, reader.all("story")) == ("Complete", [story])
    before = reader.js(
        "const node = document.querySelector('.seam'); if (!node) return null;"
        "const range = document.createRange(); range.setStart(node.parentNode, 0); range.setEndBefore(node);"
        "return range.toString()"
    )
    if seams:
        # After a token limit the model is asked at once, and a word or so may still be on its way to the reader.
        late = range(13) if fault == "token_limit" else range(1)
        assert cut(fault) - len(before) in late
    assert len(reader.all("seam")) == seams
    assert len(reader.all("bar > i")) == seams + 1


def test_page_does_not_ask_again_for_an_ended_answer(reader: Reader, site: Site) -> None:
    for fault in ("none", "down"):
        reader.ask(SHORT, fault)
        reader.read_to_the_end()
    time.sleep(1.3)  # after one second an EventSource would
    reader.driver.refresh()
    assert len(reader.all("text")) == 2
    assert site.road.requests == ["POST", "GET", "POST", "GET"]


def test_page_shows_what_was_asked_of_the_model(reader: Reader) -> None:
    reader.js(
        "window.seen = []; new MutationObserver(() => window.seen.push(document.querySelector('.state').textContent))"
        ".observe(document.querySelector('#log'), { childList: true, subtree: true, characterData: true })"
    )
    reader.ask(SHORT, "reset")
    reader.read_to_the_end()
    seen = list(dict.fromkeys(reader.js("return window.seen")))
    assert seen == ["Waiting for the first word", "Answering", "Asking the model to go on", "Complete"]


def test_the_page_shows_what_an_answer_is_based_on(reader: Reader) -> None:
    reader.ask(SHORT, "reset")
    reader.read_to_the_end()
    for _ in range(2):
        assert any(part in PARAGRAPHS for part in reader.all("sources")[-1].split("\n\n"))
        assert not reader.find(".sources").is_displayed()
        reader.find("summary").click()
        assert reader.find(".sources").is_displayed()
        reader.driver.refresh()


def test_reloading_in_the_middle_resumes(reader: Reader, site: Site) -> None:
    reader.ask(STORY, "three_faults")
    (provider,) = until(lambda: list(site.providers), "a provider")
    for characters in (1, 300, 900, 1500, 2100):
        reader.read_on(characters)
        reader.driver.refresh()
        assert ANSWERS[STORY].startswith(reader.text)
        assert len(reader.text) >= characters, "what was there is there again"
    reader.read_to_the_end()
    assert reader.text == ANSWERS[STORY]
    assert (reader.state, len(reader.all("seam"))) == ("Complete", 2)
    assert len(provider.server.requests) == 4, "nobody asked twice"


def test_the_conversation_is_there_after_a_reload(reader: Reader) -> None:
    for question, fault in ((SHORT, "reset"), ("How was it found again?", "none")):
        reader.ask(question, fault)
        reader.read_to_the_end()
    names = ("question", "text", "state", "story", "fault")
    before = {name: reader.all(name) for name in names}
    reader.driver.refresh()
    assert {name: reader.all(name) for name in names} == before
    assert before["text"] == [ANSWERS[SHORT], ANSWERS["How was it found again?"]]
    assert not reader.busy


@pytest.fixture(scope="module")
def unhurried_site() -> Iterator[Site]:
    """One where the story takes a minute, so that a browser on a busy machine is still in the middle of it."""
    with serving(replace(TIMING, token=60 / (len(ANSWERS[STORY]) / 4))) as site:
        yield site


@pytest.mark.parametrize("how", ["the button", "Esc"])
def test_stop_stops(reader: Reader, unhurried_site: Site, how: str) -> None:
    site = unhurried_site
    reader.open(site.url)
    reader.ask(STORY)
    (provider,) = until(lambda: list(site.providers), "a provider")
    reader.read_on(40)
    reader.find("#stop").click() if how == "the button" else reader.find("#question").send_keys("\ue00c")
    reader.read_to_the_end()
    assert reader.state == "Stopped"
    assert ANSWERS[STORY].startswith(text := reader.text)
    assert len(text) < len(ANSWERS[STORY])
    until(lambda: not site.providers, "the provider's end")
    assert [record.client_left for record in provider.server.requests] == [True]
    reader.driver.refresh()
    assert (reader.text, reader.state) == (text, "Stopped")


def test_page_offers_to_retry_a_given_up_answer(reader: Reader) -> None:
    reader.ask(SHORT, "down")
    reader.read_to_the_end()
    assert reader.state == "Interrupted: the provider did not come back"
    assert reader.text == ANSWERS[SHORT][: cut("down")]
    reader.find(".retry").click()
    until(lambda: reader.state == "Complete", "the answer")
    assert reader.all("text") == [ANSWERS[SHORT]]
    assert not reader.find(".retry").is_displayed()


def test_two_tabs_read_one_answer(reader: Reader, site: Site) -> None:
    driver = reader.driver
    first = driver.current_window_handle
    reader.ask(STORY, "reset")
    (provider,) = until(lambda: list(site.providers), "a provider")
    reader.read_on(100)
    reader.js("window.open(location.href)")
    (second,) = set(driver.window_handles) - {first}
    try:
        for tab in (second, first):
            driver.switch_to.window(tab)
            reader.read_to_the_end()
            assert reader.all("text") == [ANSWERS[STORY]]
            assert reader.complaints() == []
    finally:
        driver.switch_to.window(second)
        driver.close()
        driver.switch_to.window(first)
    assert len(provider.server.requests) == 2


def test_a_connection_that_breaks_or_is_refused_is_made_again(reader: Reader, site: Site) -> None:
    reader.forgiven = "503|INCOMPLETE_CHUNKED"
    site.road.ahead[:] = ["", "cut", "503", "503", "cut"]
    reader.ask(STORY, "reset")
    until(lambda: reader.state == "Connection lost. Reconnecting", "a word about it")
    reader.read_to_the_end()
    assert reader.text == ANSWERS[STORY]
    assert (reader.state, len(reader.all("seam"))) == ("Complete", 1)
    assert site.road.travelled == ["", "cut", "503", "503", "cut"]


def test_a_question_that_did_not_arrive_can_be_asked_again(reader: Reader, site: Site) -> None:
    reader.forgiven = "503"
    site.road.ahead[:] = ["503"]
    reader.ask(SHORT)
    reader.read_to_the_end()
    assert reader.state == "Not asked: the server could not be reached"
    reader.find(".retry").click()
    until(lambda: reader.state == "Complete", "the answer")
    assert reader.all("text") == [ANSWERS[SHORT]]


def test_text_stays_text(reader: Reader) -> None:
    question = "</h2><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&amp;"
    reader.ask(question, "reset")
    reader.read_to_the_end()
    assert reader.all("question") == [question]
    assert reader.text == answer_to(question)
    reader.driver.refresh()
    assert (reader.all("question"), reader.text) == ([question], answer_to(question))
    assert reader.js("return [document.title, document.querySelectorAll('#log img, #log script').length]") == [
        "An answer that heals",
        0,
    ]


def test_a_long_answer_keeps_its_end_in_sight_until_the_reader_scrolls_up(reader: Reader) -> None:
    gap = "const log = document.querySelector('#log'); return log.scrollHeight - log.scrollTop - log.clientHeight"
    reader.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        reader.ask("W" * 300)
        reader.read_to_the_end()
        assert reader.js("const log = document.querySelector('#log'); return log.scrollWidth - log.clientWidth") == 0
        reader.ask(STORY)
        reader.read_on(1500)
        assert reader.js(gap) < 5
        reader.js("document.querySelector('#log').scrollTop = 0")
        reader.read_to_the_end()
        assert reader.js("return document.querySelector('#log').scrollTop") == 0
        assert reader.js("return document.documentElement.scrollWidth") == 360, "nothing sticks out"
        assert reader.js("return document.documentElement.scrollHeight") == 640, "the input stays in sight"
    finally:
        reader.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_new_chat_begins_with_nothing(reader: Reader, site: Site) -> None:
    reader.ask(STORY)
    reader.read_on(20)
    reader.find("#anew").click()
    until(lambda: not site.providers, "the answer's end")
    reader.driver.refresh()
    assert reader.all("question") == []
    reader.find("#welcome button").click()
    reader.read_to_the_end()
    assert reader.text == next(iter(ANSWERS.values()))


# The command


@pytest.fixture
def serve_demo() -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(port: int) -> subprocess.Popen[str]:
        process = subprocess.Popen([*COMMAND, "--port", str(port)], stdout=-1, stderr=-1, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == f"Chat page: http://{HOST}:{port}/\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another matter there")
def test_the_page_is_honest_about_a_server_that_goes_and_comes(
    chromium: Any, serve_demo: Callable[[int], subprocess.Popen[str]]
) -> None:
    port = free_port()
    server = serve_demo(port)
    reader = Reader(chromium)
    reader.forgiven = "ERR_"
    reader.open(f"http://{HOST}:{port}")
    reader.ask(STORY)
    reader.read_on(40)
    server.kill()
    until(lambda: reader.state == "Connection lost. Reconnecting", "a word about it")
    assert reader.busy
    kept = reader.text
    server = serve_demo(port)
    reader.read_to_the_end()
    assert reader.state == "Interrupted: the server has lost the rest of it"
    assert reader.text == kept
    assert ANSWERS[STORY].startswith(kept)
    reader.find(".retry").click()
    reader.read_on(10)

    server.send_signal(signal.SIGINT)
    out, err = server.communicate(timeout=PATIENCE)
    assert (server.returncode, len(err.splitlines())) == (130, 1)
    assert err.startswith("a reader has come for an answer that another process had in its memory.")
    assert out.endswith("Stopped.\n")
    reader.read_to_the_end()
    assert reader.state == "Interrupted: the server was stopped"
    assert ANSWERS[STORY].startswith(reader.text)
    assert reader.complaints() == []


def test_a_port_that_is_taken_is_no_traceback(site: Site) -> None:
    port = site.url.rpartition(":")[2]
    result = CliRunner().invoke(cli, ["serve-demo", "--port", port])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Port {port} cannot be had: ")


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_missing_extra_names_the_install_command(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if ".cli.chat" in name or name.endswith(".serve_demo")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    result = CliRunner().invoke(cli, ["serve-demo"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"The chat page needs {missing}, which is not installed.")
    assert 'pip install "llama-index-resilient-stream[cli,serve]"' in result.stderr


def test_the_page_is_short_enough_to_be_copied() -> None:
    page = Path(chat.__file__).parent / "page"
    assert len((page / "page.js").read_text(encoding="utf-8").splitlines()) <= 200
