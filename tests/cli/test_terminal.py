"""Output on a terminal has colour and tables that fit; output to a pipe has neither."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from support import TIMEOUT

import toxbench

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "toxbench"]
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    toxbench.run(backbones=[], results=folder / "results")
    return folder


def on_terminal(folder: Path, *words: str, **environment: str) -> str:
    """Run a command with stdout and stderr on a pseudo-terminal; return the output."""
    reader, terminal = pty.openpty()
    plain = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}}
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=folder, stdin=terminal, stdout=terminal, stderr=terminal,
        env=plain | {"TERM": "xterm"} | environment,
    )  # fmt: skip
    os.close(terminal)
    output = b""
    while True:
        try:
            data = os.read(reader, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        output += data
    os.close(reader)
    process.wait(TIMEOUT)
    return output.decode("utf-8").replace("\r\n", "\n")


@pytest.mark.parametrize("words", [["leaderboard"], ["compare"], ["metrics"]])
def test_tables_fit_and_best_row_is_bold(results: Path, words: list[str]) -> None:
    output = on_terminal(results, *words, COLUMNS="72")
    lines = ANSI.sub("", output).splitlines()
    assert max(map(cell_len, lines)) <= 72
    if words == ["leaderboard"]:
        bold = [line for line in output.splitlines() if line.startswith("\x1b[1m")]
        assert any("tfidf-logreg" in line for line in bold)


def test_live_display_shows_the_time_left(checkpoint: Path, table: Path, tmp_path: Path) -> None:
    output = on_terminal(
        tmp_path, "run", "--data", str(table), "--backbones", "bert", "--weights",
        f"bert={checkpoint}", "--baselines", "none", "--seeds", "2", "--epochs", "1", COLUMNS="120",
    )  # fmt: skip
    assert re.search(r"cells .* 1/2 .* about \d+ s left", ANSI.sub("", output)), output


def test_no_color_removes_all_escapes(results: Path) -> None:
    assert "\x1b" not in on_terminal(results, "leaderboard", COLUMNS="72", NO_COLOR="1")


def test_errors_are_red(results: Path) -> None:
    output = on_terminal(results, "show", "tfidf")
    assert output.startswith("\x1b[31mtoxbench: error: no candidate is called 'tfidf'")


def test_piped_lines_are_uncut_and_colourless(results: Path) -> None:
    def piped(**environment: str) -> str:
        result = subprocess.run(
            [*COMMAND, "leaderboard"], cwd=results, capture_output=True, text=True, check=True,
            env={**os.environ, "COLUMNS": "40", **environment},
        )  # fmt: skip
        return result.stdout

    plain = piped()
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) > 100
    assert ANSI.sub("", piped(FORCE_COLOR="1")) == plain
