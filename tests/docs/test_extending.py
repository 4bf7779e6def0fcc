"""CONTRIBUTING.md and docs/extending.md: their code runs, and what they point to is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.llms import MockLLM

from llama_index_resilient_stream import ResilientLLM
from llama_index_resilient_stream.providers import provider_of

ROOT = Path(__file__).parent.parent.parent
EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", EXTENDING, re.DOTALL)


@pytest.mark.parametrize(
    "block", BLOCKS, ids=[re.findall(r"^## (.*)$", EXTENDING, re.MULTILINE)[n] for n in range(len(BLOCKS))]
)
def test_an_example_of_the_page_runs(block: str) -> None:
    my_gateway = type("MyGateway", (MockLLM,), {})
    names: dict[str, Any] = {
        "MyGateway": my_gateway,
        "MyGatewayError": type("MyGatewayError", (Exception,), {}),
        "gateway": my_gateway(),
        "other": MockLLM(),
        "llm": MockLLM(),
        "__name__": "example",
    }
    if "ResilientLLM(llm" in block:  # the page wraps its LLM twice, each time from the start
        block = block.replace("llm = ResilientLLM(llm", "resilient_llm = ResilientLLM(llm")
    exec(compile(block, "extending.md", "exec"), names)
    if "register_provider" in block:
        assert provider_of(my_gateway).sends_finish_reason is True
        assert isinstance(names["llm"], ResilientLLM)


def test_it_opens_with_the_table() -> None:
    assert re.match(r"# Contributing\n\n## To teach it X, edit or pass Y\n\n\|", CONTRIBUTING)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`([\w./]+(?:\.py|/))`", CONTRIBUTING + EXTENDING))), ids=lambda path: path
)
def test_what_is_pointed_to_is_there(path: str) -> None:
    assert (ROOT / path).exists() or (ROOT / "llama_index_resilient_stream" / path).exists()


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/extending.md", "docs/public_api.md"])
def test_what_is_linked_to_is_there(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_the_words_of_the_table_are_in_the_code() -> None:
    for words in re.findall(r"`(_?[A-Z]{3,}[A-Z_]*)`", CONTRIBUTING):
        files = (ROOT / "llama_index_resilient_stream").rglob("*.py")
        assert any(f"{words}:" in text or f"{words} =" in text for text in map(Path.read_text, files)), words
