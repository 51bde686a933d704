"""`toxbench errors` through the real command, on real runs of baselines and a tiny backbone."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]
HOSTILE = "\x1b[31mfool\u202e|"
CHEAP = ("--backbones", "none", "--quiet")


@pytest.fixture
def hostile(table: Path) -> Path:
    """A table of which the last 30 ids and all comments would paint the terminal."""
    frame = pd.read_csv(table)
    frame["id"] = [f"c{r}" if r < 30 else f"\x1b[31mc{r}\u202e" for r in range(len(frame))]
    frame["text"] = [f"{text} {HOSTILE} {'so ' * 60}" for text in frame["text"]]
    frame.loc[frame.index % 7 == 0, "IsRude"] ^= 1
    frame.to_csv(table, index=False)
    return table


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_rows_are_named_by_id_and_no_comment_is_printed(cli: Cli, hostile: Path) -> None:
    assert cli("run", "--data", str(hostile), "--folds", "3", *CHEAP).returncode == 0
    done = cli("errors", "--limit", "200")
    assert done.returncode == 0, done.stderr
    for title in ("every candidate gets wrong", "candidates disagree", "Labels that look wrong"):
        assert title in done.stdout
    assert "60 rows were tested" in done.stdout
    assert "tfidf-logreg (1 seed); not counted: always-negative" in done.stdout
    assert "\\x1b[31mc" in done.stdout
    for never in ("\x1b", "\u202e", "fool", "thank"):
        assert never not in done.stdout + done.stderr


def test_every_format_writes_one_table_or_all(cli: Cli, hostile: Path) -> None:
    assert cli("run", "--data", str(hostile), "--folds", "3", *CHEAP).returncode == 0
    for name in ("github", "latex", "html", "plain"):
        assert "label" in cli("errors", "--format", name).stdout
    rows = json.loads(cli("errors", "--format", "json", "--table", "missed").stdout)["rows"]
    assert rows[0].keys() == {"id", "missed", "wrongly predicted", "loss"}
    text = cli("errors", "--format", "csv", "--table", "labels", "--limit", "1").stdout
    assert len(list(csv.DictReader(io.StringIO(text)))) == 1
    done = cli("errors", "--format", "csv")
    assert done.returncode == 2
    assert "--table" in error_of(done)


def test_comments_are_shown_escaped_and_short(cli: Cli, hostile: Path) -> None:
    assert cli("run", "--data", str(hostile), "--folds", "3", *CHEAP).returncode == 0
    words = ("errors", "--table", "missed", "--format", "json", "--show-text")
    done = cli(*words, "--data", str(hostile))
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    by_id = dict(pd.read_csv(hostile)[["id", "text"]].to_numpy().tolist())
    plain = [row for row in rows if row["id"].startswith("c")]
    assert plain
    for row in plain:
        assert by_id[row["id"]].startswith(row["text"][:9])  # the row's own comment
    assert all(len(row["text"]) <= 120 for row in rows)
    assert any("\\x1b[31mfool\\u202e|" in row["text"] for row in rows)
    assert "\x1b" not in cli(*words[:3], "--show-text", "--data", str(hostile)).stdout


def test_the_text_of_another_table_is_refused(cli: Cli, table: Path) -> None:
    assert cli("run", "--data", str(table), *CHEAP).returncode == 0
    other = table.with_name("other.csv")
    other.write_text(table.read_text(encoding="utf-8").replace("w7", "w8"), encoding="utf-8")
    done = cli("errors", "--show-text", "--data", str(other))
    assert done.returncode == 3
    assert "'other.csv' is not the table of these results, which is 'comments.csv'" in error_of(
        done
    )
    assert "--data FILE" in error_of(cli("errors", "--show-text"))
    assert "--show-text" in error_of(cli("errors", "--data", str(table)))


def test_the_parts_of_an_official_split_are_one_table(cli: Cli, table: Path) -> None:
    frame = pd.read_csv(table)
    frame[:40].to_csv(table.with_name("train.csv"), index=False)
    frame[40:].to_csv(table.with_name("test.csv"), index=False)
    files = ("--data", "train.csv", "--test", "test.csv")
    assert cli("run", *files, *CHEAP).returncode == 0
    done = cli("errors", "--show-text", *files)
    assert done.returncode == 0, done.stderr
    assert "20 rows were tested" in done.stdout


def test_the_sample_needs_no_data_and_backbones_come_before_baselines(
    cli: Cli, checkpoint: Path
) -> None:
    words = ("--weights", f"bert={checkpoint}", "--backbones", "bert", "--epochs", "1",
             "--max-length", "16", "--seeds", "2", "--baselines", "always-negative")  # fmt: skip
    assert cli("run", *words, "--quiet").returncode == 0
    done = cli("errors", "--show-text", "--table", "missed")
    assert done.returncode == 0, done.stderr
    assert "bert (2 seeds); not counted: always-negative. Synthetic sample" in done.stdout
    assert "text" in done.stdout


def test_seeds_that_lack_a_fold_do_not_count(cli: Cli, table: Path, tmp_path: Path) -> None:
    run = ("run", "--data", str(table), "--folds", "3", *CHEAP, "--baselines", "tfidf-logreg")
    assert cli(*run).returncode == 0
    next(tmp_path.glob("results/*/cells/*fold1*")).unlink()
    done = cli("errors")
    assert done.returncode == 6
    assert "run the same command again" in error_of(done)
    assert cli(*run).returncode == 0
    assert cli("errors").returncode == 0


def test_without_results_it_says_how_to_start(cli: Cli) -> None:
    done = cli("errors")
    assert done.returncode == 6
    assert "toxbench run" in error_of(done)


def test_nothing_that_trains_is_imported(cli: Cli, table: Path, tmp_path: Path) -> None:
    assert cli("run", "--data", str(table), *CHEAP).returncode == 0
    code = (
        "import sys\n"
        "from toxbench.cli.main import main\n"
        "try:\n    main(['errors'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "assert not {'torch', 'transformers', 'optuna'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
