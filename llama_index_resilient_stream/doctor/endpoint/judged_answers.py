"""Which answers the rules judge, and whether the cause is in the application or in a proxy.

Where the direct answer ends badly too, the cause is in the application: the rules then look at the direct answer.
Otherwise they look at the answer through the proxies, and the cause is not in the application.
"""

from __future__ import annotations

from collections.abc import Sequence

from .measurements import Ending, Framing, Measurements, Observation


class JudgedAnswers:
    """The answers that the rules judge, and whether the cause is in the application or in a proxy."""

    def __init__(self, measurements: Measurements) -> None:
        main, past = readable(measurements), measurements.direct_answer
        self.past = past
        self.app_is_to_blame = past is not None and main.answered and as_bad(past, main)
        self.proxy_is_to_blame = past is not None and not self.app_is_to_blame
        self.answers: Sequence[Observation] = (
            measurements.direct if self.app_is_to_blame else (main, *measurements.url[1:])
        )
        self.answer = self.answers[0]
        self.is_application = measurements.is_application
        self.has_terminal = any(each.counts.terminal for each in measurements.answers)
        self.where = "The direct answer" if self.app_is_to_blame else "The answer"


def readable(measurements: Measurements) -> Observation:
    """Return the answer through the proxies whose events could be read."""
    main, plain = measurements.main, measurements.uncompressed_answer
    return main if main.readable or plain is None else plain


def as_bad(past: Observation, main: Observation) -> bool:
    return bool(_rank(past)) and not (_rank(main) == _BROKEN > _rank(past))


_BROKEN = 2


def _rank(answer: Observation) -> int:
    """Return 2 for a broken answer, 1 where nothing shows whether it is complete, 0 for any other."""
    if answer.cut or (answer.ended is Ending.CLEAN and not answer.size):
        return _BROKEN
    return int(unstated(answer) or answer.counts.failed)


def unstated(answer: Observation) -> bool:
    """Whether it ended cleanly, and nothing in it says that it is complete. With a length, what is missing shows."""
    clean = answer.answered and answer.ended is Ending.CLEAN and answer.framing is not Framing.LENGTH
    return clean and answer.readable and not answer.counts.terminal


def is_text_by_choice(answer: Observation) -> bool:
    """Whether it is plain text whose headers show that whoever sends it knows what a stream needs, as `TextResponse`.

    Its own mark of the end is that of HTTP.
    """
    headers = answer.headers
    return (
        headers.get("content-type", "").startswith("text/plain")
        and headers.get("x-content-type-options", "").lower() == "nosniff"
        and "no-transform" in headers.get("cache-control", "").lower()
        and answer.framing is Framing.CHUNKED
        and not answer.hung_up
    )
