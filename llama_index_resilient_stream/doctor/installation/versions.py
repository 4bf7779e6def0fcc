"""What is installed, which pins of the LlamaIndex packages it breaks, and the pip line that mends each.

Read from the metadata of the installed distributions (PyPA's core metadata specification; markers and specifiers after
PEP 508 and PEP 440), not from `__version__`: llama-index-core 0.14.0 says there that it is 0.13.6.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, distributions, version
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ...compat.versions import UNSAID
from .known_issues import KnownIssue, known_issues

CORE, OURS = "llama-index-core", "llama-index-resilient-stream"
OLDEST, TOO_NEW = Version("0.10.68"), Version("0.15")
_SUPPORTED = f"{CORE}>={OLDEST},<{TOO_NEW}"
FAMILY = "llama-index"
OTHERS = (
    *("openai", "anthropic", "httpx", "httpx2", "pydantic", "pydantic-core", "tenacity", "starlette", "fastapi"),
    *("sse-starlette", "uvicorn", "httptools", "h11", "uvloop", "gunicorn", "uvicorn-worker", "hypercorn", "granian"),
    *("flask", "streamlit", "redis", "typer", "rich"),
)
"""What else matters to a stream, in the order in which it is shown."""


@dataclass(frozen=True)
class UnmetRequirement:
    """A requirement of an installed package that is not met."""

    package: str
    version: str
    requirement: str
    found: str
    """Empty where it is missing."""
    fix: str


@dataclass(frozen=True)
class Installation:
    """What is installed, and what is wrong with it."""

    python: str
    platform: str
    versions: Mapping[str, str]
    unsupported: str
    """A sentence about llama-index-core, where it is too old or missing."""
    unmet: tuple[UnmetRequirement, ...]
    known_issues: tuple[KnownIssue, ...]

    @property
    def fine(self) -> bool:
        return not self.unmet and not self.unsupported

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {"fine": self.fine, **asdict(self)}


def examine(path: Sequence[str] | None = None) -> Installation:
    """Read what is installed. `path` is a list of directories to look in, instead of `sys.path`."""
    found = _installed(path)
    versions = {name: each.version for name, each in found.items()}
    family = sorted(name for name in versions if name.startswith(FAMILY))
    parsed = {name: version for name in versions if (version := _version(versions[name])) is not None}
    return Installation(
        platform.python_version(),
        platform.platform(terse=True),
        {name: versions[name] for name in (*family, *OTHERS) if name in versions},
        _support(parsed, versions),
        tuple(_unmet([found[name] for name in family], versions)),
        tuple(known_issues(parsed, Version(platform.python_version().rstrip("+")))),
    )


def package_version() -> str:
    """Return the version of this package that is installed."""
    return version(OURS)


def _installed(path: Sequence[str] | None) -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    for each in distributions() if path is None else distributions(path=list(path)):
        if name := _metadata_field(each, "Name"):  # what an interrupted pip leaves behind has none
            found.setdefault(canonicalize_name(name), each)  # the first one on the path is imported
    return {name: each for name, each in found.items() if _metadata_field(each, "Version")}


def _metadata_field(distribution: Distribution, field: str) -> str:
    """Return a field of the metadata, or ""; reading a missing field is deprecated from Python 3.12 on."""
    metadata = distribution.metadata
    return metadata[field] if field in metadata else ""  # noqa: SIM401 - there is no `get` before 3.12


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _support(parsed: Mapping[str, Version], versions: Mapping[str, str]) -> str:
    core = parsed.get(CORE)
    if core is None:
        legacy = f" llama-index {versions[FAMILY]} is of the time before it." if FAMILY in versions else ""
        return f'{CORE} is not installed.{legacy} pip install -U "{_SUPPORTED}"'
    if core < OLDEST:
        return f'{CORE} {core} is not supported, {OLDEST} is the oldest that is. pip install -U "{_SUPPORTED}"'
    return ""


# Pins


def _unmet(family: Iterable[Distribution], versions: Mapping[str, str]) -> Iterator[UnmetRequirement]:
    asked = [(each, requirement) for each, requirement in _requirements(list(family))]
    for each, requirement in asked:
        name = canonicalize_name(requirement.name)
        found = versions.get(name, "")
        if found and requirement.specifier.contains(found, prereleases=True):
            continue
        pins = [(canonicalize_name(who.metadata["Name"]), other) for who, other in asked if _same(other, name)]
        wanted = str(requirement).partition(";")[0].strip()
        yield UnmetRequirement(canonicalize_name(each.metadata["Name"]), each.version, wanted, found, _fix(name, pins))


def _same(requirement: Requirement, name: str) -> bool:
    return canonicalize_name(requirement.name) == name


def _requirements(family: Sequence[Distribution]) -> Iterator[tuple[Distribution, Requirement]]:
    """Yield the requirements that apply here. An extra counts where another package of the family asks for it."""
    every = [(each, requirement) for each in family for requirement in _parsed(each)]
    extras: dict[str, set[str]] = {}
    for _, requirement in every:
        extras.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    for each, requirement in every:
        wanted = {"", *extras.get(canonicalize_name(each.metadata["Name"]), ())}
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in wanted):
            yield each, requirement


def _parsed(each: Distribution) -> Iterator[Requirement]:
    for line in (*(each.requires or ()), *_unsaid(each)):
        try:
            yield Requirement(line)
        except InvalidRequirement:  # old packages were not checked
            continue


def _unsaid(each: Distribution) -> Iterator[str]:
    """What a package needs and does not say."""
    name, version = canonicalize_name(each.metadata["Name"]), _version(each.version)
    for unsaid in UNSAID:
        if name == unsaid.package and version is not None and version.release < unsaid.before:
            yield unsaid.requirement


def _fix(name: str, pins: Sequence[tuple[str, Requirement]]) -> str:
    """Return the line that meets all requirements on a package; if none can, it moves those who require it, too."""
    together = SpecifierSet()
    for _, requirement in pins:
        together &= requirement.specifier
    if _possible(together):
        return f'pip install "{name}{together}"'
    movable = sorted({who for who, _ in pins if who != OURS})
    return " ".join(["pip install -U", *movable, name])


def _possible(specifiers: SpecifierSet) -> bool:
    """Whether some version meets all specifiers: one that is named in them, or the next one after it."""
    if not specifiers:
        return True
    named = [version for each in specifiers if (version := _version(each.version.removesuffix(".*")))]
    after = [Version(".".join(map(str, (*each.release[:-1], each.release[-1] + 1)))) for each in named]
    deeper = [Version(".".join(map(str, (*each.release, 1)))) for each in named]
    return any(specifiers.contains(each, prereleases=True) for each in (*named, *after, *deeper, Version("0")))
