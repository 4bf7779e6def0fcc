"""Examines an OpenAI-compatible chat endpoint: how it ends its streams, and how it goes on when it is asked to.

A handful of small requests with a fixed text. Every fact stands on a reply that came to its end; where none did, the
fact stays open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import httpx

from ...providers import PROVIDERS
from ...recovery.continuation import Continuation
from ...recovery.seam import Seam
from ...recovery.usage import estimate_tokens
from ...report import Strategy
from .profile import Ask, Portrait, Prefill
from .reply import Reply, ask

QUESTION = (
    "Count from one to thirty in English words, on one line, separated by a comma and a space. "
    "Begin with the words 'Here you are: ' and write nothing else."
)
# Cut inside a word: who writes on from here begins with the rest of it, who begins a new turn does not.
SAID = "Here you are: one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, four"
REST = (
    "teen, fifteen, sixteen, seventeen, eighteen, nineteen, twenty, twenty-one, twenty-two, twenty-three, "
    "twenty-four, twenty-five, twenty-six, twenty-seven, twenty-eight, twenty-nine, thirty"
)
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_WEATHER = "What is the weather in Paris? Call the tool."

# Most tokens of each answer. Reasoning counts, so the first gets room for some.
WHOLE, AT_LIMIT, TOOL_CALL, GO_ON = 400, 8, 200, 120
MOST_REQUESTS = 9
MOST_ANSWER_TOKENS = WHOLE + AT_LIMIT + TOOL_CALL + 4 * GO_ON
MOST_PROMPT_TOKENS = MOST_REQUESTS * (estimate_tokens(QUESTION + SAID) + 150)

BLOCK = 0.05
"""Events within so many seconds may have been sent one by one: TCP does not keep them apart."""
HELD_BACK = 0.5
"""An answer that was whole sooner, in seconds, was too quick to tell whether it was held back."""
_FEW = 6  # events, too few to tell
_REFUSALS = {
    401: "the key was not accepted",
    403: "the key may not use this model",
    404: "there is no such path or model",
    429: "the rate limit or the quota is used up",
}

Messages = Sequence[dict[str, Any]]


def examine(client: httpx.Client, base_url: str, model: str, *, timeout: float) -> Portrait:
    """Every probe, one after another. `timeout` is in seconds, for each."""
    examiner = _Examiner(client, base_url.rstrip("/") + "/chat/completions", model, timeout)
    portrait = examiner.whole_answer()
    if not portrait.obstacle:
        portrait = examiner.at_the_limit(portrait)
        portrait = examiner.with_a_tool(portrait)
        portrait = examiner.asked_to_go_on(portrait)
        portrait = examiner.prefilled(portrait)
    return replace(portrait, requests=examiner.requests)


class _Examiner:
    def __init__(self, client: httpx.Client, url: str, model: str, timeout: float) -> None:
        self.requests = 0
        self._client = client
        self._url = url
        self._model = model
        self._timeout = timeout
        self._limit = "max_tokens"

    def _ask(self, messages: Messages, most: int, **more: Any) -> Reply:
        reply = self._send(messages, most, more)
        if reply.status == 400 and self._limit == "max_tokens" and b"max_completion_tokens" in reply.body:
            self._limit = "max_completion_tokens"  # OpenAI's reasoning models know the limit by no other name
            reply = self._send(messages, most, more)
        return reply

    def _send(self, messages: Messages, most: int, more: dict[str, Any]) -> Reply:
        self.requests += 1
        body = {"model": self._model, "messages": list(messages), "stream": True, self._limit: most, **more}
        return ask(self._client, self._url, body, timeout=self._timeout)

    def whole_answer(self) -> Portrait:
        """Finish reason, [DONE], usage, comments, timing."""
        options = {"stream_options": {"include_usage": True}}
        reply = self._ask(_question(), WHOLE, **options)
        refused = reply.status in (400, 422)
        if refused:
            reply = self._ask(_question(), WHOLE)
        if (obstacle := _obstacle(reply)) or not reply.is_stream:
            return Portrait(obstacle=obstacle)
        progress = reply.progress
        gaps = [after - before for before, after in pairwise(progress)]
        whole = reply.is_whole
        counts = "refused" if refused else "sent" if reply.usage else "ignored"
        return Portrait(
            finish=_word(reply),
            terminated=True if reply.done else False if whole else None,
            usage=counts if refused or reply.usage or whole else None,  # type: ignore[arg-type]  # one of the three
            comments=reply.comments,
            encoding=reply.encoding.replace("identity", ""),
            at_once=_came_at_once(progress),
            thinks=reply.thinks if progress else None,
            first_token=progress[0] if progress else None,
            longest_gap=max(gaps, default=None),
        )

    def at_the_limit(self, portrait: Portrait) -> Portrait:
        reply = self._ask(_question(), AT_LIMIT)
        obeyed = len(reply.text) < len(SAID)  # some servers take no notice of the limit
        return replace(portrait, finish_at_limit=_word(reply) if obeyed else None)

    def with_a_tool(self, portrait: Portrait) -> Portrait:
        reply = self._ask([{"role": "user", "content": _WEATHER}], TOOL_CALL, tools=[_TOOL])
        return replace(portrait, finish_of_tools=_word(reply) if reply.calls_tools else None)

    def asked_to_go_on(self, portrait: Portrait) -> Portrait:
        continuation = Continuation(Strategy.ASK)
        turns = [{"role": turn.role, "content": turn.text} for turn in continuation.turns(SAID)]
        reply = self._ask([*_question(), *turns], GO_ON)
        return replace(portrait, ask=_joined(reply.text, continuation.anchor(SAID)))

    def prefilled(self, portrait: Portrait) -> Portrait:
        """With what LlamaIndex can send first."""
        flags = PROVIDERS["OpenAILike"].prefill_extra["extra_body"]
        ways: tuple[tuple[Prefill, dict[str, Any], dict[str, Any]], ...] = (
            ("flags", {}, flags),
            ("plain", {}, {}),
            ("marked", {"prefix": True}, {}),
        )
        outcomes: list[Prefill | None] = []
        for way, mark, more in ways:
            reply = self._ask([*_question(), {"role": "assistant", "content": SAID, **mark}], GO_ON, **more)
            echoes = reply.text.lstrip().startswith(SAID)
            if _begins_with_the_rest(reply.text.lstrip().removeprefix(SAID)):
                return replace(portrait, prefill=way, echoes=echoes)
            outcomes.append("new turn" if reply.text else "refused" if reply.status in (400, 422) else None)
        # An unknown flag may be refused where the turn alone is not: what matters is the best that came.
        best = next((o for o in ("new turn", "refused") if o in outcomes and outcomes[1] is not None), None)
        return replace(portrait, prefill=best)


def _question() -> list[dict[str, Any]]:
    return [{"role": "user", "content": QUESTION}]


def _word(reply: Reply) -> str | None:
    """The finish reason; "" where there was none, None where nobody can say."""
    if (signal := reply.signal) is not None:
        return signal.word
    return "" if reply.is_whole and reply.progress else None


def _obstacle(reply: Reply) -> str:
    """Why there is nothing to look at."""
    if reply.is_stream and reply.events and reply.error is None:
        return ""
    if reply.status == 0:
        return {
            "unreachable": "nobody answers at this address",
            "gave up": "no answer within the time limit",
        }.get(reply.ended, "the connection was closed without an answer")
    if reply.status != 200:
        what = _REFUSALS.get(reply.status, "the request was refused" if reply.status < 500 else "the server is ill")
        return ", ".join([f"HTTP {reply.status}", *reply.words]) + f": {what}"
    if not reply.is_stream:
        return f"no event stream: it answers with {reply.kind or 'a body of no stated type'}"
    if reply.error is not None:
        return ", ".join(["an error in the stream", *reply.words])
    return "a stream without a single event" if reply.ended != "gave up" else "no event within the time limit"


def _came_at_once(progress: Sequence[float]) -> bool | None:
    if len(progress) < _FEW:
        return None
    spread = progress[-1] - progress[0]
    if spread > BLOCK:
        return False
    return True if progress[0] >= HELD_BACK else None


def _begins_with_the_rest(text: str) -> bool:
    return text.lstrip().lower().startswith(REST[:4])


def _joined(text: str, anchor: str) -> Ask | None:
    if not text.strip():
        return None
    seam = Seam(SAID, anchor, strategy=Strategy.ASK)
    new = seam.feed(text)
    new += seam.finish(complete=True)
    if not _begins_with_the_rest(new):
        return "astray"
    return "anchor" if seam.decision == "anchor" else "joined"
