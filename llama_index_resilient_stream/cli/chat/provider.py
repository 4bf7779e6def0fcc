"""The LLM behind the chat page: a server of our own that breaks as the reader chooses, and LlamaIndex's client for it.

Your application has an LLM in this place: `ResilientLLM(OpenAI("gpt-4o-mini"))`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llama_index.core.llms.llm import LLM
from llama_index.llms.openai_like import OpenAILike
from openai import DefaultAsyncHttpxClient
from tenacity import wait_fixed

from ... import RecoveryPolicy, ResilientLLM
from ...testing import CONTINUATION_STYLES, FAULTS, FaultServer


@dataclass(frozen=True)
class Pace:
    """How long things take, in seconds."""

    token: float = 0.04
    thinking: float = 0.9
    """Before the first word of a request that goes well."""
    back_off: float = 0.5
    idle_timeout: float = 2.0
    client_timeout: float = 4.0
    """All that plain LlamaIndex has against silence. It would be a minute unless set."""


# What the reader can choose: faults, one per request, each behind this share of the whole answer, counted from where
# that request goes on. After the last one all is well.
TROUBLES: Mapping[str, Sequence[tuple[str, float]]] = {
    "none": (),
    "reset": (("reset", 0.42),),
    "silent cut": (("clean_eof", 0.36),),
    "stall": (("stall", 0.5),),
    "503": (("http_503", 0), ("http_503", 0)),
    "token limit": (("length", 0.55),),
    "one after another": (("error_event_overloaded", 0.27), ("http_503", 0), ("reset", 0.35)),
    "down": (("reset", 0.42), *(("http_503", 0),) * 16),
}


class Provider:
    """For one answer: every request takes the next fault, and those of other answers are none of its business."""

    def __init__(self, answer: str, trouble: str, pace: Pace) -> None:
        faults = [FAULTS[name].at(round(share * len(answer))) for name, share in TROUBLES[trouble]]
        faults.append(replace(FAULTS["stall_first"], seconds=pace.thinking))
        self.server = FaultServer(answer, faults, continuation_style=_go_on, delay=pace.token).start()
        self._client = DefaultAsyncHttpxClient(trust_env=False)  # no proxy would find 127.0.0.1
        self._pace = pace

    def resilient(self) -> LLM:
        """With this package."""
        policy = RecoveryPolicy(
            wait=wait_fixed(self._pace.back_off), idle_timeout=self._pace.idle_timeout, continue_on_length=3
        )
        return ResilientLLM(self._llm(max_retries=0), policy=policy)

    def plain(self) -> LLM:
        """Without it. The client's own retries stay: they are what it has."""
        return self._llm(timeout=self._pace.client_timeout)

    def _llm(self, **settings: Any) -> LLM:
        llm: LLM = OpenAILike(
            model="scripted",
            api_base=self.server.url,
            api_key="none",
            is_chat_model=True,
            async_http_client=self._client,
            **settings,
        )
        return llm

    async def aclose(self) -> None:
        await self._client.aclose()
        await asyncio.to_thread(self.server.close)  # it waits for its threads


def _go_on(text: str, said: str, anchor: str) -> str:
    """Obeys. Without an anchor nobody asked to go on: the same question came again, after an answer that was cut."""
    return CONTINUATION_STYLES["anchor"](text, said, anchor) if anchor else text
