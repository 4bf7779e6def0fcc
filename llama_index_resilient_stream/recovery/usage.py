"""What one answer costs: tokens as the providers counted them, and estimates where they did not."""

from __future__ import annotations

from collections.abc import Callable

from ..report import Attempt, StreamReport
from .continuation import estimate_tokens


class UsageMeter:
    """Kept in the report of one answer."""

    def __init__(self, report: StreamReport, question_tokens: Callable[[], int]) -> None:
        self._report = report
        self._question_tokens = question_tokens

    def cost_of_asking(self, partial_text: str) -> int:
        """What another attempt sends again: the question, and the text so far where that goes with it. Estimated."""
        return self._question_tokens() + estimate_tokens(partial_text)

    def ask_again(self, partial_text: str) -> None:
        self._report.extra_tokens += self.cost_of_asking(partial_text)

    def throw_away(self, characters: int) -> None:
        """Text that was generated and not shown."""
        tokens = _tokens(characters)
        self._report.wasted_tokens += tokens
        self._report.extra_tokens += tokens

    def usage(self) -> tuple[dict[str, int], bool]:
        """Tokens of all attempts so far, and whether that is in part an estimate. Empty where nobody counted."""
        counted = [attempt.usage for attempt in self._report.attempts if attempt.usage]
        missing = [attempt for attempt in self._report.attempts if attempt.chunks and not attempt.usage]
        if counted and missing:
            counted += [self._estimate(attempt) for attempt in missing]
        total: dict[str, int] = {}
        for usage in counted:
            for key, count in usage.items():
                total[key] = total.get(key, 0) + count
        return total, bool(counted and missing)

    def _estimate(self, attempt: Attempt) -> dict[str, int]:
        prompt, output = self._question_tokens(), _tokens(attempt.characters + attempt.dropped)
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def _tokens(characters: int) -> int:
    return -(-characters // 4)
