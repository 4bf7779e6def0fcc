"""Everything this package raises, as one tree.

ResilientStreamError
 |-- StreamInterruptedError        gave up: what the reader of a stream gets
 |-- StreamFault                   why one attempt failed where no library raised anything; found as __cause__
 |    |-- TruncatedStreamError     it ended without saying that it was done
 |    |-- EmptyStreamError         it ended without a word
 |    |-- ErrorFinishError         the model's own finish reason was an error
 |    |-- RejectedAnswerError      the app's own `reject` did not accept the beginning
 |    |-- UnverifiedJointError     nothing shows that a continuation goes on where the answer was cut
 |    `-- StreamTimeoutError       also a TimeoutError: no progress in time, or the deadline passed
 |-- ErrorBodyError                the server answered 200 with an error in place of an answer; found as __cause__
 `-- ConfigurationError            also a ValueError: says what was wrong and the line that fixes it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # errors are imported by everything, reports by few
    from .report import StreamReport

SILENT_CUT = "Incomplete stream response - expected more data but connection closed unexpectedly."
SILENT_CUT_CODE = "llm/truncated-response-in-streaming-mode"


class ResilientStreamError(Exception):
    """Base of all errors of this package."""


class StreamInterruptedError(ResilientStreamError):
    """A stream that could not be finished. Nothing that arrived is lost.

        try:
            for chunk in llm.stream_chat(messages):
                print(chunk.delta, end="")
        except StreamInterruptedError as error:
            stream = llm.resume(error)  # go on from where the text ends

    It can be pickled and copied. What was asked, and with which keywords, stays behind then, so that no prompt and no
    key travels with it: in another process, write `llm.resume(messages, error.partial_text)`.

    Args:
        message: one line for people.
        partial_text: all that the reader was shown.
        report: what was tried, attempt by attempt.
        retryable: whether asking again later may help.
        code: for machines, such as "llm/truncated-response-in-streaming-mode".
        reason: why it was given up, as in `StreamReport.reason`.

    The last original exception is `__cause__`.
    """

    # In a slot it is no part of what is pickled, copied or shown by vars().
    __slots__ = ("question",)

    question: Any
    """What `resume()` asks again; None in another process."""

    def __init__(
        self,
        message: str,
        *,
        partial_text: str = "",
        report: StreamReport | None = None,
        retryable: bool = False,
        code: str = "llm/stream-interrupted",
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.partial_text = partial_text
        self.report = report
        self.retryable = retryable
        self.code = code
        self.reason = reason
        self.restart_only = False
        """Whether the turn had tools or a form, so that it can be asked again and not continued."""
        self.question = None


class StreamFault(ResilientStreamError):
    """Why one attempt failed, where nothing below raised an exception."""

    code = "llm/stream-fault"


class TruncatedStreamError(StreamFault):
    """The stream ended, cleanly, without a finish signal from a model that is known to send one."""

    code = SILENT_CUT_CODE

    def __init__(self, message: str = SILENT_CUT) -> None:
        super().__init__(message)


class EmptyStreamError(StreamFault):
    """The stream ended without a single word."""

    code = "llm/empty-response-in-streaming-mode"


class ErrorFinishError(StreamFault):
    """The model's own finish reason was an error."""

    code = "llm/error-finish-in-streaming-mode"


class RejectedAnswerError(StreamFault):
    """`RecoveryPolicy.reject` did not accept the beginning of the answer; nothing of it was shown."""

    code = "llm/rejected-answer"

    def __init__(self, message: str = "The beginning of the answer was rejected.") -> None:
        super().__init__(message)


class UnverifiedJointError(StreamFault):
    """Nothing shows that a continuation goes on where the answer was cut; none of it was shown."""

    code = "llm/unverified-joint"

    def __init__(self, message: str = "The model did not go on where its answer was cut.") -> None:
        super().__init__(message)


class StreamTimeoutError(StreamFault, TimeoutError):
    """No progress within first_token_timeout or idle_timeout seconds, or the deadline passed."""

    code = "llm/stream-timeout"


class ErrorBodyError(ResilientStreamError):
    """The server answered with status 200, and with an error as JSON in place of an answer.

    Its text and its code decide whether it is asked again, as those of an error status would.

    Args:
        body: the JSON. It is not part of the message, nor of what is pickled: it may repeat keys and prompts.
    """

    __slots__ = ("body",)  # in a slot it is no part of what is pickled or shown by vars()

    body: Any

    def __init__(self, body: Any = None) -> None:
        super().__init__("The server answered with an error in place of an answer.")
        self.body = body

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class ConfigurationError(ResilientStreamError, ValueError):
    """Bad input: says what was wrong and the line that fixes it."""
