"""How time and memory of each stage grow with the table: 1,000 to 1,000,000 rows.

Run by hand: ``pytest tests/bench/test_growth.py -m bench -s``. Each size has a process of its own,
``python tests/bench/test_growth.py ROWS FOLDER``, so that a peak is that size's; that command with
2000000 checks the limits alone. Comments are made as the built-in sample makes them, with many
near copies; the checkpoint is random and tiny, and predicts a tenth of the rows only, because
what a model takes for a row is asked elsewhere.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pytest
from tabulate import tabulate

if TYPE_CHECKING:
    from toxbench.data.protocol import Protocol
    from toxbench.store.cell_file import PartProbabilities

pytestmark = pytest.mark.bench

SIZES = (1_000, 10_000, 100_000, 1_000_000)
CANDIDATES = 6
MOST_MEMORY = 6 * 1024  # MiB, of one process at 2,000,000 rows
MOST_SECONDS = {f"leaderboard of {CANDIDATES}, with intervals": 60.0}
HIGHEST_EXPONENT = 1.25  # linear, with what sorting and caches add
NOISE = 0.05  # seconds at 10,000 rows below which a fit says nothing
SHORT = 0.5  # seconds below which a stage is run three times, and the fastest one counts
Result = TypeVar("Result")


class Stages:
    """Seconds and peak memory of what was run, by name."""

    def __init__(self) -> None:
        from toxbench.training.device import PeakMemory, choose_device

        self.device = choose_device("cpu")
        self.found: dict[str, tuple[float, float]] = {}
        self._memory = PeakMemory(self.device)

    def run(self, name: str, stage: Callable[[], Result], again: bool = True) -> Result:
        """Run a stage; a short one three times, if it does the same again."""
        self._memory.start()
        fastest = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            result = stage()
            fastest = min(fastest, time.perf_counter() - started)
            if not again or fastest > SHORT:
                break
        self.note(name, fastest)
        return result

    def note(self, name: str, seconds: float) -> None:
        """Keep a stage that was timed elsewhere; the peak is since the last start."""
        self.found[name] = (seconds, self._memory.read() / 2**20)


def measure(rows: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Run every stage on a table of so many rows."""
    from large import write_table

    from toxbench.data.audit import audit
    from toxbench.data.groups import row_groups
    from toxbench.data.protocol import Protocol
    from toxbench.data.splits import draw_folds
    from toxbench.data.table import read_comments
    from toxbench.settings import SplitSettings

    stages = Stages()
    csv, parquet = folder / "comments.csv", folder / "comments.parquet"
    write_table(csv, rows)
    write_table(parquet, rows)
    stages.run("read and validate CSV", lambda: len(read_comments(csv)))
    comments = stages.run("read and validate Parquet", lambda: read_comments(parquet))
    for kind in ("stratified", "grouped", "random"):
        split = SplitSettings(split=kind)
        folds = stages.run(f"split, {kind}", lambda split=split: draw_folds(comments, split))
    protocol = Protocol(comments, folds)
    stages.run("fingerprint", lambda: Protocol(comments, folds).fingerprint)
    stages.run("groups", lambda: row_groups(comments))
    stages.run("audit", lambda: audit(comments, folds))
    run_model(stages, folder, protocol)
    run_store(stages, folder, protocol)
    return stages.found


def run_model(stages: Stages, folder: Path, protocol: "Protocol") -> None:
    """Tokenise, and predict some rows with a tiny checkpoint."""
    from support import write_checkpoint

    from toxbench.benchmark.trainer_factory import TrainerFactory
    from toxbench.plugin.contracts import Backbone
    from toxbench.records import WeightsRecord
    from toxbench.settings import TrainSettings
    from toxbench.training.weights import Weights

    record = WeightsRecord(source="local", label="tiny", identity="0" * 64)
    weights = Weights(record, write_checkpoint(folder / "tiny"), {})
    backbone = Backbone(name="tiny", checkpoint="tiny")
    settings = TrainSettings(max_length=64)

    def bench() -> TrainerFactory:
        return TrainerFactory(backbone, weights, protocol.comments, stages.device)

    stages.run("tokenise", lambda: bench().tokens(64).pad_id, again=False)
    stages.run("tokens from the cache", lambda: bench().tokens(64).pad_id)
    some = np.arange(len(protocol.comments) // 10)
    with bench().trainer(settings, 0) as trainer:
        stages.run("predict a tenth", lambda: trainer.predict(some), again=False)


def run_store(stages: Stages, folder: Path, protocol: "Protocol") -> None:
    """Score, store and compare made-up probabilities of all rows."""
    from toxbench.benchmark.cell import environment
    from toxbench.evaluation.metrics import score_cell as scores
    from toxbench.evaluation.thresholds import choose_thresholds
    from toxbench.ranking.build import load_leaderboard
    from toxbench.ranking.predictions import load_predictions
    from toxbench.records import PARTS, CellKey, CellRecord, Cost
    from toxbench.store.cells import CellStore

    comments, (split,) = protocol.comments, protocol.folds
    targets = {part: comments.targets[split.part(part)] for part in PARTS}

    def said(seed: int) -> "PartProbabilities":
        draw = np.random.default_rng(seed)
        return {
            part: np.float32(0.3) * own + np.float32(0.65) * draw.random(own.shape, np.float32)
            for part, own in targets.items()
        }

    first = said(0)
    thresholds = stages.run(
        "choose thresholds", lambda: choose_thresholds(targets["validation"], first["validation"])
    )
    found = stages.run(
        "score all parts", lambda: scores(comments.labels, targets, first, thresholds), again=False
    )
    cost = Cost(
        train_seconds=1.0, evaluation_seconds=1.0, comments_per_second=1.0, peak_memory_bytes=1
    )

    def cell(number: int) -> CellRecord:
        return CellRecord(
            key=CellKey(candidate=f"made-up-{number}", digest="0" * 12), kind="backbone",
            distribution="none", fingerprint=protocol.fingerprint, weights=None, parameters=None,
            settings=None, environment=environment(stages.device), cost=cost, epochs=(),
            best_epoch=None, truncated_share=None, thresholds=thresholds, **found,
        )  # fmt: skip

    store = CellStore(folder / "results")
    store.prepare(protocol, synthetic=True)
    stages.run("store a cell", lambda: store.write(cell(0), first))
    stages.run("read a cell", lambda: store.has(cell(0).key))
    for number in range(1, CANDIDATES):
        store.write(cell(number), said(number))
    name = f"leaderboard of {CANDIDATES}, with intervals"
    stages.run(name, lambda: load_leaderboard(store), again=False)
    stages.run("what each said of test rows", lambda: len(load_predictions(store).rows))


def exponent(rows: tuple[int, ...], seconds: list[float]) -> float:
    """Fit seconds = a * rows ** exponent by least squares of the logarithms."""
    return float(np.polyfit(np.log(rows), np.log(seconds), 1)[0])


def test_time_grows_no_faster_than_the_table(tmp_path: Path) -> None:
    tests = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(tests / "helpers")])
    found = []
    for rows in SIZES:
        folder = tmp_path / str(rows)
        folder.mkdir()
        completed = subprocess.run(
            [sys.executable, __file__, str(rows), str(folder)],
            env={**os.environ, "PYTHONPATH": path, "TOXBENCH_CACHE": str(folder / "cache")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert completed.returncode == 0, completed.stderr
        found.append(json.loads(completed.stdout.splitlines()[-1]))
    lines, fitted = [], {}
    for stage in found[0]:
        seconds = [one[stage][0] for one in found]
        power = exponent(SIZES, seconds)
        last = exponent(SIZES[-2:], seconds[-2:])
        lines.append((stage, *(shown(one[stage]) for one in found), f"{power:.2f}", f"{last:.2f}"))
        if seconds[1] >= NOISE:
            fitted[stage] = last
    headers = ("stage", *(f"{rows:,} rows" for rows in SIZES), "exponent", "of the last step")
    print(f"\n{tabulate(lines, headers=headers, tablefmt='github', disable_numparse=True)}")
    print("\nSeconds grow as rows ** exponent. Memory is the whole process's at its peak.")
    assert {stage: power for stage, power in fitted.items() if power > HIGHEST_EXPONENT} == {}
    assert beyond(found[-1]) == {}


def shown(stage: Sequence[float]) -> str:
    seconds, memory = stage
    return f"{seconds:.2f} s, {memory:,.0f} MiB"


def beyond(found: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Name the stages that take more than they may."""
    return {
        stage: shown(own)
        for stage, own in found.items()
        if own[1] > MOST_MEMORY or own[0] > MOST_SECONDS.get(stage, float("inf"))
    }


if __name__ == "__main__":
    stages_found = measure(int(sys.argv[1]), Path(sys.argv[2]))
    for stage_name, own_figures in stages_found.items():
        print(f"| {stage_name} | {shown(own_figures)} |")
    print(json.dumps(stages_found))
    sys.exit(1 if beyond(stages_found) else 0)
