"""Ways to read a stream to its end, sync and async, and what a reader got."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.llms.llm import LLM
from llama_index.llms.openai_like import OpenAILike
from tenacity import wait_none

from llama_index_resilient_stream import RecoveryPolicy, StreamInterruptedError, StreamReport
from llama_index_resilient_stream.testing import FaultServer

TEXT = (
    "The first transatlantic cable carried ninety-eight words from a queen to a president, and it took "
    "sixteen hours. Three weeks later it fell silent. Nobody could say where it had broken, or why.\n\n"
    "What followed was patience: a better conductor, a bigger ship, and a way to measure along the wire how "
    "far away the fault lay. In 1866 the ends were found again on the ocean floor, two miles down, and joined."
)

QUICK = RecoveryPolicy(wait=wait_none())


@dataclass
class Read:
    """What a reader of a stream got."""

    chunks: list[Any] = field(default_factory=list)
    error: StreamInterruptedError | None = None
    report: StreamReport = field(default_factory=StreamReport)

    @property
    def text(self) -> str:
        return "".join(chunk.delta or "" for chunk in self.chunks)

    @property
    def whole(self) -> str:
        """What the last chunk says that the answer is."""
        last = self.chunks[-1]
        return str(last.message.content or "") if hasattr(last, "message") else str(last.text)


Reader = Callable[..., Read]


def question(text: str = "How was it mended?") -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


def read(llm: LLM, *, endpoint: str = "chat", take: int | None = None, **kwargs: Any) -> Read:
    result = Read()
    what = question() if endpoint == "chat" else "How was it mended?"
    stream: Any = getattr(llm, f"stream_{endpoint}")(what, **kwargs)
    try:
        for chunk in stream:
            result.chunks.append(chunk)
            if take is not None and len(result.chunks) >= take:
                break
    except StreamInterruptedError as error:
        result.error = error
    finally:
        stream.close()
    result.report = getattr(stream, "report", result.report)
    return result


async def aread(llm: LLM, *, endpoint: str = "chat", take: int | None = None, **kwargs: Any) -> Read:
    result = Read()
    what = question() if endpoint == "chat" else "How was it mended?"
    stream: Any = await getattr(llm, f"astream_{endpoint}")(what, **kwargs)
    try:
        async for chunk in stream:
            result.chunks.append(chunk)
            if take is not None and len(result.chunks) >= take:
                break
    except StreamInterruptedError as error:
        result.error = error
    finally:
        await stream.aclose()
    result.report = getattr(stream, "report", result.report)
    return result


def _clients(llm: Any, name: str) -> list[Any]:
    """The HTTP clients of the wrapped LLMs; they make new ones when asked again."""
    found = []
    for each in (llm, getattr(llm, "llm", None), *getattr(llm, "fallbacks", ())):
        if (client := getattr(each, name, None)) is not None:
            found.append(client)
            setattr(each, name, None)
    return found


def _read_and_close(llm: LLM, **kwargs: Any) -> Read:
    try:
        return read(llm, **kwargs)
    finally:
        for client in _clients(llm, "_client"):
            client.close()


def _aread_in_a_loop(llm: LLM, **kwargs: Any) -> Read:
    async def run() -> Read:
        try:
            return await aread(llm, **kwargs)
        finally:
            for client in _clients(llm, "_aclient"):
                await client.close()

    return asyncio.run(run())


READERS: dict[str, Reader] = {"sync": _read_and_close, "async": _aread_in_a_loop}


def openai_like(server: FaultServer, **kwargs: Any) -> OpenAILike:
    settings = {"is_chat_model": True, "max_retries": 0, "timeout": 10.0, **kwargs}
    return OpenAILike(model="scripted", api_base=server.url, api_key="sk-secret", **settings)
