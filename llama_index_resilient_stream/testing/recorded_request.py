"""The record of one request to FaultServer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .faults import WireFault
from .scripted_model import ParsedRequest
from .wire_faults import SentOutput


@dataclass
class RecordedRequest:
    """One request that FaultServer received, and what became of it.

    Attributes:
        connection: The number of the connection, counted from 1.
        path: The path of the URL, without the query.
        body: The JSON body.
        header_names: The names of the headers, in lower case. Their values are not kept.
        fault: The fault that struck; None where the response was healthy.
        parsed: How the model understood the request: `kind`, `partial_text` and `anchor`.
        sent: The text, the tokens and the events that were sent.
        client_left: Whether the client closed the connection before the response was over.
        left_after: Seconds from the request until the server noticed that.
        seconds: How long the whole response took.
    """

    connection: int
    path: str
    body: dict[str, Any]
    header_names: tuple[str, ...]
    fault: WireFault | None = None
    parsed: ParsedRequest = field(default_factory=ParsedRequest)
    sent: SentOutput = field(default_factory=SentOutput)
    client_left: bool = False
    left_after: float | None = None
    seconds: float | None = None

    @property
    def partial_text(self) -> str:
        """The beginning of the text that the request gave back to the model, to be continued."""
        return self.parsed.partial_text

    @property
    def anchor(self) -> str:
        """The last words of `partial_text` that the model was asked to repeat."""
        return self.parsed.anchor
