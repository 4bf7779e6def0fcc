"""Every link of a document leads somewhere: to a file of the repository, which the sdist has, too.

The README is read on PyPI as well, where a relative link leads nowhere: its links begin with the project's own address.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
URLS = PROJECT["project"]["urls"]
REPOSITORY = URLS["Repository"]
PAGES = f"{REPOSITORY}/blob/main/"
FILES = REPOSITORY.replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main/"

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
)


def links(document: str) -> Iterator[str]:
    """Where the inline links and the definitions of a document lead. Code is left out."""
    text = (ROOT / document).read_text(encoding="utf-8")
    text = re.sub(r"^( *)```.*?^\1```$|`[^`\n]+`", "", text, flags=re.DOTALL | re.MULTILINE)
    for match in re.finditer(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", text, re.MULTILINE):
        yield match[1] or match[2]


def own_files(document: str) -> Iterator[str]:
    """The files of the repository to which a document's links lead, as paths from its root."""
    for target in links(document):
        address = target.partition("#")[0]
        for base in (PAGES, FILES):
            if address.startswith(base):
                yield address.removeprefix(base)
        if address and "://" not in address and not address.startswith("mailto:"):
            yield ((ROOT / document).parent / address).resolve().relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_links_to_exists(document: str) -> None:
    assert [name for name in own_files(document) if not (ROOT / name).exists()] == []


def test_the_readme_has_no_relative_link() -> None:
    assert [target for target in links("README.md") if not re.match(r"https://|#", target)] == []


def test_the_readmes_own_links_begin_with_the_projects_address() -> None:
    assert len(list(own_files("README.md"))) >= 7
    for target in links("README.md"):
        assert REPOSITORY not in target or target.startswith(PAGES), target


def test_pictures_are_files_and_everything_else_is_a_page() -> None:
    for target in links("README.md"):
        picture = target.endswith((".svg", ".png"))
        assert not target.startswith(FILES if not picture else PAGES), target


def test_every_reference_of_the_readme_is_defined() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for label in re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE):
        assert text.count(f"[{label}]") >= 2, f"[{label}] is defined and not used"


@pytest.mark.parametrize("name", URLS)
def test_the_projects_urls_begin_with_its_repository(name: str) -> None:
    assert URLS[name].startswith(REPOSITORY)
    kept = re.fullmatch(r"/(?:blob|tree)/main/(.+)", URLS[name].removeprefix(REPOSITORY))
    assert kept is None or (ROOT / kept[1]).exists()


def test_no_other_address_is_taken_for_the_projects() -> None:
    """Forms and texts that cannot read pyproject.toml name the same repository."""
    name = REPOSITORY.rpartition("/")[2]
    for path in (*ROOT.glob(".github/**/*.*"), ROOT / "CITATION.cff", *ROOT.glob("docs/*.md")):
        if path.suffix in (".md", ".yml", ".cff"):
            for address in re.findall(rf"https://github\.com/[\w.-]+/{name}\b", path.read_text(encoding="utf-8")):
                assert address == REPOSITORY, path


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_the_sdist_has_what_a_document_links_to(document: str) -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for target in (document, *own_files(document)):
        assert any(f"/{target}/".startswith(f"{each}/") for each in included), target


def test_the_issue_forms_lead_to_pages() -> None:
    found = [
        address
        for form in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
        for address in re.findall(rf"{re.escape(PAGES)}(\S+)", form.read_text(encoding="utf-8"))
    ]
    assert found
    assert [address for address in found if not (ROOT / address).exists()] == []
