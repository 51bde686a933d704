"""Simulated coverage of intervals: gaps, tuned thresholds, labels, slices and ranks.

Run by hand: ``pytest tests/bench/test_coverage.py -m bench -s``. The figures are in
toxbench/docs/explanation/simulations.md. Scores at 0.5 and differences are in test_intervals.py.
The measured points of a learning curve have the intervals of the leaderboard.
"""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from studies import GENERATORS, GROUP_SHARES, RARE, Generator, Study, draw_parts, error

from toxbench.evaluation.bootstrap import (
    BootstrapScores,
    SampleCounts,
    bootstrap,
    measure_uncertainty,
    sampling_units,
    sum_by_unit,
)
from toxbench.evaluation.definitions import GAP_COLUMNS, HALF, HEADLINES, TUNED_COLUMNS
from toxbench.evaluation.row_counts import row_columns, row_counts
from toxbench.evaluation.significance import best_shares, compare_all, rank_intervals
from toxbench.evaluation.slices import compare_slices
from toxbench.evaluation.thresholds import POSITIVES_NEEDED, choose_thresholds, predict
from toxbench.util.arrays import Counts

pytestmark = pytest.mark.bench

STUDIES, RESAMPLES = 300, 1000
LABEL_SCORES = ("micro_f1", "micro_average_precision")
TUNED = {rule for _, rule in TUNED_COLUMNS.values()}
COLUMNS = {  # column -> thresholds rule, score
    **{f"{name}_gap": (HALF, f"{name}_gap") for name, rule in GAP_COLUMNS.values() if not rule},
    **{column: (rule, name) for column, (name, rule) in TUNED_COLUMNS.items()},
    "micro_f1_global_gap": ("global", "micro_f1_gap"),
    "micro_average_precision": (HALF, "micro_average_precision"),
}
CASES: dict[str, tuple[Generator, int, int]] = {  # name -> generator, test rows, seeds
    **{name: (generator, 200, 5) for name, generator in GENERATORS.items()},
    "60 rows, rare labels": (RARE, 60, 3),  # not looked at when the intervals were chosen
}


def group_sizes(generator: Generator, rows: int) -> np.ndarray:
    ends = np.round(np.cumsum([0, *GROUP_SHARES]) * rows).astype(int)
    return np.diff(ends) if generator.group else np.ones(rows, int)


def count(part: Study, thresholds: list[tuple[float, ...]], names: tuple[str, ...]) -> Counts:
    rows = [
        row_columns(part.targets, predict(p, chosen), p, names)
        for p, chosen in zip(part.probabilities[0], thresholds, strict=True)
    ]
    return sum_by_unit(np.stack(rows), sampling_units(part.groups))


def resample(parts: list[Study], resamples: int, seed: int = 0) -> dict[str, BootstrapScores]:
    """Resample the scores and gaps of each thresholds rule, and the scores of each label."""
    test, train, validation = parts
    rules = [choose_thresholds(validation.targets, p) for p in validation.probabilities[0]]
    samples = {}
    for rule in (HALF, *TUNED):
        chosen = [of_seed[rule] for of_seed in rules if rule in of_seed]
        names = tuple({name for r, name in COLUMNS.values() if r == rule})
        gaps = tuple(n.removesuffix("_gap") for n in names if n.endswith("_gap"))
        if len(chosen) == len(rules):  # else a validation part has no positive row
            all_names = tuple({n.removesuffix("_gap") for n in names})
            samples[rule] = SampleCounts(
                count(test, chosen, all_names), train_only=count(train, chosen, all_names),
                scores=all_names, gaps=gaps,
            )  # fmt: skip
    for label in np.flatnonzero(test.targets.sum(axis=0) >= POSITIVES_NEEDED):
        one = Study(test.targets[:, [label]], test.probabilities[..., [label]], test.groups)
        counts = count(one, [(0.5,)] * len(rules), LABEL_SCORES)
        samples[str(label)] = SampleCounts(counts, scores=LABEL_SCORES, gaps=())
    return bootstrap(samples, resamples, seed)


def columns(draws: dict[str, BootstrapScores]) -> dict[str, tuple[str, str]]:
    """Return the columns of a study: the resampled scores' key and name."""
    labels = {f"label {k} {n}": (k, n) for k in draws if k.isdigit() for n in LABEL_SCORES}
    return {c: key for c, key in (COLUMNS | labels).items() if key[0] in draws}


def truth(generator: Generator, validation: int) -> dict[str, float]:
    """Return the means over many tables, with 2,000 test rows each, and seeds."""
    values = defaultdict(list)
    for number in range(100):
        rng = np.random.default_rng([1, number])
        parts = draw_parts(generator, rng, np.full(125, 16), validation, seeds=8)
        draws = resample(parts, 1)
        for column, (key, name) in columns(draws).items():
            values[column].append(draws[key].observed[name].mean())
    return {column: float(np.mean(scores)) for column, scores in values.items()}


@pytest.mark.parametrize("case", CASES)
def test_intervals_cover_the_truth(case: str) -> None:
    generator, rows, seeds = CASES[case]
    true, covered = truth(generator, rows // 2), defaultdict(list)
    for number in range(STUDIES):
        rng = np.random.default_rng([7, number])
        parts = draw_parts(generator, rng, group_sizes(generator, rows), rows // 2, seeds)
        draws = resample(parts, RESAMPLES, number)
        for column, (key, name) in columns(draws).items():
            ends = measure_uncertainty(draws[key], name)
            covers = ends.low <= true[column] <= ends.high
            kind = f"label {name}" if key.isdigit() else column
            covered[kind].append(covers)
        targets, probabilities, groups = (
            parts[0].targets,
            parts[0].probabilities[0],
            parts[0].groups,
        )
        halves = np.stack([row_counts(targets, predict(p, [0.5] * 12)) for p in probabilities])
        members = {"slice": rng.random(rows) < 0.3}  # not related to the scores
        for score in compare_slices(halves, sampling_units(groups), members).values():
            covered["difference of a slice"].append(
                score.difference_low <= 0 <= score.difference_high
            )
    print(f"\n{case}, {rows} test rows, {seeds} seeds: 95 % intervals cover")
    for column, flags in covered.items():
        share = float(np.mean(flags))
        print(f"  {column}: {share:.1%} ± {error(share, STUDIES):.1%}")
        assert share >= 0.85


@pytest.mark.parametrize(("spread", "number"), [(0.15, 4), (0.03, 8)])
@pytest.mark.parametrize("case", CASES)
def test_intervals_of_ranks_cover_the_truth(case: str, spread: float, number: int) -> None:
    base, rows, seeds = CASES[case]
    skills = np.linspace(spread, -spread, number)
    generator = replace(base, shift=base.shift[:1] * number, skills=skills, offsets=(0.0,) * number)
    sizes = group_sizes(base, rows)
    groups, ranks = np.repeat(np.arange(len(sizes)), sizes), np.arange(1, number + 1)
    covered, unlikely = {name: np.zeros(number) for name in HEADLINES}, 0.0
    for study in range(STUDIES):
        drawn = generator.draw(np.random.default_rng([9, study]), rows, seeds, groups)
        draws = bootstrap({
            str(place): SampleCounts(sum_by_unit(
                np.stack([row_counts(drawn.targets, predict(p, [0.5] * 12)) for p in of_seeds]),
                sampling_units(groups),
            ))
            for place, of_seeds in enumerate(drawn.probabilities)
        }, RESAMPLES, study)  # fmt: skip
        for name, counts in covered.items():
            means = {place: float(d.observed[name].mean()) for place, d in draws.items()}
            intervals = rank_intervals([*draws], compare_all(draws, means, name))
            ends = np.array([*intervals.values()])
            counts += (ends[:, 0] <= ranks) & (ranks <= ends[:, 1])
            unlikely += best_shares(np.stack([d.scores(name) for d in draws.values()]))[0] < 0.05
    print(f"\n{case}, {number} candidates: the best has P(best) below 5 % in "
          f"{unlikely / 2 / STUDIES:.1%}; intervals of ranks cover")  # fmt: skip
    for name, counts in covered.items():
        shares = counts / STUDIES
        print(f"  {name}: {shares.mean():.1%}, at least {shares.min():.1%} "
              f"± {error(shares.min(), STUDIES):.1%}")  # fmt: skip
        assert shares.min() >= 0.92 - error(0.92, STUDIES)
