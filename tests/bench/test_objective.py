"""Gain of tuned over default settings on test rows, for each objective of a search.

A surrogate stands for the backbones: logistic regression on features of the frozen stand-in, with
the strength of its penalty and the weight of positive entries as hyperparameters. The procedure is
that of ``toxbench tune``: trials on one inner fold, finalists on all inner folds with three seeds,
and the default settings among the finalists. A seed is a bootstrap sample of the train rows.

Run by hand: ``pytest tests/bench/test_objective.py -m bench -s``; about five minutes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from transformers import AutoModel, AutoTokenizer

from toxbench.data.table import read_comments
from toxbench.evaluation.metrics import average_precision, headline
from toxbench.plugin.registry import Registry
from toxbench.training.weights import WeightsChoice, WeightsFinder

pytestmark = pytest.mark.bench

OUTER_SPLITS, TEST_SHARE, INNER_FOLDS = 10, 0.2, 5
TRIALS, FINALISTS, SEEDS = 20, 3, 3
COMPONENTS = 64

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Objective = Callable[[npt.NDArray[np.uint8], Floats], float | None]


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of the surrogate; `PENALTY` and 1 are the default settings."""

    penalty: float = 0.1
    positive_weight: float = 1.0


@dataclass(frozen=True)
class Surrogate:
    """Features ``[row, feature]`` and targets ``[row, label]`` of a table."""

    features: Floats
    targets: npt.NDArray[np.uint8]

    def score(
        self, settings: Settings, train: Rows, test: Rows, seed: int, objective: Objective
    ) -> float:
        """Fit a bootstrap sample of the train rows; score the test rows."""
        sample = np.random.default_rng(seed).choice(train, len(train))
        probabilities = np.zeros((len(test), self.targets.shape[1]))
        for label, column in enumerate(self.targets[sample].T):
            if 0 < column.sum() < len(column):
                weights = {0: 1.0, 1: settings.positive_weight}
                model = LogisticRegression(C=settings.penalty, class_weight=weights, max_iter=1000)
                model.fit(self.features[sample], column)
                probabilities[:, label] = model.predict_proba(self.features[test])[:, 1]
        return objective(self.targets[test], probabilities) or 0.0

    def tune(self, rows: Rows, seed: int, objective: Objective) -> Settings:
        """Search on inner folds of the rows, as ``toxbench tune`` does; return the best."""
        rng = np.random.default_rng(seed)
        folds = np.array_split(rng.permutation(rows), INNER_FOLDS)
        sampled = [
            Settings(10 ** rng.uniform(-3, 1), 2 ** rng.uniform(0, 2.5)) for _ in range(TRIALS - 1)
        ]

        def mean(settings: Settings, folds: list[Rows], seeds: range) -> float:
            return fmean(
                self.score(settings, np.setdiff1d(rows, fold), fold, s, objective)
                for fold in folds
                for s in seeds
            )

        trials = sorted(
            [Settings(), *sampled], key=lambda s: -mean(s, folds[:1], range(10_001, 10_002))
        )
        finalists = dict.fromkeys([*trials[:FINALISTS], Settings()])
        return max(finalists, key=lambda s: mean(s, folds, range(10_002, 10_002 + SEEDS)))


@pytest.fixture(scope="module")
def surrogate(real_table: Path) -> Surrogate:
    """Features of the YouTube table: the first token's output of the frozen stand-in."""
    comments = read_comments(real_table)
    backbone = Registry.discover().backbone("distilbert").item
    folder = WeightsFinder(WeightsChoice("stand-in")).find(backbone).folder
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    features = []
    with torch.inference_mode():
        for text in comments.texts:
            tokens = tokenizer(str(text), truncation=True, max_length=128, return_tensors="pt")
            features.append(model(**tokens).last_hidden_state[0, 0].double().numpy())
    reduced = PCA(COMPONENTS, random_state=0).fit_transform(np.stack(features))  # for speed
    return Surrogate(StandardScaler().fit_transform(reduced), comments.targets)


def gains(surrogate: Surrogate, objective: Objective) -> list[float]:
    """Return the gain of tuned settings in the headline score on each outer split's test rows."""
    result = []
    for split in range(OUTER_SPLITS):
        rows = np.random.default_rng(split).permutation(len(surrogate.targets))
        test, rest = np.split(rows, [round(TEST_SHARE * len(rows))])
        tuned = surrogate.tune(rest, split, objective)
        scores = [
            fmean(surrogate.score(s, rest, test, seed, headline) for seed in range(SEEDS))
            for s in (tuned, Settings())
        ]
        result.append(scores[0] - scores[1])
    return result


def test_headline_objective_gains_on_test_rows(surrogate: Surrogate) -> None:
    with threadpool_limits(1):
        for name, objective in (("headline", headline), ("average precision", average_precision)):
            values = gains(surrogate, objective)
            error = stdev(values) / len(values) ** 0.5
            below = sum(value < 0 for value in values)
            print(f"{name}: gain {fmean(values):+.4f} ± {error:.4f}, {below} of 10 below default")
            if name == "headline":
                assert fmean(values) >= 0
