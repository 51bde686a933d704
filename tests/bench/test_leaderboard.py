"""Seconds to print 1,000 stored cells: ``pytest tests/bench -m bench -s -k thousand``.

Times are of processes, with imports. The first print computes, the later ones read the cache.
"""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import pytest

from toxbench.data.protocol import Protocol
from toxbench.data.splits import draw_folds
from toxbench.data.table import TextDataset
from toxbench.evaluation.metrics import score_cell
from toxbench.evaluation.thresholds import choose_thresholds
from toxbench.records import PARTS, CellKey, CellRecord, Cost, Environment, EpochRecord, Part
from toxbench.settings import SplitSettings, TrainSettings
from toxbench.store.cells import CellStore

pytestmark = pytest.mark.bench

ROWS = 1_000
SHARES = (0.46, 0.35, 0.16, 0.14, 0.12, 0.12, 0.1, 0.06, 0.02, 0.01, 0.004, 0.0)
SHAPES = ((40, 25), (200, 5), (10, 100))  # candidates, seeds
MAX_SECONDS = 2.0  # seconds, for a re-print


def make_table() -> TextDataset:
    """Make a table of the YouTube table's size and shares of labels; no comments are grouped."""
    targets = (np.random.default_rng(0).random((ROWS, 12)) < np.array(SHARES)).astype(np.uint8)
    return TextDataset(
        name="made.csv",
        ids=tuple(f"c{row}" for row in range(ROWS)),
        texts=tuple(f"text {row}" for row in range(ROWS)),
        codes=targets,
        labels=tuple(f"Is{label}" for label in range(12)),
        groups=None,
        ignored_columns=(),
        columns={"text": "text", "id": "id", "group": None},
    )


def fill(folder: Path, candidates: int, seeds: int) -> None:
    """Store cells of candidates that differ in a setting and in skill."""
    comments = make_table()
    protocol = Protocol(comments, draw_folds(comments, SplitSettings()))
    store = CellStore(folder)
    store.prepare(protocol, synthetic=True)
    scored: CellRecord | None = None
    for candidate in range(candidates):
        learnt = TrainSettings(epochs=8, learning_rate=1e-5 * (candidate + 1))
        for seed in range(seeds):
            tensors = guess(protocol, candidate / candidates, candidate, seed)
            # All metrics of all rules take a second: measured once, which is as much to read.
            scored = scored or record(protocol, tensors, learnt)
            key = CellKey(candidate="bert", digest=f"{candidate:012x}", seed=seed)
            changes = {"key": key, "settings": learnt}
            store.write(scored.model_copy(update=changes), tensors)


def guess(
    protocol: Protocol, skill: float, candidate: int, seed: int
) -> dict[Part, npt.NDArray[np.float32]]:
    """Mix targets and noise, of each candidate and of each seed: part -> ``[row, label]``."""
    targets, fold = protocol.comments.targets, protocol.folds[0]
    shape = targets.shape
    candidate_noise = np.random.default_rng([1, candidate]).random(shape)
    noise = (candidate_noise + np.random.default_rng([2, candidate, seed]).random(shape)) / 2
    probabilities = (0.3 + 0.1 * skill) * targets + (0.7 - 0.1 * skill) * noise
    return {part: probabilities[fold.part(part)].astype(np.float32) for part in PARTS}


def record(
    protocol: Protocol, tensors: dict[Part, npt.NDArray[np.float32]], settings: TrainSettings
) -> CellRecord:
    """Score a cell as a run does."""
    comments, fold = protocol.comments, protocol.folds[0]
    targets = {part: comments.targets[fold.part(part)] for part in PARTS}
    thresholds = choose_thresholds(targets["validation"], tensors["validation"])
    scores = {"micro_f1": 0.5, "subset_accuracy": 0.5, "micro_average_precision": 0.5}
    return CellRecord(
        key=CellKey(candidate="bert", digest=""),
        kind="backbone",
        stochastic=True,
        distribution="toxbench 0.1.0",
        fingerprint=protocol.fingerprint,
        weights=None,
        parameters=22_700_000,
        settings=settings,
        environment=Environment(
            device="cpu", device_name="", precision="fp32", threads=1, versions={}, commit=None
        ),
        cost=Cost(
            train_seconds=1.0, evaluation_seconds=1.0, comments_per_second=1.0,
            peak_memory_bytes=None,
        ),
        epochs=tuple(
            EpochRecord(epoch=epoch, train_loss=0.5, validation=scores, seconds=1.0)
            for epoch in range(1, settings.epochs + 1)
        ),
        truncated_share=0.0,
        thresholds=thresholds,
        **score_cell(comments.labels, targets, tensors, thresholds),
    )  # fmt: skip


def seconds_to_print(folder: Path) -> float:
    """Print a folder's leaderboard with the real command."""
    command = [sys.executable, "-m", "toxbench", "leaderboard", str(folder)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


@pytest.mark.parametrize(("candidates", "seeds"), SHAPES)
def test_thousand_cells_print_within_two_seconds(
    candidates: int, seeds: int, tmp_path: Path
) -> None:
    fill(tmp_path, candidates, seeds)
    first = seconds_to_print(tmp_path)
    repeated = [seconds_to_print(tmp_path) for _ in range(5)]
    print(
        f"\n{candidates} candidates x {seeds} seeds: first print {first:.1f} s, again median "
        f"{median(repeated):.2f} s, {min(repeated):.2f} to {max(repeated):.2f} s"
    )
    assert median(repeated) < MAX_SECONDS
