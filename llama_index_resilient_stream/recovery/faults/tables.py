"""The tables by which an error is recognised: words, names, numbers and wordings. Data, not code.

To teach the package another provider's error, add a word to a row.
"""

from __future__ import annotations

import errno
import re

from ...report import FaultKind

RETRYABLE = frozenset(
    {
        FaultKind.TRANSPORT,
        FaultKind.TIMEOUT,
        FaultKind.CORRUPT,
        FaultKind.TRUNCATED,
        FaultKind.EMPTY,
        FaultKind.ERROR_FINISH,
        FaultKind.SERVER,
        FaultKind.OVERLOADED,
        FaultKind.RATE_LIMIT,
        FaultKind.CONFLICT,
    }
)


def _table(rows: dict[FaultKind, str]) -> dict[str, FaultKind]:
    return {word: kind for kind, words in rows.items() for word in words.split()}


# Words of providers: `code`, `type` and `status` of an error body, and names of exception classes, which use
# the same vocabulary. In lower case, without punctuation, without "Error" and "Exception" at the end, so that
# "overloaded_error", "OverloadedError" and "overloadedException" are one word.

SHARP = _table(
    {
        FaultKind.QUOTA: """
            insufficientquota insufficientuserquota insufficientbalance insufficientcredits
            exceededcurrentquota billinghardlimitreached billingnotactive billing servicequotaexceeded
            budgetexceeded paymentrequired arrearage accessterminated contractspendlimitreached
            enforcedspendlimitreached organizationonhold 1113""",  # number: Zhipu
        FaultKind.FILTERED: """
            contentfilter contentfilterfinishreason contentpolicyviolation contentpolicy contentmoderation
            responsibleaipolicyviolation datainspectionfailed datainspection moderationblocked promptblocked
            blockedprompt stopcandidate invalidprompt rejectedrequest blockedpiientity guardrailraised
            safety 1301 1026 1027""",  # numbers: Zhipu, MiniMax
        FaultKind.CONTEXT_WINDOW: """
            contextlengthexceeded contextwindowexceeded exceedcontextsize requesttoolarge contenttoolarge
            modelcontextwindowexceeded contextlength stringabovemaxlength 1261""",  # number: Zhipu
        FaultKind.LENGTH: "lengthfinishreason",
        FaultKind.AUTH: """
            authentication invalidapikey apikeyinvalid permission permissiondenied unauthorized
            unauthenticated accessdenied forbidden expiredtoken unrecognizedclient invalidsignature
            clientauthentication nocredentials partialcredentials credentialretrieval credentials
            tokenretrieval defaultcredentials unauthorizedssotoken refresh noauthtoken workloadidentity
            gatedrepo""",
        FaultKind.OVERLOADED: """
            overloaded engineoverloaded modeloverloaded serveroverloaded serviceunavailable unavailable
            serverbusy modelnotready capacityexceeded slowdown""",
        FaultKind.RATE_LIMIT: """
            ratelimit ratelimited ratelimitexceeded ratelimitreached ramplimitexceeded toomanyrequests
            throttling throttled throttlingratequota throttlingallocationquota resourceexhausted
            requestlimitexceeded""",
        FaultKind.TIMEOUT: """
            timeout apitimeout modeltimeout requesttimeout deadlineexceeded inferencetimeout gatewaytimeout
            servertimeout""",
        # Groq, Gemini: the model broke its own syntax, and may well get it right when it is asked again.
        FaultKind.ERROR_FINISH: """
            toolusefailed jsonvalidatefailed outputparsefailed malformedfunctioncall malformedtoolcall
            malformedresponse""",
    }
)
"""Words that outweigh the HTTP status: insufficient_quota comes with 429, and AWS throttles with 400. Of several words
in one error the upper row counts."""

SHARP_PARTS = (
    (
        FaultKind.QUOTA,
        re.compile(
            r"insufficient.*(quota|balance|credit|fund)|(balance|credit|fund)s?(insufficient|exhausted|depleted)"
            r"|quota(failed|exhausted|used)|overdue|arrear"
        ),
    ),
    (
        FaultKind.FILTERED,
        re.compile(
            r"sensitive|moderation|contentfilter|contentpolic|policyviolat|datainspection|content(violat|blocked)"
            r"|(prohibited|unsafe|harmful|inappropriate)content"
        ),
    ),
    (
        FaultKind.CONTEXT_WINDOW,
        re.compile(r"context(length|window|size|limit)|(prompt|input|request)(is)?too(long|large)"),
    ),
)
"""Parts of such words: gateways make up their own."""

DULL = _table(
    {
        FaultKind.SERVER: """
            server internalserver internal api apistatus modelstream badgateway dataloss aborted cancelled
            unknown network upstream generation incompletegeneration textgeneration eventstream
            internalfailure response errorbody sdk midstreamfallback googleapicall hfhubhttp engine""",
        FaultKind.CONFLICT: "conflict tooearly",
        FaultKind.BAD_REQUEST: """
            badrequest invalidrequest invalidargument invalidparameter validation unprocessableentity notfound
            modelnotfound resourcenotfound unsupportedparams unsupported unimplemented failedprecondition
            outofrange paramvalidation methodnotallowed""",
    }
)
"""Words that say what the HTTP status says, and less exactly. They count where there is none."""

NAMES = _table(
    {
        FaultKind.TRANSPORT: """
            RemoteProtocolError LocalProtocolError ProtocolError ReadError WriteError ConnectError CloseError
            NetworkError ProxyError TransportError IncompleteRead IncompleteReadError ChunkedEncodingError
            ClientPayloadError ClientConnectionError ClientOSError ServerDisconnectedError
            ServerConnectionError ConnectionError ConnectionClosedError ConnectionClosed
            EndpointConnectionError HTTPClientError ResponseStreamingError ProxyConnectionError
            APIConnectionError BrokenResourceError EndOfStream ClosedResourceError NewConnectionError
            MaxRetryError NameResolutionError ClosedPoolError InvalidChunkLength RemoteDisconnected
            BadStatusLine ServiceRequestError ServiceResponseError HttpResponseError TransferEncodingError
            ContentLengthError PayloadEncodingError SSLError gaierror WebSocketConnectionClosedError
            ContinuationInterruptedError""",
        FaultKind.TIMEOUT: """
            TimeoutException ReadTimeout WriteTimeout ConnectTimeout PoolTimeout ReadTimeoutError TimeoutError
            ConnectTimeoutError Timeout ServerTimeoutError ConnectionTimeoutError SocketTimeoutError
            APITimeoutError ServiceRequestTimeoutError ServiceResponseTimeoutError FutureTimeoutError
            TransferStalledError""",
        FaultKind.CORRUPT: """
            JSONDecodeError InvalidJSONError UnicodeDecodeError DecodingError ContentDecodingError DecodeError
            ContentEncodingError ResponseValidationError APIResponseValidationError UnknownApiResponseError
            DeserializationError ParserError ChecksumMismatch InvalidHeadersLength InvalidPayloadLength
            SSEError BadHttpMessage""",
    }
)
"""Exception classes that carry no status. Azure's HttpResponseError without one is a broken connection."""

_HOPELESS = """
    SSLCertVerificationError CertificateError ClientConnectorCertificateError ServerFingerprintMismatch
    UnsupportedProtocol InvalidURL MissingSchema InvalidSchema InvalidProxyURL InvalidHeader TooManyRedirects
    LocationParseError LocationValueError URLSchemeUnknown ProxySchemeUnknown NonHttpUrlClientError
    OfflineModeIsEnabled"""
HOPELESS = frozenset(_HOPELESS.split())
"""Exceptions below which a request can only fail again, though what wraps them says "connection error"."""

STATUS = {
    401: FaultKind.AUTH,
    402: FaultKind.QUOTA,
    403: FaultKind.AUTH,
    407: FaultKind.AUTH,
    408: FaultKind.CONFLICT,
    409: FaultKind.CONFLICT,
    413: FaultKind.CONTEXT_WINDOW,  # too large: a body that grew by the partial answer
    424: FaultKind.SERVER,  # Bedrock's ModelStreamErrorException, TGI's generation error
    425: FaultKind.CONFLICT,
    429: FaultKind.RATE_LIMIT,
    451: FaultKind.FILTERED,
    498: FaultKind.OVERLOADED,  # Groq's flex tier is full
    499: FaultKind.SERVER,  # Gemini cancelled it
    503: FaultKind.OVERLOADED,
    529: FaultKind.OVERLOADED,  # Anthropic
}
"""RFC 9110, section 15, and what providers added. Not listed: 5xx is the server's fault, all else is ours."""

_NETWORK_ERRNO = """
    ECONNRESET ECONNABORTED ECONNREFUSED EPIPE ETIMEDOUT ENETDOWN ENETUNREACH ENETRESET EHOSTDOWN EHOSTUNREACH
    ENOTCONN ESHUTDOWN"""
NETWORK_ERRNO = frozenset(
    number
    for name in _NETWORK_ERRNO.split()
    if (number := getattr(errno, name, None)) is not None  # not every system has all of them
)


# Wordings, for what no word, name or number tells. They come last: gateways reword one and the same error.


def _wording(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


CONTEXT_WINDOW = _wording(
    r"(maximum|max|model'?s?|the|available|exceeds?) context (length|size|window|limit)",  # OpenAI, vLLM
    r"context[ _](length|window|size)\b.{0,40}\bexceed",
    r"exceed\w*\b.{0,60}\bcontext[ _](length|window|size|limit)",
    r"(prompt|input|request|messages?)( \w+)? (is|are|was) too (long|large)",  # Anthropic, Bedrock
    r"too many (input )?tokens",  # Cohere, Bedrock
    r"too large for model",  # Mistral
    r"(input|prompt) token count\b.{0,60}\bexceeds",  # Gemini, Copilot
    r"longer than the (maximum )?model",  # vLLM: the decoder prompt
    r"maximum prompt length",  # xAI
    r"exceeds max(imum)? length",  # Z.ai
    r"inputs`? (tokens|must have less than)",  # TGI, Together
    r"number of (input )?tokens\b.{0,40}\b(cannot|must not) exceed",  # watsonx
    r"exceed(ed|s)? model token limit",  # Moonshot
    r"range of input length",  # DashScope
    r"tokens in request more than",  # Baichuan, Moonshot
    r"tokens?\b.{0,40}\bexceeds? (the |model )?(maximum |token )?limit",
    r"reduce (the length of )?(the|your) (messages|prompt|input)",  # Groq, Cerebras, OpenAI
    r"(上下文|输入|提示词|prompt).{0,12}(超长|过长|超过|超出|超限)",  # Zhipu, gateways
    r"token ?(数|长度|总).{0,8}(超过|超出|超限)",
    r"(超过|超出).{0,12}(上下文|最大长度|长度限制)",
    r"when context the overflows|reached context length",  # LM Studio
)
PREFILL_REFUSED = _wording(
    r"pre-?fill",  # Claude 4.6 and later; llama.cpp with thinking templates
    r"(must|should|has to|needs? to) end with (a |an |the )?(user|human|tool)",
    r"end(s|ing)? with (a|an|the) (model|assistant) (turn|message)",  # Gemini 3.6 and later
    r"expected last role user",  # Mistral
    r"(last|final) (message|turn|role|content)\b.{0,60}\b(user|human|tool|assistant)\b",
    r"assistant\b.{0,40}\b(last|final) (message|turn)",
    r"final [`'\"]?assistant[`'\"]? (content|message)",  # Claude: trailing white space, missing thinking
    r"continue_final_message|add_generation_prompt",  # a server that does not know vLLM's flags
    r"(unknown|unrecogni[sz]ed|unsupported|extra|unexpected|not permitted)\b.{0,60}\b(prefix|partial)\b",
)
FILTERED = _wording(
    r"content (management )?policy|content[_ ]filter|usage polic|safety system|content exists risk",
    r"flagged as potentially|data may contain inappropriate",
    r"(violat\w+|against)\b.{0,40}\b(content|safety|community|usage|use)\b.{0,12}\b(polic|guideline|rule)",
    r"(prompt|input|output|content|message)s? (may )?violat\w+\b.{0,20}\b(polic|guideline|rule|terms)",
    r"(sensitive|prohibited|unsafe|inappropriate)[_ ](content|words?)",
    r"(blocked|rejected|flagged) by\b.{0,40}\b(moderation|safety|guardrails?)",
    r"敏感|违规|違規|违禁|违法|不合规|不安全|(不当|不良)(内容|信息)|风控|風控|(审核|審核).{0,6}(不通过|未通过|失败)",
)
QUOTA = _wording(
    r"credit balance is too low|out of credits|billing hard limit|payment required",
    r"insufficient[ _](user[ _]|account[ _])?(quota|balance|credits?|funds)",
    r"(balance|credits?|funds) (is|are|was) (insufficient|exhausted|depleted|used up)",
    r"(spend(ing)?|budget|billing)\b.{0,20}\blimit\b.{0,20}\b(reached|exceeded|hit)",
    r"limit (reached|exceeded)\b.{0,20}\bbilling",
    r"(余额|餘額).{0,4}不足|欠费|(额度|配额|套餐|資源包|资源包).{0,8}(不足|用尽|用完|耗尽|失败)",
)
QUOTA_OF_A_PLAN = _wording(r"exceeded your current quota(?![\s\S]*(retry|rate-limit))")
"""OpenAI's wording, and Gemini's for a limit per minute: under 429, or with a word on when to come back, it passes."""
AUTH = _wording(
    r"(invalid|incorrect|wrong|expired|missing|no)\b.{0,20}\b(api[ _-]?key|access token|credentials)",
    r"api[ _-]?key\b.{0,30}\b(invalid|incorrect|expired|not valid|missing|required|revoked|disabled)",
    r"(api|access) token\b.{0,30}\b(invalid|incorrect|expired|not valid|missing|required|revoked|disabled)",
    r"authentication fail|unauthori[sz]ed",
    r"(无效|错误|过期)的?(令牌|密钥|api ?key)|(令牌|密钥|api ?key).{0,8}(无效|失效|错误|不正确|过期)",
    r"(身份验证|鉴权|认证)失败",
)
BAD_REQUEST = _wording(
    r"input validation error",  # TGI
    r"invalid (request|parameter|argument)|unsupported (parameter|value)",
    r"(unknown|no such) model|\bmodel\b.{0,80}\b(does not exist|doesn't exist|not found)",
    r"模型.{0,20}(不存在|无可用渠道)|参数(错误|无效|不合法)",
)
HUNG_UP = _wording(
    r"connection (was |has been |is )?(unexpectedly )?(closed|reset|aborted|lost|broken|dropped)",
    r"peer closed|server disconnected|incomplete (chunked )?read|ended prematurely|unexpected eof",
    r"broken pipe",
)
TERMINATED_EARLY = re.compile(r"terminated early: *(?:FinishReason\.)?(\w+)")  # google-genai
