"""The estimate of the time that the rest of a run takes."""

from pathlib import Path

import pytest

from toxbench.benchmark.plan import Plan, make_plan
from toxbench.benchmark.resources import TimeLeft, count_operations
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
        self.time_left = TimeLeft({key(seed): 8.0 for seed in range(cells)}, self.clock)

    def train(self, seed: int, *epochs: int, seconds: float = 10.0) -> None:
        for number in epochs:
            self.clock.now += seconds
            self.report(seed, number, seconds)

    def report(self, seed: int, number: int, seconds: float) -> None:
        record = EpochRecord(epoch=number, train_loss=0.5, validation={}, seconds=seconds)
        self.time_left.finish_epoch(key(seed), record)


def test_no_estimate_before_first_epoch() -> None:
    run = Run(2)
    assert run.time_left.seconds() is None
    run.time_left.start(key(0), 4)
    run.clock.now += 60
    assert run.time_left.seconds() is None


def test_first_epoch_estimates_all_cells() -> None:
    run = Run(3)
    run.time_left.start(key(0), 4)
    run.train(0, 1)
    assert run.time_left.seconds() == pytest.approx(10 * (3 + 4 + 4))


def test_setup_and_evaluation_count_with_cell() -> None:
    run = Run(2)
    run.time_left.start(key(0), 2)
    run.clock.now += 7
    run.train(0, 1, 2)
    assert run.time_left.seconds() == pytest.approx(20)
    run.clock.now += 5
    run.time_left.finish(key(0))
    assert run.time_left.seconds() == pytest.approx(7 + 20 + 5)
    run.time_left.start(key(1), 2)
    run.train(1, 1, 2)
    run.time_left.finish(key(1))
    assert run.time_left.seconds() == 0


def test_validation_counts_with_epoch() -> None:
    run = Run(1)
    run.time_left.start(key(0), 3)
    run.train(0, 1)
    run.clock.now += 4  # validation and training of the second epoch
    run.report(0, 2, 3.0)
    assert run.time_left.seconds() == pytest.approx((10 + 4) / 2)


def test_larger_cells_take_longer() -> None:
    run = Run(1)
    run.time_left = TimeLeft({key(0): 1.0, key(1): 10.0}, run.clock)
    run.time_left.start(key(0), 2)
    run.train(0, 1)
    assert run.time_left.seconds() == pytest.approx(10 + 200)


@pytest.mark.parametrize(("cells", "cells_in_a_row"), [(3, 1), (4, 2), (6, 2), (7, 3)])
def test_parallel_cells_share_time(cells: int, cells_in_a_row: int) -> None:
    run = Run(cells)
    for seed in range(3):
        run.time_left.start(key(seed), 2)
    for seed in range(3):
        run.report(seed, 1, 10.0)
    assert run.time_left.seconds() == pytest.approx(20 * cells_in_a_row - 10)


def test_last_cell_uses_one_worker() -> None:
    run = Run(2)
    for seed in range(2):
        run.time_left.start(key(seed), 4)
    for seed in range(2):
        run.report(seed, 1, 10.0)
    run.time_left.drop(key(0))
    assert run.time_left.seconds() == pytest.approx(30)


def test_baselines_count_as_no_work() -> None:
    run = Run(1)
    baseline = CellKey(candidate="tfidf", digest="1" * 12)
    run.time_left.start(baseline, None)
    run.time_left.start(key(0), 2)
    run.train(0, 1)
    run.time_left.finish(baseline)
    assert run.time_left.seconds() == pytest.approx(10)


def test_resumed_epochs_count_recorded_seconds() -> None:
    run = Run(1)
    run.time_left.start(key(0), 4)
    for number in (1, 2):
        run.report(0, number, 20.0)
    assert run.time_left.seconds() == pytest.approx(40)


def test_repeated_training_starts_over() -> None:
    """After a lack of memory, the epochs of a cell are counted from 1 again."""
    run = Run(1)
    run.time_left.start(key(0), 4)
    run.train(0, 1, 2, 1)
    assert run.time_left.seconds() == pytest.approx(30)


def test_early_stopping_ends_cell() -> None:
    run = Run(2)
    run.time_left.start(key(0), 4)
    run.train(0, 1)
    run.time_left.finish(key(0))
    assert run.time_left.seconds() == pytest.approx(40)


def make_small_plan(folder: Path, table: Path, checkpoint: Path, **train: object) -> Plan:
    flags = {
        "data": table, "backbones": ("bert",), "baselines": (), "results": folder / "results",
        "weights": (f"bert={checkpoint}",), "device": "cpu", "train": train,
    }  # fmt: skip
    return make_plan(resolve(build_run_settings({}, flags), Registry.discover()))


def test_operations_grow_with_epochs_and_tokens(
    tmp_path: Path, table: Path, checkpoint: Path
) -> None:
    def count(**train: object) -> float:
        plan = make_small_plan(tmp_path, table, checkpoint, **train)
        return count_operations(plan, plan.missing)

    assert count(epochs=1) < count(epochs=2) < 2 * count(epochs=1)  # test rows are scored once
    assert count(max_length=8) < count(max_length=64)
    for padding in ("bucket", "max_length"):
        head, both_ends, windows = (
            count(max_length=8, long_text=long_text, padding=padding)
            for long_text in ("head", "head-tail", "windows")
        )
        assert head == both_ends < windows
