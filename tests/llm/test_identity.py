"""What caches know an LLM by: another model or setting is another LLM, and no credential is in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llama_index.core.extractors import KeywordExtractor
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.llms.llm import LLM
from llama_index.core.schema import TextNode
from llama_index.llms.openai import OpenAI
from llama_index.llms.openai_like import OpenAILike

from llama_index_resilient_stream import ResilientLLM
from llama_index_resilient_stream.llm.identity import identity_of
from llama_index_resilient_stream.testing import ScriptedLLM
from support.readers import QUICK

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def node() -> TextNode:
    return TextNode(text="alpha", id_="a")


def key_of(llm: LLM) -> str:
    return get_transformation_hash([node()], KeywordExtractor(llm=llm))


def wrapped(**kwargs: Any) -> ResilientLLM:
    return ResilientLLM(ScriptedLLM("one", **kwargs), policy=QUICK)


@pytest.mark.parametrize(
    "other",
    [
        wrapped(model="b"),
        wrapped(temperature=0.9),
        wrapped(system_prompt="Be brief."),
        ResilientLLM(ScriptedLLM("one"), system_prompt="Be brief."),
        ResilientLLM(ScriptedLLM("one"), fallbacks=[ScriptedLLM("one")]),
        ResilientLLM(ScriptedLLM("one"), fallbacks=[ScriptedLLM("one", temperature=0.9)]),
        ResilientLLM(OpenAI("gpt-4o", api_key="k")),
    ],
    ids=["model", "temperature", "its-prompt", "our-prompt", "fallback", "fallback-temperature", "class"],
)
def test_another_llm_has_another_key(other: ResilientLLM) -> None:
    assert key_of(other) != key_of(wrapped())


def test_a_fallback_s_settings_count() -> None:
    keys = {key_of(ResilientLLM(ScriptedLLM(""), fallbacks=[ScriptedLLM("", temperature=t)])) for t in (0.0, 0.9)}
    assert len(keys) == 2


def test_the_same_settings_have_the_same_key() -> None:
    assert key_of(wrapped()) == key_of(wrapped())
    assert key_of(ResilientLLM(OpenAI("gpt-4o", api_key="a"))) == key_of(ResilientLLM(OpenAI("gpt-4o", api_key="b")))


@pytest.mark.parametrize("setting", [{"model": "b"}, {"temperature": 0.9}], ids=["model", "temperature"])
def test_a_cache_never_serves_another_model_s_results(setting: dict[str, Any]) -> None:
    cache = IngestionCache()
    first, second, again = ScriptedLLM("one"), ScriptedLLM("two", **setting), ScriptedLLM("one")
    found = []
    for llm in (first, second, again):
        extractor = KeywordExtractor(llm=ResilientLLM(llm, policy=QUICK), num_workers=1, show_progress=False)
        (done,) = IngestionPipeline(transformations=[extractor], cache=cache).run(nodes=[node()])
        found.append((len(llm.calls), done.metadata["excerpt_keywords"]))
    assert found == [(1, "one"), (1, "two"), (0, "one")]


SECRETS = {
    "api_key": "sk-secret",
    "default_headers": {"Authorization": "Bearer sk-secret"},
    "additional_kwargs": {
        "user": "me",
        "extra_headers": {"X-Api-Key": "sk-secret"},
        "extra_body": {"accessToken": "sk-secret", "top_k": 3, "nested": [{"password": "sk-secret"}]},
        "extra_query": {"key": "sk-secret"},
    },
    "api_base": "https://me:sk-secret@host:8000/v1?key=sk-secret",
}


@pytest.mark.parametrize("made", [OpenAI, OpenAILike])
def test_no_credential_is_in_it(made: Any) -> None:
    llm = ResilientLLM(made(model="gpt-4o", **SECRETS), fallbacks=[made(model="gpt-4", **SECRETS)])
    extractor = KeywordExtractor(llm=llm)
    dumped = getattr(llm, "model_dump", llm.dict)()
    texts = [str(llm.to_dict()), str(dumped), llm.to_json(), repr(llm), str(extractor.to_dict())]
    assert [text for text in texts if "sk-secret" in text] == []
    known = llm.to_dict()["llm"]
    assert known["api_base"] == "https://host:8000/v1"
    assert known["additional_kwargs"]["extra_body"]["top_k"] == 3


def test_it_is_plain_data() -> None:
    class Odd:
        pass

    llm = OpenAI("gpt-4o", api_key="k", max_tokens=7, additional_kwargs={"a": Odd(), "b": {1, 2}, "c": (1, Odd)})
    known = identity_of(llm)
    assert json.loads(json.dumps(known)) == known
    assert known["max_tokens"] == 7
    assert known["additional_kwargs"]["a"] == "Odd"
