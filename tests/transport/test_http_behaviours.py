"""Our HTTP clients do what httpx's do: proxies, TLS, limits, timeouts and errors. Both are asked, and compared."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from llama_index_resilient_stream.http import async_http_client, http_client
from llama_index_resilient_stream.transport.connection import Upstream

Outcome = tuple[str, list[str]]


class Server(ThreadingHTTPServer):
    """A server, or a proxy, that writes down what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.connections: set[int] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path} {self.headers.get('Proxy-Authorization')}".strip())
        self.server.connections.add(self.client_address[1])
        match self.path.rpartition("/")[2]:
            case "slow":
                threading.Event().wait(0.5)
            case "cut":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
                self.close_connection = True
                return
            case "garbage":
                self.wfile.write(b"what?\r\n\r\n")
                self.close_connection = True
                return
            case "moved":
                self.send_response(307)
                self.send_header("Location", "/there")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_CONNECT(self) -> None:
        self.server.asked.append(f"CONNECT {self.path} {self.headers.get('Proxy-Authorization')}")
        self.send_error(502)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join(3)


@pytest.fixture(autouse=True)
def _no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def asked_sync(make: Callable[..., httpx.Client], url: str, settings: dict[str, Any]) -> str:
    try:
        with make(**settings) as client, Upstream().asking():
            return str(client.get(url).status_code)
    except (httpx.HTTPError, ValueError) as error:
        return type(error).__name__


def asked_async(make: Callable[..., httpx.AsyncClient], url: str, settings: dict[str, Any]) -> str:
    async def run() -> str:
        try:
            async with make(**settings) as client:
                with Upstream().asking():
                    return str((await client.get(url)).status_code)
        except (httpx.HTTPError, ValueError) as error:
            return type(error).__name__

    return asyncio.run(run())


NOWHERE = "http://nowhere.invalid"
PROXY = "http://user:pass@{host}"
BEHAVIOURS: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    #                        environment                 settings                              URL
    "plain":                ({},                         {},                                   "http://{host}/x"),
    "redirect":             ({},                         {"follow_redirects": True},           "http://{host}/moved"),
    "no-redirect":          ({},                         {"follow_redirects": False},          "http://{host}/moved"),
    "proxy":                ({},                         {"proxy": PROXY},                     NOWHERE),
    "proxy-connect":        ({},                         {"proxy": PROXY},                     "https://nowhere.invalid"),
    "env-proxy":            ({"HTTP_PROXY": PROXY},      {},                                   NOWHERE),
    "env-all-proxy":        ({"ALL_PROXY": PROXY},       {},                                   "https://nowhere.invalid"),
    "env-not-trusted":      ({"HTTP_PROXY": PROXY},      {"trust_env": False},                 NOWHERE),
    "env-no-proxy":         ({"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.1"}, {}, "http://{host}/x"),
    "env-proxy-refuses":    ({"HTTP_PROXY": "http://127.0.0.1:1"}, {},                         "http://{host}/x"),
    "proxy-of-odd-scheme":  ({},                         {"proxy": "gopher://{host}"},         NOWHERE),
    "mounts":               ({},                         {"mounts": {"http://127.0.0.1": None}}, "http://{host}/x"),
    "no-such-host":         ({},                         {},                                   NOWHERE),
    "refused":              ({},                         {},                                   "http://127.0.0.1:1/"),
    "no-tls-there":         ({},                         {},                                   "https://{host}/x"),
    "read-timeout":         ({},                         {"timeout": 0.1},                     "http://{host}/slow"),
    "cut":                  ({},                         {},                                   "http://{host}/cut"),
    "garbage":              ({},                         {},                                   "http://{host}/garbage"),
    "unknown-scheme":       ({},                         {},                                   "ftp://{host}/x"),
    "http2-offered":        ({},                         {"http2": True},                      "http://{host}/x"),
    "few-connections":      ({},                         {"limits": httpx.Limits(max_connections=1)}, "http://{host}/x"),
    "tls-settings":         ({},                         {"verify": ssl.create_default_context()}, "http://{host}/x"),
}  # fmt: skip


@pytest.mark.parametrize(("environment", "settings", "url"), BEHAVIOURS.values(), ids=BEHAVIOURS)
@pytest.mark.parametrize(
    ("ask", "ours", "theirs"),
    [(asked_sync, http_client, httpx.Client), (asked_async, async_http_client, httpx.AsyncClient)],
    ids=["sync", "async"],
)
def test_what_httpx_does_our_client_does(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[..., str],
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    environment: dict[str, str],
    settings: dict[str, Any],
    url: str,
) -> None:
    if settings.get("http2"):
        pytest.importorskip("h2")
    host = f"127.0.0.1:{server.server_port}"
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(host=host))
    given = {name: value.format(host=host) if isinstance(value, str) else value for name, value in settings.items()}
    outcomes: list[Outcome] = []
    for make in (theirs, ours):
        outcome = ask(make, url.format(host=host), {"follow_redirects": False, **given})
        outcomes.append((outcome, list(server.asked)))
        server.asked.clear()
    assert outcomes[0] == outcomes[1]


def test_a_trace_of_the_user_s_still_gets_everything(server: Server) -> None:
    def events_of(client: httpx.Client) -> list[str]:
        seen: list[str] = []
        with client:
            client.get(server.url, extensions={"trace": lambda event, info: seen.append(event)})
        return seen

    assert events_of(http_client()) == events_of(httpx.Client())
    assert "connection.connect_tcp.complete" in events_of(http_client())


async def test_an_asynchronous_trace_of_the_user_s_still_gets_everything(server: Server) -> None:
    seen: list[str] = []

    async def trace(event: str, info: Any) -> None:
        seen.append(event)

    async with async_http_client() as client:
        await client.get(server.url, extensions={"trace": trace})
    assert "connection.connect_tcp.complete" in seen


def test_who_patches_httpx_s_transport_sees_our_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenTelemetry's instrumentation and pytest-httpx do."""
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda self, request: httpx.Response(418))
    with http_client() as client:
        assert client.get(NOWHERE).status_code == 418


def test_each_request_knows_the_socket_of_the_connection_that_it_uses_again(server: Server) -> None:
    sockets: list[Any] = []

    class Recorder(Upstream):
        def connect(self, sock: object) -> None:
            sockets.append(sock)

    with http_client() as client:
        for _ in range(3):
            with Recorder().asking():
                client.get(server.url)
    assert len(server.connections) == 1
    assert len(set(sockets)) == 1
    assert len(sockets) >= 3


def test_a_unix_socket_of_the_user_s_transport_works(tmp_path: Any) -> None:
    with socket.socket(socket.AF_UNIX) as listener, suppress(OSError):
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with http_client(transport=httpx.HTTPTransport(uds=str(tmp_path / "s"))) as client, Upstream().asking():
            assert client.get("http://unix/").text == "ok"
        thread.join(3)
