"""What all examples talk to: an index, and an LLM that needs no key and breaks off once in every answer."""

from llama_index.core import Document, MockEmbedding, VectorStoreIndex

from llama_index_resilient_stream import ResilientLLM, resilient
from llama_index_resilient_stream.testing import Cut, ScriptedLLM

TEXT = (
    "In 1858 a cable joined two continents for three weeks. It carried some hundreds of messages, grew weaker with "
    "every one, and fell silent. Eight years later the ends of a lost cable were lifted from two miles of water, "
    "joined to a new length, and the conversation went on."
)

# The line to exchange: provider = OpenAI("gpt-4o-mini", max_retries=0), or any other LLM of LlamaIndex's.
provider = ScriptedLLM(TEXT, script=[Cut(after=120), None] * 10_000, delay=0.02)

llm = ResilientLLM(provider)
index = VectorStoreIndex.from_documents([Document(text=TEXT)], embed_model=MockEmbedding(8))  # and your documents
query_engine = resilient(index.as_query_engine(llm=llm, streaming=True))


def new_chat_engine():
    """Make one for each conversation: it holds the memory."""
    return resilient(index.as_chat_engine(chat_mode="context", llm=llm))
