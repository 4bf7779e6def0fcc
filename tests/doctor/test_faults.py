"""`doctor url` on endpoints as people write them: healthy ones have nothing to fix, of others the fault comes first."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from llama_index_resilient_stream.cli import app
from llama_index_resilient_stream.doctor.endpoint import plan, probe
from llama_index_resilient_stream.doctor.endpoint.findings import Finding, Level, is_serious
from llama_index_resilient_stream.doctor.endpoint.plan import Plan
from llama_index_resilient_stream.doctor.endpoint.probe import ProbeRequest
from llama_index_resilient_stream.doctor.endpoint.remedies import lines_for
from support.doctor_house import H11, HTTPTOOLS, NEW_HOP, OLD_HOP, House, look, open_house, serious
from support.meddling_proxy import Meddling, meddling_proxy
from support.servers import Running

pytestmark = pytest.mark.slow  # it measures real time; what it makes of that is tested in test_spans.py and others

FAULTS = "doctor_faults"
POST = ProbeRequest("POST", data=b"{}")


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with open_house() as house:
        yield house


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "LINGER", 1.0)
    monkeypatch.setattr(plan, "CACHED_AFTER", 0.0)


def serving(house: House, server: str = HTTPTOOLS, name: str = "asgi") -> Running:
    return house.app(server, name, module=FAULTS)


def until(ask: Callable[[], list[Finding]], wanted: Callable[[list[Finding]], bool]) -> list[Finding]:
    """Ask, and twice more where it is not as wanted: a busy machine stands still, but not each time."""
    for _ in range(2):
        if wanted(findings := ask()):
            return findings
    return ask()


def all_fine(findings: list[Finding]) -> bool:
    return not any(is_serious(finding) for finding in findings)


# Healthy

HEALTHY = {
    "plain events": "/pace/50/25",
    "posted": "/posted",
    "done with tasks afterwards": "/ends/afterwards",
    "AI SDK": "/ai-sdk",
    "OpenAI": "/openai/whole",
    "OpenAI without [DONE]": "/openai/without-done",
    "ours": "/ours",
    "ours, synchronous": "/ours/synchronous",
    "ours, resumable": "/ours/resumable",
    "ours, text": "/ours/text",
}


BOTH_SERVERS = pytest.mark.parametrize("server", [H11, HTTPTOOLS])


@BOTH_SERVERS
@pytest.mark.parametrize("path", HEALTHY.values(), ids=HEALTHY)
def test_a_healthy_endpoint_has_nothing_to_fix(house: House, path: str, server: str) -> None:
    request = POST if path == "/posted" else ProbeRequest()
    findings = until(lambda: look(Plan(serving(house, server).url + path, request)), all_fine)
    assert serious(findings) == {}


@pytest.mark.parametrize("path", HEALTHY.values(), ids=HEALTHY)
def test_it_has_nothing_to_fix_behind_a_proxy(house: House, path: str) -> None:
    request = POST if path == "/posted" else ProbeRequest()
    direct = serving(house, H11)
    through = house.proxy(direct, *NEW_HOP)
    asked = Plan(through.url + path, request, direct=direct.url + path)
    assert serious(until(lambda: look(asked), all_fine)) == {}


PACES = {5: 12, 10: 20, 25: 40, 50: 60, 100: 100, 200: 150}


@pytest.mark.parametrize(("pace", "count"), PACES.items())
@BOTH_SERVERS
def test_it_has_nothing_to_fix_at_any_pace(house: House, pace: int, count: int, server: str) -> None:
    findings = until(lambda: look(Plan(serving(house, server).url + f"/bare/{pace}/{count}")), all_fine)
    assert serious(findings) == {}


@pytest.mark.parametrize(("pace", "count"), PACES.items())
def test_a_path_that_buffers_is_named_at_any_pace(house: House, pace: int, count: int) -> None:
    direct = serving(house, H11)
    through = house.proxy(direct, *OLD_HOP)  # nginx as it comes, which waits for the end
    path = f"/bare/{pace}/{count}"
    asked = Plan(through.url + path, direct=direct.url + path)
    findings = until(lambda: look(asked), lambda found: found[0].rule == "held_back")
    assert (findings[0].rule, findings[0].causes) == ("held_back", ("proxy_buffering",))


@pytest.mark.parametrize("pace", [5, 50, 200])
def test_a_buffer_of_some_kilobytes_is_named(house: House, pace: int) -> None:
    direct = serving(house)
    path = f"/pace/{pace}/{25 if pace == 5 else 300}"
    with meddling_proxy(direct.port, Meddling(buffer=4096)) as through:
        findings = until(lambda: look(Plan(through + path, direct=direct.url + path)), bool)
        assert (findings[0].rule, findings[0].causes) == ("held_back", ("proxy_buffering",))


def test_a_proxy_that_limits_the_bytes_is_told_from_one_that_limits_the_time(house: House) -> None:
    direct = serving(house)
    with meddling_proxy(direct.port, Meddling(reset_after=900)) as through:
        findings = look(Plan(through + "/pace/50/100", direct=direct.url + "/pace/50/100"))
    assert (findings[0].rule, findings[0].causes) == ("cut_in_mid_flow", ("size_limit", "time_limit"))


def test_a_buffer_is_the_first_candidate_without_the_direct_answer(house: House) -> None:
    with meddling_proxy(serving(house).port, Meddling(buffer=4096)) as through:
        findings = look(Plan(through + "/pace/25/25"))
    assert (findings[0].rule, findings[0].causes[0]) == ("one_block", "proxy_buffering")


# Faults of the application, each named first


@dataclass(frozen=True)
class Fault:
    path: str
    rule: str
    cause: str
    app: str = "asgi"
    alone: bool = True
    """Whether nothing else is accused."""


COLLECTED = {
    "list() in the endpoint": Fault("/collected/list", "one_block", "collected"),
    "list() before the response": Fault("/collected/before", "one_block", "collected"),
    "collected, with heartbeats": Fault("/collected/heartbeats", "one_block", "collected"),
    "an engine that gives one chunk": Fault("/collected/one-chunk", "one_event", "engine_one_chunk"),
    "a string": Fault("/string", "one_block_with_length", "string_returned", alone=False),
    "middleware that compresses": Fault("/pace/50/60", "compressed", "gzip_middleware", "compressing"),
}
WRITTEN = {
    "no blank line": Fault("/written/no-blank-line", "no_blank_line", "no_blank_line"),
    "no blank line but the last": Fault("/written/no-blank-line-but-the-last", "no_blank_line", "no_blank_line"),
    "the last event is not ended": Fault("/written/last-unended", "no_blank_line", "no_blank_line"),
    "line ends escaped": Fault("/written/escaped", "no_blank_line", "no_blank_line"),
    "paragraphs in the text": Fault("/written/newlines", "lines_outside", "raw_newlines"),
    "lines in the text": Fault("/written/one-newline", "lines_outside", "raw_newlines"),
    "line ends behind the text": Fault("/written/newlines-at-the-end", "line_ends_lost", "raw_newlines"),
    "text called an event stream": Fault("/written/without-data", "lines_outside", "no_data_prefix"),
    "the wrong content type": Fault("/written/as-html", "not_sse", "not_sse"),
    "JSON lines": Fault("/written/lines", "not_sse", "not_sse"),
    "AI SDK 4": Fault("/written/ai-sdk-4", "not_sse", "not_sse"),
}
ENDS = {
    "open after done": Fault("/ends/kept-open", "left_open", "left_open"),
    "open after done, beating": Fault("/ends/kept-open-beating", "left_open", "left_open"),
    "caught": Fault("/ends/caught", "no_terminal_event", "no_terminal_event"),
    "raised behind BaseHTTPMiddleware": Fault(
        "/ends/raises", "no_terminal_event", "swallowed_exception", "with_middleware", alone=False
    ),
    "[DONE] alone": Fault("/openai/done-alone", "end_without_reason", "made_up_end"),
    "the finish reason of another": Fault("/openai/foreign", "end_without_reason", "made_up_end"),
    "AI SDK, [DONE] alone": Fault("/ai-sdk/cut", "end_without_reason", "made_up_end"),
    "AI SDK, an error": Fault("/ai-sdk/error", "error_event", "exception"),
    "OpenAI, an error": Fault("/openai/error", "error_event", "exception"),
    "ours, an error": Fault("/ours/cut", "error_event", "exception"),
}
REFUSED = {
    "429 later": Fault("/refused/later/429/{key}", "refused_later", "rate_limit"),
    "503 later": Fault("/refused/later/503/{key}", "refused_later", "bad_gateway"),
    "a page to log in": Fault("/refused/login", "web_page", "login_page"),
    "another page": Fault("/refused/page", "web_page", "web_page"),
}


@pytest.mark.parametrize("fault", (t := COLLECTED | WRITTEN | ENDS | REFUSED).values(), ids=t)
def test_the_fault_is_named_first(house: House, fault: Fault) -> None:
    running = serving(house, H11, fault.app)
    findings = until(
        lambda: look(Plan(running.url + fault.path.format(key=time.monotonic_ns()), ProbeRequest(timeout=10))),
        lambda found: bool(found) and found[0].causes[0] == fault.cause,
    )
    assert (findings[0].rule, findings[0].causes[0]) == (fault.rule, fault.cause)
    beside = {each for each in serious(findings) if each not in (fault.rule, "no_terminal_event")}
    assert not fault.alone or beside <= {"http10_without_chunks"}


def test_the_endpoint_that_collects_is_named_behind_its_proxy(house: House) -> None:
    direct = serving(house)
    through = house.proxy(direct, *NEW_HOP)
    findings = look(Plan(through.url + "/collected/list", direct=direct.url + "/collected/list"))
    assert (findings[0].rule, findings[0].causes[0]) == ("one_block", "collected")


def test_the_application_that_compresses_is_told_from_the_proxy(house: House) -> None:
    direct = serving(house, name="compressing")
    through = house.proxy(direct, *NEW_HOP)
    findings = look(Plan(through.url + "/pace/50/60", direct=direct.url + "/pace/50/60"))
    assert (findings[0].rule, findings[0].causes) == ("compressed", ("gzip_middleware",))


# Proxies that make up an end, or give one reader what another one asked

STOP = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
MADE_UP = {
    "[DONE] after an exception": ("/ends/raises", Meddling(end=b"data: [DONE]\n\n")),
    "stop after an exception": ("/ends/raises", Meddling(end=STOP)),
    "[DONE] at a limit": ("/pace/25/60", Meddling(limit=1.5, end=b"data: [DONE]\n\n")),
    "done at a limit": ("/pace/25/60", Meddling(limit=1.5, end=b"event: done\ndata: {}\n\n")),
    "stop at a limit": ("/openai/whole", Meddling(limit=0.8, end=STOP)),
}


@pytest.mark.parametrize(("path", "meddling"), MADE_UP.values(), ids=MADE_UP)
def test_a_made_up_end_is_named_first(house: House, path: str, meddling: Meddling) -> None:
    direct = serving(house)
    with meddling_proxy(direct.port, meddling) as through:
        findings = look(Plan(through + path, direct=direct.url + path))
    assert findings[0].causes[0] == "made_up_end"


@pytest.mark.parametrize("told", [True, False], ids=["with X-Cache", "silently"])
def test_a_cache_is_named_first(house: House, told: bool, tmp_path: Any) -> None:
    lines = ("proxy_cache answers;", "proxy_cache_valid 200 1m;", "proxy_ignore_headers Cache-Control;", *NEW_HOP)
    lines += ("add_header X-Cache-Status $upstream_cache_status;",) if told else ()
    tmp_path.chmod(0o777)
    through = house.proxy(serving(house), *lines, http=(f"proxy_cache_path {tmp_path} keys_zone=answers:1m;",))
    findings = look(Plan(through.url + "/bare/25/30"))
    assert (findings[0].rule, findings[0].causes[0]) == ("from_a_cache", "cache")
    direct = serving(house)
    findings = look(Plan(through.url + "/bare/25/30", direct=direct.url + "/bare/25/30"))
    assert "from_a_cache" in serious(findings), "the first answer comes out of it now"


# The command


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["doctor", "url", *arguments], env={"COLUMNS": "100"}, catch_exceptions=False)


def test_the_cure_is_our_response_where_that_is_the_shortest(house: House) -> None:
    result = command(serving(house).url + "/written/no-blank-line")
    assert result.exit_code == 1
    assert "SSEResponse(lambda: engine.query(question))" in result.stdout


def test_a_healthy_one_of_ours_ends_with_0(house: House) -> None:
    result = command(serving(house, H11).url + "/ours")
    assert (result.exit_code, "Nothing to fix." in result.stdout) == (0, True)


@pytest.mark.parametrize("path", ["/ai-sdk/error", "/openai/error", "/refused/login"])
def test_no_text_comes_out(house: House, path: str) -> None:
    result = command(serving(house).url + path, "--json")
    assert result.exit_code == 1
    assert not json.loads(result.stdout)["fine"]
    assert not any(secret in result.output for secret in ("sk-secret", "token 3", "password"))


def test_every_cause_of_the_table_has_a_cure() -> None:
    for fault in (COLLECTED | WRITTEN | ENDS | REFUSED).values():
        name, fixes = lines_for(Finding(fault.rule, Level.FAULT, "", (fault.cause,)), fault.cause)
        assert name
        assert fixes
