"""What a dead model at the head of a chain costs its readers: seconds to the first text, as a ratio to a healthy one's.

    python benchmarks/dead_primary.py            # 200 answers each, about a minute
    python benchmarks/dead_primary.py --quick    # 40 answers each

Two OpenAI-compatible servers in processes of their own: one answers, the other is dead. A healthy model alone and the
chain of both, with the policy's defaults, take turns answer by answer, so that both see the same machine; the mean is
over all answers, those included by which the circuit breaker comes to know that the model is dead. The last rows have a
breaker that probes the dead model several times while the answers are asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import multiprocessing
import socket
import statistics
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.overhead import read_request, response

UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
AIM = 1.2
PROBED_EVERY = 0.25  # seconds

_names = (f"model-{number}" for number in itertools.count())


def serve(ready: Any, body: bytes) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=32)
    ready.send(listener.getsockname()[1])
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0], body), daemon=True).start()


def answer(connection: socket.socket, body: bytes) -> None:
    with connection:
        read_request(connection)
        connection.sendall(body)


def started(body: bytes) -> tuple[multiprocessing.Process, str]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(theirs, body), daemon=True)
    process.start()
    return process, f"http://127.0.0.1:{ours.recv()}/v1"


def refusing() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def model(url: str) -> Any:
    from llama_index.llms.openai_like import OpenAILike

    # A name of its own, and so a circuit breaker of its own.
    return OpenAILike(model=next(_names), api_base=url, api_key="none", is_chat_model=True, max_retries=0)


async def first_text(llm: Any, is_async: bool) -> tuple[float, Any]:
    """Seconds to the first text of an answer that is read to its end, and its report."""
    from llama_index.core.llms import ChatMessage

    question = [ChatMessage(role="user", content="?")]
    began, first = time.perf_counter(), None
    if is_async:
        stream = await llm.astream_chat(question)
        async for chunk in stream:
            if first is None and chunk.delta:
                first = time.perf_counter() - began
    else:
        stream = llm.stream_chat(question)
        for chunk in stream:
            if first is None and chunk.delta:
                first = time.perf_counter() - began
    assert first is not None, "no text"
    return first, stream.report


async def compare(
    healthy: str, dead: str, is_async: bool, answers: int, policy: Any
) -> tuple[float, float, int, float]:
    """Mean seconds to the first text of both, requests to the dead model, and seconds that it took."""
    from llama_index_resilient_stream import ResilientLLM

    alone = ResilientLLM(model(healthy))
    chain = ResilientLLM(model(dead), fallbacks=[model(healthy)], policy=policy)
    other = ResilientLLM(model(dead), fallbacks=chain.fallbacks)  # not the one that is measured, nor its breaker
    for llm in (alone, ResilientLLM(chain.fallbacks[0]), other) * 3:  # imports, clients and connections
        await first_text(llm, is_async)
    seconds: dict[str, list[float]] = {"alone": [], "chain": []}
    requests, began = 0, time.monotonic()
    for _ in range(answers):
        seconds["alone"].append((await first_text(alone, is_async))[0])
        first, report = await first_text(chain, is_async)
        seconds["chain"].append(first)
        requests += len(report.attempts) - 1
    took = time.monotonic() - began
    return statistics.mean(seconds["alone"]), statistics.mean(seconds["chain"]), requests, took


def main() -> None:
    from llama_index_resilient_stream import CircuitBreaker, RecoveryPolicy

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    answers = 40 if parser.parse_args().quick else 200
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # the breaker says each time that it opens
    (up, healthy), (down, unavailable) = started(response(20)), started(UNAVAILABLE)
    probing = RecoveryPolicy(breaker=CircuitBreaker(seconds=PROBED_EVERY))
    rows = [
        ("503", unavailable, RecoveryPolicy()),
        ("refused", refusing(), RecoveryPolicy()),
        ("503, probed", unavailable, probing),
    ]
    print(f"Mean seconds to the first text, {answers} answers each\n")
    print("  dead model           healthy alone   chain with it   ratio   requests to it")
    for name, dead, policy in rows:
        for is_async in (False, True):
            alone, chain, requests, took = asyncio.run(compare(healthy, dead, is_async, answers, policy))
            most = policy.breaker.failures + int(took / policy.breaker.seconds)
            way = f"{name}, {'async' if is_async else 'sync'}"
            print(f"  {way:20} {alone:11.4f} s {chain:13.4f} s {chain / alone:9.2f}   {requests:4} of at most {most}")
    print(f"\nAim: {AIM}, and no request more than those by which it opens, and one in each probe interval.")
    up.terminate(), down.terminate()


if __name__ == "__main__":
    main()
