"""Baselines on large tables: the rows on which they are fitted, and their predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support import make_comments

from toxbench.benchmark.candidates import BaselineCandidate, CellTask
from toxbench.benchmark.cell import CellRunner
from toxbench.data.protocol import Protocol
from toxbench.data.splits import draw_folds
from toxbench.plugin.baseline import Baseline, BaselineContext
from toxbench.ranking.build import load_leaderboard
from toxbench.records import PARTS
from toxbench.store.cells import CellStore
from toxbench.store.files import read_cell
from toxbench.training.device import choose_device
from toxbench.util.processes import SignalStop

Probabilities = npt.NDArray[np.float64]


class RecordingBaseline:
    """Records the arguments of its calls; predicts for each text the number of its row."""

    def __init__(self) -> None:
        self.fits: list[tuple[list[str], npt.NDArray[np.uint8]]] = []
        self.num_predicted: list[int] = []

    def fit(
        self, texts: Sequence[str], targets: npt.NDArray[np.uint8], context: BaselineContext
    ) -> Any:
        self.fits.append((list(texts), targets))
        return self.predict

    def predict(self, texts: Sequence[str]) -> Probabilities:
        self.num_predicted.append(len(texts))
        numbers = np.array([int(text.split()[1]) for text in texts], dtype=np.float64)
        return np.repeat(numbers[:, None] / 1e6, 4, axis=1)


def make_protocol(rows: int) -> Protocol:
    comments = make_comments(rows)
    return Protocol(comments, draw_folds(comments))


def run(
    protocol: Protocol, recording: RecordingBaseline, most_rows: int | None, folder: Path
) -> CellStore:
    baseline = Baseline(name="recording", fit=recording.fit, most_rows=most_rows)
    candidate = BaselineCandidate(baseline=baseline, distribution="test 1.0")
    task = CellTask(candidate, candidate.key(0, 0), choose_device("cpu", "fp32"))
    store = CellStore(folder)
    store.prepare(protocol, synthetic=False)
    store.write(*CellRunner(protocol, SignalStop()).run(task, lambda _: None))
    return store


def test_large_tables_are_sampled(tmp_path: Path) -> None:
    protocol, recording = make_protocol(300), RecordingBaseline()
    store = run(protocol, recording, 50, tmp_path)
    assert store.records()[0].fitted_rows == 50
    (row,) = load_leaderboard(store).rows
    assert row.weights == "fitted on 50 train rows"
    ((texts, targets),) = recording.fits
    rows = [int(text.split()[1]) for text in texts]
    assert len(set(rows)) == 50
    assert set(rows) <= set(protocol.folds[0].train.tolist())
    assert np.array_equal(targets, protocol.comments.targets[rows])
    run(protocol, recording, 50, tmp_path / "second")
    assert recording.fits[1][0] == texts


@pytest.mark.parametrize("most_rows", [None, 228, 10_000])  # 228 are all train rows
def test_small_tables_are_not_sampled(tmp_path: Path, most_rows: int | None) -> None:
    protocol, recording = make_protocol(300), RecordingBaseline()
    store = run(protocol, recording, most_rows, tmp_path)
    assert store.records()[0].fitted_rows is None
    assert load_leaderboard(store).rows[0].weights == ""
    expected = [protocol.comments.texts[row] for row in protocol.folds[0].train.tolist()]
    assert recording.fits[0][0] == expected


def test_rows_are_predicted_in_blocks(tmp_path: Path) -> None:
    protocol, recording = make_protocol(70_000), RecordingBaseline()
    store = run(protocol, recording, 100, tmp_path)
    probabilities = read_cell(store.paths()[0])[1]
    for part in PARTS:
        rows = protocol.folds[0].part(part)
        assert np.array_equal(probabilities[part][:, 0], (rows / 1e6).astype(np.float32))
    assert max(recording.num_predicted) <= 50_000 < len(protocol.folds[0].train)
