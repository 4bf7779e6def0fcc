"""A chat with an index: routes that start an answer, read it as often as it takes, and stop it.

    POST    /answers        asks a question, and returns the id under which the answer can be read
    GET     /answers/{id}   server-sent events, from the event `after` on, or from the reader's Last-Event-ID
    DELETE  /answers/{id}   stops it

An answer does not depend on a connection: closing the page does not stop it at once, and a page that is loaded again
reads on from where it was.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.staticfiles import StaticFiles
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.memory import ChatMemoryBuffer
from pydantic import BaseModel, Field

from ... import resilient
from ...serve.fastapi import SSEResponse
from ...serve.generations import Generations
from ...serve.parts import EndPart
from ..demo.readers import build_index
from .knowledge import answer_to
from .provider import FAULT_CHOICES, ChatTiming, FlakyProvider

PAGE = Path(__file__).parent / "page"
_CONVERSATIONS = 100  # that are remembered; the oldest are forgotten first


class AskRequest(BaseModel):
    """The body of a request that asks a question."""

    question: str = Field(min_length=1, max_length=2000)
    conversation: str = ""
    """The conversation of an earlier AskResponse; "" begins a new one."""
    fault: str = "none"
    plain: bool = False
    """Whether to use plain LlamaIndex."""


class AskResponse(BaseModel):
    """The body of the answer to it."""

    id: str
    conversation: str


def create_app(timing: ChatTiming | None = None) -> FastAPI:
    """Make the application. Its `state.providers` are those at work."""
    chat = Chat(timing or ChatTiming())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with chat.generations.lifespan():
            yield
        await chat.aclose()

    app = FastAPI(title="Chat", lifespan=lifespan)
    app.state.providers = chat.providers

    @app.post("/answers")
    async def start(question: AskRequest) -> AskResponse:
        if question.fault not in FAULT_CHOICES:
            raise HTTPException(422, f"fault is one of {', '.join(FAULT_CHOICES)}.")
        return await chat.start(question)

    @app.get("/answers/{key}")
    async def read(key: str, after: str = "") -> SSEResponse:
        return SSEResponse(chat.generations.get(key, after=after), retry=1000)

    @app.delete("/answers/{key}", status_code=204)
    async def stop(key: str) -> None:
        await chat.generations.stop(key)

    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


class Chat:
    """Conversations over one index. An engine is made for each question, since each has a provider of its own."""

    def __init__(self, timing: ChatTiming) -> None:
        self.generations = Generations(shutdown=0.5)
        self.providers: set[FlakyProvider] = set()
        self._timing = timing
        self._index = build_index()
        self._memories: dict[str, ChatMemoryBuffer] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self, asked: AskRequest) -> AskResponse:
        """Start an answer, and return its id."""
        conversation, memory = self._conversation(asked.conversation)
        provider = FlakyProvider(answer_to(asked.question), asked.fault, self._timing)
        self.providers.add(provider)
        llm = provider.plain() if asked.plain else provider.resilient()
        engine = self._index.as_chat_engine(chat_mode=ChatMode.CONTEXT, llm=llm, memory=memory)
        if not asked.plain:
            engine = resilient(engine)
        key = await self.generations.start(lambda: engine.astream_chat(asked.question))
        task = asyncio.create_task(self._close_behind(key, provider))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return AskResponse(id=key, conversation=conversation)

    def _conversation(self, key: str) -> tuple[str, ChatMemoryBuffer]:
        """Return the memory of a conversation; of a new one, where this server does not know it."""
        memory = self._memories.pop(key, None)
        if memory is None:
            key, memory = secrets.token_urlsafe(16), ChatMemoryBuffer.from_defaults()
        self._memories[key] = memory
        while len(self._memories) > _CONVERSATIONS:
            self._memories.pop(next(iter(self._memories)))
        return key, memory

    async def _close_behind(self, key: str, provider: FlakyProvider) -> None:
        """Close the provider when its answer is over, or when the application closes."""
        seen = 0
        try:
            while True:
                parts = await self.generations.store.read(key, seen, 60.0)
                if parts and isinstance(parts[-1][1], EndPart):
                    return
                seen = parts[-1][0] if parts else seen
        finally:
            await provider.aclose()
            self.providers.discard(provider)

    async def aclose(self) -> None:
        """Cancel what still waits. The generations are closed already."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
