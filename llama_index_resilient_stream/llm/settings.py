"""What users may set on a `ResilientLLM`: each setting is checked where it is passed, bound or assigned.

Every check returns the value in the form in which it is kept, or raises ConfigurationError with the line that fixes it.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from llama_index.core.llms.llm import LLM

from ..compat.llama_index import inner_llm
from ..errors import ConfigurationError
from ..policy import RecoveryPolicy
from ..providers import Provider
from ..recovery.continuation import STRATEGIES, Continuation, StrategyName, Turn
from ..report import Strategy
from .announcer import checked

ContinuationSetting = Continuation | Strategy | StrategyName | Literal["auto"]
"""What `ResilientLLM(continuation=...)` takes."""

ProviderSetting = Provider | Sequence[Provider | None] | None
"""What `ResilientLLM(provider=...)` takes."""

_POLICY = frozenset(field.name for field in dataclasses.fields(RecoveryPolicy))
_RETRIES = ("max_retries", "retries", "num_retries")  # as other clients call it

_SAMPLE = "The cable broke two miles down. They found both ends"


def check_llm(llm: Any, write: str = "ResilientLLM(OpenAI(model=...))") -> LLM:
    """Check that this is an LLM of LlamaIndex, and not a resilient one already. `write` is what to write instead."""
    from .resilient_llm import ResilientLLM  # which imports this module

    if isinstance(llm, ResilientLLM) or (isinstance(llm, LLM) and isinstance(inner_llm(llm), ResilientLLM)):
        raise ConfigurationError(
            "This LLM is resilient already, and two layers of retries multiply. Change its settings with "
            "llm.bind(policy=...), or wrap the LLM inside: ResilientLLM(llm.llm, ...)."
        )
    if not isinstance(llm, LLM):
        what = f"the class {llm.__name__}" if isinstance(llm, type) else f"{type(llm).__name__} object"
        raise ConfigurationError(f"ResilientLLM wraps a LlamaIndex LLM, and got {what}. Write {write}.")
    return llm


def check_fallbacks(fallbacks: Any) -> tuple[LLM, ...]:
    """Check each of the models that are asked when the wrapped one fails."""
    if isinstance(fallbacks, LLM) or not isinstance(fallbacks, Iterable):
        raise ConfigurationError(
            f"fallbacks is a sequence of LLMs, not {type(fallbacks).__name__}. "
            f"Write fallbacks=[OpenAI(...)], or fallbacks=() for none."
        )
    write = "ResilientLLM(OpenAI(model=...), fallbacks=[OpenAI(model=...)])"
    return tuple(check_llm(each, write) for each in fallbacks)


def check_policy(policy: Any) -> RecoveryPolicy:
    """Check that this is a RecoveryPolicy. Its own fields were checked when it was made."""
    if not isinstance(policy, RecoveryPolicy):
        raise ConfigurationError(
            f"policy must be a RecoveryPolicy, not {type(policy).__name__}. Write policy=RecoveryPolicy(deadline=60)."
        )
    return policy


def check_continuation(continuation: Any) -> ContinuationSetting:
    """Check the word or the Continuation; of a subclass also what its methods return."""
    if isinstance(continuation, Continuation):
        if type(continuation) is not Continuation:
            _check_methods(continuation)
        return continuation
    if not isinstance(continuation, str) or continuation not in ("auto", *STRATEGIES):
        raise ConfigurationError(
            f"continuation is {continuation!r}. Use 'auto', {', '.join(repr(str(each)) for each in STRATEGIES)}, "
            f"or a Continuation(strategy=..., wording=...)."
        )
    return continuation  # type: ignore[return-value]  # one of the words, which mypy cannot see


def _check_methods(continuation: Continuation) -> None:
    """Ask a subclass once what it makes of a short text, so that a mistake in it does not wait for the first fault."""
    anchor = _asked(continuation, "anchor")
    if not isinstance(anchor, str):
        raise ConfigurationError(
            f"{type(continuation).__name__}.anchor() returned {type(anchor).__name__}. Return the text that the model "
            f"is asked to begin with, or '' for none."
        )
    turns = _asked(continuation, "turns")
    if not isinstance(turns, Sequence) or not all(isinstance(turn, Turn) for turn in turns):
        raise ConfigurationError(
            f"{type(continuation).__name__}.turns() returned {type(turns).__name__}. Return a tuple of turns: "
            f"return (Turn('assistant', partial_text), Turn('user', 'Go on.'))."
        )


def _asked(continuation: Continuation, method: str) -> Any:
    try:
        return getattr(continuation, method)(_SAMPLE)
    except Exception as error:
        raise ConfigurationError(
            f"{type(continuation).__name__}.{method}(partial_text) raised {type(error).__name__}: {error}. "
            f"It must take any text."
        ) from error


def check_provider(provider: Any) -> tuple[Provider | None, ...] | None:
    """Check what is said of the wrapped LLM, or of it and its fallbacks in their order."""
    if provider is None:
        return None
    each = (provider,) if isinstance(provider, Provider) else provider
    if not isinstance(each, Sequence) or not all(one is None or isinstance(one, Provider) for one in each):
        raise ConfigurationError(
            f"provider is {provider!r}. Pass a Provider(...) for the wrapped LLM, or one for each of the LLMs, "
            f"None where it is known: provider=[Provider(sends_finish_reason=True), None]."
        )
    return tuple(each)


CHECKS: dict[str, Callable[[Any], Any]] = {
    "llm": check_llm,
    "fallbacks": check_fallbacks,
    "policy": check_policy,
    "continuation": check_continuation,
    "callbacks": checked,
    "provider": check_provider,
}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name, with a space before it; empty where nothing is like it."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {near[0]}?" if near else ""


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse settings that nobody knows. pydantic would swallow them, and a fallback would be missed when it counts."""
    known = list(known)
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known).replace("?", "=...?")
            if name in _POLICY:
                hint = f" It is the policy's: policy=RecoveryPolicy({name}=...)."
            elif name in _RETRIES:
                hint = " Write policy=RecoveryPolicy(stop=tenacity.stop_after_attempt(3))."
            raise ConfigurationError(f"ResilientLLM has no setting {name!r}.{hint}")
