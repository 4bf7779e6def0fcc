"""On real servers: whoever leaves stops the LLM and harms nobody, and every end is stated on the wire."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support.serve_apps import CASES, FAILS_AT, SILENCE, TEXT, WITHOUT_GC
from support.servers import HOST, Running, nginx, serving
from support.sse_readers import (
    A_SECOND,
    LEFT_AT,
    check_left,
    eventually,
    get,
    leave,
    name,
    of_all_cases,
    read,
    state,
)

GRACEFUL = {
    "uvicorn-h11": ["--timeout-graceful-shutdown", "1"],
    "uvicorn-httptools": ["--timeout-graceful-shutdown", "1"],
    "hypercorn": ["--graceful-timeout", "1"],
    "granian": ["--workers-kill-timeout", "1"],
    "gunicorn-uvicorn": ["--graceful-timeout", "1"],
    "gunicorn-asgi": ["--graceful-timeout", "1"],
}
# They cancel what goes on when their patience is over. The others kill their workers, some of them a moment later.
TELLING = ("uvicorn-h11", "uvicorn-httptools")  # hypercorn on most days
SHORT = 30
SECOND_WAYS = ("uvicorn-httptools", "gunicorn-asgi")  # to run a server that is tested in any case: slow tests


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            server,
            marks=[
                pytest.mark.xdist_group(f"fastapi-{server}"),
                *([pytest.mark.slow] if server in SECOND_WAYS else []),
            ],
        )
        for server in GRACEFUL
    ],
)
def app(request: pytest.FixtureRequest) -> Iterator[Running]:
    with serving("support.serve_apps:asgi", request.param, args=GRACEFUL[request.param], env=WITHOUT_GC) as running:
        assert eventually(lambda: _answers(running), 30), running.log
        yield running


def _answers(running: Running) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return get(running.url + "/light").status_code == 200
    return False


# Leaving


def leave_and_check(app: Running, case: tuple[str, str, str], *, under: str = "", reset: bool = False) -> None:
    which = name()
    leave(app.port, f"{under}/ask/{which}/{'/'.join(case)}", reset=reset)
    check_left(app, which, case[0], case[1])


@pytest.mark.parametrize("kind_and_engine", sorted({case[:2] for case in CASES}), ids="-".join)
def test_the_llm_stops_when_its_reader_leaves(app: Running, kind_and_engine: tuple[str, str]) -> None:
    for how in ("sync", "async"):
        leave_and_check(app, (*kind_and_engine, how))


def test_llm_stops_when_the_connection_is_reset(app: Running) -> None:
    for how in ("sync", "async"):
        leave_and_check(app, ("query", "resilient", how), reset=True)


def test_llm_stops_when_its_reader_leaves_behind_middleware(app: Running) -> None:
    for case in (("query", "resilient", "sync"), ("chat", "resilient", "sync"), ("chat", "resilient", "async")):
        leave_and_check(app, case, under="/within")


def test_users_generator_is_closed_when_its_reader_leaves(app: Running) -> None:
    which = name()
    leave(app.port, f"/generator/{which}")
    assert eventually(lambda: state(app, which)["closed"], 2.0), "left to the garbage collector"
    assert state(app, which)["closed"] == ["resilient-answer"]


class Ticker:
    """Another reader, with a token each 20 ms: the longest that it had to wait for one."""

    def __init__(self, url: str) -> None:
        self.gap = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(url,))

    def _read(self, url: str) -> None:
        with httpx.stream("GET", url + "/ticker", timeout=30, verify=False) as response:
            before = None
            for _ in response.iter_raw():
                now = time.monotonic()
                self.gap = max(self.gap, 0 if before is None else now - before)
                before = now
                if self._over.is_set():
                    return

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _light(app: Running) -> float:
    """How long a light route takes."""
    began = time.monotonic()
    assert get(app.url + "/light").status_code == 200
    return time.monotonic() - began


def _longest_wait(app: Running, leaving: list[str]) -> float:
    """Of a reader of another stream, and of a light route, while these are left, and garbage is collected."""
    slowest = 0.0
    with Ticker(app.url) as ticker, ThreadPoolExecutor(len(CASES)) as readers:
        left = [readers.submit(leave, app.port, path) for path in leaving]
        while not all(each.done() for each in left):
            slowest = max(slowest, _light(app))
        for each in left:
            each.result()
        for _ in range(3):
            assert get(app.url + "/collect").status_code == 200
            slowest = max(slowest, _light(app))
    return max(ticker.gap, slowest)


def test_other_streams_are_not_delayed_when_readers_leave(app: Running) -> None:
    """A chat stream that is left to the garbage collector stops the whole worker until its LLM has said everything."""
    measured = []
    for _ in range(4):  # the machine has other things to do; what is frozen is frozen each time
        collecting_alone = _longest_wait(app, [])
        waited = _longest_wait(app, [f"/ask/{name()}/{'/'.join(case)}" for case in CASES])
        print(f"others waited {waited:.2f} s at most, {collecting_alone:.2f} s of it where nobody leaves")
        if waited < 0.5 + collecting_alone:
            return
        measured.append((waited, collecting_alone))
    pytest.fail(f"others waited {measured}")


def test_a_stop_is_no_disconnect(app: Running) -> None:
    def stop(which: str) -> None:
        httpx.post(f"{app.url}/stop/{which}", timeout=10, verify=False).raise_for_status()

    for case, got in zip(CASES, of_all_cases(app, during=stop), strict=True):
        assert got.error == "", case
        assert got.last == {"event": "done", "status": "cancelled"}, case
        assert got.events[-1].id.endswith(".end")
        assert TEXT.startswith(got.text)
        assert LEFT_AT * 4 <= len(got.text) <= (LEFT_AT + 2 * A_SECOND) * 4, case


# Endings


def test_a_whole_answer(app: Running) -> None:
    for case, got in zip(CASES, of_all_cases(app, f"tokens={SHORT}"), strict=True):
        assert got.text == TEXT[: SHORT * 4], case
        assert got.last == {"event": "done", "status": "complete"}, case
        count = len(got.events)
        assert [each.id for each in got.events] == [*map(str, range(1, count)), f"{count}.end"]
        assert got.chunks > SHORT / 3, "in one block"


def test_a_healed_answer(app: Running) -> None:
    for case, got in zip(CASES, of_all_cases(app, f"tokens={SHORT}&script=healed"), strict=True):
        assert got.text == TEXT[: SHORT * 4], case
        assert got.last == {"event": "done", "status": "complete"}, case
        recoveries = [json.loads(each.data) for each in got.events if each.event == "recovery"]
        assert recoveries == [{"attempt": 2, "reason": "transport"}], case


def test_an_llm_that_fails_for_good(app: Running) -> None:
    for case, got in zip(CASES, of_all_cases(app, "script=fails"), strict=True):
        assert got.text == TEXT[: FAILS_AT * 4], case
        assert got.last == {"event": "error", "status": "interrupted", "reason": "attempts", "retryable": True}, case
        assert b"reset" not in got.raw, "what went wrong is for the log"


def test_a_silence_is_filled_from_the_beginning(app: Running) -> None:
    for case, got in zip(CASES, of_all_cases(app, "script=silent&heartbeat=0.3&tokens=3"), strict=True):
        assert got.last == {"event": "done", "status": "complete"}, case
        assert got.raw.startswith(b": still here\n")
        assert got.raw.partition(b'data: {"text"')[0].count(b": still here\n") >= SILENCE / 0.3 / 2, case


def test_plain_text(app: Running) -> None:
    for how in ("sync", "async"):
        got = read(f"{app.url}/text/{name()}/{how}?tokens={SHORT}")
        assert got.raw.decode() == TEXT[: SHORT * 4]
        assert got.error == ""
        got = read(f"{app.url}/text/{name()}/{how}?script=fails")
        assert got.raw.decode() == TEXT[: FAILS_AT * 4] + "\n\n[The answer was interrupted.]"
        assert got.error == "RemoteProtocolError", "and without the end that HTTP has"


@pytest.mark.parametrize("what", ["engine", "string"])
def test_wrong_objects_fail_loudly(app: Running, what: str, request: pytest.FixtureRequest) -> None:
    got = read(f"{app.url}/wrong/{what}")
    assert got.status == 500
    if request.node.callspec.params["app"] != "gunicorn-asgi":  # which logs no exception once there is a status
        assert eventually(lambda: "ConfigurationError" in app.log)
    got = read(f"{app.url}/wrong-made/{what}")
    assert got.last == {"event": "error", "status": "interrupted", "reason": "error", "retryable": False}


def test_sixty_silent_streams_leave_the_frameworks_threads_alone(app: Running) -> None:
    """Starlette's pool has forty, and a health check that is a plain function needs one."""
    many = 60
    with contextlib.ExitStack() as readers:
        connections = []
        for _ in range(many):
            connection = readers.enter_context(socket.create_connection((HOST, app.port), 10))
            path = f"/ask/{name()}/query/resilient/sync?script=silent&heartbeat=0.2"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            connections.append(connection)
        for connection in connections:
            received = b""
            while received.count(b": still here\n") < 2:
                chunk = connection.recv(4096)
                assert chunk, received
                received += chunk
        assert get(app.url + "/pooled").status_code == 200


# Behind nginx

PROXIES: dict[str, dict[str, Any]] = {
    "default": {},
    "tuned": {"location": ("proxy_http_version 1.1;", 'proxy_set_header Connection "";')},
    "gzip": {"http": ("gzip on;", "gzip_types text/event-stream;", "gzip_min_length 1;")},
}


@pytest.mark.parametrize("proxy", PROXIES)
def test_behind_nginx_everything_arrives_as_it_comes(app: Running, proxy: str) -> None:
    options = dict(PROXIES[proxy])
    which = name()
    with nginx(app.port, *options.pop("location", ()), **options) as running, ThreadPoolExecutor(3) as readers:
        left = readers.submit(leave, running.port, f"/ask/{which}/chat/resilient/sync")
        failing = readers.submit(read, f"{running.url}/ask/{name()}/chat/resilient/async?script=fails")
        url = f"{running.url}/ask/{name()}/query/resilient/sync?tokens={SHORT}"
        got = read(url, headers={"Accept-Encoding": "gzip"})
        assert got.text == TEXT[: SHORT * 4]
        assert got.last == {"event": "done", "status": "complete"}
        assert got.chunks > SHORT / 3, "in one block"
        got = failing.result()
        assert got.text == TEXT[: FAILS_AT * 4]
        assert got.last == {"event": "error", "status": "interrupted", "reason": "attempts", "retryable": True}
        left.result()
        check_left(app, which, "chat", "resilient")


def test_an_impatient_proxy_hears_a_heartbeat(app: Running) -> None:
    with nginx(app.port, "proxy_read_timeout 1s;") as running, ThreadPoolExecutor(2) as readers:
        path = f"/query/resilient/async?heartbeat=0.3&tokens={SHORT}&script="
        urls = [f"{running.url}/ask/{name()}{path}{script}" for script in ("silent", "stalls")]
        for got in readers.map(read, urls):
            assert got.error == ""
            assert got.text == TEXT[: SHORT * 4]
            assert got.last == {"event": "done", "status": "complete"}


# The last one: it ends the server


def test_the_server_shuts_down(app: Running, request: pytest.FixtureRequest) -> None:
    """Where the server lets it, the reader is told; where not, it sees a cut. Never an end that looks like one."""
    with ThreadPoolExecutor(2) as readers:
        reading = [readers.submit(read, f"{app.url}/ask/{name()}/query/resilient/{how}") for how in ("sync", "async")]
        time.sleep(0.3)
        app.process.send_signal(signal.SIGTERM)
        for each in reading:
            got = each.result()
            told = got.last["event"] == "error"
            print(f"{request.node.name}: {len(got.text) // 4} tokens, told: {told}, error: {got.error}")
            assert TEXT.startswith(got.text)
            if got.text == TEXT:
                assert got.last == {"event": "done", "status": "complete"}
            elif told:
                assert got.last == {"event": "error", "status": "interrupted", "reason": "server", "retryable": True}
            else:
                assert got.error, "a clean end without a last event"
            assert told or request.node.callspec.params["app"] not in TELLING
