"""Where an answer is cut to see whether a model goes on: at the end of a token, as a cut on the wire is.

Inside a word at the border of two chunks is best: nobody begins a new turn with the rest of a word. In front of a comma
comes next. Elsewhere a model never stood in training, and writes on badly, or begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

# For answers whose chunks show no place to cut.
PARTIAL_TEXT = (
    "Here you are: one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen"
)
REST = (
    ", fifteen, sixteen, seventeen, eighteen, nineteen, twenty, twenty-one, twenty-two, twenty-three, "
    "twenty-four, twenty-five, twenty-six, twenty-seven, twenty-eight, twenty-nine, thirty"
)
_EARLIEST, _BEST, _LATEST = 0.3, 0.55, 0.8  # parts of the answer
_LEAST_COMMAS = 10  # of an answer that counts as it was told to
_PROOF = 5  # characters of the rest that show where an answer goes on


@dataclass(frozen=True)
class Cut:
    """An answer in two parts."""

    partial_text: str = PARTIAL_TEXT
    rest: str = REST

    @property
    def in_word(self) -> bool:
        return _in_word(self.partial_text, self.rest)

    @property
    def before_comma(self) -> bool:
        return self.partial_text[-1:].isalnum() and self.rest.startswith(", ")

    def goes_on(self, text: str) -> bool:
        """Whether a text goes on where this answer was cut. In a word, white space before its rest is forgiven."""
        text = text.lower().lstrip() if self.in_word else text.lower()
        return text.startswith(self.rest[:_PROOF].lower())


def cut_of(chunks: Sequence[str]) -> Cut:
    """Return where to cut an answer that came in these chunks."""
    text = "".join(chunks)
    if text.count(", ") < _LEAST_COMMAS:
        return Cut()
    cuts = _cuts_in_the_middle(text, _borders(chunks, text))
    best = [cut for cut in cuts if cut.in_word] or [cut for cut in cuts if cut.before_comma]
    return min(best, key=lambda cut: abs(len(cut.partial_text) - _BEST * len(text)), default=Cut())


def _borders(chunks: Sequence[str], text: str) -> list[int]:
    """Return where tokens end, as far as the chunks show it; in front of a comma they always do."""
    borders = sorted(set(accumulate(map(len, chunks))))
    if len(borders) > _LEAST_COMMAS:
        return borders
    return [at for at, character in enumerate(text) if character == ","]  # held back, or sent in a few pieces


def _cuts_in_the_middle(text: str, borders: Sequence[int]) -> list[Cut]:
    middle = [at for at in borders if _EARLIEST * len(text) <= at <= _LATEST * len(text)]
    return [Cut(text[:at], text[at:]) for at in middle]


def _in_word(before: str, after: str) -> bool:
    return before[-1:].isalpha() and after[:1].isalpha()
