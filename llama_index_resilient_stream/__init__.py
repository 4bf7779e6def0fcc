"""LlamaIndex streams that finish.

from llama_index_resilient_stream import ResilientLLM

llm = ResilientLLM(OpenAI("gpt-4o-mini"))
index.as_query_engine(llm=llm, streaming=True).query("...").print_response_stream()
"""

from .callbacks import FaultEvent, ResumeEvent, StreamCallback, TokenEvent
from .errors import (
    ConfigurationError,
    EmptyStreamError,
    ErrorFinishError,
    ResilientStreamError,
    StreamFault,
    StreamInterruptedError,
    StreamTimeoutError,
    TruncatedStreamError,
)
from .llm import ResilientLLM
from .policy import RecoveryPolicy
from .recovery.continuation import Continuation
from .report import Attempt, StreamReport, StreamStatus
from .streams import ResilientAsyncStream, ResilientStream

__all__ = [
    "Attempt",
    "ConfigurationError",
    "Continuation",
    "EmptyStreamError",
    "ErrorFinishError",
    "FaultEvent",
    "RecoveryPolicy",
    "ResilientAsyncStream",
    "ResilientLLM",
    "ResilientStream",
    "ResilientStreamError",
    "ResumeEvent",
    "StreamCallback",
    "StreamFault",
    "StreamInterruptedError",
    "StreamReport",
    "StreamStatus",
    "StreamTimeoutError",
    "TokenEvent",
    "TruncatedStreamError",
]
