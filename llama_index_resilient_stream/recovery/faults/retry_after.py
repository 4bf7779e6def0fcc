"""Reads how long a provider asked us to wait.

The header is RFC 9110, section 10.2.3: a number of seconds, or an HTTP-date. OpenAI and Azure add
`retry-after-ms`, which is finer and so comes first, as in OpenAI's own SDK. Google puts a
google.rpc.RetryInfo into the body. Where neither is there, the reset time of a rate limit of which nothing
remains will do.

Nothing here raises: what makes no sense is ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ..attributes import dig, read
from .exceptions import bodies


def seconds_asked(
    links: Iterable[BaseException], now: Callable[[], datetime], seen: Mapping[str, str] | None = None
) -> float | None:
    """Return seconds from now, from the first of the exceptions that says; None where none does.

    Args:
        links: the exceptions, outermost first.
        now: returns the current time.
        seen: headers that were seen on the wire, for exceptions without any.
    """
    for link in links:
        for find in (_from_headers, _from_body):
            try:
                seconds = find(link, now)
            except Exception:
                continue
            if seconds is not None:
                return seconds
    return _in_headers(_lowered(seen), now) if seen else None


def _from_headers(error: BaseException, now: Callable[[], datetime]) -> float | None:
    found = (_in_headers(headers, now) for headers in _headers(error))
    return next((seconds for seconds in found if seconds is not None), None)


def _in_headers(headers: Mapping[str, str], now: Callable[[], datetime]) -> float | None:
    if (milliseconds := _seconds(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    if (value := headers.get("retry-after")) is not None:
        seconds = _seconds(value)
        seconds = _until_date(value, now) if seconds is None else seconds
        if seconds is not None:
            return seconds
    return _until_reset(headers, now)


def _headers(error: BaseException) -> Iterator[dict[str, str]]:
    """Yield headers from every place where an SDK keeps them. LiteLLM's `response` is made up, without them."""
    response = read(error, "response")
    for found in (
        read(error, "litellm_response_headers"),
        read(response, "headers"),
        read(error, "headers"),
        dig(response, "ResponseMetadata", "HTTPHeaders"),  # botocore
    ):
        if lowered := _lowered(found):
            yield lowered


def _lowered(headers: Any) -> dict[str, str]:
    """Return headers as a dictionary with names in lower case, from any mapping or list of pairs."""
    try:
        pairs = headers.items() if isinstance(headers, Mapping) or hasattr(headers, "items") else headers or ()
        return {_text(name).strip().lower(): _text(value).strip() for name, value in pairs}
    except Exception:
        return {}


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _seconds(value: str | None) -> float | None:
    """Return a finite number of seconds, not negative, or None."""
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _until_date(value: str, now: Callable[[], datetime]) -> float | None:
    """Return seconds until an HTTP-date; one that has passed means now."""
    try:
        return _until(parsedate_to_datetime(value), now)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def _until(moment: datetime, now: Callable[[], datetime]) -> float:
    return max(0.0, (_aware(moment) - _aware(now())).total_seconds())


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


# Rate limits that say when they are reset: OpenAI and Groq ("6m0s", "7.66s", "120ms"), Anthropic (RFC 3339)

_RESETS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
)
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNITS = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)


def _until_reset(headers: Mapping[str, str], now: Callable[[], datetime]) -> float | None:
    """Return the longest wait in seconds among the limits that are used up."""
    waits = [
        wait
        for remaining, reset in _RESETS
        if headers.get(remaining) == "0" and (wait := _until_moment(headers.get(reset, ""), now)) is not None
    ]
    return max(waits, default=None)


def _until_moment(value: str, now: Callable[[], datetime]) -> float | None:
    if (seconds := _duration(value)) is not None:
        return seconds
    try:
        return _until(datetime.fromisoformat(value), now)
    except (ValueError, OverflowError):
        return None


def _duration(value: str) -> float | None:
    found = _DURATION.fullmatch(value)
    if not value or found is None:
        return None
    return sum(float(count) * unit for count, unit in zip(found.groups(), _UNITS, strict=True) if count)


# google.rpc.RetryInfo: {"@type": ".../google.rpc.RetryInfo", "retryDelay": "34.07s"}


def _from_body(error: BaseException, _now: Callable[[], datetime]) -> float | None:
    for node in bodies(error):
        delay = node.get("retryDelay")
        if isinstance(delay, str) and str(node.get("@type", "RetryInfo")).endswith("RetryInfo"):
            return _duration(delay)
    return None
