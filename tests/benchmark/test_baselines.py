"""Baselines on tables that are too large for them: what they see, and that everybody is told."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support import make_comments

from toxbench.benchmark.candidates import BaselineCandidate
from toxbench.benchmark.cell import CandidateRunner
from toxbench.data.protocol import Protocol
from toxbench.data.splits import draw_folds
from toxbench.plugin.contracts import Baseline
from toxbench.ranking.build import load_leaderboard
from toxbench.records import PARTS
from toxbench.store.cell_file import read_cell
from toxbench.store.cells import CellStore
from toxbench.training.device import choose_device

Probabilities = npt.NDArray[np.float64]


class Echo:
    """Remembers what it is fitted on; says of each text a number that only this text has."""

    def __init__(self) -> None:
        self.seen: list[tuple[list[str], npt.NDArray[np.uint8]]] = []
        self.asked: list[int] = []

    def fit(self, texts: Sequence[str], targets: npt.NDArray[np.uint8]) -> Any:
        self.seen.append((list(texts), targets))
        return self.predict

    def predict(self, texts: Sequence[str]) -> Probabilities:
        self.asked.append(len(texts))
        numbers = np.array([int(text.split()[1]) for text in texts], dtype=np.float64)
        return np.repeat(numbers[:, None] / 1e6, 4, axis=1)


def table(rows: int) -> Protocol:
    comments = make_comments(rows)
    return Protocol(comments, draw_folds(comments))


def run(protocol: Protocol, echo: Echo, most_rows: int | None, folder: Path) -> CellStore:
    baseline = Baseline(name="echo", fit=echo.fit, most_rows=most_rows)
    candidate = BaselineCandidate(baseline=baseline, distribution="made here")
    runner = CandidateRunner(candidate, protocol, choose_device("cpu", "fp32"))
    store = CellStore(folder)
    store.prepare(protocol, synthetic=False)
    store.write(*runner.run(candidate.key(0, 0), lambda _: None))
    return store


def test_of_many_rows_a_sample_is_fitted_on_and_the_leaderboard_says_so(tmp_path: Path) -> None:
    protocol, echo = table(300), Echo()
    store = run(protocol, echo, 50, tmp_path)
    assert store.records()[0].fitted_rows == 50
    (row,) = load_leaderboard(store).rows
    assert row.weights == "fitted on 50 train rows"
    ((texts, targets),) = echo.seen
    rows = [int(text.split()[1]) for text in texts]
    assert len(set(rows)) == 50
    assert set(rows) <= set(protocol.folds[0].train.tolist())
    assert np.array_equal(targets, protocol.comments.targets[rows])
    run(protocol, echo, 50, tmp_path / "again")
    assert echo.seen[1][0] == texts


@pytest.mark.parametrize("most_rows", [None, 228, 10_000])  # 228 are all train rows
def test_of_few_rows_all_are(tmp_path: Path, most_rows: int | None) -> None:
    protocol, echo = table(300), Echo()
    store = run(protocol, echo, most_rows, tmp_path)
    assert store.records()[0].fitted_rows is None
    assert load_leaderboard(store).rows[0].weights == ""
    expected = [protocol.comments.texts[row] for row in protocol.folds[0].train.tolist()]
    assert echo.seen[0][0] == expected


def test_many_rows_are_predicted_in_pieces_and_come_in_their_order(tmp_path: Path) -> None:
    protocol, echo = table(70_000), Echo()
    store = run(protocol, echo, 100, tmp_path)
    probabilities = read_cell(store.paths()[0])[1]
    for part in PARTS:
        rows = protocol.folds[0].part(part)
        assert np.array_equal(probabilities[part][:, 0], (rows / 1e6).astype(np.float32))
    assert max(echo.asked) <= 50_000 < len(protocol.folds[0].train)
