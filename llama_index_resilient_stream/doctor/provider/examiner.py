"""Examines an OpenAI-compatible chat endpoint: how it ends its streams, and how it continues a cut answer.

It sends a few small requests with a fixed text. Every fact rests on a reply that came to its end; where none did, the
fact is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import httpx

from ...providers import PROVIDERS, server_of, server_owning
from ...recovery.continuation import Continuation
from ...recovery.seam import Seam
from ...recovery.usage import estimate_tokens
from ...report import Strategy
from ...transport.model_owner import owner_in
from ..endpoint.measurements import HELD_BACK, Ending
from ..endpoint.spans import Delivery
from .cut import PARTIAL_TEXT, Cut, cut_of
from .profile import AskResult, PrefillSupport, Profile, UsageSupport
from .reply import Reply, send

QUESTION = (
    "Count from one to thirty in English words, on one line, separated by a comma and a space. "
    "Begin with the words 'Here you are: ' and write nothing else."
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
WHOLE_TOKENS, LIMIT_TOKENS, TOOL_CALL_TOKENS, CONTINUATION_TOKENS = 400, 8, 200, 120
MOST_REQUESTS = 9
MOST_ANSWER_TOKENS = WHOLE_TOKENS + LIMIT_TOKENS + TOOL_CALL_TOKENS + 4 * CONTINUATION_TOKENS
MOST_PROMPT_TOKENS = MOST_REQUESTS * (estimate_tokens(QUESTION + PARTIAL_TEXT) + 150)

_LIST_TIMEOUT = 5.0  # seconds
_FEW = 6  # events, too few to tell
_REFUSED = (400, 422)
_REFUSALS = {
    401: "the key was not accepted",
    403: "the key may not use this model",
    404: "there is no such path or model",
    429: "the rate limit or the quota is used up",
}

Messages = Sequence[dict[str, Any]]


def examine(client: httpx.Client, base_url: str, model: str, *, timeout: float) -> Profile:
    """Examine a provider.

    Args:
        client: Sends the requests; its headers carry the key.
        base_url: As an OpenAI client takes it.
        model: The name of the model.
        timeout: Seconds for each answer.
    """
    if obstacle := _wrong_address(base_url):
        return Profile(obstacle=obstacle)
    probes = _Probes(client, base_url.rstrip("/") + "/chat/completions", model, timeout)
    profile = probes.whole_answer()
    if not profile.obstacle:
        profile = probes.at_the_limit(profile)
        profile = probes.with_a_tool(profile)
        profile = probes.asked_to_go_on(profile)
        profile = probes.prefilled(profile)
    elif "HTTP 404" in profile.obstacle:
        profile = replace(profile, obstacle=profile.obstacle + _path_hint(base_url))
    return replace(profile, requests=probes.requests)


def _wrong_address(base_url: str) -> str:
    if base_url.startswith(("http://", "https://")):
        return ""
    return "the scheme is missing: write http:// or https:// in front of the address"


def _path_hint(base_url: str) -> str:
    base_url = base_url.rstrip("/")
    if base_url.endswith("/chat/completions"):
        return "; a base URL ends before /chat/completions"
    return "" if base_url.endswith("/v1") else "; most base URLs end with /v1"


class _Probes:
    """The requests to one provider, and what each of them shows."""

    def __init__(self, client: httpx.Client, url: str, model: str, timeout: float) -> None:
        self.requests = 0
        self._client = client
        self._url = url
        self._model = model
        self._timeout = timeout
        self._limit = "max_tokens"
        self._cut = Cut()

    def _ask(self, messages: Messages, most: int, **more: Any) -> Reply:
        reply = self._send(messages, most, more)
        if reply.status == 400 and self._limit == "max_tokens" and b"max_completion_tokens" in reply.body:
            self._limit = "max_completion_tokens"  # the only name of the limit for OpenAI's reasoning models
            reply = self._send(messages, most, more)
        return reply

    def _send(self, messages: Messages, most: int, more: dict[str, Any]) -> Reply:
        self.requests += 1
        body = {"model": self._model, "messages": list(messages), "stream": True, self._limit: most, **more}
        return send(self._client, self._url, body, timeout=self._timeout)

    def whole_answer(self) -> Profile:
        """Ask for a whole answer: finish reason, [DONE], usage, comments, timing."""
        options = {"stream_options": {"include_usage": True}}
        reply = self._ask(_question(), WHOLE_TOKENS, **options)
        refused = reply.status in _REFUSED
        if refused:
            reply = self._ask(_question(), WHOLE_TOKENS)
        if (obstacle := _obstacle(reply)) or not reply.is_stream:
            return Profile(obstacle=obstacle)
        progress = reply.progress
        self._cut = cut_of(reply.pieces)
        return Profile(
            server=server_of_stream(reply) or self._owner(),
            text_after_finish=reply.text_after_finish if reply.finish_reason is not None else None,
            finish_reason=_finish_reason(reply),
            sends_done=_sends_done(reply),
            usage=UsageSupport.REFUSED if refused else _usage_support(reply),
            comments=reply.comments,
            encoding=reply.encoding.replace("identity", ""),
            held_back=_was_held_back(progress),
            thinks=reply.thinks if progress else None,
            first_token=progress[0] if progress else None,
            longest_gap=max((after - before for before, after in pairwise(progress)), default=None),
        )

    def _owner(self) -> str:
        """Return what the list of models says that the server is; "" where it does not."""
        address = self._url.removesuffix("/chat/completions") + "/models"
        try:
            response = self._client.get(address, timeout=_LIST_TIMEOUT)
            owner = owner_in(response.status_code, response.content, json.dumps({"model": self._model}).encode())
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError):  # a list of another form
            return ""
        return server_owning(owner) or ""

    def at_the_limit(self, profile: Profile) -> Profile:
        """Ask for a longer answer than the token limit allows."""
        reply = self._ask(_question(), LIMIT_TOKENS)
        obeyed = len(reply.text) < len(self._cut.partial_text)  # some servers take no notice of the limit
        return replace(profile, finish_reason_at_limit=_finish_reason(reply) if obeyed else None)

    def with_a_tool(self, profile: Profile) -> Profile:
        """Ask a question that needs a tool."""
        reply = self._ask([{"role": "user", "content": _WEATHER}], TOOL_CALL_TOKENS, tools=[_TOOL])
        return replace(profile, finish_reason_of_tools=_finish_reason(reply) if reply.calls_tools else None)

    def asked_to_go_on(self, profile: Profile) -> Profile:
        """Ask for the rest of a cut answer, with an anchor to repeat."""
        continuation = Continuation(Strategy.ASK)
        partial_text = self._cut.partial_text
        turns = [{"role": turn.role, "content": turn.text} for turn in continuation.turns(partial_text)]
        reply = self._ask([*_question(), *turns], CONTINUATION_TOKENS)
        return replace(profile, ask=_joined(reply.text, continuation.anchor(partial_text), self._cut))

    def prefilled(self, profile: Profile) -> Profile:
        """Try the ways of asking for a prefill, those first that LlamaIndex can send."""
        flags = PROVIDERS["OpenAILike"].prefill_extra["extra_body"]
        ways: tuple[tuple[PrefillSupport, dict[str, Any], dict[str, Any]], ...] = (
            (PrefillSupport.FLAGS, {}, flags),
            (PrefillSupport.PLAIN, {}, {}),
            (PrefillSupport.MARKED, {"prefix": True}, {}),
        )
        outcomes: list[PrefillSupport | None] = []
        for way, mark, more in ways:
            partial_text = self._cut.partial_text
            turn = {"role": "assistant", "content": partial_text, **mark}
            reply = self._ask([*_question(), turn], CONTINUATION_TOKENS, **more)
            echoes = reply.text.lstrip().startswith(partial_text)
            rest = reply.text.lstrip().removeprefix(partial_text) if echoes else reply.text
            if self._cut.goes_on(rest):
                return replace(profile, prefill=way, echoes=echoes)
            outcomes.append(_failed_prefill(reply))
        # An unknown flag may be refused where the turn alone is not, so the best outcome counts.
        best = next((each for each in _BEST_FIRST if each in outcomes and outcomes[1] is not None), None)
        return replace(profile, prefill=best)


_BEST_FIRST = (PrefillSupport.NEW_TURN, PrefillSupport.REFUSED)


def server_of_stream(reply: Reply) -> str:
    """Return which known server sent this stream; "" where it does not show."""
    return next((server for _, event in reply.events if (server := server_of(event)) is not None), "")


def _failed_prefill(reply: Reply) -> PrefillSupport | None:
    if reply.text:
        return PrefillSupport.NEW_TURN
    return PrefillSupport.REFUSED if reply.status in _REFUSED else None


def _question() -> list[dict[str, Any]]:
    return [{"role": "user", "content": QUESTION}]


def _finish_reason(reply: Reply) -> str | None:
    """Return the finish reason; "" where there was none, None where the reply has no end that would show it."""
    if (reason := reply.finish_reason) is not None:
        return reason.word
    return "" if reply.is_whole and reply.progress else None


def _obstacle(reply: Reply) -> str:
    """Return why there is nothing to look at; "" where there is something."""
    if reply.is_stream and reply.events and reply.error is None:
        return ""
    if reply.status == 0:
        return _NO_ANSWER.get(reply.ended, "the connection was closed without an answer")
    if reply.status != 200:
        return ", ".join([f"HTTP {reply.status}", *reply.error_words]) + f": {_refusal(reply.status)}"
    if not reply.is_stream:
        return f"no event stream: it answers with {reply.media_type or 'a body of no stated type'}"
    if reply.error is not None:
        return ", ".join(["an error in the stream", *reply.error_words])
    return "no event within the time limit" if reply.ended is Ending.GAVE_UP else "a stream without a single event"


_NO_ANSWER = {
    Ending.UNREACHABLE: "nobody answers at this address: is the server running, are host and port right, and is it "
    "http:// or https://?",
    Ending.GAVE_UP: "no answer within the time limit",
}


def _refusal(status: int) -> str:
    return _REFUSALS.get(status, "the request was refused" if status < 500 else "the server is ill")


def _sends_done(reply: Reply) -> bool | None:
    if reply.has_done:
        return True
    return False if reply.is_whole else None


def _usage_support(reply: Reply) -> UsageSupport | None:
    if reply.usage:
        return UsageSupport.SENT
    return UsageSupport.IGNORED if reply.is_whole else None


def _was_held_back(progress: Sequence[float]) -> bool | None:
    if len(progress) < _FEW:
        return None
    delivery = Delivery(tuple((at, 1.0) for at in progress), by_events=True)
    if delivery.at_once:
        return True
    return False if delivery.span >= delivery.least_span / 4 or delivery.wait >= HELD_BACK else None


def _joined(text: str, anchor: str, cut: Cut) -> AskResult | None:
    if not text.strip():
        return None
    seam = Seam(cut.partial_text, anchor, strategy=Strategy.ASK)
    new = seam.feed(text)
    new += seam.finish(complete=True)
    if not cut.goes_on(new):
        return AskResult.MISPLACED
    return AskResult.ANCHOR if seam.decision == "anchor" else AskResult.JOINED
