"""The time left of a run: what was measured, over the cells that remain."""

from pathlib import Path

import pytest

from toxbench.benchmark.estimate import TimeLeft, operations
from toxbench.benchmark.plan import Plan, make_plan
from toxbench.benchmark.validate import resolve
from toxbench.config import build_run_settings
from toxbench.plugin.registry import Registry
from toxbench.records import CellKey, EpochRecord


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def key(seed: int) -> CellKey:
    return CellKey(candidate="bert", digest="0" * 12, seed=seed)


class Run:
    """Cells of 8 operations each, reported to a `TimeLeft`."""

    def __init__(self, cells: int) -> None:
        self.clock = Clock()
        self.left = TimeLeft({key(seed): 8.0 for seed in range(cells)}, self.clock)

    def train(self, seed: int, *epochs: int, each: float = 10.0) -> None:
        for number in epochs:
            self.clock.now += each
            self.report(seed, number, each)

    def report(self, seed: int, number: int, seconds: float) -> None:
        record = EpochRecord(epoch=number, train_loss=0.5, validation={}, seconds=seconds)
        self.left.finish_epoch(key(seed), record)


def test_nothing_is_estimated_before_an_epoch() -> None:
    run = Run(2)
    assert run.left.seconds() is None
    run.left.start(key(0), 4)
    run.clock.now += 60
    assert run.left.seconds() is None


def test_first_epoch_estimates_all_cells() -> None:
    run = Run(3)
    run.left.start(key(0), 4)
    run.train(0, 1)
    assert run.left.seconds() == pytest.approx(10 * (3 + 4 + 4))


def test_set_up_and_evaluation_count_with_the_cell() -> None:
    run = Run(2)
    run.left.start(key(0), 2)
    run.clock.now += 7
    run.train(0, 1, 2)
    assert run.left.seconds() == pytest.approx(20)
    run.clock.now += 5
    run.left.finish(key(0))
    assert run.left.seconds() == pytest.approx(7 + 20 + 5)
    run.left.start(key(1), 2)
    run.train(1, 1, 2)
    run.left.finish(key(1))
    assert run.left.seconds() == 0


def test_validation_counts_with_the_epoch() -> None:
    run = Run(1)
    run.left.start(key(0), 3)
    run.train(0, 1)
    run.clock.now += 4  # validation and training of the second epoch
    run.report(0, 2, 3.0)
    assert run.left.seconds() == pytest.approx((10 + 4) / 2)


def test_larger_cells_take_longer() -> None:
    run = Run(1)
    run.left = TimeLeft({key(0): 1.0, key(1): 10.0}, run.clock)
    run.left.start(key(0), 2)
    run.train(0, 1)
    assert run.left.seconds() == pytest.approx(10 + 200)


@pytest.mark.parametrize(("cells", "cells_in_a_row"), [(3, 1), (4, 2), (6, 2), (7, 3)])
def test_cells_at_once_share_the_time(cells: int, cells_in_a_row: int) -> None:
    run = Run(cells)
    for seed in range(3):
        run.left.start(key(seed), 2)
    for seed in range(3):
        run.report(seed, 1, 10.0)
    assert run.left.seconds() == pytest.approx(20 * cells_in_a_row - 10)


def test_last_cell_does_not_get_faster() -> None:
    run = Run(2)
    for seed in range(2):
        run.left.start(key(seed), 4)
    for seed in range(2):
        run.report(seed, 1, 10.0)
    run.left.drop(key(0))
    assert run.left.seconds() == pytest.approx(30)


def test_baselines_count_as_nothing() -> None:
    run = Run(1)
    baseline = CellKey(candidate="tfidf", digest="1" * 12)
    run.left.start(baseline, None)
    run.left.start(key(0), 2)
    run.train(0, 1)
    run.left.finish(baseline)
    assert run.left.seconds() == pytest.approx(10)


def test_resumed_epochs_count_with_their_own_seconds() -> None:
    run = Run(1)
    run.left.start(key(0), 4)
    for number in (1, 2):
        run.report(0, number, 20.0)
    assert run.left.seconds() == pytest.approx(40)


def test_repeated_training_starts_over() -> None:
    """After a lack of memory, the epochs of a cell are counted from 1 again."""
    run = Run(1)
    run.left.start(key(0), 4)
    run.train(0, 1, 2, 1)
    assert run.left.seconds() == pytest.approx(30)


def test_early_stopping_ends_a_cell() -> None:
    run = Run(2)
    run.left.start(key(0), 4)
    run.train(0, 1)
    run.left.finish(key(0))
    assert run.left.seconds() == pytest.approx(40)


def plan_of(folder: Path, table: Path, checkpoint: Path, **train: int) -> Plan:
    flags = {
        "data": table, "backbones": ("bert",), "baselines": (), "results": folder / "results",
        "weights": (f"bert={checkpoint}",), "device": "cpu", "train": train,
    }  # fmt: skip
    return make_plan(resolve(build_run_settings({}, flags), Registry.discover()))


def test_operations_grow_with_epochs_and_tokens(
    tmp_path: Path, table: Path, checkpoint: Path
) -> None:
    def count(**train: int) -> float:
        plan = plan_of(tmp_path, table, checkpoint, **train)
        return operations(plan, plan.missing)

    assert count(epochs=1) < count(epochs=2) < 2 * count(epochs=1)  # test rows are scored once
    assert count(max_length=8) < count(max_length=64)
