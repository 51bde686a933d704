"""The bootstrap against a slow reference, and properties of its intervals."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss

from toxbench.evaluation import bootstrap as module
from toxbench.evaluation.bootstrap import (
    MAX_UNITS,
    BootstrapScores,
    SampleCounts,
    bootstrap,
    interval,
    measure_uncertainty,
    sampling_units,
    sum_by_unit,
    t_factor,
)
from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.power import ErrorModel
from toxbench.evaluation.row_counts import COUNTS, row_columns, row_counts
from toxbench.evaluation.significance import pair_errors
from toxbench.util.arrays import Counts, Floats, Targets

Predictions = npt.NDArray[np.uint8]  # [seed, row, label]
Units = npt.NDArray[np.int64]
PLAIN: dict[str, Callable[[Targets, Predictions], float]] = {
    "micro_f1": lambda t, p: f1_score(t, p, average="micro", zero_division=0),
    "subset_accuracy": accuracy_score,
}
FEW = 25  # resamples, for the slow reference


def draw_table(
    rows: int, seeds: int, seed: int = 0, skill: float = 0.0
) -> tuple[Targets, Predictions]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((rows, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(np.uint8)
    return targets, ErrorModel().predict(targets, [skill], seeds, rng)[0]


def count_rows(targets: Targets, predictions: Predictions, units: Units | None = None) -> Counts:
    counts = np.stack([row_counts(targets, by_seed) for by_seed in predictions])
    return counts if units is None else sum_by_unit(counts, units)


def draw_units(units: int, stream: int, seed: int = 0) -> Units:
    """Draw the units of every resample as `bootstrap` does, ``[resample, unit]``."""
    return np.random.default_rng([seed, stream]).integers(0, units, size=(FEW, units))


def repeat_rows(units: Units, sample: Units) -> Units:
    """Return the rows of the sampled units, repeated as often as the units."""
    return np.concatenate([np.flatnonzero(units == unit) for unit in sample])


def plain_scores(
    metric: str, targets: Targets, predictions: Predictions, rows: Sequence[Units]
) -> Floats:
    """Score resampled rows in a loop: ``[resample, seed]``."""
    score = PLAIN[metric]
    return np.array([[score(targets[r], p[r]) for p in predictions] for r in rows])


def bootstrap_one(sample: SampleCounts, resamples: int = 2000, seed: int = 0) -> BootstrapScores:
    return bootstrap({"a": sample}, resamples, seed)["a"]


def resample(
    targets: Targets, predictions: Predictions, units: Units | None = None, resamples: int = 2000
) -> BootstrapScores:
    return bootstrap_one(SampleCounts(count_rows(targets, predictions, units)), resamples)


# Against the slow reference


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("groups", [30, 7])
def test_scores_equal_those_of_repeated_rows(metric: str, groups: int) -> None:
    targets, predictions = draw_table(30, seeds=3)
    units = sampling_units(np.arange(30) % groups)
    scores = resample(targets, predictions, units, resamples=FEW)
    rows = [repeat_rows(units, sample) for sample in draw_units(groups, stream=0)]
    expected = plain_scores(metric, targets, predictions, rows)
    np.testing.assert_allclose(scores.values[metric], expected, rtol=0, atol=1e-9)
    observed = plain_scores(metric, targets, predictions, [np.arange(30)])[0]
    np.testing.assert_allclose(scores.observed[metric], observed, rtol=0, atol=1e-9)


@pytest.mark.parametrize("metric", HEADLINES)
def test_gap_to_train_only_rows_resamples_both(metric: str) -> None:
    targets, predictions = draw_table(50, seeds=2)
    test, train = np.arange(20), np.arange(20, 50)
    sample = SampleCounts(
        test=count_rows(targets[test], predictions[:, test]),
        train_only=count_rows(targets[train], predictions[:, train]),
    )
    scores = bootstrap_one(sample, FEW)
    tested = plain_scores(metric, targets, predictions, list(draw_units(20, stream=0)))
    trained = plain_scores(metric, targets, predictions, list(draw_units(30, stream=2) + 20))
    assert np.abs(trained - tested).max() > 0.01
    expected = trained - tested
    np.testing.assert_allclose(scores.values[f"{metric}_gap"], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("extra", [0, 10])
def test_gap_of_folds_resamples_rows_jointly(metric: str, extra: int) -> None:
    """Every unit is tested once and trained on twice; ``extra`` rows are only trained on."""
    rows, groups = 24, 8
    targets, predictions = draw_table(rows + extra, seeds=6)
    tests, trains = predictions[:2], predictions[2:]  # 2 seeds; 2 folds' train predictions of each
    units = np.arange(rows) % groups
    folds = [trains[:2], trains[2:]]
    sample = SampleCounts(
        test=count_rows(targets[:rows], tests[:, :rows], units),
        train=sum(count_rows(targets[:rows], fold[:, :rows], units) for fold in folds),
        train_only=sum(count_rows(targets[rows:], fold[:, rows:]) for fold in folds),
    )
    scores = bootstrap_one(sample, FEW)
    train_only = draw_units(extra, stream=2) + rows if extra else np.zeros((FEW, 0), np.int64)
    score = PLAIN[metric]
    for i, drawn_units in enumerate(draw_units(groups, stream=0)):
        tested = repeat_rows(units, drawn_units)
        trained = np.concatenate([tested, train_only[i]])
        for seed in range(2):
            predicted = np.concatenate([fold[seed][trained] for fold in folds])
            gap = score(np.concatenate([targets[trained]] * 2), predicted)
            gap -= score(targets[tested], tests[seed][tested])
            assert scores.values[f"{metric}_gap"][i, seed] == pytest.approx(gap, abs=1e-9)


def test_no_gap_without_train_rows() -> None:
    assert set(resample(*draw_table(9, seeds=1), resamples=5).values) == set(HEADLINES)


# Independence of results


@pytest.mark.parametrize("size", [1, 170, 999])
def test_chunk_size_does_not_change_scores(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    targets, predictions = draw_table(40, seeds=2)
    sample = SampleCounts(
        test=count_rows(targets[:17], predictions[:, :17]),
        train_only=count_rows(targets[17:], predictions[:, 17:]),
    )
    expected = bootstrap_one(sample, 60)
    monkeypatch.setattr(module, "_WEIGHTS_PER_CHUNK", size)
    chunked = bootstrap_one(sample, 60)
    assert expected.values.keys() == chunked.values.keys()
    for name, values in expected.values.items():
        assert np.array_equal(chunked.values[name], values)
        assert np.array_equal(chunked.scores(name), expected.scores(name))


def test_scores_do_not_depend_on_other_candidates() -> None:
    targets, predictions = draw_table(40, seeds=3)
    first = SampleCounts(count_rows(targets[:20], predictions[:, :20]))
    second = SampleCounts(
        count_rows(targets[:20], predictions[:1, :20]),
        train_only=count_rows(targets[20:], predictions[:1, 20:]),
    )
    single, joint = bootstrap_one(first, 50), bootstrap({"b": second, "a": first}, 50)["a"]
    for name in HEADLINES:
        assert np.array_equal(single.scores(name), joint.scores(name))


def test_draws_depend_only_on_the_seed() -> None:
    sample = SampleCounts(count_rows(*draw_table(30, seeds=3)))
    first, repeat, changed = (
        bootstrap_one(sample, 50, seed).scores("micro_f1") for seed in (0, 0, 1)
    )
    assert np.array_equal(first, repeat)
    assert not np.array_equal(first, changed)


def test_row_order_within_units_is_irrelevant() -> None:
    targets, predictions = draw_table(60, seeds=2)
    units = np.arange(60) // 4
    order = np.random.default_rng(0).permutation(60)
    shuffled_counts = count_rows(targets[order], predictions[:, order], units[order])
    ordered = resample(targets, predictions, units, resamples=50)
    shuffled = bootstrap_one(SampleCounts(shuffled_counts), 50)
    for name in HEADLINES:
        assert np.array_equal(ordered.values[name], shuffled.values[name])


def test_unit_order_hardly_changes_the_spread() -> None:
    targets, predictions = draw_table(60, seeds=2)
    reversed_counts = count_rows(targets[::-1], predictions[:, ::-1])
    forward = resample(targets, predictions).scores("micro_f1")
    backward = bootstrap_one(SampleCounts(reversed_counts)).scores("micro_f1")
    assert not np.array_equal(forward, backward)
    assert forward.std() == pytest.approx(backward.std(), rel=0.08)


# Units


def test_rows_of_a_group_share_a_unit() -> None:
    groups = np.array([9, 4, 9, 7, 4])
    assert sampling_units(groups).tolist() == [2, 0, 2, 1, 0]
    assert sampling_units(groups[:0]).tolist() == []


def test_many_groups_form_blocks_of_similar_size() -> None:
    groups = np.repeat(np.arange(2 * MAX_UNITS + 7), 2)
    units = sampling_units(groups)
    assert set(units) == set(range(MAX_UNITS))
    assert (units[::2] == units[1::2]).all()  # a group stays whole
    assert set(np.bincount(units)) == {4, 6}
    assert (units[: 2 * MAX_UNITS : 2] != np.arange(MAX_UNITS)).any()  # at random


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("rows", [1000, 1450])  # blocks of one size, and of two
def test_blocks_and_rows_give_similar_errors(
    monkeypatch: pytest.MonkeyPatch, metric: str, rows: int
) -> None:
    targets, predictions = draw_table(rows, seeds=1)
    single = resample(targets, predictions).scores(metric).std()
    monkeypatch.setattr(module, "MAX_UNITS", 250)
    units = sampling_units(np.arange(rows))
    assert len(set(units)) == 250
    blocks = resample(targets, predictions, units).scores(metric).std()
    assert blocks == pytest.approx(single, rel=0.2)


def test_copied_rows_do_not_reduce_the_error() -> None:
    targets, predictions = draw_table(50, seeds=1)
    expected = resample(targets, predictions).scores("subset_accuracy").std()
    targets, predictions = np.repeat(targets, 4, axis=0), np.repeat(predictions, 4, axis=1)
    units = sampling_units(np.repeat(np.arange(50), 4))
    copies = resample(targets, predictions, units).scores("subset_accuracy").std()
    naive = resample(targets, predictions).scores("subset_accuracy").std()
    assert copies == pytest.approx(expected, abs=1e-9)
    assert naive == pytest.approx(expected / 2, rel=0.1)


# Rows


def test_error_over_rows_is_binomial() -> None:
    targets, predictions = draw_table(400, seeds=1)
    share = accuracy_score(targets, predictions[0])
    draws = resample(targets, predictions, resamples=4000).scores("subset_accuracy")
    assert draws.mean() == pytest.approx(share, abs=0.003)
    assert draws.std() == pytest.approx((share * (1 - share) / 400) ** 0.5, rel=0.05)


@pytest.mark.parametrize("metric", HEADLINES)
def test_intervals_shrink_with_the_root_of_rows(metric: str) -> None:
    widths = []
    for rows in (200, 3200):
        low, high = interval(resample(*draw_table(rows, seeds=1)).scores(metric))
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("metric", HEADLINES)
def test_one_row_has_an_empty_interval(metric: str) -> None:
    draws = resample(*draw_table(1, seeds=1), resamples=50)
    assert interval(draws.scores(metric)) == (draws.observed[metric][0],) * 2


def test_interval_of_a_score_is_that_of_its_log_odds() -> None:
    targets = np.ones((400, 1), dtype=np.uint8)
    draws = resample(targets, (np.arange(400)[None, :, None] >= 8).astype(np.uint8))
    ends = measure_uncertainty(draws, "subset_accuracy")
    odds = np.array([ends.low / (1 - ends.low), ends.high / (1 - ends.high)]) / (0.98 / 0.02)
    plain = np.array(interval(draws.scores("subset_accuracy")))
    assert np.log(odds) == pytest.approx((plain - 0.98) / (0.98 * 0.02))
    assert 0.98 - ends.low > 1.5 * (ends.high - 0.98)  # as an exact interval: 0.961 to 0.991


def test_perfect_score_has_an_empty_interval() -> None:
    right = np.ones((40, 1), dtype=np.uint8)
    ends = measure_uncertainty(resample(right, right[None]), "micro_f1")
    assert (ends.low, ends.high) == (1, 1)


# Seeds


def test_single_seed_adds_no_variance() -> None:
    draws = resample(*draw_table(50, seeds=1))
    single, fixed = draws.scores("micro_f1"), draws.fixed_seed_scores("micro_f1")
    assert single.std() == pytest.approx(fixed.std() * t_factor([(1, 49)]))


@pytest.mark.parametrize("seeds", [2, 3, 7])
def test_equal_seeds_add_no_variance(seeds: int) -> None:
    targets, predictions = draw_table(53, seeds=1)
    expected = resample(targets, predictions).scores("micro_f1")
    several = resample(targets, np.repeat(predictions, seeds, axis=0))
    np.testing.assert_allclose(several.scores("micro_f1"), expected, rtol=0, atol=1e-9)


def make_errors(rows: int, wrong: Sequence[int]) -> SampleCounts:
    """Return counts of one label, all rows 1; each seed has its number of wrong rows."""
    targets = np.ones((rows, 1), dtype=np.uint8)
    predictions = np.stack([(np.arange(rows) >= count)[:, None] for count in wrong])
    return SampleCounts(count_rows(targets, predictions.astype(np.uint8)))


def test_seed_variance_is_added_without_bias() -> None:
    """With very many rows only seeds vary: the mean has variance s^2 / S, widened to t."""
    shares = np.array([0.70, 0.74, 0.79, 0.85])
    sums = np.zeros((4, 1, len(COUNTS)), dtype=np.float32)
    sums[:, 0, 3], sums[:, 0, 5] = shares * 1000, 1000
    draws = bootstrap_one(SampleCounts(sums), 20_000).scores("subset_accuracy")
    error = shares.std(ddof=1) / 2
    assert draws.mean() == pytest.approx(shares.mean(), abs=2e-3)
    assert draws.std() == pytest.approx(error * t_factor([(1, 3)]), rel=0.02)


def test_independent_errors_are_not_counted_twice() -> None:
    """Seeds with independent errors are worth as much as more rows: p (1 - p) / (n S)."""
    rng = np.random.default_rng(3)
    targets = np.ones((300, 1), dtype=np.uint8)
    errors = []
    for _ in range(10):
        predictions = (rng.random((30, 300, 1)) < 0.7).astype(np.uint8)
        draws = resample(targets, predictions, resamples=500)
        errors.append(draws.scores("subset_accuracy").std())
    assert np.mean(errors) == pytest.approx((0.3 * 0.7 / 9000) ** 0.5, rel=0.15)


def test_different_seeds_widen_the_interval() -> None:
    same = bootstrap_one(make_errors(200, [40, 40, 40])).scores("subset_accuracy").std()
    different = bootstrap_one(make_errors(200, [10, 40, 70])).scores("subset_accuracy").std()
    assert different > 1.5 * same


def test_few_seeds_give_t_intervals() -> None:
    # All from two seeds: one degree of freedom, 12.706 instead of 1.960.
    assert t_factor([(2.0, 1)]) == pytest.approx(12.7062 / 1.95996, rel=1e-4)
    assert t_factor([(1.0, 4)]) == pytest.approx(2.77645 / 1.95996, rel=1e-4)
    # Half from five seeds, half from many rows: the mean of both.
    assert t_factor([(1.0, 4), (1.0, 1e9)]) == pytest.approx((2.77645 / 1.95996 + 1) / 2, rel=1e-4)
    assert t_factor([(1e-3, 1e9), (0.0, 2)]) == pytest.approx(1)
    assert t_factor([(0.0, 4)]) == 1


def test_unequal_groups_widen_the_interval() -> None:
    """Scores of whole groups: the interval is that of Student's t with few degrees of freedom."""
    sizes = np.array([50, 20, 10, 10, 5, 5])
    groups = np.repeat(np.arange(6), sizes)
    right = np.random.default_rng(1).random(6)[groups] > 0.4
    targets = np.ones((100, 1), dtype=np.uint8)
    scores = resample(targets, right[None, :, None].astype(np.uint8), groups, resamples=4000)
    assert scores.effective_units == pytest.approx(100**2 / np.square(sizes).sum())
    plain = scores.values["subset_accuracy"].std()
    degrees = scores.effective_units - 1
    expected = plain * (1 + 1 / degrees) ** 0.5 * t_factor([(1, degrees)])
    assert scores.scores("subset_accuracy").std() == pytest.approx(expected)


# Values instead of counts


def test_values_resample_like_their_scores() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((300, 4)) < [0.5, 0.3, 0.2, 0.0]).astype(np.uint8)
    probabilities = np.round((targets + 2 * rng.random((300, 4))) / 3, 2)
    predictions = (probabilities > 0.5).astype(np.uint8)
    names = ("macro_f1", "micro_average_precision", "log_likelihood")
    columns = row_columns(targets, predictions, probabilities, names)
    draws = bootstrap_one(SampleCounts(columns[None], scores=names), FEW)
    rows = draw_units(300, stream=0)
    scored = {
        "macro_f1": lambda t, p: f1_score(t[:, :3], p[:, :3] > 0.5, average="macro"),
        "micro_average_precision": lambda t, p: average_precision_score(t.ravel(), p.ravel()),
        "log_likelihood": lambda t, p: -log_loss(t.ravel(), p.ravel()),
    }
    for name, score in scored.items():
        observed = score(targets, probabilities)
        expected = np.array([score(targets[r], probabilities[r]) for r in rows])
        assert draws.observed[name][0] == pytest.approx(observed, abs=1e-4)
        linear = draws.values[name][:, 0]
        assert np.abs(linear - expected).max() < 0.2 * np.abs(expected - observed).max()


# Differences


def test_differences_are_paired_by_rows() -> None:
    targets, predictions = draw_table(300, seeds=1)
    better = predictions.copy()
    better[0, :15] = targets[:15]  # the same except for a few rows
    draws = bootstrap(
        {n: SampleCounts(count_rows(targets, p)) for n, p in (("a", better), ("b", predictions))},
        2000,
    )
    errors, _ = pair_errors([*draws.values()], "subset_accuracy")
    gained = (better[0] == targets).all(axis=1) > (predictions[0] == targets).all(axis=1)
    assert errors[0, 1] == pytest.approx(gained.std() / 300**0.5, rel=0.06)
    assert draws["a"].scores("subset_accuracy").std() > 2 * errors[0, 1]


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_unequal_seed_counts_keep_rows_paired(seeds: int) -> None:
    """The second candidate errs on the same rows, and its single seed adds no variance."""
    wrong = (np.arange(seeds) * 4 + 60).tolist()
    draws = bootstrap({"many": make_errors(200, wrong), "single": make_errors(200, [60])}, 4000)
    errors, degrees = pair_errors([*draws.values()], "subset_accuracy")
    # Shared errors cancel out, so only seeds contribute.
    expected = np.std(wrong, ddof=1) / 200 / seeds**0.5
    assert 0.75 * expected < errors[0, 1] < 1.3 * expected
    assert degrees[0, 1] < 3 * (seeds - 1)


def test_seeds_of_both_candidates_add_variance() -> None:
    samples = {"a": make_errors(200, [10, 40, 70]), "b": make_errors(200, [15, 45, 75])}
    draws = bootstrap(samples, 2000)
    errors, degrees = pair_errors([*draws.values()], "subset_accuracy")
    assert errors[0, 1] == pytest.approx((2 / 3) ** 0.5 * 30 / 200, rel=0.1)
    assert degrees[0, 1] == pytest.approx(4, rel=0.2)


def test_overlapping_training_sets_add_variance() -> None:
    """Nadeau and Bengio: S^2 times test rows by train rows, with the degrees of the folds."""
    samples = {"a": make_errors(200, [20]), "b": make_errors(200, [20])}  # err on the same rows
    folds = {"a": [0.9, 0.8, 0.7, 0.8, 0.9], "b": [0.8, 0.8, 0.8, 0.8, 0.8]}
    drawn = bootstrap(
        {
            n: replace(s, folds={"subset_accuracy": np.array([folds[n]])}, fold_ratio=0.25)
            for n, s in samples.items()
        },
        FEW,
    )
    errors, degrees = pair_errors([*drawn.values()], "subset_accuracy")
    assert errors[0, 1] == pytest.approx((0.25 * np.var(folds["a"], ddof=1)) ** 0.5)
    assert degrees[0, 1] == pytest.approx(4)
