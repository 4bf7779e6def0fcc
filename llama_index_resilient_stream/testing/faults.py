"""Wire faults: one table of every way in which a streamed answer stops, stalls or misleads.

    FAULTS          every fault by id; `FAULTS["reset"].at(40)` moves it behind the 40th character
    RETRYABLE       ids worth another attempt: the transport broke, the server is ill, or nothing more came
    FATAL           ids that no second attempt cures: a bad request, no credentials, no quota
    STATED          ids where the server says itself that the answer is not whole: `length`, `content_filter`
    HARMLESS        ids that look odd and are not faults: the answer is whole, and says so
    UNTOLD          ids where the answer is whole and nothing says so: finish reasons are null everywhere
    TOOL_CALLS      ids that answer with a tool call, cut or complete; the only ones with a `tool_call`

The five tuples and TOOL_CALLS together are FAULTS, each id once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any, Literal

Kind = Literal[
    # before the first byte of the response
    "hang-up", "reset-before-headers", "status", "html", "stall-headers",
    # after the headers, before the first event
    "stall-first", "comments-first",
    # behind `after` characters of the answer
    "reset", "fin-in-chunk", "short-length", "clean-eof", "done-without-finish", "close-eof", "half-event",
    "half-character", "broken-json", "error-event", "finish", "empty", "stall", "comments",
    # at the end of a whole answer
    "slow", "reset-after-finish", "eof-after-finish", "eof-after-done", "no-done", "usage-after-finish",
    "never-tells", "never-tells-no-done", "none",
]  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """What happens to one response.

    `kind` names the break, see the table of the server. `after` is the number of characters (code points) of
    this response's own text or tool arguments that are delivered, in whole events, before it; None means all
    of them. `seconds` is how long a stall or a row of keep-alive comments lasts before the answer goes on
    (None: until the client leaves), or, for "slow", the pause before each event. `interval` is the time
    between two comments. `close` ends the body by closing the connection instead of by a chunk terminator.
    `status`, `message`, `type` and `code` make an OpenAI-style error body; `retry_after` (seconds) is written
    as `retry_form` says. `headers` are sent besides. `finish` is a finish reason. `tool_call` (name, JSON
    arguments) replaces the text of the answer.
    """

    kind: Kind
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
    finish: str | None = None
    close: bool = False
    tool_call: tuple[str, str] | None = None

    def at(self, after: int | None) -> Fault:
        """Place the fault behind `after` characters of the answer (None: behind all of them)."""
        return replace(self, after=after)

    def error_body(self) -> dict[str, Any]:
        """The error as OpenAI writes it, in an HTTP body or in an event of a stream."""
        error = {"message": self.message, "type": self.type, "param": None, "code": self.code}
        return {"error": error}

    def all_headers(self) -> tuple[tuple[str, str], ...]:
        """`headers`, and Retry-After in the form asked for. HTTP-dates are rounded up to seconds."""
        if self.retry_after is None:
            return self.headers
        forms = {
            "seconds": ("Retry-After", f"{self.retry_after:g}"),
            "ms": ("retry-after-ms", f"{self.retry_after * 1000:g}"),
            "date": ("Retry-After", formatdate(math.ceil(time.time() + self.retry_after), usegmt=True)),
        }
        return (*self.headers, forms[self.retry_form])


HEALTHY = Fault("none", None)

_TOOL_CALL = ("transfer", '{"amount": 100, "to": "Ada Lovelace", "note": "for the engine"}')

_TRANSPORT = {
    "hang-up": Fault("hang-up", 0),
    "reset-before-headers": Fault("reset-before-headers", 0),
    "reset": Fault("reset"),
    "fin-in-chunk": Fault("fin-in-chunk"),
    "short-length": Fault("short-length"),
    "clean-eof": Fault("clean-eof"),
    "done-without-finish": Fault("done-without-finish"),
    "close-eof": Fault("close-eof", close=True),
    "half-event": Fault("half-event"),
    "half-event-close": Fault("half-event", close=True),
    "half-character": Fault("half-character"),
    "half-character-close": Fault("half-character", close=True),
    "broken-json": Fault("broken-json"),
    "html": Fault("html", 0),
    "empty": Fault("empty", 0, finish="stop"),
    "stall-headers": Fault("stall-headers", 0),
    "stall-first": Fault("stall-first", 0),
    "stall": Fault("stall"),
    "comments-first": Fault("comments-first", 0),
    "comments": Fault("comments"),
}

_ERROR_EVENTS = {
    "error-event": Fault("error-event"),
    "error-event-overloaded": Fault("error-event", message="Overloaded", type="overloaded_error", code=529),
    "error-event-rate-limit": Fault(
        "error-event",
        message="Rate limit reached for requests",
        type="rate_limit_error",
        code="rate_limit_exceeded",
    ),
    "error-finish": Fault("finish", finish="error"),
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
) -> Fault:
    """An HTTP error status with an OpenAI-style body. `retry_after` is in seconds."""
    return Fault(
        "status",
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
    **{f"http-{status}": http_error(status, *words) for status, words in _BUSY.items()},
    "http-429-seconds": http_error(429, *_BUSY[429], retry_after=1),
    "http-429-ms": http_error(429, *_BUSY[429], retry_after=0.05, retry_form="ms"),
    "http-429-date": http_error(429, *_BUSY[429], retry_after=1, retry_form="date"),
    "http-503-seconds": http_error(503, *_BUSY[503], retry_after=1),
}

_FATAL_FAULTS = {
    **{f"http-{status}": http_error(status, *words) for status, words in _REFUSED.items()},
    "insufficient-quota": http_error(
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
        "insufficient_quota",
    ),
    "context-length": http_error(
        400,
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 8210 tokens.",
        code="context_length_exceeded",
    ),
    "content-policy": http_error(
        400, "The response was filtered by our content policy.", code="content_policy_violation"
    ),
    "prefill-refused": PREFILL_REFUSED,
    "error-event-invalid": Fault(
        "error-event", message="Invalid value for 'temperature'.", type="invalid_request_error"
    ),
    "error-event-quota": Fault(
        "error-event",
        message="You exceeded your current quota, please check your plan and billing details.",
        type="insufficient_quota",
        code="insufficient_quota",
    ),
}

_STATED_FAULTS = {
    "length": Fault("finish", finish="length"),
    "content-filter": Fault("finish", finish="content_filter"),
}

_HARMLESS_FAULTS = {
    "slow": Fault("slow", None, seconds=0.01),
    "stall-then-answer": Fault("stall", seconds=0.1),
    "comments-then-answer": Fault("comments-first", 0, seconds=0.1),
    "comments-between": Fault("comments", seconds=0.1),
    "reset-after-finish": Fault("reset-after-finish", None),
    "eof-after-finish": Fault("eof-after-finish", None),
    "eof-after-done": Fault("eof-after-done", None),
    "no-done": Fault("no-done", None),
    "close-after-done": Fault("none", None, close=True),
    "usage-after-finish": Fault("usage-after-finish", None),
}

_UNTOLD_FAULTS = {
    "never-tells": Fault("never-tells", None),
    "never-tells-no-done": Fault("never-tells-no-done", None),
}

_TOOL_FAULTS = {
    "tool-call-fin": Fault("fin-in-chunk", tool_call=_TOOL_CALL),
    "tool-call-eof": Fault("clean-eof", tool_call=_TOOL_CALL),
    "tool-call-done": Fault("done-without-finish", tool_call=_TOOL_CALL),
    "tool-call-length": Fault("finish", finish="length", tool_call=_TOOL_CALL),
    "tool-call-whole-done": Fault("done-without-finish", None, tool_call=_TOOL_CALL),
    "tool-call": Fault("none", None, tool_call=_TOOL_CALL),
}

RETRYABLE = (*_TRANSPORT, *_ERROR_EVENTS, *_BUSY_FAULTS)
FATAL = tuple(_FATAL_FAULTS)
STATED = tuple(_STATED_FAULTS)
HARMLESS = tuple(_HARMLESS_FAULTS)
UNTOLD = tuple(_UNTOLD_FAULTS)
TOOL_CALLS = tuple(_TOOL_FAULTS)

FAULTS: Mapping[str, Fault] = {
    **_TRANSPORT,
    **_ERROR_EVENTS,
    **_BUSY_FAULTS,
    **_FATAL_FAULTS,
    **_STATED_FAULTS,
    **_HARMLESS_FAULTS,
    **_UNTOLD_FAULTS,
    **_TOOL_FAULTS,
}


def as_fault(fault: Fault | str | None) -> Fault | None:
    """A fault by its id. Unknown ids are answered with the known ones."""
    if not isinstance(fault, str):
        return fault
    if fault not in FAULTS:
        raise ValueError(f"There is no fault {fault!r}. Known: {', '.join(FAULTS)}.")
    return FAULTS[fault]


def as_faults(faults: Iterable[Fault | str | None]) -> tuple[Fault | None, ...]:
    """One entry per request: a fault, its id, or None for a healthy response."""
    if isinstance(faults, str):
        raise TypeError(f"faults is a sequence, one entry per request: use faults=({faults!r},).")
    return tuple(as_fault(fault) for fault in faults)
