"""What happened to one answer: numbers and words for people, logs and dashboards. Never prompt text, never keys."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal


class StreamStatus(StrEnum):
    """How a stream ended. Every stream has exactly one of these once it is over."""

    STREAMING = "streaming"
    """Not over yet."""
    COMPLETE = "complete"
    """The model said that it was done."""
    LENGTH = "length"
    """The token limit was reached."""
    FILTERED = "filtered"
    """The provider's content policy ended the answer."""
    CANCELLED = "cancelled"
    """The reader left, or asked to stop."""
    INTERRUPTED = "interrupted"
    """Cut, and could not be finished."""
    UNKNOWN = "unknown"
    """It ended cleanly, and this provider never tells whether it was done."""


class FaultKind(StrEnum):
    """Why an attempt failed."""

    TRANSPORT = "transport"
    """The connection broke, or never came about."""
    TIMEOUT = "timeout"
    """No progress in time: by our own watchdog or the client's."""
    CORRUPT = "corrupt"
    """An event or a body that cannot be read."""
    TRUNCATED = "truncated"
    """The stream ended cleanly without saying that the answer is complete."""
    EMPTY = "empty"
    """The model finished without a word."""
    ERROR_FINISH = "error_finish"
    """The finish reason itself says that the model failed."""
    SERVER = "server"
    """HTTP 5xx, or an error event inside a 200."""
    OVERLOADED = "overloaded"
    RATE_LIMIT = "rate_limit"
    CONFLICT = "conflict"
    """HTTP 408, 409 or 425: the request may be sent again as it is."""
    BAD_REQUEST = "bad_request"
    CONTEXT_WINDOW = "context_window"
    """What was sent is too long for the model."""
    PREFILL_REFUSED = "prefill_refused"
    """The API refuses a last assistant turn; another way to continue may work at once."""
    LENGTH = "length"
    """A token limit, where a provider raises an error instead of sending a finish reason."""
    FILTERED = "filtered"
    """A content policy, where a provider raises an error instead of sending a finish reason."""
    REJECTED = "rejected"
    """`RecoveryPolicy.reject` did not accept the beginning of the answer."""
    UNVERIFIED_JOINT = "unverified_joint"
    """Nothing shows that a continuation goes on where the answer was cut. None of it was shown."""
    AUTH = "auth"
    QUOTA = "quota"
    """Money is used up, not rate."""
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class Strategy(StrEnum):
    """What an attempt asked the model for."""

    FIRST = "first"
    """The question, for the first time."""
    ASK = "ask"
    """To go on, by a user turn that asks for it."""
    PREFILL = "prefill"
    """To write on from the partial answer as the last assistant turn."""
    APPEND = "append"
    """To complete the prompt and the partial answer as one text."""
    RESTART = "restart"
    """The question again."""
    REPLAY = "replay"
    """The rest of the very stream that was lost, from a server that keeps it. Nothing is generated twice."""


class GiveUpReason(StrEnum):
    """Why an answer was given up."""

    ATTEMPTS = "attempts"
    """The policy's `stop` said so on the last model, or `max_attempts` is reached."""
    DEADLINE = "deadline"
    EXTRA_TOKENS = "extra_tokens"
    """Another attempt would cost more than `max_extra_tokens`."""
    NOT_RETRYABLE = "not_retryable"
    """Another attempt cannot cure this fault."""
    CONTEXT_WINDOW = "context_window"
    """The question is too long for the model."""
    UNVERIFIED_JOINT = "unverified_joint"
    """No model went on where the answer was cut, in no way that there is to ask for it."""


class JoinDecision(StrEnum):
    """How a continuation was joined to the text before the cut: what it was found to repeat."""

    AS_IS = "as_is"
    """Nothing: shown as it came."""
    ANCHOR = "anchor"
    """The anchor that was asked for."""
    ANSWER = "answer"
    """The answer from its beginning."""
    PARAGRAPH = "paragraph"
    LINE = "line"
    SENTENCE = "sentence"
    OVERLAP = "overlap"
    """The last words."""
    FENCE = "fence"
    """The line that opened the code block, or the code block."""
    TABLE_HEAD = "table_head"
    ANNOUNCEMENT = "announcement"
    """Nothing, but a sentence that announced the rest came first. It was dropped."""
    ECHO = "echo"
    """All that was sent: an API that gives a prefill back."""
    REPLAY = "replay"
    """Nothing: the same stream went on."""
    RESTART_MATCHED = "restart_matched"
    """A restarted turn repeated what was shown, and went on."""
    RESTART_DIFFERED = "restart_differed"
    """A restarted turn was not the same: it replaces what was shown."""


class Certainty(StrEnum):
    """How sure it is that a continuation goes on exactly where the answer was cut."""

    VERIFIED = "verified"
    """The anchor that was asked for came, or the server is known to write on from the text it is given."""
    ALIGNED = "aligned"
    """The model told some of the answer again, to its very end, and went on."""
    UNVERIFIED = "unverified"
    """Neither: it may be a new beginning, or leave something out."""


class CircuitState(StrEnum):
    """Whether a model's circuit breaker lets requests through; see `RecoveryPolicy(breaker=...)`."""

    CLOSED = "closed"
    """It does."""
    OPEN = "open"
    """The model failed too often in a row: it is passed over while another one can be asked."""
    HALF_OPEN = "half_open"
    """One request is under way that shows whether the model is back."""


@dataclass(frozen=True)
class CircuitChange:
    """A circuit breaker that changed its state while this answer was asked for, and because of it."""

    model: str
    state: CircuitState
    """Its new state."""
    seconds: float
    """Since the answer was asked for."""

    def __str__(self) -> str:
        return f"the circuit breaker of {self.model} is {self.state.replace('_', ' ')}"


class PassReason(StrEnum):
    """Why a model of the chain was not asked when it was its turn."""

    CIRCUIT_OPEN = "circuit_open"
    """It has failed too often lately; see `RecoveryPolicy(breaker=...)`."""
    CONTEXT_WINDOW = "context_window"
    """What is to be sent is too long for it, by its own metadata."""
    NO_TOOLS = "no_tools"
    """It cannot call functions, by its own metadata, or its class knows no way to be given tools."""
    KEYWORDS = "keywords"
    """The call has tools or a response format in the words of another class's API."""


@dataclass(frozen=True)
class PassedOver:
    """A model that was not asked."""

    model: str
    reason: PassReason
    seconds: float
    """Since the answer was asked for."""

    def __str__(self) -> str:
        return f"{self.model} was passed over: {self.reason.replace('_', ' ')}"


@dataclass(frozen=True)
class Joint:
    """One place where a continuation was joined to the answer."""

    attempt: int
    """The number of the attempt that wrote on."""
    position: int
    """Characters (Unicode code points) of the answer before it."""
    strategy: Strategy
    decision: JoinDecision
    certainty: Certainty
    dropped: int = 0
    """Characters of the continuation that repeated what was said, and were not shown."""


@dataclass
class Attempt:
    """One request and the stream that answered it. Times are seconds since the answer was asked for."""

    number: int
    model: str
    strategy: Strategy
    started: float
    waited: float = 0.0
    """Seconds of back-off before it."""
    first_token: float | None = None
    ended: float | None = None
    requests: int = 1
    """Requests that it took: the wrapped LLM's client retries by itself before the first token. Counted where the HTTP
    client is seen (`http_client()`, and the OpenAI and Anthropic SDKs' own); elsewhere the most that a failed attempt
    may have taken."""
    continued_below: int = 0
    """Requests that the wrapped LLM was seen to send by itself after its first token, to go on below us."""
    chunks: int = 0
    characters: int = 0
    """New characters (Unicode code points) that it added to the answer."""
    thinking: int = 0
    """Characters of the model's thoughts, where it shows them. Of a cut before the first text all of them are lost."""
    dropped: int = 0
    """Characters that it repeated and that were not shown again."""
    held: int = 0
    """Most characters held back at once while it was unclear whether they were new."""
    seam: str = ""
    """How it was joined: a `JoinDecision`, or "" where nothing was."""
    finish_reason: str | None = None
    fault: FaultKind | None = None
    """What ended it, where that was a fault."""
    detail: str = ""
    """The fault's message. Safe to log."""
    usage: dict[str, int] = field(default_factory=dict)
    """As the provider counted; empty where it did not say. Cut off, it may be `prompt_tokens` alone."""
    left_thread: bool = False
    """A daemon thread stayed behind in a read that nothing can break; it ends with the client's own timeout."""


@dataclass(repr=False)
class StreamReport:
    """The whole story of one answer. `str(report)` is a timeline."""

    stream_id: str = ""
    status: StreamStatus = StreamStatus.STREAMING
    finish_reason: str | None = None
    """The provider's own word."""
    reason: GiveUpReason | Literal[""] = ""
    """Why it was given up; empty where it was not."""
    retryable: bool = False
    """Of an interrupted answer: whether asking again later may help."""
    attempts: list[Attempt] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    """Models that were not asked when it was their turn, and why."""
    circuits: list[CircuitChange] = field(default_factory=list)
    """Circuit breakers that this answer opened, half opened for a probe, or closed."""
    characters: int = 0
    joints: list[Joint] = field(default_factory=list)
    """Where and how continuations were joined to the answer, in order."""
    resets: int = 0
    """How often a restarted tool or structured turn told it differently."""
    seconds: float = 0.0
    refusal: str = ""
    """What the model said instead of an answer, where it refused; the status is then "filtered"."""
    usage: dict[str, int] = field(default_factory=dict)
    """Tokens of all attempts: prompt_tokens, completion_tokens, total_tokens."""
    usage_estimated: bool = False
    """Whether some attempt was cut before its provider counted, so that `usage` is in part an estimate."""
    extra_tokens: int = 0
    """What recovering cost, estimated: what was sent again and what was thrown away."""
    wasted_tokens: int = 0
    """Generated and not shown, estimated; part of `extra_tokens`."""

    calls: list[StreamReport] = field(default_factory=list)
    """The other LLM calls that an engine made for this answer: condensing, refining, selecting, sub-questions."""

    @property
    def recovered(self) -> bool:
        """Whether there was a fault and the answer ended well all the same."""
        return bool(self.faults) and self.status not in (
            StreamStatus.STREAMING,
            StreamStatus.INTERRUPTED,
            StreamStatus.CANCELLED,
        )

    @property
    def verified(self) -> bool:
        """Whether no joint is unverified."""
        return all(joint.certainty is not Certainty.UNVERIFIED for joint in self.joints)

    @property
    def requests(self) -> int:
        """Requests that may have been sent, the own retries of the wrapped LLM's client included."""
        return sum(attempt.requests for attempt in self.attempts)

    @property
    def faults(self) -> list[FaultKind]:
        """The kinds of the faults, in order."""
        return [attempt.fault for attempt in self.attempts if attempt.fault]

    @property
    def models(self) -> list[str]:
        """The models that wrote some of the answer, in order."""
        return list(dict.fromkeys(attempt.model for attempt in self.attempts if attempt.characters))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    def to_svg(self) -> str:
        """Draw the timeline: an SVG document. Notebooks show a report so.

        Example:
            >>> Path("timeline.svg").write_text(stream.report.to_svg())
        """
        from .picture import picture  # for few, and drawn from what is here

        return picture(self)

    def _repr_svg_(self) -> str:
        return self.to_svg()

    def __repr__(self) -> str:
        return f"<StreamReport: {str(self).splitlines()[0]}>"

    def __str__(self) -> str:
        count = len(self.attempts)
        head = [
            str(self.status),
            f"{self.characters:,} characters",
            f"{count} attempt{'s' if count != 1 else ''}",
            f"{self.seconds:.2f} s",
        ]
        if self.reason:
            head.insert(1, self.reason.replace("_", " "))
        if self.extra_tokens:
            head.append(f"about {self.extra_tokens:,} extra tokens")
        if passed := len({each.model for each in self.passed_over}):
            head.append(f"{passed} model{'s' if passed != 1 else ''} passed over")
        return "\n".join([" | ".join(head), *self._timeline()])

    def _timeline(self) -> list[str]:
        """Everything that happened, by its time; what happened at the same moment, in the order of this list."""
        happened = [
            *((each.seconds, [f"{each.seconds:8.2f} s     {each}"]) for each in self.passed_over),
            *((each.started, _attempt(each)) for each in self.attempts),
            *((each.seconds, [f"{each.seconds:8.2f} s     {each}"]) for each in self.circuits),
        ]
        return [line for _, lines in sorted(happened, key=lambda each: each[0]) for line in lines]


def _attempt(attempt: Attempt) -> list[str]:
    what = attempt.model if attempt.strategy is Strategy.FIRST else f"{attempt.model}, {attempt.strategy}"
    told = f"{attempt.characters:,} characters"
    if attempt.first_token is not None:
        told += f", first after {attempt.first_token - attempt.started:.2f} s"
    if attempt.seam:
        told += f", joined: {attempt.seam}"
    if attempt.dropped:
        told += f", {attempt.dropped:,} repeated characters dropped"
    lines = [f"{attempt.started:8.2f} s  #{attempt.number} {what}: {told}"]
    ended = attempt.ended if attempt.ended is not None else attempt.started
    if attempt.fault:
        lines.append(f"{ended:8.2f} s     {attempt.fault.replace('_', ' ')}: {attempt.detail}")
    elif attempt.finish_reason:
        lines.append(f"{ended:8.2f} s     finish: {attempt.finish_reason}")
    if attempt.left_thread:
        lines.append(f"{'':8}       a thread stays in a read that nothing can break")
    return lines
