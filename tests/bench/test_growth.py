"""How time and memory of each stage grow with the table: 1,000, 10,000 and 100,000 rows.

Run by hand: ``pytest tests/bench/test_growth.py -m bench -s``. Each size has a process of its own,
``python tests/bench/test_growth.py ROWS FOLDER``, so that a peak is that size's. All texts are
made up here; the checkpoint is random and tiny, and trained on 256 rows only: what is asked is how
the rest grows.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from tabulate import tabulate

pytestmark = pytest.mark.bench

SIZES = (1_000, 10_000, 100_000)
TRAINED = 256
LABELS = 12
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


def write_rows(path: Path, rows: int) -> None:
    """Write made-up comments of very different lengths, with twelve labels and videos.

    Few of 25,600 words are frequent, as in a language; the tiny checkpoint's tokenizer spells them,
    so that a comment has about 45 tokens.
    """
    rng = np.random.default_rng(0)
    parts = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in ("r", "st", "ck", "n")]
    words = [first + second for first in parts for second in parts]
    lengths = np.clip(rng.lognormal(1.6, 0.9, rows), 2, 400).astype(int)
    labels = rng.random((rows, LABELS)) < np.linspace(0.4, 0.01, LABELS)
    with path.open("w", encoding="utf-8") as file:
        file.write("CommentId,VideoId,Text," + ",".join(f"Is{i}" for i in range(LABELS)) + "\n")
        for row, (length, own) in enumerate(zip(lengths, labels, strict=True)):
            ranks = (len(words) ** rng.random(length)).astype(int) - 1  # Zipf's law, roughly
            text = " ".join(words[rank] for rank in ranks.tolist())
            marks = ",".join("1" if label else "0" for label in own)
            file.write(f"c{row},v{row // 40},{text},{marks}\n")


def measure(rows: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Run every stage on a table of so many rows."""
    from support import write_checkpoint

    from toxbench.benchmark.candidate import BackboneCandidate
    from toxbench.benchmark.cell import CellRunner
    from toxbench.benchmark.plan import make_protocol
    from toxbench.benchmark.workbench import Workbench
    from toxbench.data.audit import audit
    from toxbench.data.folds import draw_folds
    from toxbench.data.split import Split
    from toxbench.data.table import read_comments
    from toxbench.evaluation.metrics import measure as scores
    from toxbench.plugin.backbone import Backbone
    from toxbench.records import PARTS, WeightsRecord
    from toxbench.settings import SplitSettings, TrainSettings
    from toxbench.store.cells import CellStore
    from toxbench.store.ranking import load_leaderboard
    from toxbench.training.weights import Weights

    stages = Stages()
    path = folder / "comments.csv"
    write_rows(path, rows)
    comments = stages.run("read and validate", lambda: read_comments(path))
    folds = stages.run("split", lambda: draw_folds(comments, SplitSettings()))
    stages.run("fingerprint", lambda: make_protocol(comments, folds).fingerprint)
    stages.run("audit", lambda: audit(comments, folds))

    record = WeightsRecord(source="local", label="tiny", identity="0" * 64)
    weights = Weights(record, write_checkpoint(folder / "tiny"), {})
    candidate = BackboneCandidate(
        backbone=Backbone(name="tiny", checkpoint="tiny"), distribution="none", weights=weights,
        settings=TrainSettings(epochs=1),
    )  # fmt: skip
    bench = Workbench(candidate.backbone, weights, comments, stages.device)
    stages.run("tokenise", lambda: bench.tokens(128), again=False)

    # Trained on some rows, tested on all others.
    order = np.random.default_rng(0).permutation(rows)
    split = Split(order[:TRAINED], order[TRAINED : 2 * TRAINED], order[2 * TRAINED :])
    protocol = make_protocol(comments, (split,))
    runner = CellRunner(candidate, protocol, stages.device)
    cell, probabilities = stages.run(
        "build, train, evaluate and score",
        lambda: runner.run(candidate.key(0, 0), lambda epoch: None),
        again=False,
    )
    stages.note(f"of which train on {TRAINED} rows", cell.cost.train_seconds)
    stages.note("of which evaluate", cell.cost.evaluation_seconds)
    targets = {part: comments.targets[split.part(part)] for part in PARTS}
    stages.run(
        "score", lambda: scores(comments.labels, targets, probabilities, cell.thresholds), False
    )

    store = CellStore(folder / "results")
    store.prepare(protocol, synthetic=True)
    stages.run("store a cell", lambda: store.write(cell, probabilities))
    stages.run("leaderboard", lambda: load_leaderboard(store))
    return stages.found


def exponent(rows: tuple[int, ...], seconds: list[float]) -> float:
    """Fit seconds = a * rows ** exponent by least squares of the logarithms."""
    return float(np.polyfit(np.log(rows), np.log(seconds), 1)[0])


def test_time_grows_no_faster_than_the_table(tmp_path: Path) -> None:
    tests = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), tests])
    found = []
    for rows in SIZES:
        folder = tmp_path / str(rows)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, __file__, str(rows), str(folder)],
            env={**os.environ, "PYTHONPATH": path, "TOXBENCH_CACHE": str(folder / "cache")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    lines, fitted = [], {}
    for stage in found[0]:
        seconds = [one[stage][0] for one in found]
        power = exponent(SIZES, seconds)
        last = exponent(SIZES[-2:], seconds[-2:])
        cells = [
            f"{s:.3f} s, {one[stage][1]:.0f} MiB" for s, one in zip(seconds, found, strict=True)
        ]
        lines.append((stage, *cells, f"{power:.2f}", f"{last:.2f}"))
        if seconds[1] >= NOISE:
            fitted[stage] = power
    headers = ("stage", *(f"{rows:,} rows" for rows in SIZES), "exponent", "of the last step")
    print(f"\n{tabulate(lines, headers=headers, disable_numparse=True)}")
    print("Seconds grow as rows ** exponent. Memory is the whole process's at its peak.")
    assert {stage: power for stage, power in fitted.items() if power > HIGHEST_EXPONENT} == {}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), Path(sys.argv[2]))))
