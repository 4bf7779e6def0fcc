"""How one question to a ResilientLLM is answered: streamed or not, sync and async.

Puts together what belongs to one answer: the state machine, what sends its requests, the driver, the listeners, and the
stream that the caller gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from ..callbacks import HOOKS
from ..compat.llama_index import inner_llm, users_token_counter
from ..errors import ErrorBodyError, StreamFault, StreamInterruptedError
from ..policy import RecoveryPolicy
from ..recovery.events import Chunk, Learned, Model
from ..recovery.machine import Recovery
from ..recovery.usage import estimate_tokens
from ..report import StreamReport
from ..streaming.drivers import adrive, drive
from ..streaming.loops import require_asyncio
from ..streaming.scope import Scope
from ..streaming.watchdog import InterruptibleWait
from .announcer import Announcer, AsyncAnnouncer, refuse_coroutines
from .call_log import AROUND, CallLog
from .chunks import ChatPresenter, completion_presenter
from .explanation import CallExplanation
from .models import Models, always_structured, model_of
from .own_methods import OwnMethod, aask_own, acall_own, ask_own, call_own
from .question import Question
from .rendering import unfit
from .requests import aask, acall, ask, call
from .spans import StreamSpan, awithin, span_of, within
from .streams import ResilientAsyncStream, ResilientStream

if TYPE_CHECKING:
    from .resilient_llm import ResilientLLM  # which imports this module


class Answering:
    """Answers one question.

    Args:
        llm: Whose policy, continuation and callbacks count, and on whose behalf it is traced.
        models: Whom to ask.
        learned: What is known of each of them by now.
        calls: The log of the engine's call that this belongs to, where there is one.
        question: What is asked.
    """

    def __init__(
        self, llm: ResilientLLM, models: Models, learned: Sequence[Learned], calls: CallLog | None, question: Question
    ) -> None:
        self._llm = llm
        self._models = models
        self._learned = learned
        self._calls = calls
        self._question = question
        self._is_own_method = isinstance(question, OwnMethod)
        self._gives_objects = isinstance(question, OwnMethod) and question.objects

    def stream(self, partial_text: str, *, restart_only: bool) -> ResilientStream[Any]:
        """Make the stream of the answer. Nothing is sent before it is read.

        Args:
            partial_text: What the reader has from before.
            restart_only: Whether the turn is never continued.
        """
        refuse_coroutines(self._llm.callbacks)
        recovery = self._recovery(partial_text=partial_text, restart_only=restart_only)
        trace, show = self._trace(recovery, "stream_"), self._presenter(recovery)
        calls = self._calls or CallLog()
        asked: Any = ask_own if self._is_own_method else ask
        opened = within(trace, partial(asked, self._models, self._question))
        observer = Announcer(self._listeners(calls, trace, show))
        scope = _scope_of(recovery, calls.scope)
        items = drive(opened, recovery, show=show, observer=observer, scope=scope)
        stream: ResilientStream[Any] = ResilientStream(items, recovery, scope, calls)
        calls.add_stream(recovery, stream)
        return stream

    def astream(self, partial_text: str, *, restart_only: bool) -> ResilientAsyncStream[Any]:
        """Make the asynchronous stream of the answer. Nothing is sent before it is read.

        Args:
            partial_text: What the reader has from before.
            restart_only: Whether the turn is never continued.
        """
        require_asyncio("An asynchronous stream of ResilientLLM")
        recovery = self._recovery(partial_text=partial_text, restart_only=restart_only)
        trace, show = self._trace(recovery, "astream_"), self._presenter(recovery)
        calls = self._calls or CallLog()
        asked: Any = aask_own if self._is_own_method else aask
        opened = awithin(trace, partial(asked, self._models, self._question))
        observer = AsyncAnnouncer(self._listeners(calls, trace, show))
        scope = _scope_of(recovery, calls.scope)
        wait = InterruptibleWait(scope)
        items = adrive(opened, recovery, show=show, observer=observer, scope=scope, wait=wait)
        stream: ResilientAsyncStream[Any] = ResilientAsyncStream(items, recovery, scope, calls, wait)
        calls.add_stream(recovery, stream)
        return stream

    def call(self) -> Any:
        """Answer in one piece."""
        refuse_coroutines(self._llm.callbacks)
        recovery = self._recovery(streamed=False)
        scope = _scope_of(recovery)
        trace = self._trace(recovery, "")
        asked: Any = call_own if self._is_own_method else call
        opened = within(trace, partial(asked, self._models, self._question))
        observer = Announcer(self._listeners(trace))
        try:
            for answer in drive(  # noqa: B007 - the last one counts: one that ended in an error was asked for again
                opened, recovery, show=_payload, observer=observer, scope=scope, watched=False
            ):
                pass
        except StreamInterruptedError as error:
            failure = error
        else:
            return answer
        raise self._original(failure)

    async def acall(self) -> Any:
        """Answer in one piece, asynchronously."""
        require_asyncio("An asynchronous call of ResilientLLM")
        recovery = self._recovery(streamed=False)
        trace = self._trace(recovery, "a")
        asked: Any = acall_own if self._is_own_method else acall
        opened = awithin(trace, partial(asked, self._models, self._question))
        observer = AsyncAnnouncer(self._listeners(trace))
        try:
            async for answer in adrive(  # noqa: B007
                opened, recovery, show=_payload, observer=observer, scope=_scope_of(recovery), watched=False
            ):
                pass
        except StreamInterruptedError as error:
            failure = error
        else:
            return answer
        raise self._original(failure)

    # What belongs to it

    def _recovery(self, *, partial_text: str = "", restart_only: bool = False, streamed: bool = True) -> Recovery:
        if self._calls is not None:
            self._calls.check()
        question, policy = self._question, self._llm.policy
        if not streamed or self._gives_objects:  # no half answer to hand out, and nothing to go on from
            policy = replace(policy, on_exhausted="raise", continue_on_length=0)
        count_tokens = users_token_counter() or estimate_tokens
        recovery = Recovery(
            self._described(policy),
            policy,
            question=question,
            question_tokens=partial(question.tokens, count_tokens),
            count_tokens=count_tokens,
            answers_tool_result=question.answers_tool_result,
            explanation=CallExplanation(self._models.llms, question),
            partial_text=partial_text,
            restart_only=restart_only or not streamed or self._is_structured,
            streamed=streamed,
        )
        if self._calls is not None and not streamed:
            self._calls.add_call(recovery)
        if (around := AROUND.get()) is not None:
            around.begins(recovery.report)
        return recovery

    @property
    def _is_structured(self) -> bool:
        """Whether the answer must have a form that a continuation cannot keep, by the call or by an LLM's settings."""
        return self._question.structured or any(map(always_structured, self._models.llms))

    def _described(self, policy: RecoveryPolicy) -> list[Model]:
        """What the core has to know of each model for this question."""
        llms, rows, question = self._models.llms, self._models.rows, self._question
        # What is taken for an end when a method of its own is asked teaches nothing about the LLM's streams.
        learned = [copy(each) for each in self._learned] if self._is_own_method else self._learned
        return [
            model_of(
                inner_llm(llm),
                question,
                policy,
                self._llm.continuation,
                known,
                row,
                partial(unfit, llms, number, question),
            )
            for number, (llm, known, row) in enumerate(zip_longest(llms, learned, rows[: len(llms)]))
        ]

    def _listeners(self, *ours: object) -> Sequence[Any]:
        # Not a bare function: as a callback it would be told of tokens.
        ours = (*ours, AROUND.get())
        return [*self._llm.callbacks, *(each for each in ours if any(hasattr(each, h) for h in HOOKS))]

    def _trace(self, recovery: Recovery, kind: str) -> StreamSpan | None:
        question, streamed = self._question, "stream" in kind
        if isinstance(question, OwnMethod):
            return span_of(self._llm, question.method, question.named_arguments, recovery, streamed=streamed)
        asked = {"messages": question.messages} if question.chat else {"prompt": question.prompt}
        arguments = {**asked, **question.kwargs}
        return span_of(self._llm, kind + question.endpoint, arguments, recovery, streamed=streamed)

    def _presenter(self, recovery: Recovery) -> Callable[[Chunk], Any]:
        if self._gives_objects:
            return _payload
        return ChatPresenter(recovery) if self._question.chat else completion_presenter(recovery)

    def _original(self, error: StreamInterruptedError) -> BaseException:
        """The provider's own error, with a note of what was tried."""
        original = error.__cause__ or error
        explanation = CallExplanation(self._models.llms, self._question)
        if isinstance(original, ErrorBodyError) and (said := explanation.message(original, "")):
            original.args = (f"{str(original).rstrip('.')}: {said}",)
        if self._is_own_method and isinstance(original, StreamFault):  # nothing below raised anything
            return error
        notes = getattr(original, "__notes__", ())
        if error.report is not None and not any(note.startswith("ResilientLLM") for note in notes):
            original.add_note(_note(error.report, error.reason))
        return original


def _scope_of(recovery: Recovery, parent: Scope | None = None) -> Scope:
    return Scope(parent, deadline=recovery.deadline_at, clock=recovery.clock)


def _payload(chunk: Chunk) -> Any:
    return chunk.payload


def _note(report: StreamReport, reason: str) -> str:
    count = len(report.attempts)
    tried = f"{count} attempt{'s' if count != 1 else ''} in {report.seconds:.1f} s"
    return " ".join([f"ResilientLLM gave up after {tried} ({reason}).", *(f"{each}." for each in report.passed_over)])
