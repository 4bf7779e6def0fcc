"""Asks an OpenAI-compatible server for its list of models, whose `owned_by` names the server where its streams do not.

One short request through the HTTP client that the wrapped LLM uses, with its key. Whatever goes wrong, nothing is
known, and nothing else changes. OpenAI itself is not asked: everybody knows what it does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .follow_up import COMPLETIONS, api_root, brief, follow_up

SECONDS = 2.0
"""How long it may take."""

_MOST = 1_000_000  # bytes of a list
_NOT_ASKED = ("api.openai.com", "openai.azure.com")


class OwnerInquiry:
    """One request for the list of models.

    Args:
        request: an earlier request to the same server, for an answer.
        send: sends a request, as the HTTP client does.
        asynchronous: whether `send` is a coroutine function.
    """

    def __init__(self, request: Any, send: Callable[..., Any], *, asynchronous: bool = False) -> None:
        self.is_asynchronous = asynchronous
        self._asked = request
        self._send = send

    def owner(self) -> str | None:
        """Return the owner of the model that was asked. Raises what the HTTP client raises."""
        response = self._send(self._request())
        try:
            return owner_in(response.status_code, response.read(), self._asked.content)
        finally:
            response.close()

    async def aowner(self) -> str | None:
        """Return the owner of the model that was asked, asynchronously."""
        response = await self._send(self._request())
        try:
            return owner_in(response.status_code, await response.aread(), self._asked.content)
        finally:
            await response.aclose()

    def _request(self) -> Any:
        path = f"{api_root(self._asked.url.path)}/models"
        return follow_up(self._asked, "GET", path, extensions=brief(SECONDS))


def can_be_asked(request: Any) -> bool:
    """Return whether the server behind this request has such a list, and may be somebody else's than OpenAI's."""
    host: str = request.url.host
    return request.url.path.endswith(COMPLETIONS) and not host.endswith(_NOT_ASKED)


def owner_in(status: int, body: bytes, question: bytes) -> str | None:
    """Return the owner of the model that a request asked, as the answer to a request for the list of models has it."""
    if status != 200 or len(body) > _MOST:
        return None
    models = json.loads(body)["data"]
    model = json.loads(question).get("model")
    owners = {each.get("owned_by") for each in models if each.get("id") == model}
    owners = owners or {each.get("owned_by") for each in models}  # a server of one model answers to any name
    owner = owners.pop() if len(owners) == 1 else None
    return owner if isinstance(owner, str) else None
