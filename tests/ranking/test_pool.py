"""Folds put together: which rows are counted, and which choose thresholds."""

import numpy as np
import pytest
from measured import Table
from sklearn.metrics import accuracy_score, f1_score

from toxbench.evaluation.thresholds import GLOBAL, HALF, PER_LABEL, choose_thresholds
from toxbench.ranking.pool import FEWEST_GROUPS, Cell, FoldPooler, PooledScores


def pool(table: Table, cells: list[Cell]) -> dict[str, PooledScores]:
    return FoldPooler(table.protocol, table.rows).pool(cells)


def plain(table: Table, cells: list[Cell], part: str, threshold: float = 0.5) -> tuple[float, ...]:
    """Micro-F1 and subset accuracy of all folds' rows of a part, one after another."""
    rows = [row for fold in table.protocol.folds for row in getattr(fold, part)]
    predictions = np.concatenate([tensors[part] for _, tensors in cells]) > threshold
    targets = table.comments.targets[rows]
    f1 = f1_score(targets, predictions, average="micro", zero_division=0)
    return f1, accuracy_score(targets, predictions)


# Rows


@pytest.mark.parametrize("folds", [1, 3])
def test_scores_are_of_the_rows_of_all_folds_together(folds: int) -> None:
    table = Table(folds=folds)
    cells = table.cells(seeds=(0, 1))
    half = pool(table, cells)[HALF]
    for i, seed in enumerate((0, 1)):
        own = [cell for cell in cells if cell[0].key.seed == seed]
        for part, scores in (("test", half.test), ("train", half.train)):
            found = scores["micro_f1"][i], scores["subset_accuracy"][i]
            assert found == pytest.approx(plain(table, own, part), abs=1e-9)
        for fold, (record, _) in enumerate(own):
            for name in ("micro_f1", "subset_accuracy"):
                stored = record.metrics[HALF]["test"][name]
                assert half.folds[name][i, fold] == pytest.approx(stored, abs=1e-9)


def test_every_tested_row_is_counted_once_and_every_train_row_in_each_fold() -> None:
    table = Table(folds=3)
    evidence = pool(table, table.cells())[HALF].evidence
    assert evidence.train is not None
    assert evidence.train_elsewhere is not None
    assert evidence.test[0, :, -1].tolist() == [1] * 60
    trained = sum(len(fold.train) for fold in table.protocol.folds)
    assert evidence.train[0, :, -1].sum() == trained
    assert evidence.train_elsewhere.shape[1] == 0
    order = [row for fold in table.protocol.folds for row in fold.test]
    folds = [sum(row in fold.train for fold in table.protocol.folds) for row in order]
    units = FoldPooler(table.protocol, table.rows).units
    assert evidence.train[0, units, -1].tolist() == folds


def test_one_fold_trains_on_rows_that_it_does_not_test() -> None:
    table = Table()
    evidence = pool(table, table.cells())[HALF].evidence
    assert evidence.train is None
    assert evidence.train_elsewhere is not None
    (fold,) = table.protocol.folds
    assert evidence.test[0, :, -1].sum() == len(fold.test)
    assert evidence.train_elsewhere[0, :, -1].sum() == len(fold.train)


def test_seeds_are_sorted_and_folds_too() -> None:
    table = Table(folds=3)
    cells = table.cells(seeds=(0, 2, 7))
    one, other = pool(table, cells)[HALF], pool(table, cells[::-1])[HALF]
    for name in ("micro_f1", "subset_accuracy"):
        assert one.test[name].tolist() == other.test[name].tolist()
        assert one.folds[name].tolist() == other.folds[name].tolist()
    alone = [pool(table, table.cells(seeds=(s,)))[HALF].test["micro_f1"][0] for s in (0, 2, 7)]
    assert one.test["micro_f1"].tolist() == alone
    assert len(set(alone)) == 3


# Groups


@pytest.mark.parametrize("groups", [FEWEST_GROUPS - 1, FEWEST_GROUPS])
def test_groups_are_resampled_if_they_are_enough(groups: int) -> None:
    table = Table(100, [f"g{row % groups}" for row in range(100)], split="grouped", folds=5)
    own = FoldPooler(table.protocol, table.rows)
    half = own.pool(table.cells())[HALF]
    assert own.group_count == groups
    assert own.by_group is (groups == FEWEST_GROUPS)
    assert half.evidence.test.shape[1] == (groups if own.by_group else 100)
    assert (half.groups is None) is own.by_group
    if half.groups is not None:
        assert half.groups.shape[:2] == (1, groups)
        assert sorted(half.groups[0, :, -1]) == sorted(np.bincount(np.arange(100) % groups))
        assert half.groups.sum() == half.evidence.test.sum()


def test_only_groups_among_the_tested_rows_count() -> None:
    table = Table(100, [f"g{row // 2}" for row in range(100)], split="grouped", test_size=0.2)
    own = FoldPooler(table.protocol, table.rows)
    (fold,) = table.protocol.folds
    assert own.group_count == len({row // 2 for row in fold.test}) < FEWEST_GROUPS
    assert own.has_groups


# Thresholds


def test_one_fold_has_the_thresholds_of_its_cell() -> None:
    table = Table()
    cell = table.cell(thresholds={HALF: (0.5,) * 4, GLOBAL: (0.3,) * 4})
    own = FoldPooler(table.protocol, table.rows)
    assert own.thresholds([cell]) == [cell[0].thresholds]
    assert set(own.pool([cell])) == {HALF, GLOBAL}
    scores = own.pool([cell])[GLOBAL].test
    found = scores["micro_f1"][0], scores["subset_accuracy"][0]
    assert found == pytest.approx(plain(table, [cell], "test", np.float32(0.3)), abs=1e-9)


def test_searched_settings_keep_their_thresholds() -> None:
    table = Table(folds=3)
    rules = {HALF: (0.5,) * 4, GLOBAL: (0.3,) * 4, PER_LABEL: (0.3, 0.4, 0.3, 0.3)}
    cells = table.cells(tuned=True, thresholds=rules)
    assert FoldPooler(table.protocol, table.rows).thresholds(cells) == [rules] * 3
    default = table.cells(thresholds=rules)
    assert FoldPooler(table.protocol, table.rows).thresholds(default) != [rules] * 3


def test_folds_choose_on_each_others_validation_rows() -> None:
    table = Table(folds=3)
    cells = table.cells()
    found = FoldPooler(table.protocol, table.rows).thresholds(cells)
    for fold, own in zip(table.protocol.folds, found, strict=True):
        kept = [
            (row, tensors["validation"][place])
            for other, (_, tensors) in zip(table.protocol.folds, cells, strict=True)
            for place, row in enumerate(other.validation)
            if row not in fold.test
        ]
        assert len(kept) > len(fold.validation)
        rows, probabilities = zip(*kept, strict=True)
        expected = choose_thresholds(table.comments.targets[list(rows)], np.array(probabilities))
        assert own == expected


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_no_fold_chooses_thresholds_by_rows_that_it_tests(fold: int) -> None:
    """Other targets and probabilities of a fold's test rows change nothing of its thresholds."""
    table = Table(folds=3, validation_size=0.4)
    cells = table.cells()
    tested = list(table.protocol.folds[fold].test)
    before = FoldPooler(table.protocol, table.rows).thresholds(cells)
    others = {row for f in table.protocol.folds for row in f.validation} & set(tested)
    assert others  # somebody validates on them
    table.comments.targets[tested] = 1 - table.comments.targets[tested]
    for other, (_, tensors) in zip(table.protocol.folds, cells, strict=True):
        own = np.isin(other.validation, tested)
        tensors["validation"][own] = 1 - tensors["validation"][own]
    after = FoldPooler(table.protocol, table.rows).thresholds(cells)
    assert after[fold] == before[fold]
    assert after != before


def test_without_validation_rows_there_is_one_half_alone() -> None:
    table = Table(folds=3, validation_size=0)
    assert set(pool(table, table.cells())) == {HALF}


def test_a_rule_that_one_cell_lacks_is_left_out() -> None:
    table = Table()
    lacking = table.cell(seed=1, thresholds={HALF: (0.5,) * 4})
    assert set(pool(table, [table.cell(), lacking])) == {HALF}
    assert set(pool(table, [lacking, table.cell()])) == {HALF}
    assert set(pool(table, [table.cell()])) == {HALF, GLOBAL, PER_LABEL}
