"""Jackknife standard errors: against theory, against the bootstrap, and degenerate cases."""

import numpy as np
import pytest

from toxbench.evaluation.early_stopping import jackknife_error
from toxbench.evaluation.metrics import Probabilities, average_precision
from toxbench.util.arrays import Targets


def mean(targets: Targets, probabilities: Probabilities) -> float:
    return float(probabilities.mean())


def accuracy(targets: Targets, probabilities: Probabilities) -> float:
    return float(((probabilities > 0.5) == targets).all(axis=1).mean())


def table(rows: int, seed: int = 0, labels: int = 3) -> tuple[Targets, Probabilities]:
    draw = np.random.default_rng(seed)
    targets = (draw.random((rows, labels)) < 0.3).astype(np.uint8)
    return targets, np.clip(0.3 * targets + draw.normal(0.35, 0.2, targets.shape), 0, 1)


@pytest.mark.parametrize("rows", [2, 3, 7, 20])
def test_error_of_a_mean_is_analytic(rows: int) -> None:
    targets, probabilities = table(rows, labels=1)
    expected = probabilities.std(ddof=1) / np.sqrt(rows)
    assert jackknife_error(mean, targets, probabilities) == pytest.approx(expected)


@pytest.mark.parametrize("rows", [40, 200])
def test_many_rows_form_twenty_blocks(rows: int) -> None:
    targets, probabilities = table(rows, labels=1)
    blocks = probabilities.reshape(-1, 20).mean(axis=0)  # row i is in block i modulo 20
    expected = blocks.std(ddof=1) / np.sqrt(20)
    assert jackknife_error(mean, targets, probabilities) == pytest.approx(expected)


def test_error_of_subset_accuracy_is_near_theory() -> None:
    targets, probabilities = table(4000)
    share = accuracy(targets, probabilities)
    expected = np.sqrt(share * (1 - share) / 4000)
    assert jackknife_error(accuracy, targets, probabilities) == pytest.approx(expected, rel=0.3)


def test_error_is_unbiased() -> None:
    tables = [table(407, seed) for seed in range(60)]  # 407: blocks of unequal size
    variance = np.mean([jackknife_error(accuracy, *arrays) ** 2 for arrays in tables])
    share = np.mean([accuracy(*arrays) for arrays in tables])
    assert np.sqrt(variance) == pytest.approx(np.sqrt(share * (1 - share) / 407), rel=0.1)


def test_error_of_average_precision_is_near_bootstrap() -> None:
    targets, probabilities = table(1500)
    draw = np.random.default_rng(1)
    scores = []
    for _ in range(200):
        rows = draw.integers(0, 1500, 1500)
        scores.append(average_precision(targets[rows], probabilities[rows]))
    error = jackknife_error(average_precision, targets, probabilities)
    assert error == pytest.approx(np.std(scores, ddof=1), rel=0.3)


def test_error_varies_rows_not_entries() -> None:
    targets, probabilities = table(300, labels=1)
    expected = jackknife_error(average_precision, targets, probabilities)
    wide = np.repeat(targets, 12, axis=1), np.repeat(probabilities, 12, axis=1)
    assert jackknife_error(average_precision, *wide) == pytest.approx(expected)


def test_blocks_without_a_score_are_skipped() -> None:
    targets, probabilities = table(10, labels=1)
    targets[:] = 0
    targets[3] = 1  # without row 3 no row is positive
    scores = [
        average_precision(np.delete(targets, row, axis=0), np.delete(probabilities, row, axis=0))
        for row in range(10)
        if row != 3
    ]
    expected = np.sqrt(8 / 9 * np.sum((np.array(scores) - np.mean(scores)) ** 2))
    assert expected > 0
    assert jackknife_error(average_precision, targets, probabilities) == pytest.approx(expected)


@pytest.mark.parametrize("rows", [0, 1, 2, 30])
@pytest.mark.parametrize("value", [0, 1])
def test_constant_tables_have_no_error(rows: int, value: int) -> None:
    targets = np.full((rows, 2), value, dtype=np.uint8)
    assert jackknife_error(average_precision, targets, np.full((rows, 2), 0.4)) == 0.0


def test_one_scored_block_has_no_error() -> None:
    targets = np.array([[1], [0]], dtype=np.uint8)
    assert jackknife_error(average_precision, targets, np.array([[0.2], [0.7]])) == 0.0
