"""Integration x scenario x (sync, async): the promises with LlamaIndex's real classes, on the wire.

Those that are not installed are skipped by name; `nox -s integrations` installs them, in sets that go together. With
`PROVIDER_MATRIX=docs/providers.json` the outcomes are kept there, and `python tools/provider_matrix.py` writes them
into docs/providers.md.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM, StreamStatus
from support.broken_protocols import HEALED, SCENARIOS, Log, breaking
from support.readers import TEXT, Read, aread, read

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # what SDKs leave open, and do with old names

KEY = "sk-secret"
POLICY = RecoveryPolicy(wait=wait_none(), stop=stop_after_attempt(3), idle_timeout=1.0, first_token_timeout=20)
MATRIX = os.environ.get("PROVIDER_MATRIX")


def _class(package: str, name: str) -> Any:
    module = pytest.importorskip(f"llama_index.llms.{package}", reason=f"llama-index-llms-{package} is not installed")
    if not hasattr(module, name):
        pytest.skip(f"this llama-index-llms-{package} has no {name} yet")
    return getattr(module, name)


def _openai(package: str, name: str, **more: Any) -> Callable[[str], Any]:
    kind = {"model": "gpt-4o", "max_retries": 0, "timeout": 20, **more}
    return lambda url: _class(package, name)(api_key=KEY, api_base=f"{url}/v1", **kind)


def _azure(url: str) -> Any:
    settings = {"api_version": "2024-10-21", "engine": "m", "azure_endpoint": url, "max_retries": 0}
    return _class("azure_openai", "AzureOpenAI")(model="gpt-4o", api_key=KEY, **settings)


def _anthropic(url: str) -> Any:
    cls = _class("anthropic", "Anthropic")
    if int(importlib.import_module("anthropic").__version__.partition(".")[0]) > 0:
        pytest.skip("llama-index-llms-anthropic does not work with this SDK")
    return cls(model="claude-sonnet-4-5", api_key=KEY, base_url=url, max_retries=0)


def _google(url: str) -> Any:
    options = {"base_url": url, "timeout": 20_000}
    known = {"context_window": 9999, "max_tokens": 1000}
    return _class("google_genai", "GoogleGenAI")(
        model="gemini-2.5-flash", api_key=KEY, http_options=options, max_retries=0, **known
    )


def _bedrock(url: str) -> Any:
    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": KEY, "region_name": "us-east-1"}
    return _class("bedrock_converse", "BedrockConverse")(
        model="anthropic.claude-3-5-sonnet-20240620-v1:0", endpoint_url=url, max_retries=1, timeout=20, **keys
    )


def _cohere(url: str) -> Any:
    llm = _class("cohere", "Cohere")(model="command-r", api_key=KEY, max_retries=1)
    llm._client = importlib.import_module("cohere").Client(KEY, base_url=url, timeout=20)
    return llm


def _lite(url: str) -> Any:
    kind = {"additional_kwargs": {"timeout": 20, "num_retries": 0}, "max_retries": 1}
    return _class("litellm", "LiteLLM")(model="openai/gpt-4o", api_key=KEY, api_base=f"{url}/v1", **kind)


LLMS: dict[str, Callable[[str], Any]] = {
    "OpenAI": _openai("openai", "OpenAI"),
    "OpenAIResponses": _openai("openai", "OpenAIResponses"),
    "OpenAILike": _openai("openai_like", "OpenAILike", is_chat_model=True),
    "AzureOpenAI": _azure,
    "DeepSeek": _openai("deepseek", "DeepSeek", model="deepseek-chat"),
    "Groq": _openai("groq", "Groq", model="llama-3.3-70b-versatile"),
    "OpenRouter": _openai("openrouter", "OpenRouter"),
    "TogetherLLM": _openai("together", "TogetherLLM"),
    "Fireworks": lambda url: _class("fireworks", "Fireworks")(
        model="accounts/fireworks/models/firefunction-v1", api_key=KEY, api_base=f"{url}/v1", max_retries=0
    ),
    "NVIDIA": lambda url: _class("nvidia", "NVIDIA")(
        model="m", api_key=KEY, base_url=f"{url}/v1", is_chat_model=True, max_retries=0
    ),
    "Anthropic": _anthropic,
    "GoogleGenAI": _google,
    "BedrockConverse": _bedrock,
    "MistralAI": lambda url: _class("mistralai", "MistralAI")(api_key=KEY, endpoint=url, max_retries=0),
    "Ollama": lambda url: _class("ollama", "Ollama")(model="m", base_url=url, context_window=4096),
    "Cohere": _cohere,
    "LiteLLM": _lite,
    "HuggingFaceInferenceAPI": lambda url: _class("huggingface_api", "HuggingFaceInferenceAPI")(
        model=f"{url}/v1", token=KEY, task="conversational"
    ),
    "LMStudio": lambda url: _class("lmstudio", "LMStudio")(model_name="m", base_url=f"{url}/v1"),
    "Perplexity": lambda url: _class("perplexity", "Perplexity")(
        model="sonar", api_key=KEY, api_base=f"{url}/v1", max_retries=1
    ),
}
IMPOSSIBLE = {("MistralAI", "filter"), ("Ollama", "filter")}  # their protocols have no such word

STATUS = {"length": StreamStatus.LENGTH, "filter": StreamStatus.FILTERED, "leave": StreamStatus.CANCELLED}


@pytest.fixture
def server() -> Iterator[tuple[str, Log]]:
    with breaking() as running:
        yield running
    gc.collect()  # the clients that nobody closes, while this test's filter of warnings holds


@pytest.fixture(params=["sync", "async"])
def half(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cell(name: str, scenario: str, half: str, request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    outcome = getattr(request.node, "outcome_of_call", None)
    if MATRIX and outcome in ("passed", "failed"):
        path = Path(MATRIX)
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        kept.setdefault(name, {}).setdefault(scenario, {})[half] = outcome == "passed"
        path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _read(llm: Any, half: str, take: int | None) -> Read:
    import asyncio

    return read(llm, take=take) if half == "sync" else asyncio.run(aread(llm, take=take))


@pytest.mark.usefixtures("cell")
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("name", LLMS)
def test_the_promises_hold(name: str, scenario: str, half: str, server: tuple[str, Log]) -> None:
    if (name, scenario) in IMPOSSIBLE:
        pytest.skip("its protocol has no word for that")
    url, log = server
    llm = ResilientLLM(LLMS[name](f"{url}/{scenario}"), policy=POLICY)
    result = _read(llm, half, take=3 if scenario == "leave" else None)
    left = time.monotonic()
    assert result.error is None
    assert result.report.status is STATUS.get(scenario, StreamStatus.COMPLETE)
    assert KEY not in f"{result.report}{llm!r}"
    if scenario == "leave":
        while log.gone is None and time.monotonic() - left < 2:
            time.sleep(0.01)
        assert log.gone is not None, f"the server wrote {log.written} pieces to nobody"
        assert log.gone - left < 1
        return
    lead = "\n\n" if scenario == "blank" else ""
    assert result.text == lead + TEXT
    assert len(log.bodies) == (2 if scenario in HEALED else 1)
    assert (result.whole or "") == lead + TEXT
