"""How a server is asked to keep a stream, to give the rest of it, and to stop it.

llama.cpp's server keeps a stream whose request has the header `X-Conversation-Id`, the last 4 MiB of it, until five
minutes after its end:

    GET /v1/stream?conv_id=ID&from=BYTE     the body from that byte on, also while it is being generated
    DELETE /v1/stream?conv_id=ID            stops the generation, which nothing else does then

OpenAI's Responses API, and vLLM's, keep a response that was asked for with `background` and `store`:

    GET /v1/responses/ID?stream=true&starting_after=N     the events behind the one with that `sequence_number`
    POST /v1/responses/ID/cancel                          stops it
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import Any, Protocol

from .follow_up import COMPLETIONS, CONVERSATION_ID, api_root

OVERLAP = 2048
"""Bytes that are asked for again, a few events, to see that both sides mean the same ones."""

_RESPONSES = "/responses"
_BACKGROUND = re.compile(rb'"background"\s*:\s*true')
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


@dataclass(frozen=True, slots=True)
class Target:
    """A request about a kept stream."""

    method: str
    path: str
    query: str = ""


class KeepingProtocol(Protocol):
    """What two kinds of servers have in common."""

    def mark(self, request: Any) -> None:
        """Ask, with the request that begins the stream, to keep it."""

    def rest(self, body: bytearray) -> tuple[Target, bytes] | None:
        """What asks for the rest of a body, which may be shortened, and the bytes that come again at its beginning.

        None: it cannot be asked for yet.
        """

    def stop(self) -> Target | None:
        """What stops the stream. None: nothing can yet."""


class ByConversationId:
    """llama.cpp's server."""

    def __init__(self, path: str) -> None:
        root = api_root(path)
        self._path = f"{root if root.endswith('/v1') else root + '/v1'}/stream"
        self._id = uuid.uuid4().hex  # another one for every stream: a second request with it would stop the first

    def mark(self, request: Any) -> None:
        request.headers[CONVERSATION_ID] = self._id

    def rest(self, body: bytearray) -> tuple[Target, bytes] | None:
        start = max(0, len(body) - OVERLAP)
        return Target("GET", self._path, f"conv_id={self._id}&from={start}"), bytes(body[start:])

    def stop(self) -> Target | None:
        return Target("DELETE", self._path, f"conv_id={self._id}")


class InBackground:
    """OpenAI's Responses API in background mode."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._id = ""

    def mark(self, request: Any) -> None:
        pass  # its body says so

    def note(self, body: bytearray) -> None:
        """Find the id of the response, which the first event has."""
        if not self._id and (first := _EVENT_END.search(body)) is not None:
            response = _data(bytes(body[: first.start()])).get("response")
            self._id = str(response.get("id") or "") if isinstance(response, dict) else ""

    def rest(self, body: bytearray) -> tuple[Target, bytes] | None:
        self.note(body)
        if not self._id:
            return None
        ends = [0, *(match.end() for match in _EVENT_END.finditer(body))]
        del body[ends[-1] :]
        last = _data(bytes(body[ends[-2] :])).get("sequence_number") if len(ends) > 1 else None
        if not isinstance(last, int):
            body.clear()
        query = "stream=true" if not body else f"stream=true&starting_after={last}"
        return Target("GET", f"{self._path}/{self._id}", query), b""

    def stop(self) -> Target | None:
        return Target("POST", f"{self._path}/{self._id}/cancel") if self._id else None


def protocol_of(request: Any) -> KeepingProtocol | None:
    """Return how the stream of this request is kept; None where it is not."""
    path: str = request.url.path
    if path.endswith(COMPLETIONS):
        return ByConversationId(path)
    if path.endswith(_RESPONSES) and _BACKGROUND.search(request.content):
        return InBackground(path)
    return None


def _data(event: bytes) -> dict[str, Any]:
    """The JSON object in an event; an empty one where there is none."""
    for line in event.splitlines():
        if line.startswith(b"data:"):
            try:
                found = json.loads(line[5:])
            except (ValueError, RecursionError):
                return {}
            return found if isinstance(found, dict) else {}
    return {}
