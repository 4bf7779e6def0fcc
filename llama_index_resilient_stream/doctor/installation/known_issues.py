"""Known issues of installed versions. Nothing here has to be fixed.

Each was seen on the versions that are named; where only some of a range were tried, it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from packaging.version import Version

Versions = Mapping[str, Version]


@dataclass(frozen=True)
class KnownIssue:
    """What is installed, and why it may matter."""

    rule: str
    about: str
    why: str


@dataclass(frozen=True)
class _IssueRule:
    """A known issue, and when it applies."""

    rule: str
    about: str
    applies: Callable[[Versions, Version], bool]
    why: str


CORE = "llama-index-core"


def known_issues(versions: Versions, python: Version) -> Iterator[KnownIssue]:
    """Yield the known issues that apply to these versions."""
    for issue in KNOWN_ISSUES:
        if issue.applies(versions, python):
            installed = f"{issue.about} {versions[issue.about]}" if issue.about in versions else issue.about
            yield KnownIssue(issue.rule, installed, issue.why)


def _between(name: str, low: str, high: str) -> Callable[[Versions, Version], bool]:
    """Apply from version `low` on, before version `high`."""
    return lambda versions, python: name in versions and Version(low) <= versions[name] < Version(high)


def _installed(*names: str) -> Callable[[Versions, Version], bool]:
    return lambda versions, python: all(name in versions for name in names)


def _unbounded_workflows(versions: Versions, python: Version) -> bool:
    core, workflows = versions.get(CORE), versions.get("llama-index-workflows")
    bounded = core is None or not Version("0.12.42") <= core < Version("0.12.44")
    return not bounded and workflows is not None and workflows >= Version("2")


def _untested_openai(versions: Versions, python: Version) -> bool:
    llm, sdk = versions.get("llama-index-llms-openai"), versions.get("openai")
    return llm is not None and sdk is not None and llm < Version("0.1.28") and sdk >= Version("2")


KNOWN_ISSUES: tuple[_IssueRule, ...] = (
    # LlamaIndex
    _IssueRule(
        "version_says_otherwise",
        CORE,
        _between(CORE, "0.14.0", "0.14.4"),
        "llama_index.core.__version__ names an older one until 0.14.3; pip and this page are right.",
    ),
    _IssueRule(
        "engines_do_not_stream",
        CORE,
        _between(CORE, "0.14.22", "0.14.25"),
        "Query and chat engines give the whole answer in one chunk, streaming=True or not. "
        'pip install -U "llama-index-core>=0.14.25"',
    ),
    _IssueRule(
        "thinking_in_simple_chat",
        CORE,
        _between(CORE, "0.14.3", "0.14.24"),
        "SimpleChatEngine.stream_chat with a thinking model raises ValueError at the end (seen on 0.14.10; 0.14.24 "
        "writes the message in another way).",
    ),
    _IssueRule(
        "first_token_twice",
        CORE,
        _between(CORE, "0.11", "0.13"),
        'The ReAct agent behind chat_mode="best" shows the first token twice (seen on 0.11.23 and 0.12.52).',
    ),
    _IssueRule(
        "pydantic_v1",
        CORE,
        lambda versions, python: python >= Version("3.14") and _between(CORE, "0", "0.11")(versions, python),
        "It uses pydantic.v1, which does not support Python 3.14.",
    ),
    _IssueRule(
        "workflows_not_bounded",
        "llama-index-workflows",
        _unbounded_workflows,
        "llama-index-core 0.12.42 and 0.12.43 take any version of it, and were written for 0.2.",
    ),
    _IssueRule(
        "openai_not_bounded",
        "openai",
        _untested_openai,
        "llama-index-llms-openai up to 0.1.27 takes any version of it, and was written for 1.",
    ),
    # Servers
    _IssueRule(
        "no_httptools",
        "uvicorn",
        lambda versions, python: "uvicorn" in versions and "httptools" not in versions,
        "Without httptools it marks the end of HTTP/1.0 answers by closing: behind nginx before 1.29.7, as it comes, "
        "cuts look like ends where no terminal event is sent, and answers are held back. pip install httptools",
    ),
    _IssueRule(
        "sse_starlette",
        "sse-starlette",
        _installed("sse-starlette"),
        "Once imported it cuts its streams at SIGTERM at once, whatever the graceful timeout; shutdown_grace_period "
        "changes that.",
    ),
    _IssueRule(
        "fastapi_sse",
        "fastapi",
        _between("fastapi", "0.135", "9999"),
        "fastapi.sse ends a stream properly where the generator raised: send done and error events of your own.",
    ),
    _IssueRule(
        "gunicorn",
        "gunicorn",
        _installed("gunicorn"),
        "Its default worker kills every answer that is longer than --timeout, 30 s; its asgi worker goes on for 3 s "
        "after the reader left. -k uvicorn_worker.UvicornWorker, or -k gthread, does neither.",
    ),
)
