"""What to ask next, and how what comes is joined to the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..policy import RecoveryPolicy
from ..report import Strategy
from .answer import AnswerText
from .attempt import Head, Join
from .chain import ModelChain
from .events import Request
from .seam import RestartJoin, RetellingJoin, Seam, marks_around_anchor
from .usage import UsageMeter


class NextRequest:
    """Makes the requests of one answer.

    Args:
        restart_only: the turn is never continued, only asked again.
    """

    def __init__(
        self,
        answer: AnswerText,
        chain: ModelChain,
        usage: UsageMeter,
        policy: RecoveryPolicy,
        clock: Callable[[], float],
        *,
        restart_only: bool,
    ) -> None:
        self.restart_only = restart_only
        self._answer = answer
        self._chain = chain
        self._usage = usage
        self._policy = policy
        self._clock = clock

    def make(self, *, first: bool) -> tuple[Request, Join | None]:
        """The request, and what joins its text to the answer; None where its text is the answer."""
        strategy = self._strategy(first=first)
        text = self._answer.text
        if strategy in (Strategy.FIRST, Strategy.RESTART):
            return self._whole(strategy, text)
        return self._continued(strategy, text)

    def sent_along(self) -> str:
        """What the next request sends again beside the question."""
        text = self._answer.text
        if self._strategy(first=False) is Strategy.RESTART:
            return ""
        return "".join(turn.text for turn in self._chain.continuation.turns(text)) or text

    def _strategy(self, *, first: bool) -> Strategy:
        if not self._answer.text.strip():  # nothing to go on from, and several APIs refuse a turn of white space
            return Strategy.FIRST if first else Strategy.RESTART
        return Strategy.RESTART if self.restart_only else self._chain.strategy

    def _whole(self, strategy: Strategy, text: str) -> tuple[Request, Join | None]:
        policy = self._policy
        join: Join | None = self._restart_join(text) if text else None
        if join is None and policy.reject is not None:
            join = Head(policy.reject, policy.reject_characters)
        return Request(self._chain.index, strategy, text, keep=self._chain.model.keeps_streams), join

    def _restart_join(self, text: str) -> Join:
        """A turn that is told again; where nobody chose that, no other telling may replace what was shown."""
        chosen = self.restart_only or self._chain.model.continuation.strategy is Strategy.RESTART
        # White space is nothing that could be told otherwise.
        return RestartJoin(text) if chosen or not text.strip() else RetellingJoin(text)

    def _continued(self, strategy: Strategy, text: str) -> tuple[Request, Join]:
        chain, policy = self._chain, self._policy
        continuation = chain.continuation
        anchor = continuation.anchor(text)
        seam = Seam(
            text,
            anchor,
            strategy=strategy,
            shows_unverified=policy.unverified == "show" or chain.is_last_way,
            writes_on=chain.writes_on,
            marks=marks_around_anchor(continuation.wording),
            max_held_characters=policy.max_held_characters,
            max_held_seconds=policy.max_held_seconds,
            clock=self._clock,
        )
        request = Request(
            chain.index,
            strategy,
            text,
            continuation.turns(text),
            continuation.extra if strategy is Strategy.PREFILL else {},
            self._spent_tokens(anchor),
            chain.model.keeps_streams,
        )
        return request, seam

    def _spent_tokens(self, anchor: str) -> int:
        """What the text so far takes of the output limit. No chunk has less than a token, so its chunks are enough."""
        text, count = self._answer.within_limit, self._usage.count_tokens
        spent = min(count(text), self._answer.chunks or len(text))
        return max(0, spent - (count(anchor) if anchor else 0))


def replay_of(request: Request) -> Request:
    """The request for the rest of a stream that its server keeps."""
    original = request.original or request
    return replace(original, strategy=Strategy.REPLAY, original=original)
