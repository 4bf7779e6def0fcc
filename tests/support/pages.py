"""Runs the Python blocks of a page in order, as its reader would paste them: python -m support.pages PAGE PROVIDER_URL

The names that a page takes for granted are there: an index, a model, an engine, a prompt. OpenAI is the given server.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def names_of_readers(url: str) -> dict[str, Any]:
    """Return what the reader of a page has already."""
    os.environ |= {"OPENAI_API_BASE": url, "OPENAI_API_KEY": "none", "IS_TESTING": "1"}
    from llama_index.core import Document, MockEmbedding, PromptTemplate, Settings, VectorStoreIndex
    from llama_index.llms.openai import OpenAI
    from tenacity import wait_none

    from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM
    from llama_index_resilient_stream.testing import Cut, ScriptedLLM

    Settings.embed_model = MockEmbedding(embed_dim=8)
    text = "The cable broke two miles down. They found both ends, joined them, and went on talking."
    return {
        "index": VectorStoreIndex.from_documents([Document(text=text)]),
        "llm": ResilientLLM(OpenAI("gpt-4o-mini", max_retries=0)),
        "primary": OpenAI("gpt-4o-mini", max_retries=0),
        "secondary": OpenAI("gpt-4o", max_retries=0),
        "flaky": ScriptedLLM(text, script=[Cut(after=20)]),
        "prompt": PromptTemplate("Where did the cable break?"),
        "quick": RecoveryPolicy(wait=wait_none()),
    }


async def run(page: str, text: str, names: dict[str, Any]) -> None:
    """Run the blocks of a page one after the other; `await` outside of a function works, as in a notebook."""
    for number, block in enumerate(BLOCK.findall(text), start=1):
        code = compile(block, f"{page}, block {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.isawaitable(result):
            await result


if __name__ == "__main__":
    path = Path(sys.argv[1])
    asyncio.run(run(path.name, path.read_text("utf-8"), {"__name__": "__page__", **names_of_readers(sys.argv[2])}))
