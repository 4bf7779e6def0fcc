"""Answers that outlive their connection, and their worker: two of these stand behind nginx, with Redis between them.

    docker compose -f examples/compose/compose.yaml up --build

Open http://127.0.0.1:8080, ask, and kill a worker meanwhile: docker compose -f ... kill worker-1
"""

import os
from pathlib import Path

from engines import index, llm
from fastapi import FastAPI
from fastapi.responses import FileResponse
from llama_index.core.llms import ChatMessage
from pydantic import BaseModel

from llama_index_resilient_stream.serve import Generations, RedisStore, SSEResponse


async def messages(question):
    """Return what the model is asked: the same when another worker goes on."""
    nodes = await index.as_retriever().aretrieve(question)
    context = "\n\n".join(node.get_content() for node in nodes)
    return [
        ChatMessage(role="system", content=f"Answer from this context:\n{context}"),
        ChatMessage(role="user", content=question),
    ]


async def take_over(ticket, text):
    """Go on where a worker died: behind the text that its readers have seen."""
    return await llm.aresume(await messages(ticket.payload["question"]), text)


# Who has the id of an answer may read it; `may_read=` asks who it is. All settings: docs/coming_back.md
generations = Generations(RedisStore(os.environ["REDIS_URL"]), take_over=take_over)
app = FastAPI(lifespan=generations.lifespan)


class Asked(BaseModel):
    question: str


@app.post("/answers")
async def start(asked: Asked) -> str:
    async def answer():
        return await llm.astream_chat(await messages(asked.question))

    return await generations.start(answer, payload=asked.model_dump())


@app.get("/answers/{key}")
async def read(key: str, after: str = ""):
    return SSEResponse(generations.get(key, after=after))


@app.delete("/answers/{key}")
async def stop(key: str) -> bool:
    return await generations.stop(key)


@app.get("/")
async def page():
    return FileResponse(Path(__file__).with_name("page.html"))
