"""Averages of stored probabilities: values, members, order, and the commands that print them."""

import json
import random
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from measured import Table
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from toxbench.evaluation.definitions import GLOBAL
from toxbench.evaluation.thresholds import choose_thresholds
from toxbench.ranking.cells import Cell
from toxbench.ranking.ensembles import load_ensemble_leaderboard
from toxbench.ranking.rows import Leaderboard, Row
from toxbench.records import PARTS
from toxbench.report.leaderboard import leaderboard_records, leaderboard_tables
from toxbench.store.cells import CellStore
from toxbench.store.files import write_rows

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]
Floats = npt.NDArray[np.float64]
BACKBONES = ("bert", "distilbert")
SKILLS = {"bert": 0.2, "distilbert": 0.18, "tfidf-logreg": 0.15, "noise": 0.0}


def write_store(folder: Path, table: Table, cells: Iterable[Cell]) -> CellStore:
    (folder / "cells").mkdir(parents=True)
    store = CellStore(folder)
    store.protocol_path.write_text(table.protocol.model_dump_json(), encoding="utf-8")
    write_rows(folder, table.comments)
    for cell in cells:
        store.write(*cell)
    return store


def simulate_cells(table: Table, seeds: int = 3) -> list[Cell]:
    """Return the cells of two backbones with several seeds, and of three baselines."""
    cells: list[Cell] = []
    for name, skill in SKILLS.items():
        if name in BACKBONES:
            cells += table.cells(name, range(seeds), skill=skill)
        else:
            cells += table.cells(name, skill=skill, kind="baseline")
    constant = [
        (record, {part: np.zeros_like(tensors[part]) for part in PARTS})
        for record, tensors in table.cells("always-negative", kind="baseline")
    ]
    return cells + constant


def find_row(board: Leaderboard, name: str) -> Row:
    (row,) = (row for row in board.rows if row.name == name)
    return row


def mean_probabilities(cells: list[Cell], name: str, part: str, fold: int = 0) -> Floats:
    """Average over seeds with numpy."""
    arrays = [t[part] for r, t in cells if (r.key.candidate, r.key.fold) == (name, fold)]  # type: ignore[index]
    return np.mean(np.stack(arrays), axis=0, dtype=np.float64).astype(np.float32)


def part_targets(table: Table, part: str, fold: int = 0) -> npt.NDArray[np.uint8]:
    return table.comments.targets[list(getattr(table.protocol.folds[fold], part))]


def greedy_members(targets: npt.NDArray[np.uint8], arrays: Mapping[str, Floats]) -> list[str]:
    """Choose members as Caruana et al. (2004), with scikit-learn."""
    chosen: list[str] = []
    best = -1.0
    while True:
        scores = {
            name: average_precision_score(
                targets.ravel(), np.mean([arrays[n] for n in [*chosen, name]], axis=0).ravel()
            )
            for name in arrays
            if name not in chosen
        }
        name = max(scores, key=lambda name: scores[name], default="")
        if not name or scores[name] <= best:
            return chosen
        best = scores[name]
        chosen.append(name)


def test_seeds_average_has_scikit_learn_values(tmp_path: Path) -> None:
    table = Table(150, validation_size=0.2)
    cells = simulate_cells(table)
    row = find_row(
        load_ensemble_leaderboard(write_store(tmp_path / "s", table, cells)),
        "bert (3 seeds averaged)",
    )
    targets = {part: part_targets(table, part) for part in PARTS}
    averages = {part: mean_probabilities(cells, "bert", part) for part in PARTS}
    threshold = choose_thresholds(targets["validation"], averages["validation"])[GLOBAL][0]
    f1 = {part: f1_score(targets[part], averages[part] > 0.5, average="micro") for part in PARTS}
    expected = {
        "micro_f1": f1["test"],
        "micro_f1_gap": f1["train"] - f1["test"],
        "subset_accuracy": accuracy_score(targets["test"], averages["test"] > 0.5),
        "micro_f1_global": f1_score(targets["test"], averages["test"] > threshold, average="micro"),
        "micro_average_precision": average_precision_score(
            targets["test"].ravel(), averages["test"].ravel()
        ),
        "train_seconds": 3.0,
    }
    assert {name: row.mean(name) for name in expected} == pytest.approx(expected, abs=1e-9)
    assert (row.kind, row.seeds, row.uncertainty["micro_f1"].seeds) == ("ensemble", 1, None)
    assert row.uncertainty["micro_f1"].low < expected["micro_f1"] < row.uncertainty["micro_f1"].high


@pytest.mark.parametrize("folds", [1, 3])
def test_members_are_chosen_greedily(tmp_path: Path, folds: int) -> None:
    table = Table(150, validation_size=0.2, folds=folds)
    cells = simulate_cells(table)
    board = load_ensemble_leaderboard(write_store(tmp_path / "s", table, cells))
    validation = np.concatenate([part_targets(table, "validation", f) for f in range(folds)])
    arrays = {
        name: np.concatenate(
            [mean_probabilities(cells, name, "validation", f) for f in range(folds)]
        )
        for name in SKILLS
    }
    members = greedy_members(validation, arrays)
    assert len(members) > 1
    assert board.ensemble_choice is not None
    assert [name for name, _ in board.ensemble_choice.steps] == members
    row = find_row(board, f"average of {' + '.join(members)}")
    targets = np.concatenate([part_targets(table, "test", f) for f in range(folds)])
    tested = [
        np.mean([mean_probabilities(cells, n, "test", f) for n in members], axis=0)
        for f in range(folds)
    ]
    expected = f1_score(targets, np.concatenate(tested) > 0.5, average="micro")
    assert row.mean("micro_f1") == pytest.approx(expected, abs=1e-9)
    assert row.mean("train_seconds") == sum(3 if name in BACKBONES else 1 for name in members)


def test_order_of_cells_is_irrelevant(tmp_path: Path) -> None:
    table = Table(60, folds=2, validation_size=0.2)
    cells = simulate_cells(table, seeds=2)
    random.Random(0).shuffle(cells)
    halves = [write_store(tmp_path / str(start), table, cells[start::2]) for start in range(2)]
    texts = [
        json.dumps(leaderboard_records(load_ensemble_leaderboard(*stores)))
        for stores in (halves, halves[::-1])
    ]
    assert "bert (2 seeds averaged)" in texts[0]
    assert texts[0] == texts[1]


def test_test_rows_do_not_choose_members(tmp_path: Path) -> None:
    table = Table(150, validation_size=0.2)
    cells = simulate_cells(table)
    board = load_ensemble_leaderboard(write_store(tmp_path / "s", table, cells))
    test = list(table.protocol.folds[0].test)
    table.comments.targets[test] = 1 - table.comments.targets[test]
    changed = load_ensemble_leaderboard(write_store(tmp_path / "changed", table, cells))
    assert changed.ensemble_choice == board.ensemble_choice
    assert {row.name for row in changed.rows} == {row.name for row in board.rows}
    name = board.ensemble_choice.name if board.ensemble_choice else None
    assert name is not None
    assert find_row(changed, name).mean("micro_f1") != find_row(board, name).mean("micro_f1")


def test_no_average_without_validation_rows(tmp_path: Path) -> None:
    table = Table(100, validation_size=0.0)
    board = load_ensemble_leaderboard(write_store(tmp_path / "s", table, simulate_cells(table)))
    assert [row.name for row in board.rows if row.kind == "ensemble"] == [
        row.name for row in board.rows if row.name.endswith("seeds averaged)")
    ]
    notes = leaderboard_tables(board)[0].notes
    assert sum("without positive validation rows" in note for note in notes) == 1


def test_no_average_of_a_single_member(tmp_path: Path) -> None:
    table = Table(100, validation_size=0.2)
    cells = table.cells("bert", skill=1.0) + table.cells("distilbert", skill=0.1)
    board = load_ensemble_leaderboard(write_store(tmp_path / "s", table, cells))
    assert [row.name for row in board.rows] == ["bert", "distilbert"]
    assert "none raises the micro average precision of bert (1.000)" in str(
        leaderboard_tables(board)[0].notes
    )


def test_averages_have_tiers_and_tests(tmp_path: Path, cli: Cli) -> None:
    table = Table(100, validation_size=0.2)
    store = write_store(tmp_path / "s", table, simulate_cells(table, seeds=5))
    files = {path: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}
    board = json.loads(cli("leaderboard", "s", "--ensembles", "--json").stdout)["rows"]
    assert all(row["tier"] for row in board)
    average = next(row["candidate"] for row in board if row["candidate"].startswith("average"))
    names = ("bert (5 seeds averaged)", average)
    compared = cli("compare", *names, "--ensembles", "--results", "s", "--json")
    rows = json.loads(compared.stdout)["rows"]
    assert {(row["first"], row["second"]) for row in rows} == {names}
    assert cli("compare", *names, "--results", "s").returncode == 2
    assert {p: p.read_bytes() for p in store.folder.rglob("*") if p.is_file()} == files


def test_run_prints_averages(table: Path, cli: Cli) -> None:
    words = ("run", str(table), "--backbones", "none", "--quiet", "--ensembles")
    result = cli(*words)
    assert result.returncode == 0, result.stderr
    assert "none raises the micro average precision of tfidf-logreg" in result.stdout
