"""What one answer costs: tokens as the providers counted them, and estimates where they did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ..report import Attempt, Strategy, StreamReport


def estimate_tokens(text: str) -> int:
    """About how many tokens a text is: four bytes of UTF-8 each."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


class UsageMeter:
    """Counts what recovering costs, in the report of one answer.

    Args:
        question_tokens: estimates what asking again costs; called only when that happens.
        count_tokens: how many tokens a text is.
    """

    def __init__(
        self, report: StreamReport, question_tokens: Callable[[], int], count_tokens: Callable[[str], int]
    ) -> None:
        self._report = report
        self._question_tokens = question_tokens
        self.count_tokens = count_tokens

    def cost_of_asking(self, sent_along: str) -> int:
        """Tokens that another attempt sends again: the question, and what goes with it."""
        return self._question_tokens() + (self.count_tokens(sent_along) if sent_along else 0)

    def ask_again(self, sent_along: str) -> None:
        """Another attempt sends this beside the question."""
        self._report.extra_tokens += self.cost_of_asking(sent_along)

    def throw_away(self, characters: int) -> None:
        """So many characters were generated and not shown."""
        tokens = _tokens(characters)
        self._report.wasted_tokens += tokens
        self._report.extra_tokens += tokens

    def usage(self) -> tuple[dict[str, int], bool]:
        """Tokens of all attempts so far, and whether that is in part an estimate. Empty where nobody counted."""
        streams = [stream for stream in _streams(self._report.attempts) if any(each.chunks for each in stream)]
        if not any(stream[-1].usage for stream in streams):
            return {}, False
        total: Counter[str] = Counter()
        for stream in streams:
            counted = stream[-1].usage
            total.update(self._estimate(stream) if _is_partial(counted) else counted)
        return dict(total), any(_is_partial(stream[-1].usage) for stream in streams)

    def _estimate(self, stream: list[Attempt]) -> dict[str, int]:
        counted = stream[-1].usage.get("prompt_tokens")
        prompt = self._question_tokens() if counted is None else counted
        output = _tokens(sum(attempt.characters + attempt.thinking + attempt.dropped for attempt in stream))
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def _is_partial(usage: dict[str, int]) -> bool:
    """Whether the provider had counted the question alone, or nothing, when its stream ended."""
    return not usage or set(usage) == {"prompt_tokens"}


def _tokens(characters: int) -> int:
    return -(-characters // 4)


def _streams(attempts: list[Attempt]) -> list[list[Attempt]]:
    """The attempts that read the same stream, one after another; the last one has the count of all."""
    streams: list[list[Attempt]] = []
    for attempt in attempts:
        if attempt.strategy is Strategy.REPLAY and streams:
            streams[-1].append(attempt)
        else:
            streams.append([attempt])
    return streams
