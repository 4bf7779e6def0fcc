"""A proxy that passes on bytes, and meddles with them: it holds them back, ends them early, or makes up an end."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Meddling:
    """What a proxy does with each answer."""

    buffer: int = 0
    """Bytes that it collects before it passes them on."""
    limit: float = 60.0
    """Seconds after which it ends an answer."""
    end: bytes = b""
    """What it writes where an answer broke off, before a proper end."""
    reset_after: int = 0
    """Bytes after which it resets the connection."""


class _Proxy:
    def __init__(self, upstream: int, meddling: Meddling) -> None:
        self._upstream, self._meddling = upstream, meddling

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # the last as the test ends
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1])) if length else b""
                from_app, to_app = await asyncio.open_connection("127.0.0.1", self._upstream)
                writers.append(to_app)
                to_app.write(head + body)
                writer.write(await from_app.readuntil(b"\r\n\r\n"))
                await self._pass_on(from_app, writer)
        finally:
            for each in writers:
                each.close()
                with suppress(OSError):
                    await each.wait_closed()

    async def _pass_on(self, source: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        until = asyncio.get_running_loop().time() + self._meddling.limit
        held, passed, last = b"", 0, b""
        while True:
            try:
                async with asyncio.timeout_at(until):
                    data = await source.read(65536)
            except TimeoutError:
                data = b""
            held, last = held + data, (last + data)[-8:]
            whole = last.endswith(b"0\r\n\r\n")
            if len(held) >= self._meddling.buffer or whole or not data:
                writer.write(held)
                passed, held = passed + len(held), b""
            if self._meddling.reset_after and passed > self._meddling.reset_after:
                writer.transport.abort()
                return
            if whole or not data:
                if not whole and (end := self._meddling.end):
                    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))
                await writer.drain()
                return
            await writer.drain()


@contextmanager
def meddling_proxy(upstream: int, meddling: Meddling) -> Iterator[str]:
    """Run a proxy in front of a port, and give its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    start = asyncio.start_server(_Proxy(upstream, meddling).handle, "127.0.0.1", 0)
    server = asyncio.run_coroutine_threadsafe(start, loop).result(5)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
