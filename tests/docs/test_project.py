"""The project's own files agree with each other: workflows with noxfile.py, versions, forms, what is published."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ci_matrix import matrix
from distributions import DIST_INFO, SDIST, problems_of_sdist, problems_of_wheel, sources
from release_notes import notes

import llama_index_resilient_stream

ROOT = Path(__file__).parent.parent.parent
VERSION = llama_index_resilient_stream.__version__
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NOXFILE = (ROOT / "noxfile.py").read_text(encoding="utf-8")
SESSIONS = set(re.findall(r"^@nox\.session.*?^def (\w+)", NOXFILE, re.DOTALL | re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(set((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")) - {ROOT / ".github/ISSUE_TEMPLATE/config.yml"})


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs(path: Path) -> dict[str, Any]:
    return dict(loaded(path)["jobs"])


def commands(path: Path) -> list[str]:
    """The lines of shell in a workflow."""
    steps = [step for job in jobs(path).values() for step in job.get("steps", ())]
    return [line.strip() for step in steps for line in step.get("run", "").splitlines()]


# Workflows


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_sessions_and_scripts_that_exist(path: Path) -> None:
    for line in commands(path):
        if named := re.match(r"nox (?:--list --json )?-s ([\w ]+)", line):
            assert set(named[1].split()) <= SESSIONS, line
        for script in re.findall(r"python3? ([\w/]+\.py)", line):
            assert (ROOT / script).exists(), line


def test_ci_runs_every_session() -> None:
    run = {word for line in commands(ROOT / ".github/workflows/ci.yml") for word in line.split()}
    assert run >= SESSIONS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_a_job_that_may_more_says_so(path: Path) -> None:
    assert loaded(path)["permissions"] == {"contents": "read"}
    for job in jobs(path).values():
        for step in job.get("steps", ()):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_only_the_publisher_gets_an_identity_and_it_publishes_what_was_tested() -> None:
    release = jobs(ROOT / ".github/workflows/release.yml")
    with_identity = [name for name, job in release.items() if "id-token" in job.get("permissions", {})]
    assert with_identity == ["publish"]
    assert release["publish"]["needs"] == "ci"
    assert [step["uses"].partition("@")[0] for step in release["publish"]["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]


def test_the_matrix_of_a_workflow_is_noxs() -> None:
    sessions = [
        {"session": "tests(core='0.10.68', python='3.11')", "python": "3.11"},
        {"session": "openai3", "python": None},
    ]
    assert matrix(sessions) == [
        {
            "name": "tests(core=0.10.68, python=3.11)",
            "session": "tests(core='0.10.68', python='3.11')",
            "python": "3.11",
        },
        {"name": "openai3", "session": "openai3", "python": "3.12"},
    ]


def test_every_python_of_the_classifiers_is_in_the_matrix() -> None:
    classifiers = PROJECT["project"]["classifiers"]
    named = [
        each[1] for line in classifiers if (each := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
    ]
    assert [python for python in named if f'"{python}"' not in NOXFILE] == []
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"


# Forms


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_has_what_github_asks_for(path: Path) -> None:
    form = loaded(path)
    assert set(form) == {"name", "description", "labels", "body"}
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    for field in form["body"]:
        assert field["type"] in ("textarea", "input", "dropdown", "checkboxes")
        assert field["attributes"]["label"]


@pytest.mark.parametrize("word", ["doctor --json", "print(stream.report)"])
def test_the_form_for_bugs_asks_for(word: str) -> None:
    assert word in (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text(encoding="utf-8")


def test_what_the_forms_ask_for_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llama_index_resilient_stream", "doctor", "--json"], capture_output=True, text=True
    )
    assert '"llama-index-core"' in done.stdout


# Versions


def test_the_release_notes_are_the_changelogs_section() -> None:
    section = notes(f"v{VERSION}")
    assert section.startswith("The first release.") == (VERSION == "0.1.0")
    assert "## " not in section.replace("### ", "")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("CHANGELOG.md", f"## {VERSION} - ", "## Unreleased ", "has no section"),
        ("CITATION.cff", f"version: {VERSION}", "version: 9.9.9", "CITATION.cff has no line"),
        ("CITATION.cff", "date-released: ", "date-released: 1", "CITATION.cff has no line"),
        ("llama_index_resilient_stream/__init__.py", VERSION, "9.9.9", "is not the version"),
    ],
    ids=["no date", "another version cited", "another date cited", "another version in the package"],
)
def test_a_release_that_is_not_ready_says_what_is_missing(
    tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    for each in ("CHANGELOG.md", "CITATION.cff", "llama_index_resilient_stream/__init__.py"):
        (tmp_path / each).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / each, tmp_path / each)
    broken = (tmp_path / name).read_text(encoding="utf-8")
    assert old in broken
    (tmp_path / name).write_text(broken.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        notes(f"v{VERSION}", tmp_path)


# What is published

WHEEL = sources() | {f"it-1.dist-info/{name}" for name in DIST_INFO}
TARBALL = {f"it-1/{name}" for name in sources()} | {
    f"it-1/{name}" if (ROOT / name).is_file() or name == "PKG-INFO" else f"it-1/{name}/file"
    for name in SDIST - {"llama_index_resilient_stream"}
}


def test_whole_distributions() -> None:
    assert problems_of_wheel(WHEEL) == []
    assert problems_of_sdist(TARBALL) == []


@pytest.mark.parametrize(
    ("missing", "surplus", "problem"),
    [
        ("llama_index_resilient_stream/py.typed", "", "wheel: llama_index_resilient_stream/py.typed is missing"),
        ("", "tests/conftest.py", "wheel's .dist-info"),
        ("", "llama_index_resilient_stream/notes.txt", "notes.txt does not belong there"),
        ("it-1.dist-info/licenses/LICENSE", "", "licenses/LICENSE is missing"),
    ],
    ids=["a file", "tests", "litter", "the licence"],
)
def test_a_wheel_with_less_or_more(missing: str, surplus: str, problem: str) -> None:
    found = problems_of_wheel(WHEEL - {missing} | ({surplus} if surplus else set()))
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    ("missing", "surplus", "problem"),
    [
        ("it-1/docs/file", "", "sdist's top: docs is missing"),
        ("", "it-1/dist/file", "sdist's top: dist does not belong there"),
        ("", "it-1/tests/__pycache__/file", "is litter"),
    ],
    ids=["docs", "an older one", "bytecode"],
)
def test_an_sdist_with_less_or_more(missing: str, surplus: str, problem: str) -> None:
    found = problems_of_sdist(TARBALL - {missing} | ({surplus} if surplus else set()))
    assert len(found) == 1
    assert problem in found[0]


def test_the_sdist_includes_what_is_expected_in_it() -> None:
    included = {name.removeprefix("/") for name in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]}
    assert included == SDIST - {"PKG-INFO", "pyproject.toml", ".gitignore"}
