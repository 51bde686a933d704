"""Rows quoted from publications: shown in every format, but never ranked or compared."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from measured import Table
from sklearn.metrics import jaccard_score
from support import write_table

import toxbench
from toxbench.cli.main import cli
from toxbench.evaluation.definitions import VERSIONS
from toxbench.ranking.build import load_leaderboard
from toxbench.ranking.quoted import read_quoted
from toxbench.report.leaderboard import leaderboard_table, leaderboard_tables
from toxbench.store.cells import CellStore
from toxbench.store.files import write_rows

Command = Callable[..., tuple[int, str]]
HOSTILE = "=<b>net</b>|\\u001b[31m"  # as TOML
FILE = f"""
[[quoted]]
name = "SpanEmo"
source = "Alhuzali and Ananiadou 2021, table 2"
samples_jaccard = 0.6015
micro_f1 = 1

[[quoted]]
name = "{HOSTILE}"
source = "<i>{HOSTILE}"
macro_f1 = 0.578
"""
NAMES = ("SpanEmo (quoted)", "=<b>net</b>|\\x1b[31m (quoted)")
OLD_VERSIONS = {name: version for name, version in VERSIONS.items() if name != "samples_jaccard"}


@pytest.fixture(scope="module")
def table() -> Table:
    return Table(60, folds=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, table: Table) -> Path:
    """Cells of two candidates with a made-up macro-F1 and samples Jaccard."""
    store = make_store(tmp_path_factory.mktemp("stored"), table)
    for candidate, skill in (("bert", 0.45), ("distilbert", 0.1)):
        for record, probabilities in table.cells(candidate, range(5), skill=skill):
            for parts in record.metrics.values():
                for scores in parts.values():
                    scores |= {"macro_f1": 0.25, "samples_jaccard": 0.5}
            store.write(record, probabilities)
    return store.folder


def make_store(folder: Path, table: Table) -> CellStore:
    store = CellStore(folder)
    store.protocol_path.write_text(table.protocol.model_dump_json(), encoding="utf-8")
    write_rows(folder, table.comments)
    return store


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "published.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def invoke(*words: str | Path) -> Result:
    result = CliRunner().invoke(cli, [*map(str, words), "--plugins", "none"])
    assert result.exit_code == 0, result.output
    return result


def rows_of(*words: str | Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(invoke(*words, "--format", "json").stdout)["rows"]
    return rows


def test_metric_scores_cells_stored_before_it(tmp_path: Path, file: Path) -> None:
    table = Table(60)
    record, probabilities = table.cell(versions=OLD_VERSIONS)
    make_store(tmp_path, table).write(record, probabilities)
    targets = table.comments.targets[list(table.protocol.folds[0].test)]
    expected = jaccard_score(
        targets, probabilities["test"] > 0.5, average="samples", zero_division=1
    )
    for words in (
        ("rescore", tmp_path, "--metric", "samples_jaccard"),
        ("leaderboard", tmp_path, "--quoted", file),
    ):
        assert rows_of(*words)[0]["samples_jaccard"] == pytest.approx(expected, abs=1e-12)


def test_quoted_rows_change_no_measured_value(folder: Path, file: Path) -> None:
    plain = rows_of("leaderboard", folder)
    rows = rows_of("leaderboard", folder, "--quoted", file)
    assert [row["candidate"] for row in rows] == ["bert", "distilbert", "SpanEmo", NAMES[1][:-9]]
    assert [{name: row[name] for name in plain[0]} for row in rows[:2]] == plain
    assert {(row["rank"], row["tier"], row["seeds"], row["micro_f1_low"]) for row in rows[2:]} == {
        (None, None, None, None)
    }
    assert [row["kind"] for row in rows] == ["backbone", "backbone", "quoted", "quoted"]
    assert (rows[2]["micro_f1"], rows[2]["samples_jaccard"], rows[2]["macro_f1"]) == (
        1,
        0.6015,
        None,
    )
    assert rows[2]["source"] == "Alhuzali and Ananiadou 2021, table 2"


def test_statistics_ignore_quoted_rows(folder: Path, file: Path) -> None:
    store = CellStore(folder)
    plain, board = load_leaderboard(store), load_leaderboard(store, quoted=read_quoted(file))
    assert board.verdicts == plain.verdicts
    for first, second in zip(
        [leaderboard_table(plain), *leaderboard_tables(plain)],
        [leaderboard_table(board), *leaderboard_tables(board)],
        strict=True,
    ):
        assert second.best == first.best == (0, 1)
        assert [n for n in second.notes if not n.startswith("(quoted)")] == list(first.notes)


def test_headline_table_shows_quoted_metrics(folder: Path, file: Path) -> None:
    board = load_leaderboard(CellStore(folder), quoted=read_quoted(file))
    first, *others = leaderboard_tables(board)
    assert first.headers[1:6] == (
        "backbone", "micro-F1", "subset accuracy", "macro_f1", "samples_jaccard",
    )  # fmt: skip
    assert first.rows[2] == ("", NAMES[0], "1.000", "", "", "0.602", "", "", "")
    assert first.rows[3] == ("", NAMES[1], "", "", "0.578", "", "", "", "")
    assert first.notes[-1].startswith("(quoted): ")
    assert "SpanEmo: Alhuzali and Ananiadou 2021, table 2; " in first.notes[-1]
    assert {t.title for t in others if NAMES[1] in {row[0] for row in t.rows}} == {"More scores"}


@pytest.mark.parametrize("name", ["plain", "markdown", "latex", "html", "csv", "json"])
def test_every_format_escapes_quoted_rows(folder: Path, file: Path, name: str) -> None:
    text = invoke("leaderboard", folder, "--quoted", file, "--format", name).stdout
    assert text.count("SpanEmo") >= 1 + (name != "csv")  # the row, and the note
    assert "Alhuzali" in text
    assert "\x1b" not in text
    if name in {"markdown", "html"}:
        assert "&lt;b&gt;" in text
        assert "<b>" not in text
    if name == "csv":
        assert list(csv.DictReader(io.StringIO(text)))[3]["candidate"].startswith("'=")


INVALID: dict[str, tuple[str, str]] = {
    "metric": ('name = "a"\nsource = "b"\nsamples_jacard = 0.5',
               "row 1, 'samples_jacard': no such metric; did you mean 'samples_jaccard'?"),
    "property": ('name = "a"\nsource = "b"\nscored_labels = 1', "'scored_labels': no such metric"),
    "percent": ('name = "a"\nsource = "b"\nmicro_f1 = 60.1', "'micro_f1': input should be less"),
    "negative": ('name = "a"\nsource = "b"\nmicro_f1 = -0.1', "'micro_f1': input should be great"),
    "nan": ('name = "a"\nsource = "b"\nmicro_f1 = nan', "'micro_f1': input should be a finite"),
    "boolean": ('name = "a"\nsource = "b"\nmicro_f1 = true', "'micro_f1': input should be a valid"),
    "text": ('name = "a"\nsource = "b"\nmicro_f1 = "0.5"', "'micro_f1': input should be a valid"),
    "source": ('name = "a"\nmicro_f1 = 0.5', "row 1, 'source': field required"),
    "blank": ('name = " "\nsource = "b"\nmicro_f1 = 0.5', "row 1, 'name': string should have"),
    "scores": ('name = "a"\nsource = "b"', "row 1: no metric"),
    "second": ('name = "a"\nsource = "b"\nmicro_f1 = 1\n[[quoted]]\nname = "a"', "row 2"),
    "key": ('name = "a"\nsource = "b"\nmicro_f1 = 1\n[[quote]]\nname = "a"', "unknown key 'quote'"),
    "toml": ("name", "not TOML"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "problem"), INVALID.values(), ids=INVALID)
def test_invalid_files_are_refused(
    command: Command, folder: Path, tmp_path: Path, content: str, problem: str
) -> None:
    (tmp_path / "bad.toml").write_text(f"[[quoted]]\n{content}\n", encoding="utf-8")
    code, error = command("leaderboard", str(folder), "--quoted", "bad.toml")
    assert code == 2
    assert error.startswith("toxbench: error: --quoted bad.toml: ")
    assert problem in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["run", "report", "leaderboard"])
def test_missing_file_is_refused(command: Command, folder: Path, name: str) -> None:
    code, error = command(name, str(folder), "--quoted", "none.toml")
    assert (code, error) == (2, "toxbench: error: --quoted none.toml: No such file or directory\n")


@pytest.fixture
def results(tmp_path: Path, file: Path) -> Path:
    """The folder of a run with quoted rows."""
    run(tmp_path, file)
    (store,) = (tmp_path / "results").iterdir()
    return store


def run(folder: Path, quoted: Path | None) -> None:
    """Run a baseline on a small table; its cell is computed only once."""
    if not (folder / "t.csv").is_file():
        write_table(folder / "t.csv")
    toxbench.run(
        folder / "t.csv", backbones=[], baselines=["always-negative"], plugins=[],
        results=folder / "results", quoted=quoted,
    )  # fmt: skip


def quoted_names(*words: str | Path) -> list[str]:
    return [row["candidate"] for row in rows_of(*words) if row["kind"] == "quoted"]


def test_run_stores_rows_for_later(results: Path, tmp_path: Path, file: Path) -> None:
    names = ["SpanEmo", NAMES[1].removesuffix(" (quoted)")]
    assert "SpanEmo (quoted)" in (results / "leaderboard.md").read_text(encoding="utf-8")
    run(tmp_path, None)
    assert "SpanEmo (quoted)" in (results / "leaderboard.md").read_text(encoding="utf-8")
    assert quoted_names("leaderboard", results) == names
    assert quoted_names("rescore", results) == names
    assert quoted_names("rescore", results, "--without", "IsLong") == []
    shutil.copytree(results, tmp_path / "copy")
    assert quoted_names("leaderboard", results, tmp_path / "copy") == names
    frame = toxbench.load(results).leaderboard
    assert list(frame["candidate"]) == ["always-negative"]
    assert list(frame["rank"]) == [1]


def test_other_file_replaces_stored_rows(results: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('[[quoted]]\nname = "BNet"\nsource = "s"\nmicro_mcc = 0.5\n')
    assert quoted_names("leaderboard", results, "--quoted", other) == ["BNet"]
    assert len(quoted_names("leaderboard", results)) == 2
    other.write_text("")
    run(tmp_path, other)
    assert quoted_names("leaderboard", results) == []


def test_damaged_copy_is_moved_aside(results: Path, tmp_path: Path, command: Command) -> None:
    (results / "quoted.toml").write_text("[[quoted]]\nname")
    code, error = command("leaderboard", str(results))
    assert code == 6
    assert "quoted.toml is damaged; give --quoted FILE to toxbench run" in error
    run(tmp_path, None)
    assert (results / "quoted.toml.corrupt").is_file()
    assert quoted_names("leaderboard", results) == []


def test_report_escapes_quoted_rows(results: Path, command: Command) -> None:
    assert command("report", str(results)) == (0, "")
    page = (results / "report.html").read_text(encoding="utf-8")
    assert page.count(">SpanEmo (quoted)<") == 1
    assert page.count("SpanEmo: Alhuzali and Ananiadou 2021, table 2") == 1
    assert "&lt;b&gt;net&lt;/b&gt;" in page
    assert "<b>" not in page
    assert "\x1b" not in page
