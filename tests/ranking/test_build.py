"""Leaderboards of stored cells: pooled values, intervals, pairs and tiers."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from measured import Table
from sklearn.metrics import log_loss

from toxbench.errors import StorageError
from toxbench.evaluation.definitions import GAP_COLUMNS, HEADLINES, TUNED_COLUMNS
from toxbench.evaluation.significance import Outcome
from toxbench.evaluation.thresholds import GLOBAL, HALF
from toxbench.ranking.build import MAIN_SCORES, build_leaderboard, load_leaderboard
from toxbench.ranking.cells import Cell
from toxbench.ranking.rows import SEEDS_NEEDED, Leaderboard, Row, Sampling, summarize_cells
from toxbench.report.leaderboard import leaderboard_tables
from toxbench.store.cells import CellStore
from toxbench.store.files import write_rows

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
                assert value is None or name in GAP_COLUMNS
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
    assert not {"micro_f1_global", "micro_f1_global_gap"} & set(row.uncertainty)
    assert {*HEADLINES, "micro_f1_gap"} <= set(row.uncertainty)


def test_scores_and_gaps_have_intervals() -> None:
    table = Table(200)
    average_precision = {"micro_average_precision": 0.5}
    cells = [
        (r.model_copy(update={"metrics": {rule: {part: {**scores, **average_precision}
                                                 for part, scores in parts.items()}
                                          for rule, parts in r.metrics.items()}}), t)
        for r, t in table.cells(seeds=(0, 1, 2))
    ]  # fmt: skip
    row = find_row(build(table, cells), "bert")
    expected = {*MAIN_SCORES, *TUNED_COLUMNS, *GAP_COLUMNS} - {"macro_f1"}  # which cells lack
    assert set(row.uncertainty) == expected
    for name, uncertainty in row.uncertainty.items():
        if name != "micro_average_precision":  # the stored value is made up
            assert uncertainty.low < mean_of(row, name) < uncertainty.high
        assert uncertainty.rows > 0
        assert uncertainty.seeds is not None
        assert uncertainty.seeds > 0


def test_excess_gap_is_without_that_of_no_label() -> None:
    table = Table(200)
    row = find_row(build(table, table.cells()), "bert")
    (fold,) = table.protocol.folds
    is_empty = ~table.comments.targets.any(axis=1)
    constant = is_empty[list(fold.train)].mean() - is_empty[list(fold.test)].mean()
    expected = mean_of(row, "subset_accuracy_gap") - constant
    assert mean_of(row, "subset_accuracy_excess_gap") == pytest.approx(expected)
    assert abs(constant) > 0.005


def test_log_loss_gap_is_test_minus_train() -> None:
    table = Table(200)
    ((record, tensors),) = table.cells()
    (fold,) = table.protocol.folds
    losses = {
        part: log_loss(table.comments.targets[list(getattr(fold, part))].ravel(),
                       tensors[part].ravel().clip(0.001, 0.999))
        for part in ("train", "test")
    }  # fmt: skip
    row = find_row(build(table, [(record, tensors)]), "bert")
    expected = losses["test"] - losses["train"]
    assert mean_of(row, "log_loss_gap") == pytest.approx(expected, abs=1e-4)


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
    assert leaderboard.verdicts == ()
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


def test_all_pairs_have_headline_verdicts() -> None:
    table = Table(200)
    skills = {"a": 0.9, "b": 0.3, "c": 0.3}
    leaderboard = build(table, *(table.cells(name, FIVE, skill=s) for name, s in skills.items()))
    pairs = {(v.metric, *sorted((v.main.first, v.main.second))): v for v in leaderboard.verdicts}
    assert len(leaderboard.verdicts) == len(pairs) == 6
    for (metric, *names), verdict in pairs.items():
        first, second = (find_row(leaderboard, name) for name in names)
        expected = mean_of(first, metric) - mean_of(second, metric)
        assert abs(verdict.main.difference) == pytest.approx(abs(expected))
        assert verdict.is_apart is ("a" in names)
        assert [d.metric for d in verdict.differences[:1]] == [metric]
        assert len(verdict.differences) == 2  # these cells have no average precision


def test_single_seed_gives_no_verdict() -> None:
    table = Table(200)
    strong, weak = table.cells("a", FIVE, skill=0.9), table.cells("b", (0,), skill=0.3)
    guess = table.cells("guess", kind="baseline", skill=0.0)
    leaderboard = build(table, strong, weak, guess)
    assert leaderboard.untested == ("b",)
    for verdict in leaderboard.verdicts:
        names = {verdict.main.first, verdict.main.second}
        assert verdict.is_apart is ("b" not in names)
        assert (verdict.outcome is Outcome.UNTESTED) is ("b" in names)
        assert all((d.p is None) is ("b" in names) for d in verdict.differences)


def test_constant_row_does_not_change_other_corrections() -> None:
    table = Table(200)
    cells = [table.cells(name, FIVE, skill=s) for name, s in (("a", 0.4), ("b", 0.35), ("c", 0.3))]
    constant = table.cells("never", kind="baseline", has_constant_predictions=True, skill=0.0)
    plain, joint = (
        {(v.main.first, v.main.second, v.metric): v.main.adjusted_p for v in board.verdicts}
        for board in (build(table, *cells), build(table, *cells, constant))
    )
    for pair, p in plain.items():
        assert joint[pair] == pytest.approx(p)
    assert len(joint) > len(plain)
    assert find_row(build(table, *cells, constant), "never").ranks is None


def test_ranks_are_those_of_tiers() -> None:
    table = Table(200)
    skills = {"a": 0.4, "b": 0.4, "c": 0.0}
    board = build(table, *(table.cells(name, FIVE, skill=s) for name, s in skills.items()))
    assert sum(row.best or 0 for row in board.rows) == pytest.approx(1)
    assert find_row(board, "c").ranks == (3, 3)
    assert find_row(board, "a").ranks == (1, 2)


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
    assert {v.main.p for v in leaderboard.verdicts} == {1.0}


# Groups


@pytest.mark.parametrize(("groups", "has_intervals"), [(2, False), (3, True)])
def test_too_few_groups_give_no_interval(groups: int, has_intervals: bool) -> None:
    table = Table(120)
    (fold,) = table.protocol.folds
    numbers = np.arange(120)
    numbers[list(fold.test)] = np.arange(len(fold.test)) % groups
    is_grouped = np.isin(numbers, range(groups))
    table.rows = replace(table.rows, groups=numbers, is_grouped=is_grouped)
    cells = table.cells("a", FIVE, skill=0.9) + table.cells("b", FIVE)
    leaderboard = build(table, cells)
    assert leaderboard.sampling == Sampling(groups, 0, pytest.approx(groups))
    assert bool(leaderboard.verdicts) is has_intervals
    row = leaderboard.rows[0]
    assert bool(row.uncertainty) is has_intervals
    assert (row.tier is None) is not has_intervals
    note = "\n".join(leaderboard_tables(leaderboard)[0].notes)
    assert ("No interval can be given" in note) is not has_intervals


# Degenerate tables


def test_single_test_row_has_no_interval() -> None:
    table = Table(10, test_size=0.1)
    leaderboard = build(table, table.cells("a", FIVE), table.cells("b", FIVE))
    assert len(table.protocol.folds[0].test) == 1
    assert all(row.uncertainty == {} and row.tier is None for row in leaderboard.rows)
    assert leaderboard.verdicts == ()


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
