"""Causes, and the lines of configuration that cure them, server by server.

Sources: the documentation of nginx (ngx_http_proxy_module, ngx_http_gzip_module), of AWS (Application Load Balancer
attributes, API Gateway response streaming), of Cloudflare (error 524, content compression), of uvicorn and gunicorn.
`{t}` is the timeout that was read, `{half}` a heartbeat that is quick enough for it, `{more}` a setting with room.
"""

from __future__ import annotations

from dataclasses import dataclass

from .findings import Finding


@dataclass(frozen=True)
class Fix:
    """Where to write what. `default`: the timeout that this server has where nobody set one."""

    where: str
    lines: str
    default: float = 0.0


@dataclass(frozen=True)
class Cause:
    """A cause in words, and what cures it."""

    name: str
    fixes: tuple[Fix, ...] = ()


_OURS = Fix(
    "your endpoint",
    "from llama_index_resilient_stream.serve.fastapi import SSEResponse  # .flask for Flask\n"
    "return SSEResponse(lambda: engine.query(question))",
)
_OURS_RESUMABLE = Fix("your endpoint", "return SSEResponse(lambda: engine.query(question), resumable=True)")
_STREAM = Fix("your endpoint", "or return the generator itself: StreamingResponse(response.response_gen)")
_TERMINAL_EVENT = Fix(
    "your endpoint", 'or end every answer with "event: done", or with "event: error" and a status, in a finally'
)
_CATCH = Fix("your endpoint", "or catch it around the tokens, log it, and send an error event")
_HTTP11 = Fix("nginx", 'proxy_http_version 1.1;     # default since 1.29.7\nproxy_set_header Connection "";')
_UNBUFFERED = Fix("your endpoint", 'headers={"X-Accel-Buffering": "no", "Cache-Control": "no-cache, no-transform"}')
_SLOWER = (
    Fix("nginx", "proxy_read_timeout {more}s;", 60.0),
    Fix(
        "ALB",
        "aws elbv2 modify-load-balancer-attributes --load-balancer-arn ARN \\\n"
        "    --attributes Key=idle_timeout.timeout_seconds,Value={more}",
        60.0,
    ),
    Fix("Cloudflare", "Enterprise only: proxy_read_timeout, by the zone settings API (PATCH)", 100.0),
    Fix("API Gateway", "30 s on edge-optimized endpoints, 300 s on regional ones; not settable", 30.0),
)
_ASYNC = Fix("your endpoint", "async def, await engine.aquery(...), and an LLM whose astream_* is its own")
_DEF = Fix("your endpoint", "or plain def with the sync engine: Starlette then runs it in a thread")

CAUSES: dict[str, Cause] = {
    # how it came
    "proxy_buffering": Cause(
        "a proxy collects the answer before it passes it on",
        (
            _UNBUFFERED,
            _HTTP11,
            Fix("nginx", "proxy_buffering off;        # where the header cannot be sent"),
            Fix("API Gateway", "responseTransferMode: STREAM  # REST APIs; the default is BUFFERED"),
        ),
    ),
    "compression": Cause(
        "a compressor holds the answer back",
        (
            _UNBUFFERED,
            Fix(
                "nginx",
                "gzip off;                   # or leave text/event-stream out of gzip_types",
            ),
            Fix("Cloudflare", "Cache-Control: no-transform in the response, or a compression rule for its path"),
        ),
    ),
    "gzip_middleware": Cause(
        "the application compresses: GZipMiddleware, or one like it, collects the answer",
        (
            Fix("your endpoint", 'headers={"Content-Encoding": "identity"}  # GZipMiddleware then leaves it alone'),
            Fix("your app", "pip install -U starlette  # from 0.46 on its GZipMiddleware lets text/event-stream pass"),
        ),
    ),
    "collected": Cause(
        'the endpoint collects the answer before it sends it: list(...), [... for ...], "".join(...)',
        (_OURS, _STREAM),
    ),
    "string_returned": Cause("the endpoint returns str(response), or the whole text", (_OURS, _STREAM)),
    "engine_one_chunk": Cause(
        "the engine gives the answer in one chunk, as those of llama-index-core 0.14.22 to 0.14.24 do",
        (
            Fix("shell", 'pip install -U "llama-index-core>=0.14.25"'),
            Fix("your engine", "no structured_answer_filtering, no output_cls: both wait for the whole answer"),
        ),
    ),
    "llm_in_bursts": Cause("the LLM gives it so: its server sends many tokens at a time"),
    "cache": Cause(
        "a shared cache on the way keeps answers",
        (
            Fix("your endpoint", 'headers={"Cache-Control": "no-store"}  # SSEResponse sends it'),
            Fix("nginx", "proxy_cache off;            # and no proxy_ignore_headers Cache-Control"),
            Fix("Cloudflare", "a cache rule: bypass cache for its path"),
        ),
    ),
    "own_cache": Cause("the application itself keeps answers; then it is meant to be so"),
    "body_reading_middleware": Cause(
        "middleware reads the body to its end",
        (Fix("your app", "let it pass text/event-stream untouched, or write it as pure ASGI middleware"),),
    ),
    "llm_at_once": Cause(
        "the LLM gave it in one piece",
        (Fix("your engine", "as_query_engine(streaming=True), or stream_chat(); and an LLM that streams"),),
    ),
    "short_answer": Cause("", (Fix("this command", "ask for a longer answer"),)),
    # how it ended
    "consumed": Cause(
        "the generator was read before: by print(response), str(response), or a logger",
        (Fix("your endpoint", "read it once; what you need of it, collect while it streams"),),
    ),
    "wrong_object": Cause(
        "StreamingResponse(response) was given the response, not its generator",
        (_OURS, Fix("your endpoint", "or StreamingResponse(response.response_gen)")),
    ),
    "response_returned": Cause("the endpoint returns the response object itself", (_OURS, _STREAM)),
    "exception": Cause("an exception in the endpoint, or in the LLM", (_OURS, _CATCH)),
    "killed_worker": Cause(
        "the worker process was killed, or restarted",
        (
            Fix("uvicorn", "--timeout-graceful-shutdown 120  # at least as long as an answer"),
            Fix("gunicorn", "--timeout 120 --graceful-timeout 120 -k uvicorn_worker.UvicornWorker", 30.0),
        ),
    ),
    "time_limit": Cause(
        "a limit on the whole answer",
        (
            Fix("gunicorn", "-k gthread --threads 8  # sync workers die after --timeout", 30.0),
            Fix("API Gateway", "responseTransferMode: STREAM  # 15 min instead of 29 s", 29.0),
        ),
    ),
    "size_limit": Cause(
        "a limit of the proxy on the bytes of an answer",
        (
            Fix(
                "the proxy",
                "its limit on the size of a response; a firewall that inspects bodies: not on this path",
            ),
        ),
    ),
    "idle_timeout": Cause(
        "a proxy closes connections that are silent for {t} s",
        (
            Fix("your endpoint", 'send a comment line, ": ping", every {half} s, from the start and until the end'),
            Fix("your endpoint", "SSEResponse(lambda: engine.query(question)) sends one every 15 s"),
            *_SLOWER,
        ),
    ),
    "gateway_timeout": Cause(
        "a proxy waits {t} s for the headers",
        (Fix("your endpoint", 'answer with a stream, and send ": ping" at once, before the LLM is asked'), *_SLOWER),
    ),
    "http10_hop": Cause("an HTTP/1.0 hop: without chunks a cut looks like an end", (_HTTP11, _TERMINAL_EVENT)),
    "swallowed_exception": Cause(
        "an exception that is hidden: by BaseHTTPMiddleware (@app.middleware), fastapi.sse, or a try/except around it",
        (_OURS, _CATCH, Fix("your app", "or write the middleware as pure ASGI: that ends no stream")),
    ),
    "no_terminal_event": Cause(
        "the endpoint sends no terminal event, so that nobody can tell", (_OURS, _TERMINAL_EVENT)
    ),
    "made_up_end": Cause(
        "a proxy or a gateway ends what broke off as if it were whole: with [DONE], or a finish reason of its own",
        (
            Fix("the proxy", "no end of its own where the upstream broke off; a longer limit on time and size"),
            Fix("your engine", "ResilientLLM(llm), http_client=http_client(): [DONE] alone is no end for them"),
        ),
    ),
    "left_open": Cause(
        "the endpoint goes on after its last event, and keeps the connection",
        (
            Fix("your endpoint", "return from the generator after the last event; what is left, as BackgroundTask"),
            _OURS,
        ),
    ),
    "stream_is_over": Cause("nothing is left to send: EventSource stops here", ()),
    "long_answer": Cause("an answer that takes longer"),
    "stalled": Cause("an LLM that stalls", (Fix("your engine", "ResilientLLM(llm): its watchdogs end a stall"),)),
    # how it is written
    "no_blank_line": Cause(
        "no blank line ends the events",
        (
            _OURS,
            Fix("your endpoint", 'or yield f"data: {json.dumps(text)}\\n\\n"  # also after the last one'),
        ),
    ),
    "raw_newlines": Cause(
        "line ends in the text are sent as they are",
        (_OURS, Fix("your endpoint", 'or yield f"data: {json.dumps(text)}\\n\\n"  # or one data: for each line')),
    ),
    "no_data_prefix": Cause(
        "the text is sent as it is, and called text/event-stream",
        (
            _OURS,
            Fix("your endpoint", 'or yield f"data: {json.dumps(text)}\\n\\n"'),
            Fix("your endpoint", "or, for plain text, TextResponse(lambda: engine.query(question))"),
        ),
    ),
    "login_page": Cause(
        "a gateway wants a login first: the request has no cookie or token that it knows",
        (Fix("this command", "--header 'Cookie: ...' or --header 'Authorization: Bearer ...'"),),
    ),
    "web_page": Cause(
        "the address is that of a page, not of the endpoint behind it",
        (Fix("this command", "the address that the page asks: the network tab of a browser shows it"),),
    ),
    # what is missing
    "http10_framing": Cause(
        "the server marks the end of an HTTP/1.0 answer by closing",
        (_HTTP11, Fix("uvicorn", "pip install httptools  # it then sends chunks all the same")),
    ),
    "not_sse": Cause(
        "a plain body: no events, no heartbeat, no terminal event, no EventSource",
        (
            _OURS,
            Fix("your endpoint", 'media_type="text/event-stream", and each token as "data: ...\\n\\n"'),
        ),
    ),
    "no_accel_header": Cause("nginx may hold the answer back, and nothing tells it not to", (_UNBUFFERED,)),
    "no_heartbeat": Cause(
        "no heartbeat, or one that is slower than this; proxies close at 30 to 100 s",
        (
            _OURS,
            Fix("your endpoint", 'or send a comment line, ": ping", every 15 s, from the start'),
        ),
    ),
    "no_ids": Cause(
        "not resumable",
        (
            _OURS_RESUMABLE,
            Fix("your endpoint", 'or "id: <n>" on every event, and replay from Last-Event-ID + 1'),
        ),
    ),
    "not_resumed": Cause(
        "Last-Event-ID is ignored",
        (
            _OURS_RESUMABLE,
            Fix(
                "your endpoint",
                "or keep the events, and replay those after Last-Event-ID; 204 when it is over",
            ),
        ),
    ),
    # how many at once
    "blocked_loop": Cause("synchronous work on the event loop", (_OURS, _ASYNC, _DEF)),
    "one_worker": Cause(
        "one worker that serves one request at a time",
        (Fix("gunicorn", "-k gthread --threads 40  # the default worker has one"),),
    ),
    "few_workers": Cause("as many workers, or threads, as that", (Fix("gunicorn", "--workers 4 --threads 40"),)),
    "thread_pool": Cause(
        "the 40 threads that Starlette has for synchronous endpoints",
        (
            _ASYNC,
            Fix("your app", "anyio.to_thread.current_default_thread_limiter().total_tokens = 200"),
        ),
    ),
    # no answer
    "unreachable": Cause(
        "nothing listens on that port of that host",
        (
            Fix("your app", "is it running? it says at its start on which address and port"),
            Fix("this command", "check host and port; http:// means port 80, https:// 443"),
        ),
    ),
    "unknown_host": Cause(
        "the host name is wrong, or unknown on this machine", (Fix("this command", "check the host"),)
    ),
    "self_signed": Cause(
        "the certificate is signed by nobody that this machine knows: browsers refuse it, and pages are not told why",
        (
            Fix("this command", "--insecure, to look behind it; or SSL_CERT_FILE=ca.pem in front of it"),
            Fix("the proxy", "a certificate of a known authority, with the intermediate ones (fullchain.pem)"),
        ),
    ),
    "untrusted_certificate": Cause(
        "the chain of certificates is broken, or its authority is not known here",
        (
            Fix("the proxy", "the intermediate certificates too: fullchain.pem, not cert.pem"),
            Fix("this command", "--insecure, to look behind it; or SSL_CERT_FILE=ca.pem in front of it"),
        ),
    ),
    "expired_certificate": Cause(
        "the certificate is too old", (Fix("the proxy", "renew it, and reload: certbot renew"),)
    ),
    "wrong_host": Cause(
        "the certificate is of another host",
        (Fix("this command", "ask by the name that is in it, or --insecure"),),
    ),
    "rate_limit": Cause(
        "a limit on requests",
        (
            Fix("the proxy", "nginx: limit_req ... burst=20 nodelay; the like in Cloudflare and API gateways"),
            Fix("your app", "let readers through who come back (Last-Event-ID), and send Retry-After"),
        ),
    ),
    "one_time": Cause("what identifies the request is good for once: a token, a session, an id"),
    "wrong_scheme": Cause(
        "https where http is spoken, or the other way round",
        (Fix("this command", "ask http:// in place of https://, or the other way round"),),
    ),
    "bad_gateway": Cause(
        "the proxy does not reach the application, or it is restarting",
        (Fix("the proxy", "its error log; proxy_pass, target health"),),
    ),
    "redirect": Cause(
        "it is somewhere else", (Fix("this command", "ask the URL that it points to; a final / matters"),)
    ),
    "wrong_path": Cause(
        "there is no such path on this server",
        (Fix("this command", "check the path of the URL, and the prefix that a proxy adds or removes"),),
    ),
    "wrong_method": Cause(
        "the path is right, the method is not",
        (Fix("this command", "--method GET or POST; with --data '{...}' it is POST"),),
    ),
    "not_let_in": Cause(
        "it wants to know who asks",
        (Fix("this command", "--header 'Authorization: Bearer ...', or --header 'Cookie: ...'"),),
    ),
    "refused": Cause(
        "not asked as it wants", (Fix("this command", "--method POST --data '{...}' --header 'Name: value'"),)
    ),
    "wrong_direct": Cause(
        "not asked as it wants",
        (Fix("this command", "--direct URL with the same path; --header 'Host: ...' may matter"),),
    ),
}


def lines_for(finding: Finding, cause: str) -> tuple[str, list[Fix]]:
    """Return the name of a cause and its fixes. Fixes whose default is the timeout that was read come first."""
    t = finding.timeout
    known = CAUSES[cause]
    fixes = [Fix(fix.where, _fill(fix.lines, t), fix.default) for fix in known.fixes]
    if t:
        fixes.sort(key=lambda fix: bool(fix.default) and not is_default(fix, t))
    return _fill(known.name, t), fixes


def _fill(text: str, t: float) -> str:
    numbers = {"{t}": f"{t:g}", "{half}": f"{max(t / 2, 0.5):.3g}", "{more}": f"{max(300, round(t * 5)):d}"}
    for name, number in numbers.items():
        text = text.replace(name, number)
    return text


def is_default(fix: Fix, timeout: float) -> bool:
    """Whether the timeout that was read is the one that this server comes with."""
    return bool(fix.default) and abs(fix.default - timeout) <= 1.0
