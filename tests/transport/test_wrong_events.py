"""Events that the wrapped class cannot handle, and errors in front of a good end. On real sockets, in one piece.

The wire is looked at ahead of the chunks: a stop and its terminator have passed by when the first event fails.
"""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.llms.openai_like import OpenAILike

from llama_index_resilient_stream import ResilientLLM, StreamStatus
from llama_index_resilient_stream.report import FaultKind
from support.event_server import EventServer
from support.readers import QUICK, Reader
from support.sdk_clients import LLMS_OPENAI


def chunk(delta: Any, reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": reason, "delta": delta}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


BEFORE, AFTER, STOP, DONE = chunk({"content": "Half an "}), chunk({"content": "answer."}), chunk({}, "stop"), "[DONE]"
WHOLE = [BEFORE, AFTER, STOP, DONE]
REST = [chunk({"content": "Half an answer."}), STOP, DONE]  # the anchor that was asked for, and the rest

WRONG: dict[str, Any] = {
    "content-a-list": chunk({"content": ["a", {"b": 1}]}),
    "content-a-number": chunk({"content": 7}),
    "content-an-object": chunk({"content": {"text": "a"}}),
    "choices-an-object": {"choices": {"0": 1}},
    "choices-null": {"id": "1", "choices": None},
    "choice-a-text": {"choices": ["x"]},
    "delta-a-text": chunk("answer"),
    **({"calls-a-text": chunk({"tool_calls": "x"})} if LLMS_OPENAI >= (0, 5) else {}),  # older ones do not look
    "calls-an-object": chunk({"tool_calls": {"id": 1}}),
    "number": 17,
    "null": None,
    "text": '"x"',
    "list": [1],
    "no-json": '{"id": "1", "choices": [',
    "deep": '{"a":' * 100_000 + "1" + "}" * 100_000,
}
ERRORS: dict[str, tuple[Any, FaultKind]] = {
    "server": ({"error": {"message": "upstream failed", "code": 502}}, FaultKind.SERVER),
    "overloaded": ({"error": {"message": "Overloaded", "type": "overloaded_error"}}, FaultKind.OVERLOADED),
    "text": ({"error": "The backend went away."}, FaultKind.SERVER),
}


# Events that are errors, without the key that SDKs look for, which LlamaIndex stumbles over
HOPELESS: dict[str, tuple[dict[str, Any], FaultKind]] = {
    "vllm": (
        {
            "object": "error",
            "message": "temperature must be positive.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        FaultKind.BAD_REQUEST,
    ),
    "vllm-window": (
        {"object": "error", "message": "This model's maximum context length is 8192 tokens.", "code": 400},
        FaultKind.CONTEXT_WINDOW,
    ),
    "code": ({"code": "insufficient_quota", "message": "You exceeded your quota."}, FaultKind.QUOTA),
    "type": ({"type": "error", "message": "Insufficient balance"}, FaultKind.QUOTA),
    "detail": ({"detail": "Invalid API key"}, FaultKind.AUTH),
    "filter": ({"code": 1301, "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}, FaultKind.FILTERED),
}


def llm(server: EventServer, clients: dict[str, Any]) -> ResilientLLM:
    inner = OpenAILike(model="m", api_base=server.url, api_key="x", is_chat_model=True, max_retries=0, **clients)
    return ResilientLLM(inner, policy=QUICK)


@pytest.mark.parametrize("event", WRONG.values(), ids=WRONG)
def test_a_wrong_first_event_is_asked_again(reader: Reader, clients: dict[str, Any], event: Any) -> None:
    with EventServer(event, *WHOLE, then=WHOLE) as server:
        result = reader(llm(server, clients))
    assert result.report.faults == [FaultKind.CORRUPT]
    assert (result.text, result.report.status) == ("Half an answer.", StreamStatus.COMPLETE)


@pytest.mark.parametrize("event", WRONG.values(), ids=WRONG)
def test_a_wrong_event_amid_text_is_healed(reader: Reader, clients: dict[str, Any], event: Any) -> None:
    with EventServer(BEFORE, event, AFTER, STOP, DONE, then=REST) as server:
        result = reader(llm(server, clients))
    assert result.report.faults == [FaultKind.CORRUPT]
    assert (result.text, result.report.status) == ("Half an answer.", StreamStatus.COMPLETE)


@pytest.mark.parametrize("events", [[], [BEFORE]], ids=["first", "amid-text"])
def test_what_fails_twice_in_the_same_way_is_not_asked_a_third_time(
    reader: Reader, clients: dict[str, Any], events: list[Any]
) -> None:
    with EventServer(*events, WRONG["content-a-list"], AFTER, STOP, DONE) as server:
        result = reader(llm(server, clients))
    assert result.report.faults == [FaultKind.CORRUPT] * 2
    assert result.report.status is StreamStatus.INTERRUPTED
    assert result.text in ("", "Half an ")
    assert result.error is not None
    assert isinstance(result.error.__cause__, TypeError)
    assert len(server.requests) == 2


@pytest.mark.parametrize(("event", "kind"), ERRORS.values(), ids=ERRORS)
def test_an_error_in_front_of_a_good_end_is_a_fault(
    reader: Reader, clients: dict[str, Any], event: Any, kind: FaultKind
) -> None:
    with EventServer(BEFORE, event, STOP, DONE, then=REST) as server:
        result = reader(llm(server, clients))
    assert result.report.faults == [kind]
    assert (result.text, result.report.status) == ("Half an answer.", StreamStatus.COMPLETE)


@pytest.mark.parametrize(("event", "kind"), HOPELESS.values(), ids=HOPELESS)
@pytest.mark.parametrize("before", [[], [BEFORE]], ids=["first", "amid-text"])
def test_an_error_without_its_key_is_read(
    reader: Reader, clients: dict[str, Any], before: list[Any], event: dict[str, Any], kind: FaultKind
) -> None:
    with EventServer(*before, event, DONE) as server:
        result = reader(llm(server, clients))
    assert len(server.requests) == 1
    if kind is FaultKind.FILTERED and before:
        assert result.report.status is StreamStatus.FILTERED
        return
    assert result.report.faults == [kind]
    assert result.error is not None
    said = event.get("message") or event["detail"]
    assert said.rstrip(".") in str(result.error)


def test_an_error_without_its_key_that_passes_is_asked_again(reader: Reader, clients: dict[str, Any]) -> None:
    event = {"object": "error", "message": "The engine restarts.", "type": "InternalServerError", "code": 503}
    with EventServer(BEFORE, event, DONE, then=REST) as server:
        result = reader(llm(server, clients))
    assert result.report.faults == [FaultKind.OVERLOADED]
    assert (result.text, result.report.status) == ("Half an answer.", StreamStatus.COMPLETE)


def test_what_is_said_of_it_holds_no_key(reader: Reader, clients: dict[str, Any]) -> None:
    key = "sk-abcdefghijklmnop0123456789"
    event = {"object": "error", "message": f"Incorrect API key provided: {key}", "type": "AuthenticationError"}
    with EventServer(event, DONE) as server:
        result = reader(llm(server, clients))
    assert "Incorrect API key provided" in str(result.error)
    assert key not in f"{result.error!s}{result.error!r}{result.report!r}"
