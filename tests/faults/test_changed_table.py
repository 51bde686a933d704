"""A table that changed after its run: stored results stay unchanged and separate."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toxbench
from toxbench.data.protocol import Protocol
from toxbench.data.table import read_comments
from toxbench.errors import DataError, StorageError

pytestmark = [pytest.mark.slow, pytest.mark.faults(14)]
Command = Callable[..., tuple[int, str]]
RUN = ("run", "--data", "comments.csv", "--backbones", "none", "--baselines", "always-negative")


def change(table: Path) -> None:
    """Change one label of one row."""
    text = table.read_text(encoding="utf-8")
    assert "w7,1,0,0" in text
    table.write_text(text.replace("w7,1,0,0", "w7,0,0,0"), encoding="utf-8")


def data_hash(table: Path) -> str:
    return Protocol(read_comments(table), ()).data_fingerprint[:12]


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file except locks, which are empty."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture
def changed(command: Command, table: Path) -> tuple[str, str]:
    """Run a table, then change it; return the hash of its data before and now."""
    before = data_hash(table)
    assert command(*RUN)[0] == 0
    change(table)
    return before, data_hash(table)


def test_new_run_warns_and_uses_a_new_folder(
    command: Command, table: Path, changed: tuple[str, str]
) -> None:
    (old,) = (table.parent / "results").iterdir()
    stored = digests(old)
    code, err = command(*RUN)
    assert code == 0
    (line,) = [line for line in err.splitlines() if "differs from the table" in line]
    assert line.startswith("toxbench: warning: ")
    (new,) = set((table.parent / "results").iterdir()) - {old}
    for words in (*changed, f"results/{old.name}", f"writes to its own folder, results/{new.name}"):
        assert words in line
    assert digests(old) == stored


def test_unchanged_table_has_no_warning(command: Command, table: Path) -> None:
    for words in ((), (), ("--folds", "3")):  # a different split of the same table
        code, err = command(*RUN, *words)
        assert (code, "differs from the table" in err) == (0, False)


def test_resuming_a_changed_table_is_refused(
    command: Command, table: Path, changed: tuple[str, str]
) -> None:
    stored = digests(table.parent / "results")
    code, err = command(*RUN, "--resume")
    assert code == 3
    assert "the table changed or is a different one" in err
    for words in (
        *(f"data {value} " for value in changed),
        "leave out --resume to start a new run",
    ):
        assert words in err
    assert digests(table.parent / "results") == stored


def test_resumed_run_reuses_stored_results(command: Command, table: Path) -> None:
    assert command(*RUN)[0] == 0
    cells = digests(next((table.parent / "results").glob("*/cells")))
    code, err = command(*RUN[:-1], "always-negative,tfidf-logreg", "--resume")
    assert code == 0
    assert "always-negative: 1 cell, 1 stored already" in err
    assert "tfidf-logreg: 1 cell, 0 stored already" in err
    after = digests(next((table.parent / "results").glob("*/cells")))
    assert {name: after[name] for name in cells} == cells
    assert len(after) == 2


def test_resuming_another_split_is_refused(command: Command, table: Path) -> None:
    assert command(*RUN)[0] == 0
    for words in (("--folds", "3"), ("--split-seed", "7"), ("--split", "stratified")):
        code, err = command(*RUN, "--resume", *words)
        assert code == 3
        assert "the table is the same, but the split differs: protocol " in err
    (folder,) = (table.parent / "results").iterdir()
    assert f"{folder.name[-12:]} in results/{folder.name}, " in err


def test_error_names_the_nearest_results(command: Command, table: Path) -> None:
    second = table.with_name("second.csv")
    second.write_bytes(table.read_bytes())
    change(second)
    before = data_hash(table)
    assert command(*RUN)[0] == 0
    assert command("run", "--data", "second.csv", *RUN[3:])[0] == 0
    with table.open("a", encoding="utf-8") as file:
        file.write("c60,you fool again,1,0,0\n")
    code, err = command(*RUN, "--resume")
    assert code == 3
    assert f"'comments.csv' with 60 rows, 3 labels and data {before} in " in err
    assert f"'comments.csv' with 61 rows, 3 labels and data {data_hash(table)} in this run" in err


def test_resume_without_results_is_refused(command: Command, table: Path) -> None:
    code, err = command(*RUN, "--resume")
    assert code == 6
    assert "results contains no results to resume; leave out --resume to start" in err
    assert not (table.parent / "results").exists()


def test_unreadable_results_do_not_stop_a_new_run(command: Command, table: Path) -> None:
    folder = table.parent / "results" / "odd-000000000000"
    folder.mkdir(parents=True)
    (folder / "protocol.json").write_bytes(b"{")
    assert command(*RUN, "--resume")[0] == 6
    assert command(*RUN)[0] == 0


def test_resume_works_in_config_and_python(command: Command, table: Path) -> None:
    settings: dict[str, Any] = {"backbones": [], "baselines": ["always-negative"]}
    with pytest.raises(StorageError, match="no results to resume"):
        toxbench.run(table, resume=True, **settings)
    toxbench.run(table, **settings)
    assert len(toxbench.run(table, resume=True, **settings).leaderboard) == 1
    change(table)
    table.with_name("c.toml").write_text("resume = true\n", encoding="utf-8")
    code, err = command(*RUN, "--config", "c.toml")
    assert (code, "the table changed" in err) == (3, True)


def test_resumed_search_of_changed_table_is_refused(
    command: Command, table: Path, checkpoint: Path
) -> None:
    words = ("--backbones", "bert", "--weights", f"bert={checkpoint}", "--baselines", "none")
    more = ("--trials", "1", "--epochs", "1", "--max-length", "8", "--seeds", "1", "--quiet",
            "--finalist-seeds", "1", "--finalist-folds", "1")  # fmt: skip
    tune = ("tune", "--data", "comments.csv", *words, *more, "--config", "resume.toml")
    table.with_name("resume.toml").write_text("resume = false\n", encoding="utf-8")
    assert command(*tune)[0] == 0
    table.with_name("resume.toml").write_text("resume = true\n", encoding="utf-8")
    assert command(*tune)[0] == 0
    before = data_hash(table)
    change(table)
    stored = digests(table.parent / "results")
    code, err = command(*tune)
    assert code == 3
    assert f"data {before} in " in err
    assert f"data {data_hash(table)} in this run" in err
    assert digests(table.parent / "results") == stored


# --- rescore


def test_changed_table_is_not_rescored(
    command: Command, table: Path, changed: tuple[str, str]
) -> None:
    stored = digests(table.parent / "results")
    code, err = command("rescore", "--data", "comments.csv")
    assert code == 3
    assert "this is not the table of these results, or it has changed since" in err
    for value in changed:
        assert f"data {value}" in err
    with pytest.raises(DataError, match="not the table of these results"):
        toxbench.rescore("results", data=table)
    assert digests(table.parent / "results") == stored


def test_unchanged_table_is_rescored(command: Command, table: Path) -> None:
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.with_name("train.csv").write_text("".join(lines[:41]), encoding="utf-8")
    test = "".join([lines[0], *lines[41:]]).replace(",1,0,0\n", ",ja,0,0\n")
    table.with_name("test.csv").write_text(test, encoding="utf-8")
    read = ("--data", "train.csv", "--test", "test.csv", "--true-values", "ja")
    assert command("run", *read, *RUN[3:])[0] == 0
    assert command("rescore", *read) == (0, "")
    assert command("rescore", "results", "--thresholds", "0.5") == (0, "")
    assert command("rescore", *read[:2])[0] == 3
    board = toxbench.rescore("results", data="train.csv", columns={"true_values": "ja"},
                             split={"test": "test.csv"})  # fmt: skip
    assert len(board) == 1


@pytest.mark.parametrize("words", [("--test", "t.csv"), ("--labels", "a"), ("--drop-empty",)])
@pytest.mark.parametrize("name", ["rescore", "errors"])
def test_options_of_a_table_need_a_table(
    command: Command, name: str, words: tuple[str, ...], table: Path
) -> None:
    assert command(*RUN)[0] == 0
    code, err = command(name, *words, *(["--show-text"] if name == "errors" else []))
    assert code == 2
    assert f"{words[0]} describes a table; add --data FILE" in err
