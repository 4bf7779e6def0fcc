"""What waiting costs: CPU of waiting for a silent LLM and then reading its answer, as ratios to the plain LLM.

    python benchmarks/waiting.py            # 5 s of silence, about four minutes
    python benchmarks/waiting.py --quick    # 1 s, less than a minute, rougher

An OpenAI-compatible server in a process of its own sends its headers, is silent, and then sends the answer. Each
measurement is a fresh process that has read answers before, so that nothing is imported or opened on the clock; the
kinds take turns. CPU is user + system. Two ratios to the plain LLM, which needs next to nothing while it waits:

    waiting   what the silence alone adds: (the LLM's whole answer + own silence - the LLM's silence) / the LLM's answer
    answer    the whole answer, silence and tokens; a chat engine has LlamaIndex's writer and its events in it
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.overhead import read_request, response

KINDS = ("LLM", "ResilientLLM", "chat", "resilient chat")
NAMES = {
    "LLM": "plain LLM",
    "ResilientLLM": "ResilientLLM",
    "chat": "plain SimpleChatEngine",
    "resilient chat": "resilient(SimpleChatEngine)",
}
TOKENS = 200
AIM = 1.2
MARGIN = 0.3  # seconds at both ends of the silence in which there may still, or again, be work


def serve(ready: Any) -> None:
    """Answer each request; the model "silent-5" waits for five seconds between its headers and its first token."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=8)
    ready.send(listener.getsockname()[1])
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def answer(connection: socket.socket) -> None:
    with connection:
        model = read_request(connection)["model"]
        head, _, body = response(TOKENS).partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n")
        time.sleep(float(model.rpartition("-")[2]))
        connection.sendall(body)


def readers(kind: str, url: str) -> tuple[Any, Any, Any]:
    """Ways to read one answer, sync and async, and the LLM."""
    from llama_index.core.chat_engine import SimpleChatEngine
    from llama_index.core.llms import ChatMessage
    from llama_index.core.memory import ChatMemoryBuffer
    from llama_index.llms.openai_like import OpenAILike

    from llama_index_resilient_stream import ResilientLLM, resilient

    inner = OpenAILike(model="silent-0", api_base=url, api_key="none", is_chat_model=True, max_retries=0)
    llm = inner if kind in ("LLM", "chat") else ResilientLLM(inner)
    question = [ChatMessage(role="user", content="?")]

    def engine() -> Any:
        made = SimpleChatEngine.from_defaults(llm=llm, memory=ChatMemoryBuffer.from_defaults(token_limit=10**6))
        return resilient(made) if kind.startswith("resilient") else made

    def read() -> int:
        if kind in ("LLM", "ResilientLLM"):
            return sum(len(chunk.delta or "") for chunk in llm.stream_chat(question))
        response = engine().stream_chat("?")
        return sum(len(token) for token in response.response_gen)

    async def aread() -> int:
        count = 0
        if kind in ("LLM", "ResilientLLM"):
            async for chunk in await llm.astream_chat(question):
                count += len(chunk.delta or "")
            return count
        response = await engine().astream_chat("?")
        async for token in response.async_response_gen():
            count += len(token)
        return count

    return read, aread, inner


async def measure_here(kind: str, is_async: bool, seconds: float, url: str) -> dict[str, float]:
    read, aread, llm = readers(kind, url)

    async def cpu() -> float:
        before = time.process_time()
        count = await aread() if is_async else read()
        assert count == TOKENS * 5, f"{count} characters"
        return time.process_time() - before

    for _ in range(3):
        await cpu()
    llm.model = f"silent-{seconds:g}"
    looks: list[float] = []
    for at in (MARGIN, seconds - MARGIN):
        threading.Timer(at, lambda: looks.append(time.process_time())).start()
    total = await cpu()
    return {"total": total, "silence": (looks[1] - looks[0]) * seconds / (seconds - 2 * MARGIN)}


def measure(kind: str, is_async: bool, seconds: float, url: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", kind, "--seconds", str(seconds), "--url", url]
    done = subprocess.run(command + ["--async"] * is_async, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(is_async: bool, seconds: float, rounds: int, url: str) -> None:
    middle = medians(is_async, seconds, rounds, url)
    print(f"  {'async' if is_async else 'sync':30} {'silence':>11} {'answer':>11} {'waiting':>9} {'answer':>8}")
    base = middle["LLM"]
    for kind, cost in middle.items():
        waiting = (base["total"] + cost["silence"] - base["silence"]) / base["total"]
        note = "" if waiting <= AIM else f"   more than {AIM}"
        print(
            f"  {NAMES[kind]:30} {cost['silence'] * 1e3:8.1f} ms {cost['total'] * 1e3:8.1f} ms"
            f" {waiting:9.2f} {cost['total'] / base['total']:8.2f}{note}"
        )
    print()


def medians(is_async: bool, seconds: float, rounds: int, url: str) -> dict[str, dict[str, float]]:
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS if number % 2 else reversed(KINDS):
            found[kind].append(measure(kind, is_async, seconds, url))
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {kind: {of: statistics.median(each[of] for each in found[kind]) for of in found[kind][0]} for kind in KINDS}


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--async", dest="is_async", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(asyncio.run(measure_here(options.measure, options.is_async, options.seconds, options.url))))
        return
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/v1"
    seconds = 1.0 if options.quick else options.seconds
    print(f"CPU for {seconds:g} s of silence and {TOKENS} tokens after it, median of {1 if options.quick else 3}\n")
    for is_async in (False, True):
        compare(is_async, seconds, 1 if options.quick else 3, url)
    server.terminate()


if __name__ == "__main__":
    main()
