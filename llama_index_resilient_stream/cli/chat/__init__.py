"""The chat page of `serve-demo`: an answer that heals, survives a reload, and can be stopped.

app       the application: three routes for answers, and the page. Copy this part, and `page/`
knowledge what can be asked
provider  the LLM behind it, which breaks as the reader chooses
page/     HTML, CSS and JavaScript, as they are sent
"""
