"""Packages that pip lets be installed together, and that cannot work."""

from __future__ import annotations

import pytest
from llama_index.core.llms import MockLLM

from llama_index_resilient_stream import ResilientLLM, StreamInterruptedError
from llama_index_resilient_stream.compat import versions
from llama_index_resilient_stream.compat.versions import cannot_work, version_of


class Anthropic(MockLLM):
    """Fails as llama-index-llms-anthropic 0.12 does with anthropic 2."""

    def stream_chat(self, messages: object, **kwargs: object) -> object:
        raise TypeError("Cannot instantiate typing.Union")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    found = dict(zip(("llama-index-llms-anthropic", "anthropic"), request.param, strict=True))
    monkeypatch.setattr(versions, "version_of", found.get)


@pytest.mark.parametrize(
    ("installed", "works"),
    [
        (((0, 12, 3), (2, 13, 0)), False),
        (((0, 12, 3), (1, 0)), False),
        (((0, 12, 3), (0, 125, 0)), True),
        (((0, 13, 0), (2, 13, 0)), True),
        ((None, None), True),
    ],
    indirect=["installed"],
)
def test_the_error_names_what_cannot_work_and_the_line_that_fixes_it(installed: None, works: bool) -> None:
    llm = ResilientLLM(Anthropic())
    with pytest.raises(StreamInterruptedError) as caught:
        list(llm.stream_chat([]))
    assert ('pip install "anthropic<1"' in str(caught.value)) is not works
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize("installed", [((0, 12, 3), (2, 13, 0))], indirect=True)
def test_other_classes_are_not_blamed(installed: None) -> None:
    assert cannot_work(MockLLM) == ""


def test_versions_are_numbers() -> None:
    assert version_of("llama-index-core") >= (0, 10)  # type: ignore[operator]
    assert version_of("no-such-package-at-all") is None
