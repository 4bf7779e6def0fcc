"""Chainlit's page, without the page: asks, reads and stops over its socket. Needs python-socketio, as Chainlit does."""

from __future__ import annotations

import asyncio
import uuid


class ChainlitReader:
    """Chainlit's page, without the page."""

    def __init__(self, url: str) -> None:
        import socketio

        self._url = url
        self._client = socketio.AsyncClient()
        self._client.on("stream_start", lambda step: self._hear(step["output"]))
        self._client.on("stream_token", lambda token: self._hear(token["token"]))
        self._client.on("task_end", self._end)
        self._client.on("update_message", lambda _: self._started.set())  # on_chat_start is done
        self._started = asyncio.Event()
        self._idle = asyncio.Event()
        self._spoke = asyncio.Event()
        self.said: list[str] = []

    def _hear(self, token: str) -> None:
        self.said.append(token)
        self._spoke.set()

    def _end(self, *_: object) -> None:
        if self.said:  # starting the chat is a task of its own, with an end of its own
            self._idle.set()

    async def __aenter__(self) -> ChainlitReader:
        who = {"sessionId": str(uuid.uuid4()), "clientType": "webapp", "userEnv": "{}"}
        await self._client.connect(self._url, auth=who, socketio_path="/ws/socket.io", transports=["websocket"])
        await self._client.emit("connection_successful")
        await asyncio.wait_for(self._started.wait(), 30)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.disconnect()

    async def ask(self, question: str) -> None:
        self.said.clear()
        self._idle.clear()
        what = {"type": "user_message", "name": "user", "output": question, "createdAt": None}
        step = {"id": str(uuid.uuid4()), **what}
        await self._client.emit("client_message", {"message": step, "fileReferences": []})

    async def until_over(self) -> str:
        await asyncio.wait_for(self._idle.wait(), 30)
        return "".join(self.said)

    async def until_some(self) -> None:
        async with asyncio.timeout(30):
            while len("".join(self.said)) < 100:
                await self._spoke.wait()
                self._spoke.clear()

    async def stop(self) -> None:
        await self._client.emit("stop")
