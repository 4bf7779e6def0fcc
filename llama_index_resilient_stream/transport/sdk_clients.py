"""Lets the OpenAI and Anthropic SDKs' own HTTP clients tell us what our HTTP clients do.

Where the user gave no HTTP client, the SDK made one. For one call the wrapped LLM is then asked through a copy of it,
whose SDK client sends through a view of that same HTTP client: same connections, proxies, timeouts and headers, closed
by whoever closes it today, bound to the event loop it is bound to today. The user's LLM and its clients are not
changed, and no request differs by a byte. What it brings: a read that stalls before the first event can be broken, the
terminator and dropped finish reasons are seen, and a connection is used again after a stream.

Why a view, and not an HTTP client of our own: that one would have connections, an SSL context (0.1 s) and a lifetime
of its own, and an asynchronous one belongs to one loop, and nobody would be there to close it.

Why per call: a copy of the LLM takes 3 us, one of the SDK's client (its `with_options`) 8 us. Searching the generator
for the SDK's stream, which this saves, takes 120 us (medians, CPython 3.11).

Neither LlamaIndex nor the SDKs have public names for the clients that they made. The private ones stand here, and
nowhere else: `_client` and `_aclient`, their getters, the SDK client's own `_client`, and the class of what that is.

Where any of this is not safe, the LLM is asked as it is, and `compat/generators.py` searches:

* classes that are not LlamaIndex's own: what such a class keeps on itself during a call would be lost with the copy;
* `reuse_client=False`: the user wants a new client for every call;
* an HTTP client, SDK client class or workload identity of the user's: these are used as given;
* releases that keep their clients elsewhere.
"""

from __future__ import annotations

from typing import Any, TypeVar

from llama_index.core.llms.llm import LLM

from ..compat.llama_index import copied

L = TypeVar("L", bound=LLM)

_OURS_TO_COPY = ("llama_index.llms.", "llama_index.core.")
_SDKS = ("openai", "anthropic")
_LOOKED_AT = ("OpenAI", "OpenAIResponses", "Anthropic")
_MADE_BY_THE_SDK = ("SyncHttpxClientWrapper", "AsyncHttpxClientWrapper")


def hides_its_client(llm_class: type) -> bool:
    """Whether nothing of a class leads to its HTTP client, so that only the HTTP library below it can be looked at.

    OpenAI's and Anthropic's SDKs are looked at here; a client that the user gave to one of them is left alone.
    """
    return not any(cls.__name__ in _LOOKED_AT for cls in llm_class.__mro__)


def observed(llm: L, *, asynchronous: bool) -> L:
    """Return the LLM to ask in one call: a copy that sends through a view of its HTTP client, or `llm` itself.

    Args:
        llm: the wrapped LLM. It is not changed.
        asynchronous: whether the call is one of its asynchronous endpoints.
    """
    name = "_aclient" if asynchronous else "_client"
    try:
        sdk = _sdk_client(llm, name)
        if sdk is None:
            return llm
        from .observed_clients import view_of  # needs httpx, which whoever has these SDKs has

        return copied(llm, **{name: sdk.with_options(http_client=view_of(sdk._client))})
    except Exception:  # missing credentials, for one: the call itself raises that, in its own words
        return llm


def _sdk_client(llm: LLM, name: str) -> Any:
    """The SDK's client that this LLM would use, where it may be copied for a call."""
    if not _is_llama_index_s_own(type(llm)) or not getattr(llm, "reuse_client", True):
        return None
    getter = getattr(llm, f"_get{name}", None)
    sdk = getattr(llm, name, None) if getter is None else getter()
    if type(sdk).__module__.partition(".")[0] not in _SDKS or getattr(sdk, "workload_identity", None) is not None:
        return None
    return sdk if type(getattr(sdk, "_client", None)).__name__ in _MADE_BY_THE_SDK else None


def _is_llama_index_s_own(cls: type) -> bool:
    """Whether every class from this one to LlamaIndex's base classes is of one of its packages."""
    for each in cls.__mro__:
        if each is LLM:
            return True
        if not each.__module__.startswith(_OURS_TO_COPY):
            return False
    return False
