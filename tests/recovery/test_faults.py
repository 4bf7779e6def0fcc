"""Is this error worth another try? A row for every exception that a stream was seen to end with.

What is installed is real. Of other libraries a class with the right name, home and attributes stands in:
names and shapes are all that `classify` may look at.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import SimpleNamespace as Object
from typing import Any

import h11
import httpcore
import httpx
import openai
import pytest
import tenacity
from anyio import BrokenResourceError
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from llama_index_resilient_stream.recovery.faults import Fault, FaultKind, classify
from llama_index_resilient_stream.recovery.faults.tables import RETRYABLE

K = FaultKind
REQUEST = httpx.Request("POST", "https://api.example.com/v1/chat/completions")
NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


def home(module: str, name: str, *bases: type, **attributes: Any) -> Any:
    """A class of that name in that module."""
    return type(name, bases or (Exception,), {"__module__": module, **attributes})


def made(module: str, name: str, text: str = "", /, *bases: type, **attributes: Any) -> Exception:
    """An exception of such a class, with these attributes."""
    error: Exception = home(module, name, *bases)(text)
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def amid(error: Exception, context: BaseException) -> Exception:
    error.__context__ = context
    return error


def response(status: int, headers: dict[str, str] | None = None, body: Any = None) -> httpx.Response:
    return httpx.Response(status, headers=headers, json=body if body is not None else {}, request=REQUEST)


def api(status: int, message: str = "", headers: dict[str, str] | None = None, **body: Any) -> openai.APIStatusError:
    """What the OpenAI client raises for such an answer."""
    client = openai.OpenAI(api_key="none", http_client=httpx.Client(trust_env=False))
    answer = response(status, headers, {"error": {"message": message, **body}})
    client.close()
    return client._make_status_error_from_response(answer)


def in_band(**body: Any) -> openai.APIError:
    """An error event inside a 200."""
    return openai.APIError(body.get("message", ""), REQUEST, body=body)


def botocore(code: str, message: str = "", status: int | None = None) -> Exception:
    answer: dict[str, Any] = {"Error": {"Code": code, "Message": message}}
    if status is not None:
        answer["ResponseMetadata"] = {"HTTPStatusCode": status, "HTTPHeaders": {"retry-after": "2"}}
    client_error = home("botocore.exceptions", "ClientError")
    name, bases = ("ClientError", ()) if status else ("EventStreamError", (client_error,))
    return made("botocore.exceptions", name, message, *bases, response=answer)


def genai(status: int, word: str, message: str = "") -> Exception:
    details = {"error": {"code": status, "status": word, "message": message}}
    name = "ServerError" if status >= 500 else "ClientError"
    base = home("google.genai.errors", "APIError")
    return made("google.genai.errors", name, message, base, code=status, status=word, details=details, response=None)


class GrpcStatus(Enum):
    UNAVAILABLE = (14, "unavailable")
    INVALID_ARGUMENT = (3, "invalid argument")


def grpc(status: GrpcStatus) -> Exception:
    base = home("grpc", "RpcError")
    return home("grpc._channel", "_Rendezvous", base, code=lambda self: status)()


def retried(error: Exception) -> Exception:
    """As tenacity gives up after one attempt."""
    outcome = tenacity.Future(1)
    outcome.set_exception(error)
    return tenacity.RetryError(outcome)


def never_finished() -> Exception:
    error = made("tenacity", "RetryError")
    error.last_attempt = Future()  # type: ignore[attr-defined]
    return error


CERTIFICATE = ssl.SSLCertVerificationError(1, "certificate verify failed")
HANGS_UP = "peer closed connection without sending complete message body (incomplete chunked read)"

# id: (the error, its kind after events had come)
WIRE: dict[str, tuple[BaseException, FaultKind]] = {
    "httpx fin in chunk": (
        caused(httpx.RemoteProtocolError(HANGS_UP), httpcore.RemoteProtocolError(HANGS_UP)),
        K.TRANSPORT,
    ),
    "httpx reset": (httpx.ReadError(""), K.TRANSPORT),
    "httpx refused": (httpx.ConnectError("All connection attempts failed"), K.TRANSPORT),
    "httpx write": (httpx.WriteError("broken pipe"), K.TRANSPORT),
    "httpx proxy": (httpx.ProxyError("502 Bad Gateway"), K.TRANSPORT),
    "httpx stall": (httpx.ReadTimeout("timed out"), K.TIMEOUT),
    "httpx connect timeout": (httpx.ConnectTimeout("timed out"), K.TIMEOUT),
    "httpx pool timeout": (httpx.PoolTimeout("timed out"), K.TIMEOUT),
    "httpx decoding": (httpx.DecodingError("incorrect header check"), K.CORRUPT),
    "httpcore": (httpcore.ReadError("reset"), K.TRANSPORT),
    "h11": (h11.RemoteProtocolError("closed"), K.TRANSPORT),
    "anyio": (BrokenResourceError(), K.TRANSPORT),
    "httpx2": (made("httpx2", "RemoteProtocolError"), K.TRANSPORT),
    "httpx2 timeout": (made("httpx2", "ReadTimeout"), K.TIMEOUT),
    "httpcore2": (made("httpcore2", "ReadError"), K.TRANSPORT),
    "a subclass": (
        made("my_gateway", "Broken", "", home("httpx3", "RemoteProtocolError")),
        K.TRANSPORT,
    ),
    "openai 1 and 3": (
        caused(openai.APIConnectionError(request=REQUEST), made("httpx2", "ReadError")),
        K.TRANSPORT,
    ),
    "openai timeout": (openai.APITimeoutError(request=REQUEST), K.TIMEOUT),
    "aiohttp payload": (
        caused(
            made("aiohttp.client_exceptions", "ClientPayloadError"),
            made(
                "aiohttp.http_exceptions",
                "TransferEncodingError",
                "",
                home("aiohttp.http_exceptions", "HttpProcessingError", code=400),
            ),
        ),
        K.TRANSPORT,
    ),
    "aiohttp parser": (
        made(
            "aiohttp.http_exceptions",
            "TransferEncodingError",
            "",
            home("aiohttp.http_exceptions", "HttpProcessingError", code=400),
        ),
        K.TRANSPORT,
    ),
    "aiohttp disconnected": (made("aiohttp.client_exceptions", "ServerDisconnectedError"), K.TRANSPORT),
    "aiohttp timeout": (made("aiohttp.client_exceptions", "SocketTimeoutError"), K.TIMEOUT),
    "requests chunked": (made("requests.exceptions", "ChunkedEncodingError", "", OSError), K.TRANSPORT),
    "requests timed out": (
        made("requests.exceptions", "ConnectionError", "Read timed out.", OSError),
        K.TRANSPORT,
    ),
    "requests timeout": (made("requests.exceptions", "ReadTimeout", "", OSError), K.TIMEOUT),
    "urllib3": (made("urllib3.exceptions", "ProtocolError"), K.TRANSPORT),
    "urllib3 timeout": (made("urllib3.exceptions", "ReadTimeoutError"), K.TIMEOUT),
    "botocore closed": (made("botocore.exceptions", "ConnectionClosedError"), K.TRANSPORT),
    "botocore streaming": (made("botocore.exceptions", "ResponseStreamingError"), K.TRANSPORT),
    "botocore checksum": (made("botocore.eventstream", "ChecksumMismatch"), K.CORRUPT),
    "azure sync": (made("azure.core.exceptions", "HttpResponseError", status_code=None), K.TRANSPORT),
    "azure async": (made("azure.core.exceptions", "IncompleteReadError"), K.TRANSPORT),
    "azure timeout": (made("azure.core.exceptions", "ServiceResponseTimeoutError"), K.TIMEOUT),
    "asyncio": (asyncio.IncompleteReadError(b"", 4), K.TRANSPORT),
    "timeout of asyncio": (caused(TimeoutError(), asyncio.CancelledError()), K.TIMEOUT),
    "builtin reset": (ConnectionResetError(errno.ECONNRESET, "reset"), K.TRANSPORT),
    "builtin pipe": (BrokenPipeError(), K.TRANSPORT),
    "network errno": (OSError(errno.ENETUNREACH, "unreachable"), K.TRANSPORT),
    "name service": (socket.gaierror(socket.EAI_AGAIN, "try again"), K.TRANSPORT),
    "ssl": (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), K.TRANSPORT),
    "eof": (EOFError(), K.TRANSPORT),
    "json": (json.JSONDecodeError("Expecting value", "<html>", 0), K.CORRUPT),
    "utf-8": (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), K.CORRUPT),
    "openai validation": (
        openai.APIResponseValidationError(response=response(200), body=None),
        K.CORRUPT,
    ),
    "mistral malformed": (
        made("mistralai.client.errors", "ResponseValidationError", status_code=200, body="{"),
        K.CORRUPT,
    ),
    "google malformed": (
        caused(
            made("google.genai.errors", "UnknownApiResponseError", "", ValueError),
            json.JSONDecodeError("x", "", 0),
        ),
        K.CORRUPT,
    ),
    "perplexity async": (RuntimeError("Connection closed."), K.TRANSPORT),
    "wrapped": (caused(ValueError("stream failed"), httpx.ReadError("")), K.TRANSPORT),
    "wrapped implicitly": (amid(RuntimeError("stream failed"), httpx.ReadError("")), K.TRANSPORT),
    "in a group": (ExceptionGroup("tasks", [httpx.ReadError("")]), K.TRANSPORT),
    "tenacity": (retried(httpx.ReadTimeout("")), K.TIMEOUT),
    "urllib3 reason": (made("urllib3.exceptions", "MaxRetryError", reason=OSError()), K.TRANSPORT),
    "litellm": (
        made(
            "litellm.exceptions",
            "MidStreamFallbackError",
            "",
            status_code=503,
            original_exception=httpx.ReadError(""),
        ),
        K.TRANSPORT,
    ),
}

PROVIDER: dict[str, tuple[BaseException, FaultKind]] = {
    **{f"openai {status}": (api(status), kind) for status, kind in {
        400: K.BAD_REQUEST, 401: K.AUTH, 402: K.QUOTA, 403: K.AUTH, 404: K.BAD_REQUEST, 405: K.BAD_REQUEST,
        408: K.CONFLICT, 409: K.CONFLICT, 413: K.CONTEXT_WINDOW, 422: K.BAD_REQUEST, 425: K.CONFLICT,
        429: K.RATE_LIMIT, 451: K.FILTERED, 500: K.SERVER, 502: K.SERVER, 503: K.OVERLOADED, 504: K.SERVER,
        520: K.SERVER, 529: K.OVERLOADED,
    }.items()},
    "httpx 503": (httpx.HTTPStatusError("", request=REQUEST, response=response(503)), K.OVERLOADED),
    "httpx 302": (httpx.HTTPStatusError("", request=REQUEST, response=response(302)), K.BAD_REQUEST),
    "insufficient_quota": (api(429, "You exceeded your current quota", code="insufficient_quota"), K.QUOTA),
    "quota in a raw body": (
        httpx.HTTPStatusError(
            "", request=REQUEST, response=response(429, body={"error": {"type": "insufficient_quota"}})
        ),
        K.QUOTA,
    ),
    "quota beside rate": (api(429, type="rate_limit_error", code="insufficient_quota"), K.QUOTA),
    "moonshot quota": (api(429, type="exceeded_current_quota_error"), K.QUOTA),
    "anthropic credit": (
        api(400, "Your credit balance is too low", type="invalid_request_error"),
        K.QUOTA,
    ),
    "bad key": (api(401, code="invalid_api_key", type="invalid_request_error"), K.AUTH),
    "content filter": (
        api(400, code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}),
        K.FILTERED,
    ),
    "content policy": (api(400, code="content_policy_violation"), K.FILTERED),
    "filtered by wording": (api(400, "violates our content management policy"), K.FILTERED),
    "dashscope filter": (api(400, code="data_inspection_failed"), K.FILTERED),
    "openai in-band": (in_band(message="The server had an error", type="server_error"), K.SERVER),
    "openai in-band bare": (in_band(message="oops"), K.SERVER),
    "openai in-band number": (in_band(message="oops", code=529), K.OVERLOADED),
    "openai in-band overloaded": (in_band(type="overloaded_error"), K.OVERLOADED),
    "openai in-band rate": (in_band(code="rate_limit_exceeded"), K.RATE_LIMIT),
    "openai in-band quota": (in_band(code="insufficient_quota"), K.QUOTA),
    "openai in-band invalid": (in_band(type="invalid_request_error"), K.BAD_REQUEST),
    "anthropic in-band": (
        openai.APIStatusError(
            "", response=response(200), body={"type": "error", "error": {"type": "overloaded_error"}}
        ),
        K.OVERLOADED,
    ),
    "anthropic in-band unknown": (
        openai.APIStatusError(
            "", response=response(200), body={"type": "error", "error": {"type": "new_error"}}
        ),
        K.SERVER,
    ),
    "anthropic 2 by type": (
        made("anthropic", "APIStatusError", status_code=200, type="rate_limit_error"),
        K.RATE_LIMIT,
    ),
    "ollama in-band": (made("ollama", "ResponseError", "unexpected EOF", status_code=-1), K.SERVER),
    "ollama 404": (made("ollama", "ResponseError", "model not found", status_code=404), K.BAD_REQUEST),
    "huggingface": (made("huggingface_hub.errors", "UnknownError"), K.SERVER),
    "huggingface overloaded": (made("huggingface_hub.errors", "OverloadedError"), K.OVERLOADED),
    "cohere": (made("cohere.core.api_error", "ApiError", status_code=500, body={}), K.SERVER),
    "mistral 503": (made("mistralai.client.errors", "SDKError", status_code=503, body="oops"), K.OVERLOADED),
    "google 503": (genai(503, "UNAVAILABLE"), K.OVERLOADED),
    "google 429": (genai(429, "RESOURCE_EXHAUSTED", "check your plan and billing details"), K.RATE_LIMIT),
    "google 400": (genai(400, "INVALID_ARGUMENT"), K.BAD_REQUEST),
    "google 403": (genai(403, "PERMISSION_DENIED"), K.AUTH),
    "api_core": (made("google.api_core.exceptions", "ServiceUnavailable", code=503), K.OVERLOADED),
    "google.auth": (made("google.auth.exceptions", "RefreshError"), K.AUTH),
    "grpc": (grpc(GrpcStatus.UNAVAILABLE), K.OVERLOADED),
    "grpc invalid": (grpc(GrpcStatus.INVALID_ARGUMENT), K.BAD_REQUEST),
    "aws throttles": (botocore("ThrottlingException", status=400), K.RATE_LIMIT),
    "aws validation": (botocore("ValidationException", status=400), K.BAD_REQUEST),
    "aws token": (botocore("ExpiredTokenException", status=403), K.AUTH),
    "aws stream": (botocore("modelStreamErrorException"), K.SERVER),
    "aws stream internal": (botocore("internalServerException"), K.SERVER),
    "aws stream busy": (botocore("serviceUnavailableException"), K.OVERLOADED),
    "aws stream throttled": (botocore("throttlingException"), K.RATE_LIMIT),
    "aws stream timeout": (botocore("modelTimeoutException"), K.TIMEOUT),
    "aws stream invalid": (botocore("validationException"), K.BAD_REQUEST),
    "aws credentials": (made("botocore.exceptions", "NoCredentialsError"), K.AUTH),
    "litellm policy": (
        made("litellm.exceptions", "ContentPolicyViolationError", status_code=400),
        K.FILTERED,
    ),
    "litellm window": (
        made("litellm.exceptions", "ContextWindowExceededError", status_code=400),
        K.CONTEXT_WINDOW,
    ),
    "litellm timeout": (made("litellm.exceptions", "Timeout", status_code=408), K.TIMEOUT),
    "litellm budget": (made("litellm.exceptions", "BudgetExceededError"), K.QUOTA),
    "litellm mid-stream auth": (
        made(
            "litellm.exceptions", "MidStreamFallbackError", status_code=503, original_exception=api(401)
        ),
        K.AUTH,
    ),
    "litellm mid-stream": (
        made(
            "litellm.exceptions", "MidStreamFallbackError", status_code=503, original_exception=Exception()
        ),
        K.OVERLOADED,
    ),
    "tenacity 503": (
        retried(httpx.HTTPStatusError("", request=REQUEST, response=response(503))),
        K.OVERLOADED,
    ),
    "google max tokens": (RuntimeError("Response was terminated early: MAX_TOKENS"), K.LENGTH),
    "google safety": (RuntimeError("Response was terminated early: SAFETY"), K.FILTERED),
    "google other": (RuntimeError("Response was terminated early: OTHER"), K.ERROR_FINISH),
}  # fmt: skip

HOPELESS: dict[str, tuple[BaseException, FaultKind]] = {
    "certificate": (
        caused(openai.APIConnectionError(request=REQUEST), caused(httpx.ConnectError(""), CERTIFICATE)),
        K.BAD_REQUEST,
    ),
    "scheme": (httpx.UnsupportedProtocol("missing http://"), K.BAD_REQUEST),
    "url": (httpx.InvalidURL("Invalid port"), K.BAD_REQUEST),
    "header": (
        caused(
            openai.APIConnectionError(request=REQUEST),
            httpx.LocalProtocolError("Illegal header value b'Bearer '"),
        ),
        K.BAD_REQUEST,
    ),
    "no key": (openai.OpenAIError("The api_key client option must be set"), K.UNKNOWN),
    "file": (FileNotFoundError(errno.ENOENT, "no such file"), K.UNKNOWN),
    "a stranger": (made("my_app", "Boom"), K.UNKNOWN),
    "runtime": (RuntimeError("boom"), K.UNKNOWN),
    "closed client": (
        RuntimeError("Cannot send a request, as the client has been closed."),
        K.UNKNOWN,
    ),
    "tarfile": (made("tarfile", "ReadError"), K.UNKNOWN),
    "assertion": (AssertionError(), K.UNKNOWN),
    "name": (NameError("x"), K.UNKNOWN),
    "memory": (MemoryError(), K.UNKNOWN),
    "unfinished future": (never_finished(), K.UNKNOWN),
    "cancelled": (asyncio.CancelledError(), K.CANCELLED),
    "cancelled future": (made("concurrent.futures._base", "CancelledError"), K.CANCELLED),
    "generator exit": (GeneratorExit(), K.CANCELLED),
    "ctrl-c": (KeyboardInterrupt(), K.CANCELLED),
}

NEVER_RETRIED = {
    K.BAD_REQUEST, K.AUTH, K.QUOTA, K.FILTERED, K.CONTEXT_WINDOW, K.LENGTH, K.UNKNOWN, K.CANCELLED,
}  # fmt: skip
ROWS = WIRE | PROVIDER | HOPELESS


@pytest.mark.parametrize(("error", "kind"), ROWS.values(), ids=ROWS.keys())
def test_kind(error: BaseException, kind: FaultKind) -> None:
    fault = classify(error, streamed=True)
    assert fault.kind is kind
    assert fault.retryable is (kind not in NEVER_RETRIED)
    assert fault.error is error


CERTAIN = {name: error for name, (error, _) in (WIRE | PROVIDER).items()}


@pytest.mark.parametrize("error", CERTAIN.values(), ids=CERTAIN.keys())
def test_whether_events_had_come_matters_only_to_stumbles(error: BaseException) -> None:
    assert classify(error, streamed=False) == classify(error, streamed=True)


def invalid() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python("x")
    return caught.value


STUMBLES: dict[str, Exception] = {
    "lm studio": KeyError("choices"),
    "usage chunk": IndexError("list index out of range"),
    "odd chunk": AttributeError("'NoneType' object has no attribute 'content'"),
    "anthropic tool": ValueError("Tool call not started"),
    "cohere async": TypeError("'async for' requires an object with __aiter__ method"),
    "pydantic": invalid(),
    "nested too deeply": RecursionError("maximum recursion depth exceeded"),
    "stop iteration": caused(RuntimeError("generator raised StopIteration"), StopIteration()),
}


@pytest.mark.parametrize("error", STUMBLES.values(), ids=STUMBLES.keys())
def test_a_stumble_is_corruption_once_events_had_come(error: Exception) -> None:
    before, after = classify(error, streamed=False), classify(error, streamed=True)
    assert (before.kind, before.retryable) == (K.UNKNOWN, False)
    assert (after.kind, after.retryable) == (K.CORRUPT, True)


def test_the_context_of_a_mistake_is_not_its_cause() -> None:
    assert not classify(amid(NameError("x"), httpx.ReadError("")), streamed=True).retryable
    assert not classify(amid(TypeError("x"), httpx.ReadError("")), streamed=False).retryable


def test_a_suppressed_context_is_not_a_cause() -> None:
    error = amid(RuntimeError("x"), httpx.ReadError(""))
    error.__suppress_context__ = True
    assert classify(error, streamed=True).kind is K.UNKNOWN


def test_the_outermost_opinion_counts() -> None:
    assert classify(amid(api(400), httpx.ReadError("")), streamed=True).kind is K.BAD_REQUEST
    assert classify(caused(httpx.ReadError(""), api(400)), streamed=True).kind is K.TRANSPORT


def test_a_chain_that_bites_its_tail() -> None:
    first, second = RuntimeError("1"), RuntimeError("2")
    first.__cause__, second.__cause__ = second, first
    first.original_exception = first  # type: ignore[attr-defined]
    assert classify(first, streamed=True).kind is K.UNKNOWN


def test_a_very_long_chain() -> None:
    error: Exception = httpx.ReadError("")
    for _ in range(5_000):
        error = caused(RuntimeError("again"), error)
    assert classify(error, streamed=True).kind is K.UNKNOWN


CONTEXT_WINDOW = {
    "openai": "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.",
    "openai responses": "Your input exceeds the context window of this model. Please adjust your input.",
    "anthropic": "prompt is too long: 205000 tokens > 200000 maximum",
    "anthropic sum": "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
    "gemini": "The input token count (1048600) exceeds the maximum number of tokens allowed (1048575).",
    "bedrock": "Input is too long for requested model.",
    "bedrock titan": "400 Bad Request: Too many input tokens. Max input tokens: 8192, request has 9000",
    "vllm": "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "sglang": "The input (70000 tokens) is longer than the model's context length (65536 tokens).",
    "sglang sum": "Requested token count exceeds the model's maximum context length of 65536 tokens.",
    "tgi": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
    "tgi short": "`inputs` must have less than 1024 tokens. Given: 2000",
    "llama.cpp": "the request exceeds the available context size, try increasing it",
    "llama-cpp-python": "Requested tokens (5000) exceed context window of 4096",
    "mistral": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
    "cohere": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 6000",
    "groq": "Please reduce the length of the messages or completion.",
    "xai": "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "moonshot": "Invalid request: Your request exceeded model token limit: 8192",
    "z.ai": "Prompt exceeds max length",
    "minimax": "invalid params, context window exceeds limit (2013)",
    "dashscope": "Range of input length should be [1, 30720]",
    "watsonx": "the number of input tokens 5000 cannot exceed the total tokens limit 4096 for this model",
    "ollama": "the input length exceeds the context length",
    "copilot": "prompt token count of 70000 exceeds the limit of 64000",
}


@pytest.mark.parametrize("wording", CONTEXT_WINDOW.values(), ids=CONTEXT_WINDOW.keys())
def test_context_window(wording: str) -> None:
    bad_request = api(400, wording, type="invalid_request_error")
    for error in (bad_request, in_band(message=wording), ValueError(wording)):
        fault = classify(error, streamed=False)
        assert (fault.kind, fault.retryable) == (K.CONTEXT_WINDOW, False)


CODES = ["context_length_exceeded", "exceed_context_size_error", "request_too_large"]


@pytest.mark.parametrize("code", CODES)
def test_context_window_by_code(code: str) -> None:
    assert classify(api(400, code=code), streamed=False).kind is K.CONTEXT_WINDOW


PREFILL = {
    "claude 4.6": "This model does not support assistant message prefill.",
    "claude 4.6, on": "The conversation must end with a user message.",
    "claude older": "Prefilling assistant messages is not supported for this model.",
    "claude space": "messages: final assistant content cannot end with trailing whitespace",
    "claude thinking": "a final `assistant` message must start with a thinking block",
    "gemini": "Requests ending with a model turn are not supported.",
    "mistral": "Expected last role User or Tool (or Assistant with prefix True) but got assistant",
    "llama.cpp": "Assistant response prefill is incompatible with enable_thinking.",
    "cohere": "invalid request: the last message must be from the user or a tool",
    "no flags": "Unrecognized request argument supplied: continue_final_message",
    "no mark": "Extra inputs are not permitted: messages.1.prefix",
}


@pytest.mark.parametrize("wording", PREFILL.values(), ids=PREFILL.keys())
@pytest.mark.parametrize("status", [400, 422])
def test_prefill_refused(wording: str, status: int) -> None:
    fault = classify(api(status, wording, type="invalid_request_error"), streamed=False)
    assert (fault.kind, fault.retryable) == (K.PREFILL_REFUSED, False)


def test_a_server_that_fails_while_it_prefills_did_not_refuse() -> None:
    assert classify(api(500, "prefill worker died"), streamed=False).kind is K.SERVER


# How long to wait

ASKED: dict[str, tuple[BaseException, float | None]] = {
    "seconds": (api(429, headers={"Retry-After": "7"}), 7.0),
    "float": (api(503, headers={"retry-after": "1.5"}), 1.5),
    "milliseconds first": (api(429, headers={"retry-after-ms": "1500", "retry-after": "9"}), 1.5),
    "date": (api(429, headers={"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT"}), 30.0),
    "date with zone": (api(429, headers={"retry-after": "Fri, 20 Nov 2026 13:00:30 +0100"}), 30.0),
    "date that has passed": (api(429, headers={"retry-after": "Fri, 20 Nov 2026 11:00:00 GMT"}), 0.0),
    "milliseconds are nonsense": (api(429, headers={"retry-after-ms": "soon", "retry-after": "9"}), 9.0),
    "nonsense": (api(429, headers={"retry-after": "soon"}), None),
    "negative": (api(429, headers={"retry-after": "-5"}), None),
    "endless": (api(429, headers={"retry-after": "inf"}), None),
    "no number": (api(429, headers={"retry-after": "nan"}), None),
    "year 99999": (api(429, headers={"retry-after": "Fri, 20 Nov 99999 12:00:00 GMT"}), None),
    "none": (api(429), None),
    "not worth a retry": (api(401, headers={"retry-after": "7"}), None),
    "mistral, cohere": (made("cohere", "ApiError", status_code=429, headers={"Retry-After": "4"}), 4.0),
    "bytes": (made("aiohttp", "ClientError", status=429, headers=[(b"Retry-After", b"4")]), 4.0),
    "litellm": (
        made(
            "litellm.exceptions",
            "RateLimitError",
            status_code=429,
            response=response(429),
            litellm_response_headers={"Retry-After": "4"},
        ),
        4.0,
    ),
    "botocore": (botocore("ThrottlingException", status=429), 2.0),
    "tenacity": (
        retried(httpx.HTTPStatusError("", request=REQUEST, response=response(503, {"retry-after": "3"}))),
        3.0,
    ),
    "requests used up": (
        api(
            429,
            headers={"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0.5s"},
        ),
        360.5,
    ),
    "tokens used up": (
        api(
            429,
            headers={"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"},
        ),
        0.12,
    ),
    "not used up": (
        api(
            429,
            headers={"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "120s"},
        ),
        None,
    ),
    "anthropic": (
        api(
            429,
            headers={
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2026-11-20T12:01:00Z",
            },
        ),
        60.0,
    ),
    "google": (
        made(
            "google.genai.errors",
            "ClientError",
            code=429,
            details={
                "error": {
                    "details": [
                        {"@type": "type.googleapis.com/google.rpc.Help"},
                        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"},
                    ]
                }
            },
        ),
        34.5,
    ),
    "headers are a number": (made("x", "RateLimitError", status_code=429, headers=3), None),
    "headers are a text": (made("x", "RateLimitError", status_code=429, headers="retry-after: 3"), None),
}


@pytest.mark.parametrize(("error", "seconds"), ASKED.values(), ids=ASKED.keys())
def test_retry_after(error: BaseException, seconds: float | None) -> None:
    fault = classify(error, streamed=False, now=lambda: NOW)
    assert fault.retry_after == (None if seconds is None else pytest.approx(seconds))


def test_a_clock_without_a_zone_is_utc() -> None:
    error = api(429, headers={"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT"})
    assert classify(error, streamed=False, now=lambda: NOW.replace(tzinfo=None)).retry_after == 30.0


def test_by_default_now_is_now() -> None:
    later = (datetime.now(UTC) + timedelta(seconds=100)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    seconds = classify(api(429, headers={"retry-after": later}), streamed=False).retry_after
    assert seconds is not None
    assert 90 < seconds <= 100


# Errors inside a stream


def bare_text(text: str) -> openai.APIError:
    """What the OpenAI client raises for the event {"error": "some text"}, as TGI sends it."""
    return openai.APIError("An error occurred during streaming", REQUEST, body=text)


IN_BAND: dict[str, tuple[str, FaultKind]] = {
    "tgi window": (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
        K.CONTEXT_WINDOW,
    ),
    "tgi validation": ("Input validation error: `temperature` must be strictly positive", K.BAD_REQUEST),
    "window": ("This model's maximum context length is 8192 tokens, you requested 9000", K.CONTEXT_WINDOW),
    "window in Chinese": ("输入内容超过模型上下文长度限制", K.CONTEXT_WINDOW),
    "prompt too long in Chinese": ("Prompt 超长", K.CONTEXT_WINDOW),
    "quota": ("insufficient_quota: You exceeded your current quota", K.QUOTA),
    "balance": ("Insufficient balance, please recharge", K.QUOTA),
    "balance in Chinese": ("账户余额不足，请充值后重试", K.QUOTA),
    "arrears in Chinese": ("您的账户已欠费", K.QUOTA),
    "used up in Chinese": ("该令牌额度已用尽", K.QUOTA),
    "filter": ("The response was blocked by our content filter", K.FILTERED),
    "policy": ("Your request violates our usage policies", K.FILTERED),
    "filter in Chinese": ("系统检测到输入或生成内容可能包含不安全或敏感内容", K.FILTERED),
    "moderation in Chinese": ("内容审核不通过", K.FILTERED),
    "violation in Chinese": ("输出内容违规，已被拦截", K.FILTERED),
    "traditional characters": ("輸入內容包含敏感詞", K.FILTERED),
    "key": ("Incorrect API key provided: sk-abc", K.AUTH),
    "key first": ("API key not valid. Please pass a valid API key.", K.AUTH),
    "key in Chinese": ("无效的令牌", K.AUTH),
    "model": ("The model `x` does not exist or you do not have access to it.", K.BAD_REQUEST),
    "window of tokens": ("tokens in request more than max tokens allowed", K.CONTEXT_WINDOW),
    "window to reduce": ("Please reduce your prompt; or completion length.", K.CONTEXT_WINDOW),
    "total of tokens": ("total tokens 9000 exceeds limit 8192", K.CONTEXT_WINDOW),
    "current quota": ("You exceeded your current quota, please check your plan and billing details", K.QUOTA),
    "quota per minute": ("You exceeded your current quota. Please retry in 34.07s.", K.SERVER),
    "balance last": ("Your account balance is insufficient", K.QUOTA),
    "payment": ("Payment required: please add funds", K.QUOTA),
    "spending": ("monthly spending limit reached", K.QUOTA),
    "billing": ("Usage limit exceeded for this billing period", K.QUOTA),
    "prepaid in Chinese": ("预扣费额度失败, 用户剩余额度: ¥0.1", K.QUOTA),
    "risk": ("Content Exists Risk", K.FILTERED),
    "word of a gateway": ("sensitive_words_detected", K.FILTERED),
    "guidelines": ("Content violates usage guidelines. Failed check: SAFETY_CHECK", K.FILTERED),
    "our policies": ("Your prompt violates our policies", K.FILTERED),
    "forbidden in Chinese": ("输入包含违禁内容", K.FILTERED),
    "illegal in Chinese": ("请求内容涉嫌违法", K.FILTERED),
    "risk control in Chinese": ("输入内容触发风控", K.FILTERED),
    "bad information in Chinese": ("包含不良信息", K.FILTERED),
    "key expired in Chinese": ("api key已失效", K.AUTH),
    "authentication": ("Authentication Fails (no such user)", K.AUTH),
    "token revoked": ("Your API token has been revoked", K.AUTH),
    "no channel in Chinese": ("当前分组 default 下对于模型 x 无可用渠道", K.BAD_REQUEST),
    "busy": ("The system is busy, please try again later", K.SERVER),
    "too many people": ("Quota exceeded for requests per minute, retry in 3 s", K.SERVER),
    "anything else": ("Request failed during generation: Server error: CUDA out of memory", K.SERVER),
    "nothing": ("", K.SERVER),
}
SHAPES: dict[str, Any] = {
    "bare text": bare_text,
    "message": lambda text: in_band(message=text),
    "message in an error": lambda text: openai.APIError("", REQUEST, body={"error": {"message": text}}),
    "text in an error": lambda text: openai.APIError("", REQUEST, body={"error": text}),
    "detail": lambda text: openai.APIError("", REQUEST, body={"detail": text}),
    "text of the exception": lambda text: made("ollama", "ResponseError", text, status_code=-1),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize(("text", "kind"), IN_BAND.values(), ids=IN_BAND.keys())
def test_what_an_error_event_says(shape: Any, text: str, kind: FaultKind) -> None:
    fault = classify(shape(text), streamed=True)
    assert (fault.kind, fault.retryable) == (kind, kind is K.SERVER)


PLAIN: dict[str, tuple[str, FaultKind]] = {
    "quota": ("insufficient_quota", K.QUOTA),
    "credits": ("You have run out of credits", K.QUOTA),
    "window": ("This model's maximum context length is 8192 tokens", K.CONTEXT_WINDOW),
    "filter in Chinese": ("内容审核不通过", K.FILTERED),
    "key": ("Invalid API key", K.AUTH),
    "nobody knows": ("upstream went away", K.CORRUPT),
    "cut JSON": ('{"choices": [{"delta": {"content": "Insufficient balance', K.CORRUPT),
    "a piece of JSON": ('content": "Insufficient balance"}}]}', K.CORRUPT),
    "a page": ("<html>Unauthorized</html>", K.CORRUPT),
    "long": ("insufficient_quota " * 50, K.CORRUPT),
}


@pytest.mark.parametrize(("text", "kind"), PLAIN.values(), ids=PLAIN.keys())
def test_an_event_that_is_a_sentence_is_read(text: str, kind: FaultKind) -> None:
    fault = classify(json.JSONDecodeError("Expecting value", text, 0), streamed=True)
    assert (fault.kind, fault.retryable) == (kind, kind is K.CORRUPT)


CODES_IN_BAND: dict[str, tuple[dict[str, Any], FaultKind]] = {
    "zhipu filter": ({"code": "1301", "message": "oops"}, K.FILTERED),
    "zhipu filter as number": ({"code": 1301, "message": "oops"}, K.FILTERED),
    "zhipu arrears": ({"code": "1113", "message": "oops"}, K.QUOTA),
    "zhipu window": ({"code": 1261, "message": "oops"}, K.CONTEXT_WINDOW),
    "minimax filter": ({"code": 1027}, K.FILTERED),
    "gateway's filter": ({"code": "sensitive_words_detected"}, K.FILTERED),
    "gateway's filter as type": ({"type": "sensitive_words_detected"}, K.FILTERED),
    "dashscope": ({"code": "data_inspection_failed"}, K.FILTERED),
    "dashscope in capitals": ({"code": "DataInspectionFailed"}, K.FILTERED),
    "volcengine": ({"code": "InputTextSensitiveContentDetected"}, K.FILTERED),
    "moderation": ({"code": "moderation_error"}, K.FILTERED),
    "violation": ({"type": "content_policy_violated"}, K.FILTERED),
    "quota of a gateway": ({"code": "insufficient_user_quota"}, K.QUOTA),
    "token quota": ({"code": "pre_consume_token_quota_failed"}, K.QUOTA),
    "balance": ({"code": "InsufficientAccountBalance"}, K.QUOTA),
    "overdue": ({"code": "AccountOverdueError"}, K.QUOTA),
    "window": ({"code": "context_length_limit_exceeded"}, K.CONTEXT_WINDOW),
    "prompt too long": ({"code": "prompt_too_long"}, K.CONTEXT_WINDOW),
    "a number nobody knows": ({"code": 4711}, K.SERVER),
    "status as number": ({"code": 503}, K.OVERLOADED),
    "true": ({"code": True}, K.SERVER),
    "groq": ({"code": "tool_use_failed", "type": "invalid_request_error"}, K.ERROR_FINISH),
    "groq's json": ({"code": "json_validate_failed", "type": "invalid_request_error"}, K.ERROR_FINISH),
    "malformed": ({"code": "MALFORMED_FUNCTION_CALL"}, K.ERROR_FINISH),
}


@pytest.mark.parametrize(("body", "kind"), CODES_IN_BAND.values(), ids=CODES_IN_BAND.keys())
def test_the_code_of_an_error_event(body: dict[str, Any], kind: FaultKind) -> None:
    fault = classify(in_band(**body), streamed=True)
    assert (fault.kind, fault.retryable) == (kind, kind in RETRYABLE)


def test_a_model_that_broke_its_own_syntax_is_asked_again_whatever_the_status() -> None:
    error = api(400, "Failed to call a function.", code="tool_use_failed", type="invalid_request_error")
    assert (classify(error, streamed=False).kind, classify(error, streamed=False).retryable) == (K.ERROR_FINISH, True)


SERVERS: dict[str, str] = {
    "key": "the upstream said: invalid api key",
    "model": "model loading failed: file does not exist",
}


@pytest.mark.parametrize("text", SERVERS.values(), ids=SERVERS.keys())
def test_a_status_of_the_server_outweighs_what_sounds_like_a_bad_request(text: str) -> None:
    assert classify(api(500, text), streamed=False).kind is K.SERVER


# Failures that would come again


def stumbled(error: Exception) -> Exception:
    """Raised, so that it has a place in the code."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def elsewhere(error: Exception) -> Exception:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def not_json() -> json.JSONDecodeError:
    return json.JSONDecodeError("Expecting value", "retry: 3000", 0)


ALIKE: dict[str, tuple[Any, Any]] = {
    "type": (lambda: TypeError("can only concatenate str"), lambda: TypeError("can only concatenate str")),
    "attribute": (lambda: AttributeError("'list' has no attribute 'get'"),) * 2,
    "key": (lambda: KeyError("choices"),) * 2,
    "json": (not_json,) * 2,
    "recursion": (lambda: RecursionError("maximum recursion depth exceeded"),) * 2,
    "wrapped": (lambda: caused(ValueError("stream"), TypeError("x")),) * 2,
}
UNLIKE: dict[str, tuple[Any, Any]] = {
    "another text": (lambda: KeyError("choices"), lambda: KeyError("delta")),
    "another class": (lambda: TypeError("x"), lambda: AttributeError("x")),
    "json elsewhere": (not_json, lambda: json.JSONDecodeError("Expecting value", "data", 3)),
    "the wire": (lambda: httpx.ReadError(""),) * 2,
    "a server": (lambda: in_band(message="oops"),) * 2,
    "bytes": (lambda: httpx.DecodingError("incorrect header check"),) * 2,
    "utf-8": (lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),) * 2,
    "rate": (lambda: api(429),) * 2,
}


@pytest.mark.parametrize(("first", "second"), ALIKE.values(), ids=ALIKE.keys())
def test_the_same_failure_twice_is_a_repeat(first: Any, second: Any) -> None:
    earlier, later = (classify(stumbled(make()), streamed=True) for make in (first, second))
    assert earlier.retryable
    assert later.repeats(earlier)
    assert not later.repeats(None)


@pytest.mark.parametrize(("first", "second"), UNLIKE.values(), ids=UNLIKE.keys())
def test_another_failure_is_no_repeat(first: Any, second: Any) -> None:
    earlier, later = (classify(stumbled(make()), streamed=True) for make in (first, second))
    assert not later.repeats(earlier)


def test_the_same_text_from_another_place_is_no_repeat() -> None:
    earlier, later = classify(stumbled(KeyError("x")), streamed=True), classify(elsewhere(KeyError("x")), streamed=True)
    assert not later.repeats(earlier)


# What may be logged

SECRETS = (
    "sk-proj-abcDEF0123456789",
    "Bearer eyJhbGciOi.secret",
    "https://user:hunter2@proxy.example.com:8080/v1?api_key=hunter2",
    "AIzaSyD-secret-key",
    "My patient, John Smith, has",
)
LEAKS = [
    lambda secret: api(401, f"Incorrect API key provided: {secret}", code=secret, type=secret),
    lambda secret: api(400, secret, code=secret, param=secret),
    lambda secret: in_band(message=secret, code=secret, type=secret),
    lambda secret: httpx.HTTPStatusError(
        f"Client error for url {secret}", request=REQUEST, response=response(503, {"x": "y"}, {"a": secret})
    ),
    lambda secret: httpx.ConnectError(f"proxy {secret} refused"),
    lambda secret: ValueError(secret),
    lambda secret: RuntimeError(f"Response was terminated early: {secret}"),
    lambda secret: json.JSONDecodeError(secret, secret, 0),
    lambda secret: caused(RuntimeError(secret), ConnectionResetError(errno.ECONNRESET, secret)),
    lambda secret: made("sdk", "APIError", secret, code=secret, type=secret, status=secret, body=secret),
    lambda secret: made("sdk", "APIError", status_code=429, body={"error": {"code": f"429 {secret}"}}),
]


@pytest.mark.parametrize("leak", LEAKS, ids=range(len(LEAKS)))
@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_fault_keeps_secrets(leak: Any, secret: str, streamed: bool) -> None:
    fault = classify(leak(secret), streamed=streamed)
    for told in (fault.message, repr(fault)):
        for part in (secret, "sk-", "Bearer", "hunter2", "AIza", "Smith"):
            assert part not in told


MESSAGES: dict[str, tuple[BaseException, str]] = {
    "status and word": (
        api(429, code="insufficient_quota"),
        "RateLimitError, HTTP 429, insufficient_quota",
    ),
    "status": (api(500), "InternalServerError, HTTP 500"),
    "name": (httpx.ReadError("x"), "ReadError"),
    "chain": (caused(ValueError("x"), httpx.ReadError("x")), "ValueError from ReadError"),
    "errno": (ConnectionResetError(errno.ECONNRESET, "x"), "ConnectionResetError, ECONNRESET"),
    "in-band": (in_band(type="overloaded_error"), "APIError, overloaded_error"),
}


@pytest.mark.parametrize(("error", "message"), MESSAGES.values(), ids=MESSAGES.keys())
def test_message(error: BaseException, message: str) -> None:
    assert classify(error, streamed=True).message == message


def test_a_message_is_one_line() -> None:
    error = made("sdk", "APIError", code="rate\n_limit\r_error", status_code=429)
    assert classify(error, streamed=True).message == "APIError, HTTP 429"


# Whatever an exception may be like

NAMES = """
    body code details error headers http_status last_attempt message reason response litellm_response_headers
    original_exception response_json status status_code type"""
KEYS = """
    error Error code Code type status message details retryDelay headers retry-after retry-after-ms status_code
    ResponseMetadata HTTPStatusCode HTTPHeaders _content"""


class Hostile:
    """Whatever it is asked, it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class HostileError(Exception):
    """Whatever it is asked, it raises or answers with nonsense."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError("str")


WORDS = ["insufficient_quota", "overloaded_error", "429", '{"error": {"code": 429}}', "[[[["]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-1, 600),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.builds(Hostile),
    st.builds(HostileError),
    st.builds(Future),
    st.just(10**400),
    st.just(httpx.ReadError("")),
    st.sampled_from(WORDS),
)


def mappings(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=4)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=4).map(lambda fields: Object(**fields))


ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | mappings(inner) | objects(inner),
    max_leaves=10,
)
ATTRIBUTES = st.dictionaries(st.sampled_from(NAMES.split()), ANYTHING)
CLASSES = [Exception, ValueError, RuntimeError, ConnectionError, TimeoutError, HostileError]
CLASSES += [httpx.ReadError, openai.OpenAIError, home("sdk", "APIError"), home("grpc", "RpcError")]


@given(
    cls=st.sampled_from(CLASSES),
    args=st.lists(LEAVES, max_size=2),
    fields=ATTRIBUTES,
    streamed=st.booleans(),
)
def test_never_raises(cls: Any, args: list[Any], fields: dict[str, Any], streamed: bool) -> None:
    error = cls.__new__(cls, *args)
    error.args = tuple(args)
    for name, value in fields.items():
        setattr(error, name, value)
    fault = classify(error, streamed=streamed)
    assert isinstance(fault, Fault)
    assert fault.message.isprintable()
    assert fault.status is None or 300 <= fault.status <= 599
    assert fault.retry_after is None or 0 <= fault.retry_after < float("inf")
