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
class ChatTiming:
    """How long things take in the chat, in seconds."""

    token: float = 0.04
    thinking: float = 0.9
    """Before the first word of a request that goes well."""
    back_off: float = 0.5
    idle_timeout: float = 2.0
    client_timeout: float = 4.0
    """The only protection of plain LlamaIndex against silence. Its default is a minute."""


# What the reader can choose: faults, one per request, each behind this share of the whole answer, counted from where
# that request goes on. After the last one all is well.
FAULT_CHOICES: Mapping[str, Sequence[tuple[str, float]]] = {
    "none": (),
    "reset": (("reset", 0.42),),
    "silent_cut": (("clean_eof", 0.36),),
    "stall": (("stall", 0.5),),
    "503": (("http_503", 0), ("http_503", 0)),
    "token_limit": (("length", 0.55),),
    "three_faults": (("error_event_overloaded", 0.27), ("http_503", 0), ("reset", 0.35)),
    "down": (("reset", 0.42), *(("http_503", 0),) * 16),
}


class FlakyProvider:
    """A provider for one answer, whose requests take one fault after another.

    Args:
        answer: The answer that its model knows.
        fault: A key of FAULT_CHOICES.
        timing: How long things take.
    """

    def __init__(self, answer: str, fault: str, timing: ChatTiming) -> None:
        faults = [FAULTS[name].at(round(share * len(answer))) for name, share in FAULT_CHOICES[fault]]
        faults.append(replace(FAULTS["stall_first"], seconds=timing.thinking))
        self.server = FaultServer(answer, faults, continuation_style=_continue, delay=timing.token).start()
        self._client = DefaultAsyncHttpxClient(trust_env=False)  # no proxy would find 127.0.0.1
        self._timing = timing

    def resilient(self) -> LLM:
        """Return an LLM with this package."""
        policy = RecoveryPolicy(
            wait=wait_fixed(self._timing.back_off), idle_timeout=self._timing.idle_timeout, continue_on_length=3
        )
        return ResilientLLM(self._llm(max_retries=0), policy=policy)

    def plain(self) -> LLM:
        """Return an LLM without it. The retries of its client stay on."""
        return self._llm(timeout=self._timing.client_timeout)

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
        """Close the client and the server."""
        await self._client.aclose()
        await asyncio.to_thread(self.server.close)  # it waits for its threads


def _continue(text: str, partial_text: str, anchor: str) -> str:
    """Send the anchor and the rest. Without an anchor the same question came again, after a cut answer."""
    return CONTINUATION_STYLES["anchor"](text, partial_text, anchor) if anchor else text
