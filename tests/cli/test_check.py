"""``toxbench data check`` in a separate process: the report on a table, without its comments."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]
PROSE = "aardvarks are the subject of this text"


def write(path: Path, ids: list[str], rows: int = 40) -> Path:
    """Write a table in which every text occurs twice, with an id for each row and two groups."""
    frame = pd.DataFrame(
        {
            "id": ids,
            "VideoId": [f"v{row % 2}" for row in range(rows)],
            "text": [f"{PROSE} {row // 2}" for row in range(rows)],
            "IsRude": [row % 3 % 2 for row in range(rows)],
            "IsNever": 0,
        }
    )
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    return write(tmp_path / "leaky.csv", [f"c{row}" for row in range(40)])


def test_leaks_are_printed_without_comments(cli: Cli, leaky: Path) -> None:
    result = cli("data", "check", str(leaky))
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "leaky.csv: 40 rows, 8 of them test rows; split: random"
    assert "Shared groups: 8 of 8 test rows, from 2 groups" in lines
    assert "Test rows with any of these leaks: 8 of 8" in lines
    assert "IsNever has no positive row" in result.stdout
    assert "Cut comments: not counted; --backbones bert,distilbert counts them" in lines
    assert "aardvark" not in result.stdout


def test_split_options_are_used(cli: Cli, leaky: Path) -> None:
    result = cli("data", "check", str(leaky), "--folds", "4", "--validation-size", "0")
    assert "40 of them test rows in 4 folds; split: random" in result.stdout
    result = cli("data", "check", str(leaky), "--split", "grouped", "--group-column", "id",
               "--labels", "IsRude")  # fmt: skip
    assert "split: grouped" in result.stdout
    assert "Exact copies: 0 of" in result.stdout
    assert "Constant labels: 0" in result.stdout


def test_official_split_is_used(cli: Cli, leaky: Path) -> None:
    frame = pd.read_csv(leaky)
    frame["part"] = ["test" if row < 4 else "train" for row in range(len(frame))]
    frame.to_csv(leaky, index=False)
    result = cli("data", "check", str(leaky), "--split-column", "part")
    assert "40 rows, 4 of them test rows; split: official, by" in result.stdout
    assert "Exact copies: 0 of 4 test rows" in result.stdout


@pytest.mark.parametrize("column", ["text", "copy"])
def test_ids_equal_to_comments_are_hidden(cli: Cli, tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "t.csv", [f"c{row}" for row in range(40)])
    frame = pd.read_csv(path)
    frame["text"] = [f"lol {row}" for row in range(40)]
    frame.loc[20:, "text"] = [f"LOL {row}" for row in range(20)]
    frame["copy"] = frame["text"]
    frame.to_csv(path, index=False)
    result = cli("data", "check", str(path), "--id-column", column)
    assert result.returncode == 0
    assert "row " in result.stdout
    assert "lol" not in result.stdout.casefold()


def test_hostile_ids_are_escaped(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [f"\x1b[3{row}m\u202e" for row in range(40)])
    result = cli("data", "check", str(path))
    assert result.returncode == 0
    assert "\\x1b[3" in result.stdout
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stdout


def test_truncation_is_counted_for_each_backbone(cli: Cli, table: Path, checkpoint: Path) -> None:
    result = cli("data", "check", str(table), "--backbones", "bert,distilbert",
               "--weights", "hub", "--weights", f"bert={checkpoint}",
               HF_HUB_OFFLINE="1", HF_HOME=str(table.parent / "empty"))  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert "bert cuts 0.0% of 60 comments at 128 tokens (folder tiny-bert@" in result.stdout
    assert "distilbert: unknown, " in result.stdout


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["--backbones", "brt"], 2, "did you mean 'bert'"),
        (["--weights", "stand-in"], 2, "--backbones"),
        (["--test-size", "2"], 2, "test_size"),
        (["--labels", "IsRud"], 3, "did you mean 'IsRude'"),
        (["--split", "grouped"], 3, "too few to split"),
    ],
)
def test_errors_are_one_line(cli: Cli, leaky: Path, words: list[str], code: int, hint: str) -> None:
    result = cli("data", "check", str(leaky), *words)
    assert result.returncode == code
    assert hint in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_leaderboard_notes_a_leaky_split(cli: Cli, leaky: Path, tmp_path: Path) -> None:
    result = cli("run", "--data", str(leaky), "--backbones", "none", "--quiet")
    assert result.returncode == 0, result.stderr
    assert "The split leaks: of 8 test rows, 8 have the same VideoId" in result.stdout
    (stored,) = (tmp_path / "results").glob("*/protocol.json")
    audit = json.loads(stored.read_text(encoding="utf-8"))["audit"]
    assert (audit["test_rows"], audit["leaked_rows"]) == (8, 8)
    assert "aardvark" not in stored.read_text(encoding="utf-8")
