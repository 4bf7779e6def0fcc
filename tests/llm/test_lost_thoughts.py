"""A cut while the model thinks: what starting over costs is in the report."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
from llama_index.core.llms import MockLLM

from llama_index_resilient_stream import ResilientLLM
from support.readers import QUICK, READERS, TEXT

THOUGHT = "The cable may have broken where it is deepest. "


class Thinking(MockLLM):
    """Breaks the first time, after so many pieces of thought and of text."""

    thoughts: int = 0
    texts: int = 0
    asked: int = 0

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        for name, value in fields.items():
            setattr(self, name, value)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="thinking", is_chat_model=True)

    def stream_chat(self, messages: Any, **_: Any) -> Any:
        self.asked += 1
        if self.asked > 1:
            anchor = str(messages[-1].content).rpartition("\n\n")[2]
            yield from self._told(TEXT[TEXT.index(anchor) :] if anchor in TEXT else TEXT, "stop")
            return
        for _piece in range(self.thoughts):
            raw = {"choices": [{"delta": {"reasoning_content": THOUGHT}, "finish_reason": None}]}
            yield ChatResponse(message=ChatMessage(role="assistant", content=""), delta="", raw=raw)
        yield from self._told(TEXT[: 40 * self.texts], None)
        raise ConnectionResetError

    @staticmethod
    def _told(text: str, reason: str | None) -> Any:
        for piece, why in ((text, None), ("", reason)):
            raw = {"choices": [{"delta": {}, "finish_reason": why}]}
            yield ChatResponse(message=ChatMessage(role="assistant", content=text), delta=piece, raw=raw)

    async def astream_chat(self, messages: Any, **_: Any) -> Any:
        async def chunks() -> Any:
            for chunk in self.stream_chat(messages):
                yield chunk

        return chunks()


@pytest.mark.parametrize("half", READERS)
@pytest.mark.parametrize("thoughts", [1, 5])
def test_thoughts_of_an_answer_that_starts_over_are_wasted(half: str, thoughts: int) -> None:
    result = READERS[half](ResilientLLM(Thinking(thoughts=thoughts), policy=QUICK))
    assert result.text == TEXT
    report = result.report
    assert [attempt.thinking for attempt in report.attempts] == [thoughts * len(THOUGHT), 0]
    assert report.wasted_tokens == -(-(thoughts * len(THOUGHT)) // 4)
    assert report.extra_tokens > report.wasted_tokens


@pytest.mark.parametrize("half", READERS)
def test_thoughts_that_led_to_text_are_not(half: str) -> None:
    result = READERS[half](ResilientLLM(Thinking(thoughts=2, texts=2), policy=QUICK))
    assert result.text == TEXT
    assert result.report.attempts[0].thinking == 2 * len(THOUGHT)
    assert result.report.wasted_tokens == -(-result.report.attempts[1].dropped // 4)
