"""Messages that do not say the text so far are mended, and nothing else of them is changed."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms import MockLLM

from llama_index_resilient_stream import ResilientLLM
from llama_index_resilient_stream.compat.llama_index import message_text
from llama_index_resilient_stream.llm.mended import MendedContent, annotations_of, moved
from support.readers import READERS

types = pytest.importorskip("llama_index.core.base.llms.types")
if not hasattr(types, "TextBlock"):
    pytest.skip("messages have no blocks in this core", allow_module_level=True)
PIECES = ["The end ", "was ", "found."]


class MistralAI(MockLLM):
    """Puts a block for every chunk into the message, each with the whole text so far."""

    def stream_chat(self, messages: Any, **_: Any) -> Any:
        def chunks() -> Any:
            text, blocks = "", []
            for number, piece in enumerate(PIECES):
                text += piece
                blocks.append(types.TextBlock(text=text))
                message = ChatMessage(role="assistant", blocks=list(blocks), additional_kwargs={"kept": True})
                reason = "stop" if number == len(PIECES) - 1 else None
                yield ChatResponse(message=message, delta=piece, raw={"choices": [{"finish_reason": reason}]})

        return chunks()

    async def astream_chat(self, messages: Any, **_: Any) -> Any:
        async def chunks() -> Any:
            for chunk in self.stream_chat(messages):
                yield chunk

        return chunks()


@pytest.mark.parametrize("half", READERS)
def test_the_message_grows_with_the_text(half: str) -> None:
    result = READERS[half](ResilientLLM(MistralAI()))
    wanted = ["".join(PIECES[: number + 1]) for number in range(len(PIECES))]
    assert [chunk.message.content for chunk in result.chunks] == wanted
    assert [chunk.delta for chunk in result.chunks] == PIECES
    assert all(chunk.message.additional_kwargs == {"kept": True} for chunk in result.chunks)


def test_empty_content_at_the_end_is_the_text() -> None:
    mended = MendedContent()
    for piece in PIECES:
        shown = ChatResponse(message=ChatMessage(role="assistant", content=piece), delta=piece)
        assert mended(shown, piece, over=False) is shown
    last = ChatResponse(message=ChatMessage(role="assistant", content=None), delta="", raw={"type": "x"})
    made = mended(last, "", over=True)
    assert message_text(made.message) == "".join(PIECES)
    assert made.raw == {"type": "x"}
    assert message_text(last.message) == ""


def test_a_message_that_is_right_is_left_as_it_is() -> None:
    right = ChatResponse(message=ChatMessage(role="assistant", content="The end"), delta="The end")
    assert MendedContent()(right, "The end", over=True) is right


def test_thoughts_that_are_told_once_per_chunk_are_kept_once() -> None:
    if not hasattr(types, "ThinkingBlock"):
        pytest.skip("this core has no thoughts")
    blocks = [types.ThinkingBlock(content=each) for each in ("Let", "Let me", "Let me see")]
    message = ChatMessage(role="assistant", blocks=[*blocks, types.TextBlock(text="So.")])
    made = MendedContent()(ChatResponse(message=message, delta="So."), "So.", over=False)
    assert [getattr(block, "content", None) or block.text for block in made.message.blocks] == ["Let me see", "So."]


class _Citation:
    def __init__(self, start_index: int) -> None:
        self.start_index = start_index


def test_citations_move_with_their_part() -> None:
    assert moved([{"url": "u", "start_index": 2, "end_index": 5}], 10) == [
        {"url": "u", "start_index": 12, "end_index": 15}
    ]
    odd = _Citation(2)
    assert moved([odd], 0) == [odd]
    payload = ChatResponse(message=ChatMessage(role="assistant"), additional_kwargs={"annotations": [{"index": 1}]})
    assert annotations_of(payload) == [{"index": 1}]
    assert annotations_of(None) == []
