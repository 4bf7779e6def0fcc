"""Streaming answers over HTTP: every stream says how it ended, is never silent for long, and stops when nobody reads.

serve.fastapi     for FastAPI and Starlette: `SSEResponse`, `TextResponse`
serve.flask       for Flask and other WSGI frameworks
serve.generations answers that outlive their connections: `SSEResponse(..., resumable=True)`
"""
