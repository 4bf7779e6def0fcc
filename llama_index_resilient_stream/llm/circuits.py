"""The circuit breakers of the process: one for each model, whichever LLM objects ask it.

A model is told by its class, its name, the address that it is asked at, and whose account pays. Of credentials only a
digest is kept, with a key that lives as long as the process.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Self

from llama_index.core.llms.llm import LLM

from ..compat.llama_index import inner_llm
from ..recovery.attributes import dig
from ..recovery.breaker import Circuit
from .identity import is_credential, without_credentials

_MOST = 1024  # models, an application's users with keys of their own among them
_ADDRESSES = (
    "api_base", "base_url", "azure_endpoint", "endpoint_url", "endpoint", "api_url", "host", "region_name", "engine",
    "deployment_name", "project", "location",
)  # fmt: skip
# Where a class keeps them for itself. An LLM that has them as fields may make its client only when it is asked.
_ADDRESSES_OF_CLIENTS = (
    ("_client", "base_url"),
    ("_client", "_api_client", "_http_options", "base_url"),  # google-genai
    ("_client", "sdk_configuration", "server_url"),  # mistralai
)
_KEYS_OF_CLIENTS = (("_client", "api_key"), ("_client", "_api_client", "api_key"))
_SALT = secrets.token_bytes(16)

_Identity = tuple[str, str, tuple[str, ...], str]
_circuits: OrderedDict[_Identity, Circuit] = OrderedDict()
_lock = threading.Lock()


class SharedCircuit(Circuit):
    """A circuit breaker for many threads. A copy of its LLM keeps it; in another process it begins anew."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())

    def __deepcopy__(self, _memo: Any) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def circuit_of(llm: LLM) -> Circuit:
    """Find the circuit breaker of the model behind an LLM.

    Returns:
        The one that every LLM object for the same model shares. An LLM without an address and without credentials,
        such as a class of one's own that runs in the process, gets one for itself.
    """
    identity = _identity(inner_llm(llm))
    if identity is None:
        return SharedCircuit()
    with _lock:
        circuit = _circuits.setdefault(identity, SharedCircuit())
        _circuits.move_to_end(identity)
        if len(_circuits) > _MOST:
            _circuits.popitem(last=False)
        return circuit


def forget_circuits() -> None:
    """Let every model begin anew, for LLMs that are made from now on. For tests."""
    with _lock:
        _circuits.clear()


def _identity(llm: LLM) -> _Identity | None:
    settings = vars(llm)
    addresses = [f"{name}={settings[name]}" for name in _ADDRESSES if settings.get(name)]
    addresses = addresses or _found(llm, _ADDRESSES_OF_CLIENTS)
    credentials = [f"{name}={_plain(settings[name])}" for name in settings if is_credential(name, settings[name])]
    credentials = credentials or _found(llm, _KEYS_OF_CLIENTS)
    if not addresses and not credentials:
        return None
    digest = blake2b("\n".join(credentials).encode("utf-8", "replace"), key=_SALT, digest_size=16).hexdigest()
    kind = f"{type(llm).__module__}.{type(llm).__qualname__}"
    return kind, _name(settings), tuple(map(without_credentials, addresses)), digest


def _found(llm: LLM, paths: Sequence[Sequence[str]]) -> list[str]:
    return [str(value) for path in paths if (value := dig(llm, *path))]


def _name(settings: Any) -> str:
    # Not from the metadata: some classes ask their server for it.
    return str(next((settings[name] for name in ("model", "model_name", "model_id") if settings.get(name)), ""))


def _plain(value: Any) -> str:
    return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)
