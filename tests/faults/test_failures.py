"""Failed cells are counted on the leaderboard until they have a score; constants are flagged."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import CommandResult, Forks
from measured import Table
from support import read_json, write_table

from toxbench.ranking.build import build_leaderboard, load_leaderboard
from toxbench.ranking.rows import Leaderboard
from toxbench.records import CellKey, FailureRecord
from toxbench.report.leaderboard import leaderboard_table
from toxbench.store.cells import CellStore
from toxbench.store.files import write_rows
from toxbench.util.text import redact

pytestmark = pytest.mark.slow

PLUGIN = """
import os
from toxbench import Backbone, hookimpl

class Moody(Backbone):
    def build(self, weights, label_count):
        import torch
        if self.name == "leaky":
            raise RuntimeError("no " + os.environ["HF_TOKEN"] + " in " + os.path.expanduser("~/x"))
        module = super().build(weights, label_count)
        if str(torch.initial_seed()) in os.environ["DIVERGES"]:
            with torch.no_grad():
                module.classifier.bias.fill_(float("nan"))
        return module

@hookimpl
def toxbench_backbones():
    return [Moody(name=name, checkpoint="a/b") for name in ("moody", "leaky")]
"""
Moody = Callable[..., CommandResult]


@pytest.fixture
def moody(forks: Forks, checkpoint: Path, table: Path, tmp_path: Path) -> Moody:
    """Run a backbone whose loss is NaN for some seeds."""
    site = tmp_path / "site"
    info = site / "moody-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "moody_plugin.py").write_text(PLUGIN, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moody\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[toxbench]\nmoody = moody_plugin\n")

    def run(seeds: int, diverges: str, name: str = "moody", **environment: str) -> CommandResult:
        return forks.run(
            "run", "--data", str(table), "--backbones", name, "--weights", f"{name}={checkpoint}",
            "--results", str(tmp_path / "results"), "--epochs", "1", "--max-length", "16",
            "--baselines", "always-negative", "--seeds", str(seeds), "--head-init", "random",
            environment={"PYTHONPATH": str(site), "DIVERGES": diverges, **environment},
        )  # fmt: skip

    return run


def folder_in(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "results").iterdir()
    return folder


def rows_of(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
    return {row["candidate"]: row for row in content["rows"]}


@pytest.mark.faults(29)
def test_diverged_cell_is_counted_until_it_succeeds(
    moody: Moody, forks: Forks, tmp_path: Path
) -> None:
    result = moody(3, diverges="1")
    assert result.code == 5
    assert "cell moody seed 1 failed: DivergedError: the training loss of epoch 1 is nan" in (
        result.err
    )
    note = "1 of 3 cells of moody failed (diverged) and has no score."
    folder = folder_in(tmp_path)
    (path,) = (folder / "failures").iterdir()
    assert read_json(path).items() >= {"kind": "diverged", "schema_version": 1}.items()
    assert note in result.out
    assert note in (folder / "leaderboard.json").read_text(encoding="utf-8")
    markdown = (folder / "leaderboard.md").read_text(encoding="utf-8")
    assert "of moody failed (diverged)" in markdown
    assert "| failed" in markdown
    with (folder / "leaderboard.csv").open(encoding="utf-8") as file:
        counts = {row["candidate"]: (row["failed"], row["seeds"]) for row in csv.DictReader(file)}
    assert counts == {"moody": ("1", "2"), "always-negative": ("0", "1")}
    printed = forks.run("leaderboard", str(folder))
    assert (printed.code, note in printed.out) == (0, True)
    result = moody(3, diverges="none")
    assert result.code == 0
    assert list((folder / "failures").iterdir()) == []
    assert (rows_of(folder)["moody"]["failed"], rows_of(folder)["moody"]["seeds"]) == (0, 3)
    assert "failed" not in result.out
    assert "failed" not in (folder / "leaderboard.md").read_text(encoding="utf-8")


@pytest.mark.faults(29)
def test_candidate_without_score_has_a_reason(moody: Moody, tmp_path: Path) -> None:
    result = moody(2, diverges="01")
    assert result.code == 5
    assert "moody has no score: all of its 2 cells failed (diverged)." in result.out
    assert set(rows_of(folder_in(tmp_path))) == {"always-negative"}


@pytest.mark.faults(44)
def test_stored_reason_has_no_token_or_home(moody: Moody, tmp_path: Path) -> None:
    home, token = "/home/alice", "hf_abcdefghijklmnop"
    result = moody(1, diverges="", name="leaky", HF_TOKEN=token, HOME=home)
    assert result.code == 5
    assert "leaky has no score: its only cell failed (RuntimeError)." in result.out
    stored = b"".join(p.read_bytes() for p in folder_in(tmp_path).rglob("*") if p.is_file())
    assert b"no *** in ~/x" in stored
    assert token.encode() not in stored
    assert home.encode() not in stored


@pytest.mark.parametrize("name", ["HF_TOKEN", "GITHUB_TOKEN", "OPENAI_API_KEY", "PGPASSWORD"])
def test_secret_variables_are_redacted(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "s3cr3t-value")
    monkeypatch.setenv("USER", "alice")
    assert redact("at s3cr3t-value, /data/alice/x and malice/alice") == (
        "at ***, /data/USER/x and malice/USER"
    )
    assert redact("half \udc80") == "half ?"


# On the leaderboard


def failure(seed: int, fold: int = 0, kind: str = "diverged", **key: Any) -> FailureRecord:
    fields = {"candidate": "bert", "digest": "0" * 12, "seed": seed, "fold": fold} | key
    return FailureRecord(key=CellKey(**fields), kind=kind, reason="", failed_at="")


def board(table: Table, cells: list[Any], *failures: FailureRecord) -> Leaderboard:
    return build_leaderboard(table.protocol, table.rows, cells, failures=failures)


@pytest.mark.faults(29)
def test_seed_with_failed_fold_is_not_counted() -> None:
    table = Table(folds=2)
    cells = [*table.cells(seeds=(0, 1)), table.cell(seed=2, fold=0)]
    leaderboard = board(table, cells, failure(2, 1), failure(0, 0))  # the latter has a result since
    (row,) = leaderboard.rows
    assert (row.seeds, row.cells, row.failed) == (2, 4, 1)
    (counts,) = leaderboard.failures
    assert (counts.failed, counts.cells) == (1, 6)
    assert (
        "1 of 6 cells of bert failed (diverged) and has no score; a seed counts only if every fold "
        "has a score."
    ) in leaderboard_table(leaderboard).notes
    assert leaderboard_table(leaderboard).records[0]["failed"] == 1


def test_failure_kinds_are_named_once() -> None:
    table = Table()
    variants = [failure(n, digest="1" * 12, kind=k) for n, k in enumerate(("OSError", "diverged"))]
    leaderboard = board(table, table.cells(), failure(1), failure(2, kind="WorkerDied"), *variants)
    notes = leaderboard_table(leaderboard).notes
    assert "2 of 3 cells of bert failed (WorkerDied, diverged) and have no score." in notes
    assert "bert #111111 has no score: all of its 2 cells failed (OSError, diverged)." in notes


def test_cached_leaderboard_follows_failures(tmp_path: Path) -> None:
    table, store = Table(), CellStore(tmp_path)
    store.protocol_path.write_text(table.protocol.model_dump_json(), encoding="utf-8")
    write_rows(tmp_path, table.comments)
    store.write(*table.cell())
    before = load_leaderboard(store)
    store.failures.write(failure(1).key, "diverged", "why")
    assert load_leaderboard(store).rows[0].failed == 1
    store.failures.remove(failure(1).key)
    store.failures.remove(failure(1).key)
    assert load_leaderboard(store) == before


# Constant predictions


@pytest.mark.faults(30)
def test_constant_predictions_are_flagged(forks: Forks, tmp_path: Path) -> None:
    result = forks.run(
        "run", "--data", str(write_table(tmp_path / "comments.csv")), "--backbones", "none",
        "--results", str(tmp_path / "results"),
    )  # fmt: skip
    assert result.code == 0
    assert "always-negative (constant!)" in result.out
    assert "(constant!): the candidate predicts the same labels for every test row." in result.out
    rows = rows_of(folder_in(tmp_path))
    assert {name: row["constant"] for name, row in rows.items()} == {
        "always-negative": True,
        "tfidf-logreg": False,
    }
    store = CellStore(folder_in(tmp_path))
    assert {r.key.candidate: r.has_constant_predictions for r in store.records()}["always-negative"]
