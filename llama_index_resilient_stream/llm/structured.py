"""Whether an object that a model writes as text is whole.

LlamaIndex repairs half an object into one that looks valid, while it streams and sometimes at the end. So what came is
looked at before that: an object that was begun and not closed is cut, whatever finish reason stands under it.
"""

from __future__ import annotations

import re
from typing import Any

_BEGINS_WITH = re.compile(r"\s*(?:```\w*\s*)?[\[{]")
_OPENING = frozenset("{[")
_CLOSING = frozenset("}]")


class ObjectText:
    """Follows the text of one answer, piece by piece, until its first JSON object or list is closed.

    text = ObjectText()
    text.feed('Here it is: {"to": "A')
    text.is_cut                         # True
    text.feed('da"}')
    text.is_cut                         # False

    Prose around the object is skipped. A text in which no object begins is not cut: it is something else.
    """

    def __init__(self) -> None:
        self._head = ""
        self._begun = self._closed = False
        self._depth = 0
        self._in_string = self._escaped = False

    @property
    def is_cut(self) -> bool:
        """Whether an object was begun that is not closed yet."""
        return self._begun and not self._closed

    def feed(self, text: str) -> None:
        """Take in what came next."""
        if not self._begun:
            text = self._find_beginning(text)
        if self._begun and not self._closed:
            self._read(text)

    def _find_beginning(self, text: str) -> str:
        self._head += text
        if _OPENING.isdisjoint(text):
            return ""
        if (found := _BEGINS_WITH.match(self._head)) is not None:
            start = found.end() - 1
        elif (start := self._head.find("{")) < 0:  # a bracket in prose begins no list
            return ""
        self._begun = True
        return self._head[start:]

    def _read(self, text: str) -> None:
        for character in text:
            if self._in_string:
                self._read_in_string(character)
            elif character == '"':
                self._in_string = True
            elif character in _OPENING:
                self._depth += 1
            elif character in _CLOSING:
                self._depth -= 1
                if self._depth == 0:
                    self._closed = True
                    return

    def _read_in_string(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False


def is_broken_json(error: BaseException) -> bool:
    """Whether an integration stumbled over a text that is no JSON, rather than over an object of another shape.

    Args:
        error: what its `structured_predict` raised; pydantic tells the two apart.
    """
    errors: Any = getattr(error, "errors", None)
    if type(error).__name__ != "ValidationError" or not callable(errors):
        return False
    return any(str(each.get("type", "")) in ("json_invalid", "value_error.jsondecode") for each in errors())
