"""How parts become bytes: one module for each protocol, and a table of their names.

    SSEResponse(lambda: engine.query(question), protocol="ai-sdk")

| protocol | who reads it |
|---|---|
| "events" | an `EventSource`: our own server-sent events, the default |
| "ai-sdk" | `useChat` of the npm package `ai`: its UI message stream |
| "openai" | clients of OpenAI's API: chat completion chunks; `OpenAIChat.of(body)` for a request's own settings |
| "text" | `curl`, `fetch`: the text and nothing else |
| "jsonl" | a WebSocket, a program: one JSON object a line |

Another one is a class with the names of `Protocol`, given as an object in place of a name. An object serves one reader.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import ConfigurationError
from .ai_sdk import AISDK
from .base import Encoding, Protocol
from .events import Events
from .jsonl import JSONLines
from .openai import OpenAIChat
from .text import PlainText

__all__ = ["AISDK", "Encoding", "Events", "JSONLines", "OpenAIChat", "PlainText", "Protocol", "protocol_of"]

_NAMED: dict[str, Callable[[], Protocol]] = {
    "events": Events,
    "ai-sdk": AISDK,
    "openai": OpenAIChat,
    "text": PlainText,
    "jsonl": JSONLines,
}


def protocol_of(protocol: str | Protocol) -> Protocol:
    """The protocol of that name, or the one that is given.

    Raises:
        ConfigurationError: for a name that nobody knows.
    """
    if not isinstance(protocol, str):
        if isinstance(protocol, type) or not hasattr(protocol, "encoding"):
            raise ConfigurationError(
                f"protocol is {protocol!r}. Pass a name, or an object with a method `encoding`: protocol='events'."
            )
        return protocol
    if protocol not in _NAMED:
        raise ConfigurationError(f"There is no protocol {protocol!r}. There are: {', '.join(_NAMED)}.")
    return _NAMED[protocol]()
