"""Reads exceptions: the chain of causes, the names of the classes, the status, the words and the text.

Read by name, so that no library has to be imported, and without trust: an attribute may be missing, may
raise, may be a method, or of another type than anywhere else.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from ..attributes import dig, read, text_of

_MOST_LINKS = 32
_MOST_TEXT = 4_000
_MOST_BODY = 65_536

_MISTAKES = (
    TypeError,
    AttributeError,
    NameError,
    LookupError,
    ImportError,
    AssertionError,
    NotImplementedError,
)
"""An implicit __context__ only says that one exception was on its way when another came up. These come up by
mistake, and nobody wraps an error of the wire in one: theirs is not followed."""


def chain(error: BaseException) -> list[BaseException]:
    """Return `error` and what it comes from, outermost first; the original before a wrapper that keeps it."""
    links: list[BaseException] = []
    _walk(error, links, set())
    return links


def _walk(error: BaseException, links: list[BaseException], seen: set[int]) -> None:
    if id(error) in seen or len(seen) >= _MOST_LINKS:
        return
    seen.add(id(error))
    original = read(error, "original_exception")  # litellm
    if isinstance(original, Exception):
        _walk(original, links, seen)
    links.append(error)
    for inner in _inner(error):
        if isinstance(inner, Exception):  # a CancelledError below a TimeoutError is how asyncio makes one
            _walk(inner, links, seen)


def _inner(error: BaseException) -> Iterator[Any]:
    attempt = read(error, "last_attempt")  # tenacity.RetryError
    if attempt is not None:
        yield _outcome(attempt)
    if isinstance(error, BaseExceptionGroup):
        yield from error.exceptions
    yield read(error, "reason")  # urllib3.MaxRetryError, urllib.error.URLError
    yield from error.args[:2]  # requests keeps urllib3's error as an argument, urllib3 the socket's
    if error.__cause__ is not None:
        yield error.__cause__
    elif not error.__suppress_context__ and not isinstance(error, _MISTAKES):
        yield error.__context__


def _outcome(attempt: Any) -> Any:
    """Return the exception of a finished future; an unfinished one would make us wait."""
    try:
        return attempt.exception() if attempt.done() is True else None
    except Exception:
        return None


_WIRE = frozenset({"http", "ssl", "socket", "_socket", "asyncio", "json", "urllib"})
_NOT_THE_WIRE = frozenset({"pydantic", "pydantic_core"})  # their ValidationError is not a server's
_PLAIN = (TimeoutError, UnicodeDecodeError)


def class_names(error: BaseException) -> list[str]:
    """Return the names of its classes, most derived first.

    Of the standard library only those that deal with the wire: a `tarfile.ReadError` does not. Any other module
    will do, for HTTP clients are renamed (httpx2), vendored and copied.
    """
    names = []
    for cls in type(error).__mro__:
        root = str(cls.__module__).partition(".")[0]
        foreign = root not in sys.stdlib_module_names and root not in _NOT_THE_WIRE
        if cls in _PLAIN or root in _WIRE or (foreign and root != "builtins") or cls.__name__ == "CancelledError":
            names.append(cls.__name__)
    return names


def status_of(error: BaseException) -> int | None:
    """Return its HTTP status, or None. The 200 and -1 that errors inside a stream carry are none."""
    for value in _status_candidates(error):
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 300 <= value <= 599:
            return int(value)
    return None


def _status_candidates(error: BaseException) -> Iterator[Any]:
    if "HttpProcessingError" in class_names(error):  # aiohttp's parser: 400 is for what the server sent
        return
    for name in ("status_code", "status", "http_status"):
        yield read(error, name)
    yield _code_of(error)
    response = read(error, "response")
    yield read(response, "status_code")
    yield read(response, "status")
    yield dig(response, "ResponseMetadata", "HTTPStatusCode")  # botocore
    for node in bodies(error):
        yield node.get("code")
        yield node.get("status")


def _code_of(error: BaseException) -> Any:
    """Return its `code`: mostly an attribute; in gRPC a method, in aiohttp a property that warns when read."""
    try:
        static = inspect.getattr_static(error, "code", None)
        if isinstance(static, property):
            return None
        if callable(static):
            return static(error) if "RpcError" in class_names(error) else None
        return read(error, "code")
    except Exception:
        return None


def words_of(error: BaseException) -> list[str]:
    """Return the words by which a provider distinguishes its errors, as it writes them."""
    found = [read(error, "type"), _code_of(error), read(error, "status"), dig(error, "error", "code")]
    for node in bodies(error):
        found += [node.get(name) for name in ("code", "Code", "type", "status", "error_type", "reason")]
    words = [_grpc_word(value) or text_of(value) for value in found]
    words += [_number_word(node.get("code")) for node in bodies(error)]
    return [word for word in words if word and _is_word(word)]


def _grpc_word(value: Any) -> str | None:
    """Return the name of a grpc.StatusCode, whose members have tuples as values."""
    name = read(value, "name") if isinstance(read(value, "value"), tuple) else None
    return name if isinstance(name, str) else None


def _is_word(text: str) -> bool:
    return len(text) <= 48 and text.isprintable()


def _number_word(value: Any) -> str | None:
    """Return a provider's own error number as a word. Smaller ones are HTTP statuses."""
    own = isinstance(value, int) and not isinstance(value, bool) and 1_000 <= value < 10**9
    return str(value) if own else None


def text_of_error(error: BaseException) -> str:
    """Return its text and that of its body, to look for known wordings in. Not for logs: it may hold anything."""
    try:
        texts = [str(error)]
    except Exception:
        texts = []
    texts += [source for source in _sources(error) if isinstance(source, str)]  # an SDK keeps {"error": "text"} so
    for node in bodies(error):
        values = (node.get(name) for name in ("message", "Message", "msg", "error_msg", "detail", "error"))
        texts += [value for value in values if isinstance(value, str)]
    return "\n".join(text[:_MOST_TEXT] for text in texts[:8])


_LONGEST_SENTENCE = 500


def plain_event(error: BaseException) -> str:
    """Return what an event says that code stumbled over: a sentence in place of JSON, or an object in place of a chunk.

    "" where it is cut JSON, or a page.
    """
    text = read(error, "doc") if isinstance(error, json.JSONDecodeError) else None
    if (event := event_of(error)) is not None:
        text = "\n".join(value for value in event.values() if isinstance(value, str))
    is_sentence = isinstance(text, str) and len(text) <= _LONGEST_SENTENCE and not re.search(r'[<{}\[\]"]', text)
    return str(text) if is_sentence else ""


def bodies(error: BaseException) -> Iterator[dict[Any, Any]]:
    """Yield the dictionaries of an error body, outermost first, wherever an SDK keeps it."""
    response = read(error, "response")
    for source in (*_sources(error), response, _buffered(response)):
        try:
            yield from _dictionaries(_parsed(source), 6)
        except Exception:
            continue


def _sources(error: BaseException) -> list[Any]:
    return [*(read(error, name) for name in ("body", "details", "error", "response_json")), event_of(error)]


def event_of(error: BaseException) -> dict[str, Any] | None:
    """Return the object that came in place of a chunk, and that whoever reads chunks stumbled over.

    Servers send {"object": "error", "message": ...} in the stream. OpenAI's SDK makes a chunk without choices of it,
    which is found where the exception came through.
    """
    trace = error.__traceback__ if is_failure_of_code(error) else None
    found = None
    while trace is not None:
        for value in trace.tb_frame.f_locals.values():
            if type(value).__module__.startswith("openai.types.") and read(value, "choices") is None:
                found = read(value, "__pydantic_extra__") or found
        trace = trace.tb_next
    return found if isinstance(found, dict) else None


def _buffered(response: Any) -> Any:
    """Return a body that is in memory: `_content` in httpx and requests. `content` may read from the network."""
    try:
        return vars(response).get("_content")
    except Exception:
        return None


def _parsed(source: Any) -> Any:
    if isinstance(source, (str, bytes)):
        text = source if isinstance(source, str) else source.decode("utf-8", "replace")
        return json.loads(text) if len(text) <= _MOST_BODY and text.lstrip()[:1] in ("{", "[") else None
    return source


def _dictionaries(node: Any, depth: int) -> Iterator[dict[Any, Any]]:
    if depth == 0:
        return
    if isinstance(node, (list, tuple)):
        for item in node[:8]:
            yield from _dictionaries(item, depth - 1)
    elif isinstance(node, dict):
        yield node
        for name in ("error", "Error", "innererror", "errors", "detail", "details"):
            yield from _dictionaries(node.get(name), depth - 1)


_FAILURES = (ValueError, LookupError, AttributeError, TypeError, RecursionError, StopIteration, StopAsyncIteration)


def is_failure_of_code(error: BaseException) -> bool:
    """Return whether this is how code fails on an event that it cannot handle, rather than a report of the wire."""
    return isinstance(error, _FAILURES)


def failure_mark(error: BaseException | None) -> tuple[str, ...] | None:
    """Return what a failure of code is recognised by when it comes again: class, text and place in the code.

    None for other errors, and for bytes that are no text: what damages them does so at random.
    """
    if error is None:
        return None
    for link in chain(error):
        if is_failure_of_code(link) and not isinstance(link, UnicodeError):
            return type(link).__name__, text_of_error(link), _place(link)
    return None


def _place(error: BaseException) -> str:
    """Return the function in which it was raised."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        trace, place = trace.tb_next, f"{code.co_filename}:{code.co_qualname}"
    return place
