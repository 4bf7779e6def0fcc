"""What events mean, and what is wrong with how they are written: bytes in, counts out."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_resilient_stream.doctor.endpoint.measurements import BodyFormat, BodyKind, WireProtocol
from llama_index_resilient_stream.doctor.endpoint.sse_counter import EventCounter
from llama_index_resilient_stream.doctor.endpoint.wire_protocols import meaning_of, meaning_of_line
from llama_index_resilient_stream.doctor.sse import DecodedEvent

OPENAI, AI_SDK = WireProtocol.OPENAI, WireProtocol.AI_SDK


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"id": "1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


# name, data, whether it brings text, how it ends, whose protocol
EVENTS: dict[str, tuple[str, Any, bool, str, WireProtocol]] = {
    "ours, text": ("", {"text": "a"}, True, "", WireProtocol.UNKNOWN),
    "ours, thinking": ("thinking", {"text": "a"}, True, "", WireProtocol.UNKNOWN),
    "ours, sources": ("sources", {"sources": [{"text": "long"}]}, False, "", WireProtocol.UNKNOWN),
    "ours, recovery": ("recovery", {"attempt": 2}, False, "", WireProtocol.UNKNOWN),
    "ours, done": ("done", {"status": "complete"}, False, "done", WireProtocol.UNKNOWN),
    "ours, error": ("error", {"status": "interrupted"}, False, "error", WireProtocol.UNKNOWN),
    "plain text": ("", "a word", True, "", WireProtocol.UNKNOWN),
    "a name of one's own": ("token", "a", True, "", WireProtocol.UNKNOWN),
    "an end of one's own": ("end", "", False, "done", WireProtocol.UNKNOWN),
    "done in the data": ("", {"done": True}, False, "done", WireProtocol.UNKNOWN),
    "a type that ends": ("", {"type": "done"}, False, "done", WireProtocol.UNKNOWN),
    "OpenAI, role": ("", chunk({"role": "assistant", "content": ""}), False, "", OPENAI),
    "OpenAI, text": ("", chunk({"content": "a"}), True, "", OPENAI),
    "OpenAI, thoughts": ("", chunk({"reasoning_content": "a"}), True, "", OPENAI),
    "OpenAI, a call": ("", chunk({"tool_calls": [{"function": {"arguments": "{"}}]}), True, "", OPENAI),
    "OpenAI, finish": ("", chunk({}, "stop"), False, "finish", OPENAI),
    "OpenAI, usage": ("", {"choices": [], "usage": {}}, False, "", OPENAI),
    "OpenAI, done": ("", "[DONE]", False, "[DONE]", WireProtocol.UNKNOWN),
    "OpenAI, error": ("", {"error": {"message": "no"}}, False, "error", WireProtocol.UNKNOWN),
    "AI SDK, start": ("", {"type": "start"}, False, "", AI_SDK),
    "AI SDK, text": ("", {"type": "text-delta", "delta": "a"}, True, "", AI_SDK),
    "AI SDK, thoughts": ("", {"type": "reasoning-delta", "delta": "a"}, True, "", AI_SDK),
    "AI SDK, a source": ("", {"type": "source-url", "url": "https://a"}, False, "", AI_SDK),
    "AI SDK, reset": ("", {"type": "reset-step"}, False, "", AI_SDK),
    "AI SDK, a tool failed": ("", {"type": "tool-output-error", "errorText": "no"}, False, "", AI_SDK),
    "AI SDK, step": ("", {"type": "finish-step"}, False, "", AI_SDK),
    "AI SDK, finish": ("", {"type": "finish", "finishReason": "stop"}, False, "finish", AI_SDK),
    "AI SDK, abort": ("", {"type": "abort"}, False, "finish", AI_SDK),
    "AI SDK, error": ("", {"type": "error", "errorText": "no"}, False, "error", AI_SDK),
    "Anthropic, end": ("message_stop", {"type": "message_stop"}, False, "done", WireProtocol.UNKNOWN),
    "no object": ("", ["done"], True, "", WireProtocol.UNKNOWN),
}


@pytest.mark.parametrize(("name", "data", "text", "terminal", "protocol"), EVENTS.values(), ids=EVENTS)
def test_what_an_event_means(name: str, data: Any, text: bool, terminal: str, protocol: WireProtocol) -> None:
    meaning = meaning_of(DecodedEvent(data if isinstance(data, str) else json.dumps(data), name))
    assert (bool(meaning.text), meaning.terminal, meaning.protocol) == (text, terminal, protocol)


@pytest.mark.parametrize(
    ("line", "text", "terminal"),
    [
        ('0:"a"', True, ""),
        ('d:{"finishReason":"stop"}', False, "finish"),
        ('3:"no"', False, "error"),
        ('{"type":"text","text":"a"}', True, ""),
        ('{"type":"end","status":"complete"}', False, "done"),
        ('{"type":"end","status":"interrupted"}', False, "error"),
    ],
)
def test_what_a_line_means(line: str, text: bool, terminal: str) -> None:
    meaning = meaning_of_line(line)
    assert meaning is not None
    assert (bool(meaning.text), meaning.terminal) == (text, terminal)


@pytest.mark.parametrize("line", ["", "a: b", "A sentence: with a colon.", "1:2:3", "0:not JSON"])
def test_a_line_of_prose_means_nothing(line: str) -> None:
    assert meaning_of_line(line) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["choices", "delta", "type", "error", "done", "status"]) | st.text(), inner
            )
        ),
    )
)
def test_nothing_is_too_odd_to_be_read(data: Any) -> None:
    meaning_of(DecodedEvent(json.dumps(data)))
    meaning_of_line(json.dumps(data))


BODIES: dict[str, tuple[bytes, BodyFormat]] = {
    "ours": (
        b': hi\nid: 1\ndata: {"text":"one"}\n\nid: 2.end\nevent: done\ndata: {"status":"complete"}\n\n',
        BodyFormat(BodyKind.EVENTS, pieces=1, longest_piece=3),
    ),
    "no blank line": (b"data: a\ndata: b\ndata: c\n", BodyFormat(BodyKind.EVENTS, unended_lines=3)),
    "two ids in one event": (
        b"id: 1\ndata: a\nid: 2\ndata: b\n\n",
        BodyFormat(BodyKind.EVENTS, pieces=1, longest_piece=3, joined_events=1),
    ),
    "several lines of data": (b"data: a\ndata: b\n\n", BodyFormat(BodyKind.EVENTS, pieces=1, longest_piece=3)),
    "a paragraph outside": (
        b"data: a\n\nb\n\n",
        BodyFormat(BodyKind.EVENTS, pieces=1, longest_piece=1, stray_lines=1),
    ),
    "no event": (b"some text", BodyFormat(BodyKind.TEXT, stray_lines=1)),
    "a page": (b"<!DOCTYPE html><p>Hello", BodyFormat(BodyKind.PAGE, stray_lines=1)),
    "a page to log in": (b"<html><title>Sign in</title>\n", BodyFormat(BodyKind.LOGIN_PAGE, stray_lines=1)),
    "lines of JSON": (
        b'{"text":"a"}\n{"done":true}\n',
        BodyFormat(BodyKind.JSON_LINES, pieces=1, longest_piece=1),
    ),
    "nothing": (b"", BodyFormat()),
}


@pytest.mark.parametrize(("body", "wanted"), BODIES.values(), ids=BODIES)
@given(breaks=st.lists(st.integers(0, 100), max_size=1))
def test_how_a_body_is_written(body: bytes, wanted: BodyFormat, breaks: list[int]) -> None:
    """Wherever the bytes break; in too many pieces one event of several lines looks like several."""
    counter = EventCounter()
    for start, end in pairwise([0, *sorted(min(each, len(body)) for each in breaks), len(body)]):
        counter.feed(body[start:end])
    assert counter.format == wanted


def test_lines_of_one_event_that_come_one_by_one_are_several() -> None:
    counter = EventCounter()
    for number in range(5):
        counter.feed(b"data: %d\n" % number)
    counter.feed(b"\n")
    assert counter.format.joined_events == 1


def test_a_long_event_of_many_lines_is_one() -> None:
    counter = EventCounter()
    for _ in range(5):
        counter.feed(b"data: a line of a long event\n" * 300)
    counter.feed(b"\n")
    assert counter.format.joined_events == 0


def test_a_blank_line_too_many_is_one_only_with_its_event() -> None:
    """Some servers send a line end for a heartbeat."""
    counter = EventCounter()
    for piece in (b"data: .\n\n\n\n", b"data: a\n\n", b"\n", b": ping\n\n"):
        counter.feed(piece)
    assert counter.format.split_texts == 1
