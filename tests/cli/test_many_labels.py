"""Tables with very many labels: commands print a summary, files keep every label."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from toxbench.data.audit import audit
from toxbench.data.splits import draw_folds
from toxbench.data.table import read_comments

pytestmark = [pytest.mark.slow, pytest.mark.faults(69)]

Cli = Callable[..., CompletedProcess[str]]
BASELINE = ("--backbones", "none", "--baselines", "always-negative")
ROWS = 40


def write_wide(path: Path, labels: int, repeats: int = 1) -> Path:
    """Write a table whose label number i is positive in up to 35 of 40 rows; label 0 in none."""
    supports = [i // repeats % 36 for i in range(labels)]
    lines = [",".join(["text", *(f"label{i:04d}" for i in range(labels))])]
    for row in range(ROWS):
        lines.append(",".join([f"text {row}", *(str(int(row < count)) for count in supports)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_output_before_training_is_bounded(cli: Cli, tmp_path: Path) -> None:
    table = str(write_wide(tmp_path / "wide.csv", 1000))
    for words in (
        ("data", "show", table),
        ("data", "check", table),
        ("run", table, "--dry-run", *BASELINE),
    ):
        result = cli(*words)
        assert result.returncode == 0, result.stderr
        assert 100 < len(result.stdout + result.stderr) < 5000, words
    assert "20 of 1000 labels: the most and the least frequent" in cli("data", "show", table).stdout


def test_tables_of_results_are_bounded(cli: Cli, tmp_path: Path) -> None:
    table = str(write_wide(tmp_path / "wide.csv", 60))
    assert cli("run", table, *BASELINE).returncode == 0
    per_label = cli("leaderboard", "--per-label").stdout
    assert per_label.count("label0") == 2 * 20
    assert "20 of 60 labels" in per_label
    rows = json.loads(cli("leaderboard", "--per-label", "--json").stdout)["rows"]
    assert [row["label"] for row in rows] == [f"label{i:04d}" for i in range(60)]
    shown = cli("show", "always-negative", "--table", "labels")
    assert shown.stdout.count("label0") == 20
    assert cli("report").returncode == 0
    (report,) = (tmp_path / "results").glob("*/report.html")
    page = report.read_text(encoding="utf-8")
    assert "20 of 60 labels" in page
    assert {text.count('data-name="label"') for text in page.split("<table")} == {0, 20}
    assert len(re.findall(r">label\d{4} \(", page)) == 20  # in the heat map


def test_implications_are_counted_and_bounded(tmp_path: Path) -> None:
    comments = read_comments(write_wide(tmp_path / "wide.csv", 72, repeats=2))
    result = audit(comments, draw_folds(comments))
    assert len(result.implications) == 1000 < result.implication_count
    assert {implication.share for implication in result.implications} == {1.0}
