"""`doctor url` on real servers: every way in which streaming endpoints go wrong is named, and a good one is left alone.

The rows were measured; what a server or a proxy makes of a fault is theirs, and nothing here imitates it.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llama_index_resilient_stream.cli import app
from llama_index_resilient_stream.doctor.endpoint import plan, probe
from llama_index_resilient_stream.doctor.endpoint.findings import Level
from llama_index_resilient_stream.doctor.endpoint.plan import Plan
from llama_index_resilient_stream.doctor.endpoint.probe import ProbeRequest
from support.doctor_house import H11, HTTPTOOLS, NEW_HOP, OLD_HOP, House, Row, examine, look, open_house, serious
from support.servers import PLAIN_SERVERS, free_port, nginx, require

IMPATIENT = "proxy_read_timeout 1s;"
GZIP = ("gzip on;", "gzip_types text/event-stream;")


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "CACHED_AFTER", 0.0)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with open_house() as house:
        yield house


BLIND = {"http10_without_chunks": ("http10_framing",)}
NO_ACCEL = {"no_accel_header": ("no_accel_header",)}
UNSAID = {"no_terminal_event": ("no_terminal_event", "swallowed_exception")}
HIDDEN = {"hidden_cut": ("http10_hop",)}
WHOLE_BODY = {"one_block_with_length": ("string_returned", "body_reading_middleware")}
IDLE = {"cut_after_silence": ("idle_timeout",)}

TABLE = {
    # it came in one block
    "buffered": Row("/no-accel", {"held_back": ("proxy_buffering",), **NO_ACCEL}, H11, proxy=OLD_HOP),
    "buffered, direct unknown": Row(
        "/no-accel",
        {"one_block": ("proxy_buffering", "collected", "llm_at_once", "body_reading_middleware")},
        H11,
        proxy=OLD_HOP,
        direct=False,
    ),
    "compressed": Row("/no-accel", {"compressed": ("compression",), **NO_ACCEL}, proxy=(*NEW_HOP, *GZIP)),
    "a string": Row("/string", WHOLE_BODY, proxy=NEW_HOP),
    "a string, direct unknown": Row(
        "/string",
        {"one_block_with_length": ("string_returned", "body_reading_middleware", "proxy_buffering")},
        proxy=NEW_HOP,
        direct=False,
    ),
    "middleware": Row("/good", WHOLE_BODY, app="collecting", proxy=NEW_HOP),
    "all at once": Row(
        "/at-once", {"one_block": ("collected", "llm_at_once", "body_reading_middleware")}, proxy=NEW_HOP
    ),
    # it was empty
    "consumed": Row("/consumed", {"empty": ("consumed",)}),
    "consumed, behind a hop": Row("/consumed", {"empty": ("consumed",), **BLIND}, H11, proxy=OLD_HOP),
    "the response object": Row("/object", {"empty_cut": ("wrong_object", "exception")}),
    "the response object, behind a hop": Row(
        "/object", {"empty_cut": ("wrong_object", "exception"), **HIDDEN}, H11, proxy=OLD_HOP
    ),
    "raised before the first token": Row("/raises-first", {"empty_cut": ("wrong_object", "exception")}),
    # a proxy lost patience
    "idle": Row("/silent", IDLE, proxy=(*NEW_HOP, IMPATIENT), timeout=1),
    "idle, over a hop": Row("/silent", IDLE, H11, proxy=(*OLD_HOP, IMPATIENT), timeout=1),
    "idle, direct unknown": Row(
        "/silent",
        {"cut_after_silence": ("idle_timeout", "exception", "killed_worker")},
        proxy=(*NEW_HOP, IMPATIENT),
        direct=False,
        timeout=1,
    ),
    "idle before the first token": Row(
        "/silent-first", {"silent_from_the_start": ("idle_timeout",)}, proxy=(*NEW_HOP, IMPATIENT), timeout=1
    ),
    "idle, and no terminal event": Row("/unsaid-silent", {**IDLE, **UNSAID}, proxy=(*NEW_HOP, IMPATIENT), timeout=1),
    "504": Row("/late", {"gateway_timeout": ("gateway_timeout",)}, proxy=(*NEW_HOP, IMPATIENT), timeout=1),
    # it was cut
    "raised": Row("/raises", {"cut_at_the_same_place": ("exception",)}),
    "raised, behind a hop": Row("/raises", {"cut_at_the_same_place": ("exception",), **HIDDEN}, H11, proxy=OLD_HOP),
    "raised, behind a hop, direct unknown": Row(
        "/raises",
        {"no_terminal_event": ("no_terminal_event", "swallowed_exception", "http10_hop")},
        H11,
        proxy=OLD_HOP,
        direct=False,
    ),
    "raised after silence": Row(
        "/raises-after-silence", {"cut_after_silence": ("exception", "killed_worker")}, proxy=NEW_HOP
    ),
    "raised in Flask": Row("/raises", {"cut_at_the_same_place": ("exception",), **BLIND}, "gunicorn-gthread", "flask"),
    "a killed worker": Row(
        "/killed", {"cut_in_mid_flow": ("exception", "killed_worker", "time_limit")}, "gunicorn-uvicorn"
    ),
    "a limit on time": Row(
        "/long",
        {"cut_at_the_same_time": ("time_limit",), **BLIND},
        "gunicorn-sync",
        "flask",
        ("--timeout", "2"),
        repeat=3,
    ),
    # it does not say that it is all
    "no terminal event": Row("/unsaid", UNSAID, proxy=NEW_HOP),
    "a swallowed exception": Row(
        "/swallowed", {"no_terminal_event": ("swallowed_exception", "no_terminal_event")}, proxy=NEW_HOP
    ),
    "an error event": Row("/error-event", {"error_event": ("exception",)}),
    "plain text": Row("/plain-text", {"not_sse": ("not_sse",), **UNSAID}, proxy=NEW_HOP),
    # what is missing
    "no header for nginx": Row("/no-accel", NO_ACCEL, proxy=NEW_HOP),
    "no heartbeat": Row("/silent", {}, proxy=NEW_HOP, hints=("no_heartbeat",)),
    "no ids": Row("/no-ids", {}, proxy=NEW_HOP, hints=("no_ids",)),
    "begins again": Row("/again", {"restarts_on_reconnect": ("not_resumed",)}, proxy=NEW_HOP),
    # no answer
    "it is over": Row("/over", {}, hints=("no_content",)),
    "500": Row("/returned", {"server_error": ("exception", "response_returned")}),
    "404": Row("/nowhere", {"refused": ("wrong_path",)}),
    "a redirect": Row("/good/", {"redirect": ("redirect",)}),
    # nothing is wrong
    "good": Row("/good", {}, proxy=NEW_HOP),
    "good, no proxy": Row("/good", {}),
    "good, compressed and flushed": Row("/good", {}, proxy=(*NEW_HOP, *GZIP)),
    "heartbeats": Row("/beating", {}, proxy=(*NEW_HOP, IMPATIENT)),
    "heartbeats before the first token": Row("/beating-first", {}, proxy=(*NEW_HOP, IMPATIENT)),
    "[DONE]": Row("/openai", {}, proxy=NEW_HOP),
}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=name, marks=pytest.mark.xdist_group(f"endpoints on {row.server}"))
        for name, row in TABLE.items()
    ],
)
def test_the_cause_is_named(house: House, row: Row) -> None:
    if row.path == "/swallowed":
        require("fastapi.sse")
    for _ in range(3):  # a busy machine may be silent itself, but not each time
        measurements, findings = examine(house, row)
        hints = tuple(finding.rule for finding in findings if finding.level is Level.HINT)
        if "no_heartbeat" not in hints or hints == row.hints:
            break
    assert serious(findings) == row.found, measurements
    assert hints == row.hints
    if row.timeout:
        assert [finding.timeout for finding in findings if finding.timeout] == [row.timeout]


# What default nginx will make of an application: a request in HTTP/1.0 foretells it

CHUNKED = {HTTPTOOLS, "gunicorn-uvicorn", "flask"}
WSGI = {"flask", "gunicorn-sync", "gunicorn-gthread"}


@pytest.mark.slow
@pytest.mark.parametrize("server", PLAIN_SERVERS)
def test_a_request_in_http_1_0_foretells_the_blind_hop(house: House, server: str) -> None:
    row = Row("/unsaid", {} if server in CHUNKED else BLIND, server, "flask" if server in WSGI else "asgi")
    found = serious(examine(house, row)[1])
    assert found.pop("no_terminal_event")
    assert found == row.found


@pytest.mark.slow
@pytest.mark.parametrize("server", PLAIN_SERVERS)
def test_a_terminal_event_makes_any_hop_harmless(house: House, server: str) -> None:
    row = Row("/good", {}, server, "flask" if server in WSGI else "asgi")
    assert examine(house, row)[1] == []


# How many at once


def test_forty_threads_are_a_step(house: House) -> None:
    app = house.app()
    findings = look(Plan(app.url + "/sync-whole", parallel=44))
    assert serious(findings)["limited_concurrency"] == ("thread_pool",)


def test_a_blocked_loop_is_a_step_for_everybody(house: House) -> None:
    findings = look(Plan(house.app().url + "/blocks", parallel=3))
    assert serious(findings)["limited_concurrency"] == ("blocked_loop", "one_worker")


def test_a_blocked_loop_stalls_a_light_route(house: House) -> None:
    app = house.app()
    findings = look(Plan(app.url + "/blocks", quick_url=app.url + "/light"))
    assert serious(findings)["quick_route_stalls"] == ("blocked_loop", "one_worker")


def test_an_async_endpoint_has_neither(house: House) -> None:
    app = house.app()
    assert not look(Plan(app.url + "/good", parallel=8, quick_url=app.url + "/light"))


# No answer at all


def test_unreachable_endpoint() -> None:
    assert serious(look(Plan(f"http://127.0.0.1:{free_port()}/"))) == {"unreachable": ("unreachable",)}


def test_the_host_is_unknown() -> None:
    assert serious(look(Plan("http://no-such-host.invalid/"))) == {"unreachable": ("unknown_host",)}


def test_the_application_is_down_behind_its_proxy() -> None:
    with nginx(free_port()) as proxy:
        assert serious(look(Plan(proxy.url))) == {"bad_gateway": ("bad_gateway",)}


def test_https_is_asked_where_http_is_spoken(house: House) -> None:
    url = house.app().url.replace("http:", "https:")
    assert serious(look(Plan(url, ProbeRequest(timeout=5)))) == {"no_answer": ("wrong_scheme",)}


def test_https_is_asked_where_nothing_answers_a_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that waits for the end of the headers waits for ever: a handshake has none."""
    monkeypatch.setattr(probe, "CONNECTING", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/ask"
        (found,) = look(Plan(url))
        result = command(url)
    assert (found.rule, found.causes) == ("no_answer", ("wrong_scheme",))
    assert "nothing answered the TLS handshake" in found.seen
    for part in (url, "https where http is spoken", "ask http:// in place of https://"):
        assert part in result.stdout


def test_time_to_connect_is_none_to_answer(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "CONNECTING", 0.5)
    assert serious(look(Plan(house.app().url + "/silent", ProbeRequest(timeout=1.5)))) == {
        "gave_up": ("long_answer", "stalled")
    }


def test_the_direct_url_is_another_one(house: House) -> None:
    app = house.app()
    asked = Plan(house.proxy(app, *NEW_HOP).url + "/good", direct=app.url + "/nowhere")
    assert serious(look(asked)) == {"direct_unusable": ("wrong_direct",)}


def test_reading_that_timed_out_is_named(house: House) -> None:
    findings = look(Plan(house.app().url + "/silent", ProbeRequest(timeout=1.0)))
    assert serious(findings) == {"gave_up": ("long_answer", "stalled")}


def test_endpoint_with_its_own_terminal_event(house: House) -> None:
    asked = Plan(house.app().url + "/own-end", ProbeRequest(terminal="THE END"))
    assert not look(asked)
    assert set(serious(look(replace(asked, request=ProbeRequest())))) == {"no_terminal_event"}


def test_over_tls(house: House, tmp_path: Path) -> None:
    require("openssl")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    tls = (f"listen 127.0.0.1:{port} ssl;", f"ssl_certificate {certificate};", f"ssl_certificate_key {key};")
    app = house.app()
    with nginx(app.port, *NEW_HOP, IMPATIENT, server=tls):
        url, direct = f"https://127.0.0.1:{port}", app.url
        assert serious(look(Plan(url + "/good"))) == {"no_answer": ("self_signed",)}
        request = ProbeRequest(insecure=True)
        assert not look(Plan(url + "/good", request, direct=direct + "/good"))
        assert serious(look(Plan(url + "/silent", request, direct=direct + "/silent"))) == IDLE


# The command


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["doctor", "url", *arguments], env={"COLUMNS": "100"}, catch_exceptions=False)


def test_the_command_names_the_cause_and_the_lines(house: House) -> None:
    app = house.app(H11)
    result = command(house.proxy(app, *OLD_HOP).url + "/no-accel", "--direct", app.url + "/no-accel")
    assert result.exit_code == 1
    for part in ("a proxy collects the answer", "proxy_http_version 1.1;", "proxy_buffering off;", "X-Accel-Buffering"):
        assert part in result.stdout


def test_forty_columns(house: House) -> None:
    url = house.app().url + "/raises"
    result = CliRunner().invoke(app, ["doctor", "url", url, "--repeat", "1"], env={"COLUMNS": "40"})
    assert "status 200, body chunked, events 5" in " ".join(result.stdout.split())
    assert max(len(line) for line in result.stdout.splitlines() if url not in line) <= 40
    assert "Next: fix the first one" in result.stdout


def test_the_command_says_that_nothing_is_wrong(house: House) -> None:
    result = command(house.app().url + "/good")
    assert result.exit_code == 0
    assert "Nothing to fix." in result.stdout


def test_the_command_for_machines(house: House) -> None:
    result = command(house.app().url + "/raises", "--json", "--repeat", "1")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert not told["fine"]
    finding = told["findings"][0]
    assert finding["rule"] == "cut_in_mid_flow"
    assert [cause["id"] for cause in finding["causes"]] == ["exception", "killed_worker", "time_limit"]
    assert finding["causes"][1]["fixes"][0]["where"] == "uvicorn"
    assert told["answers"][0]["events"] == 5


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["rich", "json"])
@pytest.mark.parametrize("path", ["/posted", "/error-event", "/own-end"])
def test_no_secret_and_no_text_comes_out(house: House, path: str, more: list[str]) -> None:
    url = house.app().url.replace("//", "//user:sk-secret@") + path + "?key=sk-secret"
    post = ["--data", '{"q": "?"}'] if path == "/posted" else []
    secrets = ["--header", "Authorization: Bearer sk-secret", "--header", "Cookie: sk-secret"]
    result = command(url, *secrets, "--terminal", "THE END", *post, *more)
    assert result.exit_code == (1 if path == "/error-event" else 0), result.output
    assert not re.search(r"sk-secret|user:|token \d|THE END", result.output)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ftp://localhost/"], "ftp://localhost/ is no URL"),
        (["localhost:8000/ask?key=sk-secret"], "Write http://localhost:8000/ask or"),
        (["http://localhost/", "--header", "sk-secret"], "--header takes"),
        (["http://localhost/", "--data", "@/nowhere/at/all"], "No such file"),
    ],
    ids=["scheme", "no-scheme", "header", "file"],
)
def test_a_mistake_in_the_command(arguments: list[str], said: str) -> None:
    result = command(*arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "sk-secret" not in result.output


def test_a_body_from_a_file(house: House, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"q": "?"}', encoding="utf-8")
    arguments = ["--header", "Authorization: Bearer sk-secret", "--data", f"@{body}"]
    assert command(house.app().url + "/posted", *arguments).exit_code == 0
    assert command(house.app().url + "/posted", *arguments, "--method", "PUT").exit_code == 1  # 405
