"""What observers see: one trace per answer, each attempt once, and no span left open."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core import Document, SummaryIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.llms.openai import OpenAI
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM, StreamInterruptedError
from llama_index_resilient_stream.testing import Cut, Fail, FaultServer, ScriptedLLM
from support.readers import QUICK, TEXT, Reader, aread, question

# Of LlamaIndex's agents: what they still call, and a database and an event loop (two ends of a Unix socket) that they
# do not close. Connections to a provider are of another family.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings(
        r"ignore:Exception ignored in. <(function (Connection|BaseEventLoop)|socket.socket fd=\d+, family=1,)"
        ":pytest.PytestUnraisableExceptionWarning"
    ),
]

RESET = ConnectionResetError("reset")
TWICE = [Cut(40, RESET), Cut(90)]


def resilient(script: Any = (), **kwargs: Any) -> ResilientLLM:
    return ResilientLLM(ScriptedLLM(TEXT, script, usage=True, **kwargs), policy=QUICK)


# Callback manager and dispatcher


def test_the_token_counter_counts_every_attempt_once(reader: Reader) -> None:
    counter = TokenCountingHandler(tokenizer=list)
    inner = ScriptedLLM(TEXT, TWICE)
    llm = ResilientLLM(inner, policy=QUICK)
    llm.callback_manager = CallbackManager([counter])
    assert reader(llm).text == TEXT
    counted = [count.completion_token_count for count in counter.llm_token_counts]
    sent = [len("assistant: " + call.sent) for call in inner.calls]
    assert counted == [0, *sent[1:]], "LlamaIndex counts nothing of an attempt that raised; the report's usage does"


def test_the_callback_manager_sees_each_attempt_once(reader: Reader) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm = resilient(TWICE)
    llm.callback_manager = CallbackManager([debug])
    reader(llm)
    pairs = debug.get_event_pairs(CBEventType.LLM)
    assert len(pairs) == 3
    assert all(len(pair) == 2 for pair in pairs), "each has its end"


class Events(BaseEventHandler):
    seen: list[str] = []  # noqa: RUF012 - a field of a pydantic model, copied for each

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.seen.append(event.class_name())


@pytest.fixture
def events() -> Iterator[list[str]]:
    root, handler = get_dispatcher(), Events()
    root.add_event_handler(handler)
    yield handler.seen
    root.event_handlers.remove(handler)


def test_the_dispatcher_sees_each_attempt_once(reader: Reader, events: list[str]) -> None:
    reader(resilient(TWICE))
    assert events.count("LLMChatStartEvent") == 3
    assert events.count("LLMChatEndEvent") == 2
    assert events.count("ExceptionEvent") == 1
    assert "StreamSpanEndEvent" not in events, "nobody traces"


@pytest.mark.parametrize("endpoint", ["chat", "complete"])
def test_listeners_of_our_own_make_no_noise(endpoint: str, reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert reader(resilient(TWICE), endpoint=endpoint).text == TEXT
    assert not caplog.records


# OpenTelemetry, by way of OpenInference


class Tracer:
    """What was exported, and what is open."""

    def __init__(self, exporter: Any, instrumentor: Any, log: pytest.LogCaptureFixture) -> None:
        self._exporter = exporter
        self._handler = instrumentor._span_handler
        self._log = log

    @property
    def spans(self) -> list[Any]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)

    def children(self, name: str) -> list[str]:
        """The names of the spans right under the one of this name."""
        (parent,) = [span for span in self.spans if span.name == name]
        return [s.name for s in self.spans if s.parent is not None and s.parent.span_id == parent.context.span_id]

    @property
    def roots(self) -> list[str]:
        return [span.name for span in self.spans if span.parent is None]

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def check(self, *may_be_apart: str) -> None:
        """One trace, whole, and no complaint."""
        assert len(set(self.roots) - set(may_be_apart)) == 1, self.roots
        assert not self._handler.open_spans
        assert not [span for span in list(self._handler._export_queue.spans.values()) if span.active]
        ids = {span.context.span_id for span in self.spans}
        assert [span.name for span in self.spans if span.parent and span.parent.span_id not in ids] == []
        assert not [record.getMessage() for record in self._log.records if "openinference" in record.name]


@pytest.fixture
def tracer(caplog: pytest.LogCaptureFixture) -> Iterator[Tracer]:
    instrumentation = pytest.importorskip("openinference.instrumentation.llama_index")
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter, provider = memory.InMemorySpanExporter(), trace.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    instrumentor = instrumentation.LlamaIndexInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    if not hasattr(instrumentor, "_span_handler"):
        pytest.skip("this OpenInference does not instrument this core")
    try:
        with caplog.at_level(logging.WARNING):
            yield Tracer(exporter, instrumentor, caplog)
    finally:
        instrumentor.uninstrument()


@pytest.mark.parametrize(("script", "attempts"), [([], 1), (TWICE, 3)], ids=["healthy", "cut-twice"])
def test_one_trace_with_the_attempts_under_one_span(script: Any, attempts: int, reader: Reader, tracer: Tracer) -> None:
    assert reader(resilient(script)).text == TEXT
    tracer.check()
    root = tracer.spans[0]
    assert root.parent is None
    assert root.name in ("ResilientLLM.stream_chat", "ResilientLLM.astream_chat")
    assert root.attributes["output.value"] == TEXT
    assert root.status.is_ok
    assert len(tracer.children(root.name)) == attempts == len(tracer.spans) - 1
    assert root.end_time >= max(span.end_time for span in tracer.spans[1:])
    counted = [span.attributes.get("llm.token_count.total") for span in tracer.spans]
    assert counted[0] is None, "tokens are counted where they were paid for, in the attempts"
    assert counted[-1]


class Asked:
    """A model on the wire, asked by LlamaIndex's OpenAI class, which tracers know."""

    def __init__(self, serve: Callable[..., FaultServer], *faults: Any, **kwargs: Any) -> None:
        server = serve(TEXT, list(faults), **kwargs)
        self.bare = OpenAI(
            "gpt-4o-mini",
            api_base=server.url,
            api_key="k",
            max_retries=0,
            additional_kwargs={"stream_options": {"include_usage": True}},
        )
        self.llm = ResilientLLM(self.bare, policy=QUICK)


def run_to_the_end(llm: Any, method: str) -> None:
    """Call one endpoint, and close its clients."""
    what: Any = question() if "chat" in method else "?"
    inner = getattr(llm, "llm", llm)

    async def arun() -> None:
        answer = await getattr(llm, method)(what)
        if "stream" in method:
            async for _ in answer:
                pass
        await inner._aclient.close()

    if method.startswith("a"):
        asyncio.run(arun())
        return
    answer = getattr(llm, method)(what)
    if "stream" in method:
        list(answer)
    inner._client.close()


ENDPOINTS = [f"{twin}{how}{kind}" for kind in ("chat", "complete") for how in ("", "stream_") for twin in ("", "a")]


def told(span: Any) -> tuple[Any, ...]:
    """What an observer compares LLM calls by."""
    names = ("llm.provider", "llm.system", "llm.model_name", "llm.token_count.total")
    return tuple(span.attributes.get(name) for name in names)


def llm_spans(tracer: Tracer) -> list[Any]:
    return [span for span in tracer.spans if span.attributes["openinference.span.kind"] == "LLM"]


@pytest.mark.parametrize("method", ENDPOINTS)
def test_a_healthy_call_is_one_llm_span_as_with_the_bare_llm(
    method: str, tracer: Tracer, serve: Callable[..., FaultServer]
) -> None:
    run_to_the_end(Asked(serve).bare, method)
    (bare,) = llm_spans(tracer)
    tracer._exporter.clear()
    run_to_the_end(Asked(serve).llm, method)
    (wrapped,) = llm_spans(tracer)
    assert told(wrapped) == told(bare)
    assert wrapped.name == bare.name == f"OpenAI.{method}"
    assert wrapped.attributes["llm.provider"] == "openai"
    tracer.check()


@pytest.mark.parametrize("method", ["chat", "stream_chat", "achat", "astream_chat"])
def test_each_attempt_is_one_llm_span(method: str, tracer: Tracer, serve: Callable[..., FaultServer]) -> None:
    run_to_the_end(Asked(serve, "http_503").llm, method)
    assert len(llm_spans(tracer)) == 2
    tracer.check()
    assert tracer.children(f"ResilientLLM.{method}") == [f"OpenAI.{method}"] * 2


def test_a_call_that_fails_for_good(tracer: Tracer) -> None:
    policy = RecoveryPolicy(stop=stop_after_attempt(2), wait=wait_none())
    with pytest.raises(ConnectionResetError):
        ResilientLLM(ScriptedLLM(TEXT, [Fail(RESET)] * 9), policy=policy).chat(question())
    tracer.check()
    assert not tracer.spans[0].status.is_ok


def test_a_call_of_a_subclass_of_the_user_s(tracer: Tracer) -> None:
    class Mine(ResilientLLM):
        pass

    Mine(ScriptedLLM(TEXT), policy=QUICK).chat(question())
    assert tracer.spans[0].name == "Mine.chat"
    assert tracer.spans[0].attributes["output.value"]


def test_spans_of_attempts_with_back_off_between(reader: Reader, tracer: Tracer) -> None:
    from tenacity import wait_fixed

    llm = ResilientLLM(ScriptedLLM(TEXT, [Cut(40, RESET)]), policy=RecoveryPolicy(wait=wait_fixed(0.3)))
    reader(llm)  # longer than finished spans are kept to look up
    tracer.check()
    assert len(tracer.spans) == 3


def test_a_failure(reader: Reader, tracer: Tracer) -> None:
    policy = RecoveryPolicy(stop=stop_after_attempt(2), wait=wait_none())
    result = reader(ResilientLLM(ScriptedLLM(TEXT, [Cut(9, RESET)] * 9), policy=policy))
    assert isinstance(result.error, StreamInterruptedError)
    tracer.check()
    assert not tracer.spans[0].status.is_ok
    assert len(tracer.spans) == 1 + len(result.report.attempts)


def test_leaving_early(reader: Reader, tracer: Tracer) -> None:
    reader(resilient(), take=2)
    tracer.check()
    assert tracer.spans[0].status.is_ok, "leaving is no fault"
    assert len(tracer.spans) == 2


def test_a_stream_that_is_dropped(tracer: Tracer) -> None:
    stream = resilient().stream_chat(question())
    next(stream)
    del stream
    gc.collect()
    tracer.check()


def test_a_stream_that_nobody_begins_to_read_has_no_span(tracer: Tracer) -> None:
    resilient().stream_chat(question())
    resilient().stream_complete("?")
    gc.collect()
    assert tracer.spans == []
    assert not tracer._handler.open_spans


async def test_a_cancelled_task(tracer: Tracer) -> None:
    task = asyncio.create_task(aread(resilient(delay=0.02)))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    tracer.check()


def test_read_in_another_thread(tracer: Tracer) -> None:
    stream = resilient(TWICE).stream_chat(question())
    thread = threading.Thread(target=lambda: list(stream))
    thread.start()
    thread.join()
    tracer.check()
    assert len(tracer.children("ResilientLLM.stream_chat")) == 3


def test_concurrent_streams_have_their_own_traces(tracer: Tracer) -> None:
    async def run() -> None:
        await asyncio.gather(*(aread(resilient([Cut(20 + i, RESET)])) for i in range(10)))

    asyncio.run(run())
    assert not tracer._handler.open_spans
    traces: dict[int, list[str]] = {}
    for span in tracer.spans:
        traces.setdefault(span.context.trace_id, []).append(span.name)
    assert len(traces) == 10
    assert {len(names) for names in traces.values()} == {3}


def test_the_reader_s_own_spans_are_not_part_of_the_stream(tracer: Tracer) -> None:
    from opentelemetry.trace import get_current_span

    for _ in resilient(TWICE).stream_chat(question()):
        assert not get_current_span().get_span_context().is_valid


@pytest.fixture(scope="module")
def index() -> SummaryIndex:
    return SummaryIndex.from_documents([Document(text="a cable")])


def test_a_query_engine(index: SummaryIndex, tracer: Tracer) -> None:
    response = index.as_query_engine(llm=resilient(TWICE), streaming=True).query("?")
    assert "".join(response.response_gen) == TEXT  # type: ignore[union-attr]
    tracer.check()
    assert tracer.children("ResilientLLM.stream_chat") == ["ScriptedLLM.stream_chat"] * 3


def _chat(index: SummaryIndex, mode: str) -> str:
    engine: Any = index.as_chat_engine(llm=resilient(TWICE), chat_mode=mode)  # type: ignore[arg-type]
    return "".join(engine.stream_chat("?").response_gen)


CHAT_MODES = ["simple", "context", "condense_question", "condense_plus_context"]


@pytest.mark.parametrize("mode", CHAT_MODES)
def test_a_chat_engine(mode: str, index: SummaryIndex, tracer: Tracer) -> None:
    assert _chat(index, mode) == TEXT
    _wait(lambda: not tracer._handler.open_spans)  # its thread writes to the memory after the last token
    # Whether this one finds the engine's span still open is a race in LlamaIndex, with any LLM.
    tracer.check("StreamingAgentChatResponse.write_response_to_history")
    assert tracer.children("ResilientLLM.stream_chat") == ["ScriptedLLM.stream_chat"] * 3


def _wait(done: Callable[[], bool]) -> None:
    for _ in range(200):
        if done():
            return
        threading.Event().wait(0.01)


async def test_an_agent(tracer: Tracer) -> None:
    workflow = pytest.importorskip("llama_index.core.agent.workflow", reason="no workflow agents in this core")

    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    llm = resilient([Cut(5, RESET), None, Cut(30, RESET)], tool_calls=[("add", '{"a": 1, "b": 2}')])

    async def run() -> str:
        handler = workflow.FunctionAgent(tools=[add], llm=llm).run(user_msg="?")
        async for _ in handler.stream_events():
            pass
        return str(await handler)

    assert await run() == TEXT
    gc.collect()  # the database that LlamaIndex does not close shall complain here, where that is ignored
    tracer.check()
    assert len(tracer.named("ResilientLLM.astream_chat")) == 2
    attempts = tracer.named("ScriptedLLM.astream_chat")
    parents = {span.context.span_id for span in tracer.named("ResilientLLM.astream_chat")}
    assert len(attempts) == 4
    assert {span.parent.span_id for span in attempts} == parents


def test_a_call_that_is_not_streamed(tracer: Tracer) -> None:
    resilient([Cut(9, RESET)]).chat(question())
    tracer.check()
    assert tracer.children("ResilientLLM.chat") == ["ScriptedLLM.chat"] * 2
