"""A testing kit: an LLM and a server that break on cue. For this package's own tests, and for yours.

In the process, without a socket:

    from llama_index_resilient_stream import ResilientLLM
    from llama_index_resilient_stream.testing import Cut, ScriptedLLM

    def test_an_answer_survives_a_reset():
        llm = ScriptedLLM("The answer is 42. And more.", script=[Cut(after=10, error=ConnectionResetError())])
        stream = ResilientLLM(llm).stream_complete("?")
        assert "".join(chunk.delta for chunk in stream) == llm.text
        assert len(llm.calls) == 2

On a real socket, with any OpenAI-compatible client:

    from llama_index_resilient_stream.testing import FAULTS, FaultServer

    with FaultServer("The answer is 42. And more.", faults=[FAULTS["clean-eof"].at(10), None]) as server:
        client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
        ...
        assert [record.said for record in server.requests] == ["", "The answer"]

FAULTS is the table of what can happen on the wire, HABITS the table of how models go on. The server needs the
standard library only.
"""

from .continuation_styles import HABITS, find_anchor
from .faults import FATAL, FAULTS, HARMLESS, RETRYABLE, STATED, TOOL_CALLS, UNTOLD, Fault, http_error
from .script import Call, Cut, Fail, Stall
from .scripted import ScriptedLLM
from .scripted_model import Heard
from .server import FaultServer, Record

__all__ = [
    "FATAL",
    "FAULTS",
    "HABITS",
    "HARMLESS",
    "RETRYABLE",
    "STATED",
    "TOOL_CALLS",
    "UNTOLD",
    "Call",
    "Cut",
    "Fail",
    "Fault",
    "FaultServer",
    "Heard",
    "Record",
    "ScriptedLLM",
    "Stall",
    "find_anchor",
    "http_error",
]
