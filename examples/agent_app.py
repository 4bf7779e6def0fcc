"""An agent with a tool, for `useChat` of the npm package `ai`: the tool call is cut, and so is the answer.

    pip install "llama-index-resilient-stream[serve]"
    uvicorn agent_app:app

    const chat = useChat({ resume: true, transport: new DefaultChatTransport({ api: "/api/chat" }) });

Without a page:

    curl -N 127.0.0.1:8000/api/chat -H "Content-Type: application/json" \
        -d '{"id": "1", "messages": [{"role": "user", "parts": [{"type": "text", "text": "How deep is it?"}]}]}'
"""

from fastapi import FastAPI
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage

from llama_index_resilient_stream import ResilientLLM
from llama_index_resilient_stream.serve import Generations, SSEResponse
from llama_index_resilient_stream.testing import Cut, ScriptedLLM

# The line to exchange: provider = OpenAI("gpt-4o-mini", max_retries=0), or any other LLM of LlamaIndex's.
provider = ScriptedLLM(
    "Where the cable lies, the Atlantic is 3,600 metres deep on average: two miles and a quarter of water.",
    tool_calls=[("depth", '{"ocean": "Atlantic"}')],
    script=[Cut(after=12), None, Cut(after=40), None] * 10_000,
    delay=0.02,
)
llm = ResilientLLM(provider)


def depth(ocean: str) -> str:
    """Tell the average depth of an ocean."""
    return {"Atlantic": "3,600 m", "Pacific": "4,000 m"}.get(ocean, "unknown")


generations = Generations()  # with several workers: Generations(RedisStore(url))
app = FastAPI(lifespan=generations.lifespan)
streams: dict[str, str] = {}  # the answer under way, by chat; with several workers, in your database


def messages(body: dict) -> list[ChatMessage]:
    """Return the conversation that `useChat` sends. Tool calls of earlier turns are left out."""
    return [
        ChatMessage(role=turn["role"], content="".join(part.get("text", "") for part in turn["parts"]))
        for turn in body["messages"]
    ]


@app.post("/api/chat")
async def chat(body: dict):
    *before, question = messages(body)
    agent = FunctionAgent(tools=[depth], llm=llm)
    streams[body["id"]] = await generations.start(lambda: agent.run(question, chat_history=before))
    return SSEResponse(generations.get(streams[body["id"]]), protocol="ai-sdk")


@app.get("/api/chat/{chat_id}/stream")
async def resume(chat_id: str):
    return SSEResponse(generations.get(streams.get(chat_id, "")), protocol="ai-sdk")


@app.delete("/api/chat/{chat_id}")
async def stop(chat_id: str) -> bool:
    return await generations.stop(streams.get(chat_id, ""))
