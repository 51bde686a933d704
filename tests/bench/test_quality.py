"""What the tricks of the fast loop cost in quality: nothing that five seeds could show.

Run by hand on the real table: ``pytest tests/bench/test_quality.py -m bench -s``.
"""

from pathlib import Path
from statistics import fmean, stdev

import pytest
from torch import nn

from toxbench.benchmark.candidates import BackboneCandidate
from toxbench.benchmark.plan import Plan, make_plan
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.benchmark.validate import resolve
from toxbench.config import build_run_settings
from toxbench.evaluation.early_stopping import EpochSelector, epoch_scores
from toxbench.evaluation.metrics import evaluate
from toxbench.plugin.registry import Registry
from toxbench.training.device import seeded
from toxbench.training.trainer import NO_OPTIMIZATIONS, Optimizations, Trainer

pytestmark = pytest.mark.bench
SEEDS = 5
SCORES = ("micro_f1", "subset_accuracy", "micro_average_precision")


def without_hooks(module: nn.Module) -> nn.Module:
    """Take the hooks away that cut the last layer to its first token."""
    for child in module.modules():
        child._forward_pre_hooks.clear()
    return module


def scores(plan: Plan, tricks: Optimizations, seed: int) -> tuple[float, ...]:
    """Train a stand-in as a run does; return its scores on the test rows."""
    (candidate,) = plan.candidates
    assert isinstance(candidate, BackboneCandidate)
    assert candidate.weights.folder is not None
    comments, settings = plan.protocol.comments, candidate.settings
    device, split = plan.devices[candidate.title], plan.protocol.folds[0]
    tokens = TrainerFactory(candidate.backbone, candidate.weights, comments, device).tokens(
        settings.max_length
    )
    build = candidate.weights.build or candidate.backbone.build
    with seeded(seed, device):
        module = build(candidate.weights.folder, len(comments.labels))
        module = without_hooks(module) if tricks == NO_OPTIMIZATIONS else module
        head = candidate.backbone.head
        trainer = Trainer(module, head, tokens, comments.targets, settings, device, tricks)
        trainer.train(split, seed, epoch_scores, EpochSelector().should_keep, lambda epoch: None)
        probabilities = trainer.predict(split.test)
    found = evaluate(comments.targets[split.test], probabilities, [0.5] * len(comments.labels))
    return tuple(found[name] or 0.0 for name in SCORES)


@pytest.mark.parametrize("name", ["distilbert", "bert"])
def test_the_fast_loop_is_as_good_as_the_plain_one(
    real_table: Path, tmp_path: Path, name: str
) -> None:
    flags = {"data": real_table, "weights": ("stand-in",), "backbones": (name,),
             "baselines": (), "results": tmp_path}  # fmt: skip
    plan = make_plan(resolve(build_run_settings({}, flags), Registry.discover()))
    ways = (Optimizations(), NO_OPTIMIZATIONS)
    pairs = [tuple(scores(plan, way, seed) for way in ways) for seed in range(SEEDS)]
    for place, score in enumerate(SCORES):
        fast, plain = ([each[way][place] for each in pairs] for way in (0, 1))
        error = (stdev(fast) ** 2 / SEEDS + stdev(plain) ** 2 / SEEDS) ** 0.5
        difference = fmean(fast) - fmean(plain)
        print(f"\n{name} {score}: fast {fmean(fast):.3f}, plain {fmean(plain):.3f}, "
              f"difference {difference:+.3f} +- {error:.3f}", end="", flush=True)  # fmt: skip
        assert difference > -2 * error
