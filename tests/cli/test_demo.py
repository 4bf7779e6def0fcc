"""The demo: what its readers get, on a terminal and without one; and the picture that opens the README."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

import pytest
from line_breaking import typeset
from picture import draw
from rich.console import Console
from typer.testing import CliRunner

from llama_index_resilient_stream import StreamStatus
from llama_index_resilient_stream.cli import app
from llama_index_resilient_stream.cli.demo.readers import FALLBACK_MODEL, MODEL, DemoReader
from llama_index_resilient_stream.cli.demo.run import run
from llama_index_resilient_stream.cli.demo.scenarios import SCENARIOS, Scenario
from support.servers import HEEDING_COMMAND

pytestmark = pytest.mark.xdist_group("demo")

COMMAND = [sys.executable, "-m", "llama_index_resilient_stream"]
DOCS = Path(__file__).parent.parent.parent / "docs"

ATTEMPTS = {"silent end": 2, "reset": 2, "stall": 2, "three faults": 4, "model down": 3}
PLAIN = {
    "silent end": "114 of 334, presented as whole",
    "reset": "ReadError after 124",
    "stall": "ReadTimeout after 266",
    "three faults": "APIError after 92",
    "model down": "ReadError after 141",
}

Show = tuple[str, dict[str, tuple[Scenario, DemoReader, DemoReader]]]


@pytest.fixture(scope="module")
def show() -> Show:
    """The demo on a terminal of 80 columns: what was written to it, and what each reader got."""
    terminal = Console(
        file=io.StringIO(), force_terminal=True, width=80, color_system="truecolor", legacy_windows=False
    )
    rows = run(terminal, fast=True)
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue(), {
        scenario.name: (scenario, plain, resilient) for scenario, plain, resilient in rows
    }


@pytest.fixture(scope="module")
def lines() -> str:
    """The demo where there is no terminal."""
    result = CliRunner().invoke(app, ["demo", "--fast"], env={"COLUMNS": "100"}, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture(scope="module")
def picture() -> str:
    return draw()


def unstyled(output: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output).replace("\r", "\n")


# What the readers get


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_every_resilient_reader_gets_the_whole_answer(show: Show, name: str) -> None:
    scenario, _, resilient = show[1][name]
    assert resilient.text == scenario.answer
    assert resilient.error is None
    assert resilient.report is not None
    assert resilient.report.status is StreamStatus.COMPLETE
    assert len(resilient.report.attempts) == ATTEMPTS[name]


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_no_plain_reader_gets_the_whole_answer(show: Show, name: str) -> None:
    scenario, plain, _ = show[1][name]
    assert scenario.answer.startswith(plain.text)
    assert 0 < len(plain.text) < len(scenario.answer)
    assert (plain.error is None) == (name == "silent end")


def test_the_seam_is_where_the_plain_answer_stops(show: Show) -> None:
    for _, plain, resilient in show[1].values():
        first = "".join(piece.text for piece in resilient.pieces if piece.attempt == 1)
        assert first == plain.text


def test_the_fallback_takes_over_in_the_middle(show: Show) -> None:
    _, _, resilient = show[1]["model down"]
    assert resilient.report is not None
    assert resilient.report.models == [MODEL, FALLBACK_MODEL]


# How it looks


def test_demo_fits_into_eighty_columns(show: Show) -> None:
    assert max(map(len, unstyled(show[0]).split("\n"))) <= 80


def test_every_cut_is_marked_on_a_terminal(show: Show) -> None:
    for words in ("six┆teen", "induc┆tion", "8┆.0", "fault┆", "thi┆rty"):
        assert words in unstyled(show[0])


def test_demo_without_a_terminal_does_not_animate(lines: str) -> None:
    assert "\x1b" not in lines
    assert "\r" not in lines
    assert lines.count("six┆teen") == 1


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_the_table_says_what_each_delivered(lines: str, name: str) -> None:
    table = lines.partition("What the readers got")[2]
    row = next(line for line in table.splitlines() if line.strip().startswith(name))
    length = len(next(scenario.answer for scenario in SCENARIOS if scenario.name == name))
    cells = [cell.strip() for cell in re.split(r"\s{2,}", row.strip())]
    assert cells[:4] == [name, PLAIN[name], f"{length} of {length}, complete", str(ATTEMPTS[name])]


def test_demo_fits_into_forty_columns() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=40, legacy_windows=False)
    run(terminal, fast=True)
    assert isinstance(terminal.file, io.StringIO)
    shown = unstyled(terminal.file.getvalue())
    assert max(map(len, shown.split("\n"))) <= 40
    words = " ".join(shown.split())
    for name, result in PLAIN.items():
        assert f"{name} LlamaIndex: {result} ResilientLLM: " in words


def test_lines_fit_into_forty_columns_and_none_is_broken_twice() -> None:
    file = io.StringIO()
    run(Console(file=file, width=40), fast=True)
    lines = file.getvalue().split("\n")
    assert max(map(len, lines)) <= 40
    begin, end = lines.index("LlamaIndex:"), lines.index("LlamaIndex with ResilientLLM:")
    assert all(line.startswith("  ") for line in lines[begin + 1 : end - 1])  # the answer, and how it ended


def test_demo_ends_with_what_to_do_next(lines: str) -> None:
    assert "Next\n" in lines
    assert lines.rstrip().endswith("doctor url URL")


def test_a_terminal_without_unicode_gets_ascii() -> None:
    latin = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    run(Console(file=latin, width=80), fast=True)
    latin.seek(0)
    assert "six|teen" in latin.read()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another matter there")
def test_interrupt_stops_the_demo_cleanly() -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*HEEDING_COMMAND, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as demo:
        assert demo.stdout is not None
        while b"1/5" not in demo.stdout.readline():
            pass
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=20)
    assert demo.returncode == 130, err
    assert out.endswith(b"Stopped.\n")
    assert err == b""


# The command line


def test_the_version() -> None:
    result = CliRunner().invoke(app, ["--version"], catch_exceptions=False)
    assert result.stdout.strip() == version("llama-index-resilient-stream")


def test_missing_extra_names_the_install_command() -> None:
    script = (
        "import runpy, sys; sys.modules['typer'] = None; "
        "runpy.run_module('llama_index_resilient_stream', run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert 'pip install "llama-index-resilient-stream[cli]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_help_names_the_demo() -> None:
    result = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert "demo" in result.stdout


# The picture


def test_the_picture_is_the_same_every_time(picture: str) -> None:
    assert draw() == picture


def test_the_picture_in_the_readme_is_up_to_date(picture: str) -> None:
    assert (DOCS / "healing.svg").read_text(encoding="utf-8") == picture, "Run: python tools/readme_picture/picture.py"


def test_the_picture_stands_alone(picture: str) -> None:
    root = ET.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(picture.encode()) < 150_000
    assert not re.search(r"<script|<image|<foreignObject|href|url\(|@import|\son\w+=", picture)
    assert picture.count("://") == 1  # the name space


def test_the_last_frame_holds_both_answers(picture: str) -> None:
    """Without animation, what is not transparent is what was read."""
    seen = [
        element.text
        for element in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")
        if (element.get("class") or "").startswith("w")
    ]
    scenario = SCENARIOS[0]
    half, whole = scenario.answer[: scenario.faults[0].after].split(), scenario.answer.split()
    assert half[-1] == "six"
    assert seen == [*half, *half, "teen", *whole[len(half) :]]


def test_picture_does_not_move_for_prefers_reduced_motion(picture: str) -> None:
    assert "@media(prefers-reduced-motion:reduce){*{animation:none!important}}" in picture


@pytest.mark.parametrize(
    ("pieces", "placed"),
    [
        ([(1, "one two")], [("one", 0, 0, 1), ("two", 0, 4, 1)]),
        ([(1, "one t"), (2, "wo")], [("one", 0, 0, 1), ("t", 0, 4, 1), ("wo", 0, 5, 2)]),
        ([(1, "one thr"), (2, "ee")], [("one", 0, 0, 1), ("thr", 1, 0, 1), ("ee", 1, 3, 2)]),
        ([(1, "a\n\n"), (2, "b")], [("a", 0, 0, 1), ("b", 2, 0, 2)]),
    ],
    ids=["words", "seam", "a seam is no place to break", "lines"],
)
def test_typeset(pieces: list[tuple[int, str]], placed: list[tuple[str, int, int, int]]) -> None:
    assert [(word.text, word.row, word.column, word.attempt) for word in typeset(pieces, 8)] == placed
