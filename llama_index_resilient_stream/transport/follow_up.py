"""Builds a request beside one that was sent: to the same server, with the same key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMPLETIONS = ("/chat/completions", "/completions")
"""How the addresses end under which OpenAI's protocol gives answers."""

CONVERSATION_ID = "X-Conversation-Id"
_OF_THE_FIRST = ("content-length", "content-type", "transfer-encoding", CONVERSATION_ID.lower())


def api_root(path: str) -> str:
    """Return the path of an answer's address without its end: `/v1` of `/v1/chat/completions`."""
    for end in COMPLETIONS:
        path = path.removesuffix(end)
    return path


def brief(seconds: float) -> dict[str, Any]:
    """Return the extensions of a request whose connecting, reading and writing may take so long each."""
    return {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), seconds)}


def follow_up(request: Any, method: str, path: str, *, query: str = "", extensions: Mapping[str, Any]) -> Any:
    """Return another request to the server of this one, with its headers but for those of its body.

    Args:
        request: the HTTP client's own, which was sent before.
        method: "GET", "POST" or "DELETE".
        path: the whole path.
        query: what stands behind the question mark.
        extensions: those of the new request, see `brief`.
    """
    headers = [(name, value) for name, value in request.headers.multi_items() if name.lower() not in _OF_THE_FIRST]
    url = request.url.copy_with(path=path, query=query.encode() or None)
    return type(request)(method, url, headers=headers, extensions=dict(extensions))
