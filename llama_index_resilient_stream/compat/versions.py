"""Which versions of other packages are installed."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import metadata


@lru_cache(maxsize=64)
def version_of(package: str) -> tuple[int, ...] | None:
    """Return the numbers of an installed package's version, as in (1, 110, 2); None where it is not installed.

    Args:
        package: its name on the package index.
    """
    try:
        return tuple(int(number) for number in re.findall(r"\d+", metadata.version(package))[:3])
    except metadata.PackageNotFoundError:
        return None
