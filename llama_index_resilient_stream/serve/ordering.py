"""Puts what is told of an answer where it belongs in its text.

A recovery is told as soon as it begins, while the text before it may still be on its way through the queue of a chat
engine or of a workflow. So it comes with the number of characters that go before it, and waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ..report import Joint
from .parts import EndPart, JointPart, Part, RecoveryPart, ResetPart, TextPart, ThinkingPart, ToolResultPart

_TELLING = "\n\n"  # comes before a new telling, for readers of plain strings


@dataclass(frozen=True, slots=True)
class Early:
    """A part that was told before the text that goes before it."""

    part: RecoveryPart | ThinkingPart | ResetPart
    characters: int
    """How many characters of this turn go before it."""


class PartOrder:
    """Sorts the parts of one answer.

    Args:
        joint_of: how the continuation of an attempt was joined; None while nobody knows.
    """

    def __init__(self, joint_of: Callable[[int], Joint | None]) -> None:
        self._joint_of = joint_of
        self._shown = 0  # characters of this turn
        self._early: list[Early] = []
        self._unjoined: int | None = None  # the attempt whose joint is to be told
        self._told_anew = False

    def sort(self, taken: Iterable[Part | Early]) -> Iterator[Part]:
        """The parts that are due, in order. What is early is kept."""
        for each in taken:
            if isinstance(each, Early):
                self._early.append(each)
            elif isinstance(each, TextPart):
                yield from self._text(each)
            else:
                yield from self._due(at_once=isinstance(each, EndPart | ToolResultPart))
                yield each
                if isinstance(each, ToolResultPart | ResetPart):
                    self._shown = 0
            yield from self._due()

    def _text(self, part: TextPart) -> Iterator[Part]:
        if self._told_anew:
            part, self._told_anew = TextPart(part.text.removeprefix(_TELLING)), False
        if self._unjoined is not None and (joint := self._joint_of(self._unjoined)) is not None:
            yield from self._joint(joint)
        self._shown += len(part.text)
        if part.text:
            yield part

    def _joint(self, joint: Joint) -> Iterator[Part]:
        """Before the first piece of the continuation, which may come behind pieces of what was said before."""
        if joint.position <= self._shown:
            self._unjoined = None
            yield JointPart(joint.attempt, joint.decision, joint.certainty)

    def _due(self, *, at_once: bool = False) -> Iterator[Part]:
        while self._early and (at_once or self._early[0].characters <= self._shown):
            part = self._early.pop(0).part
            if isinstance(part, RecoveryPart):
                self._unjoined = part.attempt
            elif isinstance(part, ResetPart):
                self._shown, self._told_anew, self._unjoined = 0, True, None
            yield part
