"""Flask with the same page, and the same events, as the example for FastAPI.

    pip install "llama-index-resilient-stream[serve]" flask
    flask --app flask_app run

and open http://127.0.0.1:5000
"""

from pathlib import Path

from engines import query_engine
from flask import Flask, request, send_file

from llama_index_resilient_stream.serve.flask import sse_response

app = Flask(__name__)


@app.get("/ask")
def ask():
    question = request.args["question"]  # here, not in the function: that is called when the request is over for Flask
    return sse_response(lambda: query_engine.query(question))


@app.get("/")
def page():
    return send_file(Path(__file__).with_name("page.html"))
