"""Measurements, run by hand: ``pytest tests/bench -m bench -s``. Ratios of one run, interleaved."""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tabulate import tabulate

from toxbench.config import build_run_settings
from toxbench.data.table import read_comments
from toxbench.plugin.registry import Registry
from toxbench.settings import RunSettings

if TYPE_CHECKING:
    from speed_peers import Measured

    from toxbench.speed.measure import Task

pytestmark = pytest.mark.bench

REPEATS = 3
SIZES = {"MiniLM": None, "bert-base": (768, 12, 12)}  # hidden size, layers, heads
MIN_RATIOS = {
    "MiniLM": {"trainer": 1.6, "trainer-default": 5.0, "notebook": 15.0},
    "bert-base": {"trainer": 1.4, "notebook": 15.0},
}
HEADERS = (
    "trained by", "precision", "seconds/epoch", "train comments/s", "MFU", "peak memory",
    "toxbench is times faster",
)  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_toxbench_is_faster_than_its_peers(real_table: Path, size: str) -> None:
    pytest.importorskip("accelerate")
    from speed_shapes import random_checkpoint

    settings = settings_of(real_table, "stand-in")
    if SIZES[size] is None:
        times = compare(settings, REPEATS)
    else:
        with random_checkpoint(task_of(settings).folder, *SIZES[size]) as folder:
            times = compare(settings_of(real_table, f"bert={folder}"), REPEATS)
    assert {
        name: times[name] for name, least in MIN_RATIOS[size].items() if times[name] < least
    } == {}


def settings_of(table: Path, weights: str, **train: object) -> RunSettings:
    flags = {"data": table, "weights": (weights,), "backbones": ("bert",),
             "train": {"epochs": 3, "head_init": "random", **train},
             "split": {"validation_size": 0.0}}  # fmt: skip
    return build_run_settings({}, flags)


def task_of(settings: RunSettings) -> "Task":
    from toxbench.benchmark.validate import resolve
    from toxbench.speed.measure import speed_tasks

    (task,) = speed_tasks(resolve(settings, Registry.discover()))
    return task


def compare(settings: RunSettings, repeats: int) -> dict[str, float]:
    """Measure start-up, toxbench and its peers; return how many times faster toxbench is."""
    from speed_peers import (
        DefaultTrainerPeer,
        NotebookPeer,
        ToxbenchLoop,
        TrainerPeer,
        measure_in_turn,
    )
    from speed_startup import startup_seconds

    task = task_of(settings)
    starts = [startup_seconds(settings, task.candidate.name) for _ in range(repeats)]
    loop = ToxbenchLoop(task)
    variants = [loop, TrainerPeer(task), DefaultTrainerPeer(task), NotebookPeer(task)]
    reference, *peers = measure_in_turn(task, variants, repeats)
    lines = [line_of(task, measured, reference) for measured in (reference, *peers)]
    print(f"\n{tabulate(lines, headers=HEADERS, tablefmt='github', disable_numparse=True)}\n")
    stages = (f"{stage} {median(start[stage] for start in starts):.1f}" for stage in starts[0])
    print(f"Start-up, seconds: {', '.join(stages)}")
    rates = [len(task.comments) / seconds for seconds in loop.evaluation_seconds]
    print(f"Evaluation, comments/s: {spread(rates)}; device: {task.device.name}")
    return {peer.variant.name: median(peer.times_slower(reference)) for peer in peers}


def line_of(task: "Task", measured: "Measured", reference: "Measured") -> tuple[str, ...]:
    from toxbench.training.device import matrix_peak

    variant, rows, epoch = measured.variant, len(task.rows), median(measured.epochs)
    peak = matrix_peak(variant.device)
    sample = f" ({variant.comments} comments timed)" if variant.comments < rows else ""
    return (
        f"{variant.name}{sample}",
        variant.device.precision,
        spread(measured.epochs),
        f"{rows / epoch:.1f}",
        f"{task.share_of_peak(epoch, peak):.0%} of {peak / 1e9:.0f} GFLOP/s",
        f"{measured.peak_memory_bytes / 2**20:.0f} MiB",
        "-" if measured is reference else spread(measured.times_slower(reference)),
    )


def spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def test_million_rows_are_validated_within_a_minute(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "million.csv"
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("CommentId,Text," + ",".join(f"Is{i}" for i in range(12)) + "\n")
        for start in range(0, 1_000_000, 10_000):
            labels = rng.random((10_000, 12)) < 0.1
            file.writelines(
                f'c{start + i},"comment {start + i}, {"word " * (i % 40)}",'
                + ",".join(map(str, row)) + "\n"
                for i, row in enumerate(labels)
            )  # fmt: skip
    started = time.perf_counter()
    comments = read_comments(path)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n1,000,000 rows x 12 labels: {seconds:.1f} s, process peak {peak:.2f} GiB")
    assert len(comments) == 1_000_000
    assert seconds < 60
    assert peak < 4
