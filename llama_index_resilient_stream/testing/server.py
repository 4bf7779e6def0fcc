"""An OpenAI-compatible server that breaks the wire on cue.

    with FaultServer("The answer is 42. And more.", faults=["reset", None]) as server:
        llm = OpenAILike(model="scripted", api_base=server.url, api_key="none", is_chat_model=True)
        ...
    assert server.requests[0].fault == FAULTS["reset"]

It listens on raw sockets, on 127.0.0.1 and a port of the system's choice, and needs nothing beyond the
standard library. Every connection has a thread; closing the server ends every one of them, in whatever it was
doing.

Each answered request takes the next entry of `faults`; None, and every request after the last entry, is
answered in good health. Requests for models, unknown paths, and prefills refused because of `refuse_prefill`
take none.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from .faults import HEALTHY, PREFILL_REFUSED, Fault, as_faults
from .http_connection import ClientLeft, Connection, Request, ServerClosing
from .payloads import Payloads, Usage, turns_of
from .scripted_model import Habit, Heard, ScriptedModel, Tokenise
from .wire_faults import Sent, Stream, perform, perform_whole

_JOIN = 5.0  # seconds that closing waits for each thread


@dataclass
class Record:
    """One request and what became of it.

    `heard` is how the model understood it: `kind`, `said` and `anchor`. `sent` counts the characters of the
    answer, its tokens and the events that went out. `left_after` is the time in seconds between the request
    and the moment the server noticed that the client had left. `seconds` is the time the whole response took.
    """

    connection: int
    path: str
    body: dict[str, Any]
    header_names: tuple[str, ...]
    fault: Fault | None = None
    heard: Heard = field(default_factory=Heard)
    sent: Sent = field(default_factory=Sent)
    client_left: bool = False
    left_after: float | None = None
    seconds: float | None = None

    @property
    def said(self) -> str:
        """The part of the text that the model was told it had said."""
        return self.heard.said

    @property
    def anchor(self) -> str:
        """The last words that the model was asked to repeat."""
        return self.heard.anchor


class FaultServer:
    """Serves `text`, and breaks as `faults` say: one fault, id of a fault, or None per request.

    `habit` is how the model goes on when it is asked to (a name from HABITS, a function, or a sequence, one
    per continuation). `token` is characters per event, or a function that splits a text. `delay` is in
    seconds per token. `thinking` is streamed as reasoning before every first answer. `tool_call` (name, JSON
    arguments) answers requests that offer tools and do not end with a tool's result. `refuse_prefill` answers
    a conversation that ends with the assistant with status 400. `respect_max_tokens` ends an answer with
    `length` after `max_tokens` (or `max_completion_tokens`) tokens.
    """

    def __init__(
        self,
        text: str,
        faults: Iterable[Fault | str | None] = (),
        *,
        habit: Habit | Sequence[Habit] = "anchor",
        token: Tokenise = 4,
        delay: float = 0.0,
        thinking: str = "",
        tool_call: tuple[str, str] | None = None,
        refuse_prefill: bool = False,
        respect_max_tokens: bool = False,
        model: str = "scripted",
    ) -> None:
        self.text = text
        self.model = model
        self.requests: list[Record] = []
        self._faults = iter(as_faults(faults))
        self._scripted = ScriptedModel(text, habit, token)
        self._delay = delay
        self._thinking = thinking
        self._tool_call = tool_call
        self._refuse_prefill = refuse_prefill
        self._respect_max_tokens = respect_max_tokens
        self._listener: socket.socket | None = None
        self._numbers = itertools.count(1)
        self._threads: list[threading.Thread] = []
        self._open: set[int] = set()
        self._answering = 0
        self._changed = threading.Condition()

    # -- life

    def start(self) -> Self:
        """Listen. The context manager does it."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._wake, self._stop = socket.socketpair()
        self._acceptor = threading.Thread(
            target=self._accept, args=(self._listener,), name="FaultServer-accept", daemon=True
        )
        self._acceptor.start()
        return self

    def close(self) -> None:
        """End every response, close every connection, join every thread. May be called twice."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        self._wake.send(b"\0")  # never read: it stays readable for every thread
        # shutdown() wakes accept() on Linux, a connection wakes it everywhere
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname(), timeout=_JOIN).close()
        self._acceptor.join(_JOIN)
        listener.close()
        for thread in self._threads:
            thread.join(_JOIN)
        self._wake.close()
        self._stop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what it knows

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._listener is None:
            raise RuntimeError("The server is not running. Use `with FaultServer(...) as server:`.")
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """What an OpenAI client calls base_url."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def tokens_sent(self) -> int:
        """Tokens of text, tool arguments and reasoning sent, over all requests."""
        return sum(record.sent.tokens for record in self.requests)

    @property
    def connections_open(self) -> int:
        """Connections that neither side has closed yet; a client's pool keeps idle ones."""
        with self._changed:
            return len(self._open)

    def wait_idle(self, timeout: float = 5.0) -> bool:
        """Wait until no answer is under way. False if `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: self._answering == 0, timeout)

    def wait_closed(self, timeout: float = 5.0) -> bool:
        """Wait until no connection is open. False if `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, timeout)

    # -- connections

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            if self._listener is None:
                sock.close()
                return
            number = next(self._numbers)
            connection = Connection(sock, number, self._stop)
            thread = threading.Thread(target=self._serve, args=(connection,), name=f"FaultServer-{number}", daemon=True)
            with self._changed:
                self._open.add(number)
            thread.start()
            self._threads = [*(other for other in self._threads if other.is_alive()), thread]

    def _serve(self, connection: Connection) -> None:
        try:
            while connection.alive and (request := connection.read_request()) is not None:
                self._answer(connection, request)
        except (ClientLeft, ServerClosing):
            pass
        finally:
            connection.close()
            with self._changed:
                self._open.discard(connection.number)
                self._changed.notify_all()

    # -- requests

    def _answer(self, connection: Connection, request: Request) -> None:
        started = time.monotonic()
        record = Record(connection.number, request.path, request.body, request.header_names)
        with self._changed:
            self._answering += 1
        try:
            self._route(connection, request, record)
        except ClientLeft:
            record.client_left = True
            record.left_after = time.monotonic() - started
            raise
        finally:
            record.seconds = time.monotonic() - started
            with self._changed:
                self._answering -= 1
                self._changed.notify_all()

    def _route(self, connection: Connection, request: Request, record: Record) -> None:
        route: Callable[[Connection, Record], None] | None = {
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._complete,
            ("GET", "/v1/models"): self._models,
        }.get((request.method, request.path))
        if route is None:
            error = {"error": {"message": f"No such path: {request.path}", "type": "invalid_request_error"}}
            _respond_json(connection, 404, error)
            return
        route(connection, record)

    def _models(self, connection: Connection, record: Record) -> None:
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": "testing"}
        _respond_json(connection, 200, {"object": "list", "data": [model]})

    def _chat(self, connection: Connection, record: Record) -> None:
        turns = turns_of(record.body.get("messages") or [])
        last_role = turns[-1][0] if turns else ""
        offers_tools = bool(record.body.get("tools")) and last_role != "tool"
        with self._changed:
            record.heard = self._scripted.hear_turns(turns)
            self.requests.append(record)
            refused = last_role == "assistant" and self._refuse_prefill
            record.fault = PREFILL_REFUSED if refused else next(self._faults, None)
            answer = "" if refused else self._scripted.reply(record.heard)
        tool_call = self._tool_call if offers_tools else None
        prompt = "".join(text for _, text in turns)
        self._send(connection, record, answer, prompt, tool_call)

    def _complete(self, connection: Connection, record: Record) -> None:
        prompt = str(record.body.get("prompt") or "")
        with self._changed:
            record.heard = self._scripted.hear_prompt(prompt)
            self.requests.append(record)
            record.fault = next(self._faults, None)
            answer = self._scripted.reply(record.heard)
        self._send(connection, record, answer, prompt, None)

    def _send(
        self,
        connection: Connection,
        record: Record,
        answer: str,
        prompt: str,
        tool_call: tuple[str, str] | None,
    ) -> None:
        body, fault = record.body, record.fault or HEALTHY
        chat = record.path == "/v1/chat/completions"
        tool_call = (fault.tool_call or tool_call) if chat else None
        payloads = Payloads(
            id=f"{'chatcmpl' if chat else 'cmpl'}-{connection.number}",
            model=str(body.get("model") or self.model),
            chat=chat,
            tool_call=tool_call,
            include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        )
        text, finish_reason = self._limit(tool_call[1] if tool_call else answer, payloads, body)
        tokens = self._scripted.tokens
        after = len(text) if fault.after is None else fault.after
        thinking = tokens(self._thinking) if record.heard.kind == "answer" and chat else []
        stream = Stream(
            connection=connection,
            payloads=payloads,
            fault=fault,
            before=tokens(text[:after]),
            rest=tokens(text[after:]),
            thinking=thinking,
            finish_reason=finish_reason,
            delay=self._delay,
            usage=Usage(len(tokens(prompt)), len(thinking) + len(tokens(text))),
            sent=record.sent,
        )
        (perform if body.get("stream") else perform_whole)(stream)

    def _limit(self, text: str, payloads: Payloads, body: dict[str, Any]) -> tuple[str, str]:
        """The text within the token limit of the request, and its finish reason."""
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        tokens = self._scripted.tokens(text)
        if not self._respect_max_tokens or limit is None or len(tokens) <= limit:
            return text, payloads.normal_finish
        return "".join(tokens[:limit]), "length"


def _respond_json(connection: Connection, status: int, body: dict[str, Any]) -> None:
    connection.respond(status, json.dumps(body).encode(), "application/json")
