"""Look into the wheel and the sdist in a folder: do they hold what they should, and nothing else?

python -m build && python tools/distributions.py dist
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "llama_index_resilient_stream"

# Of the wheel: the package, and this in its .dist-info.
DIST_INFO = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}

# The folders and files at the top of the sdist: what somebody needs to build, test and document the package.
SDIST = {
    ".ci",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "benchmarks",
    "docs",
    "examples",
    PACKAGE,
    "mkdocs.yml",
    "notebooks",
    "noxfile.py",
    "pyproject.toml",
    "tests",
    "tools",
}
LITTER = ("__pycache__", ".ipynb_checkpoints", ".egg-info")


def sources() -> set[str]:
    """Return the package's files, as they are called in a wheel."""
    files = (path.relative_to(ROOT).as_posix() for path in (ROOT / PACKAGE).rglob("*") if path.is_file())
    return {name for name in files if not is_litter(name)}


def is_litter(name: str) -> bool:
    return any(each in name for each in LITTER)


def problems_of_wheel(names: set[str]) -> list[str]:
    """Return what a wheel of these files lacks, and what it has too much."""
    package = {name for name in names if name.startswith(f"{PACKAGE}/")}
    info = {name.partition(".dist-info/")[2] for name in names - package}
    return differences("wheel", package, sources()) + differences("wheel's .dist-info", info, DIST_INFO)


def problems_of_sdist(names: set[str]) -> list[str]:
    """Return what an sdist of these files lacks, and what it has too much. Each name begins with the sdist's folder."""
    inside = {name.partition("/")[2] for name in names}
    package = {name for name in inside if name.startswith(f"{PACKAGE}/")}
    tops = {name.partition("/")[0] for name in inside}
    litter = [f"sdist: {name} is litter" for name in sorted(inside) if is_litter(name)]
    return differences("sdist", package, sources()) + differences("sdist's top", tops, SDIST) + litter


def differences(where: str, found: set[str], expected: set[str]) -> list[str]:
    missing = [f"{where}: {name} is missing" for name in sorted(expected - found)]
    return missing + [f"{where}: {name} does not belong there" for name in sorted(found - expected)]


def main(folder: Path) -> None:
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive_of_sources:
        in_sdist = {member.name for member in archive_of_sources if member.isfile()}
    for path, names in ((wheel, in_wheel), (sdist, in_sdist)):
        print(f"{path.name}: {len(names)} files, {path.stat().st_size / 1000:.0f} kB")
    if problems := problems_of_wheel(in_wheel) + problems_of_sdist(in_sdist):
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist"))
