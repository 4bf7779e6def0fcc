"""Whether the answer came as it was written, or was held back on its way. The first rule that matches has the word."""

from __future__ import annotations

from collections.abc import Callable

from .findings import Finding, Level
from .measurements import PATIENCE, Ending, Framing, Observation, Survey

_DIRECT = "Measure past the proxies too: --direct URL."
_MANY = 4
"""Pieces that are so many times as big are no accident."""


def arrival(survey: Survey) -> Finding | None:
    """What is wrong with how it came."""
    for rule in RULES:
        if finding := rule(survey):
            return finding
    return None


def _plain(survey: Survey) -> Observation:
    return survey.plain or survey.main


def _lumps(answer: Observation, free: Observation) -> bool:
    """Whether it came in bigger pieces than where nothing holds it; no two answers are of the same length."""
    if not answer.blocks or not free.streams:
        return False
    if answer.one_block:
        return True
    if answer.is_sse and free.is_sse and answer.readable and free.readable:
        return answer.stream.events / len(answer.blocks) >= _MANY * free.stream.events / len(free.blocks)
    return len(answer.blocks) * _MANY <= len(free.blocks)


def compressed(survey: Survey) -> Finding | None:
    main, plain = survey.main, survey.plain
    if not main.encoding or plain is None or not _lumps(main, plain):
        return None
    seen = (
        f"Compressed ({main.encoding}) it came in {_blocks(main)}, not compressed in {len(plain.blocks)}: "
        "works with curl, not in the browser."
    )
    return Finding("compressed", Level.FAULT, seen, ("compression",))


def held_back(survey: Survey) -> Finding | None:
    """Past the proxy it streams."""
    answer, past = _plain(survey), survey.past
    if past is None or not answer.answered or not _lumps(answer, past):
        return None
    seen = f"It came in {_blocks(answer)} after {answer.first_byte:.1f} s; past the proxy in {len(past.blocks)}, "
    return Finding("held-back", Level.FAULT, seen + f"from {past.first_byte:.1f} s on.", ("proxy-buffering",))


def one_block_with_length(survey: Survey) -> Finding | None:
    answer, past = _plain(survey), survey.past
    if not _in_one_block(answer) or answer.framing is not Framing.LENGTH:
        return None
    seen = f"All of it came at once after {answer.first_byte:.1f} s, with a Content-Length: nothing was streamed."
    tell = "The endpoint's code; middleware that reads the body, above all of type BaseHTTPMiddleware."
    causes: tuple[str, ...] = ("string-returned", "body-reading-middleware")
    if past is not None:
        return Finding("one-block-with-length", Level.FAULT, seen, causes, tell)
    causes += ("proxy-buffering",)
    return Finding("one-block-with-length", Level.FAULT, seen, causes, f"{tell} {_DIRECT}")


def one_block(survey: Survey) -> Finding | None:
    answer, past = _plain(survey), survey.past
    if not _in_one_block(answer):
        return None
    seen = f"All of it came at once after {answer.first_byte:.1f} s"
    tell = "Print the tokens in the endpoint, with the time: do they come one by one there?"
    if past is not None:
        return Finding("one-block", Level.FAULT, f"{seen}, past the proxy too.", _HELD_IN_THE_APP, tell)
    causes = ("proxy-buffering", *_HELD_IN_THE_APP)
    return Finding("one-block", Level.FAULT, f"{seen}.", causes, f"{_DIRECT} {tell}")


_HELD_IN_THE_APP = ("llm-at-once", "body-reading-middleware")


def too_quick(survey: Survey) -> Finding | None:
    answer = _plain(survey)
    if answer.ended is not Ending.CLEAN or not answer.answered or not answer.size or answer.streams:
        return None
    if answer.ended_at >= PATIENCE:
        return None
    seen = f"It was over after {answer.ended_at:.2f} s: too quick to see whether something holds it back."
    return Finding("too-quick", Level.HINT, seen, ("short-answer",))


def _in_one_block(answer: Observation) -> bool:
    return answer.answered and answer.one_block and answer.ended is Ending.CLEAN


def _blocks(answer: Observation) -> str:
    count = len(answer.blocks)
    return "one block" if count == 1 else f"{count} blocks"


Rule = Callable[[Survey], Finding | None]
RULES: tuple[Rule, ...] = (compressed, held_back, one_block_with_length, one_block, too_quick)
