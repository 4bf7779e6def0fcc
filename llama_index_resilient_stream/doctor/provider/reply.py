"""One streamed reply of an OpenAI-compatible endpoint, read as raw server-sent events."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx

from ...recovery.attributes import dig, first_of, read
from ...recovery.finish_reasons import FinishReason, finish_reason_of
from ...transport.terminator import TerminatorWatch
from ..endpoint.measurements import Ending
from ..sse import OPENAI_DONE, LineDecoder, field_of, is_comment

MOST_BYTES = 1_000_000  # of one answer; more was not asked for
_ERROR_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{1,60}")


@dataclass(frozen=True)
class Block:
    """Bytes that came out of the connection together, `at` seconds after the request."""

    at: float
    data: bytes


@dataclass(frozen=True)
class Reply:
    """What came back; with status 0 nothing did. Its repr shows no text of it.

    `ended` is STOPPED_EARLY where we stopped at [DONE], as the SDKs do, and GAVE_UP where time or room was over.
    """

    status: int = 0
    ended: Ending = Ending.CLEAN
    media_type: str = ""
    encoding: str = ""
    """The Content-Encoding."""
    blocks: tuple[Block, ...] = field(default=(), repr=False)

    @property
    def is_stream(self) -> bool:
        return self.status == 200 and self.media_type == "text/event-stream"

    @property
    def is_whole(self) -> bool:
        """Whether it came to its own end, so that what is missing was not sent."""
        return self.is_stream and self.ended in (Ending.STOPPED_EARLY, Ending.CLEAN) and self.error is None

    @cached_property
    def body(self) -> bytes:
        return b"".join(block.data for block in self.blocks)

    @cached_property
    def _lines(self) -> list[tuple[float, str]]:
        """Every line, and the time in seconds at which it was complete."""
        decoder = LineDecoder()
        lines = [(block.at, line) for block in self.blocks for line in decoder.feed(block.data)]
        return [*lines, (self.blocks[-1].at, decoder.rest)] if decoder.rest else lines

    @cached_property
    def _data(self) -> list[tuple[float, str]]:
        fields = ((at, *field_of(line)) for at, line in self._lines)
        return [(at, value.strip()) for at, name, value in fields if name == "data"]

    @cached_property
    def events(self) -> list[tuple[float, dict[str, Any]]]:
        """The JSON objects of the stream, each with the time in seconds at which it was there."""
        parsed = ((at, _parsed(text)) for at, text in self._data)
        return [(at, thing) for at, thing in parsed if thing is not None]

    @property
    def comments(self) -> int:
        """Comment lines: keep-alives."""
        return sum(is_comment(line) for _, line in self._lines)

    @property
    def has_done(self) -> bool:
        """Whether `data: [DONE]` came."""
        return any(text == OPENAI_DONE for _, text in self._data)

    @cached_property
    def text(self) -> str:
        return "".join(dig(_delta(event), "content") or "" for _, event in self.events)

    @property
    def pieces(self) -> list[str]:
        """The text, as it came in chunks."""
        return [piece for _, event in self.events if (piece := dig(_delta(event), "content"))]

    @property
    def text_after_finish(self) -> bool:
        """Whether text followed a finish reason, which then was no end."""
        finished = False
        for _, event in self.events:
            if finished and dig(_delta(event), "content"):
                return True
            finished = finished or finish_reason_of(event, None) is not None
        return False

    @property
    def thinks(self) -> bool:
        return any(_thought(event) for _, event in self.events)

    @property
    def calls_tools(self) -> bool:
        return any(read(_delta(event), "tool_calls") for _, event in self.events)

    @property
    def usage(self) -> bool:
        return any(read(event, "usage") for _, event in self.events)

    @property
    def finish_reason(self) -> FinishReason | None:
        """The first finish reason, on whichever event it was."""
        return next((reason for _, event in self.events if (reason := finish_reason_of(event, None)) is not None), None)

    @property
    def error(self) -> Mapping[str, Any] | None:
        """The error in an event, or in the body of a refusal."""
        source: list[Any] = [event for _, event in self.events] or [_parsed(self.body)]
        return next((e for thing in source if isinstance(e := read(thing, "error"), Mapping)), None)

    @property
    def error_words(self) -> tuple[str, ...]:
        """The error's type and code. Its message is not printed: some quote the key."""
        found = (str(read(self.error, name) or "") for name in ("type", "code"))
        return tuple(dict.fromkeys(word for word in found if _ERROR_WORD.fullmatch(word)))

    @property
    def progress(self) -> list[float]:
        """When text, thoughts or tool arguments were there, in seconds."""
        moved = ("content", "tool_calls", "reasoning_content", "reasoning")
        return [at for at, event in self.events if any(read(_delta(event), name) for name in moved)]


def send(
    client: httpx.Client,
    url: str,
    body: Mapping[str, Any],
    *,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
) -> Reply:
    """Send one request and read for at most `timeout` seconds. Nothing that happens on the network raises."""
    began = clock()
    blocks: list[Block] = []
    seen: dict[str, Any] = {}
    terminator = TerminatorWatch(promised=True)
    ended: Ending = Ending.CLEAN
    try:
        with client.stream("POST", url, json=dict(body)) as response:
            media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            encoding = response.headers.get("content-encoding", "").lower()
            seen = {"status": response.status_code, "media_type": media_type, "encoding": encoding}
            for data in response.iter_bytes():
                blocks.append(Block(clock() - began, data))
                terminator.feed(data)
                if terminator.terminated:
                    ended = Ending.STOPPED_EARLY
                    break
                if clock() - began > timeout or sum(len(block.data) for block in blocks) > MOST_BYTES:
                    ended = Ending.GAVE_UP
                    break
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.ProxyError):
        ended = Ending.UNREACHABLE
    except httpx.TimeoutException:
        ended = Ending.GAVE_UP
    except httpx.HTTPError:
        ended = Ending.CUT
    return Reply(ended=ended, blocks=tuple(blocks), **seen)


def _parsed(data: str | bytes) -> dict[str, Any] | None:
    try:
        thing = json.loads(data)
    except ValueError:
        return None
    return thing if isinstance(thing, dict) else None


def _delta(event: Mapping[str, Any]) -> Any:
    return read(first_of(read(event, "choices")), "delta")


def _thought(event: Mapping[str, Any]) -> bool:
    delta = _delta(event)
    return bool(read(delta, "reasoning_content") or read(delta, "reasoning"))
