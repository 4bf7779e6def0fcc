"""Decides whether an error is worth another try.

Errors are recognised by names and shapes through the chain of causes, never by importing a library: httpx became
httpx2 under the same SDK, and one SDK leaks raw what its next release wraps. In this order:

    Python's own stop signals        cancellation, Ctrl-C: never retried
    what can only fail again         a certificate, a URL: never retried, though it looks like the network
    what a link of the chain says    by code and type words, by HTTP status, by the name of its class;
                                     the outermost link is asked first
    what a text says                 where nothing else does: google-genai's RuntimeError, llama.cpp's ValueError
    ValueError, KeyError and so on   corruption if events had already come, before that a bug
    anything else                    not retried

The last line is a choice. An unknown exception may be a fault of the wire or a bug; a bug that is asked again
four times, at a price, is worse than a fault that is raised at once with the partial text attached.
A JSONDecodeError is corruption also before the first event: that is what a login page under 200 looks like.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from ...report import FaultKind
from ..finish_words import FinishMeaning, meaning_of
from .exceptions import (
    chain,
    class_names,
    failure_mark,
    is_failure_of_code,
    plain_event,
    status_of,
    text_of_error,
    words_of,
)
from .retry_after import seconds_asked
from .tables import (
    AUTH,
    BAD_REQUEST,
    CONTEXT_WINDOW,
    DULL,
    FILTERED,
    HOPELESS,
    HUNG_UP,
    NAMES,
    NETWORK_ERRNO,
    PREFILL_REFUSED,
    QUOTA,
    QUOTA_OF_A_PLAN,
    RETRYABLE,
    SHARP,
    SHARP_PARTS,
    STATUS,
    TERMINATED_EARLY,
)

__all__ = ["Fault", "FaultKind", "classify", "kind_of_finish"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt failed, and whether the same request may be tried again."""

    kind: FaultKind
    retryable: bool
    message: str
    """Safe to log: class names, status, known words. An exception's own text may hold keys and prompts."""
    error: BaseException | None = field(default=None, repr=False)
    status: int | None = None
    """The HTTP status, or the number that an error event gave in its place; None where there was neither."""
    retry_after: float | None = None
    """Seconds from now that the provider asked us to wait. Not capped yet."""

    def repeats(self, earlier: Fault | None) -> bool:
        """Return whether the same code failed on an event in the same way as in `earlier`.

        What the wire damages is damaged at random. The same failure twice in a row will come a third time.
        """
        if earlier is None or not self.kind is earlier.kind is FaultKind.CORRUPT:
            return False
        mark = failure_mark(self.error)
        return mark is not None and mark == failure_mark(earlier.error)


def utc_now() -> datetime:
    """Return the current time, from which the date in a Retry-After header is counted."""
    return datetime.now(UTC)


def classify(
    error: BaseException,
    *,
    streamed: bool,
    headers: Mapping[str, str] | None = None,
    now: Callable[[], datetime] = utc_now,
) -> Fault:
    """Return the fault that `error` stands for. Never raises, whatever an exception's properties do.

    Args:
        error: What the wrapped LLM raised.
        streamed: Whether some event of this attempt had already arrived.
        headers: Of the response that it comes from, for where it has none itself.
        now: Returns the current time.
    """
    try:
        return _classified(error, streamed, headers, now)
    except Exception:
        return Fault(FaultKind.UNKNOWN, False, _name(error), error)


def _classified(
    error: BaseException, streamed: bool, headers: Mapping[str, str] | None, now: Callable[[], datetime]
) -> Fault:
    if not isinstance(error, Exception) or "CancelledError" in class_names(error):
        return Fault(FaultKind.CANCELLED, False, _name(error), error)
    links = chain(error)
    opinion = _hopeless(links) or _first(_by_table, links) or _first(_by_text, links) or _by_type(links, streamed)
    retryable = opinion.kind in RETRYABLE
    return Fault(
        opinion.kind,
        retryable,
        _message(error, opinion),
        error,
        opinion.status,
        seconds_asked(links, now, headers) if retryable else None,
    )


@dataclass(frozen=True, slots=True)
class _Opinion:
    kind: FaultKind
    link: BaseException
    status: int | None = None
    word: str = ""
    """A word from the tables, as the provider writes it."""


def _first(ask: Callable[[BaseException], _Opinion | None], links: Iterable[BaseException]) -> _Opinion | None:
    return next((opinion for link in links if (opinion := ask(link)) is not None), None)


def _hopeless(links: Iterable[BaseException]) -> _Opinion | None:
    for link in links:
        names = class_names(link)
        illegal = "LocalProtocolError" in names and "illegal header" in text_of_error(link).lower()
        if illegal or not HOPELESS.isdisjoint(names):
            return _Opinion(FaultKind.BAD_REQUEST, link)
    return None


_RANK = {kind: rank for rank, kind in enumerate(dict.fromkeys(SHARP.values()))}


def _by_table(link: BaseException) -> _Opinion | None:
    """Read one exception by its words, its status or its class; None where the tables know none of them."""
    status = status_of(link)
    if status == 413:  # Groq adds rate_limit_exceeded, for a request that can never fit
        return _Opinion(FaultKind.CONTEXT_WINDOW, link, status)
    names, words = class_names(link), words_of(link)
    opinion = _by_sharp_word(link, names, words, status) or _by_status(link, words, status) or _by_name(link, names)
    if opinion is not None:
        return _refined(opinion)
    if isinstance(link, (ConnectionError, EOFError)) or _errno(link) is not None:
        return _Opinion(FaultKind.TRANSPORT, link)
    return None


def _by_sharp_word(link: BaseException, names: list[str], words: list[str], status: int | None) -> _Opinion | None:
    hits = [(kind, word) for word in words if (kind := _sharp_kind(word))]
    hits += [(kind, "") for name in names if (kind := SHARP.get(_normal(name)))]
    if not hits:
        return None
    kind, word = min(hits, key=lambda hit: _RANK[hit[0]])
    # A word that only resembles a known one may hold anything: it is not quoted.
    return _Opinion(kind, link, status, word if _normal(word) in SHARP else "")


def _sharp_kind(word: str) -> FaultKind | None:
    letters = _normal(word)
    return SHARP.get(letters) or next((kind for kind, part in SHARP_PARTS if part.search(letters)), None)


def kind_of_finish(word: str) -> FaultKind:
    """Return the kind of fault that an error as the finish reason stands for, as in "failed: insufficient_quota"."""
    known = (_sharp_kind(part) for part in word.split(":"))
    return next((kind for kind in known if kind), FaultKind.ERROR_FINISH)


def _by_status(link: BaseException, words: list[str], status: int | None) -> _Opinion | None:
    """By the status, or the words that say the same and less exactly."""
    dull = next((word for word in words if _normal(word) in DULL), "")
    if status is not None:
        return _Opinion(_kind_of_status(status), link, status, dull)
    return _Opinion(DULL[_normal(dull)], link, word=dull) if dull else None


def _by_name(link: BaseException, names: list[str]) -> _Opinion | None:
    kinds = (NAMES.get(name) or DULL.get(_normal(name)) for name in names)
    kind = next((kind for kind in kinds if kind), None)
    return _Opinion(kind, link) if kind else None


def _normal(word: str) -> str:
    letters = re.sub(r"[^a-z0-9]", "", word.lower())
    return letters.removesuffix("exception").removesuffix("error")


def _kind_of_status(status: int) -> FaultKind:
    return STATUS.get(status) or (FaultKind.SERVER if status >= 500 else FaultKind.BAD_REQUEST)


def _errno(link: BaseException) -> int | None:
    number = link.errno if isinstance(link, OSError) else None
    return number if number in NETWORK_ERRNO else None


_REFINEMENTS = {
    FaultKind.BAD_REQUEST: (
        (FaultKind.CONTEXT_WINDOW, CONTEXT_WINDOW),
        (FaultKind.PREFILL_REFUSED, PREFILL_REFUSED),
        (FaultKind.QUOTA, QUOTA),
        (FaultKind.QUOTA, QUOTA_OF_A_PLAN),
        (FaultKind.FILTERED, FILTERED),
    ),
    FaultKind.RATE_LIMIT: ((FaultKind.QUOTA, QUOTA),),
    FaultKind.SERVER: (
        (FaultKind.CONTEXT_WINDOW, CONTEXT_WINDOW),
        (FaultKind.QUOTA, QUOTA),
        (FaultKind.QUOTA, QUOTA_OF_A_PLAN),
        (FaultKind.FILTERED, FILTERED),
    ),
}
_REFINEMENTS_IN_BAND = ((FaultKind.AUTH, AUTH), (FaultKind.BAD_REQUEST, BAD_REQUEST))
"""For an error event inside a 200 that says no more than that there was an error."""


def _refined(opinion: _Opinion) -> _Opinion:
    """Return the opinion, of a narrower kind where the error's text says more."""
    wordings = _REFINEMENTS.get(opinion.kind, ())
    if opinion.kind is FaultKind.SERVER and opinion.status is None:
        wordings += _REFINEMENTS_IN_BAND
    if opinion.kind is FaultKind.CORRUPT:
        return _said_in_plain_text(opinion)
    if wordings:
        text = text_of_error(opinion.link)
        for kind, wording in wordings:
            if wording.search(text):
                return replace(opinion, kind=kind)
    return opinion


def _said_in_plain_text(opinion: _Opinion) -> _Opinion:
    """Return the opinion on an event that is no JSON, of another kind where it is a plain sentence about an error."""
    text = plain_event(opinion.link)
    wordings = ((FaultKind.CONTEXT_WINDOW, CONTEXT_WINDOW), (FaultKind.QUOTA, QUOTA), (FaultKind.FILTERED, FILTERED))
    for kind, wording in (*wordings, (FaultKind.AUTH, AUTH)):
        if text and wording.search(text):
            return replace(opinion, kind=kind)
    return opinion


_BY_FINISH = {
    FinishMeaning.LENGTH: FaultKind.LENGTH,
    FinishMeaning.FILTER: FaultKind.FILTERED,
    FinishMeaning.ERROR: FaultKind.ERROR_FINISH,
}


def _by_text(link: BaseException) -> _Opinion | None:
    """Read an exception of which the text is all there is."""
    text = text_of_error(link)
    if found := TERMINATED_EARLY.search(text):
        finish = meaning_of(found[1].lower()).kind
        if finish in _BY_FINISH:
            return _Opinion(_BY_FINISH[finish], link, word=found[1])
    if CONTEXT_WINDOW.search(text):
        return _Opinion(FaultKind.CONTEXT_WINDOW, link)
    if type(link) in (RuntimeError, Exception, OSError) and HUNG_UP.search(text):  # perplexity, async
        return _Opinion(FaultKind.TRANSPORT, link)
    return None


def _by_type(links: Sequence[BaseException], streamed: bool) -> _Opinion:
    """Read an integration's own failure: a broken event if events were coming, a bug if none had."""
    failure = next(filter(is_failure_of_code, links), None)
    if streamed and failure is not None:
        return _said_in_plain_text(_Opinion(FaultKind.CORRUPT, failure))
    return _Opinion(FaultKind.UNKNOWN, links[0])


def _message(error: BaseException, opinion: _Opinion) -> str:
    parts = [_name(error)]
    if opinion.link is not error:
        parts[0] += f" from {_name(opinion.link)}"
    if opinion.status is not None:
        parts.append(f"HTTP {opinion.status}")
    if (number := _errno(opinion.link)) is not None:
        parts.append(errno.errorcode[number])
    if opinion.word:
        parts.append(opinion.word)
    return ", ".join(parts)


def _name(error: BaseException) -> str:
    return type(error).__name__[:80]
