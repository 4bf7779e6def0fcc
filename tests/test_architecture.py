"""The house as drawn: imports point one way, and the core knows neither LlamaIndex nor an SDK."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "llama_index_resilient_stream"
NAME = PACKAGE.name

# From the foundation up: a module may import what stands before its own floor, or on it.
FLOORS = [
    ["errors", "policy", "report", "callbacks", "otel"],
    ["recovery"],
    ["compat", "transport", "http", "providers"],
    ["streaming"],
    ["llm"],
    ["engines"],
    ["__init__", "testing", "serve", "doctor"],
    ["cli"],
    ["__main__"],
]
FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path) -> set[str]:
    """The absolute names that a module imports, those inside of functions and `if TYPE_CHECKING` left out."""
    names: set[str] = set()
    package = [NAME, *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names.add(".".join([*base, *([node.module] if node.module else [])]))
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    floor = FLOOR[part_of(path)]
    for name in imports(path):
        if name.startswith(NAME + "."):
            assert FLOOR[name.split(".")[1]] <= floor, f"{path.name} imports {name}"
        elif name == NAME:
            assert floor >= FLOOR["__init__"], f"{path.name} imports the whole package"


@pytest.mark.parametrize("path", sorted((PACKAGE / "recovery").rglob("*.py")), ids=lambda path: path.name)
def test_the_core_knows_the_standard_library_and_tenacity(path: Path) -> None:
    for name in imports(path):
        root = name.split(".")[0]
        assert root in sys.stdlib_module_names or name.startswith(NAME) or root == "tenacity", name
        assert root not in ("threading", "asyncio", "socket", "queue", "logging"), f"{name}: the core only decides"


def test_only_compat_looks_at_versions_and_the_doctor_reads_them_aloud() -> None:
    for path in MODULES:
        if part_of(path) not in ("compat", "doctor"):
            # The package's own is set in its __init__, and read by nobody here.
            assert not re.search(r"\.__version__|importlib|\bversion\(", path.read_text(encoding="utf-8"))


def test_the_doctor_is_called_by_the_command_line_alone() -> None:
    for path in MODULES:
        if part_of(path) not in ("cli", "doctor"):
            assert not re.search(r"\bdoctor\b", " ".join(imports(path))), path


DIAGNOSIS = [
    *("measurements", "spans", "judged_answers", "findings", "diagnosis", "remedies"),
    *("ending_rules", "delivery_rules", "format_rules", "made_up_rules", "next_reader_rules", "practice_rules"),
]


@pytest.mark.parametrize("name", DIAGNOSIS)
def test_the_diagnosis_does_no_input_or_output(name: str) -> None:
    for imported in imports(PACKAGE / "doctor" / "endpoint" / f"{name}.py"):
        allowed = ("__future__", "collections", "dataclasses", "enum", "functools", "itertools")
        ours = imported.removeprefix(f"{NAME}.doctor.endpoint").lstrip(".")
        assert imported.split(".")[0] in allowed or ours in ("", *DIAGNOSIS) or imported == f"{NAME}.doctor.sse"


def test_importing_the_package_needs_neither_openai_nor_httpx() -> None:
    code = (
        "import llama_index.core, sys\n"  # which imports httpx itself up to 0.14.0
        "sys.modules['openai'] = None; sys.modules['httpx'] = None\n"
        "import llama_index_resilient_stream, llama_index_resilient_stream.testing"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
