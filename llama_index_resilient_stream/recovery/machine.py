"""The state machine of one answer. Read this first.

    recovery.request          what to ask now
    recovery.receive(event)   a chunk, or how the stream ended  ->  the chunks to show now
    recovery.next_delay()     None: done;  seconds: wait, then ask again;  raises: give up

    ready      --ask-------->  streaming    the driver reads `request`
    streaming  --chunk------>  streaming    text, thinking, tool arguments
    streaming  --finish----->  over         the verdict is a status
    streaming  --continue--->  waiting      the token limit was hit, and the policy goes on after it
    streaming  --replay----->  waiting      the server keeps the stream that was lost, and gives the rest of it
    streaming  --descend---->  waiting      this way to continue failed; the next one costs no patience
    streaming  --retry------>  waiting      the same model, after the policy's back-off
    streaming  --fall_back-->  waiting      the next model
    streaming  --give_up---->  over         nobody is left to ask, or a budget is spent
    waiting    --ask-------->  streaming    the driver has waited, and reads `request`
    ready      --cancel----->  over         the reader left
    streaming  --cancel----->  over
    waiting    --cancel----->  over

Nothing here waits, opens, closes, sleeps, logs or knows LlamaIndex: whoever drives the machine does that
(`streaming/drivers.py`, sync and async). What belongs to one attempt is in `attempt.py`. Whether it ended well is
decided in `verdict.py`, whom to ask next in `chain.py`, and what to ask in `next_request.py`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial

from ..errors import (
    RejectedAnswerError,
    StreamFault,
    StreamInterruptedError,
    TruncatedStreamError,
    UnverifiedJointError,
)
from ..policy import AttemptResult, RecoveryPolicy
from ..report import (
    Attempt,
    Certainty,
    FaultKind,
    GiveUpReason,
    JoinDecision,
    Joint,
    Strategy,
    StreamReport,
    StreamStatus,
)
from .answer import AnswerText
from .attempt import Join, RunningAttempt
from .chain import ModelChain, give_up_reason
from .decision import Decision
from .ending import is_unfinished
from .events import Chunk, Ended, Model, Request
from .failure import Failure
from .faults import Fault
from .faults.messages import Explanation, NoExplanation
from .next_request import NextRequest, replay_of
from .states import TRANSITIONS, State, Step
from .usage import UsageMeter, estimate_tokens
from .verdict import Context, Verdict, judge

_ENOUGH_BARREN_ENDS = 2
"""Continuations in a row that add nothing, after which no other way is tried."""


def _resuming(attempt: RunningAttempt) -> tuple[Request, Join | None]:
    return replay_of(attempt.request), attempt.join


def _fault(kind: FaultKind, error: StreamFault, *, retryable: bool) -> Verdict:
    return Verdict(fault=Fault(kind, retryable, str(error), error))


class Recovery:
    """One answer, from the question to its stated outcome, over as many attempts and models as the policy allows.

    Args:
        models: whom to ask, in this order.
        policy: how patient to be.
        partial_text: what the reader has from before, when an interrupted answer is taken up again.
        restart_only: the turn has tools or a form, and is never continued, only asked again.
        streamed: False for a call that answers all at once.
        answers_tool_result: the question ends with a tool's result, after which an empty answer is an answer.
        question: goes with the error of an answer that was given up. Opaque.
        question_tokens: estimates what asking again costs; called only when that happens.
        count_tokens: how many tokens a text is.
        explanation: what a provider's message may show, and whether an error is the caller's own.
        clock: in seconds; injected by tests.
    """

    def __init__(
        self,
        models: Sequence[Model],
        policy: RecoveryPolicy,
        *,
        partial_text: str = "",
        restart_only: bool = False,
        streamed: bool = True,
        answers_tool_result: bool = False,
        question: object = None,
        question_tokens: Callable[[], int] = lambda: 0,
        count_tokens: Callable[[str], int] = estimate_tokens,
        explanation: Explanation = NoExplanation(),  # noqa: B008 - it has no state
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = State.READY
        self.streaming = False
        """Whether the current attempt is to be read on."""
        self.policy = policy
        self.clock = clock
        self.report = StreamReport(stream_id=uuid.uuid4().hex)
        self.usage = UsageMeter(self.report, question_tokens, count_tokens)
        self.fault: Fault | None = None
        """What ended the last attempt, where it was a fault."""
        self.error: StreamInterruptedError | None = None
        """Why the answer was given up, where it was."""
        self.last_payload: object = None
        """What came last, from any attempt."""
        self._began = clock()
        self._answer = AnswerText(partial_text, self.report, clock)
        self._chain = ModelChain(models, policy, clock, self.report, partial(_tokens, self.usage, self._answer))
        self._next = NextRequest(self._answer, self._chain, self.usage, policy, clock, restart_only=restart_only)
        self._streamed = streamed
        self._empty_is_an_answer = answers_tool_result or policy.empty == "accept"
        self._question = question
        self._explanation = explanation
        self._attempt: RunningAttempt | None = None
        self._resumed: RunningAttempt | None = None  # whose stream is read on next
        self._delay: float | None = None
        self._showed_calls = False
        self._length_rounds = 0
        self._barren_ends = 0  # continuations in a row that ended well and added nothing
        self._reasonless_ends = 0  # attempts in a row that lacked only a finish reason, see Verdict
        self._free_attempts = 0  # that a refusal of our own continuation cost
        self._failure = Failure(explanation)

    # What the driver asks

    @property
    def request(self) -> Request:
        """What to ask now. Reading it begins the attempt."""
        if self.state is not State.STREAMING:
            self._go(Step.ASK)
            self._attempt = self._begin_attempt()
        return self.attempt.request

    def receive(self, event: Chunk | Ended) -> Sequence[Chunk]:
        """Take in one event; give back what to show now."""
        if isinstance(event, Ended):
            return self._on_end(event)
        attempt = self._attempt  # past the property: this runs once per token
        assert attempt is not None, "nothing was asked yet"
        self.last_payload = event.payload
        shown = () if attempt.compares and attempt.had(event) else attempt.receive(event, self._answer)
        if attempt.join is not None or attempt.resumed is not None:
            if attempt.rejected or attempt.refused:
                return self._on_end(Ended())
            self._note_joint(attempt)
        return shown

    def next_delay(self) -> float | None:
        """None: done. Seconds: wait that long, then ask `request`. Raises StreamInterruptedError: gave up."""
        if self.error is not None:
            if (cause := self.error.__cause__) is not None and self._explanation.is_callers(cause):
                raise cause
            if self.policy.on_exhausted == "raise":
                raise self.error
        return self._delay

    def cancel(self) -> None:
        """The reader left. That is no fault, and nothing is asked again."""
        if self.over:
            return
        if self.state is State.STREAMING:
            self._close_attempt(self.attempt, None)
        self._end(Step.CANCEL, StreamStatus.CANCELLED)

    @property
    def over(self) -> bool:
        """Whether the answer has its outcome."""
        return self.state is State.OVER

    @property
    def reads_on(self) -> bool:
        """Whether the next attempt reads on the stream of the last one."""
        return self._resumed is not None

    @property
    def wants_owner(self) -> bool:
        """Whether to find out, before asking on, which server the last attempt came from."""
        goes_on = (
            self.state is State.WAITING and not self.reads_on and not self._next.restart_only and bool(self.answer)
        )
        return goes_on and self.model is self.asked_model and self.model.wants_owner

    def learn_server(self, server: str | None) -> None:
        """Note which server it is; None: nobody knows."""
        learned = self.model.learned
        learned.asked_for_owner = True
        before = self.usage.cost_of_asking(self._next.sent_along())
        learned.server = server
        self.report.extra_tokens += self.usage.cost_of_asking(self._next.sent_along()) - before

    @property
    def answer(self) -> str:
        """The whole text so far, as the reader has it."""
        return self._answer.text

    @property
    def attempt(self) -> RunningAttempt:
        """The attempt that was begun last."""
        assert self._attempt is not None, "nothing was asked yet"
        return self._attempt

    @property
    def model(self) -> Model:
        """The model being asked, or to be asked next."""
        return self._chain.model

    @property
    def asked_model(self) -> Model:
        """The model that was asked last."""
        return self._chain.models[self.attempt.request.model]

    @property
    def elapsed(self) -> float:
        """Seconds since the answer was asked for."""
        return self.clock() - self._began

    @property
    def deadline_at(self) -> float | None:
        """When the total time is over, on the machine's clock."""
        return None if self.policy.deadline is None else self._began + self.policy.deadline

    # The states

    def _go(self, step: Step) -> None:
        try:
            self.state = TRANSITIONS[self.state, step]
        except KeyError:
            raise AssertionError(f"An answer that is {self.state} cannot {step}.") from None
        self.streaming = self.state is State.STREAMING

    def _end(self, step: Step, status: StreamStatus) -> None:
        self._go(step)
        self._delay = None
        report = self.report
        report.status = status
        report.seconds = self.elapsed
        report.finish_reason = report.attempts[-1].finish_reason if report.attempts else None
        report.usage, report.usage_estimated = self.usage.usage()

    def _ask_again(self, step: Step, delay: float) -> None:
        self._go(step)
        if step is Step.REPLAY:
            self._resumed = self.attempt
        else:
            self.usage.ask_again(self._next.sent_along())
            if not self.attempt.characters:  # else they led to what stands
                self.usage.throw_away(self.attempt.thinking)
        self._delay = delay

    # The beginning of an attempt

    def _begin_attempt(self) -> RunningAttempt:
        if not self._streamed:
            self._answer.clear()
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            self._chain.begin_attempt()
        request, join = self._next.make(first=not self.report.attempts) if resumed is None else _resuming(resumed)
        record = Attempt(
            number=len(self.report.attempts) + 1,
            model=self.model.name,
            strategy=request.strategy,
            started=self.elapsed,
            waited=self._delay or 0.0,
        )
        self.report.attempts.append(record)
        clock, began = self.clock, self._began  # not self: what holds each other waits for the garbage collector
        return RunningAttempt(
            record,
            request,
            self.model,
            self.policy,
            join=join,
            repeats_calls=self._showed_calls,
            elapsed=lambda: clock() - began,
            answers=self._chain.answers,
            resumed=resumed,
        )

    # The end of an attempt

    def _on_end(self, end: Ended) -> Sequence[Chunk]:
        attempt = self.attempt
        attempt.note_end(end)
        verdict = self._judge(attempt, end)
        if end.kept and verdict.fault is not None and self._replays(verdict.fault, attempt, end.requests):
            return ()
        at_its_end = verdict.status in (StreamStatus.COMPLETE, StreamStatus.UNKNOWN)
        shown: list[Chunk] = attempt.flush(self._answer, self.last_payload, complete=at_its_end)
        if attempt.rejected or attempt.refused:  # perhaps only now, by the beginning that was still held back
            verdict = self._judge(attempt, end)
        self._close_attempt(attempt, verdict.fault, end.requests)
        self._note_outcome(verdict, attempt)
        self._end_or_go_on(verdict, attempt)
        return [*shown, *self._last_words(attempt)] if self.over else shown

    def _replays(self, fault: Fault, attempt: RunningAttempt, requests: int | None) -> bool:
        """Go on with the rest of the same stream, where the policy has it. Nothing of the attempt is settled then."""
        if attempt.got_on:
            self._chain.progress(self.clock())
        decision = self._chain.replays(fault, attempt)
        if decision is None or self._spent_budget(decision.delay, asks=False) is not None:
            return False
        self._note_end(attempt, fault, requests)
        self._ask_again(decision.step, decision.delay)
        return True

    def _note_outcome(self, verdict: Verdict, attempt: RunningAttempt) -> None:
        if attempt.record.characters:
            self._chain.progress(self._answer.grown_at)
            self._failure.progress()
        if attempt.adds_text:
            self._barren_ends = 0
        self._failure.note(verdict.fault)
        if verdict.fault is None:
            self._chain.answers()
        self.report.refusal = attempt.evidence.refusal if verdict.status is StreamStatus.FILTERED else ""
        self._reasonless_ends = self._reasonless_ends + 1 if verdict.lacks_only_reason else 0

    def _judge(self, attempt: RunningAttempt, end: Ended) -> Verdict:
        if attempt.rejected:
            return _fault(FaultKind.REJECTED, RejectedAnswerError(), retryable=False)
        if attempt.refused:
            return _fault(FaultKind.UNVERIFIED_JOINT, UnverifiedJointError(), retryable=True)
        empty_again = self.fault is not None and self.fault.kind is FaultKind.EMPTY
        context = Context(
            self.model,
            self.policy.completeness,
            first=not attempt.request.partial_text,
            streamed=self._streamed,
            empty_is_an_answer=self._empty_is_an_answer or empty_again,
            text=lambda: self.answer,
        )
        verdict = judge(attempt.evidence, end, context)
        # A repeat that was begun and not finished proves the cut, where nothing else can.
        if verdict.status is StreamStatus.UNKNOWN and attempt.is_repeating:
            return _fault(FaultKind.TRUNCATED, TruncatedStreamError(), retryable=True)
        return verdict

    def _note_end(self, attempt: RunningAttempt, fault: Fault | None, requests: int | None) -> None:
        record = attempt.record
        record.ended = self.elapsed
        self.fault = fault
        if fault is not None:
            record.fault, record.detail = fault.kind, fault.message
            if fault.retryable and not record.chunks and not isinstance(fault.error, StreamFault):
                record.requests += self.model.own_retries
        record.requests = record.requests if requests is None else requests

    def _close_attempt(self, attempt: RunningAttempt, fault: Fault | None, requests: int | None = None) -> None:
        record = attempt.record
        self._note_end(attempt, fault, requests)
        if attempt.join is not None:
            record.seam, record.held = attempt.join.decision, attempt.join.most_held
            record.dropped = attempt.join.dropped
            self.usage.throw_away(record.dropped)
            self._note_joint(attempt)

    def _note_joint(self, attempt: RunningAttempt) -> None:
        join, record, joints = attempt.join, attempt.record, self.report.joints
        if attempt.resumed is not None and attempt.got_on and not attempt.has_joint:
            attempt.has_joint = True
            position = len(self.answer) - record.characters
            joints.append(Joint(record.number, position, Strategy.REPLAY, JoinDecision.REPLAY, Certainty.VERIFIED))
        if join is None or join.certainty is None or not attempt.characters:
            return
        asked = attempt.request.original or attempt.request
        position = len(asked.partial_text)
        if any((joint.position, joint.strategy) == (position, asked.strategy) for joint in joints):
            return
        decision = JoinDecision(join.decision)
        joints.append(Joint(record.number, position, asked.strategy, decision, join.certainty, join.dropped))

    def _last_words(self, attempt: RunningAttempt) -> list[Chunk]:
        """What is shown at the very end: text still held back, and in "partial" mode the status."""
        words = []
        if attempt.join is not None and attempt.join.leftover:
            self._answer.add(attempt.join.leftover)
            attempt.record.characters += len(attempt.join.leftover)
            words.append(Chunk(attempt.join.leftover, self.last_payload, untouched=False))
            attempt.join.decision = attempt.join.decision or JoinDecision.AS_IS
            self._note_joint(attempt)
        if self.error is not None:
            self.error.partial_text = self.answer
            if self.policy.on_exhausted == "partial":
                words.append(Chunk("", untouched=False))  # without a payload: no cut tool call may ride on it
        return words

    # What comes next

    def _end_or_go_on(self, verdict: Verdict, attempt: RunningAttempt) -> None:
        status = verdict.status or StreamStatus.UNKNOWN
        if self._adds_nothing_new(verdict, attempt):
            self._after_nothing_new(status, attempt)
        elif verdict.fault is None or self._has_said_all(attempt):
            self._after_status(status, attempt)
        else:
            self._after_fault(verdict.fault, attempt)

    def _after_status(self, status: StreamStatus, attempt: RunningAttempt) -> None:
        if status is StreamStatus.LENGTH and self._goes_on_after_length(attempt):
            self._length_rounds += 1
            self._answer.begin_limit()
            self._chain.goes_on_after_limit()
            self._ask_again(Step.CONTINUE, 0.0)
            return
        result = AttemptResult(status, self.answer, attempt.evidence.refusal)
        if self._spent_budget(0.0) is None and self._chain.leaves_to_next(result):
            self._ask_again(Step.FALL_BACK, 0.0)
        else:
            self._end(Step.FINISH, status)

    def _adds_nothing_new(self, verdict: Verdict, attempt: RunningAttempt) -> bool:
        """Whether a continuation says that the answer is whole as it stands."""
        continued = bool(attempt.request.partial_text) and attempt.strategy is not Strategy.RESTART
        ended = verdict.status in (StreamStatus.COMPLETE, StreamStatus.UNKNOWN) and not verdict.said_by_user
        ended = ended or (verdict.status is StreamStatus.LENGTH and self._asked_with_less(attempt))
        return continued and ended and not attempt.adds_text and not attempt.evidence.has_calls

    def _asked_with_less(self, attempt: RunningAttempt) -> bool:
        """Whether a model that was to write the rest may have spent what was left of the token limit on a repeat."""
        return attempt.strategy is Strategy.ASK and self._length_rounds == 0

    def _after_nothing_new(self, status: StreamStatus, attempt: RunningAttempt) -> None:
        """Believe a server that writes on, where the text can end there. Whoever was asked may have stopped early.

        Models that are asked for the rest copy the anchor and stop, in the middle of an answer. So another way is
        tried once; and as often as there is one, where the text shows that it stops half-way.
        """
        self._barren_ends += 1
        unfinished = is_unfinished(self.answer)
        if not unfinished and self._wrote_on(attempt):
            self._end(Step.FINISH, status)
        elif (unfinished or self._barren_ends < _ENOUGH_BARREN_ENDS) and (decision := self._descends(attempt)):
            self._ask_again(decision.step, decision.delay)
        elif self._is_cut_by_limit or status is StreamStatus.LENGTH:
            self._end(Step.FINISH, StreamStatus.LENGTH)  # as it was before it was asked to go on after the limit
        else:
            self._end(Step.FINISH, StreamStatus.UNKNOWN)

    def _wrote_on(self, attempt: RunningAttempt) -> bool:
        """Whether the server was given the text as its own and is known to write on from there."""
        strategy = attempt.strategy
        return strategy is Strategy.APPEND or (strategy is Strategy.PREFILL and self._chain.writes_on)

    def _descends(self, attempt: RunningAttempt) -> Decision | None:
        """The next way to continue, or the next model; None where there is none or a budget is spent."""
        return None if self._spent_budget(0.0) is not None else self._chain.descends(attempt.strategy)

    @property
    def _is_cut_by_limit(self) -> bool:
        """Whether the answer hit the token limit and nothing came since."""
        return self._length_rounds > 0 and not self._answer.chunks

    def _goes_on_after_length(self, attempt: RunningAttempt) -> bool:
        return (
            self._length_rounds < self.policy.continue_on_length
            and attempt.characters > 0  # else reasoning ate the budget, and would again
            and not self._next.restart_only
            and self._spent_budget(0.0) is None
        )

    def _after_fault(self, fault: Fault, attempt: RunningAttempt) -> None:
        if attempt.evidence.has_calls:
            self._next.restart_only = self._showed_calls = True
        decision = self._decided(fault, attempt)
        reason = decision.reason or self._spent_budget(decision.delay)
        if reason is None:
            self._ask_again(decision.step, decision.delay)
        elif fault.kind is FaultKind.UNVERIFIED_JOINT and self._is_cut_by_limit:
            self._end(Step.FINISH, StreamStatus.LENGTH)  # as it was before it was asked to go on after the limit
        elif self._adds_nothing(attempt):
            self._end(Step.FINISH, StreamStatus.UNKNOWN)  # an error behind what may be the whole answer helps nobody
        else:
            self._give_up(fault, decision, reason)

    def _decided(self, fault: Fault, attempt: RunningAttempt) -> Decision:
        if attempt.request.model == 0 and self._explanation.is_callers(fault.error):
            return Decision(Step.GIVE_UP, reason=GiveUpReason.NOT_RETRYABLE)  # no other model makes it right
        decision = self._chain.decide(fault, attempt)
        self._failure.note_decision(fault, decision, attempt.request.model)
        self._free_attempts += decision.free
        return decision

    def _has_said_all(self, attempt: RunningAttempt) -> bool:
        """Whether two attempts lacked only a finish reason, and the last said what it was asked to and no more.

        That is the repeated anchor, the same calls again, or nothing at all where the model just writes on.
        """
        if not self._adds_nothing(attempt):
            return False
        repeated = attempt.evidence.text and bool(attempt.record.seam)
        writes_on = attempt.request.strategy in (Strategy.APPEND, Strategy.PREFILL)
        return repeated or writes_on or attempt.evidence.has_calls

    def _adds_nothing(self, attempt: RunningAttempt) -> bool:
        has_answer = bool(attempt.request.partial_text) or attempt.evidence.has_calls
        return self._reasonless_ends >= 2 and not attempt.characters and has_answer

    def _spent_budget(self, delay: float, *, asks: bool = True) -> GiveUpReason | None:
        """The total that forbids another attempt after `delay` seconds. One that asks nothing costs no tokens."""
        if self.report.requests - self._free_attempts >= self.policy.max_attempts:
            return GiveUpReason.ATTEMPTS
        if self.deadline_at is not None and self.clock() + delay >= self.deadline_at:
            return GiveUpReason.DEADLINE
        limit = self.policy.max_extra_tokens
        if limit is None or not asks:
            return None
        if self.report.extra_tokens + self.usage.cost_of_asking(self._next.sent_along()) > limit:
            return GiveUpReason.EXTRA_TOKENS
        return None

    def _give_up(self, fault: Fault, decision: Decision, reason: GiveUpReason) -> None:
        broke = self._failure.breakage(fault, decision, self.attempt.request)
        if broke.fault is not fault and reason is decision.reason:
            reason = give_up_reason(broke.fault, broke.retryable)
        if self.deadline_at is not None and self.clock() >= self.deadline_at:
            reason = GiveUpReason.DEADLINE
        self.report.reason, self.report.retryable = reason, broke.retryable
        self._end(Step.GIVE_UP, StreamStatus.INTERRUPTED)
        self.error = self._failure.error(broke, self.report, self.answer)
        self.error.question = self._question
        self.error.restart_only = self._next.restart_only


def _tokens(usage: UsageMeter, answer: AnswerText) -> int:
    """How much another attempt sends, at the most: the question and the answer so far."""
    return usage.cost_of_asking(answer.text)
