"""Escape sequences and commands in comments, ids, names and messages are inert in every output."""

import csv
import io
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from forks import Forks
from plugin_site import write_plugin
from support import TIMEOUT

import toxbench
from toxbench.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.faults(40)]
MARK = "whispered"  # part of every comment
PAINT = "\x1b]0;pwned\x07\x1b[31m\u202e\x9b2J\r\x08"
LABELS = ("=cmd()", "<script>alert(1)</script>", "[red]x[/red]", "a|b", f"{PAINT}l", "-2+3", "1e5")
COMMENTS = (
    f"{MARK} {PAINT}", f"=cmd('{MARK}')", f"| {MARK} | x |\n|---|", f"[link={MARK}]a[/]",
    f"<img src=x onerror={MARK}>", f"@{MARK}", f"+{MARK}", f"%s{{}}{MARK}\\x1b",
)  # fmt: skip
IDS = ("=id{}", "\x1b[2Jid{}", "<b>id{}", "@id{}", "id{}|", "-id{}", "id\t{}", ":smile:{}")
FORMATS = ("plain", "github", "markdown", "latex", "html", "csv", "json")
TAGS = {"table", "caption", "thead", "tbody", "tr", "th", "td"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with hostile names and values, and the results of a run on it in two folds."""
    folder = tmp_path_factory.mktemp("hostile")
    frame = pd.DataFrame({
        f"id{PAINT}": [IDS[row % 8].format(row) for row in range(80)],
        f"text{PAINT}": [f"{COMMENTS[row % 8]} {row}" for row in range(80)],
        f"{PAINT}=group": [f"=g{row % 9}{PAINT}" for row in range(80)],
        f"unused{PAINT}": [f"{MARK} {PAINT} x"] * 80,
    })  # fmt: skip
    for number, label in enumerate(LABELS):
        frame[label] = [int((row + number) % (number + 2) == 0) for row in range(80)]
    frame.to_csv(folder / f"t{PAINT}=.csv", index=False, quoting=csv.QUOTE_ALL)
    toxbench.run(
        folder / f"t{PAINT}=.csv", backbones=[], results=folder / "results",
        columns={"text_column": f"text{PAINT}", "id_column": f"id{PAINT}",
                 "group_column": f"{PAINT}=group"},
        split={"folds": 2}, plugins=[],
    )  # fmt: skip
    return folder


@pytest.fixture
def columns() -> tuple[str, ...]:
    return ("--text-column", f"text{PAINT}", "--id-column", f"id{PAINT}", "--group-column",
            f"{PAINT}=group")  # fmt: skip


@pytest.fixture
def data(folder: Path) -> str:
    return str(folder / f"t{PAINT}=.csv")


def call(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """Run a command; return its output, after checking that it is inert."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    output = capsys.readouterr()
    assert int(str(stop.value.code)) == code, output.err
    check_inert(output.out)
    check_inert(output.err)
    if "--show-text" not in words:
        assert MARK not in output.out + output.err
    return output.out


def check_inert(text: str) -> None:
    assert {c for c in text if not c.isprintable()} <= {"\n"}


@pytest.mark.parametrize("words", [("show",), ("check",), ("check", "--split", "grouped")])
def test_data_commands_escape_the_table(
    capsys: pytest.CaptureFixture[str], data: str, columns: tuple[str, ...], words: tuple[str, ...]
) -> None:
    output = call(capsys, "data", words[0], data, *words[1:], *columns)
    assert "\\x1b]0;pwned\\x07" in output


def test_error_messages_escape_the_options(
    capsys: pytest.CaptureFixture[str], data: str, folder: Path
) -> None:
    call(capsys, "data", "show", data, "--text-column", f"none{PAINT}", code=3)
    call(capsys, "data", "show", data, "--labels", f"unused{PAINT}", code=3)
    call(capsys, "data", "show", data, "--encoding", f"x{PAINT}", code=3)
    call(capsys, "data", "show", f"{data}\nx.csv", code=3)
    call(capsys, "leaderboard", str(folder / "results"), "--format", f"x{PAINT}[red]", code=2)


COMMANDS = [
    ("leaderboard",), ("leaderboard", "--per-label"), ("rescore", "--without", "a|b"),
    ("slices", "--by", f"{PAINT}=group"),
    *(("errors", "--table", table) for table in ("missed", "labels")),
    *(("errors", "--show-text", "--table", table) for table in ("missed", "labels")),
]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_stored_results_are_escaped_in_every_format(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    data: str,
    columns: tuple[str, ...],
    words: tuple[str, ...],
    name: str,
) -> None:
    texts = ("--data", data, *columns) if {"--show-text", "slices"} & {*words} else ()
    page = call(capsys, *words, str(folder / "results"), *texts, "--format", name)
    check_page(name, page)


def check_page(name: str, page: str) -> None:
    """Check that the page holds a table in the format and no command."""
    if name == "html":
        assert tags_of(page) <= TAGS
    elif name == "json":
        assert json.loads(page)["rows"]
    elif name == "csv":
        check_csv(page)
    elif name in {"github", "markdown"}:
        check_markdown(page)
    elif name == "latex":
        for line in page.splitlines():
            assert line.startswith("%") or not re.search(r"(?<!\\)[#$%^](?!\{)", line), line


def tags_of(page: str) -> set[str]:
    tags: set[str] = set()

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.add(tag)

    Parser().feed(page)
    return tags


def check_csv(page: str) -> None:
    header, *rows = csv.reader(io.StringIO(page))
    assert rows
    for row in (header, *rows):
        assert len(row) == len(header)
        for cell in row:
            is_number = re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", cell)
            assert is_number or not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell


def check_markdown(page: str) -> None:
    table = [line for line in page.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
    assert len(widths) == 1
    bare = re.sub(r"\\.|&(lt|gt|amp);", "", page)
    assert not set(bare) & set("<>[]`*")


def test_written_leaderboards_are_escaped(folder: Path) -> None:
    (results,) = (folder / "results").iterdir()
    for name, suffix in (("markdown", "md"), ("csv", "csv"), ("json", "json")):
        content = (results / f"leaderboard.{suffix}").read_text(encoding="utf-8")
        check_inert(content)
        assert MARK not in content
        if name != "markdown":  # the Markdown file holds several tables
            check_page(name, content)
    for path in results.rglob("*"):
        assert not path.is_file() or MARK.encode() not in path.read_bytes(), path


def test_numbers_stay_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = call(capsys, "leaderboard", str(folder / "results"), "--format", "csv")
    frame = pd.read_csv(io.StringIO(page))
    stored = toxbench.load(folder / "results").leaderboard
    for name in ("micro_f1", "micro_f1_gap", "train_seconds", "seeds"):
        assert frame[name].tolist() == stored[name].tolist()
    assert (frame.select_dtypes("number") < 0).any(axis=None)  # a negative number is not a formula


# Baselines that quote a comment; a hook of the plugin fails with escapes as well.
LOUD = """
import warnings

def fit(texts, targets, context):
    raise ValueError(texts[0] + "\\x1b]0;pwned\\x07[red]=cmd()\\n\\x9b2J\\r")

@hookimpl
def toxbench_baselines():
    return [Baseline(name="loud", fit=fit)]

@hookimpl
def toxbench_cell_finished(result):
    raise ValueError("\\x1b]0;pwned\\x07 heard\\nof it")
"""
RUN = ("run", "--backbones", "none", "--baselines", "always-negative,loud")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    write_plugin(site, "loud", LOUD)
    write_plugin(site, "rude", "raise RuntimeError('\\x1b]0;pwned\\x07\\n\\x9b2J')\n")
    return site


def on_a_terminal(words: list[str], folder: Path, site: Path) -> tuple[int, str]:
    """Run the real command on a pseudo-terminal; return its exit code and output."""
    reader, terminal = pty.openpty()
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-m", "toxbench", *words], cwd=folder, stdin=terminal, stdout=terminal,
        stderr=terminal, env={**os.environ, "PYTHONPATH": path, "TERM": "xterm", "COLUMNS": "150"},
    ) as process:  # fmt: skip
        os.close(terminal)
        written, deadline = b"", time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            if not select.select([reader], [], [], 1)[0]:
                continue
            try:
                piece = os.read(reader, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            written += piece
    os.close(reader)
    return process.returncode, written.decode("utf-8")


def test_live_display_is_escaped(
    folder: Path, data: str, columns: tuple[str, ...], site: Path, tmp_path: Path
) -> None:
    shutil.copy(data, tmp_path / "x.csv")
    words = [*RUN, "--data", "x.csv", *columns, "--debug"]
    code, screen = on_a_terminal(words, tmp_path, site)
    assert code == 5, screen
    assert "ValueError" in screen
    assert "\\x1b]0;pwned\\x07" in screen
    assert "[red]=cmd()" in screen  # markup is shown literally
    for command in ("\x1b]", "\x07", "\x9b", "\u202e", "\x08"):
        assert command not in screen


def test_log_is_escaped(
    data: str, columns: tuple[str, ...], site: Path, forks: Forks, tmp_path: Path
) -> None:
    shutil.copy(data, tmp_path / "x.csv")
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    for workers in ("1", "2"):
        result = forks.run(
            *RUN, "--data", "x.csv", *columns, "--folds", "2", "--workers", workers,
            "--results", workers, cwd=tmp_path, environment={"PYTHONPATH": path},
        )  # fmt: skip
        output = result.err
        assert result.code == 5, output
        assert MARK not in output + result.out
        check_inert(output)
        check_inert(result.out)
        assert "plugin 'rude' of dist-rude 1.0: RuntimeError: \\x1b]0;pwned\\x07" in output
        assert (
            "plugin 'loud' of dist-loud 1.0: ValueError: \\x1b]0;pwned\\x07 heard of it" in output
        )
        starts = ("toxbench:", "[", "Table", "Split", "Test", "Groups", "Candidate", "Cells")
        assert [line for line in output.splitlines() if not line.startswith(starts)] == []


def test_plugin_descriptions_are_escaped(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plugin(site, "vain", (
        "@hookimpl\ndef toxbench_backbones():\n"
        "    return [Backbone(name='vain', checkpoint='a/\\x1b]0;pwned\\x07\\n')]\n"
    ), version="1.0+\x1b[2J")  # fmt: skip
    monkeypatch.syspath_prepend(site)
    for name in ("loud", "rude", "vain"):
        monkeypatch.delitem(sys.modules, f"module_of_{name}", raising=False)
    assert "a/\\x1b]0;pwned\\x07" in call(capsys, "backbones")


def test_checkpoint_folder_names_are_escaped(
    checkpoint: Path, tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    painted = tmp_path / f"tiny{PAINT}[red]|<b>"
    shutil.copytree(checkpoint, painted)
    words = ("--data", str(table), "--backbones", "bert", "--weights", f"bert={painted}",
             "--epochs", "1", "--max-length", "16", "--baselines", "none", "--plugins", "none",
             "--results", str(tmp_path / "results"))  # fmt: skip
    call(capsys, "run", *words, "--quiet")
    results = str(tmp_path / "results")
    assert "folder tiny\\x1b]0;pwned" in call(capsys, "leaderboard", results, "--full")
    for name in FORMATS:
        page = call(capsys, "leaderboard", str(tmp_path / "results"), "--format", name)
        check_page(name, page)


def test_one_module_prints() -> None:
    sources = Path(toxbench.__file__).parent.rglob("*.py")
    printing = re.compile(r"\b(click\.s?echo|print_exc|(?<!\.)print|sys\.stdout\.write)\(")
    modules = {path.name for path in sources if printing.search(path.read_text(encoding="utf-8"))}
    assert modules == {"console.py"}
