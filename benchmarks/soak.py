"""What many answers leave behind: memory, threads, sockets and tasks after every thousand, half of them given up.

    python benchmarks/soak.py                # 5,000 answers, a few minutes
    python benchmarks/soak.py --quick        # 1,000 answers

Every second answer is cut more often than the policy allows, and is given up; of the others one in three is healed.
Query and chat engines, synchronous and asynchronous, in turns, over a server on a real socket. The first 500 answers
are not counted: caches fill. Exit status 1 where something grows, or where fewer answers were given up or healed.

The chats keep their messages in a plain store. LlamaIndex's default one is a database with a thread of its own for each
chat, which ends when the garbage collector next passes by, also without this package. More of them wait for that where
answers fail, as an exception keeps its answer until then, LlamaIndex's own one too. It would hide what is ours.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llama_index.core import Document, MockEmbedding, SummaryIndex
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.storage.chat_store import SimpleChatStore
from llama_index.llms.openai_like import OpenAILike
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM, StreamInterruptedError, StreamStatus, resilient
from llama_index_resilient_stream.testing import FAULTS, FaultServer

TEXT = "Two ends of a cable were found on the ocean floor, two miles down, and joined on deck. " * 4
POLICY = RecoveryPolicy(stop=stop_after_attempt(2), wait=wait_none())
WARM_UP = 500  # answers
GROWTH = 2.0  # kilobytes an answer may leave behind: an allocator's, not an answer's


def faults() -> Iterator[Any]:
    """Given up, whole, given up, healed, given up, whole, ..."""
    cut = FAULTS["reset"]
    for healed in cycle([False, True, False]):
        yield cut.at(40)
        yield cut.at(0)  # twice without progress: given up
        if healed:
            yield cut.at(30)
        yield None


class Load:
    """One server, one index, and four ways to ask."""

    def __init__(self, server: FaultServer) -> None:
        inner = OpenAILike(model="m", api_base=server.url, api_key="x", is_chat_model=True, max_retries=0)
        self.llm = ResilientLLM(inner, policy=POLICY)
        self.index = SummaryIndex.from_documents([Document(text=TEXT)], embed_model=MockEmbedding(8))
        self.given_up = self.whole = self.healed = 0

    def query_engine(self) -> Any:
        return resilient(self.index.as_query_engine(llm=self.llm, streaming=True))

    def chat_engine(self) -> Any:
        memory = ChatMemoryBuffer.from_defaults(token_limit=1_000, chat_store=SimpleChatStore())
        return resilient(SimpleChatEngine.from_defaults(llm=self.llm, memory=memory))

    def ask(self) -> None:
        """Synchronously: a query, then a chat."""
        self.read(self.query_engine().query("?"))
        self.read(self.chat_engine().stream_chat("?"))

    def read(self, response: Any) -> None:
        with suppress(StreamInterruptedError):
            for _ in response.response_gen:
                pass
        self.count(response)

    async def aask(self) -> None:
        """Asynchronously: a query, then a chat."""
        await self.aread(await self.query_engine().aquery("?"))
        await self.aread(await self.chat_engine().astream_chat("?"))

    async def aread(self, response: Any) -> None:
        with suppress(StreamInterruptedError):
            async for _ in response.async_response_gen():
                pass
        self.count(response)

    def count(self, response: Any) -> None:
        report = response.report
        if report.status is StreamStatus.INTERRUPTED:
            self.given_up += 1
        elif report.faults:
            self.healed += 1
        else:
            self.whole += 1


def measured() -> tuple[float, int, int, int]:
    """Resident memory in kilobytes; threads; open files; tasks of the loop."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(os.listdir("/proc/self/fd"))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024, threading.active_count(), files, len(asyncio.all_tasks())


async def soak(answers: int) -> bool:
    with FaultServer(TEXT, faults=islice(faults(), 4 * answers)) as server:
        load = Load(server)
        done, first = 0, None
        print(f"{'answers':>8} {'given up':>9} {'healed':>7} {'memory':>10} {'threads':>8} {'files':>6} {'tasks':>6}")
        marks = iter([WARM_UP, *range(WARM_UP + answers // 5, answers + 1, answers // 5), answers])
        mark = next(marks)
        while done < answers:
            await asyncio.to_thread(load.ask)
            await load.aask()
            done += 4
            server.requests.clear()  # what the server remembers is not ours
            if done >= mark:
                now = measured()
                first = first or now
                memory, threads, files, tasks = now
                print(
                    f"{done:8,} {load.given_up:9,} {load.healed:7,} {memory / 1024:7.1f} MB",
                    f"{threads:8} {files:6} {tasks:6}",
                    flush=True,
                )
                mark = next(marks, answers + 1)
    assert first is not None
    growth = (now[0] - first[0]) / (answers - WARM_UP)
    print(
        f"\n{growth:+.2f} kB an answer;",
        f"threads {now[1] - first[1]:+}, files {now[2] - first[2]:+}, tasks {now[3] - first[3]:+}",
    )
    tells = load.given_up >= answers * 0.45 and load.healed >= answers * 0.1
    return tells and growth < GROWTH and now[1] <= first[1] + 2 and now[2] <= first[2] + 4 and now[3] <= first[3]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 answers")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    return 0 if asyncio.run(soak(1_000 if options.quick else 5_000)) else 1


if __name__ == "__main__":
    sys.exit(main())
