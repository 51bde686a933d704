"""Simulations with a known truth: coverage of intervals, and rate of false differences.

Run by hand: ``pytest tests/bench/test_intervals.py -m bench -s``
"""

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from toxbench.evaluation.bootstrap import SampleCounts, bootstrap, interval
from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.power import ErrorModel, detectable_difference
from toxbench.evaluation.row_counts import SCORES, row_counts
from toxbench.evaluation.significance import compare_all

pytestmark = pytest.mark.bench

ROWS, SEEDS, STUDIES, RESAMPLES = 200, 5, 2000, 2000
# Shares of positive rows as in the real table; two labels are empty.
SHARES = np.array([0.46, 0.38, 0.02, 0.17, 0.13, 0.15, 0.14, 0.012, 0, 0, 0.015, 0.004])
MODEL = ErrorModel()
Targets = npt.NDArray[np.uint8]


def make_rows(rng: np.random.Generator, count: int) -> Targets:
    """Draw targets: a latent number of a row correlates its labels; half of the rows are empty."""
    cuts = np.array([np.quantile(_NORMALS, 1 - share) if share else np.inf for share in SHARES])
    latent = rng.standard_normal((count, 1))
    noise = rng.standard_normal((count, len(SHARES)))
    return (0.9 * latent + (1 - 0.81) ** 0.5 * noise > cuts).astype(np.uint8)


_NORMALS = np.random.default_rng(0).standard_normal(400_000)


def counts_of(targets: Targets, predictions: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.stack([row_counts(targets, seed) for seed in predictions])


def true_scores(skill: float) -> dict[str, float]:
    """Mean over many seeds of the scores on very many rows."""
    rng = np.random.default_rng(1)
    scores = []
    for _ in range(60):
        targets = make_rows(rng, 20_000)
        (predictions,) = MODEL.predict(targets, [skill], 1, rng)
        sums = counts_of(targets, predictions).sum(axis=1, dtype=np.float64)
        scores.append([SCORES[name](sums)[0] for name in HEADLINES])
    return dict(zip(HEADLINES, np.mean(scores, axis=0).tolist(), strict=True))


def studies(
    skills: tuple[float, float], count: int
) -> Iterator[tuple[Targets, dict[str, SampleCounts]]]:
    """Yield test rows and two candidates' counts on them, once for each study."""
    for study in range(count):
        rng = np.random.default_rng([2, study])
        targets = make_rows(rng, ROWS)
        both = MODEL.predict(targets, skills, SEEDS, rng)
        yield {
            name: SampleCounts(counts_of(targets, p)) for name, p in zip("ab", both, strict=True)
        }


def means(evidence: dict[str, SampleCounts], metric: str) -> dict[str, float]:
    sums = {name: counts.test.sum(axis=1, dtype=np.float64) for name, counts in evidence.items()}
    return {name: float(SCORES[metric](total).mean()) for name, total in sums.items()}


def error(share: float, count: int) -> float:
    """Monte Carlo standard error of a share."""
    return (share * (1 - share) / count) ** 0.5


def test_intervals_cover_the_truth() -> None:
    truth = true_scores(0.0)
    covered = dict.fromkeys((*HEADLINES, *(f"{n} difference" for n in HEADLINES)), 0)
    different = dict.fromkeys(HEADLINES, 0)
    for study, evidence in enumerate(studies((0.0, 0.0), STUDIES)):
        draws = bootstrap(evidence, RESAMPLES, seed=study)
        for name in HEADLINES:
            low, high = interval(draws["a"].scores(name))
            covered[name] += low <= truth[name] <= high
            (comparison,) = compare_all(draws, means(evidence, name), name)
            covered[f"{name} difference"] += comparison.low <= 0 <= comparison.high
            different[name] += comparison.is_clear
    for name, count in covered.items():
        share = count / STUDIES
        print(
            f"\n95 % intervals of {name} cover {share:.1%} +- {error(share, STUDIES):.1%}", end=""
        )
    for name, count in different.items():
        share = count / STUDIES
        print(f"\nequal candidates differ in {name} in {share:.1%} +- {error(share, STUDIES):.1%}",
              end="")  # fmt: skip
    print()
    assert all(0.93 <= count / STUDIES <= 0.97 for count in covered.values())
    assert all(count / STUDIES <= 0.05 + 2 * error(0.05, STUDIES) for count in different.values())


@pytest.mark.parametrize("metric", HEADLINES)
def test_power_at_the_detectable_difference(metric: str) -> None:
    planned = np.mean(
        [detectable_difference(make_rows(np.random.default_rng([3, i]), ROWS), SEEDS)[metric]
         for i in range(20)]
    )  # fmt: skip
    base = true_scores(0.0)[metric]
    skill = 0.3
    for _ in range(4):  # the skill whose score is better by the difference to detect
        skill *= planned / (true_scores(skill)[metric] - base)
    count, detected = STUDIES // 2, 0
    for study, evidence in enumerate(studies((skill, 0.0), count)):
        draws = bootstrap(evidence, RESAMPLES, seed=study)
        (difference,) = compare_all(draws, means(evidence, metric), metric)
        detected += difference.is_clear
    power = detected / count
    print(f"\nplanned detectable difference of {metric} {planned:.3f}; power there {power:.1%} "
          f"+- {error(power, count):.1%}")  # fmt: skip
    assert 0.75 <= power <= 0.85


def test_bootstrap_takes_less_than_five_seconds() -> None:
    rng = np.random.default_rng(0)
    targets = make_rows(rng, 1000)
    predictions = MODEL.predict(targets, [0.0] * 10, 10, rng)
    evidence = {
        i: SampleCounts(counts_of(targets, candidate)) for i, candidate in enumerate(predictions)
    }
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        bootstrap(evidence)
        seconds.append(time.perf_counter() - started)
    print(f"\n10 candidates x 10 seeds x 1000 rows, 10,000 resamples: median "
          f"{np.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")  # fmt: skip
    assert np.median(seconds) < 5
