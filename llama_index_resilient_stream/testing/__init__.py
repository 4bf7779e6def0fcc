"""Test doubles that break: an LLM in the process, and an OpenAI-compatible server. For your tests, and for ours.

An LLM in the process, without a socket:

    from llama_index_resilient_stream import ResilientLLM
    from llama_index_resilient_stream.testing import Cut, ScriptedLLM

    def test_an_answer_survives_a_reset():
        llm = ScriptedLLM("The answer is 42. And more.", script=[Cut(after=10, error=ConnectionResetError())])
        stream = ResilientLLM(llm).stream_complete("?")
        assert "".join(chunk.delta for chunk in stream) == llm.text
        assert len(llm.calls) == 2

A server on a real socket, for any OpenAI-compatible client:

    from llama_index_resilient_stream.testing import FAULTS, FaultServer

    with FaultServer("The answer is 42. And more.", faults=[FAULTS["clean_eof"].at(10), None]) as server:
        client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
        ...
        assert [request.partial_text for request in server.requests] == ["", "The answer"]

FAULTS is the table of what can happen on the wire, CONTINUATION_STYLES the table of the ways in which models continue
a cut answer.
"""

from .continuation_styles import CONTINUATION_STYLES, find_anchor
from .faults import (
    FATAL,
    FAULTS,
    HARMLESS,
    NO_FINISH_REASON,
    RETRYABLE,
    STATED_INCOMPLETE,
    TOOL_CALLS,
    WireFault,
    WireFaultKind,
    http_error,
)
from .recorded_request import RecordedRequest
from .script import Call, CallState, Cut, Fail, Stall
from .scripted import ScriptedLLM
from .scripted_model import ParsedRequest, RequestKind
from .server import FaultServer

__all__ = [
    "CONTINUATION_STYLES",
    "FATAL",
    "FAULTS",
    "HARMLESS",
    "NO_FINISH_REASON",
    "RETRYABLE",
    "STATED_INCOMPLETE",
    "TOOL_CALLS",
    "Call",
    "CallState",
    "Cut",
    "Fail",
    "FaultServer",
    "ParsedRequest",
    "RecordedRequest",
    "RequestKind",
    "ScriptedLLM",
    "Stall",
    "WireFault",
    "WireFaultKind",
    "find_anchor",
    "http_error",
]
