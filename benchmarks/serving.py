"""What one worker carries: what our streams cost beside others, and what synchronous engines cost beside asynchronous.

    python benchmarks/serving.py            # three rounds of each, some minutes
    python benchmarks/serving.py --quick    # one round
    python benchmarks/serving.py --part cost --readers 500

**cost**: 500 readers, who come within 2 s, of 100 tokens each, one in 0.1 s. One uvicorn serves them, one way after the
other: a bare `StreamingResponse` and sse-starlette over the bare LLM; `SSEResponse` over `ResilientLLM`, live,
resumable in memory, resumable in Redis. CPU is that of the server's process, a ratio to sse-starlette's. The aims: 1.5
live, 2 in memory, 4 in Redis; the first token within 0.3 s (median); no connection kept that nobody needs.
sse-starlette is left out where it is not installed: pip install sse-starlette.

**threads**: 200 streams at once, 40 tokens of 50 ms each, of synchronous engines against asynchronous ones, and a
light route beside. The synchronous LLM blocks a thread. The aim: at most 1.5 times as long.

Client, server and Redis share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TOKENS, PACE = 40, 0.05  # threads
LONGER, SLOWER = 100, 0.1  # cost
ARRIVAL = 2.0  # seconds in which readers come
AIM = 1.5
AIMS = {"live": 1.5, "memory": 2.0, "redis": 4.0}
FIRST = 0.3
HOST = "127.0.0.1"


def app() -> Any:
    """What uvicorn serves."""
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse
    from llama_index.core import SummaryIndex
    from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
    from llama_index.core.schema import TextNode

    from llama_index_resilient_stream import ResilientLLM, resilient
    from llama_index_resilient_stream.serve import Generations, SSEResponse
    from llama_index_resilient_stream.serve.redis import RedisStore

    def chunk(number: int, tokens: int) -> CompletionResponse:
        reason = "stop" if number == tokens else None
        raw = {"choices": [{"finish_reason": reason}]}
        return CompletionResponse(text="word " * number, delta="word ", raw=raw)

    class Sleepy(CustomLLM):
        tokens: int = TOKENS
        pace: float = PACE

        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(model_name="sleepy")

        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            raise NotImplementedError

        def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[CompletionResponse]:
            def stream() -> Iterator[CompletionResponse]:
                for number in range(1, self.tokens + 1):
                    time.sleep(self.pace)
                    yield chunk(number, self.tokens)

            return stream()

        async def astream_complete(
            self, prompt: str, formatted: bool = False, **kwargs: Any
        ) -> AsyncIterator[CompletionResponse]:
            async def stream() -> AsyncIterator[CompletionResponse]:
                for number in range(1, self.tokens + 1):
                    await asyncio.sleep(self.pace)
                    yield chunk(number, self.tokens)

            return stream()

    index = SummaryIndex([TextNode(text="The cable fell silent in 1858.")])
    engine = resilient(index.as_query_engine(llm=ResilientLLM(Sleepy()), streaming=True))
    bare = Sleepy(tokens=LONGER, pace=SLOWER)
    llm = ResilientLLM(bare)
    memory = Generations()
    redis = Generations(RedisStore(os.environ["REDIS_URL"])) if "REDIS_URL" in os.environ else memory
    api = FastAPI()

    async def deltas() -> AsyncIterator[str]:
        async for each in await bare.astream_complete("?"):
            yield json.dumps({"text": each.delta})

    @api.get("/bare")
    async def by_hand() -> Any:
        async def events() -> AsyncIterator[str]:
            async for data in deltas():
                yield f"data: {data}\n\n"
            yield "event: done\ndata: {}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @api.get("/sse-starlette")
    async def sse_starlette() -> Any:
        from sse_starlette import EventSourceResponse

        async def events() -> AsyncIterator[dict[str, str]]:
            async for data in deltas():
                yield {"data": data}
            yield {"event": "done", "data": "{}"}

        return EventSourceResponse(events())

    @api.get("/live")
    async def live() -> Any:
        return SSEResponse(lambda: llm.astream_complete("?"))

    @api.get("/memory")
    async def in_memory() -> Any:
        return SSEResponse(lambda: llm.astream_complete("?"), resumable=memory)

    @api.get("/redis")
    async def in_redis() -> Any:
        return SSEResponse(lambda: llm.astream_complete("?"), resumable=redis)

    @api.get("/sync")
    async def answer() -> Any:
        return SSEResponse(lambda: engine.query("?"))

    @api.get("/async")
    async def aanswer() -> Any:
        return SSEResponse(lambda: engine.aquery("?"))

    @api.get("/light")
    async def light() -> Any:
        return {}

    @api.get("/used")
    async def used() -> Any:
        of = resource.getrusage(resource.RUSAGE_SELF)
        return {"cpu": of.ru_utime + of.ru_stime, "files": count_of("fd"), "threads": count_of("task")}

    return api


def count_of(kind: str) -> int:
    """Of this process; 0 where the system does not tell."""
    try:
        return len(os.listdir(f"/proc/self/{kind}"))
    except OSError:
        return 0


@dataclass
class Round:
    """Seconds, and counts."""

    first: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)
    light: list[float] = field(default_factory=list)
    cpu: float = 0.0
    files: int = 0
    """Open files, at most, and those that were open before left out."""
    left: int = 0
    """Those that are open a second after the last answer."""
    threads: int = 0

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


async def read_answer(port: int, kind: str, measured: Round, after: float = 0.0) -> None:
    await asyncio.sleep(after)
    began = time.perf_counter()
    first, count, tail = 0.0, 0, b""
    async for received in get(port, f"/{kind}"):
        count += received.count(b'data: {"text"')
        first = first or (time.perf_counter() - began if count else 0.0)
        tail = (tail + received)[-200:]
    assert b"event: done" in tail, tail
    assert count == (TOKENS if kind in ("sync", "async") else LONGER), count
    measured.first.append(first)
    measured.done.append(time.perf_counter() - began)


async def ask_lightly(port: int, measured: Round) -> None:
    while True:
        began = time.perf_counter()
        async for _ in get(port, "/light"):
            pass
        measured.light.append(time.perf_counter() - began)
        await asyncio.sleep(0.05)


async def used(port: int) -> dict[str, float]:
    body = b"".join([part async for part in get(port, "/used")])
    found: dict[str, float] = json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])
    return found


async def watch(port: int, measured: Round) -> None:
    while True:
        await asyncio.sleep(1)
        found = await used(port)
        measured.files = max(measured.files, int(found["files"]))
        measured.threads = max(measured.threads, int(found["threads"]))


async def measure(port: int, kind: str, streams: int, arrival: float = 0.0, *, light: bool = False) -> Round:
    measured = Round()
    before = await used(port)
    beside = [asyncio.ensure_future(watch(port, measured))]
    if light:
        beside.append(asyncio.ensure_future(ask_lightly(port, measured)))
    reading = (read_answer(port, kind, measured, arrival * number / streams) for number in range(streams))
    await asyncio.gather(*reading)
    for each in beside:
        each.cancel()
    after = await used(port)
    measured.cpu = after["cpu"] - before["cpu"]
    await asyncio.sleep(1)
    measured.files -= int(before["files"])
    measured.left = int((await used(port))["files"] - before["files"])
    return measured


@contextlib.contextmanager
def started(command: list[str], port: int, **env: str) -> Iterator[None]:
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **env}, stdout=subprocess.DEVNULL
    )
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
                break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Its URL; empty where there is none."""
    program = shutil.which("redis-server")
    if program is None:
        yield ""
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", "--dir", folder]
        with started(command, port):
            yield f"redis://{HOST}:{port}/0"


@contextlib.contextmanager
def server(redis_url: str) -> Iterator[int]:
    port = free_port()
    command = ["-m", "uvicorn", "benchmarks.serving:app", "--factory", "--host", HOST, "--port", str(port)]
    env = {"REDIS_URL": redis_url} if redis_url else {}
    with started([sys.executable, *command, "--log-level", "warning"], port, **env):
        yield port


def rounds_of(
    port: int, kinds: list[str], rounds: int, streams: int, arrival: float = 0.0, *, light: bool = False
) -> dict[str, list[Round]]:
    for kind in kinds:  # imports and caches
        asyncio.run(measure(port, kind, 5))
    measured: dict[str, list[Round]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            measured[kind].append(asyncio.run(measure(port, kind, streams, arrival, light=light)))
    return measured


def typical(rounds: list[Round], of: Callable[[Round], float]) -> float:
    return statistics.median(map(of, rounds))


# Cost


async def told_by(redis_url: str) -> str:
    import redis.asyncio

    async with redis.asyncio.from_url(redis_url) as client:
        memory, clients = await client.info("memory"), await client.info("clients")
        answers = sum([1 async for _ in client.scan_iter("resilient:*:parts", count=1000)])
        each = (memory["used_memory"] - memory["used_memory_startup"]) / max(1, answers) / 1024
        connected = clients["connected_clients"] - 1
        return f"Redis: {each:.1f} KiB an answer of {LONGER} tokens, {connected} connections kept by the worker"


def show_cost(redis_url: str, port: int, rounds: int, readers: int) -> None:
    other = "sse-starlette" if importlib.util.find_spec("sse_starlette") else "bare"
    kinds = ["bare", *({"sse-starlette"} & {other}), "live", "memory", *(["redis"] if redis_url else [])]
    measured = rounds_of(port, kinds, rounds, readers, ARRIVAL)
    best, tokens = ARRIVAL + LONGER * SLOWER, readers * LONGER
    print(
        f"{readers} readers of {LONGER} tokens, {SLOWER * 1e3:.0f} ms each, who come within {ARRIVAL:g} s: {best:g} s\n"
    )
    print("                  CPU of a token   tokens a second    first token, s     files open")
    print("                     us    ratio      of one core       p50     max     most   kept")
    base = typical(measured[other], lambda r: r.cpu)
    for kind, each in measured.items():
        cpu = typical(each, lambda r: r.cpu)
        carried = f"{cpu / tokens * 1e6:9.0f} {cpu / base:8.2f} {tokens / cpu:16,.0f}"
        first = (
            f"{typical(each, lambda r: statistics.median(r.first)):11.2f} {typical(each, lambda r: max(r.first)):7.2f}"
        )
        counts = f"{typical(each, lambda r: r.files):9.0f} {typical(each, lambda r: r.left):6.0f}"
        print(f"  {kind:14}{carried}{first}{counts}")
    if redis_url:
        print(f"\n  {asyncio.run(told_by(redis_url))}")
    for kind in AIMS.keys() & measured.keys():
        ratio = typical(measured[kind], lambda r: r.cpu) / base
        if ratio > AIMS[kind] or typical(measured[kind], lambda r: statistics.median(r.first)) > FIRST:
            print(f"  {kind} misses its aim: {AIMS[kind]:g} x, {FIRST:g} s")
    print()


# Threads


def show_threads(port: int, rounds: int, streams: int) -> None:
    measured = rounds_of(port, ["async", "sync"], rounds, streams, light=True)
    print(f"{streams} streams of {TOKENS} tokens, {PACE * 1e3:.0f} ms each: {TOKENS * PACE:g} s at best\n")
    print("         first token, s     whole answer, s    CPU, s   light route, ms  threads")
    print("           p50     max       p50     max               p50     max")
    for kind, each in measured.items():
        first = (
            f"{typical(each, lambda r: statistics.median(r.first)):8.2f} {typical(each, lambda r: max(r.first)):7.2f}"
        )
        done = f"{typical(each, lambda r: r.p50):10.2f} {typical(each, lambda r: max(r.done)):7.2f}"
        median = typical(each, lambda r: statistics.median(r.light)) * 1e3
        light = f"{median:10.0f} {typical(each, lambda r: max(r.light)) * 1e3:7.0f}"
        threads = typical(each, lambda r: r.threads)
        print(f"  {kind:6}{first}{done}{typical(each, lambda r: r.cpu):9.2f}{light}{threads:9.0f}")
    for name, of in (("p50", lambda each: each.p50), ("max", lambda each: max(each.done))):
        sync, asynchronous = (typical(measured[kind], of) for kind in ("sync", "async"))
        ratio = sync / asynchronous
        print(f"\n  sync to async, {name}: {ratio:.2f}" + ("" if ratio <= AIM else f"   more than {AIM}"), end="")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", choices=["cost", "threads"])
    parser.add_argument("--readers", type=int, default=500)
    parser.add_argument("--streams", type=int, default=200)
    options = parser.parse_args()
    rounds = 1 if options.quick else 3
    with redis_server() as redis_url, server(redis_url) as port:
        if options.part != "threads":
            show_cost(redis_url, port, rounds, options.readers)
        if options.part != "cost":
            show_threads(port, rounds, options.streams)


if __name__ == "__main__":
    main()
