"""The detectable difference of a plan, and the model of errors behind it."""

import numpy as np
import pytest

from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.power import ErrorModel, detectable_difference
from toxbench.util.arrays import Targets


def table(rows: int) -> Targets:
    draw = np.random.default_rng(0).random((rows, 4))
    return (draw < [0.5, 0.3, 0.1, 0.0]).astype(np.uint8)


@pytest.fixture(scope="module")
def planned() -> dict[tuple[int, int], dict[str, float]]:
    """(rows, seeds) -> detectable differences."""
    sizes = [(100, 5), (400, 5), (6400, 5), (400, 2), (400, 10)]
    return {(rows, seeds): detectable_difference(table(rows), seeds) for rows, seeds in sizes}


@pytest.mark.parametrize("metric", HEADLINES)
def test_more_rows_detect_smaller_differences(
    planned: dict[tuple[int, int], dict[str, float]], metric: str
) -> None:
    few, more, many = (planned[rows, 5][metric] for rows in (100, 400, 6400))
    assert 0.5 > few > 1.3 * more > 1.3 * many > 0


@pytest.mark.parametrize("metric", HEADLINES)
def test_more_seeds_detect_smaller_differences(
    planned: dict[tuple[int, int], dict[str, float]], metric: str
) -> None:
    few, more, many = (planned[400, seeds][metric] for seeds in (2, 5, 10))
    assert few > 1.2 * more > 1.2 * many > 0


@pytest.mark.parametrize("metric", HEADLINES)
def test_row_error_falls_with_the_root(metric: str) -> None:
    """Without a shift between seeds, 16 times the rows detect a quarter of the difference."""
    model = ErrorModel(shift=0.0)
    few, many = (detectable_difference(table(rows), 1, model)[metric] for rows in (150, 2400))
    assert few / many == pytest.approx(4, rel=0.2)


def test_larger_seed_shift_hides_more() -> None:
    small, large = (detectable_difference(table(200), 3, ErrorModel(shift=s)) for s in (0, 0.3))
    assert all(large[name] > 1.5 * small[name] for name in HEADLINES)


def test_result_is_reproducible() -> None:
    assert detectable_difference(table(50), 3) == detectable_difference(table(50), 3)


@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize(
    "targets",
    [np.zeros((1, 3)), np.ones((1, 1)), np.zeros((40, 3)), np.ones((40, 3)), np.eye(3)],
    ids=["one row, none", "one entry", "no positive", "all positive", "three rows"],
)
def test_degenerate_tables_give_finite_results(targets: Targets, seeds: int) -> None:
    differences = detectable_difference(targets.astype(np.uint8), seeds)
    assert set(differences) == set(HEADLINES)
    assert all(np.isfinite(value) and value >= 0 for value in differences.values())


def test_model_has_its_error_rates() -> None:
    model = ErrorModel(recall=0.7, false_positive_rate=0.1)
    targets = table(20_000)
    rng = np.random.default_rng(0)
    average, better = model.predict(targets, [0.0, 0.5], 2, rng)
    assert average.shape == (2, *targets.shape)
    assert average[:, targets == 1].mean() == pytest.approx(0.7, abs=0.02)
    assert average[:, targets == 0].mean() == pytest.approx(0.1, abs=0.02)
    assert better[:, targets == 1].mean() > 0.8
    assert better[:, targets == 0].mean() < 0.06
