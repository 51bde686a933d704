"""The time left of a run: what was measured, over the cells that remain."""

from pathlib import Path

import pytest

from toxbench.benchmark.estimate import TimeLeft, operations
from toxbench.benchmark.plan import Plan, make_plan
from toxbench.layers import run_settings
from toxbench.plugin.registry import Registry
from toxbench.records import CellKey, EpochRecord


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def key(seed: int) -> CellKey:
    return CellKey(candidate="bert", digest="0" * 12, seed=seed)


def epoch(number: int, seconds: float = 0.0) -> EpochRecord:
    return EpochRecord(epoch=number, train_loss=0.5, validation={}, seconds=seconds)


def equal_cells(count: int, clock: Clock) -> TimeLeft:
    return TimeLeft({key(seed): 8.0 for seed in range(count)}, clock)


def test_nothing_is_estimated_before_an_epoch(clock: Clock) -> None:
    left = equal_cells(2, clock)
    assert left.seconds() is None
    left.start(key(0), 4)
    clock.now += 60
    assert left.seconds() is None


def test_first_epoch_estimates_all_cells(clock: Clock) -> None:
    left = equal_cells(3, clock)
    left.start(key(0), 4)
    clock.now += 10
    left.finish_epoch(key(0), epoch(1))
    assert left.seconds() == pytest.approx(10 * (3 + 4 + 4))


def test_time_after_last_epoch_counts(clock: Clock) -> None:
    left = equal_cells(2, clock)
    left.start(key(0), 1)
    clock.now += 10
    left.finish_epoch(key(0), epoch(1))
    assert left.seconds() == pytest.approx(10)
    clock.now += 5
    left.finish(key(0))
    assert left.seconds() == pytest.approx(15)
    left.start(key(1), 1)
    clock.now += 15
    left.finish_epoch(key(1), epoch(1))
    left.finish(key(1))
    assert left.seconds() == 0


def test_larger_cells_take_longer(clock: Clock) -> None:
    left = TimeLeft({key(0): 1.0, key(1): 10.0}, clock)
    left.start(key(0), 2)
    clock.now += 3
    left.finish_epoch(key(0), epoch(1))
    assert left.seconds() == pytest.approx(3 + 60)


@pytest.mark.parametrize(("cells", "cells_in_a_row"), [(3, 1), (4, 2), (6, 2), (7, 3)])
def test_cells_at_once_share_the_time(clock: Clock, cells: int, cells_in_a_row: int) -> None:
    left = equal_cells(cells, clock)
    for seed in range(3):
        left.start(key(seed), 2)
    clock.now += 10
    for seed in range(3):
        left.finish_epoch(key(seed), epoch(1))
    assert left.seconds() == pytest.approx(20 * cells_in_a_row - 10)


def test_last_cell_does_not_get_faster(clock: Clock) -> None:
    left = equal_cells(2, clock)
    left.start(key(0), 4)
    left.start(key(1), 4)
    clock.now += 10
    left.finish_epoch(key(0), epoch(1))
    left.finish_epoch(key(1), epoch(1))
    left.drop(key(0))
    assert left.seconds() == pytest.approx(30)


def test_baselines_count_as_nothing(clock: Clock) -> None:
    left = equal_cells(1, clock)
    baseline = CellKey(candidate="tfidf", digest="1" * 12)
    left.start(baseline, None)
    left.start(key(0), 2)
    clock.now += 10
    left.finish_epoch(key(0), epoch(1))
    left.finish(baseline)
    assert left.seconds() == pytest.approx(10)


def test_resumed_epochs_count_with_their_own_seconds(clock: Clock) -> None:
    left = equal_cells(1, clock)
    left.start(key(0), 4)
    clock.now += 1
    left.finish_epoch(key(0), epoch(1, seconds=20))
    left.finish_epoch(key(0), epoch(2, seconds=20))
    assert left.seconds() == pytest.approx(40)


def test_repeated_training_starts_over(clock: Clock) -> None:
    """As after a lack of memory: the epochs are counted from 1 in the same cell."""
    left = equal_cells(1, clock)
    left.start(key(0), 4)
    for number in (1, 2, 1):
        clock.now += 10
        left.finish_epoch(key(0), epoch(number))
    assert left.seconds() == pytest.approx(30)


def test_early_stopping_ends_a_cell(clock: Clock) -> None:
    left = equal_cells(2, clock)
    left.start(key(0), 4)
    clock.now += 10
    left.finish_epoch(key(0), epoch(1))
    left.finish(key(0))
    assert left.seconds() == pytest.approx(40)


def plan_of(folder: Path, table: Path, checkpoint: Path, **train: int) -> Plan:
    flags = {
        "data": table, "backbones": ("bert",), "baselines": (), "results": folder / "results",
        "weights": (f"bert={checkpoint}",), "device": "cpu", "train": train,
    }  # fmt: skip
    return make_plan(run_settings({}, flags), Registry.discover())


def test_operations_grow_with_epochs_and_tokens(
    tmp_path: Path, table: Path, checkpoint: Path
) -> None:
    def count(**train: int) -> float:
        plan = plan_of(tmp_path, table, checkpoint, **train)
        return operations(plan, plan.missing)

    assert count(epochs=1) < count(epochs=2) < 2 * count(epochs=1)  # test rows are scored once
    assert count(max_length=8) < count(max_length=64)
