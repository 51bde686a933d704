"""Savings and cost of pruning bad trials: three studies, each with and without a pruner.

Run by hand: ``pytest tests/bench/test_pruning.py -m bench -s``; ``-k study1`` runs one study. Each
search prints its result as soon as it ends.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import pytest

import toxbench
from toxbench.store.trials import TrialStore, read_tuned

pytestmark = pytest.mark.bench

STUDIES = 3
TRIALS = 20


@dataclass(frozen=True)
class Result:
    """Epochs that a search trained, epochs of the same trials without pruning, and its score."""

    trained: int
    planned: int
    score: float

    @property
    def saved(self) -> float:
        """Share of the planned epochs that was not trained."""
        return 1 - self.trained / self.planned


Pair = tuple[Result, Result]  # with and without pruning


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """The studies of this run so far."""
    return []


def search(results: Path, pruner: str, seed: int) -> Result:
    """Search; return the epochs and the winner's score with fresh seeds."""
    toxbench.tune(
        backbones=["distilbert"],
        baselines=[],
        weights="stand-in",
        seeds=1,
        results=results / pruner,
        train={"max_length": 32},
        # Short trainings: the sample is easy, and six searches are trained.
        tune={"trials": TRIALS, "pruner": pruner, "tune_seed": seed, "space": {"epochs": "4:6"}},
    )
    (tuned,) = (results / pruner).glob("*/tuning/*/tuned.toml")
    records = TrialStore(tuned.parent / "trials").records()
    searched = Result(
        trained=sum(record.epochs for record in records),
        planned=sum(record.settings.epochs for record in records),
        score=read_tuned(tuned).tuning.score,
    )
    epochs = f"{searched.trained} of {searched.planned} epochs, {searched.saved:.0%} saved"
    print(f"\nstudy {seed}, pruner {pruner}: {epochs}; score {searched.score:.3f}", flush=True)
    return searched


@pytest.mark.parametrize("seed", range(STUDIES), ids=lambda seed: f"study{seed}")
def test_study_with_and_without_pruning(tmp_path: Path, pairs: list[Pair], seed: int) -> None:
    pruned, unpruned = search(tmp_path, "median", seed), search(tmp_path, "none", seed)
    pairs.append((pruned, unpruned))
    assert pruned.trained < pruned.planned
    assert unpruned.trained == unpruned.planned


def test_pruning_saves_epochs_without_loss(pairs: list[Pair]) -> None:
    if len(pairs) < STUDIES:
        pytest.skip(f"{len(pairs)} of {STUDIES} studies were run")
    differences = [pruned.score - unpruned.score for pruned, unpruned in pairs]
    saved, error = fmean(pruned.saved for pruned, _ in pairs), stdev(differences) / STUDIES**0.5
    print(f"\nmedian pruner: {saved:.0%} saved; score {fmean(differences):+.3f} +- {error:.3f}")
    assert saved >= 0.4
    assert fmean(differences) + 2 * error >= 0
