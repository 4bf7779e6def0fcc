"""LlamaIndex streams that finish.

from llama_index_resilient_stream import ResilientLLM

llm = ResilientLLM(OpenAI("gpt-4o-mini"))
index.as_query_engine(llm=llm, streaming=True).query("...").print_response_stream()
"""

from .callbacks import Callback, CircuitEvent, FaultEvent, ResumeEvent, StreamCallback, TokenEvent
from .engines.engines import ResilientChatEngine, ResilientQueryEngine, resilient
from .engines.responses import (
    ResilientAsyncStreamingResponse,
    ResilientStreamingAgentChatResponse,
    ResilientStreamingResponse,
)
from .engines.show import ashow, show
from .engines.tokens import atokens, tokens
from .engines.trace import Trace, TraceSummary, trace
from .errors import (
    ConfigurationError,
    EmptyStreamError,
    ErrorBodyError,
    ErrorFinishError,
    ResilientStreamError,
    StreamFault,
    StreamInterruptedError,
    StreamTimeoutError,
    TruncatedStreamError,
)
from .llm.resilient_llm import ResilientLLM
from .llm.streams import ResilientAsyncStream, ResilientStream
from .policy import AttemptResult, CircuitBreaker, RecoveryPolicy, StreamEnd, retry_if_fault, retry_if_outcome
from .providers import Provider, register_provider
from .recovery.continuation import Continuation, Turn
from .recovery.faults import Fault
from .report import (
    Attempt,
    Certainty,
    CircuitChange,
    CircuitState,
    FaultKind,
    GiveUpReason,
    JoinDecision,
    Joint,
    PassedOver,
    PassReason,
    Strategy,
    StreamReport,
    StreamStatus,
)

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "AttemptResult",
    "Callback",
    "Certainty",
    "CircuitBreaker",
    "CircuitChange",
    "CircuitEvent",
    "CircuitState",
    "ConfigurationError",
    "Continuation",
    "EmptyStreamError",
    "ErrorBodyError",
    "ErrorFinishError",
    "Fault",
    "FaultEvent",
    "FaultKind",
    "GiveUpReason",
    "JoinDecision",
    "Joint",
    "PassReason",
    "PassedOver",
    "Provider",
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
    "Strategy",
    "StreamCallback",
    "StreamEnd",
    "StreamFault",
    "StreamInterruptedError",
    "StreamReport",
    "StreamStatus",
    "StreamTimeoutError",
    "TokenEvent",
    "Trace",
    "TraceSummary",
    "TruncatedStreamError",
    "Turn",
    "__version__",
    "ashow",
    "atokens",
    "register_provider",
    "resilient",
    "retry_if_fault",
    "retry_if_outcome",
    "show",
    "tokens",
    "trace",
]
