"""FastAPI with a page that reads an answer while it is written, sees it break off and go on, and can stop it.

    pip install "llama-index-resilient-stream[serve]"
    uvicorn fastapi_app:app

and open http://127.0.0.1:8000
"""

from pathlib import Path

from engines import query_engine
from fastapi import FastAPI
from fastapi.responses import FileResponse

from llama_index_resilient_stream.serve import SSEResponse

app = FastAPI()


@app.get("/ask", response_class=SSEResponse)
async def ask(question: str):
    return SSEResponse(lambda: query_engine.query(question))


@app.get("/")
async def page():
    return FileResponse(Path(__file__).with_name("page.html"))
