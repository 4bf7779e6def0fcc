"""Which versions of other packages are installed, and which of them cannot work together though pip lets them."""

from __future__ import annotations

import re
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Unsaid:
    """What a package needs and does not say."""

    package: str
    before: tuple[int, ...]
    """Its first version that does not need it any more, or was not tried."""
    needs: str
    below: tuple[int, ...]
    """The other package's first version that does not work."""
    classes: frozenset[str]
    """The LLM classes that fail then."""

    @property
    def requirement(self) -> str:
        """The requirement, as pip takes it."""
        return f"{self.needs}<{'.'.join(map(str, self.below))}"


UNSAID = (
    # It makes objects of what became unions in the SDK, and passes a `temperature` that is not taken any more.
    Unsaid("llama-index-llms-anthropic", (0, 13), "anthropic", (1,), frozenset({"Anthropic"})),
)


def cannot_work(llm_class: type) -> str:
    """Return why an LLM class cannot work as it is installed, and the line that fixes it; "" where it can.

    Args:
        llm_class: the wrapped LLM's.
    """
    names = {cls.__name__ for cls in llm_class.__mro__}
    for each in UNSAID:
        package, other = version_of(each.package), version_of(each.needs)
        if package is None or other is None or not names & each.classes:
            continue
        if package < each.before and other >= each.below:
            found = f"{each.package} {_text(package)} does not work with {each.needs} {_text(other)}"
            return f'{found}. Run: pip install "{each.requirement}"'
    return ""


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
