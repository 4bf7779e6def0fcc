"""What lives for one attempt: its request, what it has shown so far, and how its text is joined to the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..policy import RecoveryPolicy, yes_or_no
from ..report import Attempt, Certainty, Strategy
from .answer import AnswerText
from .events import Chunk, Ended, Model, Request
from .finish_words import UNEXPLAINED
from .seam import RestartJoin, Seam
from .verdict import Evidence

TAIL_TIMEOUT = 5.0
"""Seconds to wait for what may follow a finish reason (a usage chunk, the end of the body)."""


class Join(Protocol):
    """How the text of an attempt becomes text of the answer: a `Seam`, a `RestartJoin` or a `Head`."""

    settled: bool
    decision: str
    certainty: Certainty | None
    """How sure the join is; None while it is open, or where nothing was joined."""
    refused: bool
    """Nothing of this attempt can be joined to the answer, and nothing of it was shown: another way is to be tried."""
    leftover: str
    most_held: int

    @property
    def dropped(self) -> int: ...

    def feed(self, text: str) -> str: ...

    def finish(self, *, complete: bool) -> str: ...


class Head:
    """Holds the beginning of an answer back until it can be judged by `RecoveryPolicy.reject`."""

    def __init__(self, reject: Callable[[str], bool], characters: int) -> None:
        self._reject = reject
        self._characters = characters
        self._held = ""
        self.rejected = False
        self.settled = False
        self.refused = False
        self.decision = ""
        self.certainty: Certainty | None = None
        self.dropped = 0
        self.leftover = ""
        self.most_held = 0

    def feed(self, text: str) -> str:
        """Take a piece of the beginning. Returns what can be shown now."""
        self._held += text
        self.most_held = len(self._held)
        return self._judge() if len(self._held) >= self._characters else ""

    def finish(self, *, complete: bool) -> str:
        """The attempt has ended; a cut one is judged by what came."""
        return self._judge()

    def _judge(self) -> str:
        held, self._held = self._held, ""
        self.settled = True
        if held and yes_or_no("reject", self._reject(held)):
            self.rejected = True
            self.dropped = len(held)
            return ""
        return held


@dataclass(slots=True)
class _Received:
    """What has come of one stream, noted only where its server keeps it."""

    chunks: int = 0
    texts: list[str] = field(default_factory=list)
    calls: str | None = None

    def differs_at_end(self, before: _Received) -> bool:
        """Whether as many chunks have come as before, with another text or other calls."""
        return self.chunks == before.chunks and self != before


class RunningAttempt:
    """One request and what its stream has shown so far.

    Args:
        record: its entry in the report.
        join: how its text is joined to the answer; None where it is the answer.
        repeats_calls: tool calls of an earlier attempt were shown, so that its own must not be passed on as they are.
        elapsed: seconds since the answer was asked for.
        answers: called at the first sign of progress.
        resumed: the attempt whose stream this one reads on. What it saw counts, and what it received is left out.
    """

    def __init__(
        self,
        record: Attempt,
        request: Request,
        model: Model,
        policy: RecoveryPolicy,
        *,
        join: Join | None,
        repeats_calls: bool,
        elapsed: Callable[[], float],
        answers: Callable[[], None],
        resumed: RunningAttempt | None = None,
    ) -> None:
        self.record = record
        self.request = request
        self.join = join
        self.adds_text: bool = resumed is not None and resumed.adds_text
        """Whether it has shown more than white space."""
        self.evidence: Evidence = Evidence() if resumed is None else resumed.evidence
        begun = resumed is not None and resumed.has_begun
        self.limit = policy.idle_timeout if begun else model.first_token_timeout
        """Seconds that may pass until the next sign of progress."""
        self.resumed = resumed
        self.received = _Received()
        self.compares = request.keep or resumed is not None
        """Whether chunks go through `had` before they are received."""
        self.has_joint = False
        """Whether the report has the joint of a replay."""
        self.is_another_stream = False
        """A replay whose server sends something else than it did before."""
        self._model = model
        self._idle_timeout = policy.idle_timeout
        self._elapsed = elapsed
        self._answers = answers
        self._repeats_calls = repeats_calls

    def receive(self, chunk: Chunk, answer: AnswerText) -> Sequence[Chunk]:
        """Take in one chunk; give back what to show of it. Runs once per token."""
        record, evidence = self.record, self.evidence
        record.chunks += 1
        evidence.events += 1
        if chunk.progress and (record.first_token is None or evidence.reason_stands):
            self._note_progress()
        record.thinking += chunk.thought
        if chunk.carries_more:
            self._note(chunk)
        if chunk.server is not None:
            self._model.learned.server = chunk.server
        if self.join is not None:
            return self._joined(chunk, self.join, answer)
        if self._repeats_calls:
            chunk.untouched = False
        if text := chunk.text:
            evidence.text = True
            answer.add(text)
            record.characters += len(text)
        return (chunk,)

    def note_end(self, end: Ended) -> None:
        """Take in what was seen below the wrapped LLM; the report names the reason that LlamaIndex dropped."""
        reason, record = end.finish_reason, self.record
        if reason is None or self.evidence.text_after_reason or self._model.distrusts(reason.word):
            return
        if record.finish_reason is None or record.finish_reason in UNEXPLAINED:
            record.finish_reason = reason.word

    def had(self, chunk: Chunk) -> bool:
        """Whether this chunk came before, in the attempt that this one resumes."""
        received = self.received
        received.chunks += 1
        received.texts.append(chunk.text)
        received.calls = chunk.tools or received.calls
        if self.resumed is None or received.chunks > self.resumed.received.chunks:
            return False
        self.is_another_stream = received.differs_at_end(self.resumed.received)
        return True

    def flush(self, answer: AnswerText, payload: object, *, complete: bool) -> list[Chunk]:
        """What the join still held, now that nothing follows."""
        if self.join is None or self.join.settled:
            return []
        text = self._finish_join(self.join, complete=complete)
        reset = self._add(text, self.join, answer)
        return [Chunk(text, payload, untouched=False, reset=reset)] if text or reset else []

    @property
    def got_on(self) -> bool:
        """Whether it brought something new."""
        return self.record.first_token is not None

    @property
    def is_barren(self) -> bool:
        """Whether it is a replay that brought nothing new."""
        return self.resumed is not None and not self.got_on

    @property
    def has_begun(self) -> bool:
        """Whether something of its stream has come, in this attempt or in one that it resumes."""
        return self.got_on or (self.resumed is not None and self.resumed.has_begun)

    @property
    def characters(self) -> int:
        """New characters that its stream added to the answer, over all attempts that read it."""
        return self.record.characters + (self.resumed.characters if self.resumed is not None else 0)

    @property
    def strategy(self) -> Strategy:
        """How its stream was asked for, by this attempt or by the one that it resumes."""
        return (self.request.original or self.request).strategy

    @property
    def thinking(self) -> int:
        """Characters of thought on its stream, over all attempts that read it."""
        return self.record.thinking + (self.resumed.thinking if self.resumed is not None else 0)

    @property
    def is_repeating(self) -> bool:
        """Whether it is in the middle of repeating what was said."""
        return isinstance(self.join, Seam) and not self.join.settled and self.join.is_repeating

    @property
    def rejected(self) -> bool:
        """Whether the app's own `reject` refused what it began with."""
        return isinstance(self.join, Head) and self.join.rejected

    @property
    def refused(self) -> bool:
        """Whether nothing of it can be joined to the answer, so that another way to continue is to be tried."""
        return self.is_another_stream or (self.join is not None and self.join.refused)

    def _note_progress(self) -> None:
        if self.record.first_token is None:
            self.record.first_token = self._elapsed()
            self._answers()
            self.limit = self._idle_timeout
        if self.evidence.reason_stands:  # what follows an end proves that it was none
            word = self.evidence.take_back()
            self._model.learned.untrusted_finish_reasons.add(word)
            self.limit = self._idle_timeout

    def _note(self, chunk: Chunk) -> None:
        evidence = self.evidence
        evidence.refusal += chunk.refusal
        if chunk.usage:
            self.record.usage = chunk.usage
        if chunk.finish_reason is not None:
            self.record.finish_reason = chunk.finish_reason.word
            untrusted = self._model.distrusts(chunk.finish_reason.word)
            evidence.note_reason(chunk.finish_reason, trusted=not untrusted)
            if not untrusted:
                self._model.learned.sends_finish_reason = True
                if evidence.reason_is_last_word and self.limit is not None:
                    self.limit = min(self.limit, TAIL_TIMEOUT)
        if chunk.tools is not None:
            evidence.note_calls(chunk.tools)

    def _joined(self, chunk: Chunk, join: Join, answer: AnswerText) -> Sequence[Chunk]:
        had_text = bool(chunk.text)
        self.evidence.text = self.evidence.text or had_text
        chunk.untouched = False
        if not join.settled:
            chunk.text = self._fed(chunk, join)
        chunk.reset = self._add(chunk.text, join, answer)
        shows = chunk.text or chunk.reset or (chunk.stands_alone if had_text else chunk.carries_more or chunk.progress)
        return (chunk,) if shows else ()

    def _fed(self, chunk: Chunk, join: Join) -> str:
        """What can be shown now of a chunk, while it is undecided how to join it."""
        text = join.feed(chunk.text) if chunk.text else ""
        if chunk.finish_reason is not None and self.evidence.closes:
            text += self._finish_join(join, complete=True)
        return text

    def _finish_join(self, join: Join, *, complete: bool) -> str:
        text = join.finish(complete=complete)
        join.settled = True
        return text

    def _add(self, text: str, join: Join, answer: AnswerText) -> bool:
        """Add to the answer; True where a restart differed and the answer is now what it says."""
        if isinstance(join, RestartJoin) and join.reset:
            join.reset = False
            answer.reset()
            self._show(join.text, answer)
            return True
        if text:
            self._show(text, answer)
        return False

    def _show(self, text: str, answer: AnswerText) -> None:
        answer.add(text)
        self.record.characters += len(text)
        self.adds_text = self.adds_text or not text.isspace()
