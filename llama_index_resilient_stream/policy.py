"""How patient to be. The vocabulary of stop and wait is tenacity's own; the totals are ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tenacity import RetryCallState, stop_after_attempt, wait_random_exponential

from .errors import ConfigurationError

Stop = Callable[[RetryCallState], bool]
Wait = Callable[[RetryCallState], float]
Completeness = Literal["auto", "strict", "lenient"]


class _DefaultStop(stop_after_attempt):
    """Four failures, unless a fallback stands ready. Known by its class: a copy of it is no less the default."""


DEFAULT_STOP: Stop = _DefaultStop(4)
# Where another model stands ready, paying twice for a dead one is enough.
STOP_WITH_FALLBACKS: Stop = stop_after_attempt(2)


@dataclass(frozen=True)
class RecoveryPolicy:
    """When to wait, when to ask again, when to stop. All times are in seconds.

    stop, wait            tenacity's objects, or any function of a `tenacity.RetryCallState`. They see the failures
                          and the seconds since the last new text on the current model: progress restarts patience.
                          The default stop is four failures, or two on a model that has a fallback behind it.
    max_attempts          requests for the whole answer, over all models. Always bounded.
    deadline              seconds for the whole answer, over all models, a stream that still flows included.
    max_extra_tokens      what recovering may cost for the whole answer: the question and the partial text sent again,
                          and the text thrown away. An estimate.
    max_retry_after       a provider's Retry-After is obeyed up to this; a longer one moves on to the next model.
    first_token_timeout   from the request to the first progress. "auto": 60, or 300 where the model reasons or
                          tools are given. None switches it off.
    idle_timeout          between two signs of progress (text, thinking, tool arguments; never keep-alives). Only
                          time spent waiting for the provider counts. None switches it off.
    completeness          what a clean end without a finish signal means. "auto": a cut where this LLM class is known
                          to send one, or this instance has sent one before, else status `unknown`; with the clients of
                          `http.py` also a cut where the protocol's own terminator is missing, and `complete` where it
                          came. "strict": always a cut. "lenient": never.
    continue_on_length    how often an answer that hit the token limit is continued.
    on_exhausted          "raise" StreamInterruptedError, or end the stream normally with the "partial" text and the
                          status in the report and in the last chunk's additional_kwargs.
    """

    stop: Stop = field(default=DEFAULT_STOP)
    wait: Wait = field(default=wait_random_exponential(0.5, max=8))
    max_attempts: int = 16
    deadline: float | None = None
    max_extra_tokens: int | None = None
    max_retry_after: float = 60.0
    first_token_timeout: float | Literal["auto"] | None = "auto"
    idle_timeout: float | None = 120.0
    completeness: Completeness = "auto"
    continue_on_length: int = 0
    on_exhausted: Literal["raise", "partial"] = "raise"

    def __post_init__(self) -> None:
        for name, example in (("stop", "stop_after_attempt(4)"), ("wait", "wait_fixed(1)")):
            if not callable(getattr(self, name)):
                raise ConfigurationError(
                    f"RecoveryPolicy.{name} must be a tenacity object or a function, "
                    f"not {getattr(self, name)!r}. Write {name}=tenacity.{example}."
                )
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise ConfigurationError("RecoveryPolicy.max_attempts must be a whole number from 1; the default is 16.")
        if self.continue_on_length < 0:
            raise ConfigurationError("RecoveryPolicy.continue_on_length must be 0 (off) or more.")
        for name in (
            "deadline",
            "max_extra_tokens",
            "first_token_timeout",
            "idle_timeout",
            "max_retry_after",
        ):
            self._check_amount(name)
        self._check_choice("completeness", ("auto", "strict", "lenient"))
        self._check_choice("on_exhausted", ("raise", "partial"))

    @property
    def has_default_stop(self) -> bool:
        return isinstance(self.stop, _DefaultStop)

    def _check_amount(self, name: str) -> None:
        value = getattr(self, name)
        if value is None or (name == "first_token_timeout" and value == "auto"):
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigurationError(
                f"RecoveryPolicy.{name} must be more than 0, not {value!r}. Write {name}=None to switch it off."
            )

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ConfigurationError(f"RecoveryPolicy.{name} is {value!r}. Use one of {', '.join(map(repr, choices))}.")
