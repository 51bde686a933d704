"""The optimizations of the training loop do not lower the scores over five seeds.

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
from toxbench.evaluation.early_stopping import epoch_scores
from toxbench.evaluation.metrics import evaluate
from toxbench.plugin.registry import Registry
from toxbench.training.device import seeded
from toxbench.training.head import Head
from toxbench.training.trainer import NO_OPTIMIZATIONS, Optimizations, Trainer

pytestmark = pytest.mark.bench
SEEDS = 5
SCORES = ("micro_f1", "subset_accuracy", "micro_average_precision")


def without_hooks(module: nn.Module) -> nn.Module:
    """Remove the hooks that cut the last layer to its first token."""
    for child in module.modules():
        child._forward_pre_hooks.clear()
    return module


def scores(plan: Plan, optimizations: Optimizations, seed: int) -> tuple[float, ...]:
    """Train a stand-in as a run does; return its scores on the test rows."""
    (candidate,) = plan.candidates
    assert isinstance(candidate, BackboneCandidate)
    assert candidate.weights.folder is not None
    comments, settings = plan.protocol.comments, candidate.settings
    device, split = plan.devices[candidate.title], plan.protocol.folds[0]
    factory = TrainerFactory(candidate.backbone, candidate.weights, comments, device, "")
    tokens = factory.tokens(settings)
    build = candidate.backbone.build
    with seeded(seed, device):
        module = build(candidate.weights.folder, len(comments.labels))
        module = without_hooks(module) if optimizations == NO_OPTIMIZATIONS else module
        head = Head(candidate.weights.head or candidate.backbone.head)
        trainer = Trainer(module, head, tokens, comments.targets, settings, device, optimizations)
        trainer.train(split, seed, epoch_scores, lambda epoch: None)
        probabilities = trainer.predict(split.test)
    test_scores = evaluate(
        comments.targets[split.test], probabilities, [0.5] * len(comments.labels)
    )
    return tuple(test_scores[name] or 0.0 for name in SCORES)


@pytest.mark.parametrize("name", ["distilbert", "bert"])
def test_optimizations_keep_the_scores(real_table: Path, tmp_path: Path, name: str) -> None:
    flags = {"data": real_table, "weights": ("stand-in",), "backbones": (name,),
             "baselines": (), "results": tmp_path}  # fmt: skip
    plan = make_plan(resolve(build_run_settings({}, flags), Registry.discover()))
    variants = (Optimizations(), NO_OPTIMIZATIONS)
    pairs = [tuple(scores(plan, variant, seed) for variant in variants) for seed in range(SEEDS)]
    for place, score in enumerate(SCORES):
        fast, plain = ([pair[side][place] for pair in pairs] for side in (0, 1))
        error = (stdev(fast) ** 2 / SEEDS + stdev(plain) ** 2 / SEEDS) ** 0.5
        difference = fmean(fast) - fmean(plain)
        print(f"\n{name} {score}: fast {fmean(fast):.3f}, plain {fmean(plain):.3f}, "
              f"difference {difference:+.3f} +- {error:.3f}", end="", flush=True)  # fmt: skip
        assert difference > -2 * error
