"""``compare``, ``rescore``, ``slices`` and ``leaderboard`` of several folders, as commands."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from forks import Forks
from sklearn.metrics import precision_score, recall_score
from support import TIMEOUT, write_table

import toxbench
from toxbench.errors import SettingsError
from toxbench.evaluation.thresholds import recall_threshold
from toxbench.store.cells import CellStore

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]
WRONG_EVERY = 4  # rows from one wrong label to the next
NORTHERN = 50  # rows with this value of the column Site


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """A table with the results of baselines in three folds."""
    path = write_table(tmp_path_factory.mktemp("compared") / "comments.csv", rows=120)
    frame = pd.read_csv(path)
    frame.loc[frame.index % WRONG_EVERY == 0, "IsRude"] ^= 1
    frame["Site"] = ["north" if row < NORTHERN else "south" for row in frame.index]
    frame.to_csv(path, index=False)
    start(forks, path, "results", "--folds", "3")
    return path


def start(forks: Forks, table: Path, results: str, *words: str) -> None:
    command = ("run", "--data", table.name, "--quiet", "--backbones", "none", "--results", results)
    assert forks.run(*command, *words, cwd=table.parent).code == 0


@pytest.fixture
def results(table: Path) -> str:
    return str(table.parent / "results")


def rows_of(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert result.returncode == 0, result.stderr
    rows: list[dict[str, Any]] = json.loads(result.stdout)["rows"]
    return rows


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


def test_comparison_ends_with_a_sentence(cli: Cli, results: str) -> None:
    result = cli("compare", "tfidf-logreg", "always-negative", "--results", results)
    assert result.returncode == 0, result.stderr
    assert "tfidf-logreg is better than always-negative in micro-F1" in result.stdout
    assert "Holm-adjusted p" in result.stdout


def test_comparison_follows_the_order_of_names(cli: Cli, results: str) -> None:
    names = ["tfidf-logreg", "always-negative"]
    forward = rows_of(cli("compare", *names, "--results", results, "--format", "json"))
    backward = rows_of(cli("compare", *names[::-1], "--results", results, "--format", "json"))
    for row, mirror in zip(forward, backward, strict=True):
        assert (row["first"], row["second"]) == (mirror["second"], mirror["first"])
        assert row["difference"] == -mirror["difference"]
        assert (row["low"], row["high"]) == (-mirror["high"], -mirror["low"])
        assert row["p_holm"] == mirror["p_holm"]
        assert row["low"] <= row["difference"] <= row["high"]
    rows = rows_of(cli("compare", "--results", results, "--format", "json"))
    assert [(row["metric"], row["verdict"] == "") for row in rows] == [
        ("micro_f1", False), ("micro_f1_global", True), ("micro_average_precision", True),
        ("subset_accuracy", False), ("subset_accuracy_accuracy", True),
    ]  # fmt: skip


def test_wide_rope_makes_candidates_equivalent(cli: Cli, results: str) -> None:
    result = cli("compare", "--results", results, "--rope", "1")
    assert "are equivalent in subset accuracy, within ±1" in result.stdout
    result = cli("leaderboard", results, "--rope", "1", "--format", "json")
    assert [row["tier"] for row in rows_of(result)] == [1, 1]
    assert "better" not in set(toxbench.compare(results, rope=1)["verdict"])


def test_labels_have_intervals_or_a_mark(cli: Cli, results: str) -> None:
    result = cli("leaderboard", results, "--per-label", "--format", "json")
    labels = {row["label"]: row for row in rows_of(result)}
    rude, never = labels["IsRude"], labels["IsNever"]
    for score in ("F1", "average precision"):
        name = f"tfidf-logreg {score}"
        assert rude[f"{name} low"] < rude[name] < rude[f"{name} high"]
        assert (never[name], never[f"{name} low"]) == (None, None)
    assert "(too few)" in cli("leaderboard", results, "--per-label").stdout


def test_single_and_unknown_candidates_are_refused(cli: Cli, results: str) -> None:
    result = cli("compare", "tfidf-logreg", "--results", results)
    assert result.returncode == 2
    assert "two candidates" in error_of(result)
    result = cli("compare", "tfidf", "always-negative", "--results", results)
    assert result.returncode == 2
    assert "tfidf-logreg" in error_of(result)


def test_leaderboard_has_tiers(cli: Cli, results: str) -> None:
    result = cli("leaderboard", results)
    assert "Only tfidf-logreg is in tier 1 by micro-F1." in result.stdout
    board = rows_of(cli("leaderboard", results, "--format", "json"))
    assert [row["tier"] for row in board] == [1, 2]
    for row in board:
        assert row["micro_f1_low"] <= row["micro_f1"] <= row["micro_f1_high"]


def test_rescoring_writes_no_files(cli: Cli, table: Path, results: str) -> None:
    files = {p: p.read_bytes() for p in table.parent.rglob("*") if p.is_file()}
    board = rows_of(cli("leaderboard", results, "--format", "json"))
    same = rows_of(cli("rescore", results, "--format", "json"))
    assert same == board
    rescored = rows_of(cli("rescore", results, "--thresholds", "global", "--format", "json"))
    for row, stored in zip(rescored, board, strict=True):
        assert row["thresholds"] == "global"
        assert row["micro_f1"] == stored["micro_f1_global"]
        assert row["micro_f1_low"] == stored["micro_f1_global_low"]
    assert {p: p.read_bytes() for p in table.parent.rglob("*") if p.is_file()} == files


def test_excluded_label_has_no_effect(forks: Forks, cli: Cli, table: Path, results: str) -> None:
    frame = pd.read_csv(table)
    narrow = table.with_name("narrow.csv")
    frame.drop(columns=["IsLong"]).to_csv(narrow, index=False)
    start(forks, narrow, "narrow", "--folds", "3", "--baselines", "always-negative")
    expected = toxbench.load(table.parent / "narrow").leaderboard.set_index("candidate")
    rescored = toxbench.rescore(results, without=["IsLong"]).set_index("candidate")
    for name in ("subset_accuracy", "train_subset_accuracy", "subset_accuracy_low", "micro_f1_gap"):
        assert rescored.loc["always-negative", name] == expected.loc["always-negative", name]
    result = cli("rescore", results, "--without", "IsLong")
    assert "without IsLong; nothing is stored" in result.stdout


@pytest.mark.parametrize("metric", ["macro_f1", "brier", "subset-accuracy"])
def test_rows_are_ranked_by_the_metric(cli: Cli, results: str, metric: str) -> None:
    board = rows_of(cli("rescore", results, "--metric", metric, "--format", "json"))
    values = [row[metric.replace("-", "_")] for row in board]
    assert values == sorted(values, reverse=metric != "brier")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "micro_f2"], "micro_f1"),
        (["--without", "IsLnog"], "IsLong"),
        (["--without", "IsRude,IsLong,IsNever"], "no label is left"),
    ],
)
def test_invalid_rescoring_options_are_refused(
    cli: Cli, results: str, words: list[str], message: str
) -> None:
    result = cli("rescore", results, *words)
    assert result.returncode == 2
    assert message in error_of(result)


def test_thresholds_need_validation_rows(forks: Forks, cli: Cli, table: Path) -> None:
    start(forks, table, "none", "--validation-size", "0")
    result = cli("rescore", str(table.parent / "none"), "--thresholds", "per-label")
    assert result.returncode == 2
    assert "validation" in error_of(result)


def test_folders_of_one_protocol_make_one_leaderboard(cli: Cli, table: Path, results: str) -> None:
    (folder,) = Path(results).iterdir()
    parts = [table.parent / "machine-a", table.parent / "machine-b"]
    for part, pattern in zip(parts, ("tfidf*", "always*"), strict=True):
        shutil.copytree(folder, part)
        for cell in (part / "cells").glob(pattern):
            cell.unlink()
    together = rows_of(cli("leaderboard", *map(str, parts), "--format", "json"))
    assert together == rows_of(cli("leaderboard", results, "--format", "json"))


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--folds", "4"], "the split (3 folds, 120 test rows and 4 folds, 120 test rows)"),
     (["--labels", "IsRude"], "the labels (IsLong, IsNever)")],
)  # fmt: skip
def test_different_protocols_are_refused(
    forks: Forks, cli: Cli, table: Path, results: str, words: list[str], message: str
) -> None:
    second = f"second{words[1]}"
    start(forks, table, second, *words)
    result = cli("leaderboard", results, str(table.parent / second))
    assert result.returncode == 6
    assert message in error_of(result)


def test_the_api_gives_the_same_numbers(cli: Cli, results: str) -> None:
    rows = rows_of(cli("compare", "--results", results, "--format", "json"))
    assert toxbench.load(results).compare().to_dict("records") == rows
    with pytest.raises(SettingsError, match=r"0\.5, global, accuracy, per-label"):
        toxbench.rescore(results, thresholds="best")


def test_plan_has_the_detectable_difference(cli: Cli, tmp_path: Path) -> None:
    small, large = (write_table(tmp_path / f"{rows}.csv", rows) for rows in (60, 600))
    sizes = []
    for table in (small, large):
        words = ("run", "--data", str(table), "--weights", "stand-in", "--backbones", "bert")
        result = cli(*words, "--seeds", "5", "--dry-run")
        assert result.returncode == 0, result.stderr
        (line,) = (line for line in result.stderr.splitlines() if line.startswith("Power"))
        sizes.append(float(line.split()[1]))
    assert 0 < sizes[1] < sizes[0]


@pytest.mark.parametrize("words", [[], ["--per-label"], ["--format", "json"], ["--format", "csv"]])
def test_reprinted_leaderboard_is_identical(cli: Cli, results: str, words: list[str]) -> None:
    first = cli("leaderboard", results, *words)
    second = cli("leaderboard", results, *words)
    assert (first.returncode, first.stderr) == (0, "")
    assert (second.stdout, second.stderr) == (first.stdout, first.stderr)


@pytest.fixture
def copied(results: str, tmp_path: Path) -> Path:
    """A copy of the results."""
    shutil.copytree(results, tmp_path / "copied")
    (folder,) = (tmp_path / "copied").iterdir()
    return folder


def test_damaged_cell_exits_with_six(cli: Cli, copied: Path) -> None:
    cell = sorted((copied / "cells").iterdir())[0]
    data = bytearray(cell.read_bytes())
    data[-1] ^= 1
    cell.write_bytes(bytes(data))
    result = cli("leaderboard", "copied")
    assert (result.returncode, result.stdout) == (6, "")
    assert f"{cell.name} is damaged; start the same toxbench run again" in result.stderr


def test_leaderboard_imports_no_heavy_packages(copied: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from toxbench.cli.main import main\n"
        "try:\n    main(['leaderboard', 'copied'])\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'torch', 'transformers', 'pandas', 'sklearn', 'optuna', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False,
                          capture_output=True, text=True, timeout=TIMEOUT)  # fmt: skip
    assert result.returncode == 0, result.stderr


# Recall


def test_recall_is_scored_on_test_rows(cli: Cli, table: Path, results: str) -> None:
    words = ("--recall", "0.5", "--confidence", "0.6")
    (row,) = rows_of(cli("rescore", results, *words, "--label", "IsRude", "--format", "json"))
    (folder,) = (table.parent / "results").iterdir()
    store = CellStore(folder)
    targets, folds = store.rows().targets[:, 0], store.protocol().folds
    scores = []
    for record, tensors in store.cells():
        if record.key.candidate == "tfidf-logreg":
            fold = folds[record.key.fold]
            given = targets[list(fold.validation)], tensors["validation"][:, 0]
            predictions = tensors["test"][:, 0] > recall_threshold(*given, 0.5, 0.6)
            pair = targets[list(fold.test)], predictions
            scores.append((recall_score(*pair), precision_score(*pair)))
    assert row["candidate"] == "tfidf-logreg"  # always-negative is constant
    assert (row["recall"], row["precision"]) == pytest.approx(tuple(np.mean(scores, axis=0)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recall", "0.9"], "needs 29 positive validation rows in each fold, and there are"),
        (["--recall", "1"], "0<x<1"),
        (["--recall", "0.5", "--label", "IsRud"], "did you mean 'IsRude'"),
        (["--recall", "0.5", "--metric", "macro_f1"], "--recall needs none of"),
        (["--label", "IsRude"], "add --recall SHARE"),
    ],
)
def test_impossible_recall_is_refused(
    cli: Cli, results: str, words: list[str], message: str
) -> None:
    result = cli("rescore", results, *words)
    assert result.returncode == 2
    assert message in error_of(result)


@pytest.mark.parametrize("command", [("rescore", "--recall", "0.3"), ("slices",)])
def test_unfinished_results_name_the_command(
    cli: Cli, copied: Path, command: tuple[str, ...]
) -> None:
    shutil.rmtree(copied / "cells")
    result = cli(*command, "--results", "copied")
    assert result.returncode == 6
    assert "continue with the same toxbench run" in error_of(result)


# Slices


def slices_of(cli: Cli, table: Path, *words: str) -> list[dict[str, Any]]:
    results = str(table.parent / "results")
    return rows_of(cli("slices", results, "--data", str(table), *words, "--format", "json"))


def test_column_slices_are_compared_with_the_rest(cli: Cli, table: Path) -> None:
    south, north = slices_of(cli, table, "--by", "Site")
    assert (south["slice"], south["candidate"]) == ("'Site' = 'south'", "tfidf-logreg")
    assert (south["rows"], north["rows"]) == (120 - NORTHERN, NORTHERN)
    assert south["difference"] == pytest.approx(south["micro-F1"] - north["micro-F1"], abs=1e-9)
    assert south["difference"] == pytest.approx(-north["difference"], abs=1e-9)
    assert south["difference low"] < south["difference"] < south["difference high"]


def test_slices_of_terms_have_an_auc(cli: Cli, table: Path, tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("early: w1, w2, w3, w4, w5, w6\npolite: thank\n", encoding="utf-8")
    rows = slices_of(cli, table, "--terms", str(terms), "--table", "auc")
    (row,) = (r for r in rows if (r["label"], r["slice"]) == ("IsRude", "polite"))
    assert row["positive rows"] >= 10
    assert 0 < row["subgroup"] <= 1
    scores = slices_of(cli, table, "--terms", str(terms))
    assert [row["micro-F1"] is None for row in scores] == [True, False]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--by", "Site"], 2, "add --data FILE"),
        (["--data", "comments.csv", "--by", "text"], 3, "('text' has another role)"),
        (["--data", "comments.csv", "--by", "text", "--text-column", "text"], 2, "never printed"),
        (["--data", "comments.csv", "--by", "Sites"], 3, "did you mean 'Site'"),
        (["--data", "comments.csv", "--by", "IsRude"], 3, "named for two roles"),
        (["--data", "comments.csv", "--by", "Site", "--terms", "t.txt"], 2, "give one of them"),
        (["--labels", "IsRude"], 2, "describes a table"),
    ],
)
def test_invalid_slices_are_refused(
    cli: Cli, table: Path, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    shutil.copy(table, tmp_path / "comments.csv")
    result = cli("slices", str(table.parent / "results"), *words)
    assert result.returncode == code
    assert message in error_of(result)


def test_slices_print_no_comment(cli: Cli, table: Path) -> None:
    result = cli("slices", str(table.parent / "results"), "--data", str(table))
    assert "Slices without a test row: " in result.stdout
    assert "again and" not in result.stdout


def test_report_has_a_picture_of_slices(cli: Cli, table: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(table.parent / "results", results)
    words = ("report", str(results), "--data", str(table), "--by", "Site")
    assert "add --slices" in error_of(cli(*words))
    assert cli(*words, "--slices").returncode == 0
    (page,) = (path.read_text(encoding="utf-8") for path in results.rglob("report.html"))
    section = page[page.index('id="slices"') :].partition("</section>")[0]
    assert "candidates on 2 slices" in section
    for score in slices_of(cli, table, "--by", "Site"):
        assert f">{score['micro-F1']:.2f}</text>" in section
    assert "again and" not in page
