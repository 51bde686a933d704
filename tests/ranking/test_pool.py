"""Pooling of folds: the counted rows, and the rows that choose thresholds."""

import numpy as np
import pytest
from measured import Table
from sklearn.metrics import accuracy_score, f1_score

from toxbench.evaluation.definitions import RULES
from toxbench.evaluation.thresholds import GLOBAL, HALF, PER_LABEL, choose_thresholds
from toxbench.ranking.cells import Cell, FoldPooler, PooledScores, ScoreNames

PAIR = ("micro_f1", "subset_accuracy")
NEEDED = dict.fromkeys(RULES, ScoreNames(PAIR, PAIR))


def pool(table: Table, cells: list[Cell]) -> dict[str, PooledScores]:
    return FoldPooler(table.protocol, table.rows).pool(cells, NEEDED)


def reference_scores(
    table: Table, cells: list[Cell], part: str, threshold: float = 0.5
) -> tuple[float, ...]:
    """Return micro-F1 and subset accuracy over the rows of a part in all folds."""
    rows = [row for fold in table.protocol.folds for row in getattr(fold, part)]
    predictions = np.concatenate([tensors[part] for _, tensors in cells]) > threshold
    targets = table.comments.targets[rows]
    f1 = f1_score(targets, predictions, average="micro", zero_division=0)
    return f1, accuracy_score(targets, predictions)


# Rows


@pytest.mark.parametrize("folds", [1, 3])
def test_scores_cover_the_rows_of_all_folds(folds: int) -> None:
    table = Table(folds=folds)
    cells = table.cells(seeds=(0, 1))
    half = pool(table, cells)[HALF]
    for i, seed in enumerate((0, 1)):
        by_fold = [cell for cell in cells if cell[0].key.seed == seed]
        for part, scores in (("test", half.test), ("train", half.train)):
            pair = scores["micro_f1"][i], scores["subset_accuracy"][i]
            assert pair == pytest.approx(reference_scores(table, by_fold, part), abs=1e-9)
        for fold, (record, _) in enumerate(by_fold):
            for name in ("micro_f1", "subset_accuracy"):
                stored = record.metrics[HALF]["test"][name]
                if folds > 1:
                    value = half.samples.folds[name][i, fold]
                    assert value == pytest.approx(stored, abs=1e-9)


def test_rows_are_counted_once_per_use() -> None:
    table = Table(folds=3)
    samples = pool(table, table.cells())[HALF].samples
    assert samples.train is not None
    assert samples.train_only is not None
    assert samples.test[0, :, -1].tolist() == [1] * 60
    trained = sum(len(fold.train) for fold in table.protocol.folds)
    assert samples.train[0, :, -1].sum() == trained
    assert samples.train_only.shape[1] == 0
    order = [row for fold in table.protocol.folds for row in fold.test]
    folds = [sum(row in fold.train for fold in table.protocol.folds) for row in order]
    units = FoldPooler(table.protocol, table.rows).units
    assert samples.train[0, units, -1].tolist() == folds


def test_single_fold_has_train_only_rows() -> None:
    table = Table()
    samples = pool(table, table.cells())[HALF].samples
    assert samples.train is None
    assert samples.train_only is not None
    (fold,) = table.protocol.folds
    assert samples.test[0, :, -1].sum() == len(fold.test)
    assert samples.train_only[0, :, -1].sum() == len(fold.train)


def test_seeds_and_folds_are_sorted() -> None:
    table = Table(folds=3)
    cells = table.cells(seeds=(0, 2, 7))
    pooled, reordered = pool(table, cells)[HALF], pool(table, cells[::-1])[HALF]
    for name in ("micro_f1", "subset_accuracy"):
        assert pooled.test[name].tolist() == reordered.test[name].tolist()
        assert pooled.samples.folds[name].tolist() == reordered.samples.folds[name].tolist()
    single = [pool(table, table.cells(seeds=(s,)))[HALF].test["micro_f1"][0] for s in (0, 2, 7)]
    assert pooled.test["micro_f1"].tolist() == single
    assert len(set(single)) == 3


# Groups


def test_groups_and_single_rows_are_units() -> None:
    groups = [None if row % 5 == 0 else f"g{row % 5}" for row in range(100)]
    table = Table(100, groups, split="grouped", folds=5)
    pooler = FoldPooler(table.protocol, table.rows)
    half = pooler.pool(table.cells(), NEEDED)[HALF]
    assert (pooler.group_count, pooler.single_rows) == (4, 20)
    assert half.samples.test.shape[1] == 24
    assert pooler.effective_units == pytest.approx(100**2 / (4 * 20**2 + 20))


def test_only_tested_groups_are_counted() -> None:
    table = Table(100, [f"g{row // 2}" for row in range(100)], split="grouped", test_size=0.2)
    pooler = FoldPooler(table.protocol, table.rows)
    (fold,) = table.protocol.folds
    assert pooler.group_count == len({row // 2 for row in fold.test})
    assert pooler.single_rows == 0


# Thresholds


def test_single_fold_uses_its_thresholds() -> None:
    table = Table()
    cell = table.cell(thresholds={HALF: (0.5,) * 4, GLOBAL: (0.3,) * 4})
    pooler = FoldPooler(table.protocol, table.rows)
    assert pooler.thresholds([cell]) == [cell[0].thresholds]
    assert set(pooler.pool([cell], NEEDED)) == {HALF, GLOBAL}
    scores = pooler.pool([cell], NEEDED)[GLOBAL].test
    pair = scores["micro_f1"][0], scores["subset_accuracy"][0]
    assert pair == pytest.approx(reference_scores(table, [cell], "test", np.float32(0.3)), abs=1e-9)


def test_tuned_settings_keep_their_thresholds() -> None:
    table = Table(folds=3)
    rules = {HALF: (0.5,) * 4, GLOBAL: (0.3,) * 4, PER_LABEL: (0.3, 0.4, 0.3, 0.3)}
    cells = table.cells(tuned=True, thresholds=rules)
    assert FoldPooler(table.protocol, table.rows).thresholds(cells) == [rules] * 3
    default = table.cells(thresholds=rules)
    assert FoldPooler(table.protocol, table.rows).thresholds(default) != [rules] * 3


def test_folds_share_their_validation_rows() -> None:
    table = Table(folds=3)
    cells = table.cells()
    folds = table.protocol.folds
    thresholds = FoldPooler(table.protocol, table.rows).thresholds(cells)
    for fold, rules in zip(folds, thresholds, strict=True):
        usable = [
            (row, tensors["validation"][i])
            for validated, (_, tensors) in zip(folds, cells, strict=True)
            for i, row in enumerate(validated.validation)
            if row not in fold.test
        ]
        assert len(usable) > len(fold.validation)
        rows, probabilities = zip(*usable, strict=True)
        expected = choose_thresholds(table.comments.targets[list(rows)], np.array(probabilities))
        assert rules == expected


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_tested_rows_do_not_choose_thresholds(fold: int) -> None:
    """Changes of a fold's test rows do not change its thresholds, but those of other folds."""
    table = Table(folds=3, validation_size=0.4)
    cells = table.cells()
    tested = list(table.protocol.folds[fold].test)
    before = FoldPooler(table.protocol, table.rows).thresholds(cells)
    assert {row for f in table.protocol.folds for row in f.validation} & set(tested)
    table.comments.targets[tested] = 1 - table.comments.targets[tested]
    for validated, (_, tensors) in zip(table.protocol.folds, cells, strict=True):
        is_tested = np.isin(validated.validation, tested)
        tensors["validation"][is_tested] = 1 - tensors["validation"][is_tested]
    after = FoldPooler(table.protocol, table.rows).thresholds(cells)
    assert after[fold] == before[fold]
    assert after != before


def test_only_half_without_validation_rows() -> None:
    table = Table(folds=3, validation_size=0)
    assert set(pool(table, table.cells())) == {HALF}


def test_rule_missing_in_a_cell_is_skipped() -> None:
    table = Table()
    lacking = table.cell(seed=1, thresholds={HALF: (0.5,) * 4})
    assert set(pool(table, [table.cell(), lacking])) == {HALF}
    assert set(pool(table, [lacking, table.cell()])) == {HALF}
    assert set(pool(table, [table.cell()])) == set(RULES)
