"""What goes into the machine and what comes out of it. Payloads are opaque to the core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..report import PassReason, Strategy
from .breaker import Circuit
from .continuation import Continuation, Turn
from .finish_reasons import FinishReason


@dataclass(slots=True)
class Chunk:
    """One event of a stream on the way in; what to show of it on the way out."""

    text: str
    """New text. On the way out: what the reader has not seen yet."""
    payload: Any = None
    """The wrapped LLM's own object. None only where text is shown that no single event carries."""
    progress: bool = False
    """Whether the model got on: text, thinking or tool arguments. Keep-alives and role headers are none."""
    finish_reason: FinishReason | None = None
    tools: str | None = None
    """Changes whenever the tool calls seen so far grow; None where there are none."""
    usage: dict[str, int] | None = None
    refusal: str = ""
    """What the model says instead of an answer, as far as this event has it."""
    server: str | None = None
    """On the first chunk with text: the server that sent it, where it shows which one it is."""
    thought: int = 0
    """Characters of the model's thoughts in an event without text."""
    untouched: bool = True
    """Whether the payload can be passed on exactly as it came."""
    reset: bool = False
    """A restarted turn tells it differently: `text` is the whole new telling after a blank line."""

    @property
    def stands_alone(self) -> bool:
        """Whether it is to be shown without its text."""
        return self.finish_reason is not None or self.tools is not None or bool(self.refusal)

    @property
    def carries_more(self) -> bool:
        """Whether there is more to it than text."""
        return self.finish_reason is not None or self.tools is not None or self.usage is not None or bool(self.refusal)


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream is over: by itself, or because of this error."""

    error: Exception | None = None
    terminated: bool | None = None
    """Whether the wire's own terminator was seen. False: it is due and did not come. None: nobody looked."""
    finish_reason: FinishReason | None = None
    """The last finish reason on the wire that no content followed, or a refusal, also where no chunk carried it.

    None: none came, or nobody looked.
    """
    answered: bool = False
    """Whether the server had begun to answer, as far as somebody looked. What fails then fails over what it sent."""
    requests: int | None = None
    """Requests that were sent, with those that the SDK repeats by itself. None: nobody counted."""
    events_before_reason: int | None = None
    """Events on the wire in front of the one with `finish_reason`, where that one has nothing else on it.

    None: it has more on it, there is none, or nobody counted.
    """
    reason_due: bool = False
    """Whether a finish reason should have been on the wire, where it is the class that drops it and not the server."""
    kept: bool = False
    """Whether its server keeps the stream, so that the rest of it can be had."""
    error_headers: Mapping[str, str] | None = None
    """Of the response, where its status is an error. An exception made of it need not have them."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask now."""

    model: int
    """0 is the wrapped LLM, 1 its first fallback, ..."""
    strategy: Strategy
    partial_text: str = ""
    turns: tuple[Turn, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    spent_tokens: int = 0
    """Estimate of what the output limit has to be reduced by."""
    keep: bool = False
    """Whether the server is asked to keep the stream."""
    original: Request | None = None
    """Of a replay: the request whose stream is read on."""


@dataclass(frozen=True, slots=True)
class Prefilling:
    """How a server writes on from a last assistant turn."""

    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for the wrapped LLM's call."""
    certain: bool = False
    """Whether it always does. Otherwise it depends on the model, and a new turn may come instead."""


@dataclass
class Learned:
    """What the streams of one model have taught. Shared by all of them."""

    sends_finish_reason: bool = False
    """It has sent a finish signal before."""
    untrusted_finish_reasons: set[str] = field(default_factory=set)
    """Words that more followed: they prove no end."""
    refused_strategies: set[Strategy] = field(default_factory=set)
    """Ways to continue that its API refused, or answered by a new turn."""
    server: str | None = None
    """The server behind it, as its streams or its list of models show."""
    asked_for_owner: bool = False
    """Its server was asked for the owner of its models."""
    circuit: Circuit = field(default_factory=Circuit)
    """What requests to it have shown, those of other LLM objects for the same model included."""
    warned_of_own_retries: bool = False
    warned_of_finish_reasons: set[str] = field(default_factory=set)
    """Words that nobody knows, and that the log has named."""


Unfit = Callable[[Callable[[], int]], PassReason | None]
"""Says why a model cannot be asked a question, as a fallback; None where it can.

Its argument counts the tokens that are to be sent, and is called only where the model's window is known.
"""


def fits(_tokens: Callable[[], int]) -> None:
    """Say that a model can be asked anything."""


@dataclass(frozen=True)
class Model:
    """What the core has to know of one model."""

    name: str
    continuation: Continuation = field(default_factory=Continuation)
    sends_finish_reason: bool | None = None
    """Whether this class is known to send a finish signal. False: known not to. None: nobody knows."""
    untrusted_finish_reasons: frozenset[str] = frozenset()
    """Finish words that prove nothing."""
    first_token_timeout: float | None = 60.0
    prefills_on: Mapping[str, Prefilling] = field(default_factory=dict)
    """How to continue on servers that show who they are; empty where the way to continue was chosen by the user."""
    keep: bool = False
    """Whether its server is taken for one that keeps streams, whatever its streams show."""
    keeps_on: frozenset[str] = frozenset()
    """Which servers keep streams; empty where the way to continue was chosen by the user."""
    own_retries: int = 0
    """Requests that its client sends on its own account when one fails before the first token."""
    unfit: Unfit = fits
    learned: Learned = field(default_factory=Learned)

    @property
    def prefilling(self) -> Prefilling | None:
        """How its server writes on, where it has shown that it is one that does."""
        return self.prefills_on.get(self.learned.server) if self.learned.server is not None else None

    @property
    def wants_owner(self) -> bool:
        """Whether it would help to know whose models its server has."""
        return bool(self.prefills_on) and self.learned.server is None and not self.learned.asked_for_owner

    @property
    def keeps_streams(self) -> bool:
        """Whether its server can be asked to keep a stream."""
        return self.keep or self.learned.server in self.keeps_on

    def distrusts(self, word: str) -> bool:
        """Whether this finish reason proves nothing, coming from this model."""
        return word in self.untrusted_finish_reasons or word in self.learned.untrusted_finish_reasons
