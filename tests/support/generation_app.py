"""The application of `serve/test_workers.py`: that of docs/coming_back.md, with a scripted LLM.

The environment sets it up.
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI

from llama_index_resilient_stream import ResilientLLM
from llama_index_resilient_stream.serve.fastapi import SSEResponse
from llama_index_resilient_stream.serve.generations import Generations
from llama_index_resilient_stream.serve.redis import RedisStore
from llama_index_resilient_stream.serve.store import Ticket
from llama_index_resilient_stream.testing import ScriptedLLM
from support.readers import QUICK, TEXT, question


def setting(name: str, otherwise: float) -> float:
    return float(os.environ.get(name, otherwise))


def llm(delay: float) -> ResilientLLM:
    with open(os.environ["ASKED"], "a") as asked:  # one byte for each question to a model, in all processes
        asked.write(".")
    return ResilientLLM(ScriptedLLM(TEXT, token=4, delay=delay), policy=QUICK)


async def take_over(ticket: Ticket, text: str) -> Any:
    return await llm(0.02).aresume(question(ticket.payload["question"]), text)


generations = Generations(
    RedisStore(os.environ["REDIS_URL"]),
    lease=setting("LEASE", 1),
    grace=setting("GRACE", 10),
    shutdown=setting("SHUTDOWN", 10),
    take_over=take_over if setting("TAKE_OVER", 0) else None,
)
app = FastAPI(lifespan=generations.lifespan)


@app.post("/answers")
async def start(delay: float = 0.02) -> str:
    asked = "How was it mended?"
    return await generations.start(lambda: llm(delay).astream_chat(question(asked)), payload={"question": asked})


@app.get("/answers/{key}")
async def read(key: str, after: str = "") -> SSEResponse:
    return SSEResponse(generations.get(key, after=after), heartbeat=0.3)


@app.delete("/answers/{key}")
async def stop(key: str) -> bool:
    return await generations.stop(key)
