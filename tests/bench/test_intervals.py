"""Simulations with a known truth: coverage of intervals, and rate of false verdicts.

Run by hand: ``pytest tests/bench/test_intervals.py -m bench -s``. The figures, and those of the
code before, are in toxbench/docs/explanation/simulations.md.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from studies import (
    GENERATORS,
    ROWS,
    SHARES,
    Generator,
    Study,
    draw_study,
    draw_trained_study,
    error,
)

from toxbench.evaluation.bootstrap import (
    BootstrapScores,
    SampleCounts,
    bootstrap,
    sampling_units,
    score_interval,
    sum_by_unit,
)
from toxbench.evaluation.definitions import HEADLINES, TUNED_COLUMNS, VERDICT_COLUMNS
from toxbench.evaluation.power import ErrorModel, detectable_difference
from toxbench.evaluation.row_counts import SCORES, row_columns, row_counts
from toxbench.evaluation.significance import (
    Difference,
    Outcome,
    Rules,
    Verdict,
    assign_tiers,
    compare_all,
)
from toxbench.evaluation.thresholds import choose_thresholds, predict
from toxbench.util.arrays import Counts, Floats, Targets

pytestmark = pytest.mark.bench

STUDIES, RESAMPLES = 500, 1000
INTERVALS = ("micro_f1", "subset_accuracy", "macro_f1", "micro_average_precision",
             "micro_precision", "micro_recall")  # fmt: skip
Draws = dict[tuple[str, str], BootstrapScores]  # candidate, column -> scores


def columns_of(targets: Targets, probabilities: Floats, thresholds: tuple[float, ...]) -> Counts:
    predictions = predict(probabilities, thresholds)
    return row_columns(targets, predictions, probabilities, INTERVALS)


@cache
def truth(generator: Generator) -> tuple[dict[str, float], Floats]:
    """Return the scores on very many rows with very many seeds, and the F1 of each label."""
    scores, counts = [], np.zeros((2, len(SHARES)))
    for number in range(250):  # many, because every draw has other seeds
        groups = np.arange(2_000) // (16 if generator.group else 1)
        study = generator.draw(np.random.default_rng([1, number]), len(groups), 1, groups)
        for probabilities in study.probabilities[:, 0]:
            columns = columns_of(study.targets, probabilities, (0.5,) * len(SHARES))
            sums = columns.sum(axis=0, dtype=np.float64)
            scores.append([SCORES[name](sums) for name in INTERVALS])
            predictions = probabilities > 0.5
            hits = (study.targets & predictions).sum(axis=0)
            counts += [hits, study.targets.sum(axis=0) + predictions.sum(axis=0)]
    means = dict(zip(INTERVALS, np.mean(scores, axis=0).tolist(), strict=True))
    return means, 2 * counts[0] / np.maximum(1, counts[1])


def resample(study: Study, number: int) -> Draws:
    """Resample all scores at 0.5, and the headline scores at tuned thresholds."""
    targets, validation = study.targets[:ROWS], study.targets[ROWS:]
    units = sampling_units(study.groups[:ROWS])
    samples = {}
    for candidate, of_seeds in enumerate(study.probabilities):
        name, test = "abcd"[candidate], of_seeds[:, :ROWS]
        half = np.stack([columns_of(targets, p, (0.5,) * len(SHARES)) for p in test])
        samples[name, "micro_f1"] = SampleCounts(sum_by_unit(half, units), scores=INTERVALS)
        rules = [choose_thresholds(validation, p[ROWS:]) for p in of_seeds]
        for column in ("micro_f1_global", "subset_accuracy_accuracy"):
            metric, rule = TUNED_COLUMNS[column]
            tuned = [row_counts(targets, predict(p, thresholds[rule]))
                     for p, thresholds in zip(test, rules, strict=True)]  # fmt: skip
            samples[name, column] = SampleCounts(
                sum_by_unit(np.stack(tuned), units), scores=(metric,)
            )
    return bootstrap(samples, RESAMPLES, seed=number)


def compare(draws: Draws, column: str, rules: Rules | None = None) -> list[Difference]:
    metric = TUNED_COLUMNS[column][0] if column in TUNED_COLUMNS else column
    of_column = column if column in TUNED_COLUMNS else "micro_f1"
    chosen = {name: scores for (name, own), scores in draws.items() if own == of_column}
    means = {name: float(scores.observed[metric].mean()) for name, scores in chosen.items()}
    return compare_all(chosen, means, metric, column, rules)


def verdicts(draws: Draws, metric: str, rules: Rules | None = None) -> list[Verdict]:
    columns = [compare(draws, column, rules) for column in VERDICT_COLUMNS[metric]]
    return [Verdict(metric, pair) for pair in zip(*columns, strict=True)]


def outcomes(
    generator: Generator, seeds: int, metric: str, rules: Rules | None = None
) -> Counter[str]:
    """Count the verdicts on the first two candidates, with "better" for "worse"."""
    counts: Counter[str] = Counter()
    for number in range(STUDIES):
        draws = resample(draw_study(generator, seeds, number), number)
        outcome = verdicts(draws, metric, rules)[0].outcome
        counts["better" if outcome is Outcome.WORSE else outcome.value] += 1
    return counts


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize("name", GENERATORS)
def test_intervals_cover_the_truth(name: str, seeds: int) -> None:
    generator = GENERATORS[name]
    means, label_f1 = truth(generator)
    covered, false = Counter[str](), Counter[str]()
    for number in range(STUDIES):
        study = draw_study(generator, seeds, number)
        draws = resample(study, number)
        scored = study.targets[:ROWS].any(axis=0)
        true = means | {"macro_f1": label_f1[scored].mean()}
        for score in INTERVALS:
            low, high = score_interval(draws["a", "micro_f1"], score)
            covered[score] += low <= true[score] <= high
            (difference,) = compare(draws, score)
            covered[f"{score} difference"] += difference.low <= 0 <= difference.high
        for metric in HEADLINES:
            false[metric] += verdicts(draws, metric)[0].is_apart
    print(f"\n{name}, {seeds} seeds, ± {error(0.05, STUDIES):.1%}")
    print("  95 % intervals cover", {n: f"{c / STUDIES:.1%}" for n, c in covered.items()})
    print("  equal candidates: one is better", {n: f"{c / STUDIES:.1%}" for n, c in false.items()})
    assert all(count / STUDIES <= 0.06 + error(0.06, STUDIES) for count in false.values())
    assert all(count / STUDIES >= 0.88 for count in covered.values())


@pytest.mark.parametrize("name", GENERATORS)
def test_one_seed_gives_no_verdict(name: str) -> None:
    counts = outcomes(GENERATORS[name], 1, "micro_f1", Rules(untested={"a", "b"}))
    assert counts == {Outcome.UNTESTED.value: STUDIES}


def test_a_threshold_does_not_make_a_candidate_better() -> None:
    """Candidates that differ in the level of their probabilities only."""
    generator = Generator(offsets=(0.0, -0.6))
    counts = outcomes(generator, 5, "micro_f1")
    print(f"\nequal but for the level of probabilities: {dict(counts)} of {STUDIES}")
    assert counts["better"] <= 0.06 * STUDIES


def test_tiers_keep_candidates_that_are_not_apart() -> None:
    generator = Generator(skills=(0.15, 0.0, -0.1, -0.2), shift=(0.045, 0.045, 0.045, 0.3),
                          offsets=(0.0,) * 4)  # fmt: skip
    missed = several = 0
    for number in range(STUDIES):
        draws = resample(draw_study(generator, 5, number), number)
        pairs = {frozenset((v.main.first, v.main.second)): v for v in verdicts(draws, "micro_f1")}
        means = {n: draws[n, "micro_f1"].observed["micro_f1"].mean() for n in "abcd"}
        ranked = sorted(means, key=means.__getitem__, reverse=True)
        tiers = assign_tiers(ranked, lambda *pair: pairs[frozenset(pair)].is_apart)  # noqa: B023
        several += max(tiers.values()) > 1
        missed += any(tiers[n] > 1 and not pairs[frozenset((ranked[0], n))].is_apart
                      for n in ranked[1:])  # fmt: skip
    print(f"\nseveral tiers in {several / STUDIES:.1%} of studies; tier 1 misses a candidate that "
          f"is not apart from the best in {missed / STUDIES:.1%}")  # fmt: skip
    assert several
    assert missed == 0


@pytest.mark.parametrize("rope", [0.02, 0.08])
def test_equal_candidates_are_undecided_or_equivalent(rope: float) -> None:
    counts = outcomes(Generator(), 5, "micro_f1", Rules(rope=rope))
    print(f"\nequal candidates, ROPE {rope}: {dict(counts)} of {STUDIES}")
    assert counts["better"] <= 0.06 * STUDIES


def trained_differences(overlap: bool) -> Iterator[list[Difference]]:
    """Yield the differences of equal algorithms on fresh tables, with folds."""
    folds = seeds = 5
    for number in range(STUDIES // 2):
        rng = np.random.default_rng([5, number])
        targets, probabilities, parts = draw_trained_study(rng, folds, seeds)
        samples = {}
        for name, of_seeds in zip("ab", probabilities, strict=True):
            counts = np.stack([row_counts(targets, predict(p, [0.5] * 4)) for p in of_seeds])
            sums = [counts[:, parts == f].sum(axis=1, dtype=np.float64) for f in range(folds)]
            by_fold = {n: np.stack([SCORES[n](s) for s in sums], axis=1) for n in HEADLINES}
            samples[name] = SampleCounts(counts, folds=by_fold if overlap else {}, fold_ratio=0.25)
        draws = bootstrap(samples, RESAMPLES, seed=number)
        means = {n: {m: float(d.observed[m].mean()) for m in HEADLINES} for n, d in draws.items()}
        yield [compare_all(draws, {n: m[metric] for n, m in means.items()}, metric)[0]
               for metric in HEADLINES]  # fmt: skip


@pytest.mark.parametrize("overlap", [False, True])
def test_training_sets_of_folds_overlap(overlap: bool) -> None:
    pairs = list(trained_differences(overlap))
    rates = {m: np.mean([d[i].is_clear for d in pairs]) for i, m in enumerate(HEADLINES)}
    print(f"\nequal algorithms on fresh tables, 5 folds, 5 seeds, correction {overlap}: one is "
          f"better in { {n: f'{r:.1%}' for n, r in rates.items()} }")  # fmt: skip
    if overlap:
        assert max(rates.values()) <= 0.06 + error(0.06, len(pairs))


def test_a_constant_prediction_has_no_excess_gap() -> None:
    rng = np.random.default_rng(0)
    gaps = []
    for number in range(STUDIES):
        study = draw_study(Generator(), 1, number)
        is_empty = rng.permutation(~study.targets.any(axis=1))
        gaps.append(is_empty[ROWS:].mean() - is_empty[:ROWS].mean())
        never = row_counts(study.targets, np.zeros_like(study.targets))[:ROWS].sum(0)
        assert SCORES["excess_accuracy"](never) == 0
    print(f"\nconstant prediction, 100 train and {ROWS} test rows: accuracy gap above 0.05 in "
          f"{np.mean(np.abs(gaps) > 0.05):.1%} of tables, excess gap 0 in all")  # fmt: skip


@pytest.mark.parametrize("metric", HEADLINES)
def test_power_at_the_detectable_difference(metric: str) -> None:
    model, seeds = ErrorModel(), 5
    tables = [draw_study(Generator(), 1, i).targets[:ROWS] for i in range(STUDIES)]
    planned = np.mean([detectable_difference(t, seeds)[metric] for t in tables[:10]])

    def mean_score(skill: float) -> float:
        rng = np.random.default_rng(1)
        many = np.concatenate(tables)
        counts = row_counts(many, model.predict(many, [skill], 1, rng)[0, 0])
        return float(SCORES[metric](counts.sum(axis=0, dtype=np.float64)))

    base, skill = mean_score(0.0), 0.3
    for _ in range(4):  # the skill whose score is better by the difference to detect
        skill *= planned / (mean_score(skill) - base)
    detected = 0
    for number, targets in enumerate(tables):
        both = model.predict(targets, [skill, 0.0], seeds, np.random.default_rng([2, number]))
        draws = bootstrap(
            {n: SampleCounts(np.stack([row_counts(targets, q) for q in p]))
             for n, p in zip("ab", both, strict=True)}, RESAMPLES, seed=number,
        )  # fmt: skip
        means = {n: float(d.observed[metric].mean()) for n, d in draws.items()}
        detected += compare_all(draws, means, metric)[0].is_clear
    power = detected / STUDIES
    print(f"\nplanned detectable difference of {metric} {planned:.3f}; power there {power:.1%} "
          f"+- {error(power, STUDIES):.1%}")  # fmt: skip
    assert 0.72 <= power <= 0.88


def test_bootstrap_takes_less_than_five_seconds() -> None:
    study = replace(Generator(), shift=(0.0,) * 10, skills=(0.0,) * 10, offsets=(0.0,) * 10).draw(
        np.random.default_rng(0), 1000, 10, np.arange(1000)
    )
    samples = {
        i: SampleCounts(np.stack([row_counts(study.targets, predict(p, (0.5,) * 12)) for p in c]))
        for i, c in enumerate(study.probabilities)
    }
    seconds = []
    for _ in range(5):
        started = time.process_time()
        bootstrap(samples)
        seconds.append(time.process_time() - started)
    print(f"\n10 candidates x 10 seeds x 1000 rows: median {np.median(seconds):.2f} s of CPU "
          f"({min(seconds):.2f} to {max(seconds):.2f})")  # fmt: skip
    assert np.median(seconds) < 5
