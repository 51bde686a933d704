"""Stored cells to a leaderboard that says how sure it is."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from measured import Table

from toxbench.errors import StorageError
from toxbench.evaluation.row_counts import HEADLINES
from toxbench.evaluation.thresholds import GLOBAL, HALF
from toxbench.ranking.build import SEEDS_NEEDED, build_leaderboard, load_leaderboard
from toxbench.ranking.pool import FEWEST_GROUPS, Cell
from toxbench.ranking.rows import Leaderboard, Row, summarize_cells
from toxbench.store.cells import CellStore
from toxbench.store.rows import write_rows

FIVE = tuple(range(SEEDS_NEEDED))


def board(table: Table, *cells: list[Cell]) -> Leaderboard:
    return build_leaderboard(table.protocol, table.rows, [cell for own in cells for cell in own])


def row(found: Leaderboard, candidate: str) -> Row:
    (own,) = (row for row in found.rows if row.candidate == candidate)
    return own


def value(own: Row, name: str) -> float:
    statistic = own.values[name]
    assert statistic is not None
    return statistic.mean


# Values


def test_values_of_one_fold_are_those_of_the_cells() -> None:
    table = Table()
    cells = table.cells("bert", (0, 1, 2)) + table.cells("roberta")
    pooled = board(table, cells)
    plain = summarize_cells(table.protocol, [record for record, _ in cells])
    for own in plain.rows:
        again = row(pooled, own.candidate)
        assert again.values.keys() == own.values.keys()
        for name, expected in own.values.items():
            found = again.values[name]
            if expected is None:
                assert found is None
                continue
            assert found is not None
            assert found.mean == pytest.approx(expected.mean, abs=1e-9), name
            assert found.deviation == pytest.approx(expected.deviation, abs=1e-9), name


def test_values_of_several_folds_are_of_all_their_rows_at_once() -> None:
    table = Table(folds=3)
    cells = table.cells()
    own = row(board(table, cells), "bert")
    rows = [i for fold in table.protocol.folds for i in fold.test]
    predictions = np.concatenate([tensors["test"] for _, tensors in cells]) > 0.5
    right = (predictions == table.comments.targets[rows]).all(axis=1)
    assert value(own, "subset_accuracy") == pytest.approx(right.mean())
    mean = np.mean([record.metrics[HALF]["test"]["micro_f1"] for record, _ in cells])
    assert value(own, "micro_f1") != pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize("name", HEADLINES)
def test_a_gap_is_train_minus_test(name: str) -> None:
    own = row(board(Table(folds=3), Table(folds=3).cells(seeds=(0, 1))), "bert")
    gap = value(own, f"train_{name}") - value(own, name)
    assert value(own, f"{name}_gap") == pytest.approx(gap)


def test_a_rule_that_one_cell_lacks_has_no_value_and_no_interval() -> None:
    table = Table(folds=3)
    found = board(table, table.cells(seeds=(0,)))
    assert row(found, "bert").values["micro_f1_global"] is not None
    lacking = table.cells(seeds=(0,), tuned=True, thresholds={HALF: (0.5,) * 4})
    own = row(board(table, lacking), "bert")
    assert own.values["micro_f1_global"] is None
    assert set(own.uncertainty) == {*HEADLINES, *(f"{name}_gap" for name in HEADLINES)}


def test_headline_scores_and_gaps_have_intervals_around_them() -> None:
    table = Table(200)
    own = row(board(table, table.cells(seeds=(0, 1, 2))), "bert")
    assert set(own.uncertainty) == {
        *(f"{name}{rule}" for name in HEADLINES for rule in ("", "_global", "_gap"))
    }
    for name, sure in own.uncertainty.items():
        assert sure.low < value(own, name) < sure.high
        assert sure.rows > 0
        assert sure.seeds is not None
        assert sure.seeds > 0
        assert sure.without_a_group is None


def test_one_seed_and_one_fold_have_no_spread_of_their_own() -> None:
    table = Table()
    sure = row(board(table, table.cells()), "bert").uncertainty["micro_f1"]
    assert (sure.seeds, sure.folds) == (None, None)


def test_folds_that_differ_by_more_than_their_rows_are_seen() -> None:
    table = Table(300, folds=3)
    skills = (0.0, 0.3, 0.45)
    uneven = [table.cell(fold=fold, skill=skill) for fold, skill in enumerate(skills)]
    sure = row(board(table, uneven), "bert").uncertainty["micro_f1"]
    even = row(board(table, table.cells(skill=0.3)), "bert").uncertainty["micro_f1"]
    assert sure.folds is not None
    assert even.folds is not None
    assert sure.folds > 3 * sure.rows > 0
    assert even.folds < 2 * even.rows < 0.2


# Who is there


def test_seeds_that_lack_a_fold_are_left_out() -> None:
    table = Table(folds=3)
    whole = table.cells("bert", (0, 2))
    found = board(table, whole, [table.cell("bert", 1, 0), table.cell("bert", 1, 2)])
    assert found == board(table, whole)
    assert row(found, "bert").seeds == 2
    assert found.unfinished == ()


def test_a_candidate_without_a_whole_seed_is_unfinished() -> None:
    table = Table(folds=3)
    parts = [table.cell("roberta", 0, 0), table.cell("roberta", 1, 1), table.cell("roberta", 1, 2)]
    found = board(table, table.cells("bert"), parts)
    assert [row.candidate for row in found.rows] == ["bert"]
    assert found.unfinished == ("roberta",)
    assert found.differences == ()
    nobody = board(table, parts)
    assert (nobody.rows, nobody.unfinished, nobody.sampling) == ((), ("roberta",), None)


def test_the_order_of_cells_does_not_matter() -> None:
    table = Table(folds=2)
    cells = [c for name in ("a", "b", "c") for c in table.cells(name, (0, 1))]
    shuffled = list(cells)
    random.Random(0).shuffle(shuffled)
    assert board(table, shuffled) == board(table, cells)


def test_who_else_is_there_changes_no_interval() -> None:
    table = Table()
    own, others = table.cells("bert", (0, 1)), table.cells("roberta", (0, 1, 2))
    alone, among = (row(board(table, *cells), "bert") for cells in ([own], [own, others]))
    assert among.uncertainty == alone.uncertainty
    assert among.values == alone.values


def test_rows_of_one_name_keep_their_own_values() -> None:
    """A baseline may be called as a backbone is; two digests may differ in weights alone."""
    table = Table()
    own = table.cells("x", skill=0.6)
    changes = ({"kind": "baseline"}, {"parameters": 7})
    found = own.copy()
    for i, (change, skill) in enumerate(zip(changes, (0.2, 0.4), strict=True), start=1):
        ((record, tensors),) = table.cells("x", skill=skill)
        key = record.key.model_copy(update={"digest": str(i) * 12})
        found.append((record.model_copy(update={"key": key, **change}), tensors))
    rows = board(table, found).rows
    assert len({row.name for row in rows}) == 3
    scores = {record.key.digest: record.metrics[HALF]["test"]["micro_f1"] for record, _ in found}
    assert {row.digest: value(row, "micro_f1") for row in rows} == pytest.approx(scores)


def test_a_cell_of_another_protocol_is_refused() -> None:
    table = Table()
    with pytest.raises(StorageError, match="two yardsticks"):
        board(table, table.cells(fingerprint="e" * 64))


# Pairs and tiers


def test_every_pair_is_compared_on_each_headline_score() -> None:
    table = Table(200)
    skills = {"a": 0.9, "b": 0.3, "c": 0.3}
    found = board(table, *(table.cells(name, FIVE, skill=s) for name, s in skills.items()))
    pairs = {(d.metric, *sorted((d.one, d.other))): d for d in found.differences}
    assert len(found.differences) == len(pairs) == 6
    for (metric, *names), pair in pairs.items():
        expected = value(row(found, pair.one), metric) - value(row(found, pair.other), metric)
        assert pair.difference == pytest.approx(expected)
        assert pair.is_clear is ("a" in names)


@pytest.mark.parametrize("seeds", [SEEDS_NEEDED - 1, SEEDS_NEEDED])
def test_nobody_is_ranked_by_few_seeds(seeds: int) -> None:
    table = Table(200)
    strong, weak = table.cells("a", FIVE, skill=0.9), table.cells("b", range(seeds), skill=0.3)
    guess = table.cells("guess", kind="baseline", skill=0.0)  # one seed is all that it has
    tiers = {row.candidate: row.tier for row in board(table, strong, weak, guess).rows}
    expected = (1, 2, 3) if seeds == SEEDS_NEEDED else (None,) * 3
    assert tuple(tiers[name] for name in ("a", "b", "guess")) == expected


def test_a_seed_without_every_fold_is_none_of_those_that_are_needed() -> None:
    table = Table(folds=2)
    cells = table.cells(seeds=FIVE)
    assert board(table, cells).rows[0].tier == 1
    assert board(table, cells[:-1]).rows[0].tier is None


def test_equal_candidates_share_a_tier() -> None:
    table = Table(200)
    cells = table.cells("a", FIVE)
    twins = [
        (record.model_copy(update={"key": record.key.model_copy(update={"candidate": "b"})}), t)
        for record, t in cells
    ]
    found = board(table, cells, twins)
    assert [row.tier for row in found.rows] == [1, 1]
    assert {(d.p, d.better) for d in found.differences} == {(1.0, 0.5)}


# Groups


@pytest.mark.parametrize("groups", [FEWEST_GROUPS - 1, FEWEST_GROUPS])
def test_few_groups_are_left_out_one_by_one_and_many_resampled(groups: int) -> None:
    table = Table(100, [f"g{i % groups}" for i in range(100)], split="grouped", folds=2)
    cells = table.cells()
    found = board(table, cells)
    assert found.sampling is not None
    assert found.sampling.group_count == groups
    assert found.sampling.by_group is (groups == FEWEST_GROUPS)
    assert found.sampling.has_groups
    sure = row(found, "bert").uncertainty
    assert sure["micro_f1_gap"].without_a_group is None
    if groups == FEWEST_GROUPS:
        assert sure["subset_accuracy"].without_a_group is None
        return
    rows = np.array([i for fold in table.protocol.folds for i in fold.test])
    predictions = np.concatenate([tensors["test"] for _, tensors in cells]) > 0.5
    right = (predictions == table.comments.targets[rows]).all(axis=1)
    without = [right[rows % groups != group].mean() for group in range(groups)]
    assert sure["subset_accuracy"].without_a_group == pytest.approx((min(without), max(without)))


def test_a_single_group_cannot_be_left_out() -> None:
    table = Table(40)
    table.rows = replace(table.rows, groups=np.zeros(40, dtype=np.int64), has_groups=True)
    found = board(table, table.cells())
    assert found.sampling is not None
    assert (found.sampling.group_count, found.sampling.by_group) == (1, False)
    assert row(found, "bert").uncertainty["micro_f1"].without_a_group is None


# Odd tables


def test_a_single_test_row_has_an_answer() -> None:
    table = Table(10, test_size=0.1)
    found = board(table, table.cells("a", FIVE), table.cells("b", FIVE))
    assert len(table.protocol.folds[0].test) == 1
    for own in found.rows:
        sure = own.uncertainty["subset_accuracy"]
        assert sure.rows == pytest.approx(0, abs=1e-12)
        # What few seeds say is spread as t is, but no further than a score can be.
        assert 0 <= sure.low <= value(own, "subset_accuracy") <= sure.high <= 1
    assert all(0 < d.p <= d.adjusted_p <= 1 for d in found.differences)


def test_without_validation_rows_there_is_one_half_alone() -> None:
    table = Table(validation_size=0)
    own = row(board(table, table.cells()), "bert")
    assert own.values["micro_f1_global"] is None
    assert "micro_f1_global" not in own.uncertainty
    assert "micro_f1" in own.uncertainty


def test_a_stored_folder_gives_the_same_leaderboard(tmp_path: Path) -> None:
    table = Table(folds=2)
    cells = table.cells("a", (0, 1)) + table.cells("b")
    store = CellStore(tmp_path)
    store.protocol_path.write_text(table.protocol.model_dump_json(), encoding="utf-8")
    for record, tensors in cells:
        store.write(record, tensors)
    with pytest.raises(StorageError, match="is missing"):
        load_leaderboard(store)
    write_rows(tmp_path, table.comments)
    assert load_leaderboard(store) == board(table, cells)
    assert row(load_leaderboard(store), "a").values["micro_f1_global"] is not None
    assert GLOBAL in cells[0][0].thresholds
