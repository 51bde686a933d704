"""The real command in separate processes: output, streams and exit codes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock
from support import TIMEOUT

Cli = Callable[..., subprocess.CompletedProcess[str]]
FORMATS = ("github", "markdown", "latex", "csv", "json", "html", "plain")


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one error line; nothing else may look like an error or a traceback."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("toxbench: error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


@pytest.mark.parametrize(
    "words",
    [["--help"], ["backbones"], ["run", "--help"], ["data", "-h"], ["metrics"],
     ["leaderboard", "--help"], ["errors", "--help"]],
)  # fmt: skip
def test_light_commands_do_not_import_heavy_packages(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from toxbench.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'torch', 'transformers', 'pandas', 'sklearn', 'scipy', 'optuna'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, check=False,
                          capture_output=True, text=True, timeout=TIMEOUT)  # fmt: skip
    assert result.returncode == 0, result.stderr


def test_every_setting_is_an_option_with_help(cli: Cli) -> None:
    text = cli("run", "--help").stdout
    for option in (
        "--learning-rate", "--head-learning-rate", "--loss", "--max-length", "--validation-size",
        "--precision", "--weights", "--dry-run",
    ):  # fmt: skip
        assert option in text


def test_help_shows_or_names_the_metrics(cli: Cli) -> None:
    table = cli("metrics").stdout
    assert "label_ranking_floor" in table
    assert max(map(len, table.splitlines())) <= 100
    assert cli("leaderboard", "--help").stdout.endswith(f"\n\n{table}")
    assert "toxbench metrics" in cli("run", "--help").stdout


def test_the_metrics_are_printed_in_every_format(cli: Cli) -> None:
    for name in FORMATS:
        assert "calibration" in cli("metrics", "--format", name).stdout
    rows = json.loads(cli("metrics", "--format", "json").stdout)["rows"]
    assert rows[0].keys() == {"metric", "better", "low", "high", "definition"}
    assert "did you mean 'github'" in error_of(cli("metrics", "--format", "githb"))


def test_data_show_prints_numbers_and_no_comment(cli: Cli, table: Path) -> None:
    result = cli("data", "show", str(table))
    assert result.returncode == 0
    assert "60 rows, 3 labels" in result.stdout
    assert "no positive row, nothing to learn or score: IsNever" in result.stdout
    assert "fool" not in result.stdout + result.stderr


def test_run_accepts_the_written_sample(cli: Cli, tmp_path: Path) -> None:
    assert cli("data", "sample", "sample.csv").returncode == 0
    frame = pd.read_csv(tmp_path / "sample.csv", keep_default_na=False)
    assert list(frame.columns[:3]) == ["CommentId", "VideoId", "Text"]
    result = cli("run", "--data", "sample.csv", "--backbones", "bert", "--weights", "stand-in",
               "--dry-run")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Cells     4 to compute" in result.stderr
    assert "stand-in: all-MiniLM-L6-v2" in result.stderr
    assert not (tmp_path / "results").exists()


def test_data_fetch_without_network_exits_with_75(cli: Cli) -> None:
    result = cli("data", "fetch", KAGGLE_API_ENVIRONMENT="LOCALHOST")
    assert result.returncode == 75
    assert "--data FILE" in error_of(result)


def test_leaderboard_prints_a_run_in_every_format(cli: Cli, table: Path, tmp_path: Path) -> None:
    run = ("run", "--data", str(table), "--backbones", "none", "--json")
    result = cli(*run)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    rows = json.loads(result.stdout)["rows"]
    assert {row["candidate"] for row in rows} == {"always-negative", "tfidf-logreg"}
    for name in FORMATS:
        result = cli("leaderboard", "--format", name)
        assert result.returncode == 0, result.stderr
        assert "tfidf-logreg" in result.stdout
    labels = cli("leaderboard", "--per-label").stdout
    assert "F1 of each label" in labels
    assert "Average precision of each label" in labels
    rows = json.loads(cli("leaderboard", "--per-label", "--format", "json").stdout)["rows"]
    assert {"prevalence", "tfidf-logreg F1", "tfidf-logreg average precision"} < rows[0].keys()
    assert "tfidf" in cli("leaderboard", str(next((tmp_path / "results").iterdir()))).stdout
    assert "did you mean 'github'" in error_of(cli("leaderboard", "--format", "githb"))


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["run", "--backbones", "distilbrt"], 2, "did you mean 'distilbert'"),
        (["run", "--learning-rat", "1"], 2, "--learning-rate"),
        (["run", "--learning-rate", "0"], 2, "learning_rate"),
        (["run", "--learning-rate", "nan"], 2, "learning_rate"),
        (["run", "--preset", "notebok"], 2, "did you mean 'notebook'"),
        (["run", "--weights", "standin"], 2, "did you mean 'stand-in'"),
        (["run", "--config", "nowhere.toml"], 2, "nowhere.toml"),
        (["run", "--data", "nowhere.csv"], 3, "nowhere.csv"),
        (["data", "show", "nowhere.csv"], 3, "no such file"),
        (["leaderboard"], 6, "toxbench run"),
        (["fly"], 2, "fly"),
    ],
)
def test_errors_are_one_line_with_code(cli: Cli, words: list[str], code: int, hint: str) -> None:
    result = cli(*words)
    assert result.returncode == code
    assert hint in error_of(result)
    assert result.stdout == ""


def test_each_table_problem_is_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("text,a\nx,1\ny,yes\nz,\nv,0\n", encoding="utf-8")
    result = cli("run", "--data", "bad.csv")
    assert result.returncode == 3
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert "row 2" in lines[0]
    assert "row 3" in lines[1]


def test_escape_sequences_in_file_names_are_escaped(cli: Cli) -> None:
    result = cli("data", "show", "\x1b[31mred.csv")
    assert result.returncode == 3
    assert "\x1b" not in result.stderr


def test_debug_shows_a_traceback(cli: Cli) -> None:
    assert "Traceback" in cli("data", "show", "nowhere.csv", "--debug").stderr


def test_folder_locked_by_another_run_exits_with_75(cli: Cli, table: Path, tmp_path: Path) -> None:
    run = ("run", "--data", str(table), "--backbones", "none")
    assert cli(*run).returncode == 0
    with FileLock(next((tmp_path / "results").iterdir()) / ".lock"):
        result = cli(*run)
        assert cli("leaderboard").returncode == 0
    assert result.returncode == 75
    assert "another run" in error_of(result)


def test_unwritable_results_exit_with_6(cli: Cli, table: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file", encoding="utf-8")
    result = cli("run", "--data", str(table), "--backbones", "none")
    assert result.returncode == 6
    assert "results" in error_of(result)
