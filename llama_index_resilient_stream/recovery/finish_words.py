"""The words by which providers say why a stream ended, and what each of them means.

A word is compared by its letters alone: "MAX_TOKENS", "max-tokens", "maxTokens" and "FinishReason.MAX_TOKENS" are one
word. To teach the package another word, add it to a row of `WORDS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache


class FinishMeaning(StrEnum):
    """What a finish reason means."""

    COMPLETE = "complete"
    LENGTH = "length"
    """A limit cut it: max_tokens, the context window, a time limit."""
    TOOL = "tool"
    """The model waits for the result of a tool call: its text is never continued."""
    PAUSE = "pause"
    """No end: the provider wants the turn sent back, and goes on then."""
    FILTER = "filter"
    """A policy cut it, or the model refused: never retried."""
    ERROR = "error"
    """It failed on the provider's side."""
    UNKNOWN = "unknown"
    """A word that is in no row of `WORDS`: whether the answer is whole cannot be said."""


@dataclass(frozen=True, slots=True)
class FinishReason:
    """One finish reason: its meaning, and the provider's own word for it in lower case."""

    kind: FinishMeaning
    word: str


WORDS: dict[FinishMeaning, str] = {
    # done, message_stop: events that end a stream without a reason. load, unload: Ollama was asked nothing
    # and has nothing to add. im_end, eot_id: end tokens that a server gives as the reason.
    FinishMeaning.COMPLETE: """
        stop stopped end_turn end_of_turn turn_end stop_sequence stop_sequences stop_token stop_word stop_words
        stop_string stop_str eos eos_token end_of_text end_of_sequence im_end eot eot_id complete completed
        completion response.completed message_stop done end ended finish finished word load unload success
        natural natural_stop normal normal_stop turn_complete hit_eos stopped_eos eos_found stop_criteria
        stopping_criteria generation_complete""",
    # error_limit: Cohere. compaction, model_context_window_exceeded: Anthropic. time_limit, token_limit: watsonx.
    # limit: llama.cpp. repetition: vLLM cut a loop.
    FinishMeaning.LENGTH: """
        length length_limit max_length length_capped max_tokens max_token max_output_tokens max_output_token
        max_new_tokens max_completion_tokens max_tokens_limit model_length limit token_limit tokens_limit output_limit
        output_token_limit time_limit context_length context_limit context_window model_context_window
        error_limit response.incomplete compaction truncated truncation cutoff repetition
        repetition_limit""",
    FinishMeaning.TOOL: """
        tool_calls tool_call tool_use tool_uses tool function_call function_calls function action requires_action
        tool_calls_required""",
    # pause_turn: Anthropic. continuation: google-genai.
    FinishMeaning.PAUSE: "pause pause_turn paused paused_turn continuation",
    FinishMeaning.FILTER: """
        content_filter content_filters content_filtered content_filtering filter filtered output_filter input_filter
        safety_filter content_policy content_policy_violation policy_violation policy content_moderation
        moderation moderated moderation_blocked content_blocked block blocked blocklist output_blocked
        refusal refused refuse safety unsafe safety_stop harmful recitation copyright spii pii language
        prohibited_content prohibited content_prohibited error_toxic toxic toxicity
        guardrail guardrails guardrail_intervened guardrail_intervention guardrail_blocked
        sensitive sensitive_words sensitive_content inappropriate data_inspection data_inspection_failed risk_control
        image_safety image_prohibited_content image_recitation model_armor flagged jailbreak violation censored""",
    # insufficient_system_resource: DeepSeek. abort: vLLM, SGLang. malformed_*, *_tool_call(s): Gemini, Bedrock; a model
    # that broke its own syntax may well get it right when it is asked again. no_image, image_other, other: Gemini.
    FinishMeaning.ERROR: """
        error errored network_error server_error internal_error internal_server_error internal system_error api_error
        upstream_error model_error engine_error inference_error generation_error stream_error
        response.failed response.cancelled failed failure fail
        cancelled canceled cancel cancellation response.canceled abort aborted interrupted terminated disconnected
        timeout timed_out request_timeout
        overloaded overload model_overloaded overloaded_error capacity rate_limit rate_limited rate_limit_error
        too_many_requests insufficient_system_resource resource_exhausted unavailable service_unavailable
        malformed malformed_function_call malformed_tool_call malformed_model_output malformed_tool_use
        malformed_response invalid_tool_call unexpected_tool_call tool_use_failed too_many_tool_calls
        missing_thought_signature no_image image_other other""",
}

UNEXPLAINED = frozenset({"metadata"})
"""Words of ours, for ends that are known without their reason: Bedrock's token counts."""

PARTS: tuple[tuple[FinishMeaning, re.Pattern[str]], ...] = (
    (
        FinishMeaning.FILTER,
        re.compile(
            r"contentfilter|contentpolic|policyviolat|moderat|guardrail|safety|toxic|harmful|sensitive|prohibited"
            r"|(block|refus|flagg)ed|responsibleai"
        ),
    ),
    (
        FinishMeaning.LENGTH,
        re.compile(
            r"^(?!.*ratelimit)("
            r".*(max|limit|exceed|reach|budget|full|outof).*(token|length|context|time)"
            r"|.*(token|length|context|time|repetition|loop).*(max|limit|exceed|reach|budget|full|detected))"
        ),
    ),
    (
        FinishMeaning.ERROR,
        re.compile(
            r"(?<!no)(error|failure|failed|timeout|exception)$|^(user|client|server)?(cancel|abort)"
            r"|ratelimit|outofmemory"
        ),
    ),
)
"""Parts of words: gateways make up their own. They count where the whole word is in no row of `WORDS`."""

_SEVERITY = (
    FinishMeaning.COMPLETE,
    FinishMeaning.TOOL,
    FinishMeaning.PAUSE,
    FinishMeaning.UNKNOWN,
    FinishMeaning.LENGTH,
    FinishMeaning.ERROR,
    FinishMeaning.FILTER,
)
"""Of several words in one reason, "error: content_filter", the meaning that stands last here counts."""

_NOTHING_YET = frozenset(
    {"", "null", "none", "nil", "unspecified", "notfinished", "inprogress", "queued", "incomplete"}
)
"""Words that are no finish reason: DashScope sends "null", watsonx "not_finished", old Ollama ""."""

_NOT_A_LETTER = re.compile(r"[\W_]+")
_LABEL = re.compile(r"^(finish|stop|done|end)reason")  # how enums look as strings
_ENDING = re.compile(r"(reached|exceeded|exceed|detected|triggered|hit)$")
_BETWEEN = re.compile(r"[:./|=<>,;]+")
_LABELS = frozenset({"", "reason", "candidate", "candidates", "choice", "response", "types", "status", "code"})
_LONGEST = 64


def _letters(word: str) -> str:
    return _NOT_A_LETTER.sub("", word.lower())


_MEANING = {_letters(word): kind for kind, words in WORDS.items() for word in words.split()}


def word_of(text: str) -> str | None:
    """Return the provider's word in lower case, cut to 64 characters; None where it says that nothing has ended."""
    word = text.strip().lower()[:_LONGEST]
    word = word.removeprefix("finishreason.").removeprefix("finish_reason_")
    return None if _LABEL.sub("", _letters(word)) in _NOTHING_YET else word


@lru_cache(maxsize=256)
def meaning_of(word: str) -> FinishReason:
    """Return the finish reason that a provider's word stands for, in whatever spelling.

    Where it consists of several words, as in "content_filter: PROHIBITED_CONTENT", each of them is looked up and the
    most severe meaning counts.
    """
    meaning = _look_up(_letters(word))
    if meaning is None:
        parts = [_letters(part) for part in _BETWEEN.split(word)]
        found = [_look_up(part) or FinishMeaning.UNKNOWN for part in parts if not _says_nothing(part)]
        meaning = max(found, key=_SEVERITY.index, default=FinishMeaning.UNKNOWN)
    return FinishReason(meaning, word)


def _look_up(letters: str) -> FinishMeaning | None:
    bare = _LABEL.sub("", letters)
    for candidate in (letters, bare, _ENDING.sub("", bare)):
        if candidate in _MEANING:
            return _MEANING[candidate]
    return next((meaning for meaning, part in PARTS if part.search(bare)), None)


def _says_nothing(letters: str) -> bool:
    return letters.isdecimal() or _LABEL.sub("", letters) in _LABELS
