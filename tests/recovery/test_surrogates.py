"""Servers that cut an emoji in two: what is sent can be encoded, what the reader has stays, and the join is found."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from llama_index.core.base.llms.types import ChatMessage
from llama_index.llms.openai import OpenAI
from tenacity import wait_none

from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM
from llama_index_resilient_stream.recovery.continuation import Continuation
from llama_index_resilient_stream.recovery.seam import RestartJoin, Seam
from llama_index_resilient_stream.recovery.surrogates import join_halves, sendable
from llama_index_resilient_stream.testing.continuation_styles import find_anchor

HIGH, LOW = "\ud83d", "\ude00"

SENDABLE: dict[str, tuple[str, str]] = {
    "plain": ("Grün 字 😀", "Grün 字 😀"),
    "a pair": (f"a{HIGH}{LOW}b", "a😀b"),
    "pairs in a row": ((HIGH + LOW) * 3, "😀😀😀"),
    "first half alone": (f"a{HIGH}b", "a\ufffdb"),
    "second half alone": (f"a{LOW}b", "a\ufffdb"),
    "at the end": (f"a{HIGH}", "a\ufffd"),
    "at the beginning": (f"{LOW}a", "\ufffda"),
    "the wrong way round": (f"{LOW}{HIGH}", "\ufffd\ufffd"),
    "half before a pair": (f"{HIGH}{HIGH}{LOW}", "\ufffd😀"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize(("text", "sent"), SENDABLE.values(), ids=SENDABLE.keys())
def test_sendable(text: str, sent: str) -> None:
    assert sendable(text) == sent
    sendable(text).encode()


@given(text=st.text(st.characters()) | st.text(f"a {HIGH}{LOW}"))
def test_what_is_sent_can_always_be_encoded(text: str) -> None:
    for strategy in ("ask", "prefill", "append"):
        continuation = Continuation(strategy)  # type: ignore[arg-type]
        for part in (continuation.anchor(text), *(turn.text for turn in continuation.turns(text))):
            part.encode()


def halves(text: str) -> str:
    """As a server sends it that counts in UTF-16."""
    return "".join(
        "".join(chr(int.from_bytes(unit.encode("utf-16-be")[at : at + 2], "big")) for at in (0, 2))
        if ord(unit) > 0xFFFF
        else unit
        for unit in text
    )


TEXTS = st.text("abc .\n😀🏡é字", min_size=2, max_size=120)


@given(text=TEXTS, where=st.floats(0, 1), size=st.integers(1, 7))
@example(text="Hello 😀 there", where=0.5, size=1)
def test_joined_wherever_it_is_cut(text: str, where: float, size: int) -> None:
    units = halves(text)
    cut = min(len(units) - 1, max(1, int(where * len(units))))
    said, rest = units[:cut], units[cut:]
    anchor = Continuation().anchor(said)
    continuation = halves(anchor) + rest
    seam = Seam(said, anchor)
    pieces = [continuation[at : at + size] for at in range(0, len(continuation), size)]
    shown = "".join(map(seam.feed, pieces)) + seam.finish(complete=True)
    assert ascii(join_halves(said + shown)) == ascii(text)


def test_an_anchor_with_a_lone_half_matches_however_it_comes_back() -> None:
    said = f"One two three {HIGH} four five"
    anchor = Continuation().anchor(said)
    for repeated in (anchor, said):
        seam = Seam(said, anchor)
        assert (seam.feed(f"{repeated} six"), seam.decision) == (" six", "anchor")


def test_a_half_that_is_held_back_is_not_lost() -> None:
    seam = Seam("One two", "One two")
    assert seam.feed(f"One two{HIGH}") + seam.feed(f"{LOW}!") == f"{HIGH}{LOW}!"
    seam = Seam("One two", "One two")
    assert seam.feed(HIGH) + seam.finish(complete=True) == HIGH
    seam = Seam("One two", "One two")
    assert (seam.feed(HIGH) + seam.finish(complete=False), seam.leftover) == ("", HIGH)


@pytest.mark.parametrize("size", [1, 2, 50])
def test_a_restarted_turn_is_the_same_in_other_pieces(size: int) -> None:
    join = RestartJoin(f"One {HIGH}{LOW} two")
    again = halves("One 😀 two three")
    shown = "".join(join.feed(again[at : at + size]) for at in range(0, len(again), size))
    assert (join_halves(shown), join.reset) == (" three", False)


WHOLE = "Here is a face 😀 and here is a house 🏡 and then the end of the story."


class Gateway:
    """Sends in UTF-16 units, and loses the end of its first stream."""

    def __init__(self, lone: str) -> None:
        self.requests: list[dict[str, Any]] = []
        self.lone = lone

    def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content.decode())
        self.requests.append(asked)
        if len(self.requests) == 1:
            return self.stream(halves(WHOLE)[:42] + self.lone, None)
        said, wording = asked["messages"][-2]["content"], asked["messages"][-1]["content"]
        return self.stream(find_anchor(said, wording) + halves(WHOLE)[42:], "stop")

    def stream(self, text: str, finish: str | None) -> httpx.Response:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": unit} for unit in text)]
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices += [{"index": 0, "delta": {}, "finish_reason": finish}] if finish else []
        head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        body = "".join(f"data: {json.dumps({**head, 'choices': [choice]})}\n\n" for choice in choices)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body.encode())


@pytest.mark.parametrize("lone", ["", HIGH, LOW], ids=["pairs", "first half alone", "second half alone"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_answer_with_halves_is_healed(lone: str, is_async: bool) -> None:
    gateway = Gateway(lone)
    transport = httpx.MockTransport(gateway)
    clients = {"http_client": httpx.Client(transport=transport)}
    inner = OpenAI("gpt-4o-mini", api_key="none", async_http_client=httpx.AsyncClient(transport=transport), **clients)
    llm = ResilientLLM(inner, policy=RecoveryPolicy(wait=wait_none()))
    question = [ChatMessage(role="user", content="?")]

    async def aread() -> str:
        return "".join([chunk.delta or "" async for chunk in await llm.astream_chat(question)])

    text = asyncio.run(aread()) if is_async else "".join(chunk.delta or "" for chunk in llm.stream_chat(question))
    assert ascii(join_halves(text)) == ascii(WHOLE[:40] + lone + WHOLE[40:])
    assert len(gateway.requests) == 2
    assert gateway.requests[1]["messages"][-2]["content"] == sendable(WHOLE[:40] + lone)
