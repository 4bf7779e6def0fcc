"""An OpenAI-compatible server that breaks its responses as a list of faults says.

    with FaultServer("The answer is 42. And more.", faults=["reset", None]) as server:
        llm = OpenAILike(model="scripted", api_base=server.url, api_key="none", is_chat_model=True)
        ...
    assert server.requests[0].fault == FAULTS["reset"]

It listens on 127.0.0.1, on a port that the system chooses. Every connection has a thread; closing the server ends all
of them, whatever they are doing.

Each answered request takes the next entry of `faults`; None, and every request after the last entry, is answered in
good health. Requests for models, requests of unknown paths, requests for streams that it keeps, and prefills refused
because of `refuse_prefill` take no entry.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from .faults import HEALTHY, PREFILL_REFUSED, WireFault, as_faults
from .http_connection import ClientLeft, Connection, ParsedHTTPRequest, ServerClosing
from .kept_answer import KeptAnswer
from .payloads import Payloads, Usage, turns_of
from .recorded_request import RecordedRequest
from .scripted_model import RequestKind, ScriptedModel, StyleOrName, Tokenizer
from .wire_faults import OutgoingResponse, perform, perform_whole

_CHAT = "/v1/chat/completions"
_KEPT = "/v1/stream"
_LLAMA_CPP = "b4719-0f2bbe65"
_JOIN = 5.0  # seconds that closing waits for each thread


class FaultServer:
    """Serves one text over HTTP as OpenAI's API does, and breaks its responses. A context manager.

        with FaultServer("The answer is 42. And more.", faults=["reset", "http_503", None]) as server:
            llm = OpenAILike(model="scripted", api_base=server.url, api_key="none", is_chat_model=True)
            ...

    Args:
        text: The text that the model knows.
        faults: One entry per request: a fault, the id of a fault in FAULTS, or None for a healthy response. All
            requests after the last entry are answered in good health.
        continuation_style: How the model continues when it is asked to: a name from CONTINUATION_STYLES, a function
            (text, partial_text, anchor) -> continuation, or a sequence of them, one per continuation.
        token: Characters per event, or a function that splits a text.
        delay: Seconds before each token.
        thinking: Reasoning that is streamed before every first answer.
        tool_call: A name and JSON arguments, which answer requests that offer tools and do not end with a tool's
            result.
        refuse_prefill: Whether a conversation that ends with the assistant is refused with status 400.
        keeps_streams: Whether it is llama.cpp's server: its events say so, and a stream whose request has the header
            `X-Conversation-Id` is generated to its end, whoever reads it, and can be read again. See `kept_streams`.
        respect_max_tokens: Whether an answer ends with `length` after `max_tokens` (or `max_completion_tokens`).
        model: The name of the model.
        owned_by: The owner of the model, as its list of models has it: "vllm", "organization_owner" (LM Studio).

    Raises:
        ConfigurationError: There is no such fault or continuation style.
    """

    def __init__(
        self,
        text: str,
        faults: Iterable[WireFault | str | None] = (),
        *,
        continuation_style: StyleOrName | Sequence[StyleOrName] = "anchor",
        token: Tokenizer = 4,
        delay: float = 0.0,
        thinking: str = "",
        tool_call: tuple[str, str] | None = None,
        refuse_prefill: bool = False,
        keeps_streams: bool = False,
        respect_max_tokens: bool = False,
        model: str = "scripted",
        owned_by: str = "testing",
    ) -> None:
        self.text = text
        self.model = model
        self._owned_by = owned_by
        self.lists_sent = 0
        """How often its list of models was asked for."""
        self.requests: list[RecordedRequest] = []
        self.replays: list[RecordedRequest] = []
        """Requests for the rest of a stream that it keeps, also of one that it does not."""
        self._faults = iter(as_faults(faults))
        self._scripted = ScriptedModel(text, continuation_style, token)
        self._delay = delay
        self._thinking = thinking
        self._tool_call = tool_call
        self._refuse_prefill = refuse_prefill
        self._keeps_streams = keeps_streams
        self._fingerprint = _LLAMA_CPP if keeps_streams else None
        self.kept_streams: dict[str, KeptAnswer] = {}
        """The streams that it keeps, by the id of the request; take one out, and it is forgotten."""
        self._respect_max_tokens = respect_max_tokens
        self._listener: socket.socket | None = None
        self._numbers = itertools.count(1)
        self._threads: list[threading.Thread] = []
        self._open: set[int] = set()
        self._answering = 0
        self._changed = threading.Condition()

    def __repr__(self) -> str:
        where = self.url if self._listener is not None else "not started"
        return f"<{type(self).__name__}: {where}, {len(self.requests)} requests>"

    # -- starting and closing

    def start(self) -> Self:
        """Begin to listen. The context manager does it."""
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

    # -- where it listens, and what it has sent

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._listener is None:
            raise RuntimeError("The server is not running. Use `with FaultServer(...) as server:`.")
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """The `base_url` of an OpenAI client."""
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

    def _answer(self, connection: Connection, request: ParsedHTTPRequest) -> None:
        started = time.monotonic()
        record = RecordedRequest(connection.number, request.path, request.body, request.header_names)
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

    def _route(self, connection: Connection, request: ParsedHTTPRequest, record: RecordedRequest) -> None:
        routes: dict[tuple[str, str], Callable[[Connection, RecordedRequest], None]] = {
            ("POST", _CHAT): partial(self._chat, request.conversation_id),
            ("POST", "/v1/completions"): partial(self._complete, request.conversation_id),
            ("GET", "/v1/models"): self._models,
            ("GET", _KEPT): partial(self._replay, request.query),
            ("DELETE", _KEPT): partial(self._stop_kept, request.query),
        }
        route = routes.get((request.method, request.path))
        if route is None:
            error = {"error": {"message": f"No such path: {request.path}", "type": "invalid_request_error"}}
            _respond_json(connection, 404, error)
            return
        route(connection, record)

    def _replay(self, query: dict[str, str], connection: Connection, record: RecordedRequest) -> None:
        kept = self.kept_streams.get(query.get("conv_id", ""))
        self.replays.append(record)
        if kept is None:
            _respond_json(connection, 404, {"error": {"message": "File Not Found", "type": "not_found_error"}})
        elif int(query.get("from", 0)) < kept.lost:
            _respond_json(connection, 400, {"error": {"message": "Lost offset", "type": "invalid_request_error"}})
        else:
            kept.replay(connection, int(query.get("from", 0)))

    def _stop_kept(self, query: dict[str, str], connection: Connection, record: RecordedRequest) -> None:
        kept = self.kept_streams.get(query.get("conv_id", ""))
        if kept is not None:
            kept.stop()
        connection.respond(204, b"", "application/json")

    def _models(self, connection: Connection, record: RecordedRequest) -> None:
        self.lists_sent += 1
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": self._owned_by}
        _respond_json(connection, 200, {"object": "list", "data": [model]})

    def _chat(self, conversation_id: str, connection: Connection, record: RecordedRequest) -> None:
        turns = turns_of(record.body.get("messages") or [])
        last_role = turns[-1][0] if turns else ""
        offers_tools = bool(record.body.get("tools")) and last_role != "tool"
        with self._changed:
            record.parsed = self._scripted.parse_turns(turns)
            self.requests.append(record)
            refused = last_role == "assistant" and self._refuse_prefill
            record.fault = PREFILL_REFUSED if refused else next(self._faults, None)
            answer = "" if refused else self._scripted.reply(record.parsed)
        tool_call = self._tool_call if offers_tools else None
        prompt = "".join(text for _, text in turns)
        self._send(connection, record, answer, prompt, tool_call, conversation_id)

    def _complete(self, conversation_id: str, connection: Connection, record: RecordedRequest) -> None:
        prompt = str(record.body.get("prompt") or "")
        with self._changed:
            record.parsed = self._scripted.parse_prompt(prompt)
            self.requests.append(record)
            record.fault = next(self._faults, None)
            answer = self._scripted.reply(record.parsed)
        self._send(connection, record, answer, prompt, None, conversation_id)

    def _send(
        self,
        connection: Connection,
        record: RecordedRequest,
        answer: str,
        prompt: str,
        tool_call: tuple[str, str] | None,
        conversation_id: str,
    ) -> None:
        chat, body, fault = record.path == _CHAT, record.body, record.fault or HEALTHY
        payloads = Payloads(
            id=f"{'chatcmpl' if chat else 'cmpl'}-{connection.number}",
            model=str(body.get("model") or self.model),
            chat=chat,
            tool_call=(fault.tool_call or tool_call) if chat else None,
            include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
            fingerprint=self._fingerprint,
        )
        response = self._response(connection, record, payloads, answer, prompt)
        if not body.get("stream"):
            perform_whole(response)
            return
        self._keep(conversation_id, response)
        perform(response)

    def _keep(self, conversation_id: str, response: OutgoingResponse) -> None:
        """Keep this answer where its request asks for it. A second one with the same id ends the first."""
        if self._keeps_streams and conversation_id:
            if (before := self.kept_streams.get(conversation_id)) is not None:
                before.stop()
            self.kept_streams[conversation_id] = KeptAnswer(response.healthy_events(), self._delay)

    def _response(
        self, connection: Connection, record: RecordedRequest, payloads: Payloads, answer: str, prompt: str
    ) -> OutgoingResponse:
        fault, tokens = record.fault or HEALTHY, self._scripted.tokens
        reply = payloads.tool_call[1] if payloads.tool_call else answer
        text, finish_reason = self._limit(reply, payloads, record.body)
        after = len(text) if fault.after is None else fault.after
        thinks = payloads.chat and record.parsed.kind is RequestKind.ANSWER
        thinking = tokens(self._thinking) if thinks else []
        return OutgoingResponse(
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

    def _limit(self, text: str, payloads: Payloads, body: dict[str, Any]) -> tuple[str, str]:
        """Return the text within the token limit of the request, and its finish reason."""
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        tokens = self._scripted.tokens(text)
        if not self._respect_max_tokens or limit is None or len(tokens) <= limit:
            return text, payloads.normal_finish
        return "".join(tokens[:limit]), "length"


def _respond_json(connection: Connection, status: int, body: dict[str, Any]) -> None:
    connection.respond(status, json.dumps(body).encode(), "application/json")
