"""The LLMs that an answer can be asked of, and what the core has to know of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.llms.llm import LLM

from ..policy import RecoveryPolicy
from ..providers import KEEPING_SERVERS, SERVERS, Provider, all_settings, provider_of, reasons
from ..recovery.continuation import Continuation
from ..recovery.events import Learned, Model, Prefilling, Unfit, fits
from ..report import Strategy
from .question import Question, asks_for_form

FIRST_TOKEN_TIMEOUT = 60.0
FIRST_TOKEN_TIMEOUT_THINKING = 300.0

_NO_WORD: Any = object()


@dataclass(frozen=True)
class Models:
    """The LLMs of one answer, in the order in which they are asked."""

    llms: Sequence[LLM]
    rows: Sequence[Provider | None] = ()
    """What the user says of each, in place of its class's row; None, or nothing, where that is right."""

    def row(self, number: int) -> Provider:
        """What is known of one of them."""
        given = self.rows[number] if number < len(self.rows) else None
        return provider_of(type(self.llms[number])) if given is None else given


def always_structured(llm: LLM) -> bool:
    """Whether this LLM was made to answer in a form, by `json_mode=True` or a `response_format` of its own."""
    return asks_for_form(_public_fields(llm))


def model_of(
    llm: LLM,
    question: Question,
    policy: RecoveryPolicy,
    continuation: Continuation | Strategy | str,
    learned: Learned,
    provider: Provider | None = None,
    unfit: Unfit = fits,
) -> Model:
    """What the core has to know of this LLM for this question. `provider` stands in for its class's row.

    `unfit` says why the question cannot be asked of it, as a fallback.
    """
    # A class of one's own need not be in the table: it can say so itself.
    own_word = getattr(llm, "sends_finish_reason", _NO_WORD) if provider is None else _NO_WORD
    provider = provider_of(type(llm)) if provider is None else provider
    name = name_of(llm)
    timeout = policy.first_token_timeout
    thinks = reasons(name, {**_public_fields(llm), **question.kwargs})
    if timeout == "auto":
        patient = question.has_tools or thinks
        timeout = FIRST_TOKEN_TIMEOUT_THINKING if patient else FIRST_TOKEN_TIMEOUT
    return Model(
        name=name,
        continuation=_continuation(llm, continuation, provider, thinks=thinks),
        sends_finish_reason=provider.sends_finish_reason if own_word is _NO_WORD else own_word,
        untrusted_finish_reasons=provider.untrusted_finish_reasons,
        first_token_timeout=timeout,
        prefills_on={} if thinks else _prefills_on(continuation),
        keep=_is_kept(llm, question, continuation, provider),
        keeps_on=KEEPING_SERVERS if continuation == "auto" else frozenset(),
        own_retries=_own_retries(llm),
        learned=learned,
        unfit=unfit,
    )


def _own_retries(llm: LLM) -> int:
    retries = getattr(llm, "max_retries", 0)
    return retries if isinstance(retries, int) and retries > 0 else 0


def name_of(llm: LLM) -> str:
    """The model's name, or its class's where it has none."""
    try:
        return llm.metadata.model_name or llm.class_name()
    except Exception:  # a model unknown to its integration still has a class
        return llm.class_name()


def is_chat_model(llm: LLM) -> bool:
    try:
        return llm.metadata.is_chat_model
    except Exception:  # the call itself will say what is wrong, in its own words
        return True


def _public_fields(llm: LLM) -> dict[str, Any]:
    return {name: value for name, value in vars(llm).items() if not name.startswith("_")}


def _prefills_on(wanted: Continuation | Strategy | str) -> Mapping[str, Prefilling]:
    """On which servers a model is made to write on from its own text: on none where the user chose another way."""
    strategy = wanted.strategy if isinstance(wanted, Continuation) else wanted
    return SERVERS if strategy in ("auto", Strategy.PREFILL, Strategy.REPLAY) else {}


def _is_kept(llm: LLM, question: Question, wanted: Continuation | Strategy | str, provider: Provider) -> bool:
    """Whether the user says, or the row of the class, that the server keeps its streams, or it is asked for that."""
    strategy = wanted.strategy if isinstance(wanted, Continuation) else wanted
    if strategy != "auto":
        return strategy == Strategy.REPLAY
    settings = all_settings({**_public_fields(llm), **question.kwargs})
    return provider.strategy == Strategy.REPLAY or any(source.get("background") is True for source in settings)


def _continuation(llm: LLM, wanted: Continuation | Strategy | str, provider: Provider, *, thinks: bool) -> Continuation:
    if isinstance(wanted, Continuation):
        chosen = wanted
    else:
        chosen = Continuation(strategy=provider.strategy if wanted == "auto" else wanted)  # type: ignore[arg-type]
    fitting = _fitting(llm, chosen, provider, thinks=thinks)
    chosen = chosen.with_strategy(fitting)
    if not provider.prefill_keeps_space:
        chosen = chosen.without_trailing_space()
    return chosen.with_extra(provider.prefill_extra) if fitting is Strategy.PREFILL else chosen


def _fitting(llm: LLM, chosen: Continuation, provider: Provider, *, thinks: bool) -> Strategy:
    """The way to continue that was chosen, or the one that takes its place with this model."""
    strategy = Strategy(chosen.strategy)
    if strategy is Strategy.REPLAY:  # where that fails, the ways of "auto"
        strategy = Strategy.ASK if provider.strategy == Strategy.REPLAY else Strategy(provider.strategy)
    if not is_chat_model(llm):  # one text is all that it understands
        return Strategy.APPEND if strategy in (Strategy.ASK, Strategy.PREFILL) else strategy
    if strategy == Strategy.PREFILL:
        # Thoughts would be due before the text that it is to write on from; no API allows both.
        refused = thinks or (provider.prefill == "unsupported" and not chosen.extra)
        return Strategy.ASK if refused else strategy
    return Strategy.ASK if strategy == Strategy.APPEND else strategy
