"""A chat in Streamlit: each answer breaks off once, and is healed before anybody sees it.

    pip install llama-index-resilient-stream streamlit
    streamlit run streamlit_app.py

It opens the page by itself.
"""

import streamlit as st
from engines import new_chat_engine

from llama_index_resilient_stream import StreamInterruptedError, tokens

st.title("Ask the cable")

if "engine" not in st.session_state:
    st.session_state.engine = new_chat_engine()

for message in st.session_state.engine.chat_history:
    with st.chat_message(message.role.value):
        st.markdown(message.content)
        if how := message.additional_kwargs.get("resilient_partial"):
            st.caption(f"not whole: {how}")

if question := st.chat_input("Ask"):
    st.chat_message("user").markdown(question)
    # The script ends at the next token when somebody asks again, presses Stop or leaves. `with` then stops the LLM.
    with st.chat_message("assistant"), st.session_state.engine.stream_chat(question) as response:
        try:
            st.write_stream(tokens(response))
        except StreamInterruptedError as error:
            st.error(f"interrupted: {error.reason}")
        if response.report.recovered:
            st.caption(f"healed: {', '.join(response.report.faults)}")
