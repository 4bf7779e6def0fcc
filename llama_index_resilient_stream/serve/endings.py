"""How a served answer ended: as its report says, or as the exception that it was ended by."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from ..errors import ConfigurationError, StreamInterruptedError
from ..report import StreamReport, StreamStatus
from .parts import EndPart, EndReason

logger = logging.getLogger("llama_index_resilient_stream")


def end_of(report: StreamReport | None, error: BaseException | None, *, stopped: bool) -> EndPart:
    """The end, without a word of what went wrong inside: that is for the log."""
    if error is None:
        return _as_reported(report, stopped=stopped)
    if stopped or isinstance(error, asyncio.CancelledError):
        return EndPart(StreamStatus.CANCELLED)
    for cause in _causes(error):
        if isinstance(cause, StreamInterruptedError):
            logger.warning("an answer was interrupted: %s", cause)
            return EndPart(StreamStatus.INTERRUPTED, cause.reason, cause.retryable)
    if (refusal := http_error(error)) is not None:
        return refusal
    if isinstance(error, ConfigurationError):
        logger.error("an answer could not be read: %s", error)
    else:
        logger.error("an answer failed", exc_info=error)
    return EndPart(StreamStatus.INTERRUPTED, EndReason.ERROR)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from: a workflow raises one of its own."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


_FRAMEWORKS = ("starlette.", "fastapi.", "litestar.", "werkzeug.", "aiohttp.web")


def http_error(error: BaseException) -> EndPart | None:
    """What a framework's HTTP error says: the application raised it for its reader. None for any other error.

    Starlette, FastAPI and Litestar call it `status_code` and `detail`, Flask, Quart and aiohttp otherwise.
    """
    if not any(kind.__module__.startswith(_FRAMEWORKS) for kind in type(error).__mro__):
        return None  # a provider's, say, which is not for our reader
    for code, detail in (("status_code", "detail"), ("code", "description"), ("status", "reason")):
        number = getattr(error, code, None)
        if isinstance(number, int) and 400 <= number <= 599 and hasattr(error, detail):
            return EndPart(StreamStatus.INTERRUPTED, EndReason.REFUSED, number >= 500, number, _told(error, detail))
    return None


def _told(error: BaseException, name: str) -> str:
    found = getattr(error, name)
    return found if isinstance(found, str) else str(found or "")


def _as_reported(report: StreamReport | None, *, stopped: bool) -> EndPart:
    status = StreamStatus.UNKNOWN if report is None else report.status
    if stopped and status in (StreamStatus.UNKNOWN, StreamStatus.STREAMING):
        status = StreamStatus.CANCELLED
    elif status is StreamStatus.STREAMING:
        status = StreamStatus.UNKNOWN
    if report is not None and status is StreamStatus.INTERRUPTED:
        return EndPart(status, report.reason, report.retryable)
    return EndPart(status)
