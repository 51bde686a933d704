"""How time and memory of each stage grow with the table: 1,000 to 1,000,000 rows.

Run by hand: ``pytest tests/bench/test_growth.py -m bench -s``. Each size runs in a new process,
``python tests/bench/test_growth.py ROWS FOLDER``, which isolates its peak of memory; that command
with 2000000 checks only the limits. Comments are like those of the built-in sample, with many near
copies; the checkpoint is random and tiny, and predicts only a tenth of the rows, because other
benchmarks measure the time of a model for each row.
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
    from toxbench.store.files import PartProbabilities

pytestmark = pytest.mark.bench

SIZES = (1_000, 10_000, 100_000, 1_000_000)
CANDIDATES = 6
MAX_MEMORY = 6 * 1024  # MiB, of one process at 2,000,000 rows
MAX_SECONDS = {f"leaderboard of {CANDIDATES}, with intervals": 60.0}
HIGHEST_EXPONENT = 1.25  # linear, plus the cost of sorting and caches
NOISE = 0.05  # seconds at 10,000 rows below which a fit is only noise
SHORT = 0.5  # seconds below which a stage is run three times; the fastest run counts
Result = TypeVar("Result")


class Stages:
    """Seconds and peak memory (MiB) of each stage, by name."""

    def __init__(self) -> None:
        from toxbench.training.device import PeakMemory, choose_device

        self.device = choose_device("cpu")
        self.costs: dict[str, tuple[float, float]] = {}
        self._memory = PeakMemory(self.device)

    def run(self, name: str, stage: Callable[[], Result], repeatable: bool = True) -> Result:
        """Run a stage; a short one three times, if repeating it does the same work."""
        self._memory.start()
        fastest = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            result = stage()
            fastest = min(fastest, time.perf_counter() - started)
            if not repeatable or fastest > SHORT:
                break
        self.note(name, fastest)
        return result

    def note(self, name: str, seconds: float) -> None:
        """Record a stage that was timed elsewhere; the peak is since the last start."""
        self.costs[name] = (seconds, self._memory.read() / 2**20)


def measure(rows: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Run every stage on a table of ``rows`` rows."""
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
    return stages.costs


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
        return TrainerFactory(backbone, weights, protocol.comments, stages.device, "")

    stages.run("tokenise", lambda: bench().tokens(settings).pad_id, repeatable=False)
    stages.run("tokens from the cache", lambda: bench().tokens(settings).pad_id)
    sample = np.arange(len(protocol.comments) // 10)
    with bench().trainer(settings, 0) as trainer:
        stages.run("predict a tenth", lambda: trainer.predict(sample), repeatable=False)


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

    def simulate(seed: int) -> "PartProbabilities":
        draw = np.random.default_rng(seed)
        return {
            part: np.float32(0.3) * values
            + np.float32(0.65) * draw.random(values.shape, np.float32)
            for part, values in targets.items()
        }

    first = simulate(0)
    thresholds = stages.run(
        "choose thresholds", lambda: choose_thresholds(targets["validation"], first["validation"])
    )
    scored = stages.run(
        "score all parts",
        lambda: scores(comments.labels, targets, first, thresholds),
        repeatable=False,
    )
    cost = Cost(
        train_seconds=1.0, evaluation_seconds=1.0, comments_per_second=1.0, peak_memory_bytes=1
    )

    def cell(number: int) -> CellRecord:
        return CellRecord(
            key=CellKey(candidate=f"made-up-{number}", digest="0" * 12), kind="backbone",
            stochastic=True, distribution="none", fingerprint=protocol.fingerprint, weights=None,
            parameters=None,
            settings=None, environment=environment(stages.device), cost=cost, epochs=(),
            truncated_share=None, thresholds=thresholds, **scored,
        )  # fmt: skip

    store = CellStore(folder / "results")
    store.prepare(protocol, synthetic=True)
    stages.run("store a cell", lambda: store.write(cell(0), first))
    stages.run("read a cell", lambda: store.has(cell(0).key))
    for number in range(1, CANDIDATES):
        store.write(cell(number), simulate(number))
    name = f"leaderboard of {CANDIDATES}, with intervals"
    stages.run(name, lambda: load_leaderboard(store), repeatable=False)
    stages.run("test predictions of each candidate", lambda: len(load_predictions(store).rows))


def exponent(rows: tuple[int, ...], seconds: list[float]) -> float:
    """Fit seconds = a * rows ** exponent by least squares of the logarithms."""
    return float(np.polyfit(np.log(rows), np.log(seconds), 1)[0])


def test_time_grows_at_most_linearly(tmp_path: Path) -> None:
    tests = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(tests / "helpers")])
    costs = []
    for rows in SIZES:
        folder = tmp_path / str(rows)
        folder.mkdir()
        completed = subprocess.run(
            [sys.executable, __file__, str(rows), str(folder)],
            env={**os.environ, "PYTHONPATH": path, "TOXBENCH_CACHE": str(folder / "cache")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert completed.returncode == 0, completed.stderr
        costs.append(json.loads(completed.stdout.splitlines()[-1]))
    lines, fitted = [], {}
    for stage in costs[0]:
        seconds = [cost[stage][0] for cost in costs]
        power = exponent(SIZES, seconds)
        last = exponent(SIZES[-2:], seconds[-2:])
        lines.append(
            (stage, *(describe(cost[stage]) for cost in costs), f"{power:.2f}", f"{last:.2f}")
        )
        if seconds[1] >= NOISE:
            fitted[stage] = last
    headers = ("stage", *(f"{rows:,} rows" for rows in SIZES), "exponent", "of the last step")
    print(f"\n{tabulate(lines, headers=headers, tablefmt='github', disable_numparse=True)}")
    print("\nSeconds grow as rows ** exponent. Memory is the whole process's at its peak.")
    assert {stage: power for stage, power in fitted.items() if power > HIGHEST_EXPONENT} == {}
    assert over_limit(costs[-1]) == {}


def describe(stage: Sequence[float]) -> str:
    seconds, memory = stage
    return f"{seconds:.2f} s, {memory:,.0f} MiB"


def over_limit(costs: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Return the stages that exceed a limit, with their costs."""
    return {
        stage: describe(cost)
        for stage, cost in costs.items()
        if cost[1] > MAX_MEMORY or cost[0] > MAX_SECONDS.get(stage, float("inf"))
    }


if __name__ == "__main__":
    stage_costs = measure(int(sys.argv[1]), Path(sys.argv[2]))
    for stage_name, stage_cost in stage_costs.items():
        print(f"| {stage_name} | {describe(stage_cost)} |")
    print(json.dumps(stage_costs))
    sys.exit(1 if over_limit(stage_costs) else 0)
