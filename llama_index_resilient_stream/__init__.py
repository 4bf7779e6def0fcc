"""LlamaIndex streams that finish.

from llama_index_resilient_stream import ResilientLLM

llm = ResilientLLM(OpenAI("gpt-4o-mini"))
index.as_query_engine(llm=llm, streaming=True).query("...").print_response_stream()
"""

from .callbacks import FaultEvent, ResumeEvent, StreamCallback, TokenEvent
from .engines.engines import ResilientChatEngine, ResilientQueryEngine, resilient
from .engines.responses import (
    ResilientAsyncStreamingResponse,
    ResilientStreamingAgentChatResponse,
    ResilientStreamingResponse,
)
from .engines.tokens import atokens, tokens
from .engines.trace import Trace, TraceSummary, trace
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
from .llm.resilient_llm import ResilientLLM
from .llm.streams import ResilientAsyncStream, ResilientStream
from .policy import RecoveryPolicy
from .recovery.continuation import Continuation
from .report import Attempt, StreamReport, StreamStatus

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
