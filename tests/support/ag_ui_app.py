"""The application of `serve/test_ag_ui.py`: LlamaIndex's own router, over a scripted LLM that calls a tool."""

from __future__ import annotations

from fastapi import FastAPI
from llama_index.protocols.ag_ui.router import get_ag_ui_workflow_router, get_default_workflow_factory

from llama_index_resilient_stream import ResilientLLM
from llama_index_resilient_stream.serve.ag_ui import stop_when_left
from llama_index_resilient_stream.testing import Cut, ScriptedLLM
from support.readers import QUICK

TEXT = "Two miles down, and mended at sea. " * 60
CALL = ("weather", '{"city": "Paris"}')


def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


plain = ScriptedLLM(TEXT, tool_calls=[CALL], delay=0.02)
within = ScriptedLLM(TEXT, tool_calls=[CALL], delay=0.02)
cut = ScriptedLLM(TEXT[:400], [None, Cut(40, ConnectionResetError("reset"))], tool_calls=[CALL])
llms = {"plain": plain, "resilient": ResilientLLM(within, policy=QUICK), "cut": ResilientLLM(cut, policy=QUICK)}
app = FastAPI()
for name, llm in llms.items():
    factory = stop_when_left(get_default_workflow_factory(llm=llm, backend_tools=[weather]))
    app.include_router(get_ag_ui_workflow_router(workflow_factory=factory), prefix=f"/{name}")


@app.get("/text")
async def text() -> str:
    return TEXT


@app.get("/sent/{name}")
async def sent(name: str) -> list[int]:
    """Characters of each call."""
    return [len(call.sent) for call in {"plain": plain, "resilient": within, "cut": cut}[name].calls]
