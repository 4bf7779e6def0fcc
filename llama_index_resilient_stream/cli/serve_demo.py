"""`python -m llama_index_resilient_stream serve-demo`: the chat page, on this machine only."""

from __future__ import annotations

import socket
import webbrowser

import typer
import uvicorn

from .chat.app import create_app

_HOST = "127.0.0.1"  # the page is for whoever started it


def run(port: int, *, open_page: bool) -> None:
    """Serve until somebody stops it. Raises typer.Exit where the port cannot be had."""
    try:
        listener = socket.create_server((_HOST, port))
    except OSError as error:
        typer.echo(f"Port {port} cannot be had: {error.strerror}. Another one: serve-demo --port {port + 1}", err=True)
        raise typer.Exit(1) from None
    with listener:
        config = uvicorn.Config(
            create_app(),
            log_level="critical",  # streams that end with the server are no news
            ws="none",
            timeout_graceful_shutdown=1,
        )
        url = f"http://{_HOST}:{listener.getsockname()[1]}/"
        typer.echo(f"Chat page: {url}\nBreak an answer, reload the page in the middle of one. Ctrl+C stops it.")
        if open_page:
            webbrowser.open(url)  # its connection waits in the listener's queue until uvicorn takes it
        uvicorn.Server(config).run(sockets=[listener])
