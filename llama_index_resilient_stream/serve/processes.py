"""Which process an answer is kept in, where it is kept in memory: its id ends with a mark of that process.

A sum follows the mark, so that what was never given out as an id is taken for nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets

_MARK = 6  # characters
_SUM = 4
_SECRET = 32  # 192 bits
_marks: dict[int, str] = {}  # by process: one that was forked has the memory of another one


def new_key() -> str:
    """An id that nobody can guess."""
    return secrets.token_urlsafe(24)


def new_key_of_this_process() -> str:
    """An id that nobody can guess, and by which every process knows whether it has given it out."""
    return marked(new_key(), process_mark())


def marked(key: str, mark: str) -> str:
    """The id with a mark."""
    return key + mark + _sum(key + mark)


def process_mark() -> str:
    """That of this process."""
    return _marks.setdefault(os.getpid(), secrets.token_urlsafe(_MARK)[:_MARK])


def is_of_another_process(key: str) -> bool:
    """Whether an id has a mark, and it is not that of this process."""
    rest, told = key[:-_SUM], key[-_SUM:]
    is_marked = len(key) == _SECRET + _MARK + _SUM and told == _sum(rest)
    return is_marked and not rest.endswith(process_mark())


def _sum(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())[:_SUM].decode()
