"""Time that each optimization of the loop saves: ``pytest tests/bench -m bench -s -k trick``."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from toxbench.benchmark.candidates import BackboneCandidate
from toxbench.benchmark.plan import Plan, make_plan
from toxbench.benchmark.trainer_factory import TrainerFactory
from toxbench.benchmark.validate import resolve
from toxbench.config import build_run_settings
from toxbench.data.protocol import Split
from toxbench.evaluation.early_stopping import epoch_scores
from toxbench.plugin.registry import Registry
from toxbench.training.device import choose_device, seeded
from toxbench.training.head import Head
from toxbench.training.trainer import NO_OPTIMIZATIONS, Optimizations, Trainer

pytestmark = pytest.mark.bench
ROUNDS = 5


def without_hooks(module: nn.Module) -> nn.Module:
    """Remove the hooks that cut the last layer to its first token."""
    for child in module.modules():
        child._forward_pre_hooks.clear()
    return module


def make_epoch(
    plan: Plan, optimizations: Optimizations, change: Callable[[nn.Module], nn.Module]
) -> Callable[[], float]:
    """Return a function that trains a backbone's stand-in and returns the seconds of an epoch."""
    (candidate,) = plan.candidates
    assert isinstance(candidate, BackboneCandidate)
    assert candidate.weights.folder is not None
    build = candidate.backbone.build
    comments, device = plan.protocol.comments, choose_device("auto")
    settings = candidate.settings.model_copy(update={"epochs": 1})
    bench = TrainerFactory(candidate.backbone, candidate.weights, comments, device, "")
    tokens = bench.tokens(settings)
    module = change(build(candidate.weights.folder, len(comments.labels)))
    head = Head(candidate.weights.head or candidate.backbone.head)
    trainer = Trainer(module, head, tokens, comments.targets, settings, device, optimizations)
    rows = plan.protocol.folds[0].train
    split = Split(rows, rows[:0], rows[:0])

    def epoch() -> float:
        with seeded(0, device):
            trained = trainer.train(split, 0, epoch_scores, lambda e: None)
        return trained.train_seconds

    return epoch


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_time_saved_by_each_trick(real_table: Path, tmp_path: Path, name: str) -> None:
    flags = {"data": real_table, "weights": ("stand-in",), "backbones": (name,),
             "baselines": (), "results": tmp_path}  # fmt: skip
    plan = make_plan(resolve(build_run_settings({}, flags), Registry.discover()))
    epochs = {
        "all": make_epoch(plan, Optimizations(), lambda m: m),
        "torch's dropout": make_epoch(plan, Optimizations(pooled_dropout=False), lambda m: m),
        "full embedding": make_epoch(plan, Optimizations(trimmed_embedding=False), lambda m: m),
        "whole last layer": make_epoch(plan, Optimizations(), without_hooks),
        "plain": make_epoch(plan, NO_OPTIMIZATIONS, without_hooks),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in epochs}
    for number in range(ROUNDS + 1):
        for kind, run_epoch in epochs.items():
            duration = run_epoch()
            if number:  # the first round warms up
                seconds[kind].append(duration)
    for kind, values in seconds.items():
        of_plain = np.array(values) / np.array(seconds["plain"])
        print(
            f"\n{name}, {kind}: median {np.median(values):.2f} s, {min(values):.2f} to "
            f"{max(values):.2f} s; of plain {np.median(of_plain):.2f}, {of_plain.min():.2f} to "
            f"{of_plain.max():.2f}",
            end="",
        )
    assert np.median(seconds["all"]) < np.median(seconds["plain"])
