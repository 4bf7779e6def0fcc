"""`show()` and `ashow()`: an answer as it comes, in a terminal and in a notebook."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex

from llama_index_resilient_stream import ConfigurationError, ResilientLLM, ashow, resilient, show
from llama_index_resilient_stream.engines.show import MARK, View
from llama_index_resilient_stream.report import Certainty, JoinDecision, Joint, Strategy, StreamReport, StreamStatus
from llama_index_resilient_stream.testing import Cut, Fail, ScriptedLLM
from support.readers import QUICK

TEXT = "The cable broke two miles down. They found both ends, joined them, and went on talking."


def healed() -> ResilientLLM:
    return ResilientLLM(ScriptedLLM(TEXT, script=[Cut(after=18)]), policy=QUICK)


def given_up() -> ResilientLLM:
    return ResilientLLM(ScriptedLLM(TEXT, script=[Cut(after=18), *[Fail(TimeoutError())] * 9]), policy=QUICK)


def index() -> VectorStoreIndex:
    return VectorStoreIndex.from_documents([Document(text=TEXT)], embed_model=MockEmbedding(embed_dim=8))


def show_query(llm: ResilientLLM) -> None:
    show(resilient(index().as_query_engine(llm=llm, streaming=True)).query("?"))


def show_chat(llm: ResilientLLM) -> None:
    show(resilient(index().as_chat_engine(llm=llm, chat_mode="context")).stream_chat("?"))


def ashow_query(llm: ResilientLLM) -> None:
    async def ask() -> None:
        await ashow(await resilient(index().as_query_engine(llm=llm, streaming=True)).aquery("?"))

    asyncio.run(ask())


def show_stream(llm: ResilientLLM) -> None:
    show(llm.stream_complete("?"))


def ashow_stream(llm: ResilientLLM) -> None:
    async def ask() -> None:
        await ashow(await llm.astream_complete("?"))

    asyncio.run(ask())


WAYS: list[Callable[[ResilientLLM], None]] = [show_query, show_chat, ashow_query, show_stream, ashow_stream]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_in_a_terminal_it_is_printed(way: Callable[[ResilientLLM], None], capsys: pytest.CaptureFixture[str]) -> None:
    way(healed())
    printed = capsys.readouterr().out
    assert printed.startswith(TEXT)
    assert "[complete | " in printed
    assert "healed: 1 fault" in printed


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_was_given_up_is_shown_and_said(
    way: Callable[[ResilientLLM], None], capsys: pytest.CaptureFixture[str]
) -> None:
    way(given_up())
    printed = capsys.readouterr().out
    assert printed.startswith(TEXT[:18])
    assert "The answer is not complete: Stream interrupted: TimeoutError" in printed


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Ask it first"):
        show(resilient(index().as_query_engine(llm=healed(), streaming=True)))


class Read:
    """A response that has come so far."""

    def __init__(self, *positions: int, status: StreamStatus = StreamStatus.STREAMING) -> None:
        joints = [
            Joint(n, at, Strategy.ASK, JoinDecision.ANCHOR, Certainty.VERIFIED) for n, at in enumerate(positions, 2)
        ]
        self.report = StreamReport(status=status, joints=joints)


@pytest.mark.parametrize(
    ("text", "position", "shown"),
    [
        pytest.param("sixteen hours", 3, f"six{MARK}teen hours", id="in a word"),
        pytest.param("one two", 7, f"one two{MARK}", id="at its end"),
        pytest.param("```\nx = 1\n", 7, "```\nx = 1\n", id="not in a code block"),
        pytest.param("~~~py\nx = 1\n", 8, "~~~py\nx = 1\n", id="nor in one with tildes"),
        pytest.param("```\nx\n```\nand more", 12, f"```\nx\n```\nan{MARK}d more", id="behind a code block"),
        pytest.param("Write `pip install` here", 10, "Write `pip install` here", id="not between backticks"),
        pytest.param("Write `pip` here", 13, f"Write `pip` h{MARK}ere", id="behind backticks"),
    ],
)
def test_where_it_was_joined_is_marked(text: str, position: int, shown: str) -> None:
    view = View(Read(position))
    view.add(text)
    assert view.markdown(over=True).startswith(shown + "\n\n<small>")


@pytest.mark.parametrize("fence", ["```", "~~~", "````"])
def test_a_code_block_that_is_open_does_not_swallow_the_line_below(fence: str) -> None:
    view = View(Read())
    view.add(f"Look:\n{fence}md\nx = 1")
    assert f"x = 1\n{fence}\n\n<small>streaming | 1 token</small>" in view.markdown(over=False)


def test_the_line_says_how_fast_it_goes() -> None:
    now = iter([0.0, *[2.0] * 9])
    view = View(Read(), clock=lambda: next(now))
    for token in ["one", "two", "three", "four"]:
        view.add(token)
    assert view.line(over=False) == "streaming | 4 tokens, 2 a second"


NOTEBOOK = """
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from tenacity import wait_none
from llama_index_resilient_stream import *
from llama_index_resilient_stream.testing import *
TEXT = {text!r}
index = VectorStoreIndex.from_documents([Document(text=TEXT)], embed_model=MockEmbedding(embed_dim=8))
def engine(*more):
    llm = ResilientLLM(ScriptedLLM(TEXT, script=[Cut(after=18), *more]), policy=RecoveryPolicy(wait=wait_none()))
    return resilient(index.as_query_engine(llm=llm, streaming=True))
"""
CELLS = {
    "show": 'show(engine().query("?"))',
    "last line": 'engine().query("?")',
    "read before": 'response = engine().query("?"); list(response.response_gen); response',
    "top-level await": 'await ashow(await engine().aquery("?"))',
    "given up": 'engine(*[Fail(TimeoutError())] * 9).query("?")',
    "report": 'response = engine().query("?"); str(response); response.report',
}
RUN = """
import json, sys, nbclient, nbformat
cells = [nbformat.v4.new_code_cell(source) for source in json.load(sys.stdin)]
notebook = nbformat.v4.new_notebook(cells=cells)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
json.dump([cell.outputs for cell in notebook.cells], sys.stdout)
"""


def test_in_a_notebook() -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    sources = [NOTEBOOK.format(text=TEXT), *CELLS.values()]
    done = subprocess.run([sys.executable, "-c", RUN], input=json.dumps(sources), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    outputs: dict[str, list[dict[str, Any]]] = dict(zip(CELLS, json.loads(done.stdout)[1:], strict=True))
    for cell in ("show", "last line", "top-level await"):
        [output] = outputs[cell]
        markdown = output["data"]["text/markdown"]
        assert markdown.startswith(TEXT[:18] + MARK + TEXT[18:]), cell
        assert "<small>complete | " in markdown
        assert "healed: 1 fault" in markdown
    [output] = outputs["read before"]
    assert output["data"]["text/markdown"] == TEXT + "\n\n*healed: 1 fault, 2 attempts*"
    [output] = outputs["given up"]
    assert output["data"]["text/markdown"].startswith(TEXT[:18] + "\n\n**The answer is not complete:**")
    [output] = outputs["report"]
    assert output["data"]["image/svg+xml"].startswith("<svg")
