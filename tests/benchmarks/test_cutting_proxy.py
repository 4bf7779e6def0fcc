"""The proxy passes answers on as they are, and cuts where and how it is told to."""

from __future__ import annotations

import http.client
import json

import pytest

from benchmarks.cutting_proxy import CutKind, CuttingProxy
from llama_index_resilient_stream.testing import FaultServer

TEXT = "The keeper lit the lamp at dusk, and the ships turned away."


def ask(proxy: CuttingProxy, received: list[bytes] | None = None) -> bytes:
    """Send a question, and return all that came before the end. Raises what `http.client` does where it is cut."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "?"}]})
    received = [] if received is None else received
    try:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        with connection.getresponse() as response:
            while part := response.read1():
                received.append(part)
        return b"".join(received)
    finally:
        connection.close()


def port_of(server: FaultServer) -> int:
    return int(server.url.split(":")[2].split("/")[0])


def text_of(body: bytes) -> str:
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {") and line.endswith(b"}")]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])


def test_what_is_not_cut_is_passed_on() -> None:
    with FaultServer(TEXT) as server, CuttingProxy(port_of(server)) as proxy:
        assert text_of(ask(proxy)) == TEXT
        assert proxy.exchanges[-1].text == TEXT
        assert proxy.exchanges[-1].finish_reason == "stop"
        assert proxy.exchanges[-1].cut_at is None


def test_a_clean_end() -> None:
    with FaultServer(TEXT) as server, CuttingProxy(port_of(server)) as proxy:
        proxy.cut(CutKind.CLEAN_END, after=3)
        body = ask(proxy)
        assert text_of(body) == proxy.exchanges[0].text == "".join(proxy.exchanges[0].pieces)
        assert len(proxy.exchanges[0].pieces) == 3
        assert b"[DONE]" not in body
        assert b'"stop"' not in body


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (CutKind.FIN, http.client.IncompleteRead),
        (CutKind.HALF_EVENT, http.client.IncompleteRead),
        (CutKind.RST, ConnectionResetError),
    ],
)
def test_a_broken_connection(kind: CutKind, error: type[Exception]) -> None:
    with FaultServer(TEXT) as server, CuttingProxy(port_of(server)) as proxy:
        proxy.cut(kind, after=4)
        received: list[bytes] = []
        with pytest.raises(error):
            ask(proxy, received)
        assert len(proxy.exchanges[0].pieces) == 4
        assert proxy.exchanges[0].cut_at is not None
        assert text_of(b"".join(received)) == proxy.exchanges[0].text
        assert b"".join(received).endswith(b"\n\n") is (kind is not CutKind.HALF_EVENT)


def test_only_the_next_answer_is_cut() -> None:
    with FaultServer(TEXT) as server, CuttingProxy(port_of(server)) as proxy:
        proxy.cut(CutKind.CLEAN_END, after=2)
        assert text_of(ask(proxy)) != TEXT
        assert text_of(ask(proxy)) == TEXT
        assert [len(exchange.text) < len(TEXT) for exchange in proxy.exchanges] == [True, False]
