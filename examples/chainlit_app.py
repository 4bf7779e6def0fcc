"""A chat in Chainlit: each answer breaks off once, and is healed while it is read.

    pip install llama-index-resilient-stream chainlit
    chainlit run chainlit_app.py

and open http://127.0.0.1:8000
"""

import chainlit as cl
from engines import new_chat_engine

from llama_index_resilient_stream import StreamInterruptedError, atokens


@cl.on_chat_start
def start():
    cl.user_session.set("engine", new_chat_engine())


@cl.on_message
async def answer(message: cl.Message):
    reply = cl.Message(content="")
    # The stop button cancels this task. `async with` then stops the LLM, and keeps what it said in the chat's memory.
    async with await cl.user_session.get("engine").astream_chat(message.content) as response:
        cl.user_session.set("response", response)
        try:
            async for token in atokens(response):
                await reply.stream_token(token)
        except StreamInterruptedError as error:
            await reply.stream_token(f"\n\n*interrupted: {error.reason}*")
        if response.report.recovered:
            await reply.stream_token(f"\n\n*healed: {', '.join(response.report.faults)}*")
    await reply.send()


@cl.on_chat_end
async def leave():
    """Stop the LLM for a reader who closed the page: Chainlit would let it talk on."""
    if response := cl.user_session.get("response"):
        await response.acancel()
