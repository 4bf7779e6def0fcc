"""A proxy that cuts an answer on the wire, in front of any server that speaks OpenAI's protocol."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_NOT_PASSED_ON = {"host", "connection", "keep-alive", "accept-encoding", "transfer-encoding", "content-length"}
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, and no waiting


class CutKind(StrEnum):
    """How the stream breaks off."""

    CLEAN_END = "clean end"
    """The body ends as a whole one does, without a finish reason."""
    FIN = "FIN"
    """The connection is closed in the middle of the body."""
    RST = "RST"
    HALF_EVENT = "half an event"
    """Half of the next event, then FIN."""


@dataclass
class Exchange:
    """One request for an answer, and what of it went through."""

    body: dict[str, Any]
    pieces: list[str] = field(default_factory=list)
    """The text of each event that has some."""
    finish_reason: str | None = None
    cut_at: float | None = None
    """When it was cut, on the clock of `time.monotonic`."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class CuttingProxy:
    """Passes everything on, event by event, and cuts the next answer where it is told to.

        with CuttingProxy(8080) as proxy:
            proxy.cut(CutKind.RST, after=20)      # the next answer, behind 20 events with text
            openai.OpenAI(base_url=proxy.url, ...)

    Args:
        port: The port of the server behind it, on this machine.
    """

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.exchanges: list[Exchange] = []
        self._cut: tuple[CutKind, int] | None = None
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> CuttingProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def cut(self, kind: CutKind, after: int) -> None:
        """Cut the next answer behind that many events with text. Forgets the exchanges before it."""
        self.exchanges.clear()
        self._cut = (kind, after)

    def take_cut(self) -> tuple[CutKind, int] | None:
        cut, self._cut = self._cut, None
        return cut


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def shutdown_request(self, request: Any) -> None:
        """Close at once. The base class would send FIN first, also where the connection is to be reset."""
        self.close_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: CuttingProxy

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._pass_on(None)

    do_DELETE = do_GET  # the name that http.server looks for

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        exchange = Exchange(json.loads(body))
        self.proxy.exchanges.append(exchange)
        self._pass_on(body, exchange, self.proxy.take_cut())

    def _pass_on(
        self, body: bytes | None, exchange: Exchange | None = None, cut: tuple[CutKind, int] | None = None
    ) -> None:
        self.close_connection = True
        upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream, timeout=600)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED_ON}
        try:
            upstream.request(self.command, self.path, body, headers)
            response = upstream.getresponse()
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in _NOT_PASSED_ON:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._relay(response, exchange or Exchange({}), cut)
        except OSError:
            pass  # the client left
        finally:
            upstream.close()

    def _relay(self, response: http.client.HTTPResponse, exchange: Exchange, cut: tuple[CutKind, int] | None) -> None:
        for block in _blocks(response):
            text = _text_of(block, exchange)
            if cut is not None and text and len(exchange.pieces) == cut[1]:
                self._break_off(cut[0], block)
                exchange.cut_at = time.monotonic()
                return
            if text:
                exchange.pieces.append(text)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))
        self.wfile.write(b"0\r\n\r\n")

    def _break_off(self, kind: CutKind, block: bytes) -> None:
        match kind:
            case CutKind.CLEAN_END:
                self.wfile.write(b"0\r\n\r\n")
            case CutKind.HALF_EVENT:
                self.wfile.write(b"%x\r\n%b" % (len(block), block[: len(block) // 2]))
            case CutKind.RST:
                time.sleep(0.05)  # what was sent is to arrive first: a reset drops what has not
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The events of a stream, each with its blank line; any other body line by line."""
    block = b""
    for line in response:
        block += line
        if line in (b"\n", b"\r\n"):
            yield block
            block = b""
    if block:
        yield block


def _text_of(block: bytes, exchange: Exchange) -> str:
    """The new text in an event. Notes the finish reason."""
    if not block.startswith(b"data: {"):
        return ""
    choices = json.loads(block[6:]).get("choices") or [{}]
    exchange.finish_reason = choices[0].get("finish_reason") or exchange.finish_reason
    return (choices[0].get("delta") or {}).get("content") or ""
