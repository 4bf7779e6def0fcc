"""Whether the answer was delivered as it was written, or held back on its way. The first rule that matches decides."""

from __future__ import annotations

from collections.abc import Callable

from .findings import Finding, Level, plural
from .measurements import HELD_BACK, Ending, Framing, Measurements, Observation
from .spans import (
    FLOWS,
    beats_before,
    came_at_once,
    came_in_bursts,
    delivery_of,
    has_pieces,
    headers_waited,
    is_lumpier,
    may_be_chance,
    written_bit_by_bit,
)

_DIRECT = "Measure past the proxies too: --direct URL."
_PRINT = "Print the tokens in the endpoint, with the time: do they come one by one there?"
_WHOLE_ANSWER = 200  # characters in one event: more than a model writes at a time


def delivery(measurements: Measurements) -> Finding | None:
    """Return what is wrong with the delivery."""
    for rule in RULES:
        if finding := rule(measurements):
            return finding
    return None


def is_doubtful(measurements: Measurements) -> bool:
    """Whether one more answer is needed to tell a short one that was held back from chance."""
    finding = delivery(measurements)
    doubtful = finding is not None and finding.rule in ("held_back", "one_block", "compressed", "in_bursts")
    return doubtful and may_be_chance(_plain(measurements))


def _plain(measurements: Measurements) -> Observation:
    """Return the answer to judge: of several the one that flowed best, since chance only holds back."""
    if measurements.uncompressed_answer is not None:
        return measurements.uncompressed_answer
    whole = [each for each in measurements.url if each.answered and each.ended is measurements.main.ended]
    return min(whole or [measurements.main], key=lambda each: delivery_of(each).share)


def compressed(measurements: Measurements) -> Finding | None:
    main, plain = measurements.main, measurements.uncompressed_answer
    if not main.encoding or plain is None:
        return None
    held = [each for each in measurements.url if each.answered]
    if not all(is_lumpier(each, plain) for each in held):
        return None
    seen = (
        f"Compressed ({main.encoding}) it came in {_blocks(main)}, not compressed in {len(plain.blocks)}: "
        "works with curl, not in the browser."
    )
    if measurements.app_compresses is None:
        causes = ("compression", "gzip_middleware")
        causes = causes[::-1] if measurements.is_application else causes
        return Finding("compressed", Level.FAULT, seen, causes, f"{_DIRECT} {_WHO_COMPRESSES}")
    who = "gzip_middleware" if measurements.app_compresses else "compression"
    return Finding("compressed", Level.FAULT, seen, (who,))


_WHO_COMPRESSES = "Who compresses past them is the application."


def held_back(measurements: Measurements) -> Finding | None:
    """The direct answer is streamed, the one through the proxy is not."""
    answer, direct = _plain(measurements), measurements.direct_answer
    if direct is None or not answer.answered or not is_lumpier(answer, direct):
        return None
    seen = f"It came in {_blocks(answer)} after {answer.first_byte:.1f} s; past the proxy in {len(direct.blocks)}, "
    return Finding("held_back", Level.FAULT, seen + f"from {direct.first_byte:.1f} s on.", ("proxy_buffering",))


def one_event(measurements: Measurements) -> Finding | None:
    """The whole answer is one event. No proxy joins events."""
    answer = _plain(measurements)
    form = answer.format
    few = 0 < form.pieces <= 2 and form.longest_piece >= _WHOLE_ANSWER
    if not few or not answer.answered or not has_pieces(answer) or delivery_of(answer).wait < HELD_BACK:
        return None
    wait = delivery_of(answer).wait
    seen = f"The whole answer is one event, of {form.longest_piece:,} characters, after {wait:.1f} s."
    causes = ("engine_one_chunk", "llm_at_once", "string_returned")
    return Finding("one_event", Level.FAULT, seen, causes, _IN_THE_ENGINE)


_IN_THE_ENGINE = (
    "for piece in engine.query(...).response_gen: print(piece) - one line is the engine or its LLM, "
    "many are the endpoint. `doctor` alone names the versions of LlamaIndex that do not stream."
)


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
    seen = f"All of it came at once after {delivery_of(answer).wait:.1f} s"
    if direct is not None:
        return Finding("one_block", Level.FAULT, f"{seen}, past the proxy too.", _HELD_IN_THE_APP, _PRINT)
    if beats_before(answer):
        seen += ", and heartbeats came before: no proxy holds it back."
        return Finding("one_block", Level.FAULT, seen, _HELD_IN_THE_APP, _PRINT)
    causes = ("proxy_buffering", *_HELD_IN_THE_APP)
    if measurements.is_application and (written_bit_by_bit(answer) or headers_waited(answer)):
        causes = (*_HELD_IN_THE_APP, "proxy_buffering")
    return Finding("one_block", Level.FAULT, f"{seen}.", causes, f"{_DIRECT} {_PRINT}")


_HELD_IN_THE_APP = ("collected", "llm_at_once", "body_reading_middleware")


def in_bursts(measurements: Measurements) -> Finding | None:
    answer, direct = _plain(measurements), measurements.direct_answer
    if not answer.answered or not came_in_bursts(answer):
        return None
    together = plural(round(delivery_of(answer).together), "event")
    seen = f"The answer came in {_blocks(answer)}, {together} at a time."
    if direct is not None:
        return Finding("in_bursts", Level.RISK, f"{seen} Past the proxies too.", ("llm_in_bursts", "collected"), _PRINT)
    return Finding("in_bursts", Level.RISK, seen, ("proxy_buffering", "llm_in_bursts"), f"{_DIRECT} {_PRINT}")


def too_quick_to_tell(measurements: Measurements) -> Finding | None:
    answer = _plain(measurements)
    if answer.ended is not Ending.CLEAN or not answer.answered or not answer.size:
        return None
    if delivery_of(answer).span >= FLOWS or answer.ended_at >= HELD_BACK:
        return None
    seen = f"It was over after {answer.ended_at:.2f} s: too quick to see whether something holds it back."
    return Finding("too_quick_to_tell", Level.HINT, seen, ("short_answer",))


def _in_one_block(answer: Observation) -> bool:
    return came_at_once(answer) and answer.ended in (Ending.CLEAN, Ending.GAVE_UP)


def _blocks(answer: Observation) -> str:
    count = len(answer.blocks)
    return "one block" if count == 1 else f"{count} blocks"


DeliveryRule = Callable[[Measurements], Finding | None]
RULES: tuple[DeliveryRule, ...] = (
    compressed,
    held_back,
    one_event,
    one_block_with_length,
    one_block,
    in_bursts,
    too_quick_to_tell,
)
