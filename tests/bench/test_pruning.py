"""What ending bad trials early saves and costs: three searches, each with and without a pruner.

Run by hand: ``pytest tests/bench/test_pruning.py -m bench -s``
"""

from pathlib import Path
from statistics import fmean, stdev

import pytest

import toxbench
from toxbench.records import TrialRecord
from toxbench.store.trials import TrialStore
from toxbench.store.tuned import read_tuned

pytestmark = pytest.mark.bench


def search(results: Path, pruner: str, seed: int) -> tuple[list[TrialRecord], float]:
    """Search; return the trials and the winner's score with fresh seeds."""
    toxbench.tune(
        backbones=["distilbert"],
        baselines=[],
        weights="stand-in",
        seeds=1,
        results=results / f"{pruner}-{seed}",
        train={"max_length": 32},
        # Short trainings: the sample is easy, and six searches are trained.
        tune={"trials": 20, "pruner": pruner, "tune_seed": seed, "space": {"epochs": "4:6"}},
    )
    (tuned,) = (results / f"{pruner}-{seed}").glob("*/tuning/*/tuned.toml")
    return TrialStore(tuned.parent / "trials").records(), read_tuned(tuned).tuning.average_precision


def test_pruning_saves_epochs_at_no_loss(tmp_path: Path) -> None:
    saved, differences = [], []
    for seed in range(3):
        records, score = search(tmp_path, "median", seed)
        _, unpruned = search(tmp_path, "none", seed)
        trained = sum(record.epochs for record in records)
        planned = sum(record.settings.epochs for record in records)
        saved.append(1 - trained / planned)
        differences.append(score - unpruned)
        print(f"\nstudy {seed}: {trained} of {planned} epochs, {saved[-1]:.0%} saved; "
              f"score {score:.3f}, without pruning {unpruned:.3f}", end="")  # fmt: skip
    error = stdev(differences) / 3**0.5
    change = f"{fmean(differences):+.3f} +- {error:.3f}"
    print(f"\nmedian pruner: {fmean(saved):.0%} saved; score {change}")
    print(f"saved in each study: {', '.join(f'{share:.0%}' for share in saved)}")
    assert fmean(saved) >= 0.4
    assert fmean(differences) + 2 * error >= 0
