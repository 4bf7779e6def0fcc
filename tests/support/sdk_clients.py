"""Whether the SDKs' own HTTP clients can be looked at with the LlamaIndex that is installed."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from llama_index.llms.openai import OpenAI

from llama_index_resilient_stream.transport.sdk_clients import observed


def _can_be_observed() -> bool:
    llm = OpenAI(model="gpt-4o-mini", api_key="x")
    return observed(llm, asynchronous=False) is not llm


needs_observed_sdk_clients = pytest.mark.skipif(
    not _can_be_observed(), reason="this LlamaIndex keeps its clients where a copy does not take them along"
)

LLMS_OPENAI = tuple(int(number) for number in version("llama-index-llms-openai").split(".")[:2])
"""The release of LlamaIndex's OpenAI classes: they differ in what they stumble over, and in what they ask."""
