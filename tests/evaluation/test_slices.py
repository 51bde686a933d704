"""Slices: AUCs and scores against scikit-learn on the same rows, and slices with too few rows."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from toxbench.evaluation.row_counts import row_counts
from toxbench.evaluation.significance import holm
from toxbench.evaluation.slices import compare_slices, power_mean, slice_aucs

ROWS, SEEDS = 150, 3


@pytest.fixture
def probabilities() -> npt.NDArray[np.float32]:
    """Probabilities of three labels, with many ties, ``[seed, row, label]``."""
    return (np.random.default_rng(1).integers(0, 30, (SEEDS, ROWS, 3)) / 30).astype(np.float32)


@pytest.fixture
def targets() -> npt.NDArray[np.uint8]:
    return (np.random.default_rng(2).random((ROWS, 3)) < 0.4).astype(np.uint8)


@pytest.fixture
def members() -> npt.NDArray[np.bool_]:
    return np.random.default_rng(3).random(ROWS) < 0.4


def test_aucs_equal_scikit_learn(
    targets: npt.NDArray[np.uint8],
    probabilities: npt.NDArray[np.float32],
    members: npt.NDArray[np.bool_],
) -> None:
    positive, values = targets[:, 0] == 1, probabilities[:, :, 0]
    rows = {
        "subgroup": members,
        "bpsn": (~members & positive) | (members & ~positive),
        "bnsp": (~members & ~positive) | (members & positive),
    }
    aucs = slice_aucs(positive, values, members)
    assert list(aucs) == list(rows)
    for kind, used in rows.items():
        expected = np.mean([roc_auc_score(positive[used], seed[used]) for seed in values])
        assert aucs[kind] == pytest.approx(expected, abs=1e-12)


def test_aucs_need_ten_rows_of_a_class(probabilities: npt.NDArray[np.float32]) -> None:
    rows = np.arange(ROWS)
    values, members = probabilities[:, :, 0], rows < 50
    for count in (9, 10):
        aucs = slice_aucs((rows < count) | (rows >= 100), values, members)
        assert (aucs["subgroup"] is None) is (aucs["bnsp"] is None) is (count == 9)
        assert aucs["bpsn"] is not None


def test_power_mean_is_below_the_mean() -> None:
    expected = np.mean(np.array([0.6, 0.7, 0.95]) ** -5.0) ** (-1 / 5)
    assert power_mean([0.6, None, 0.7, 0.95]) == pytest.approx(expected, abs=1e-12)
    assert power_mean([0.9, 0.0]) == 0
    assert power_mean([None]) is None


def test_scores_equal_scikit_learn(
    targets: npt.NDArray[np.uint8],
    probabilities: npt.NDArray[np.float32],
    members: npt.NDArray[np.bool_],
) -> None:
    predictions = (probabilities > 0.5).astype(np.uint8)
    counts = np.stack([row_counts(targets, seed) for seed in predictions])
    slices = {"some": members, "first": np.arange(ROWS) < 60}
    scores = compare_slices(counts, np.arange(ROWS), slices)
    for name, rows in slices.items():
        inside, outside = (
            np.mean([f1_score(targets[part], p[part], average="micro") for p in predictions])
            for part in (rows, ~rows)
        )
        score = scores[name]
        assert score.score == pytest.approx(inside, abs=1e-12)
        assert score.difference == pytest.approx(inside - outside, abs=1e-12)
        assert score.low < score.score < score.high
        assert score.difference_low < score.difference < score.difference_high
    alone = [compare_slices(counts, np.arange(ROWS), {n: m})[n].p for n, m in slices.items()]
    assert [score.p for score in scores.values()] == holm(alone)


def test_clear_difference_is_significant() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((ROWS, 2)) < 0.5).astype(np.uint8)
    members = np.arange(ROWS) % 3 == 0
    is_wrong = rng.random((ROWS, 2)) < np.where(members, 0.4, 0.05)[:, None]
    counts = row_counts(targets, targets ^ is_wrong.astype(np.uint8))[None]
    scores = compare_slices(counts, np.arange(ROWS), {"a": members, "b": np.arange(ROWS) % 2 == 0})
    assert scores["a"].difference_high < 0
    assert scores["a"].p < 0.05 < scores["b"].p


@pytest.mark.parametrize(("inside", "outside", "enough"), [(9, 50, 0), (50, 9, 0), (10, 10, 1)])
def test_slice_and_rest_need_ten_positive_rows(inside: int, outside: int, enough: int) -> None:
    rows = np.arange(ROWS)
    positive = (rows < inside) | ((rows >= 100) & (rows < 100 + outside))
    counts = row_counts(positive[:, None].astype(np.uint8), np.zeros((ROWS, 1), np.uint8))[None]
    assert len(compare_slices(counts, rows, {"slice": rows < 100})) == enough


def test_slice_of_few_groups_has_no_score() -> None:
    rows = np.arange(ROWS)
    targets = np.ones((ROWS, 1), dtype=np.uint8)
    counts = row_counts(targets, targets)[None]
    for groups in (9, 10):
        units = np.where(rows < 75, rows % groups, rows)
        units = np.unique(units, return_inverse=True)[1]
        assert len(compare_slices(counts, units, {"slice": rows < 75})) == (groups == 10)
