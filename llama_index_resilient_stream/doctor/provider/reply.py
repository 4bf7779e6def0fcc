"""One streamed reply of an OpenAI-compatible endpoint, read as raw server-sent events."""

from __future__ import annotations

import json
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

import httpx

from ...recovery.attributes import dig, first_of, read
from ...recovery.finish_reasons import FinishReason, finish_reason_of
from ...transport.terminator import TerminatorWatch

Ended = Literal["done", "clean", "cut", "gave up", "unreachable"]
"""done: we stopped at [DONE], as the SDKs do. gave up: we stopped for another reason, mostly that time was over."""

MOST_BYTES = 1_000_000  # nobody asked for more
_LINE = re.compile(rb"[^\r\n]*(\r\n|\r|\n|$)")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{1,60}")


@dataclass(frozen=True)
class Block:
    """Bytes that came out of the connection together, `at` seconds after the request."""

    at: float
    data: bytes


@dataclass(frozen=True)
class Reply:
    """What came back. `status` 0: nothing did. No text of it is in its repr."""

    status: int = 0
    ended: Ended = "clean"
    kind: str = ""
    """The media type."""
    encoding: str = ""
    """The Content-Encoding."""
    blocks: tuple[Block, ...] = field(default=(), repr=False)

    @property
    def is_stream(self) -> bool:
        return self.status == 200 and self.kind == "text/event-stream"

    @property
    def is_whole(self) -> bool:
        """Whether it came to an end by itself, so that what is not there was not sent."""
        return self.is_stream and self.ended in ("done", "clean") and self.error is None

    @cached_property
    def body(self) -> bytes:
        return b"".join(block.data for block in self.blocks)

    @cached_property
    def _lines(self) -> list[tuple[float, bytes]]:
        """Every line and when it was there, in seconds."""
        ends = list(accumulate(len(block.data) for block in self.blocks))
        found = []
        for match in _LINE.finditer(self.body):
            if match[0]:
                block = min(bisect_left(ends, match.end()), len(self.blocks) - 1)
                found.append((self.blocks[block].at, match[0].rstrip(b"\r\n")))
        return found

    @cached_property
    def events(self) -> list[tuple[float, dict[str, Any]]]:
        """The JSON objects of the stream, each with the time in seconds at which it was there."""
        data = [(at, line[5:].strip()) for at, line in self._lines if line.startswith(b"data:")]
        parsed = ((at, _parsed(text)) for at, text in data)
        return [(at, thing) for at, thing in parsed if thing is not None]

    @property
    def comments(self) -> int:
        """Comment lines: keep-alives."""
        return sum(line.startswith(b":") for _, line in self._lines)

    @property
    def done(self) -> bool:
        """Whether `data: [DONE]` came."""
        return any(line.startswith(b"data:") and line[5:].strip() == b"[DONE]" for _, line in self._lines)

    @cached_property
    def text(self) -> str:
        return "".join(dig(_delta(event), "content") or "" for _, event in self.events)

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
    def signal(self) -> FinishReason | None:
        """The first finish signal, on whichever event it was."""
        return next((signal for _, event in self.events if (signal := finish_reason_of(event, None)) is not None), None)

    @property
    def error(self) -> Mapping[str, Any] | None:
        """The error in an event, or in the body of a refusal."""
        source: list[Any] = [event for _, event in self.events] or [_parsed(self.body)]
        return next((e for thing in source if isinstance(e := read(thing, "error"), Mapping)), None)

    @property
    def words(self) -> tuple[str, ...]:
        """The error's type and code. Its message is nobody's to print: some quote the key."""
        found = (str(read(self.error, name) or "") for name in ("type", "code"))
        return tuple(dict.fromkeys(word for word in found if _WORD.fullmatch(word)))

    @property
    def progress(self) -> list[float]:
        """When text, thoughts or tool arguments were there, in seconds."""
        moved = ("content", "tool_calls", "reasoning_content", "reasoning")
        return [at for at, event in self.events if any(read(_delta(event), name) for name in moved)]


def ask(
    client: httpx.Client,
    url: str,
    body: Mapping[str, Any],
    *,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
) -> Reply:
    """Send one request and read for at most `timeout` seconds. Raises nothing that a network can bring about."""
    began = clock()
    blocks: list[Block] = []
    told: dict[str, Any] = {}
    witness = TerminatorWatch(promised=True)
    ended: Ended = "clean"
    try:
        with client.stream("POST", url, json=dict(body)) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            encoding = response.headers.get("content-encoding", "").lower()
            told = {"status": response.status_code, "kind": kind, "encoding": encoding}
            for data in response.iter_bytes():
                blocks.append(Block(clock() - began, data))
                witness.feed(data)
                if witness.terminated:
                    ended = "done"
                    break
                if clock() - began > timeout or sum(len(block.data) for block in blocks) > MOST_BYTES:
                    ended = "gave up"
                    break
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.ProxyError):
        ended = "unreachable"
    except httpx.TimeoutException:
        ended = "gave up"
    except httpx.HTTPError:
        ended = "cut"
    return Reply(ended=ended, blocks=tuple(blocks), **told)


def _parsed(data: bytes) -> dict[str, Any] | None:
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
