"""`toxbench errors` through the real command, on real runs of baselines and a tiny backbone."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from forks import Forks
from support import TIMEOUT, write_table

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]
HOSTILE = "\x1b[31mfool\u202e|"
CHEAP = ("--backbones", "none", "--quiet")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """A table that was run in three folds; half its ids and all comments hold escape sequences."""
    table = write_table(tmp_path_factory.mktemp("hostile") / "comments.csv")
    frame = pd.read_csv(table)
    frame["id"] = [f"c{r}" if r < 30 else f"\x1b[31mc{r}\u202e" for r in range(len(frame))]
    frame["text"] = [f"{text} {HOSTILE} {'so ' * 60}" for text in frame["text"]]
    frame.loc[frame.index % 7 == 0, "IsRude"] ^= 1
    frame.to_csv(table, index=False)
    words = ("run", "--data", table.name, "--folds", "3")
    assert forks.run(*words, *CHEAP, cwd=table.parent).code == 0
    return table


@pytest.fixture
def results(hostile: Path) -> str:
    return str(hostile.parent / "results")


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


@pytest.mark.faults(40)
def test_rows_are_named_by_id_only(cli: Cli, results: str) -> None:
    result = cli("errors", results, "--limit", "200")
    assert result.returncode == 0, result.stderr
    for title in ("every candidate gets wrong", "candidates disagree", "Likely label errors"):
        assert title in result.stdout
    assert "in 60 test rows" in result.stdout
    assert "tfidf-logreg (1 seed). Not included: always-negative." in result.stdout
    assert "\\x1b[31mc" in result.stdout
    for text in ("\x1b", "\u202e", "fool", "thank"):
        assert text not in result.stdout + result.stderr


def test_every_format_writes_one_table_or_all(cli: Cli, results: str) -> None:
    for name in ("github", "latex", "html", "plain"):
        assert "label" in cli("errors", results, "--format", name).stdout
    rows = json.loads(cli("errors", results, "--format", "json", "--table", "missed").stdout)[
        "rows"
    ]
    assert rows[0].keys() == {"id", "false negatives", "false positives", "cross-entropy"}
    text = cli("errors", results, "--format", "csv", "--table", "labels", "--limit", "1").stdout
    assert len(list(csv.DictReader(io.StringIO(text)))) == 1
    result = cli("errors", results, "--format", "csv")
    assert result.returncode == 2
    assert "--table" in error_of(result)


@pytest.mark.faults(40)
def test_comments_are_escaped_and_shortened(cli: Cli, hostile: Path, results: str) -> None:
    words = ("errors", results, "--table", "missed", "--format", "json", "--show-text")
    result = cli(*words, "--data", str(hostile))
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    by_id = dict(pd.read_csv(hostile)[["id", "text"]].to_numpy().tolist())
    plain = [row for row in rows if row["id"].startswith("c")]
    assert plain
    for row in plain:
        assert by_id[row["id"]].startswith(row["text"][:9])  # the row's own comment
    assert all(len(row["text"]) <= 120 for row in rows)
    assert any("\\x1b[31mfool\\u202e|" in row["text"] for row in rows)
    assert "\x1b" not in cli(*words[:4], "--show-text", "--data", str(hostile)).stdout


def test_the_text_of_another_table_is_refused(
    cli: Cli, hostile: Path, results: str, table: Path
) -> None:
    table = table.rename(table.with_name("other.csv"))
    result = cli("errors", results, "--show-text", "--data", str(table))
    assert result.returncode == 3
    error = error_of(result)
    assert "this is not the table of these results" in error
    for name in ("'other.csv'", "'comments.csv'"):
        assert re.search(rf"{name} with 60 rows, 3 labels and data [0-9a-f]{{12}}[,;]", error)
    assert "--data FILE" in error_of(cli("errors", results, "--show-text"))
    assert "--show-text" in error_of(cli("errors", results, "--data", str(hostile)))


def test_official_split_is_one_table(cli: Cli, table: Path) -> None:
    frame = pd.read_csv(table)
    frame[:40].to_csv(table.with_name("train.csv"), index=False)
    frame[40:].to_csv(table.with_name("test.csv"), index=False)
    files = ("--data", "train.csv", "--test", "test.csv")
    assert cli("run", *files, *CHEAP).returncode == 0
    result = cli("errors", "--show-text", *files)
    assert result.returncode == 0, result.stderr
    assert "in 20 test rows" in result.stdout


def test_sample_needs_no_data_option(cli: Cli, checkpoint: Path) -> None:
    words = ("--weights", f"bert={checkpoint}", "--backbones", "bert", "--epochs", "1",
             "--max-length", "16", "--seeds", "2", "--baselines", "always-negative")  # fmt: skip
    assert cli("run", *words, "--quiet").returncode == 0
    result = cli("errors", "--show-text", "--table", "missed")
    assert result.returncode == 0, result.stderr
    assert "bert (2 seeds). Not included: always-negative. Synthetic sample" in result.stdout
    assert "text" in result.stdout


def test_seeds_with_missing_folds_are_excluded(cli: Cli, results: str, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "results")
    for path in tmp_path.glob("results/*/cells/tfidf-logreg-*fold1*"):
        path.unlink()
    result = cli("errors")
    assert "from always-negative (1 seed)." in result.stdout
    for path in tmp_path.glob("results/*/cells/*fold0*"):
        path.unlink()
    result = cli("errors")
    assert result.returncode == 6
    assert "continue with the same toxbench run" in error_of(result)


def test_missing_results_name_the_run_command(cli: Cli) -> None:
    result = cli("errors")
    assert result.returncode == 6
    assert "toxbench run" in error_of(result)


def test_training_packages_are_not_imported(results: str) -> None:
    code = (
        "import sys\n"
        "from toxbench.cli.main import main\n"
        "try:\n    main(['errors', sys.argv[1]])\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "assert not {'torch', 'transformers', 'optuna'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, results], check=False,
                          capture_output=True, text=True, timeout=TIMEOUT)  # fmt: skip
    assert result.returncode == 0, result.stderr
