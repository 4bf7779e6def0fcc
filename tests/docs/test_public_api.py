"""docs/public_api.md says what is public: it, each module's `__all__`, and every documented import agree."""

from __future__ import annotations

import ast
import gc
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "llama_index_resilient_stream"
PAGE = (ROOT / "docs" / "public_api.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(rf"^## `({PACKAGE}[\w.]*)`\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE))
PUBLIC = {
    module: set(re.findall(r"`(\w+)`", "".join(re.findall(r"^- [^:]+:((?:.|\n  )*)", text, re.MULTILINE))))
    for module, text in SECTIONS.items()
}


def loaded(module: str) -> ModuleType:
    return pytest.importorskip(module, exc_type=ImportError)


def test_the_page_lists_modules() -> None:
    assert len(PUBLIC) == 14
    assert PACKAGE in PUBLIC


@pytest.mark.parametrize("module", PUBLIC)
def test_the_page_lists_what_a_module_exports(module: str) -> None:
    assert PUBLIC[module] == set(loaded(module).__all__)


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_name_exists_and_is_documented(module: str) -> None:
    loaded_module = loaded(module)
    missing = [name for name in PUBLIC[module] if not hasattr(loaded_module, name)]
    assert missing == []
    assert [what for name in PUBLIC[module] for what in undocumented(name, getattr(loaded_module, name))] == []


def undocumented(name: str, thing: Any) -> Iterator[str]:
    """The public names in a class, or the function itself, that have no docstring or one that only points elsewhere."""
    if inspect.isfunction(thing) and not is_documented(thing):
        yield name
    if not inspect.isclass(thing) or not thing.__module__.startswith(PACKAGE):
        return
    if not is_documented(thing) or (inspect.getdoc(thing) or "").startswith(f"{thing.__name__}("):
        yield name
    for attribute, value in vars(thing).items():
        is_code = isinstance(value, property | classmethod | staticmethod) or inspect.isfunction(value)
        if not attribute.startswith("_") and is_code and not is_documented(getattr(thing, attribute)):
            yield f"{name}.{attribute}"


def is_documented(thing: Any) -> bool:
    text = inspect.getdoc(thing) or ""
    return bool(text) and not re.match(r"The same\b", text)


# What the documents import


def blocks() -> Iterator[tuple[str, str]]:
    """Every piece of Python in the README, the pages and the notebooks."""
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for match in re.finditer(
            r"^( *)```py(?:thon)?\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        ):
            yield path.name, inspect.cleandoc("\n" + match[2])
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                yield path.name, "".join(line for line in cell["source"] if not line.startswith(("%", "!")))


def parsed(code: str) -> ast.Module:
    """The syntax tree; of a fragment, that of its imports."""
    gc.disable()  # CPython 3.11 loses count of its own depth where a collection runs meanwhile
    try:
        return ast.parse(code)
    except SyntaxError:
        return ast.parse("\n".join(re.findall(rf"^(?:from|import) {PACKAGE}.*$", code, re.MULTILINE)))
    finally:
        gc.enable()


def imported() -> Iterator[tuple[str, str, str]]:
    for where, code in blocks():
        tree = parsed(code)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
                yield from ((where, node.module or "", alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((where, a.name, "") for a in node.names if a.name.split(".")[0] == PACKAGE)


def test_documents_import_only_what_is_public() -> None:
    found = set(imported())
    assert len(found) > 10
    for where, module, name in found:
        assert module in PUBLIC, f"{where}: {module}"
        assert not name or name in PUBLIC[module] or f"{module}.{name}" in PUBLIC, f"{where}: {module}.{name}"


# Names of modules


@pytest.mark.parametrize("module", [module for module in PUBLIC if module != PACKAGE])
def test_a_public_module_is_not_hidden_by_a_name(module: str) -> None:
    loaded(module)
    parent, _, name = module.rpartition(".")
    assert isinstance(getattr(importlib.import_module(parent), name), ModuleType)


def test_no_public_name_is_that_of_a_module_beside_it() -> None:
    root = ROOT / PACKAGE
    for module, names in PUBLIC.items():
        folder = root.joinpath(*module.split(".")[1:])
        beside = {path.stem for path in (folder if folder.is_dir() else folder.parent).iterdir()}
        assert not names & beside, module


def test_the_version_is_that_of_the_distribution() -> None:
    version = importlib.import_module(PACKAGE).__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|a\d+|b\d+|rc\d+)?", version)
    assert 'path = "llama_index_resilient_stream/__init__.py"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
