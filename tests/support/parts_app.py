"""Answers with everything that one can consist of, in every protocol, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, HTTPException, WebSocket
from llama_index.core import SummaryIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.schema import TextNode
from tenacity import stop_after_attempt, wait_none

from llama_index_resilient_stream import RecoveryPolicy, ResilientLLM, resilient
from llama_index_resilient_stream.serve import (
    EventPart,
    Generations,
    OpenAIChat,
    ResetPart,
    SSEResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)
from llama_index_resilient_stream.testing import Cut, ScriptedLLM

TEXT = "It is sunny there, and warm; and so it will be tomorrow."
RESET = ConnectionResetError("reset")
LLMS: dict[str, ScriptedLLM] = {}
STREAMS: dict[str, str] = {}
"""The generation of each chat."""

generations = Generations(grace=2.0)
app = FastAPI(lifespan=generations.lifespan)


def weather(city: str) -> str:
    """Look at the sky."""
    return f"sunny in {city}"


def llm(name: str = "", *script: Any, tries: int = 4, delay: float = 0.001, **how: Any) -> ResilientLLM:
    LLMS[name] = ScriptedLLM(how.pop("text", TEXT), list(script), token=4, delay=delay, **how)
    return ResilientLLM(LLMS[name], policy=RecoveryPolicy(stop=stop_after_attempt(tries), wait=wait_none()))


def engine(model: ResilientLLM) -> Any:
    nodes = [
        TextNode(id_="a", text="The sun shines.", metadata={"file_name": "sky.pdf", "page": 3}),
        TextNode(id_="b", text="It is warm.", metadata={"url": "https://example.com/warm", "title": "Warm"}),
    ]
    return resilient(SummaryIndex(nodes).as_query_engine(llm=model, streaming=True))


def agent(name: str = "", *script: Any, **how: Any) -> FunctionAgent:
    model = llm(name, *script, tool_calls=[("weather", '{"city": "Paris"}')], **how)
    return FunctionAgent(tools=[weather], llm=model)


async def told() -> AsyncIterator[Any]:
    """Every kind of part."""
    yield EventPart("title", "The weather")
    yield await engine(llm("told", Cut(20, RESET))).aquery("?")
    yield ThinkingPart("Is that ")
    yield ThinkingPart("so?")
    yield TextPart("Let me see: it rains.")
    yield EventPart("progress", {"done": 1})
    yield ResetPart()
    yield TextPart("I look.")
    yield ToolCallPart("c1", "weather", {"city": "Paris"})
    yield ToolResultPart("c1", "weather", {"sky": "blue"})
    yield ToolCallPart("c2", "weather", {"city": "Atlantis"})
    yield ToolResultPart("c2", "weather", "no such city", failed=True)
    yield TextPart("It is ")
    await asyncio.sleep(0.01)
    yield TextPart("blue.")
    yield EventPart("follow_ups", ["And tomorrow?"])


def refused() -> Any:
    raise HTTPException(403, "not yours")


def source(kind: str, name: str = "") -> Any:
    sources: dict[str, Any] = {
        "told": told,
        "query": lambda: engine(llm(name)).query("?"),
        "healed": lambda: engine(llm(name, Cut(20, RESET))).query("?"),
        "fails": lambda: engine(llm(name, Cut(20, RESET), tries=1)).query("?"),
        "fails-at-once": lambda: engine(llm(name, Cut(0, RESET), tries=1)).query("?"),
        "length": lambda: engine(llm(name, Cut(20, finish_reason="length"))).query("?"),
        "agent": lambda: agent(name).run("?"),
        "agent-healed": lambda: agent(name, None, Cut(20, RESET)).run("?"),
        "slow": lambda: engine(llm(name, text=TEXT * 20, delay=0.05)).aquery("?"),
        "slow-agent": lambda: agent(name, text=TEXT * 20, delay=0.05).run("?"),
        "refused": refused,
    }
    return sources[kind]


@app.get("/ask/{kind}/{protocol}")
async def ask(kind: str, protocol: str, name: str = "", heartbeat: float = 15.0, resumable: bool = False) -> Any:
    return SSEResponse(source(kind, name), protocol=protocol, heartbeat=heartbeat, resumable=resumable)


@app.get("/schema", response_class=SSEResponse)
async def schema() -> Any:
    return SSEResponse(source("query"))


@app.get("/state/{name}")
async def state(name: str) -> Any:
    return {"sent": sum(len(call.sent) for call in LLMS[name].calls), "open": LLMS[name].open_streams}


# The AI SDK's


@app.post("/api/chat")
async def chat(body: dict[str, Any]) -> Any:
    key = STREAMS[body["id"]] = await generations.start(source(body.get("kind", "told"), body["id"]))
    return SSEResponse(generations.get(key), protocol="ai-sdk")


@app.get("/api/chat/{chat_id}/stream")
async def resume(chat_id: str) -> Any:
    return SSEResponse(generations.get(STREAMS.get(chat_id, "")), protocol="ai-sdk")


@app.delete("/api/chat/{chat_id}")
async def stop(chat_id: str) -> bool:
    return await generations.stop(STREAMS.get(chat_id, ""))


# OpenAI's


@app.post("/v1/chat/completions")
async def completions(body: dict[str, Any]) -> Any:
    return SSEResponse(source(body["model"]), protocol=OpenAIChat.of(body))


@app.websocket("/ws")
async def ws(socket: WebSocket) -> None:
    from llama_index_resilient_stream.serve import open_answer

    await socket.accept()
    answer = await open_answer(source(await socket.receive_text()), protocol="jsonl")
    async for lines in answer:
        await socket.send_text(lines.decode())
    await socket.close()
