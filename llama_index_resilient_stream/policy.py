"""How patient to be: tenacity's own vocabulary for one model, and totals for the whole answer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tenacity import RetryCallState, retry_base, stop_after_attempt, wait_none, wait_random_exponential
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from .errors import ConfigurationError
from .report import FaultKind, StreamStatus

Stop = Callable[[RetryCallState], bool]
Wait = Callable[[RetryCallState], float]
Predicate = Callable[[RetryCallState], bool] | type[BaseException] | tuple[type[BaseException], ...]
"""One of tenacity's `retry_if_...` objects, a function of a `tenacity.RetryCallState`, or exception types."""


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """An attempt that ended without a fault, as `retry_if_result(...)` sees it."""

    status: StreamStatus
    text: str
    """The whole answer so far."""
    refusal: str = ""
    """What the model said instead of an answer, where it refused."""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """A stream that ended cleanly, as a `completeness` function sees it."""

    text: str
    """The whole answer so far."""
    finish_reason: str | None
    """The provider's own word in lower case; None where it sent none."""
    terminated: bool | None
    """Whether the protocol's own terminator came; None where nobody looked (see `http.py`)."""


Completeness = Literal["auto", "strict", "lenient"] | Callable[[StreamEnd], bool | None]


class retry_if_fault(retry_base):
    """Matches attempts that failed with one of these kinds of fault; without any, each that may be tried again.

    It is what `RecoveryPolicy(retry=...)` does by itself, as an object that combines with tenacity's:

        retry_if_fault() | retry_if_exception_type(MyGatewayError)     # also what only your gateway raises
        retry_if_fault(FaultKind.RATE_LIMIT, "overloaded")             # nothing else

    Args:
        kinds: members of `FaultKind`, or their values.

    Raises:
        ConfigurationError: a kind that does not exist.
    """

    def __init__(self, *kinds: FaultKind | str) -> None:
        self.kinds = frozenset(_member(FaultKind, kind, "retry_if_fault") for kind in kinds)

    def __call__(self, retry_state: RetryCallState) -> bool:
        fault = getattr(retry_state, "fault", None)
        if fault is None:
            return False
        return fault.kind in self.kinds if self.kinds else bool(fault.retryable)


class retry_if_outcome(retry_base):
    """Matches answers that ended without a fault, but not as wished: for `RecoveryPolicy(fallback_on=...)`.

        fallback_on=retry_if_fault() | retry_if_outcome("filtered", "refused", "empty")

    Args:
        outcomes: "filtered" (by the provider's policy), "refused" (by the model), "empty" (no text and no tool
            call), "length".

    Raises:
        ConfigurationError: an outcome that does not exist.
    """

    OUTCOMES = ("filtered", "refused", "empty", "length")

    def __init__(self, *outcomes: Literal["filtered", "refused", "empty", "length"]) -> None:
        unknown = [outcome for outcome in outcomes if outcome not in self.OUTCOMES]
        if unknown or not outcomes:
            raise ConfigurationError(
                f"retry_if_outcome takes some of {', '.join(map(repr, self.OUTCOMES))}, not {outcomes!r}. "
                f'Write retry_if_outcome("filtered").'
            )
        self.outcomes = frozenset(outcomes)

    def __call__(self, retry_state: RetryCallState) -> bool:
        outcome = retry_state.outcome
        if outcome is None or outcome.failed or not isinstance(result := outcome.result(), AttemptResult):
            return False
        refused = result.status is StreamStatus.FILTERED and bool(result.refusal)
        matches = {
            "filtered": result.status is StreamStatus.FILTERED and not refused,
            "refused": refused,
            "empty": result.status is StreamStatus.COMPLETE and not result.text.strip(),
            "length": result.status is StreamStatus.LENGTH,
        }
        return any(matches[outcome] for outcome in self.outcomes)


class _DefaultStop(stop_after_attempt):
    """Four failures, unless a fallback stands ready. Known by its class: a copy of it is no less the default."""


class _DefaultWait(wait_random_exponential):
    """From half a second on, unless a fallback stands ready. Known by its class, too."""


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """When a model that fails is left alone: for `RecoveryPolicy(breaker=...)`.

        RecoveryPolicy(breaker=CircuitBreaker(failures=3, seconds=60))

    After `failures` requests in a row that brought nothing, whichever answers they were for, the model is passed over
    wherever another one can be asked. Every `seconds` one request is let through to see whether it is back.

    Args:
        failures: Requests in a row without a single word before the circuit opens.
        seconds: How long it stays open until the next request probes the model, and the least time between two probes.

    Raises:
        ConfigurationError: `failures` is no whole number from 1, or `seconds` is not more than 0.
    """

    failures: int = 5
    seconds: float = 30.0

    def __post_init__(self) -> None:
        if isinstance(self.failures, bool) or not isinstance(self.failures, int) or self.failures < 1:
            raise ConfigurationError(
                f"CircuitBreaker.failures must be a whole number from 1, not {self.failures!r}. Write failures=5."
            )
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int | float) or not self.seconds > 0:
            raise ConfigurationError(
                f"CircuitBreaker.seconds must be more than 0, not {self.seconds!r}. Write seconds=30, or switch the "
                f"breaker off: RecoveryPolicy(breaker=None)."
            )


DEFAULT_STOP: Stop = _DefaultStop(4)
DEFAULT_WAIT: Wait = _DefaultWait(0.5, max=8)
# Where another model stands ready, paying twice for a dead one is enough, and nobody has to wait for it.
STOP_WITH_FALLBACKS: Stop = stop_after_attempt(2)
WAIT_WITH_FALLBACKS: Wait = wait_none()


@dataclass(frozen=True, repr=False)
class RecoveryPolicy:
    """When to wait, when to ask again, when to ask another model, when to stop. All times are in seconds.

        RecoveryPolicy(stop=stop_after_attempt(3), wait=wait_random_exponential(0.5, max=8), deadline=120)

    Args:
        stop: when to stop asking the current model: a tenacity object, or a function of a `tenacity.RetryCallState`.
            It sees the failures and the seconds since the last new text on this model: progress restarts patience.
            Default: four failures, or two on a model that has a fallback behind it.
        wait: how long to wait before the current model is asked again, in the same terms. Default: from half a second
            on, more with each failure; not at all on a model that has a fallback behind it, where `stop` is the
            default, too.
        retry: which failures are worth another try on the same model: one of tenacity's predicates (combine them
            with `|` and `&`), a function of a `tenacity.RetryCallState`, or exception types. The original exception
            is `state.outcome.exception()`, what was made of it `state.fault`. Default: `retry_if_fault()`.
        fallback_on: the same for asking the next model. Default: every fault but a content policy's. Outcomes that
            are no faults can be added: `retry_if_fault() | retry_if_outcome("filtered", "refused")`.
        breaker: when a model that keeps failing is passed over, in all answers of the process, while another one can be
            asked. The last model of a chain is always asked. None switches it off.
        reject: a function of the beginning of the answer: True, and nothing of it is shown, and the next model is
            asked. Until `reject_characters` have come, or the answer is over, its text is held back.
        max_attempts: requests for the whole answer, over all models. Always bounded.
        deadline: seconds for the whole answer, over all models, a stream that still flows included.
        max_extra_tokens: what recovering may cost for the whole answer: the question and the partial text sent
            again, and the text thrown away. An estimate, unless LlamaIndex's `Settings.tokenizer` is set. What the
            last attempt repeats is known only afterwards, and may exceed it.
        max_retry_after: a provider's Retry-After is obeyed up to this; a longer one moves on to the next model.
        first_token_timeout: from the request to the first progress. "auto": 60, or 300 where the model reasons or
            tools are given. None switches it off.
        idle_timeout: between two signs of progress (text, thinking, tool arguments; never keep-alives). Only time
            spent waiting for the provider counts. None switches it off.
        completeness: what a clean end without a finish reason means. "auto": a cut where this LLM class is known
            to send one, or this instance has sent one before, else status `unknown`; with the clients of `http.py`
            also a cut where the protocol's own terminator is missing. "strict": always a cut. "lenient": never. Or
            a function of a `StreamEnd`, asked at every clean end: True, it is complete; False, it is cut; None, as
            "auto" has it.
        empty: what an answer of nothing but a finish reason is. "retry": asked again once. "accept": the answer.
            After a tool's result it always is the answer.
        unverified: what to do where nothing shows that a continuation goes on where the answer was cut. "retry": show
            none of it, and try the other ways to continue first. "show": show it. Either way `report.joints` says so.
        continue_on_length: how often an answer that hit the token limit is continued.
        max_held_characters: how much of a continuation is held back at the most while it is unclear whether it
            repeats what was said.
        max_held_seconds: for how long.
        on_exhausted: "raise" StreamInterruptedError, or end the stream normally with the "partial" text and the
            status in the report and in the last chunk's additional_kwargs.

    Raises:
        ConfigurationError: a setting that cannot work; the message has the line that does.
    """

    stop: Stop = field(default=DEFAULT_STOP)
    wait: Wait = field(default=DEFAULT_WAIT)
    retry: Predicate = field(default=retry_if_fault())
    fallback_on: Predicate | None = None
    breaker: CircuitBreaker | None = field(default=CircuitBreaker())
    reject: Callable[[str], bool] | None = None
    reject_characters: int = 200
    max_attempts: int = 16
    deadline: float | None = None
    max_extra_tokens: int | None = None
    max_retry_after: float = 60.0
    first_token_timeout: float | Literal["auto"] | None = "auto"
    idle_timeout: float | None = 120.0
    completeness: Completeness = "auto"
    empty: Literal["retry", "accept"] = "retry"
    unverified: Literal["retry", "show"] = "retry"
    continue_on_length: int = 0
    max_held_characters: int = 400
    max_held_seconds: float = 10.0
    on_exhausted: Literal["raise", "partial"] = "raise"

    def __post_init__(self) -> None:
        for name, example in (("stop", "stop_after_attempt(4)"), ("wait", "wait_fixed(1)")):
            value = getattr(self, name)
            if isinstance(value, type) or not callable(value):
                raise ConfigurationError(
                    f"RecoveryPolicy.{name} must be a tenacity object or a function, "
                    f"not {value!r}. Write {name}=tenacity.{example}."
                )
        self._check_predicate("retry", optional=False)
        self._check_predicate("fallback_on", optional=True)
        self._check_breaker()
        self._check_function("reject", "lambda head: head.startswith('I cannot')")
        for name in ("max_attempts", "reject_characters", "max_held_characters"):
            self._check_count(name, least=1)
        self._check_count("continue_on_length", least=0)
        for name in ("deadline", "max_extra_tokens", "first_token_timeout", "idle_timeout"):
            self._check_amount(name, optional=True)
        for name in ("max_retry_after", "max_held_seconds"):
            self._check_amount(name, optional=False)
        if not callable(self.completeness) or isinstance(self.completeness, type):
            self._check_choice("completeness", ("auto", "strict", "lenient"))
        self._check_choice("empty", ("retry", "accept"))
        self._check_choice("unverified", ("retry", "show"))
        self._check_choice("on_exhausted", ("raise", "partial"))

    @property
    def has_default_stop(self) -> bool:
        """Whether `stop` was left to the package, so that a fallback behind a model shortens it."""
        return isinstance(self.stop, _DefaultStop)

    @property
    def has_default_patience(self) -> bool:
        """Whether `stop` and `wait` were left to the package, so that with a fallback nobody waits for a model."""
        return self.has_default_stop and isinstance(self.wait, _DefaultWait)

    def __repr__(self) -> str:
        """Name the settings that are not the default."""
        defaults = {name: each.default for name, each in type(self).__dataclass_fields__.items()}
        own = {name: value for name in defaults if (value := getattr(self, name)) is not defaults[name]}
        said = [f"{name}={_said(value)}" for name, value in own.items() if value != defaults[name]]
        return f"{type(self).__name__}({', '.join(said)})"

    def _check_predicate(self, name: str, *, optional: bool) -> None:
        value = getattr(self, name)
        types = value if isinstance(value, tuple) else (value,)
        if (optional and value is None) or (types and all(_is_exception_type(each) for each in types)):
            return
        if isinstance(value, type | tuple) or not callable(value):
            raise ConfigurationError(
                f"RecoveryPolicy.{name} must be one of tenacity's predicates, a function of a tenacity.RetryCallState, "
                f"or exception types, not {value!r}. Write {name}=retry_if_fault() | retry_if_exception_type(MyError)."
            )

    def _check_breaker(self) -> None:
        if self.breaker is not None and not isinstance(self.breaker, CircuitBreaker):
            raise ConfigurationError(
                f"RecoveryPolicy.breaker must be a CircuitBreaker or None, not {self.breaker!r}. "
                f"Write breaker=CircuitBreaker(failures=5, seconds=30)."
            )

    def _check_function(self, name: str, example: str) -> None:
        value = getattr(self, name)
        if value is not None and (isinstance(value, type) or not callable(value)):
            raise ConfigurationError(
                f"RecoveryPolicy.{name} must be a function, not {value!r}. Write {name}={example}."
            )

    def _check_count(self, name: str, *, least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            default = type(self).__dataclass_fields__[name].default
            raise ConfigurationError(
                f"RecoveryPolicy.{name} must be a whole number from {least}, not {value!r}; the default is {default}."
            )

    def _check_amount(self, name: str, *, optional: bool) -> None:
        value = getattr(self, name)
        if (optional and value is None) or (name == "first_token_timeout" and value == "auto"):
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            what = "a number of tokens" if name.endswith("tokens") else "a number of seconds"
            mend = f"{name}=60" + (f", or {name}=None to switch it off" if optional else "")
            raise ConfigurationError(f"RecoveryPolicy.{name} must be {what} above 0, not {value!r}. Write {mend}.")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ConfigurationError(f"RecoveryPolicy.{name} is {value!r}. Use one of {', '.join(map(repr, choices))}.")


def yes_or_no(name: str, value: Any) -> bool:
    """What a function of the policy, `name`, has answered.

    Raises:
        ConfigurationError: it is a text, a number or a coroutine, which are all true and mean nothing here.
    """
    if isinstance(value, str | bytes | float) or inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
            value = "a coroutine"
        raise ConfigurationError(
            f"RecoveryPolicy.{name} returned {value!r}. Write a function that returns True or False."
        )
    return bool(value)


def seconds_of(name: str, value: Any) -> float:
    """The seconds that a function of the policy, `name`, has answered.

    Raises:
        ConfigurationError: it is no finite number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        if inspect.iscoroutine(value):
            value.close()
            value = "a coroutine"
        raise ConfigurationError(
            f"RecoveryPolicy.{name} returned {value!r}. Write a function that returns seconds: "
            f"{name}=lambda state: 0.5 * state.attempt_number."
        )
    return max(0.0, float(value))


def matches(name: str, predicate: Predicate, state: RetryCallState) -> bool:
    """Whether this predicate of the policy, `name`, wants the attempt that ended like this."""
    if isinstance(predicate, tuple) or _is_exception_type(predicate):
        error = state.outcome.exception() if state.outcome is not None else None
        return error is not None and isinstance(error, predicate)  # type: ignore[arg-type]
    return yes_or_no(name, predicate(state))


def _said(value: Any) -> str:
    """The value as it might be written. tenacity's objects have no `repr` of their own."""
    kind = type(value)
    if isinstance(value, type):
        return value.__name__
    if not isinstance(value, retry_base | stop_base | wait_base):
        return getattr(value, "__name__", "") or repr(value)
    several = next((own for own in vars(value).values() if isinstance(own, tuple)), ())
    if kind.__name__.endswith(("_any", "_all")):
        return (" | " if kind.__name__.endswith("_any") else " & ").join(map(_said, several))
    return f"{kind.__name__}(...)"


def _is_exception_type(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _member(enumeration: type[FaultKind], value: Any, where: str) -> FaultKind:
    try:
        return enumeration(value)
    except ValueError:
        known = ", ".join(repr(str(member)) for member in enumeration)
        raise ConfigurationError(f"{where}: {value!r} is no kind of fault. Use some of {known}.") from None
