"""Two readers of one query, side by side: plain LlamaIndex, and LlamaIndex with ResilientLLM.

Each has a server of its own, since every request takes the next fault, and a thread of its own, since both are to be
watched at the same time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.llms.llm import LLM
from llama_index.llms.openai_like import OpenAILike
from openai import DefaultHttpxClient
from tenacity import stop_after_attempt, stop_any, stop_when_event_set, wait_fixed

from ... import FaultEvent, RecoveryPolicy, ResilientLLM, StreamReport, TokenEvent
from ...testing import FaultServer
from .corpus import PARAGRAPHS
from .scenarios import Scenario

MODEL = "first-model"
FALLBACK_MODEL = "second-model"


@dataclass(frozen=True)
class DemoTiming:
    """How long things take in the demo, in seconds."""

    token: float
    back_off: float
    idle_timeout: float
    client_timeout: float
    """The only protection of plain LlamaIndex against silence. Its default is a minute."""
    pause: float
    """After each scenario, to look at it."""


LIVE = DemoTiming(token=0.03, back_off=0.6, idle_timeout=1.2, client_timeout=3.0, pause=1.0)
FAST = DemoTiming(token=0.0, back_off=0.0, idle_timeout=1.0, client_timeout=1.5, pause=0.0)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text that a reader got, and who wrote it."""

    text: str
    attempt: int = 1
    model: str = MODEL


@dataclass
class DemoReader:
    """Reads one answer, and keeps what it has got so far."""

    pieces: list[Piece] = field(default_factory=list)
    current_fault: str = ""
    """The kind of the fault that is being recovered from; "" where there is none."""
    error: Exception | None = None
    report: StreamReport | None = None
    done: bool = False
    seconds: float = 0.0
    _writer: tuple[int, str] = (1, MODEL)

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def read(self, engine: Any, question: str) -> None:
        """Ask the engine, and read the answer until it ends or raises."""
        began = time.monotonic()
        try:
            for text in engine.query(question).response_gen:
                self.pieces.append(Piece(text, *self._writer))
        except Exception as error:
            self.error = error
        self.seconds = time.monotonic() - began
        self.done = True

    # Called by ResilientLLM

    def on_token(self, event: TokenEvent) -> None:
        self._writer = (event.attempt, event.model)
        self.current_fault = ""

    def on_fault(self, event: FaultEvent) -> None:
        self.current_fault = event.kind

    def on_end(self, report: StreamReport) -> None:
        self.report = report


def build_index() -> VectorStoreIndex:
    """Make a real index over a real text; only the embedding is a mock."""
    return VectorStoreIndex.from_documents(
        [Document(text=paragraph) for paragraph in PARAGRAPHS], embed_model=MockEmbedding(embed_dim=8)
    )


def wait(*readers: DemoReader) -> None:
    """Wait until each reader has come to its end."""
    while not all(reader.done for reader in readers):
        time.sleep(0.02)  # not an event: everywhere, Ctrl-C ends a sleep


@contextmanager
def play(scenario: Scenario, index: VectorStoreIndex, timing: DemoTiming) -> Iterator[tuple[DemoReader, DemoReader]]:
    """Let both readers read. Leaving the context stops them, also in the middle."""
    plain, resilient = DemoReader(), DemoReader()
    stop = threading.Event()
    with ExitStack() as stack:
        llms = (
            (plain, _plain_llm(scenario, timing, stack)),
            (resilient, _resilient_llm(scenario, timing, stack, resilient, stop)),
        )
        threads = []
        for reader, llm in llms:
            engine = index.as_query_engine(llm=llm, streaming=True)
            threads.append(threading.Thread(target=reader.read, args=(engine, scenario.question), daemon=True))
        # Callbacks run in reverse: no more attempts, then servers and clients close, and readers find that out.
        stack.callback(stop.set)
        for thread in threads:
            thread.start()
        yield plain, resilient
    for thread in threads:
        thread.join(timeout=2)


def _plain_llm(scenario: Scenario, timing: DemoTiming, stack: ExitStack) -> LLM:
    server = FaultServer(scenario.answer, scenario.faults, delay=timing.token)
    return _openai_like(stack, server, MODEL, timeout=timing.client_timeout)


def _resilient_llm(
    scenario: Scenario, timing: DemoTiming, stack: ExitStack, reader: DemoReader, stop: threading.Event
) -> LLM:
    server = FaultServer(scenario.answer, scenario.faults, delay=timing.token)
    llm = _openai_like(stack, server, MODEL, max_retries=0)
    fallbacks = []
    if scenario.has_fallback:
        healthy = FaultServer(scenario.answer, delay=timing.token)
        fallbacks.append(_openai_like(stack, healthy, FALLBACK_MODEL, max_retries=0))
    policy = RecoveryPolicy(
        stop=stop_any(stop_after_attempt(2 if fallbacks else 4), stop_when_event_set(stop)),
        wait=wait_fixed(timing.back_off),
        idle_timeout=timing.idle_timeout,
    )
    return ResilientLLM(llm, fallbacks=fallbacks, policy=policy, callbacks=[reader])


def _openai_like(stack: ExitStack, server: FaultServer, model: str, **kwargs: Any) -> LLM:
    url = stack.enter_context(server).url
    # A proxy from the environment would not find 127.0.0.1.
    client = stack.enter_context(DefaultHttpxClient(trust_env=False))
    settings = {"api_key": "none", "is_chat_model": True, "http_client": client, **kwargs}
    llm: LLM = OpenAILike(model=model, api_base=url, **settings)
    return llm
