"""Wire faults: one table of the ways in which a streamed answer stops, stalls or misleads.

    FAULTS              every fault by id; `FAULTS["reset"].at(40)` moves it behind the 40th character
    RETRYABLE           ids worth another attempt: the transport broke, the server is ill, or nothing more came
    FATAL               ids that no second attempt cures: a bad request, no credentials, no quota
    STATED_INCOMPLETE   ids whose finish reason says that the answer is not whole: `length`, `content_filter`
    HARMLESS            ids that look odd and are not faults: the answer is whole, and its finish reason says so
    NO_FINISH_REASON    ids where the answer is whole, and every finish reason is null
    TOOL_CALLS          ids that answer with a tool call, cut or complete; the only ones with a `tool_call`

Each id of FAULTS is in exactly one of the six tuples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from enum import StrEnum
from typing import Any, Literal

from ..errors import ConfigurationError


class WireFaultKind(StrEnum):
    """What the server does to a response; `wire_faults` has a function for each kind."""

    # before the first byte of the response
    HANG_UP = "hang_up"
    RESET_BEFORE_HEADERS = "reset_before_headers"
    STATUS = "status"
    HTML = "html"
    STALL_HEADERS = "stall_headers"
    # after the headers, before the first event
    STALL_FIRST = "stall_first"
    COMMENTS_FIRST = "comments_first"
    # behind `after` characters of the answer
    RESET = "reset"
    FIN_IN_CHUNK = "fin_in_chunk"
    SHORT_LENGTH = "short_length"
    CLEAN_EOF = "clean_eof"
    DONE_WITHOUT_FINISH = "done_without_finish"
    CLOSE_EOF = "close_eof"
    HALF_EVENT = "half_event"
    HALF_CHARACTER = "half_character"
    BROKEN_JSON = "broken_json"
    ERROR_EVENT = "error_event"
    FINISH_REASON = "finish_reason"
    EMPTY = "empty"
    STALL = "stall"
    COMMENTS = "comments"
    # at the end of a whole answer
    SLOW = "slow"
    RESET_AFTER_FINISH = "reset_after_finish"
    EOF_AFTER_FINISH = "eof_after_finish"
    EOF_AFTER_DONE = "eof_after_done"
    NO_DONE = "no_done"
    USAGE_AFTER_FINISH = "usage_after_finish"
    NO_FINISH_REASON = "no_finish_reason"
    NO_FINISH_REASON_NO_DONE = "no_finish_reason_no_done"
    NONE = "none"


@dataclass(frozen=True)
class WireFault:
    """What happens to one response on the wire. Frozen: `at()` and `dataclasses.replace()` make changed copies.

        slow_start = dataclasses.replace(FAULTS["stall_first"], seconds=0.5)
        with FaultServer("A long answer.", faults=[slow_start, FAULTS["reset"].at(6), None]) as server:
            ...

    Args:
        kind: What the server does.
        after: How many characters (code points) of the text or of the tool arguments are delivered before the
            fault, in whole events. None: all of them.
        status: HTTP status of the response, for the kind "status".
        message: The message of the error body or of the error event, in OpenAI's form; so are `type` and `code`.
        type: The type of the error.
        code: The code of the error.
        retry_after: Seconds in the header Retry-After. None: no such header.
        retry_form: How that header is written: in seconds, in milliseconds (`retry-after-ms`), or as an HTTP-date.
        headers: More headers to send.
        seconds: How long a stall, or a row of keep-alive comments, lasts before the answer goes on; None: until
            the client leaves. For the kind "slow": the pause before each event.
        interval: Seconds between two keep-alive comments.
        finish_reason: The finish reason that is sent.
        close: Whether the body ends by closing the connection, and not by a chunk terminator.
        tool_call: A name and JSON arguments that replace the text of the answer.
    """

    kind: WireFaultKind
    after: int | None = 12
    status: int = 200
    message: str = "The server had an error while processing your request."
    type: str = "server_error"
    code: str | int | None = None
    retry_after: float | None = None
    retry_form: Literal["seconds", "ms", "date"] = "seconds"
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float | None = None
    interval: float = 0.02
    finish_reason: str | None = None
    close: bool = False
    tool_call: tuple[str, str] | None = None

    def at(self, after: int | None) -> WireFault:
        """Return a copy that strikes behind `after` characters of the answer (None: behind all of them)."""
        return replace(self, after=after)

    def error_body(self) -> dict[str, Any]:
        """Return the error as OpenAI writes it, in an HTTP body or in an event of a stream."""
        error = {"message": self.message, "type": self.type, "param": None, "code": self.code}
        return {"error": error}

    def all_headers(self) -> tuple[tuple[str, str], ...]:
        """Return `headers` and Retry-After in the form asked for. HTTP-dates are rounded up to whole seconds."""
        if self.retry_after is None:
            return self.headers
        forms = {
            "seconds": ("Retry-After", f"{self.retry_after:g}"),
            "ms": ("retry-after-ms", f"{self.retry_after * 1000:g}"),
            "date": ("Retry-After", formatdate(math.ceil(time.time() + self.retry_after), usegmt=True)),
        }
        return (*self.headers, forms[self.retry_form])


HEALTHY = WireFault(WireFaultKind.NONE, None)

_TOOL_CALL = ("transfer", '{"amount": 100, "to": "Ada Lovelace", "note": "for the engine"}')

_TRANSPORT = {
    "hang_up": WireFault(WireFaultKind.HANG_UP, 0),
    "reset_before_headers": WireFault(WireFaultKind.RESET_BEFORE_HEADERS, 0),
    "reset": WireFault(WireFaultKind.RESET),
    "fin_in_chunk": WireFault(WireFaultKind.FIN_IN_CHUNK),
    "short_length": WireFault(WireFaultKind.SHORT_LENGTH),
    "clean_eof": WireFault(WireFaultKind.CLEAN_EOF),
    "done_without_finish": WireFault(WireFaultKind.DONE_WITHOUT_FINISH),
    "close_eof": WireFault(WireFaultKind.CLOSE_EOF, close=True),
    "half_event": WireFault(WireFaultKind.HALF_EVENT),
    "half_event_close": WireFault(WireFaultKind.HALF_EVENT, close=True),
    "half_character": WireFault(WireFaultKind.HALF_CHARACTER),
    "half_character_close": WireFault(WireFaultKind.HALF_CHARACTER, close=True),
    "broken_json": WireFault(WireFaultKind.BROKEN_JSON),
    "html": WireFault(WireFaultKind.HTML, 0),
    "empty": WireFault(WireFaultKind.EMPTY, 0, finish_reason="stop"),
    "stall_headers": WireFault(WireFaultKind.STALL_HEADERS, 0),
    "stall_first": WireFault(WireFaultKind.STALL_FIRST, 0),
    "stall": WireFault(WireFaultKind.STALL),
    "comments_first": WireFault(WireFaultKind.COMMENTS_FIRST, 0),
    "comments": WireFault(WireFaultKind.COMMENTS),
}

_ERROR_EVENTS = {
    "error_event": WireFault(WireFaultKind.ERROR_EVENT),
    "error_event_overloaded": WireFault(
        WireFaultKind.ERROR_EVENT, message="Overloaded", type="overloaded_error", code=529
    ),
    "error_event_rate_limit": WireFault(
        WireFaultKind.ERROR_EVENT,
        message="Rate limit reached for requests",
        type="rate_limit_error",
        code="rate_limit_exceeded",
    ),
    "error_finish": WireFault(WireFaultKind.FINISH_REASON, finish_reason="error"),
}

_BUSY: Mapping[int, tuple[str, str]] = {
    408: ("Request timed out.", "timeout_error"),
    409: ("The resource was changed by another request.", "conflict_error"),
    425: ("Too early.", "too_early"),
    429: ("Rate limit reached for requests", "rate_limit_error"),
    500: ("The server had an error while processing your request.", "server_error"),
    502: ("Bad gateway.", "server_error"),
    503: ("The engine is currently overloaded, please try again later.", "server_error"),
    504: ("Gateway timeout.", "server_error"),
    529: ("Overloaded", "overloaded_error"),
}

_REFUSED: Mapping[int, tuple[str, str, str | None]] = {
    400: ("Invalid value for 'temperature'.", "invalid_request_error", None),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    403: ("You are not allowed to use this model.", "permission_error", None),
    404: ("The model does not exist.", "invalid_request_error", "model_not_found"),
    413: ("Request too large.", "invalid_request_error", None),
    422: ("Unprocessable entity.", "invalid_request_error", None),
}


def http_error(
    status: int,
    message: str,
    type: str = "invalid_request_error",  # noqa: A002 - the name of the field on the wire
    code: str | int | None = None,
    *,
    retry_after: float | None = None,
    retry_form: Literal["seconds", "ms", "date"] = "seconds",
) -> WireFault:
    """Return a fault that answers with an HTTP error status and an error body in OpenAI's form.

        with FaultServer(TEXT, faults=[http_error(503, "Overloaded", "server_error", retry_after=1), None]) as server:
            ...

    Args:
        status: The HTTP status.
        message: The message, as are `type` and `code`, of the error body.
        type: The type of the error.
        code: The code of the error.
        retry_after: Seconds in the header Retry-After. None: no such header.
        retry_form: How that header is written: in seconds, in milliseconds, or as an HTTP-date.
    """
    return WireFault(
        WireFaultKind.STATUS,
        0,
        status,
        message,
        type,
        code,
        retry_after=retry_after,
        retry_form=retry_form,
    )


PREFILL_REFUSED = http_error(
    400,
    "This model does not support assistant message prefill. The conversation must end with a user message.",
)

_BUSY_FAULTS = {
    **{f"http_{status}": http_error(status, *words) for status, words in _BUSY.items()},
    "http_429_seconds": http_error(429, *_BUSY[429], retry_after=1),
    "http_429_ms": http_error(429, *_BUSY[429], retry_after=0.05, retry_form="ms"),
    "http_429_date": http_error(429, *_BUSY[429], retry_after=1, retry_form="date"),
    "http_503_seconds": http_error(503, *_BUSY[503], retry_after=1),
}

_FATAL_FAULTS = {
    **{f"http_{status}": http_error(status, *words) for status, words in _REFUSED.items()},
    "insufficient_quota": http_error(
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
        "insufficient_quota",
    ),
    "context_length": http_error(
        400,
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 8210 tokens.",
        code="context_length_exceeded",
    ),
    "content_policy": http_error(
        400, "The response was filtered by our content policy.", code="content_policy_violation"
    ),
    "prefill_refused": PREFILL_REFUSED,
    "error_event_invalid": WireFault(
        WireFaultKind.ERROR_EVENT, message="Invalid value for 'temperature'.", type="invalid_request_error"
    ),
    "error_event_quota": WireFault(
        WireFaultKind.ERROR_EVENT,
        message="You exceeded your current quota, please check your plan and billing details.",
        type="insufficient_quota",
        code="insufficient_quota",
    ),
}

_STATED_INCOMPLETE_FAULTS = {
    "length": WireFault(WireFaultKind.FINISH_REASON, finish_reason="length"),
    "content_filter": WireFault(WireFaultKind.FINISH_REASON, finish_reason="content_filter"),
}

_HARMLESS_FAULTS = {
    "slow": WireFault(WireFaultKind.SLOW, None, seconds=0.01),
    "stall_then_answer": WireFault(WireFaultKind.STALL, seconds=0.1),
    "comments_then_answer": WireFault(WireFaultKind.COMMENTS_FIRST, 0, seconds=0.1),
    "comments_between": WireFault(WireFaultKind.COMMENTS, seconds=0.1),
    "reset_after_finish": WireFault(WireFaultKind.RESET_AFTER_FINISH, None),
    "eof_after_finish": WireFault(WireFaultKind.EOF_AFTER_FINISH, None),
    "eof_after_done": WireFault(WireFaultKind.EOF_AFTER_DONE, None),
    "no_done": WireFault(WireFaultKind.NO_DONE, None),
    "close_after_done": WireFault(WireFaultKind.NONE, None, close=True),
    "usage_after_finish": WireFault(WireFaultKind.USAGE_AFTER_FINISH, None),
}

_NO_FINISH_REASON_FAULTS = {
    "no_finish_reason": WireFault(WireFaultKind.NO_FINISH_REASON, None),
    "no_finish_reason_no_done": WireFault(WireFaultKind.NO_FINISH_REASON_NO_DONE, None),
}

_TOOL_FAULTS = {
    "tool_call_fin": WireFault(WireFaultKind.FIN_IN_CHUNK, tool_call=_TOOL_CALL),
    "tool_call_eof": WireFault(WireFaultKind.CLEAN_EOF, tool_call=_TOOL_CALL),
    "tool_call_done": WireFault(WireFaultKind.DONE_WITHOUT_FINISH, tool_call=_TOOL_CALL),
    "tool_call_length": WireFault(WireFaultKind.FINISH_REASON, finish_reason="length", tool_call=_TOOL_CALL),
    "tool_call_whole_done": WireFault(WireFaultKind.DONE_WITHOUT_FINISH, None, tool_call=_TOOL_CALL),
    "tool_call": WireFault(WireFaultKind.NONE, None, tool_call=_TOOL_CALL),
}

RETRYABLE = (*_TRANSPORT, *_ERROR_EVENTS, *_BUSY_FAULTS)
FATAL = tuple(_FATAL_FAULTS)
STATED_INCOMPLETE = tuple(_STATED_INCOMPLETE_FAULTS)
HARMLESS = tuple(_HARMLESS_FAULTS)
NO_FINISH_REASON = tuple(_NO_FINISH_REASON_FAULTS)
TOOL_CALLS = tuple(_TOOL_FAULTS)

FAULTS: Mapping[str, WireFault] = {
    **_TRANSPORT,
    **_ERROR_EVENTS,
    **_BUSY_FAULTS,
    **_FATAL_FAULTS,
    **_STATED_INCOMPLETE_FAULTS,
    **_HARMLESS_FAULTS,
    **_NO_FINISH_REASON_FAULTS,
    **_TOOL_FAULTS,
}


def as_fault(fault: WireFault | str | None) -> WireFault | None:
    """Look up a fault by its id.

    Raises:
        ConfigurationError: There is no fault of this id. The message names those that there are.
    """
    if not isinstance(fault, str):
        return fault
    if fault not in FAULTS:
        raise ConfigurationError(f"There is no fault {fault!r}. Known: {', '.join(FAULTS)}.")
    return FAULTS[fault]


def as_faults(faults: Iterable[WireFault | str | None]) -> tuple[WireFault | None, ...]:
    """Look up faults, one per request; None stands for a healthy response.

    Raises:
        ConfigurationError: It is a string and not a sequence, or there is no fault of one of the ids.
    """
    if isinstance(faults, str):
        raise ConfigurationError(f"faults is a sequence, one entry per request: use faults=({faults!r},).")
    return tuple(as_fault(fault) for fault in faults)
