"""Settings of a ResilientLLM: checked wherever they are given; what is the wrapped LLM's reaches it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.llms.openai import OpenAI
from tenacity import wait_none

from llama_index_resilient_stream import (
    ConfigurationError,
    Continuation,
    RecoveryPolicy,
    ResilientLLM,
    StreamStatus,
    TokenEvent,
)
from llama_index_resilient_stream.providers import Provider
from llama_index_resilient_stream.recovery.continuation import Turn
from llama_index_resilient_stream.testing import Cut, Fail, ScriptedLLM

TEXT = "The cable broke two miles down. They found both ends, joined them, and went on talking to the other side."
QUICK = RecoveryPolicy(wait=wait_none())
RESET = ConnectionResetError("reset")


def texts(llm: ResilientLLM) -> str:
    return "".join(response.delta or "" for response in llm.stream_chat([ChatMessage(content="?")]))


class Own(Continuation):
    """A continuation whose words are computed."""

    def turns(self, partial_text: str) -> tuple[Turn, ...]:
        return Turn("assistant", partial_text), Turn("user", f"[{len(partial_text)}] begin with: {self.anchor('')}")

    def anchor(self, partial_text: str) -> str:
        return partial_text[-5:]


class Numbered(Continuation):
    def anchor(self, partial_text: str) -> Any:
        return len(partial_text)


class Shouting(Continuation):
    def turns(self, partial_text: str) -> Any:
        return ("go", "on")


class Failing(Continuation):
    def turns(self, partial_text: str) -> Any:
        raise KeyError("wording")


WRONG = {
    "policy-number": ("policy", 3, r"policy must be a RecoveryPolicy, not int.*policy=RecoveryPolicy\("),
    "policy-class": ("policy", RecoveryPolicy, r"not type.*policy=RecoveryPolicy\("),
    "policy-dict": ("policy", {"deadline": 3}, "not dict"),
    "continuation-word": ("continuation", "beg", "'auto', 'ask', 'prefill'"),
    "continuation-list": ("continuation", ["ask"], "'auto', 'ask', 'prefill'"),
    "continuation-anchor": ("continuation", Numbered(), r"Numbered\.anchor\(\) returned int"),
    "continuation-turns": ("continuation", Shouting(), r"Shouting\.turns\(\) returned tuple.*Turn\('assistant'"),
    "continuation-raises": ("continuation", Failing(), r"Failing\.turns\(partial_text\) raised KeyError"),
    "fallbacks-llm": ("fallbacks", MockLLM(), r"fallbacks=\[OpenAI"),
    "fallbacks-names": ("fallbacks", ["gpt-4o"], "str object"),
    "fallbacks-number": ("fallbacks", 3, "not int"),
    "callbacks-number": ("callbacks", 42, r"callbacks=\[lambda event"),
    "callbacks-numbers": ("callbacks", [42], "on_token, on_fault"),
    "callbacks-word": ("callbacks", "print", r"callbacks=\[lambda event"),
    "callbacks-class": ("callbacks", [dict], "on_token, on_fault"),
    "provider-word": ("provider", ["openai"], r"provider=\[Provider\("),
    "provider-number": ("provider", 3, r"Pass a Provider"),
}


@pytest.mark.parametrize(("name", "value", "says"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("how", ["constructor", "assignment", "bind"])
def test_a_wrong_setting_is_refused_at_once(how: str, name: str, value: Any, says: str) -> None:
    llm = ResilientLLM(MockLLM())
    before = getattr(llm, name)
    ways = {
        "constructor": lambda: ResilientLLM(MockLLM(), **{name: value}),
        "assignment": lambda: setattr(llm, name, value),
        "bind": lambda: llm.bind(**{name: value}),
    }
    if how == "bind" and name in ("fallbacks", "provider"):
        how = "constructor"
    with pytest.raises(ConfigurationError, match=says):
        ways[how]()
    assert getattr(llm, name) is before


@pytest.mark.parametrize("wrong", ["gpt-4o", None, 3, OpenAI], ids=["name", "none", "number", "class"])
def test_the_wrapped_llm_can_only_be_replaced_by_an_llm(wrong: Any) -> None:
    llm = ResilientLLM(MockLLM())
    with pytest.raises(ConfigurationError, match=r"ResilientLLM\(OpenAI"):
        llm.llm = wrong


def test_settings_can_be_assigned() -> None:
    first, second = ScriptedLLM("", [Fail(RESET)] * 9), ScriptedLLM(TEXT)
    llm = ResilientLLM(first, policy=QUICK)
    seen: list[str] = []
    llm.fallbacks = [second]  # type: ignore[assignment]
    llm.callbacks = lambda event: seen.append(event.text)  # type: ignore[assignment]
    llm.policy = RecoveryPolicy(wait=wait_none(), max_attempts=5)
    llm.continuation = "prefill"
    assert texts(llm) == "".join(seen) == TEXT
    assert llm.fallbacks == (second,)
    llm.llm = ScriptedLLM("Another.")
    llm.fallbacks = ()
    llm.callbacks = ()
    assert texts(llm) == "Another."


def test_what_was_learned_of_a_model_stays_when_others_are_assigned() -> None:
    first, second = ScriptedLLM(TEXT), ScriptedLLM(TEXT)
    llm = ResilientLLM(first)
    texts(llm)
    learned = llm._learned[0]
    llm.fallbacks = (second, first)
    assert llm._learned[0] is llm._learned[2] is learned
    assert llm._learned[1] is not learned


@pytest.mark.parametrize("how", ["object", "function"])
def test_one_callback_needs_no_list(how: str) -> None:
    seen: list[str] = []

    class Meter:
        def on_token(self, event: TokenEvent) -> None:
            seen.append(event.text)

    texts(ResilientLLM(ScriptedLLM(TEXT), callbacks=Meter() if how == "object" else Meter().on_token))
    assert "".join(seen) == TEXT


# The wrapped LLM's own


def test_what_is_set_on_the_wrapper_reaches_the_wrapped_llm() -> None:
    inner = OpenAI(model="gpt-4o-mini", api_key="k")
    llm = ResilientLLM(inner, fallbacks=[OpenAI(model="gpt-4o", api_key="k", temperature=0.7)])
    llm.temperature, llm.max_tokens, llm.model = 0.25, 77, "gpt-4-turbo"
    llm.additional_kwargs = {"seed": 3}
    assert (inner.temperature, inner.max_tokens, inner.model) == (0.25, 77, "gpt-4-turbo")
    assert inner.additional_kwargs == llm.additional_kwargs == {"seed": 3}
    assert llm.fallbacks[0].temperature == 0.7
    assert llm.metadata.model_name == "gpt-4-turbo"
    assert "temperature" not in vars(llm)


@pytest.mark.parametrize("wrapped", [MockLLM(), ScriptedLLM("x")], ids=["mock", "scripted"])
def test_a_misspelt_name_is_said_to_be_ours(wrapped: Any) -> None:
    llm = ResilientLLM(wrapped)
    says = rf"Neither ResilientLLM nor the {type(wrapped).__name__} in it has 'polcy'. Did you mean policy\?"
    with pytest.raises(AttributeError, match=says):
        _ = llm.polcy
    with pytest.raises(ConfigurationError, match=says):
        llm.polcy = RecoveryPolicy()
    assert not hasattr(llm, "polcy")


def test_a_misspelt_field_of_the_wrapped_llm() -> None:
    with pytest.raises(ConfigurationError, match=r"'temprature'. Did you mean temperature\?"):
        ResilientLLM(OpenAI(api_key="k")).temprature = 0.1


def test_a_property_that_fails_says_so_itself() -> None:
    class Broken(ScriptedLLM):
        @property
        def price(self) -> float:
            raise AttributeError("no price list")

    with pytest.raises(AttributeError, match="no price list"):
        _ = ResilientLLM(Broken("x")).price


PROMPT_FIELDS = {
    "system_prompt": "Be brief.",
    "completion_to_prompt": lambda prompt: f"<{prompt}>",
    "messages_to_prompt": lambda messages: "all of it",
    "query_wrapper_prompt": PromptTemplate("<{query_str}>"),
    "callback_manager": CallbackManager(),
}


@pytest.mark.parametrize(("name", "value"), PROMPT_FIELDS.items(), ids=PROMPT_FIELDS)
@pytest.mark.parametrize("way", ["as it is", "bound", "copied", "deep"])
def test_prompt_fields_set_on_the_wrapped_llm_later_count(way: str, name: str, value: Any) -> None:
    inner = ScriptedLLM("Aye.")
    llm = ResilientLLM(inner)
    if way != "deep":
        llm = {"as it is": lambda: llm, "bound": llm.bind, "copied": lambda: copy.copy(llm)}[way]()
        setattr(inner, name, value)
        assert getattr(llm, name) is value
        return
    llm = copy.deepcopy(llm)
    setattr(llm.llm, name, value)
    assert getattr(llm, name) is value
    assert getattr(inner, name) is not value


def test_prompt_fields_of_the_wrapper_come_first() -> None:
    inner = ScriptedLLM("Aye.", system_prompt="You are a pirate.")
    llm = ResilientLLM(inner, system_prompt="You are a parrot.")
    inner.system_prompt = "You are a sailor."
    assert llm.system_prompt == llm.bind().system_prompt == "You are a parrot."
    llm.system_prompt = "You are a cook."
    assert llm.predict(PromptTemplate("Hello")) == "Aye."
    assert inner.calls[-1].messages[0].content == "You are a cook."
    assert inner.system_prompt == "You are a sailor."


def test_a_system_prompt_set_on_the_wrapped_llm_later_is_sent() -> None:
    inner = ScriptedLLM("Aye.")
    llm = ResilientLLM(inner)
    inner.system_prompt = "You are a pirate."
    llm.predict(PromptTemplate("Hello"))
    assert [message.content for message in inner.calls[-1].messages] == ["You are a pirate.", "Hello"]


def test_private_helpers_of_the_wrapped_llm_can_be_called() -> None:
    inner = OpenAI(model="gpt-4o-mini", api_key="k", max_tokens=9)
    llm = ResilientLLM(inner)
    assert llm._get_model_name() == inner._get_model_name()
    assert llm._get_model_kwargs() == inner._get_model_kwargs()
    for private in ("_client", "_http_client", "_no_such_thing"):
        with pytest.raises(AttributeError):
            getattr(llm, private)


def test_private_state_is_ours() -> None:
    bound = ResilientLLM(ScriptedLLM("x")).bind()
    assert bound._calls is None


@pytest.mark.parametrize("load", [lambda llm: llm.from_dict(llm.to_dict()), lambda llm: llm.from_json(llm.to_json())])
def test_what_cannot_be_loaded_says_why(load: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"no credentials and no policy.*OpenAI\.from_dict"):
        load(ResilientLLM(OpenAI(api_key="k")))


class Ours(ResilientLLM):
    """A subclass of a user's."""


def test_a_bound_subclass_is_one() -> None:
    assert type(Ours(ScriptedLLM("x")).bind(policy=QUICK)) is Ours


# Continuations of a user's own


def test_a_subclass_of_continuation_is_used() -> None:
    own = Own()
    inner = ScriptedLLM(TEXT, [Cut(50, RESET)])
    assert texts(ResilientLLM(inner, policy=QUICK, continuation=own)) == TEXT
    assert inner.calls[1].messages[-1].content == "[50] begin with: "


def test_a_subclass_stays_one_where_the_model_needs_another_strategy() -> None:
    class WithState(Continuation):
        def __init__(self, tone: str) -> None:
            super().__init__("append")
            object.__setattr__(self, "tone", tone)

        def turns(self, partial_text: str) -> tuple[Turn, ...]:
            return Turn("assistant", partial_text), Turn("user", f"Go on, {self.tone}.")  # type: ignore[attr-defined]

        def anchor(self, partial_text: str) -> str:
            return ""

    inner = ScriptedLLM(TEXT, [Cut(50, RESET)])
    texts(ResilientLLM(inner, policy=QUICK, continuation=WithState("calmly")))
    assert inner.calls[1].messages[-1].content == "Go on, calmly."


# Providers


def test_a_provider_of_its_own_counts_for_one_instance() -> None:
    known = ScriptedLLM(TEXT, [Cut(50)] * 9)
    silent = ResilientLLM(known, policy=QUICK, provider=Provider(sends_finish_reason=False))
    stream = silent.stream_chat([ChatMessage(content="?")])
    assert "".join(response.delta or "" for response in stream) == TEXT[:50]
    assert stream.report.status is StreamStatus.UNKNOWN
    assert texts(ResilientLLM(ScriptedLLM(TEXT, [Cut(50)]), policy=QUICK)) == TEXT


@pytest.mark.parametrize("way", ["bind", "copy", "pickle", "assigned"])
def test_a_provider_of_its_own_stays(way: str) -> None:
    provider = Provider(sends_finish_reason=False)
    llm = ResilientLLM(ScriptedLLM(TEXT), provider=provider)
    if way == "assigned":
        llm = ResilientLLM(ScriptedLLM(TEXT))
        llm.provider = provider
    ways = {"bind": llm.bind, "copy": lambda: copy.copy(llm), "pickle": lambda: pickle.loads(pickle.dumps(llm))}
    assert ways.get(way, lambda: llm)().provider == (provider,)


def test_providers_of_fallbacks_stand_in_their_order() -> None:
    first, second = ScriptedLLM("", [Fail(RESET)] * 9), ScriptedLLM(TEXT, [Cut(50)] * 9)
    told = [None, Provider(sends_finish_reason=False)]
    stream = ResilientLLM(first, fallbacks=[second], policy=QUICK, provider=told).stream_complete("?")
    assert "".join(response.delta or "" for response in stream) == TEXT[:50]


def test_a_field_named_provider_of_the_wrapped_llm_answers() -> None:
    class Hosted(ScriptedLLM):
        provider: str = "fal-ai"

    inner = Hosted(TEXT)
    llm = ResilientLLM(inner)
    assert llm.provider == "fal-ai"
    llm.provider = "together"
    assert inner.provider == "together"
    assert texts(llm) == TEXT


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strategy": "nope"}, "'nope' is unknown. Use one of 'ask'"),
        ({"strategy": None}, "None is unknown"),
        ({"wording": 3}, "wording is 3"),
        ({"anchor_length": 0}, "anchor_length=40"),
        ({"anchor_length": "40"}, "anchor_length=40"),
        ({"anchor_length": True}, "anchor_length=40"),
        ({"keeps_trailing_space": "no"}, "keeps_trailing_space=False"),
        ({"extra": ["x"]}, r"extra=\{"),
    ],
)
def test_a_continuation_that_cannot_work_says_the_line_that_does(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Continuation(**settings)
