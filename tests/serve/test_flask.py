"""Answers on WSGI: with Flask's own test client, and on gunicorn's threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx_sse
import pytest
from flask import Flask
from flask.testing import FlaskClient

from llama_index_resilient_stream import ConfigurationError
from llama_index_resilient_stream.serve.flask import on_loop, sse_response, text_response
from support.serve_apps import ASKED, CASES, FAILS_AT, TEXT, WITHOUT_GC, reads, wsgi
from support.servers import Running, nginx, serving
from support.sse_readers import A_SECOND, LEFT_AT, check_left, eventually, leave, name, of_all_cases, read

SHORT = 30


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    yield wsgi.test_client()
    assert eventually(lambda: not any(map(reads, threading.enumerate()))), "a thread was left behind"


def events(body: bytes) -> list[tuple[str, Any]]:
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    return [(each.event, each.json()) for each in httpx_sse.EventSource(response).iter_sse()]


# Without a server


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_events(client: FlaskClient, case: tuple[str, str, str]) -> None:
    response = client.get(f"/ask/{name()}/{'/'.join(case)}?tokens=5&script=whole")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert "Content-Length" not in response.headers
    *said, last = events(response.data)
    assert "".join(data["text"] for kind, data in said if kind == "message") == TEXT[:20]
    assert last == ("done", {"status": "complete"})


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_failure_is_stated(client: FlaskClient, how: str) -> None:
    response = client.get(f"/ask/{name()}/query/resilient/{how}?script=fails")
    assert events(response.data)[-1] == (
        "error",
        {"status": "interrupted", "reason": "attempts", "retryable": True},
    )


@pytest.mark.parametrize("how", ["sync", "async"])
def test_heartbeats(client: FlaskClient, how: str) -> None:
    response = client.get(f"/ask/{name()}/query/resilient/{how}?script=silent&heartbeat=0.3&tokens=3")
    assert response.data.partition(b'data: {"text"')[0].count(b": still here\n") >= 3


@pytest.mark.parametrize("read", [0, LEFT_AT])
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_closing_is_leaving(client: FlaskClient, case: tuple[str, str, str], read: int) -> None:
    which = name()
    response = client.get(f"/ask/{which}/{'/'.join(case)}", buffered=False)
    chunks = iter(response.response)
    received = b""
    while received.count(b'data: {"text"') < read:
        received += next(chunks)
    response.close()
    calls = ASKED[which].llm.calls
    assert eventually(lambda: all(call.state == "closed" for call in calls))
    assert sum(len(call.sent) for call in calls) <= (read + A_SECOND) * 4
    assert calls or not read


@pytest.mark.parametrize("method", ["get", "head"])
def test_response_that_nobody_reads_is_closed(method: str) -> None:
    closed: list[bool] = []

    class Noticing(Iterator[str]):
        def __next__(self) -> str:
            return "x"

        def close(self) -> None:
            closed.append(True)

    app = Flask(__name__)
    app.get("/")(lambda: sse_response(Noticing()))
    response = getattr(app.test_client(), method)("/", buffered=False)
    response.close()
    assert closed


def test_plain_text(client: FlaskClient) -> None:
    assert client.get(f"/text/{name()}/sync?tokens=5").data.decode() == TEXT[:20]
    assert client.get(f"/text/{name()}/async?tokens=5").data.decode() == TEXT[:20]


@pytest.mark.parametrize("respond", [sse_response, text_response])
def test_wrong_objects(respond: Callable[[Any], Any]) -> None:
    with wsgi.test_request_context("/"), pytest.raises(ConfigurationError, match="plain string"):
        respond("an answer")


def test_coming_back_to_what_is_not_resumable(client: FlaskClient) -> None:
    url = f"/ask/{name()}/query/resilient/sync"
    lost = client.get(url, headers={"Last-Event-ID": "3"})
    assert events(lost.data) == [("error", {"status": "lost", "reason": "not_resumable", "retryable": True})]
    assert client.get(url, headers={"Last-Event-ID": "7.end"}).status_code == 204


def test_one_loop_serves_all_requests_of_a_process() -> None:
    async def which() -> int:
        import asyncio

        return id(asyncio.get_running_loop())

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: on_loop(which()), range(50)))) == 1


# On gunicorn


@pytest.fixture(
    scope="module",
    params=[pytest.param(start, marks=pytest.mark.xdist_group(f"flask-{start}")) for start in ("preload", "worker")],
)
def app(request: pytest.FixtureRequest) -> Iterator[Running]:
    """With --preload the app is imported, and asked once, before the workers are forked."""
    args = ["--threads", "16", *(["--preload"] if request.param == "preload" else [])]
    app = "support.serve_apps:wsgi_that_was_asked()" if request.param == "preload" else "support.serve_apps:wsgi"
    with serving(app, "gunicorn-gthread", args=args, env=WITHOUT_GC) as running:
        # The first request waits until the worker has imported the app.
        assert httpx.get(running.url + "/light", timeout=60).status_code == 200
        yield running


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_the_llm_stops_when_its_reader_leaves(app: Running, case: tuple[str, str, str]) -> None:
    which = name()
    leave(app.port, f"/ask/{which}/{'/'.join(case)}")
    check_left(app, which, case[0], case[1])


def test_answers_of_all_kinds_at_once(app: Running) -> None:
    for case, got in zip(CASES, of_all_cases(app, f"tokens={SHORT}&script=healed"), strict=True):
        assert got.text == TEXT[: SHORT * 4], case
        assert got.last == {"event": "done", "status": "complete"}, case
        assert got.chunks > SHORT / 3, "in one block"


def test_a_stop_and_a_failure(app: Running) -> None:
    which = name()
    stop = f"{app.url}/stop/{which}"
    url = f"{app.url}/ask/{which}/chat/resilient/sync"
    got = read(url, during=lambda: httpx.post(stop, timeout=10, verify=False).raise_for_status())
    assert got.last == {"event": "done", "status": "cancelled"}
    got = read(f"{app.url}/ask/{name()}/query/resilient/async?script=fails")
    assert got.text == TEXT[: FAILS_AT * 4]
    assert got.last == {"event": "error", "status": "interrupted", "reason": "attempts", "retryable": True}


def test_plain_text_that_is_not_whole_has_no_end(app: Running) -> None:
    got = read(f"{app.url}/text/{name()}/sync?script=fails")
    assert got.raw.decode() == TEXT[: FAILS_AT * 4] + "\n\n[The answer was interrupted.]"
    assert got.error == "RemoteProtocolError"


def test_behind_an_impatient_nginx(app: Running) -> None:
    with nginx(app.port, "proxy_read_timeout 1s;") as proxy:
        began = time.monotonic()
        got = read(f"{proxy.url}/ask/{name()}/query/resilient/sync?script=silent&heartbeat=0.3&tokens={SHORT}")
    assert time.monotonic() - began > 1
    assert got.error == ""
    assert got.text == TEXT[: SHORT * 4]
    assert got.chunks > 4, "heartbeats, and then token by token"
