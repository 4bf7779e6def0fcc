"""Reads fields of objects whose classes are not known: chunks and exceptions of providers' SDKs.

The same field is an attribute in one SDK, a key in another, and in a third an attribute of something that is
also a dictionary. Nothing here raises: what cannot be read is not there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any


def read(thing: Any, name: str) -> Any:
    """Return `thing[name]` or `thing.name`, whichever there is; None where there is neither."""
    try:
        if isinstance(thing, dict):
            value = thing.get(name)
            if value is not None or type(thing) is dict:
                return value
        elif isinstance(thing, Mapping) and name in thing:
            return thing[name]
        return getattr(thing, name, None)
    except Exception:
        return None


def dig(thing: Any, *names: str) -> Any:
    """Return what is at the end of a path of names: `dig(error, "response", "headers")`; None where it breaks off."""
    for name in names:
        if thing is None:
            return None
        thing = read(thing, name)
    return thing


def first_of(thing: Any) -> Any:
    """Return the first item of a list or tuple; None for anything else."""
    return thing[0] if isinstance(thing, (list, tuple)) and thing else None


def text_of(value: Any) -> str | None:
    """Return the text of a string or of an enum member: its value where that is text, otherwise its name.

    Protobuf enums (old Gemini and Vertex clients) have numbers as values and the word as name.
    """
    if isinstance(value, str):
        return str.__str__(value.value) if isinstance(value, Enum) else str.__str__(value)
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else value.name
    return None


@lru_cache(maxsize=256)
def declared_fields(cls: type) -> frozenset[str] | None:
    """Return the fields that every instance of `cls` has, or None where an instance may have any.

    Asking a pydantic object for a field it lacks costs about 2 us, twenty times what a field it has costs,
    and a chunk is asked for a dozen: hence once per class.
    """
    for name in ("model_fields", "__fields__", "__dataclass_fields__"):  # pydantic 2, pydantic 1, dataclasses
        fields = _class_attribute(cls, name)
        if isinstance(fields, Mapping):
            return frozenset(str(field) for field in fields)
    return None


Plan = tuple[Callable[[Any, str], Any], tuple[tuple[str, Any], ...]]
"""How the fields of a class are read, and which of the places in a table it has."""


def plan_for(cls: Any, places: tuple[tuple[str, Any], ...]) -> Plan:
    """Return how chunks of `cls` are read, and the places worth a look: of an OpenAI chunk, just `choices`.

    Chunks are read once per token. Keep the result for each class.
    """
    if cls is dict:
        return dict.get, places
    fields = None if issubclass(cls, dict) else declared_fields(cls)
    if fields is None:
        return read, places
    return getattr, tuple(place for place in places if place[0] in fields)


def _class_attribute(cls: type, name: str) -> Any:
    """Return `getattr(cls, name, None)`, for names that some metaclass may answer with anything, or an error."""
    if name == "__dataclass_fields__" and not dataclasses.is_dataclass(cls):
        return None
    try:
        return getattr(cls, name, None)
    except Exception:
        return None
