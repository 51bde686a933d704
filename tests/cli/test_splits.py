"""Splits through the command line, a config file and the Python API."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import toxbench
from toxbench.store.cells import find_store

Command = Callable[..., tuple[int, str]]
CHEAP = ("--backbones", "none", "--baselines", "always-negative")


@pytest.fixture
def parts(table: Path) -> Path:
    """Train, validation and test rows in three files, and in one file with a column."""
    frame = pd.read_csv(table)
    for name, rows in (("train", frame[:40]), ("valid", frame[40:46]), ("test", frame[46:])):
        rows.to_csv(table.parent / f"{name}.csv", index=False)
    frame["part"] = ["train"] * 40 + ["dev"] * 6 + ["test"] * 14
    frame.to_csv(table.parent / "column.csv", index=False)
    return table.parent


FILES = ("--data", "train.csv", "--valid", "valid.csv", "--test", "test.csv")
COLUMN = ("--data", "column.csv", "--split-column", "part")


def folds(results: Path) -> object:
    return json.loads((find_store(results).folder / "protocol.json").read_bytes())["folds"]


@pytest.mark.usefixtures("parts")
def test_official_split_is_equal_for_every_interface(command: Command, tmp_path: Path) -> None:
    for name, words in (("files", FILES), ("column", COLUMN)):
        assert command("run", *words, *CHEAP, "--results", name)[0] == 0
    config = 'data = "train.csv"\n[split]\nvalid = "valid.csv"\ntest = "test.csv"\n'
    (tmp_path / "c.toml").write_text(config, encoding="utf-8")
    assert command("run", "--config", "c.toml", *CHEAP, "--results", "config")[0] == 0
    toxbench.run(
        "column.csv", backbones=[], baselines=["always-negative"], results="api",
        split={"split_column": "part"},
    )  # fmt: skip
    splits = [folds(tmp_path / name) for name in ("files", "column", "config", "api")]
    assert splits[0] == [
        {
            "train": list(range(40)),
            "validation": list(range(40, 46)),
            "test": list(range(46, 60)),
        }
    ]
    assert all(split == splits[0] for split in splits)


@pytest.mark.usefixtures("parts")
def test_plan_names_the_kind_of_split(command: Command) -> None:
    for words, message in (
        (("--data", "comments.csv", "--split", "stratified"), "Split     stratified: "),
        (FILES, "Split     official, by valid.csv and test.csv: 40 train, 6 validation, 14 test"),
        (COLUMN, "Split     official, by column 'part': 40 train"),
    ):
        code, err = command("run", *words, *CHEAP, "--dry-run")
        assert code == 0, err
        assert message in err
        assert "not used" not in err


@pytest.mark.parametrize("word", ["train", "test"])
def test_labels_without_a_positive_are_one_line(command: Command, parts: Path, word: str) -> None:
    frame = pd.read_csv(parts / "column.csv")
    frame.loc[frame["part"] == word, "IsLong"] = 0
    frame.to_csv(parts / "column.csv", index=False)
    _, err = command("run", *COLUMN, *CHEAP, "--dry-run")
    (line,) = [line for line in err.splitlines() if f"no positive {word} row" in line]
    assert line.endswith(": IsLong")


def test_run_writes_the_split_file(command: Command, table: Path, tmp_path: Path) -> None:
    words = ("run", "--data", str(table), *CHEAP, "--split-file", "s.json")
    code, err = command(*words, "--folds", "3", "--dry-run")
    assert (code, (tmp_path / "s.json").exists()) == (0, False)
    assert "Split     random, for the new split file s.json: " in err
    assert "in each of 3 folds" in err
    assert command(*words, "--folds", "3", "--results", "one")[0] == 0
    code, err = command(*words, "--results", "two")
    assert code == 0
    assert "Split     random, read from s.json: " in err
    assert folds(tmp_path / "one") == folds(tmp_path / "two")
    code, err = command(*words, "--folds", "4")
    assert code == 2
    assert "was drawn with folds = 3, not 4" in err
    (tmp_path / "s.json").write_text("{", encoding="utf-8")
    code, err = command(*words)
    assert code == 3
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ((*FILES, "--folds", "2"), "leave out --folds"),
        ((*FILES, "--test-size", "0.3"), "leave out --test-size"),
        ((*FILES, "--validation-size", "0.3"), "leave out --validation-size"),
        ((*FILES, "--split-file", "s.json"), "leave out --split-file"),
        ((*COLUMN, "--folds", "2", "--test-size", "0.1"), "leave out --folds, --test-size"),
        ((*FILES, "--split-column", "part"), "leave one out"),
        (("--test", "test.csv"), "--test needs --data"),
        (("--split-column", "part"), "--split-column needs --data"),
        (("--data", "train.csv", "--valid", "valid.csv"), "--valid needs --test"),
        (("--data", "train.csv", "--test", "./train.csv"), "must be different files"),
    ],
)
@pytest.mark.usefixtures("parts")
def test_options_that_contradict_an_official_split_are_refused(
    command: Command, words: tuple[str, ...], hint: str
) -> None:
    code, err = command("run", *words, *CHEAP)
    assert code == 2
    assert hint in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("parts")
def test_the_notebook_preset_takes_an_official_split(command: Command) -> None:
    code, err = command("run", *FILES, *CHEAP, "--preset", "notebook", "--dry-run")
    assert code == 0, err
    assert "40 train, 6 validation, 14 test" in err


def test_known_groups_are_named_and_compared(command: Command, table: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(table)
    frame["VideoId"] = [f"video {row % 6}" for row in range(len(frame))]
    frame.to_csv(tmp_path / "videos.csv", index=False)
    words = ("--data", "videos.csv", *CHEAP, "--folds", "3", "--results", "r")
    code, plan = command("run", *words)
    assert code == 0
    assert "60 of 60 test rows have a VideoId that train or validation rows have" in plan
    hint = "toxbench run --data videos.csv --backbones none --baselines always-negative"
    assert f"for unknown ones: {hint} --folds 3 --split grouped" in plan
    assert command("leaderboard", "--results", "r")[0] == 0
    folder = find_store(Path("r")).folder
    assert "60 test rows (60 with a known VideoId) in 3 folds" in (
        folder / "leaderboard.md"
    ).read_text(encoding="utf-8")
    code, plan = command("run", *words, "--split", "grouped")
    assert "have a VideoId that" not in plan
    assert command("report", "--results", "r")[0] == 0
    page = (find_store(Path("r")).folder / "report.html").read_text(encoding="utf-8")
    assert "60 test rows, 60 with a known VideoId" in page
