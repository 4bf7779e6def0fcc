"""Tokens of an attempt that broke, where its provider counted before the end."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
from llama_index.core.llms import MockLLM

from llama_index_resilient_stream import ResilientLLM
from support.readers import QUICK, READERS, TEXT

Counts = dict[str, int] | None
HALF = len(TEXT) // 2
PIECES = [TEXT[at : at + 20] for at in range(0, HALF, 20)]


class Counting(MockLLM):
    """Breaks the first time, in the middle; says how many tokens it has used as `beside` and `on_message` say."""

    beside: Any = None
    on_message: Any = None
    asked: int = 0

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        for name, value in fields.items():
            setattr(self, name, value)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="counting", is_chat_model=True)

    def stream_chat(self, messages: Any, **_: Any) -> Any:
        self.asked += 1
        anchor = str(messages[-1].content).rpartition("\n\n")[2]
        rest = TEXT if self.asked == 1 else TEXT[TEXT.index(anchor) :]
        return self._broken() if self.asked == 1 else self._whole(rest)

    def _broken(self) -> Any:
        text = ""
        for number, piece in enumerate(PIECES, 1):
            text += piece
            extra = {"usage": self.on_message} if self.on_message else {}
            message = ChatMessage(role="assistant", content=text, additional_kwargs=extra)
            yield ChatResponse(message=message, delta=piece, raw=self._raw(self.beside and self.beside(number)))
        raise ConnectionResetError

    def _whole(self, text: str) -> Any:
        message = ChatMessage(role="assistant", content=text)
        yield ChatResponse(message=message, delta=text, raw=self._raw(None))
        counts = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        yield ChatResponse(message=message, delta="", raw=self._raw(counts, "stop"))

    @staticmethod
    def _raw(counts: Counts, reason: str | None = None) -> dict[str, Any]:
        return {"choices": [{"finish_reason": reason}], "usage": counts}

    async def astream_chat(self, messages: Any, **_: Any) -> Any:
        async def chunks() -> Any:
            for chunk in self.stream_chat(messages):
                yield chunk

        return chunks()


def every_chunk(number: int) -> Counts:
    """As Gemini counts, and vLLM where it is asked to."""
    return {"prompt_tokens": 7, "completion_tokens": 4 * number, "total_tokens": 7 + 4 * number}


def only_the_question(number: int) -> Counts:
    return {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7}


@pytest.mark.parametrize("half", READERS)
def test_counts_on_every_chunk_are_those_of_a_broken_attempt(half: str) -> None:
    report = READERS[half](ResilientLLM(Counting(beside=every_chunk), policy=QUICK)).report
    said = 4 * len(PIECES)
    assert report.attempts[0].usage == {"prompt_tokens": 7, "completion_tokens": said, "total_tokens": 7 + said}
    assert report.usage == {"prompt_tokens": 107, "completion_tokens": 50 + said, "total_tokens": 157 + said}
    assert not report.usage_estimated


@pytest.mark.parametrize("half", READERS)
@pytest.mark.parametrize(
    "llm",
    [
        pytest.param({"beside": only_the_question}, id="counts that do not grow"),
        pytest.param({"on_message": {"input_tokens": 7, "output_tokens": 1}}, id="Anthropic"),
    ],
)
def test_where_the_question_alone_was_counted_the_rest_is_an_estimate(llm: dict[str, Any], half: str) -> None:
    report = READERS[half](ResilientLLM(Counting(**llm), policy=QUICK)).report
    assert report.attempts[0].usage == {"prompt_tokens": 7}
    said = -(-report.attempts[0].characters // 4)
    assert report.usage == {"prompt_tokens": 107, "completion_tokens": 50 + said, "total_tokens": 157 + said}
    assert report.usage_estimated


@pytest.mark.parametrize("half", READERS)
def test_counts_beside_held_back_text_show_no_empty_chunk(half: str) -> None:
    result = READERS[half](ResilientLLM(Counting(beside=every_chunk), policy=QUICK))
    assert result.text == TEXT
    assert [chunk.delta for chunk in result.chunks].count("") == 1
