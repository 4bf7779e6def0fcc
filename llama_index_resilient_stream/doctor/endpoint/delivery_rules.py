"""Whether the answer was delivered as it was written, or held back on its way. The first rule that matches decides."""

from __future__ import annotations

from collections.abc import Callable

from .findings import Finding, Level
from .measurements import HELD_BACK, Ending, Framing, Measurements, Observation

_DIRECT = "Measure past the proxies too: --direct URL."
_MANY = 4
"""Pieces that are so many times as big were not made by chance."""


def delivery(measurements: Measurements) -> Finding | None:
    """Return what is wrong with the delivery."""
    for rule in RULES:
        if finding := rule(measurements):
            return finding
    return None


def _plain(measurements: Measurements) -> Observation:
    return measurements.uncompressed_answer or measurements.main


def _is_lumpier(answer: Observation, free: Observation) -> bool:
    """Whether an answer came in bigger pieces than one that nothing held back. The two may differ in length."""
    if not answer.blocks or not free.streams:
        return False
    if answer.one_block:
        return True
    if answer.is_sse and free.is_sse and answer.readable and free.readable:
        return answer.counts.events / len(answer.blocks) >= _MANY * free.counts.events / len(free.blocks)
    return len(answer.blocks) * _MANY <= len(free.blocks)


def compressed(measurements: Measurements) -> Finding | None:
    main, plain = measurements.main, measurements.uncompressed_answer
    if not main.encoding or plain is None or not _is_lumpier(main, plain):
        return None
    seen = (
        f"Compressed ({main.encoding}) it came in {_blocks(main)}, not compressed in {len(plain.blocks)}: "
        "works with curl, not in the browser."
    )
    return Finding("compressed", Level.FAULT, seen, ("compression",))


def held_back(measurements: Measurements) -> Finding | None:
    """The direct answer is streamed, the one through the proxy is not."""
    answer, direct = _plain(measurements), measurements.direct_answer
    if direct is None or not answer.answered or not _is_lumpier(answer, direct):
        return None
    seen = f"It came in {_blocks(answer)} after {answer.first_byte:.1f} s; past the proxy in {len(direct.blocks)}, "
    return Finding("held_back", Level.FAULT, seen + f"from {direct.first_byte:.1f} s on.", ("proxy_buffering",))


def one_block_with_length(measurements: Measurements) -> Finding | None:
    answer, direct = _plain(measurements), measurements.direct_answer
    if not _in_one_block(answer) or answer.framing is not Framing.LENGTH:
        return None
    seen = f"All of it came at once after {answer.first_byte:.1f} s, with a Content-Length: nothing was streamed."
    distinguish = "The endpoint's code; middleware that reads the body, above all of type BaseHTTPMiddleware."
    causes: tuple[str, ...] = ("string_returned", "body_reading_middleware")
    if direct is not None:
        return Finding("one_block_with_length", Level.FAULT, seen, causes, distinguish)
    causes += ("proxy_buffering",)
    return Finding("one_block_with_length", Level.FAULT, seen, causes, f"{distinguish} {_DIRECT}")


def one_block(measurements: Measurements) -> Finding | None:
    answer, direct = _plain(measurements), measurements.direct_answer
    if not _in_one_block(answer):
        return None
    seen = f"All of it came at once after {answer.first_byte:.1f} s"
    distinguish = "Print the tokens in the endpoint, with the time: do they come one by one there?"
    if direct is not None:
        return Finding("one_block", Level.FAULT, f"{seen}, past the proxy too.", _HELD_IN_THE_APP, distinguish)
    causes = ("proxy_buffering", *_HELD_IN_THE_APP)
    return Finding("one_block", Level.FAULT, f"{seen}.", causes, f"{_DIRECT} {distinguish}")


_HELD_IN_THE_APP = ("llm_at_once", "body_reading_middleware")


def too_quick_to_tell(measurements: Measurements) -> Finding | None:
    answer = _plain(measurements)
    if answer.ended is not Ending.CLEAN or not answer.answered or not answer.size or answer.streams:
        return None
    if answer.ended_at >= HELD_BACK:
        return None
    seen = f"It was over after {answer.ended_at:.2f} s: too quick to see whether something holds it back."
    return Finding("too_quick_to_tell", Level.HINT, seen, ("short_answer",))


def _in_one_block(answer: Observation) -> bool:
    return answer.answered and answer.one_block and answer.ended is Ending.CLEAN


def _blocks(answer: Observation) -> str:
    count = len(answer.blocks)
    return "one block" if count == 1 else f"{count} blocks"


DeliveryRule = Callable[[Measurements], Finding | None]
RULES: tuple[DeliveryRule, ...] = (compressed, held_back, one_block_with_length, one_block, too_quick_to_tell)
