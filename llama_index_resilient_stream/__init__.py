"""LlamaIndex streams that finish.

from llama_index_resilient_stream import ResilientLLM

llm = ResilientLLM(OpenAI("gpt-4o-mini"))
index.as_query_engine(llm=llm, streaming=True).query("...").print_response_stream()
"""

from .callbacks import FaultEvent, ResumeEvent, StreamCallback, TokenEvent
from .engine import ResilientChatEngine, ResilientQueryEngine, resilient
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
from .response import (
    ResilientAsyncStreamingResponse,
    ResilientStreamingAgentChatResponse,
    ResilientStreamingResponse,
)
from .streams import ResilientAsyncStream, ResilientStream
from .tokens import atokens, tokens
from .trace import Trace, TraceSummary, trace

__all__ = [
    "Attempt",
    "ConfigurationError",
    "Continuation",
    "EmptyStreamError",
    "ErrorFinishError",
    "FaultEvent",
    "RecoveryPolicy",
    "ResilientAsyncStream",
    "ResilientAsyncStreamingResponse",
    "ResilientChatEngine",
    "ResilientLLM",
    "ResilientQueryEngine",
    "ResilientStream",
    "ResilientStreamError",
    "ResilientStreamingAgentChatResponse",
    "ResilientStreamingResponse",
    "ResumeEvent",
    "StreamCallback",
    "StreamFault",
    "StreamInterruptedError",
    "StreamReport",
    "StreamStatus",
    "StreamTimeoutError",
    "TokenEvent",
    "Trace",
    "TraceSummary",
    "TruncatedStreamError",
    "atokens",
    "resilient",
    "tokens",
    "trace",
]
