"""What resilience costs on a healthy stream: CPU per token and peak memory, ResilientLLM against the LLM it wraps.

    python benchmarks/overhead.py            # about four minutes
    python benchmarks/overhead.py --quick    # half a minute, rougher

An OpenAI-compatible server in a process of its own sends as fast as it can. Each measurement is a fresh process that
reads one stream; bare and resilient take turns, so that both see the same machine. CPU is user + system of the
reading process, less what it took to start. Memory is the peak of the whole process; chunks are thrown away when read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

KINDS = ("bare", "resilient", "unwatched")


def serve(ready: Any) -> None:
    """Answer each request with as many tokens as its `max_tokens` says."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=8)
    ready.send(listener.getsockname()[1])
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(response(read_request(connection)["max_tokens"]))


def read_request(connection: socket.socket) -> dict[str, Any]:
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)
    return dict(json.loads(body))


def response(tokens: int) -> bytes:
    def event(delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {
            "id": "1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [choice],
        }
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    body = event({"role": "assistant", "content": ""}) + event({"content": "word "}) * tokens + event({}, "stop")
    body += b"data: [DONE]\n\n"
    head = f"Content-Type: text/event-stream\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + body


def read_stream(kind: str, is_async: bool, tokens: int, url: str) -> dict[str, float]:
    """In a process of its own: read one stream, and say what it took."""
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM

    inner = OpenAILike(model="m", api_base=url, api_key="none", is_chat_model=True, max_tokens=tokens, max_retries=0)
    policy = RecoveryPolicy(first_token_timeout=None, idle_timeout=None) if kind == "unwatched" else RecoveryPolicy()
    llm = inner if kind == "bare" else ResilientLLM(inner, policy=policy)
    question = [ChatMessage(role="user", content="?")]

    async def aread() -> int:
        count = 0
        async for chunk in await llm.astream_chat(question):
            count += bool(chunk.delta)
        return count

    before = time.process_time()
    count = asyncio.run(aread()) if is_async else sum(bool(chunk.delta) for chunk in llm.stream_chat(question))
    cpu = time.process_time() - before
    assert count == tokens, f"{count} of {tokens} tokens"
    return {"cpu": cpu, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def measure(kind: str, is_async: bool, tokens: int, url: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--read", kind, "--tokens", str(tokens), "--url", url]
    done = subprocess.run(command + ["--async"] * is_async, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def compare_cpu(url: str, tokens: int, rounds: int) -> None:
    print(
        f"CPU for a healthy stream of {tokens:,} tokens, {rounds} rounds: ratio to the bare LLM, median (min - max)\n"
    )
    for is_async in (False, True):
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(rounds):
            for kind in KINDS if number % 2 else reversed(KINDS):
                seconds[kind].append(measure(kind, is_async, tokens, url)["cpu"])
                print(".", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        name = "async" if is_async else "sync "
        bare = statistics.median(seconds["bare"])
        print(f"  {name}  bare                     {bare / tokens * 1e6:6.1f} us a token")
        for kind, what in (("resilient", "ResilientLLM"), ("unwatched", "without watchdogs")):
            ratios = [ours / theirs for ours, theirs in zip(seconds[kind], seconds["bare"], strict=True)]
            low, high = min(ratios), max(ratios)
            print(f"  {name}  {what:22}   {statistics.median(ratios):6.2f}   ({low:.2f} - {high:.2f})")


def compare_memory(url: str, sizes: list[int]) -> None:
    print("\nPeak memory of the process, MB (sync, chunks thrown away)\n")
    print("  tokens      bare   resilient")
    for tokens in sizes:
        bare, ours = (measure(kind, False, tokens, url)["peak_mb"] for kind in ("bare", "resilient"))
        print(f"  {tokens:6,}  {bare:8.1f}    {ours:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--read", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--async", dest="is_async", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read_stream(options.read, options.is_async, options.tokens, options.url)))
        return
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/v1"
    compare_cpu(url, 5_000 if options.quick else options.tokens, 3 if options.quick else 7)
    compare_memory(url, [2_500, 10_000] if options.quick else [2_500, 5_000, 10_000, 20_000, 40_000, 80_000])
    server.terminate()


if __name__ == "__main__":
    main()
