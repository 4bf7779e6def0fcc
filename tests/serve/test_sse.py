"""The wire format: what the encoder writes, a reader of the WHATWG standard reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import httpx_sse
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llama_index_resilient_stream import ConfigurationError, StreamStatus
from llama_index_resilient_stream.serve.parts import EndPart, Part, RecoveryPart, TextPart
from llama_index_resilient_stream.serve.protocols.events import event_of
from llama_index_resilient_stream.serve.sse import HEADERS, HEARTBEAT, TEXT_HEADERS, EventId, ServerSentEvent

# A second opinion


@dataclass
class Dispatched:
    event: str
    data: str
    last_event_id: str
    retry: int | None


def literal_reader(stream: bytes) -> Iterator[Dispatched]:
    """HTML standard, section 9.2.6 "Interpreting an event stream", sentence by sentence."""
    text = stream.decode("utf-8", "replace")
    if text.startswith("\ufeff"):  # one leading BOM is ignored
        text = text[1:]
    data = event_type = last_id = ""
    retry: int | None = None
    id_buffer = ""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    *lines, unfinished = text.split("\n")
    del unfinished  # "any pending data must be discarded"
    for line in lines:
        if line == "":
            last_id = id_buffer
            if data == "":
                event_type = ""
                continue
            if data.endswith("\n"):
                data = data[:-1]
            yield Dispatched(event_type or "message", data, last_id, retry)
            data = event_type = ""
        elif line.startswith(":"):
            continue
        else:
            field, colon, value = line.partition(":")
            if colon and value.startswith(" "):
                value = value[1:]
            match field:
                case "event":
                    event_type = value
                case "data":
                    data += value + "\n"
                case "id" if "\0" not in value:
                    id_buffer = value
                case "retry" if value and all(c in "0123456789" for c in value):
                    retry = int(value)


def test_the_literal_reader_reads_the_standards_own_examples() -> None:
    stocks = b"data: YHOO\ndata: +2\ndata: 10\n\n"
    assert [each.data for each in literal_reader(stocks)] == ["YHOO\n+2\n10"]
    four = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
    assert [(e.data, e.last_event_id) for e in literal_reader(four)] == [
        ("first event", "1"),
        ("second event", ""),
        (" third event", ""),
    ]
    assert [each.data for each in literal_reader(b"data\n\ndata\ndata\n\ndata:")] == ["", "\n"]


def other_reader(stream: bytes) -> list[httpx_sse.ServerSentEvent]:
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    return list(httpx_sse.EventSource(response).iter_sse())


# Texts

NASTY = ["", "\r", "\n", "\r\n", "\n\n", "\0", "\ud800", "\udc00\ud83d", "\u2028", "\u2029", "\x85", "\ufeff", "😀"]
NASTY += [" ", ": ", "data: x", "\n\nevent: done\ndata: {}\n\n", "id: 9", "e\u0301", '"\\', "\x1e", "\v\f"]
texts = st.one_of(
    st.text(st.characters(exclude_categories=())),
    st.lists(st.sampled_from(NASTY)).map("".join),
    st.lists(st.text(st.characters(exclude_categories=())) | st.sampled_from(NASTY)).map("".join),
)


def paired(text: str) -> str:
    """Both halves of a surrogate pair in one piece are a character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def parts() -> st.SearchStrategy[Part]:
    return st.one_of(
        texts.map(TextPart),
        st.builds(RecoveryPart, st.integers(2, 99), texts),
        st.builds(EndPart, st.sampled_from([*StreamStatus, "lost", "expired"]), texts, st.booleans()),
    )


@given(st.lists(texts, min_size=1))
def test_every_text_arrives_as_it_was(pieces: list[str]) -> None:
    stream = b"".join(event_of(TextPart(piece), EventId(n)).encode() + HEARTBEAT for n, piece in enumerate(pieces, 1))
    read = list(literal_reader(HEARTBEAT + stream))
    assert [json.loads(each.data)["text"] for each in read] == [paired(piece) for piece in pieces]
    assert [each.last_event_id for each in read] == [str(n) for n in range(1, len(pieces) + 1)]
    assert {each.event for each in read} == {"message"}
    assert [json.loads(each.data)["text"] for each in other_reader(stream)] == [paired(piece) for piece in pieces]
    naive = [line for line in stream.decode().splitlines() if line.startswith("data: ")]
    assert len(naive) == len(pieces), "also for clients that know more line ends than the standard"


@given(parts())
def test_every_part_is_one_event_of_one_line_of_json(part: Part) -> None:
    written = event_of(part, EventId(3, over=isinstance(part, EndPart))).encode()
    (read,) = literal_reader(written)
    (second,) = other_reader(written)
    assert (second.event, second.data) == (read.event, read.data)
    assert written.count(b"data: ") >= 1
    assert [line[:6] for line in written.split(b"\n")].count(b"data: ") == 1
    data = json.loads(read.data)
    match part:
        case TextPart(text):
            assert (read.event, data) == ("message", {"text": paired(text)})
        case RecoveryPart(attempt, reason):
            assert (read.event, data) == ("recovery", {"attempt": attempt, "reason": paired(reason)})
        case EndPart(status, reason, retryable) if read.event == "error":
            assert data == {"status": status, "reason": paired(reason), "retryable": retryable}
        case EndPart(status):
            assert (read.event, data) == ("done", {"status": status})


@given(
    st.text(),
    st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"])),
    st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"])),
    st.none() | st.integers(0, 10**6),
)
@example("a\rb\nc\r\nd\n", "tick", "7", 100)
@example("", " two", " two", None)
def test_any_event_is_read_as_it_was_written(data: str, event: str, id_: str, retry: int | None) -> None:
    written = ServerSentEvent(data, event, id_, retry).encode()
    read = list(literal_reader(written))
    lines = data.replace("\r\n", "\n").replace("\r", "\n")  # all three end a line, and the reader gets one of them
    assert [(each.event, each.data, each.last_event_id) for each in read] == [(event or "message", lines, id_)]
    assert read[0].retry == retry


@pytest.mark.parametrize("broken", ["a\nb", "a\rb", "a\0b", "\r\n", "x\n"])
@pytest.mark.parametrize("field", ["event", "id"])
def test_event_that_sse_cannot_write_is_refused(field: str, broken: str) -> None:
    with pytest.raises(ConfigurationError, match=f"The {field} of a server-sent event is one line"):
        ServerSentEvent("x", **{field: broken}).encode()


def test_a_heartbeat_is_no_event() -> None:
    assert list(literal_reader(HEARTBEAT * 3)) == []
    after_an_event = (
        event_of(TextPart("a"), EventId(1)).encode() + HEARTBEAT * 3 + event_of(TextPart("b"), EventId(2)).encode()
    )
    assert [json.loads(each.data)["text"] for each in literal_reader(after_an_event)] == ["a", "b"]
    assert [json.loads(each.data)["text"] for each in other_reader(after_an_event)] == ["a", "b"]


@pytest.mark.parametrize("cut", range(1, len(event_of(TextPart("half"), EventId(7)).encode())))
def test_incomplete_event_is_dropped_with_its_id(cut: int) -> None:
    whole, half = event_of(TextPart("a"), EventId(6)).encode(), event_of(TextPart("half"), EventId(7)).encode()[:cut]
    assert [each.last_event_id for each in literal_reader(whole + half)] == ["6"]


# What the events are called


@pytest.mark.parametrize("status", list(StreamStatus))
def test_only_an_answer_that_is_whole_or_was_stopped_is_done(status: StreamStatus) -> None:
    event = event_of(EndPart(status, "attempts", True), EventId(4, over=True))
    assert event.id == "4.end"
    if status in (StreamStatus.INTERRUPTED, StreamStatus.STREAMING):
        assert event.event == "error"
        assert json.loads(event.data) == {"status": status, "reason": "attempts", "retryable": True}
    else:
        assert event.event == "done"
        assert json.loads(event.data) == {"status": status}


def test_text_that_is_not_ascii_stays_readable_on_the_wire() -> None:
    assert event_of(TextPart("“Grüße” 😀"), EventId(1)).encode() == 'id: 1\ndata: {"text":"“Grüße” 😀"}\n\n'.encode()


# Ids

generations = st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9_-]{16,64}", fullmatch=True))


@given(st.builds(EventId, st.integers(0, 10**15 - 1), generations, st.booleans()))
def test_an_id_is_parsed_as_it_was_written(given_id: EventId) -> None:
    assert EventId.parse(str(given_id)) == given_id


@given(st.text())
def test_any_last_event_id_is_harmless(text: str) -> None:
    parsed = EventId.parse(text)
    assert parsed is None or EventId.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1.2", "1.end.end", " 1", "1 ", "1\n", "²", "٣", "9" * 16, "short.1", f"{'x' * 65}.1", ".1"]
)
def test_foreign_event_ids_are_not_parsed(text: str) -> None:
    assert EventId.parse(text) is None


# Headers


def test_the_headers() -> None:
    assert HEADERS == {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-store, no-transform",
        "X-Accel-Buffering": "no",
        "Content-Encoding": "identity",
    }
    assert TEXT_HEADERS["Content-Type"] == "text/plain; charset=utf-8"
    assert TEXT_HEADERS["X-Content-Type-Options"] == "nosniff"
    assert {**TEXT_HEADERS, **HEADERS}.keys() == TEXT_HEADERS.keys()
