"""`doctor provider`: what it finds in servers of many manners, what it says to set, and that these settings heal."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate, pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from llama_index_resilient_stream import ResilientLLM, StreamStatus
from llama_index_resilient_stream.cli.doctor.provider_screen import run
from llama_index_resilient_stream.doctor.provider.cut import PARTIAL_TEXT, REST, Cut, cut_of
from llama_index_resilient_stream.doctor.provider.examiner import (
    MOST_ANSWER_TOKENS,
    MOST_REQUESTS,
    examine,
)
from llama_index_resilient_stream.doctor.provider.profile import Profile, profile_lines
from llama_index_resilient_stream.doctor.provider.reply import Block, Reply
from llama_index_resilient_stream.doctor.provider.rungs import rungs_of
from llama_index_resilient_stream.doctor.provider.settings import Setting, advise, program
from llama_index_resilient_stream.testing import FAULTS, FaultServer
from support.readers import read

KEY = "sk-very-secret"
FULL = PARTIAL_TEXT + REST
CALL = ("look_up_weather", '{"city": "Paris"}')
Serve = Callable[..., FaultServer]


def profile_of(url: str, timeout: float = 10.0) -> Profile:
    with httpx.Client(timeout=timeout) as client:
        return examine(client, url, "scripted", timeout=timeout)


def model(serve: Serve, fault: str | None = None, **kwargs: Any) -> FaultServer:
    settings: dict[str, Any] = {"respect_max_tokens": True, "tool_call": CALL, **kwargs}
    return serve(FULL, [fault] * MOST_REQUESTS, **settings)


def settings_of(profile: Profile) -> dict[str, str]:
    return {setting.name: setting.value for setting in advise(profile)}


def needed_in(profile: Profile) -> set[str]:
    return {setting.name for setting in advise(profile) if setting.needed}


# Servers of the testing kit


def test_a_server_that_does_everything(serve: Serve) -> None:
    server = model(serve)
    seen = profile_of(server.url)
    assert seen.sends_finish_reason is seen.sends_done is seen.reports_limit is True
    assert (seen.finish_reason, seen.finish_reason_at_limit, seen.finish_reason_of_tools) == (
        "stop",
        "length",
        "tool_calls",
    )
    assert seen.usage == "sent"
    assert seen.comments == 0
    assert seen.encoding == ""
    assert seen.thinks is False
    assert seen.ask == "anchor"
    assert seen.prefill == "flags"
    assert seen.requests == len([record for record in server.requests if record.body]) == 5
    assert settings_of(seen)["completeness"] == '"strict"'
    assert settings_of(seen)["continuation"] == '"prefill"'
    assert "include_usage" in settings_of(seen)["additional_kwargs"]
    assert not needed_in(seen)


def test_examination_costs_no_more_than_it_says(serve: Serve) -> None:
    server = model(serve, refuse_prefill=True)
    profile_of(server.url)
    assert len(server.requests) <= MOST_REQUESTS
    assert sum(record.body["max_tokens"] for record in server.requests) <= MOST_ANSWER_TOKENS


@pytest.mark.parametrize(
    ("fault", "sends_finish_reason", "sends_done", "value", "needed"),
    [
        ("no_finish_reason", False, True, None, {"http_client", "async_http_client"}),
        ("no_finish_reason_no_done", False, False, '"lenient"', {"completeness"}),
        ("no_done", True, False, '"strict"', set()),
    ],
)
def test_endings_of_servers(
    serve: Serve, fault: str, sends_finish_reason: bool, sends_done: bool, value: str | None, needed: set[str]
) -> None:
    seen = profile_of(model(serve, fault).url)
    assert seen.sends_finish_reason is sends_finish_reason
    assert seen.sends_done is sends_done
    assert settings_of(seen).get("completeness") == value
    assert needed_in(seen) == needed


@pytest.mark.parametrize(
    ("style", "ask"),
    [("anchor", "anchor"), ("exact", "joined"), ("restart", "joined"), (lambda *_: "Hm?", "misplaced")],
    ids=["obeys", "goes-on", "restarts", "misplaced"],
)
def test_provider_obeys_the_anchor_or_not(serve: Serve, style: Any, ask: str) -> None:
    assert profile_of(model(serve, continuation_style=style).url).ask == ask


def test_a_refused_prefill(serve: Serve) -> None:
    seen = profile_of(model(serve, refuse_prefill=True).url)
    assert seen.prefill == "refused"
    assert "continuation" not in settings_of(seen)


def test_an_echoed_prefill(serve: Serve) -> None:
    seen = profile_of(model(serve, continuation_style=["anchor", "echo"]).url)
    assert seen.prefill == "flags"
    assert seen.echoes


def test_provider_without_tools_and_limits(serve: Serve) -> None:
    seen = profile_of(model(serve, tool_call=None, respect_max_tokens=False).url)
    assert seen.finish_reason_of_tools is None
    assert seen.finish_reason_at_limit is None
    answers = {line.question: line.answer for line in profile_lines(seen)}
    assert answers["for tool calls, too"] == answers["says when max_tokens is hit"] == "unknown"
    assert settings_of(seen)["completeness"] == '"strict"'


def test_keep_alive_comments_and_thoughts(serve: Serve) -> None:
    seen = profile_of(model(serve, "comments_then_answer", thinking="Let me see.").url)
    assert seen.comments
    assert seen.thinks
    assert settings_of(seen)["first_token_timeout"] == "300"
    assert settings_of(seen)["timeout"] == "300"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("http_401", "HTTP 401, invalid_request_error, invalid_api_key: the key was not accepted"),
        ("http_404", "HTTP 404, invalid_request_error, model_not_found: there is no such path or model"),
        ("insufficient_quota", "HTTP 429, insufficient_quota: the rate limit or the quota is used up"),
        ("http_503", "HTTP 503, server_error: the server is ill"),
        ("html", "no event stream: it answers with text/html"),
        ("hang_up", "the connection was closed without an answer"),
        ("error_event", "an error in the stream, server_error"),
        ("stall_first", "no event within the time limit"),
        ("comments_first", "no event within the time limit"),
        ("stall_headers", "no answer within the time limit"),
    ],
)
def test_obstacles_to_the_examination(serve: Serve, fault: str, says: str) -> None:
    seen = profile_of(model(serve, fault).url, timeout=0.5 if fault.startswith(("stall", "comments")) else 10.0)
    assert seen.obstacle == says
    assert seen.sends_finish_reason is seen.sends_done is seen.ask is seen.prefill is None
    assert seen.requests <= 2


def test_address_where_nobody_answers(serve: Serve) -> None:
    server = serve("Hi.")
    url = server.url
    server.close()
    assert profile_of(url).obstacle.startswith("nobody answers at this address: is the server running")


def test_an_address_without_a_scheme() -> None:
    seen = profile_of("localhost:1")
    assert seen.obstacle == "the scheme is missing: write http:// or https:// in front of the address"
    assert seen.requests == 0


@pytest.mark.parametrize(
    ("path", "hint"), [("/", "most base URLs end with /v1"), ("/v1/chat/completions", "ends before /chat/completions")]
)
def test_a_wrong_path_in_the_address(serve: Serve, path: str, hint: str) -> None:
    url = serve("Hi.").url.removesuffix("/v1")
    assert profile_of(url + path).obstacle.endswith(hint)


def test_cut_examination_leaves_its_questions_open(serve: Serve) -> None:
    seen = profile_of(model(serve, "reset").url)
    assert not seen.obstacle
    assert (
        seen.sends_finish_reason
        is seen.sends_done
        is seen.usage
        is seen.finish_reason_at_limit
        is seen.finish_reason_of_tools
        is None
    )
    answers = {line.question: line.answer for line in profile_lines(seen)}
    assert answers["sends finish reasons"] == answers["ends with [DONE]"] == "unknown"
    assert "completeness" not in settings_of(seen)


# Servers of other manners

Manner = Callable[[dict[str, Any]], "str | int | bytes | list[str]"]


class Odd:
    """Answers each request with what `manner` makes of its body: a text, a raw body, or a status that refuses it."""

    def __init__(self, manner: Manner, *, wait: float = 0.0, kind: str = "text/event-stream") -> None:
        self.bodies: list[dict[str, Any]] = []
        odd = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                odd.bodies.append(body)
                said = manner(body)
                time.sleep(wait)
                content = stream(said) if isinstance(said, str | list) else said
                if isinstance(content, int):
                    content = json.dumps({"error": refusal(body)}).encode()
                self.send_response(said if isinstance(said, int) else 200)
                self.send_header("Content-Type", "application/json" if isinstance(said, int) else kind)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                """Keep silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Odd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(3)


def refusal(body: dict[str, Any]) -> dict[str, Any]:
    hint = "Use 'max_completion_tokens' instead." if "max_tokens" in body else f"Not for {KEY}."
    return {"message": hint, "type": "invalid_request_error", "code": None}


def stream(text: str | list[str]) -> bytes:
    pieces = text if isinstance(text, list) else [text[at : at + 8] for at in range(0, len(text), 8)]
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(b"data: %b\r\n\r\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\r\n\r\n"


def last(body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = body["messages"][-1]
    return message


def counting(body: dict[str, Any]) -> str:
    return rest_of(body) if last(body)["role"] == "assistant" else FULL


def rest_of(body: dict[str, Any]) -> str:
    partial_text = last(body)["content"]
    assert FULL.startswith(partial_text)
    return FULL[len(partial_text) :]


def test_stream_options_are_refused() -> None:
    with Odd(lambda body: 400 if "stream_options" in body else counting(body)) as server:
        seen = profile_of(server.url)
    assert seen.usage == "refused"
    assert seen.sends_finish_reason is True
    assert "additional_kwargs" not in settings_of(seen)


def test_the_limit_goes_by_another_name() -> None:
    with Odd(lambda body: 400 if "max_tokens" in body else counting(body)) as server:
        seen = profile_of(server.url)
    assert seen.sends_finish_reason is True
    assert seen.usage == "ignored"
    assert all("max_completion_tokens" in body for body in server.bodies[1:])
    assert seen.requests == len(server.bodies) <= MOST_REQUESTS


def with_flags(body: dict[str, Any]) -> str:
    flagged = body.get("continue_final_message") is True and body.get("add_generation_prompt") is False
    return "Sure." if last(body)["role"] == "assistant" and not flagged else counting(body)


def without_flags(body: dict[str, Any]) -> str | int:
    return 422 if "continue_final_message" in body else counting(body)


def with_a_mark(body: dict[str, Any]) -> str | int:
    return 400 if last(body)["role"] == "assistant" and not last(body).get("prefix") else counting(body)


def never(body: dict[str, Any]) -> str:
    return "fourteen, fifteen" if last(body)["role"] == "assistant" else FULL


@pytest.mark.parametrize(
    ("manner", "prefill", "continuation"),
    [
        (with_flags, "flags", '"prefill"'),
        (without_flags, "plain", 'Continuation("prefill", extra={"extra_body": {}})'),
        (with_a_mark, "marked", None),
        (never, "new_turn", None),
    ],
)
def test_prefill_needs_of_servers(manner: Manner, prefill: str, continuation: str | None) -> None:
    with Odd(manner) as server:
        seen = profile_of(server.url)
    assert seen.prefill == prefill
    assert settings_of(seen).get("continuation") == continuation


# It cuts where tokens end

TOKENS = re.findall(r" ?[a-z]{1,4}|[^a-z]", FULL, re.IGNORECASE)  # "thirteen" is " thir" and "teen"


def like_a_tokenizer(body: dict[str, Any]) -> str | list[str]:
    """Go on where a token ends, as models do; answer anew elsewhere."""
    if last(body)["role"] != "assistant":
        return TOKENS
    partial_text, ends = last(body)["content"], list(accumulate(map(len, TOKENS)))
    return FULL[len(partial_text) :] if len(partial_text) in ends else "Here you are: one, two"


def test_a_prefill_is_cut_at_the_end_of_a_token() -> None:
    """In the middle of one, a model that writes on answers anew, and would be told to be one that does not."""
    with Odd(like_a_tokenizer) as server:
        seen = profile_of(server.url)
    assert seen.prefill == "flags"
    prefilled = [last(body)["content"] for body in server.bodies if last(body)["role"] == "assistant"]
    assert Cut(prefilled[0], FULL[len(prefilled[0]) :]).in_word, "where no new turn begins as its rest does"


@given(st.lists(st.integers(1, 12), min_size=1, max_size=400))
def test_a_cut_is_where_a_chunk_ended(sizes: list[int]) -> None:
    ends = [0, *accumulate(sizes)]
    chunks = [FULL[start:end] for start, end in pairwise([*ends, len(FULL)]) if FULL[start:end]]
    cut = cut_of(chunks)
    assert cut.partial_text + cut.rest == FULL
    borders = set(accumulate(map(len, chunks)))
    assert len(cut.partial_text) in borders or cut.before_comma
    assert cut.goes_on(cut.rest)
    assert not cut.goes_on("Here you are: one, two")


@pytest.mark.parametrize(
    "chunks",
    [[], ["One, two."], ["I cannot count.", " Sorry."], [FULL]],
    ids=["nothing", "short", "something else", "in one chunk"],
)
def test_an_answer_that_shows_no_place_to_cut(chunks: list[str]) -> None:
    assert cut_of(chunks).before_comma


# Which way the LLM takes


def rungs_seen(url: str) -> tuple[Profile, list[str]]:
    seen = profile_of(url)
    return seen, [str(rung) for rung in rungs_of(seen)]


def test_the_way_of_a_server_that_keeps_its_streams(serve: Serve) -> None:
    seen, rungs = rungs_seen(model(serve, keeps_streams=True).url)
    assert (seen.server, rungs) == ("llama.cpp", ["replay", "prefill", "ask", "restart"])
    assert "continuation" not in settings_of(seen), '"auto" would replay, and "prefill" would not'


def test_the_way_of_a_server_that_its_list_of_models_names(serve: Serve) -> None:
    seen, rungs = rungs_seen(model(serve, owned_by="vllm").url)
    assert (seen.server, rungs) == ("vllm", ["prefill", "ask", "restart"])


@pytest.mark.parametrize(
    ("kwargs", "rungs"),
    [({}, ["prefill", "ask", "restart"]), ({"refuse_prefill": True}, ["ask", "restart"])],
    ids=["writes on", "refuses"],
)
def test_the_way_is_the_one_that_is_then_taken(
    serve: Serve, healed: Callable[..., Any], kwargs: dict[str, Any], rungs: list[str]
) -> None:
    assert rungs_seen(model(serve, **kwargs).url)[1] == rungs
    result, server = healed(None, FAULTS["clean_eof"].at(60), **kwargs)
    assert result.text == FULL
    assert server.requests[-1].parsed.kind == rungs[0]


# Finish reasons that are none


def test_a_finish_reason_on_every_chunk_proves_nothing() -> None:
    chunks = [{"choices": [{"delta": {"content": each}, "finish_reason": "stop"}]} for each in TOKENS]
    body = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"
    with Odd(lambda asked: body) as server:
        seen = profile_of(server.url)
    assert seen.text_after_finish is True
    assert "completeness" not in settings_of(seen)
    lines = {line.question: line for line in profile_lines(seen)}
    assert lines["sends finish reasons"].answer == "no"
    assert "text followed" in lines["sends finish reasons"].seen


def test_a_finish_reason_that_nobody_knows_is_said_to_be_one() -> None:
    lines = {line.question: line for line in profile_lines(Profile(finish_reason="zonk"))}
    assert "a word that nobody knows" in lines["sends finish reasons"].seen


def test_an_answer_held_back() -> None:
    with Odd(counting, wait=0.6) as server:
        seen = profile_of(server.url)
    assert seen.held_back is True
    assert needed_in(seen) == {"first_token_timeout", "timeout"}


def test_an_answer_too_quick_to_tell() -> None:
    with Odd(counting) as server:
        assert profile_of(server.url).held_back is None


def test_an_answer_that_flows(serve: Serve) -> None:
    seen = profile_of(model(serve, delay=0.004).url)
    assert seen.held_back is False
    assert seen.first_token is not None
    assert seen.longest_gap is not None


# Reading


def reply(body: bytes, **kwargs: Any) -> Reply:
    blocks = tuple(Block(float(at), bytes([byte])) for at, byte in enumerate(body))
    return Reply(**{"status": 200, "media_type": "text/event-stream", "blocks": blocks, **kwargs})


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_as_they_like_and_are_dated(end: bytes) -> None:
    lines = [b": hi", b"", b'data:{"choices": [{"delta": {"content": "a"}}]}', b"", b"data: [DONE]", b"", b""]
    read_ = reply(end.join(lines))
    assert read_.text == "a"
    assert read_.comments == 1
    assert read_.has_done
    assert read_.progress == [float(len(end.join(lines[:3])))]


def test_slow_servers_get_time() -> None:
    assert settings_of(Profile(first_token=25.0))["first_token_timeout"] == "300"
    assert settings_of(Profile(longest_gap=40.0))["idle_timeout"] == "320"
    assert needed_in(Profile(longest_gap=40.0)) == {"idle_timeout"}
    assert "idle_timeout" not in settings_of(Profile(longest_gap=3.0))


def test_strict_only_where_no_end_was_silent() -> None:
    assert "completeness" not in settings_of(
        Profile(finish_reason="stop", finish_reason_at_limit="length", finish_reason_of_tools="")
    )
    assert Profile(finish_reason="stop", finish_reason_at_limit="stop").reports_limit is False


# The screen


def shown(url: str, monkeypatch: pytest.MonkeyPatch, *, as_json: bool = False, key: str = KEY) -> tuple[int, str]:
    monkeypatch.setenv("THE_KEY", key)
    out = io.StringIO()
    console = Console(file=out, width=120, highlight=False)
    code = run(console, base_url=url, model="scripted", api_key_env="THE_KEY", as_json=as_json, timeout=10.0)
    return code, out.getvalue()


def test_the_screen(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = model(serve, "no_finish_reason")
    code, text = shown(server.url, monkeypatch)
    assert code == 1
    assert "At most 9 small requests" in text
    assert "sends finish reasons" in text
    assert "goes on here by: prefill, then ask, then restart." in text
    assert "needed: http_client=http_client()" in text
    assert 'os.environ["THE_KEY"]' in text
    assert KEY not in text
    assert "authorization" in server.requests[0].header_names


def test_json(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    url = model(serve).url.replace("http://", f"http://user:{KEY}@") + f"?key={KEY}"
    code, text = shown(url.partition("?")[0], monkeypatch, as_json=True)
    told = json.loads(text)
    assert code == 0
    assert told["seen"]["finish_reason"] == "stop"
    assert told["rungs"] == ["prefill", "ask", "restart"]
    assert told["code"].startswith("import os")
    assert told["base_url"].startswith("http://127.0.0.1")
    assert KEY not in text


@pytest.mark.parametrize("as_json", [False, True])
def test_a_refusal_quotes_nobody(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    with Odd(lambda body: 401) as server:
        code, text = shown(server.url, monkeypatch, as_json=as_json)
        assert code == 2
        assert "HTTP 401" in text
        assert KEY not in text
        code, text = shown(server.url, monkeypatch, key="")
        assert "THE_KEY is not set" in " ".join(text.split())


def test_invalid_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown("http://[", monkeypatch)[0] == 2


# What it says to set works: the program that is printed runs, and what it makes heals


def llm_of(settings: list[Setting], url: str) -> ResilientLLM:
    scope: dict[str, Any] = {}
    code = program(settings, base_url=url, model="scripted", api_key='"none"', tools=True)
    exec(compile(code, "<doctor>", "exec"), scope)
    llm: ResilientLLM = scope["llm"]
    return llm


@pytest.fixture
def healed(serve: Serve) -> Iterator[Callable[..., Any]]:
    """Examine a server, build what it says to build, cut an answer, and read it."""
    llms: list[ResilientLLM] = []

    def heal(manner: str | None, cut: Any, **kwargs: Any) -> Any:
        settings = advise(profile_of(model(serve, manner, **kwargs).url))
        server = serve(FULL, [cut, *[manner] * 3], **kwargs)
        llms.append(llm_of(settings, server.url))
        return read(llms[-1]), server

    yield heal
    for llm in llms:
        llm.llm._client.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("manner", [None, "no_finish_reason", "no_done"])
@pytest.mark.parametrize("cut", ["clean_eof", "reset", "close_eof"])
def test_the_settings_heal(healed: Callable[..., Any], manner: str | None, cut: str) -> None:
    result, server = healed(manner, FAULTS[cut].at(60))
    assert result.text == FULL
    never_sent = manner == "no_finish_reason"  # `[DONE]` alone is no finish reason
    assert result.report.status is (StreamStatus.UNKNOWN if never_sent else StreamStatus.COMPLETE)
    asked_once_more = ["prefill"] * never_sent
    assert [record.parsed.kind for record in server.requests] == ["answer", "prefill", *asked_once_more]


def test_the_settings_heal_where_prefill_is_refused(healed: Callable[..., Any]) -> None:
    result, server = healed(None, FAULTS["done_without_finish"].at(60), refuse_prefill=True)
    assert result.text == FULL
    assert [record.parsed.kind for record in server.requests] == ["answer", "ask"]


def test_whole_answer_without_finish_reason_is_not_asked_again(healed: Callable[..., Any]) -> None:
    result, server = healed("no_finish_reason_no_done", "no_finish_reason_no_done")
    assert result.text == FULL
    assert result.report.status is StreamStatus.UNKNOWN
    assert len(server.requests) == 1


def test_the_settings_count(healed: Callable[..., Any]) -> None:
    result, server = healed(None, None)
    assert server.requests[0].body["stream_options"] == {"include_usage": True}
    assert result.report.usage["completion_tokens"] > 10
    assert not result.report.usage_estimated


def test_a_plain_prefill_is_sent_without_flags() -> None:
    with Odd(without_flags) as server:
        settings = advise(profile_of(server.url))
    cut = b"\r\n\r\n".join(stream(FULL).split(b"\r\n\r\n")[:5]) + b"\r\n\r\n"

    def cut_once(body: dict[str, Any]) -> str | int | bytes:
        if last(body)["role"] == "user":
            return cut
        return 422 if "continue_final_message" in body else FULL[len(last(body)["content"]) :]

    with Odd(cut_once) as server:
        llm = llm_of(settings, server.url)
        result = read(llm)
        llm.llm._client.close()  # type: ignore[attr-defined]
    assert result.text == FULL
    said = [last(body) for body in server.bodies]
    assert [message["role"] for message in said] == ["user", "assistant"]
