"""The fast bootstrap against a slow plain one, and what its intervals must be like."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import accuracy_score, f1_score

from toxbench.evaluation import bootstrap as module
from toxbench.evaluation.bootstrap import (
    MOST_UNITS,
    BootstrapScores,
    SampleCounts,
    bootstrap,
    interval,
    sampling_units,
    sum_by_unit,
    t_stretch,
)
from toxbench.evaluation.power import ErrorModel
from toxbench.evaluation.row_counts import HEADLINES, row_counts
from toxbench.util.arrays import Counts, Floats, Targets

Predictions = npt.NDArray[np.uint8]  # [seed, row, label]
Units = npt.NDArray[np.int64]
PLAIN: dict[str, Callable[[Targets, Predictions], float]] = {
    "micro_f1": lambda t, p: f1_score(t, p, average="micro", zero_division=0),
    "subset_accuracy": accuracy_score,
}
FEW = 25  # resamples, for the slow one


def make_table(
    rows: int, seeds: int, seed: int = 0, skill: float = 0.0
) -> tuple[Targets, Predictions]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((rows, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(np.uint8)
    return targets, ErrorModel().predict(targets, [skill], seeds, rng)[0]


def counts(targets: Targets, predictions: Predictions, units: Units | None = None) -> Counts:
    found = np.stack([row_counts(targets, own) for own in predictions])
    return found if units is None else sum_by_unit(found, units)


def drawn_units(units: int, stream: int, seed: int = 0) -> Units:
    """The units of every resample, drawn as the fast one draws them."""
    return np.random.default_rng([seed, stream]).integers(0, units, size=(FEW, units))


def repeated(units: Units, drawn: Units) -> Units:
    """Rows of the units that were drawn, as often as they were."""
    return np.concatenate([np.flatnonzero(units == unit) for unit in drawn])


def plain_scores(
    metric: str, targets: Targets, predictions: Predictions, rows: Sequence[Units]
) -> Floats:
    """Score resampled rows one after another: ``[resample, seed]``."""
    score = PLAIN[metric]
    return np.array([[score(targets[own], p[own]) for p in predictions] for own in rows])


def draw(evidence: SampleCounts, resamples: int = 2000, seed: int = 0) -> BootstrapScores:
    return bootstrap({"own": evidence}, resamples, seed)["own"]


# Against the slow one


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("groups", [30, 7])
def test_resampled_scores_are_those_of_the_repeated_rows(metric: str, groups: int) -> None:
    targets, predictions = make_table(30, seeds=3)
    units = sampling_units(np.arange(30) % groups)
    found = draw(SampleCounts(counts(targets, predictions, units)), FEW)
    rows = [repeated(units, drawn) for drawn in drawn_units(groups, stream=0)]
    expected = plain_scores(metric, targets, predictions, rows)
    np.testing.assert_allclose(found.values[metric], expected, rtol=0, atol=1e-9)
    once = plain_scores(metric, targets, predictions, [np.arange(30)])[0]
    np.testing.assert_allclose(found.observed[metric], once, rtol=0, atol=1e-9)


@pytest.mark.parametrize("metric", HEADLINES)
def test_gaps_to_rows_that_are_never_tested_resample_both_sides(metric: str) -> None:
    targets, predictions = make_table(50, seeds=2)
    test, train = np.arange(20), np.arange(20, 50)
    evidence = SampleCounts(
        test=counts(targets[test], predictions[:, test]),
        train_elsewhere=counts(targets[train], predictions[:, train]),
    )
    found = draw(evidence, FEW)
    tested = plain_scores(metric, targets, predictions, list(drawn_units(20, stream=0)))
    trained = plain_scores(metric, targets, predictions, list(drawn_units(30, stream=2) + 20))
    assert np.abs(trained - tested).max() > 0.01
    expected = trained - tested
    np.testing.assert_allclose(found.values[f"{metric}_gap"], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("elsewhere", [0, 10])
def test_gaps_of_folds_resample_a_row_on_both_sides_at_once(metric: str, elsewhere: int) -> None:
    """Every unit is tested once and trained on twice; ``elsewhere`` rows are only trained on."""
    rows, groups = 24, 8
    targets, predictions = make_table(rows + elsewhere, seeds=6)
    tests, trains = predictions[:2], predictions[2:]  # 2 seeds; 2 folds' train predictions of each
    units = np.arange(rows) % groups
    both = [trains[:2], trains[2:]]
    evidence = SampleCounts(
        test=counts(targets[:rows], tests[:, :rows], units),
        train=sum(counts(targets[:rows], own[:, :rows], units) for own in both),
        train_elsewhere=sum(counts(targets[rows:], own[:, rows:]) for own in both),
    )
    found = draw(evidence, FEW)
    others = drawn_units(elsewhere, stream=2) + rows if elsewhere else np.zeros((FEW, 0), np.int64)
    score = PLAIN[metric]
    for i, drawn in enumerate(drawn_units(groups, stream=0)):
        own = repeated(units, drawn)
        trained = np.concatenate([own, others[i]])
        for seed in range(2):
            twice = np.concatenate([fold[seed][trained] for fold in both])
            gap = score(np.concatenate([targets[trained]] * 2), twice)
            gap -= score(targets[own], tests[seed][own])
            assert found.values[f"{metric}_gap"][i, seed] == pytest.approx(gap, abs=1e-9)


def test_without_train_rows_there_is_no_gap() -> None:
    assert set(draw(SampleCounts(counts(*make_table(9, seeds=1))), 5).values) == set(HEADLINES)


# What results must not hang on


@pytest.mark.parametrize("at_once", [1, 170, 999])
def test_it_does_not_matter_how_many_weights_there_are_at_once(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    targets, predictions = make_table(40, seeds=2)
    evidence = SampleCounts(
        test=counts(targets[:17], predictions[:, :17]),
        train_elsewhere=counts(targets[17:], predictions[:, 17:]),
    )
    whole = draw(evidence, 60)
    monkeypatch.setattr(module, "_WEIGHTS_AT_ONCE", at_once)
    pieces = draw(evidence, 60)
    assert whole.values.keys() == pieces.values.keys()
    for name, values in whole.values.items():
        assert np.array_equal(pieces.values[name], values)
        assert np.array_equal(pieces.scores(name), whole.scores(name))


def test_it_does_not_matter_who_else_is_there() -> None:
    targets, predictions = make_table(40, seeds=3)
    own = SampleCounts(counts(targets[:20], predictions[:, :20]))
    other = SampleCounts(
        counts(targets[:20], predictions[:1, :20]),
        train_elsewhere=counts(targets[20:], predictions[:1, 20:]),
    )
    alone, among = draw(own, 50), bootstrap({"other": other, "own": own}, 50)["own"]
    for name in HEADLINES:
        assert np.array_equal(alone.scores(name), among.scores(name))


def test_the_same_seed_draws_the_same_and_another_one_does_not() -> None:
    evidence = SampleCounts(counts(*make_table(30, seeds=3)))
    one, again, other = (draw(evidence, 50, seed).scores("micro_f1") for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_the_order_of_rows_within_units_changes_nothing() -> None:
    targets, predictions = make_table(60, seeds=2)
    units = np.arange(60) // 4
    order = np.random.default_rng(0).permutation(60)
    one = draw(SampleCounts(counts(targets, predictions, units)), 50)
    other = draw(SampleCounts(counts(targets[order], predictions[:, order], units[order])), 50)
    for name in HEADLINES:
        assert np.array_equal(one.values[name], other.values[name])


def test_the_order_of_units_changes_the_spread_but_little() -> None:
    targets, predictions = make_table(60, seeds=2)
    one = draw(SampleCounts(counts(targets, predictions))).scores("micro_f1")
    other = draw(SampleCounts(counts(targets[::-1], predictions[:, ::-1]))).scores("micro_f1")
    assert not np.array_equal(one, other)
    assert one.std() == pytest.approx(other.std(), rel=0.08)


# Units


def test_groups_are_numbered_and_keep_together() -> None:
    groups = np.array([9, 4, 9, 7, 4])
    assert sampling_units(groups).tolist() == [2, 0, 2, 1, 0]
    assert sampling_units(groups[:0]).tolist() == []


def test_more_groups_than_units_are_dealt_to_blocks_of_nearly_one_size() -> None:
    groups = np.repeat(np.arange(2 * MOST_UNITS + 7), 2)
    units = sampling_units(groups)
    assert set(units) == set(range(MOST_UNITS))
    assert (units[::2] == units[1::2]).all()  # a group stays whole
    assert set(np.bincount(units)) == {4, 6}
    assert (units[: 2 * MOST_UNITS : 2] != np.arange(MOST_UNITS)).any()  # at random


@pytest.mark.parametrize("metric", HEADLINES)
@pytest.mark.parametrize("rows", [1000, 1450])  # blocks of one size, and of two
def test_blocks_give_about_the_same_error_as_rows(
    monkeypatch: pytest.MonkeyPatch, metric: str, rows: int
) -> None:
    targets, predictions = make_table(rows, seeds=1)
    single = draw(SampleCounts(counts(targets, predictions))).scores(metric).std()
    monkeypatch.setattr(module, "MOST_UNITS", 250)
    units = sampling_units(np.arange(rows))
    assert len(set(units)) == 250
    blocks = draw(SampleCounts(counts(targets, predictions, units))).scores(metric).std()
    assert blocks == pytest.approx(single, rel=0.2)


def test_rows_that_err_together_are_less_sure_than_rows_alone() -> None:
    targets, predictions = make_table(50, seeds=1)
    alone = draw(SampleCounts(counts(targets, predictions))).scores("subset_accuracy").std()
    targets, predictions = np.repeat(targets, 4, axis=0), np.repeat(predictions, 4, axis=1)
    units = sampling_units(np.repeat(np.arange(50), 4))
    copies = draw(SampleCounts(counts(targets, predictions, units))).scores("subset_accuracy").std()
    naive = draw(SampleCounts(counts(targets, predictions))).scores("subset_accuracy").std()
    assert copies == pytest.approx(alone, abs=1e-9)
    assert naive == pytest.approx(alone / 2, rel=0.1)


# Rows


def test_the_spread_over_rows_is_the_textbook_one() -> None:
    targets, predictions = make_table(400, seeds=1)
    share = accuracy_score(targets, predictions[0])
    draws = draw(SampleCounts(counts(targets, predictions)), 4000).scores("subset_accuracy")
    assert draws.mean() == pytest.approx(share, abs=0.003)
    assert draws.std() == pytest.approx((share * (1 - share) / 400) ** 0.5, rel=0.05)


@pytest.mark.parametrize("metric", HEADLINES)
def test_intervals_shrink_with_the_root_of_the_rows(metric: str) -> None:
    widths = []
    for rows in (200, 3200):
        low, high = interval(draw(SampleCounts(counts(*make_table(rows, seeds=1)))).scores(metric))
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("metric", HEADLINES)
def test_one_row_says_nothing_about_rows(metric: str) -> None:
    draws = draw(SampleCounts(counts(*make_table(1, seeds=1))), 50)
    assert interval(draws.scores(metric)) == (draws.observed[metric][0],) * 2


# Seeds


def test_a_single_seed_adds_nothing() -> None:
    draws = draw(SampleCounts(counts(*make_table(50, seeds=1))))
    assert np.array_equal(draws.scores("micro_f1"), draws.rows_alone("micro_f1"))


@pytest.mark.parametrize("seeds", [2, 3, 7])
def test_equal_seeds_add_nothing(seeds: int) -> None:
    targets, predictions = make_table(53, seeds=1)
    one = draw(SampleCounts(counts(targets, predictions))).scores("micro_f1")
    several = draw(SampleCounts(counts(targets, np.repeat(predictions, seeds, axis=0))))
    np.testing.assert_allclose(several.scores("micro_f1"), one, rtol=0, atol=1e-9)


def flips(rows: int, wrong: Sequence[int]) -> SampleCounts:
    """One label, all rows 1; each seed errs on a number of rows of its own."""
    targets = np.ones((rows, 1), dtype=np.uint8)
    predictions = np.stack([(np.arange(rows) >= count)[:, None] for count in wrong])
    return SampleCounts(counts(targets, predictions.astype(np.uint8)))


def test_what_whole_seeds_differ_by_is_added_without_bias() -> None:
    """So many rows that only seeds vary: the variance of a mean is s^2 / S, spread as t is."""
    shares = np.array([0.70, 0.74, 0.79, 0.85])
    sums = np.zeros((4, 1, 5), dtype=np.float32)
    sums[:, 0, 3], sums[:, 0, 4] = shares * 1000, 1000
    draws = draw(SampleCounts(sums), 20_000).scores("subset_accuracy")
    error = shares.std(ddof=1) / 2
    assert draws.mean() == pytest.approx(shares.mean(), abs=2e-3)
    assert draws.std() == pytest.approx(error * t_stretch(1, [(1, 4)]), rel=0.02)


def test_seeds_that_differ_by_rows_alone_are_not_counted_twice() -> None:
    """Seeds that err on rows of their own are as good as more rows: theory is p (1 - p) / (n S)."""
    rng = np.random.default_rng(3)
    targets = np.ones((300, 1), dtype=np.uint8)
    errors = []
    for _ in range(10):
        predictions = (rng.random((30, 300, 1)) < 0.7).astype(np.uint8)
        draws = draw(SampleCounts(counts(targets, predictions)), 500)
        errors.append(draws.scores("subset_accuracy").std())
    assert np.mean(errors) == pytest.approx((0.3 * 0.7 / 9000) ** 0.5, rel=0.15)


def test_seeds_that_differ_widen_the_interval() -> None:
    same = draw(flips(200, [40, 40, 40])).scores("subset_accuracy").std()
    apart = draw(flips(200, [10, 40, 70])).scores("subset_accuracy").std()
    assert apart > 1.5 * same


def test_few_seeds_are_spread_as_t_is() -> None:
    # All from two seeds: one degree of freedom, 12.706 instead of 1.960.
    assert t_stretch(2.0, [(2.0, 2)]) == pytest.approx(12.7062 / 1.95996, rel=1e-4)
    assert t_stretch(1.0, [(2.0, 5)]) == pytest.approx(2.77645 / 1.95996, rel=1e-4)
    # Half from five seeds, half from known rows: Satterthwaite gives 4 * 4 = 16 degrees.
    assert t_stretch(2.0, [(1.0, 5)]) == pytest.approx(2.11991 / 1.95996, rel=1e-4)
    # Two parts of three seeds each: 2 + 2 degrees.
    assert t_stretch(2.0, [(1.0, 3), (1.0, 3)]) == pytest.approx(2.77645 / 1.95996, rel=1e-4)
    assert t_stretch(1e-3, [(1e-34, 3)]) == pytest.approx(1)


# Differences


def test_differences_are_of_the_same_rows() -> None:
    targets, predictions = make_table(300, seeds=1)
    better = predictions.copy()
    better[0, :15] = targets[:15]  # the same but for a few rows
    draws = bootstrap(
        {n: SampleCounts(counts(targets, p)) for n, p in (("a", better), ("b", predictions))}, 2000
    )
    paired = draws["a"].minus(draws["b"], "subset_accuracy")
    gained = (better[0] == targets).all(axis=1) > (predictions[0] == targets).all(axis=1)
    assert paired.std() == pytest.approx(gained.std() / 300**0.5, rel=0.06)
    assert draws["a"].scores("subset_accuracy").std() > 2 * paired.std()


def test_a_shift_that_all_seeds_share_cancels_out() -> None:
    draws = bootstrap({"a": flips(200, [5, 35, 65]), "b": flips(200, [10, 40, 70])}, 2000)
    paired = draws["a"].minus(draws["b"], "subset_accuracy")
    assert paired.mean() == pytest.approx(0.025, abs=0.001)
    assert paired.std() < draws["a"].scores("subset_accuracy").std() / 4


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_unequal_numbers_of_seeds_keep_the_rows_paired(seeds: int) -> None:
    """The other candidate errs on the same rows, and its one seed has no variance of its own."""
    wrong = (np.arange(seeds) * 4 + 60).tolist()
    draws = bootstrap({"many": flips(200, wrong), "one": flips(200, [60])}, 4000)
    difference = draws["many"].minus(draws["one"], "subset_accuracy")
    # The seeds alone: rows that both err on cancel out, however uncertain the seeds' variance is.
    error = np.std(wrong, ddof=1) / 200 / seeds**0.5
    few = t_stretch(1, [(1, seeds)])
    assert difference.mean() == pytest.approx(np.mean(wrong) / -200 + 0.3, abs=0.006)
    assert 0.75 * error * few < difference.std() < 1.3 * error * few
    swapped = draws["one"].minus(draws["many"], "subset_accuracy")
    np.testing.assert_allclose(swapped, -difference, rtol=0, atol=1e-12)


def test_the_interval_holds_the_middle_draws() -> None:
    assert interval(np.arange(1001.0)) == pytest.approx((25, 975))
    assert interval(np.arange(1001.0), level=0.5) == pytest.approx((250, 750))
