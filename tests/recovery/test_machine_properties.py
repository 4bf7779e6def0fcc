"""Promises of the machine, for chunks in any order from providers that tell, never tell, lie and stamp every chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import RecoveryPolicy, StreamInterruptedError, StreamStatus
from llama_index_resilient_stream.recovery.continuation import Continuation
from llama_index_resilient_stream.recovery.events import Chunk, Ended, Learned, Model
from llama_index_resilient_stream.recovery.finish_reasons import FinishMeaning, FinishReason
from llama_index_resilient_stream.recovery.machine import Recovery
from llama_index_resilient_stream.report import Strategy

STOP = FinishReason(FinishMeaning.COMPLETE, "stop")
Words = Literal["never", "last", "stamped", "early"]
WORDS = [f"word{number} " for number in range(30)]


@dataclass
class Stream:
    """What a server does in one attempt, as shares of what it has to say."""

    cut: int
    """Pieces of text that arrive; more than there are: all."""
    error: bool
    noise: list[str]
    """What stands between two pieces: a keep-alive, a thought, a usage chunk."""


streams = st.builds(
    Stream,
    cut=st.integers(0, 40),
    error=st.booleans(),
    noise=st.lists(st.sampled_from(["", "thought", "usage"]), max_size=4),
)


def read_attempt(recovery: Recovery, pieces: list[str], stream: Stream, words: Words, terminated: bool | None) -> str:
    """Feed one attempt to the machine. Returns what it showed."""
    shown: list[Chunk] = []
    whole = stream.cut >= len(pieces)
    early = words == "early"
    for index, piece in enumerate(pieces[: stream.cut]):
        if early and index == 2:
            shown += recovery.receive(Chunk("", finish_reason=STOP))
        reason = STOP if words == "stamped" else None
        shown += recovery.receive(Chunk(piece, progress=True, finish_reason=reason))
        for noise in stream.noise:
            usage = {"total_tokens": 1} if noise == "usage" else None
            shown += recovery.receive(Chunk("", progress=noise == "thought", usage=usage))
    if whole and words in ("last", "early"):
        shown += recovery.receive(Chunk("", finish_reason=STOP))
    error = ConnectionResetError("reset") if stream.error and not (whole and terminated) else None
    shown += recovery.receive(Ended(error, terminated if whole else None))
    return "".join(chunk.text for chunk in shown)


@given(
    plan=st.lists(streams, min_size=1, max_size=6),
    words=st.sampled_from(["never", "last", "stamped", "early"]),
    sends=st.sampled_from([True, False, None]),
    strategy=st.sampled_from([Strategy.ASK, Strategy.PREFILL, Strategy.APPEND]),
    completeness=st.sampled_from(["auto", "strict", "lenient"]),
    terminated=st.sampled_from([None, True]),
    taught=st.booleans(),
)
@settings(max_examples=300)
def test_shown_text_is_the_text_and_complete_means_whole(
    plan: list[Stream],
    words: Words,
    sends: bool | None,
    strategy: Strategy,
    completeness: Literal["auto", "strict", "lenient"],
    terminated: bool | None,
    taught: bool,
) -> None:
    text = "".join(WORDS)
    learned = Learned(untrusted_finish_reasons={"stop"} if taught else set())
    model = Model("m", Continuation(strategy), sends_finish_reason=sends, learned=learned)
    policy = RecoveryPolicy(stop=stop_after_attempt(3), wait=wait_none(), completeness=completeness)
    recovery = Recovery([model], policy)
    shown, cut_looks_whole = "", False
    for stream in [*plan, Stream(cut=99, error=False, noise=[])]:
        request = recovery.request
        said = request.partial_text
        assert said == shown == text[: len(said)]
        asked = request.strategy == "ask"
        anchor = request.turns[-1].text.rpartition("\n\n")[2] if asked else model.continuation.anchor(said)
        pieces = [*([anchor] if anchor else []), *_pieces(text[len(said) :])]
        if request.strategy == "restart":
            pieces = _pieces(text)
        # One chunk that says stop, and a clean end, is a whole answer as far as anybody can see.
        lone = words == "stamped" and not learned.untrusted_finish_reasons and stream.cut == 1 and not stream.error
        cut_looks_whole = cut_looks_whole or (lone and len(pieces) > 1)
        shown += read_attempt(recovery, pieces, stream, words, terminated)
        assert recovery.answer == shown
        try:
            if recovery.next_delay() is None:
                break
        except StreamInterruptedError as error:
            assert error.partial_text == shown  # noqa: PT017
            break
    recovery.cancel()  # the plan is over; the answer need not be
    assert text.startswith(shown)
    if recovery.report.status is StreamStatus.COMPLETE:
        assert shown == text or cut_looks_whole


def _pieces(text: str) -> list[str]:
    return [text[index : index + 7] for index in range(0, len(text), 7)]
