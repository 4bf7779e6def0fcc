"""200 streams at once through one worker: synchronous engines against asynchronous ones, and a light route beside.

    python benchmarks/serving.py            # three rounds of each, about a minute
    python benchmarks/serving.py --quick    # one round

The LLM sleeps 50 ms before each of 40 tokens, so 2 s are ideal; the synchronous one blocks a thread meanwhile. One
uvicorn serves `resilient(query engine)` through SSEResponse, and shares the machine with the client that measures. The
aim: synchronous streams take at most 1.5 times as long as asynchronous ones, and the light route answers throughout.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TOKENS, PACE = 40, 0.05
AIM = 1.5
HOST = "127.0.0.1"


def app() -> Any:
    """What uvicorn serves."""
    from fastapi import FastAPI
    from llama_index.core import SummaryIndex
    from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
    from llama_index.core.schema import TextNode

    from llama_index_resilient_stream import ResilientLLM, resilient
    from llama_index_resilient_stream.serve.fastapi import SSEResponse

    def chunk(number: int) -> CompletionResponse:
        reason = "stop" if number == TOKENS else None
        raw = {"choices": [{"finish_reason": reason}]}
        return CompletionResponse(text="word " * number, delta="word ", raw=raw)

    class Sleepy(CustomLLM):
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(model_name="sleepy")

        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            raise NotImplementedError

        def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[CompletionResponse]:
            def stream() -> Iterator[CompletionResponse]:
                for number in range(1, TOKENS + 1):
                    time.sleep(PACE)
                    yield chunk(number)

            return stream()

        async def astream_complete(
            self, prompt: str, formatted: bool = False, **kwargs: Any
        ) -> AsyncIterator[CompletionResponse]:
            async def stream() -> AsyncIterator[CompletionResponse]:
                for number in range(1, TOKENS + 1):
                    await asyncio.sleep(PACE)
                    yield chunk(number)

            return stream()

    index = SummaryIndex([TextNode(text="The cable fell silent in 1858.")])
    engine = resilient(index.as_query_engine(llm=ResilientLLM(Sleepy()), streaming=True))
    api = FastAPI()

    @api.get("/sync")
    async def answer() -> Any:
        return SSEResponse(lambda: engine.query("?"))

    @api.get("/async")
    async def aanswer() -> Any:
        return SSEResponse(lambda: engine.aquery("?"))

    @api.get("/light")
    async def light() -> Any:
        return {}

    @api.get("/cpu")
    async def cpu() -> Any:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {"seconds": used.ru_utime + used.ru_stime}

    return api


@dataclass
class Round:
    """Seconds."""

    first: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)
    light: list[float] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def p50(self) -> float:
        return statistics.median(self.done)


async def get(port: int, path: str) -> AsyncIterator[bytes]:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    try:
        while received := await reader.read(65536):
            yield received
    finally:
        writer.close()


async def read_answer(port: int, kind: str, measured: Round) -> None:
    began = time.perf_counter()
    first, count, tail = 0.0, 0, b""
    async for received in get(port, f"/{kind}"):
        count += received.count(b'data: {"text"')
        first = first or (time.perf_counter() - began if count else 0.0)
        tail = (tail + received)[-200:]
    assert b"event: done" in tail, tail
    measured.first.append(first)
    measured.done.append(time.perf_counter() - began)


async def ask_lightly(port: int, measured: Round) -> None:
    while True:
        began = time.perf_counter()
        async for _ in get(port, "/light"):
            pass
        measured.light.append(time.perf_counter() - began)
        await asyncio.sleep(0.05)


async def cpu_of(port: int) -> float:
    body = b"".join([part async for part in get(port, "/cpu")])
    return float(body.rpartition(b":")[2].strip(b"}\r\n 0") or 0)


async def measure(port: int, kind: str, streams: int) -> Round:
    measured = Round()
    before = await cpu_of(port)
    beside = asyncio.ensure_future(ask_lightly(port, measured))
    await asyncio.gather(*(read_answer(port, kind, measured) for _ in range(streams)))
    beside.cancel()
    measured.cpu = await cpu_of(port) - before
    return measured


@contextlib.contextmanager
def server() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    command = ["-m", "uvicorn", "benchmarks.serving:app", "--factory", "--host", HOST, "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, *command, "--log-level", "warning"], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def show(kind: str, rounds: list[Round]) -> None:
    def typical(of: Callable[[Round], float]) -> float:
        return statistics.median(map(of, rounds))

    first = f"{typical(lambda r: statistics.median(r.first)):8.2f} {typical(lambda r: max(r.first)):7.2f}"
    done = f"{typical(lambda r: r.p50):10.2f} {typical(lambda r: max(r.done)):7.2f}"
    light = f"{typical(lambda r: statistics.median(r.light)) * 1e3:10.0f} {typical(lambda r: max(r.light)) * 1e3:7.0f}"
    print(f"  {kind:6}{first}{done}{typical(lambda r: r.cpu):9.2f}{light}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--streams", type=int, default=200)
    options = parser.parse_args()
    kinds: dict[str, list[Round]] = {"async": [], "sync": []}
    with server() as port:
        for kind in kinds:  # imports and caches
            asyncio.run(measure(port, kind, 5))
        for _ in range(1 if options.quick else 3):
            for kind, rounds in kinds.items():
                rounds.append(asyncio.run(measure(port, kind, options.streams)))
    print(f"{options.streams} streams of {TOKENS} tokens, {PACE * 1e3:.0f} ms each: {TOKENS * PACE:g} s at best\n")
    print("         first token, s     whole answer, s    CPU, s   light route, ms")
    print("           p50     max       p50     max               p50     max")
    for kind, rounds in kinds.items():
        show(kind, rounds)
    for name, of in (("p50", lambda each: each.p50), ("max", lambda each: max(each.done))):
        sync, asynchronous = (statistics.median(map(of, kinds[kind])) for kind in ("sync", "async"))
        ratio = sync / asynchronous
        print(f"\n  sync to async, {name}: {ratio:.2f}" + ("" if ratio <= AIM else f"   more than {AIM}"), end="")
    print()


if __name__ == "__main__":
    main()
