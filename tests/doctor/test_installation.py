"""`doctor` without arguments, on made-up installations: folders of metadata, as pip leaves them."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.version import Version
from rich.console import Console

from llama_index_resilient_stream.cli.doctor import endpoint_screen as doctor_screen
from llama_index_resilient_stream.doctor.installation.known_issues import KNOWN_ISSUES, known_issues
from llama_index_resilient_stream.doctor.installation.versions import Installation, examine

Install = Callable[..., None]
Pins = tuple[str, ...]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    def install(name: str, version: str, *requires: str, folder: str = "") -> None:
        info = tmp_path / folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requires)]
        (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n", encoding="utf-8")

    return install


def found(tmp_path: Path) -> Installation:
    return examine([str(tmp_path)])


def told(tmp_path: Path) -> list[tuple[str, str, str, str]]:
    return [(each.package, each.requirement, each.found, each.fix) for each in found(tmp_path).unmet]


def test_compatible_versions_are_fine(install: Install, tmp_path: Path) -> None:
    install("llama-index-core", "0.14.25", "pydantic>=2.8", 'numpy; python_version < "3"')
    install("llama-index-llms-openai", "0.8.3", "llama-index-core<0.15,>=0.14.5", "openai<3,>=1.108.1")
    install("openai", "2.54.0", "never-asked>=1")
    install("pydantic", "2.14.3")
    install("unrelated", "1.0", "missing>=1")
    result = found(tmp_path)
    assert result.fine
    assert result.unmet == ()
    assert list(result.versions) == ["llama-index-core", "llama-index-llms-openai", "openai", "pydantic"]


CASES: dict[str, tuple[dict[tuple[str, str], Pins], list[tuple[str, str, str, str]]]] = {
    "core too old for an integration": (
        {
            ("llama-index-core", "0.13.6"): (),
            ("llama-index-llms-openai", "0.8.3"): ("llama-index-core<0.15,>=0.14.5",),
            ("llama-index-readers-file", "0.5.0"): ("llama-index-core<0.15,>=0.13.0",),
        },
        [
            (
                "llama-index-llms-openai",
                "llama-index-core<0.15,>=0.14.5",
                "0.13.6",
                'pip install "llama-index-core<0.15,>=0.13.0,>=0.14.5"',
            )
        ],
    ),
    "integrations that exclude each other": (
        {
            ("llama-index-core", "0.14.25"): (),
            ("llama-index-llms-openai", "0.8.3"): ("llama-index-core<0.15,>=0.14.5",),
            ("llama-index-vector-stores-old", "0.2.0"): ("llama-index-core<0.12.0,>=0.11.0",),
        },
        [
            (
                "llama-index-vector-stores-old",
                "llama-index-core<0.12.0,>=0.11.0",
                "0.14.25",
                "pip install -U llama-index-llms-openai llama-index-vector-stores-old llama-index-core",
            )
        ],
    ),
    "missing": (
        {("llama-index-core", "0.14.25"): ("banks>=2.2",)},
        [("llama-index-core", "banks>=2.2", "", 'pip install "banks>=2.2"')],
    ),
    "an SDK that is too new": (
        {
            ("llama-index-core", "0.13.6"): (),
            ("llama-index-llms-openai", "0.5.0"): ("openai (<2,>=1.81.0)",),
            ("openai", "3.52.0"): (),
        },
        [("llama-index-llms-openai", "openai<2,>=1.81.0", "3.52.0", 'pip install "openai<2,>=1.81.0"')],
    ),
    "an SDK that is too new, which nobody says": (
        {
            ("llama-index-core", "0.14.25"): (),
            ("llama-index-llms-anthropic", "0.12.3"): ("anthropic>=0.75",),
            ("anthropic", "2.13.0"): (),
        },
        [("llama-index-llms-anthropic", "anthropic<1", "2.13.0", 'pip install "anthropic<1,>=0.75"')],
    ),
    "a pre-release that fits": (
        {("llama-index-core", "0.14.26.dev1"): (), ("llama-index-llms-x", "1"): ("llama-index-core>=0.14.5",)},
        [],
    ),
    "names are spelt in many ways": (
        {("llama_index_core", "0.14.25"): ("Llama.Index_Workflows>=2",), ("llama-index-workflows", "2.0"): ()},
        [],
    ),
    "an extra that nobody asked for": (
        {("llama-index-core", "0.14.25"): ('redis>=5; extra == "cache"',)},
        [],
    ),
    "an extra that another package asks for": (
        {
            ("llama-index-core", "0.14.25"): ('redis>=5; extra == "cache"', 'sqlite9; extra == "other"'),
            ("llama-index-storage-x", "1.0"): ("llama-index-core[cache]>=0.14",),
        },
        [("llama-index-core", "redis>=5", "", 'pip install "redis>=5"')],
    ),
    "a marker that does not hold": (
        {("llama-index-core", "0.14.25"): ('nowhere>=1; sys_platform == "nowhere"',)},
        [],
    ),
    "a line that nobody can read": (
        {("llama-index-core", "0.14.25"): ("this is = no requirement",)},
        [],
    ),
}


@pytest.mark.parametrize(("packages", "unmet"), CASES.values(), ids=CASES)
def test_pins(
    install: Install,
    tmp_path: Path,
    packages: dict[tuple[str, str], Pins],
    unmet: list[tuple[str, str, str, str]],
) -> None:
    for (name, version), requires in packages.items():
        install(name, version, *requires)
    assert told(tmp_path) == unmet
    assert found(tmp_path).fine is not bool(unmet)


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        ({"llama-index-core": "0.10.67"}, "0.10.67 is not supported, 0.10.68 is the oldest"),
        ({"llama-index": "0.9.48"}, "llama-index 0.9.48 is of the time before it"),
        ({}, "llama-index-core is not installed"),
        ({"llama-index-core": "0.10.68"}, ""),
        ({"llama-index-core": "0.10.68.post1"}, ""),
    ],
    ids=str,
)
def test_the_oldest_that_is_supported(install: Install, tmp_path: Path, packages: dict[str, str], said: str) -> None:
    for name, version in packages.items():
        install(name, version)
    result = found(tmp_path)
    assert said in result.unsupported
    assert result.fine is not bool(said)
    if said:
        assert 'pip install -U "llama-index-core>=0.10.68,<0.15"' in result.unsupported


def test_leftovers_of_an_interrupted_pip(install: Install, tmp_path: Path) -> None:
    install("llama-index-core", "0.14.25")
    (tmp_path / "~lama_index_core-0.14.2.dist-info").mkdir()
    assert found(tmp_path).fine


def test_the_first_on_the_path_is_the_one(install: Install, tmp_path: Path) -> None:
    install("llama-index-core", "0.14.25", folder="first")
    install("llama-index-core", "0.10.1", folder="second")
    assert examine([str(tmp_path / "first"), str(tmp_path / "second")]).fine


# Traps


SPRUNG = {
    "version_says_otherwise": ({"llama-index-core": "0.14.0"}, {"llama-index-core": "0.14.4"}),
    "engines_do_not_stream": ({"llama-index-core": "0.14.22"}, {"llama-index-core": "0.14.25"}),
    "thinking_in_simple_chat": ({"llama-index-core": "0.14.10"}, {"llama-index-core": "0.14.24"}),
    "first_token_twice": ({"llama-index-core": "0.12.52"}, {"llama-index-core": "0.13.0"}),
    "pydantic_v1": ({"llama-index-core": "0.10.68", "python": "3.14.1"}, {"llama-index-core": "0.10.68"}),
    "workflows_not_bounded": (
        {"llama-index-core": "0.12.43", "llama-index-workflows": "2.26.1"},
        {"llama-index-core": "0.14.25", "llama-index-workflows": "2.26.1"},
    ),
    "openai_not_bounded": (
        {"llama-index-llms-openai": "0.1.27", "openai": "3.52.0"},
        {"llama-index-llms-openai": "0.1.31", "openai": "1.109.1"},
    ),
    "no_httptools": ({"uvicorn": "0.54.0"}, {"uvicorn": "0.54.0", "httptools": "0.9.0"}),
    "sse_starlette": ({"sse-starlette": "3.7.0"}, {"starlette": "1.10.0"}),
    "fastapi_sse": ({"fastapi": "0.165.0"}, {"fastapi": "0.134.0"}),
    "gunicorn": ({"gunicorn": "27.0.1"}, {"uvicorn-worker": "0.4.0"}),
}


def sprung(packages: dict[str, str]) -> set[str]:
    python = Version(packages.get("python", "3.11.7"))
    versions = {name: Version(version) for name, version in packages.items() if name != "python"}
    return {issue.rule for issue in known_issues(versions, python)}


@pytest.mark.parametrize("issue", KNOWN_ISSUES, ids=lambda issue: issue.rule)
def test_a_trap_and_what_is_none(issue: object) -> None:
    rule = issue.rule  # type: ignore[attr-defined]
    caught, spared = SPRUNG[rule]
    assert rule in sprung(caught)
    assert rule not in sprung(spared)


def test_hints_are_nothing_to_fix(install: Install, tmp_path: Path) -> None:
    install("llama-index-core", "0.14.25")
    install("uvicorn", "0.54.0")
    install("gunicorn", "27.0.1")
    result = found(tmp_path)
    assert {issue.rule for issue in result.known_issues} >= {"no_httptools", "gunicorn"}
    assert result.fine


# The command


def test_the_command_says_what_to_type(install: Install, tmp_path: Path) -> None:
    install("llama-index-core", "0.13.6")
    install("llama-index-llms-openai", "0.8.3", "llama-index-core<0.15,>=0.14.5")
    console = Console(width=100, file=io.StringIO())
    doctor_screen.show_installation(console, found(tmp_path))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "llama-index-llms-openai 0.8.3 wants llama-index-core<0.15,>=0.14.5; 0.13.6 is installed." in text
    assert 'pip install "llama-index-core<0.15,>=0.14.5"' in text
    assert "Nothing to fix" not in text


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llama_index_resilient_stream", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"})


def test_doctor_examines_this_installation() -> None:
    expected = examine()
    shown = run()
    assert shown.returncode == (0 if expected.fine else 1), shown.stderr
    assert re.search(r"llama-index-core +" + re.escape(expected.versions["llama-index-core"]), shown.stdout)
    told = run("--json")
    assert told.returncode == shown.returncode
    assert json.loads(told.stdout) == json.loads(json.dumps(expected.to_dict()))
