"""Leaderboards of stored cells: pooled values, intervals, pairs and tiers."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from measured import Table

from toxbench.errors import StorageError
from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.thresholds import GLOBAL, HALF
from toxbench.ranking.build import build_leaderboard, load_leaderboard
from toxbench.ranking.pool import GROUPS_NEEDED, Cell
from toxbench.ranking.rows import SEEDS_NEEDED, Leaderboard, Row, summarize_cells
from toxbench.store.cells import CellStore
from toxbench.store.rows import write_rows

FIVE = tuple(range(SEEDS_NEEDED))


def build(table: Table, *cells: list[Cell]) -> Leaderboard:
    return build_leaderboard(
        table.protocol, table.rows, [cell for group in cells for cell in group]
    )


def find_row(leaderboard: Leaderboard, candidate: str) -> Row:
    (row,) = (row for row in leaderboard.rows if row.candidate == candidate)
    return row


def mean_of(row: Row, name: str) -> float:
    statistic = row.values[name]
    assert statistic is not None
    return statistic.mean


# Values


def test_one_fold_has_its_cell_values() -> None:
    table = Table()
    cells = table.cells("bert", (0, 1, 2)) + table.cells("roberta")
    pooled = build(table, cells)
    plain = summarize_cells(table.protocol, [record for record, _ in cells])
    for row in plain.rows:
        values = find_row(pooled, row.candidate).values
        assert values.keys() == row.values.keys()
        for name, expected in row.values.items():
            value = values[name]
            if expected is None:
                assert value is None
                continue
            assert value is not None
            assert value.mean == pytest.approx(expected.mean, abs=1e-9), name
            assert value.deviation == pytest.approx(expected.deviation, abs=1e-9), name


def test_folds_are_scored_on_all_their_rows() -> None:
    table = Table(folds=3)
    cells = table.cells()
    row = find_row(build(table, cells), "bert")
    rows = [i for fold in table.protocol.folds for i in fold.test]
    predictions = np.concatenate([tensors["test"] for _, tensors in cells]) > 0.5
    right = (predictions == table.comments.targets[rows]).all(axis=1)
    assert mean_of(row, "subset_accuracy") == pytest.approx(right.mean())
    mean = np.mean([record.metrics[HALF]["test"]["micro_f1"] for record, _ in cells])
    assert mean_of(row, "micro_f1") != pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize("name", HEADLINES)
def test_a_gap_is_train_minus_test(name: str) -> None:
    row = find_row(build(Table(folds=3), Table(folds=3).cells(seeds=(0, 1))), "bert")
    gap = mean_of(row, f"train_{name}") - mean_of(row, name)
    assert mean_of(row, f"{name}_gap") == pytest.approx(gap)


def test_missing_rule_has_no_value_or_interval() -> None:
    table = Table(folds=3)
    leaderboard = build(table, table.cells(seeds=(0,)))
    assert find_row(leaderboard, "bert").values["micro_f1_global"] is not None
    lacking = table.cells(seeds=(0,), tuned=True, thresholds={HALF: (0.5,) * 4})
    row = find_row(build(table, lacking), "bert")
    assert row.values["micro_f1_global"] is None
    assert set(row.uncertainty) == {*HEADLINES, *(f"{name}_gap" for name in HEADLINES)}


def test_headline_scores_and_gaps_have_intervals() -> None:
    table = Table(200)
    row = find_row(build(table, table.cells(seeds=(0, 1, 2))), "bert")
    assert set(row.uncertainty) == {
        *(f"{name}{suffix}" for name in HEADLINES for suffix in ("", "_gap")),
        "micro_f1_global", "subset_accuracy_accuracy",
    }  # fmt: skip
    for name, uncertainty in row.uncertainty.items():
        assert uncertainty.low < mean_of(row, name) < uncertainty.high
        assert uncertainty.rows > 0
        assert uncertainty.seeds is not None
        assert uncertainty.seeds > 0
        assert uncertainty.without_a_group is None


def test_single_seed_and_fold_have_no_error() -> None:
    table = Table()
    uncertainty = find_row(build(table, table.cells()), "bert").uncertainty["micro_f1"]
    assert (uncertainty.seeds, uncertainty.folds) == (None, None)


def test_unequal_folds_have_a_fold_error() -> None:
    table = Table(300, folds=3)
    skills = (0.0, 0.3, 0.45)
    uneven = [table.cell(fold=fold, skill=skill) for fold, skill in enumerate(skills)]
    uncertainty = find_row(build(table, uneven), "bert").uncertainty["micro_f1"]
    even = find_row(build(table, table.cells(skill=0.3)), "bert").uncertainty["micro_f1"]
    assert uncertainty.folds is not None
    assert even.folds is not None
    assert uncertainty.folds > 3 * uncertainty.rows > 0
    assert even.folds < 2 * even.rows < 0.2


# Complete and incomplete seeds


def test_incomplete_seeds_are_ignored() -> None:
    table = Table(folds=3)
    complete = table.cells("bert", (0, 2))
    leaderboard = build(table, complete, [table.cell("bert", 1, 0), table.cell("bert", 1, 2)])
    assert leaderboard == build(table, complete)
    assert find_row(leaderboard, "bert").seeds == 2
    assert leaderboard.unfinished == ()


def test_candidate_without_complete_seed_is_unfinished() -> None:
    table = Table(folds=3)
    parts = [table.cell("roberta", 0, 0), table.cell("roberta", 1, 1), table.cell("roberta", 1, 2)]
    leaderboard = build(table, table.cells("bert"), parts)
    assert [row.candidate for row in leaderboard.rows] == ["bert"]
    assert leaderboard.unfinished == ("roberta",)
    assert leaderboard.differences == ()
    empty = build(table, parts)
    assert (empty.rows, empty.unfinished, empty.sampling) == ((), ("roberta",), None)


def test_cell_order_is_irrelevant() -> None:
    table = Table(folds=2)
    cells = [c for name in ("a", "b", "c") for c in table.cells(name, (0, 1))]
    shuffled = list(cells)
    random.Random(0).shuffle(shuffled)
    assert build(table, shuffled) == build(table, cells)


def test_intervals_do_not_depend_on_other_candidates() -> None:
    table = Table()
    first, second = table.cells("bert", (0, 1)), table.cells("roberta", (0, 1, 2))
    single = find_row(build(table, first), "bert")
    joint = find_row(build(table, first, second), "bert")
    assert joint.uncertainty == single.uncertainty
    assert joint.values == single.values


def test_rows_of_one_name_keep_their_values() -> None:
    """A baseline may have the name of a backbone; two digests may differ only in weights."""
    table = Table()
    cells = table.cells("x", skill=0.6)
    changes = ({"kind": "baseline"}, {"parameters": 7})
    for i, (change, skill) in enumerate(zip(changes, (0.2, 0.4), strict=True), start=1):
        ((record, tensors),) = table.cells("x", skill=skill)
        key = record.key.model_copy(update={"digest": str(i) * 12})
        cells.append((record.model_copy(update={"key": key, **change}), tensors))
    rows = build(table, cells).rows
    assert len({row.name for row in rows}) == 3
    scores = {record.key.digest: record.metrics[HALF]["test"]["micro_f1"] for record, _ in cells}
    assert {row.digest: mean_of(row, "micro_f1") for row in rows} == pytest.approx(scores)


def test_cells_of_another_protocol_are_refused() -> None:
    table = Table()
    with pytest.raises(StorageError, match="only results of one protocol"):
        build(table, table.cells(fingerprint="e" * 64))


# Pairs and tiers


def test_all_pairs_have_headline_differences() -> None:
    table = Table(200)
    skills = {"a": 0.9, "b": 0.3, "c": 0.3}
    leaderboard = build(table, *(table.cells(name, FIVE, skill=s) for name, s in skills.items()))
    pairs = {(d.metric, *sorted((d.first, d.second))): d for d in leaderboard.differences}
    assert len(leaderboard.differences) == len(pairs) == 6
    for (metric, *names), pair in pairs.items():
        first, second = (find_row(leaderboard, name) for name in (pair.first, pair.second))
        expected = mean_of(first, metric) - mean_of(second, metric)
        assert pair.difference == pytest.approx(expected)
        assert pair.is_clear is ("a" in names)


@pytest.mark.parametrize("seeds", [SEEDS_NEEDED - 1, SEEDS_NEEDED])
def test_few_seeds_give_no_tiers(seeds: int) -> None:
    table = Table(200)
    strong, weak = table.cells("a", FIVE, skill=0.9), table.cells("b", range(seeds), skill=0.3)
    guess = table.cells("guess", kind="baseline", skill=0.0)  # baselines have one seed
    tiers = {row.candidate: row.tier for row in build(table, strong, weak, guess).rows}
    expected = (1, 2, 3) if seeds == SEEDS_NEEDED else (None,) * 3
    assert tuple(tiers[name] for name in ("a", "b", "guess")) == expected


def test_incomplete_seeds_do_not_count_for_tiers() -> None:
    table = Table(folds=2)
    cells = table.cells(seeds=FIVE)
    assert build(table, cells).rows[0].tier == 1
    assert build(table, cells[:-1]).rows[0].tier is None


def test_equal_candidates_share_a_tier() -> None:
    table = Table(200)
    cells = table.cells("a", FIVE)
    twins = [
        (record.model_copy(update={"key": record.key.model_copy(update={"candidate": "b"})}), t)
        for record, t in cells
    ]
    leaderboard = build(table, cells, twins)
    assert [row.tier for row in leaderboard.rows] == [1, 1]
    assert {(d.p, d.better) for d in leaderboard.differences} == {(1.0, 0.5)}


# Groups


@pytest.mark.parametrize("groups", [GROUPS_NEEDED - 1, GROUPS_NEEDED])
def test_few_groups_give_leave_one_out_ranges(groups: int) -> None:
    table = Table(100, [f"g{i % groups}" for i in range(100)], split="grouped", folds=2)
    cells = table.cells()
    leaderboard = build(table, cells)
    assert leaderboard.sampling is not None
    assert leaderboard.sampling.group_count == groups
    assert leaderboard.sampling.by_group is (groups == GROUPS_NEEDED)
    assert leaderboard.sampling.has_groups
    uncertainty = find_row(leaderboard, "bert").uncertainty
    assert uncertainty["micro_f1_gap"].without_a_group is None
    if groups == GROUPS_NEEDED:
        assert uncertainty["subset_accuracy"].without_a_group is None
        return
    rows = np.array([i for fold in table.protocol.folds for i in fold.test])
    predictions = np.concatenate([tensors["test"] for _, tensors in cells]) > 0.5
    right = (predictions == table.comments.targets[rows]).all(axis=1)
    without = [right[rows % groups != group].mean() for group in range(groups)]
    assert uncertainty["subset_accuracy"].without_a_group == pytest.approx(
        (min(without), max(without))
    )


def test_single_group_has_no_range() -> None:
    table = Table(40)
    table.rows = replace(table.rows, groups=np.zeros(40, dtype=np.int64), has_groups=True)
    leaderboard = build(table, table.cells())
    assert leaderboard.sampling is not None
    assert (leaderboard.sampling.group_count, leaderboard.sampling.by_group) == (1, False)
    assert find_row(leaderboard, "bert").uncertainty["micro_f1"].without_a_group is None


# Degenerate tables


def test_single_test_row_has_finite_intervals() -> None:
    table = Table(10, test_size=0.1)
    leaderboard = build(table, table.cells("a", FIVE), table.cells("b", FIVE))
    assert len(table.protocol.folds[0].test) == 1
    for row in leaderboard.rows:
        uncertainty = row.uncertainty["subset_accuracy"]
        assert uncertainty.rows == pytest.approx(0, abs=1e-12)
        # Intervals of few seeds are wide, but within the range of the score.
        assert 0 <= uncertainty.low <= mean_of(row, "subset_accuracy") <= uncertainty.high <= 1
    assert all(0 < d.p <= d.adjusted_p <= 1 for d in leaderboard.differences)


def test_no_tuned_thresholds_without_validation_rows() -> None:
    table = Table(validation_size=0)
    row = find_row(build(table, table.cells()), "bert")
    assert row.values["micro_f1_global"] is None
    assert "micro_f1_global" not in row.uncertainty
    assert "micro_f1" in row.uncertainty


def test_stored_cells_give_the_same_leaderboard(tmp_path: Path) -> None:
    table = Table(folds=2)
    cells = table.cells("a", (0, 1)) + table.cells("b")
    store = CellStore(tmp_path)
    store.protocol_path.write_text(table.protocol.model_dump_json(), encoding="utf-8")
    for record, tensors in cells:
        store.write(record, tensors)
    with pytest.raises(StorageError, match="is missing"):
        load_leaderboard(store)
    write_rows(tmp_path, table.comments)
    assert load_leaderboard(store) == build(table, cells)
    assert find_row(load_leaderboard(store), "a").values["micro_f1_global"] is not None
    assert GLOBAL in cells[0][0].thresholds
