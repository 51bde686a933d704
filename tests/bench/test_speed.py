"""Measurements, run by hand: ``pytest tests/bench -m bench -s``. Ratios of one run, interleaved."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from toxbench.benchmark.candidate import BackboneCandidate
from toxbench.benchmark.plan import Plan, make_plan
from toxbench.benchmark.workbench import Workbench
from toxbench.data.table import read_comments
from toxbench.plugin.registry import Registry
from toxbench.report.speed import terminal_tables
from toxbench.settings import run_settings
from toxbench.speed.measure import measure
from toxbench.speed.request import Shape, SpeedRequest
from toxbench.training.device import choose_device
from toxbench.training.loop import Trainer, make_optimizer, make_scheduler
from toxbench.training.losses import LOSSES

pytestmark = pytest.mark.bench


def compare(variants: dict[str, Callable[[], None]], repeats: int = 5) -> dict[str, float]:
    """Time variants in turn; print median and spread; return medians in seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for variant in variants.values():
        variant()  # warm up
    for _ in range(repeats):
        for name, variant in variants.items():
            started = time.perf_counter()
            variant()
            seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        low, median, high = np.min(values), np.median(values), np.max(values)
        print(f"\n{name}: median {median:.2f} s, {low:.2f} to {high:.2f} s", end="")
    return {name: float(np.median(values)) for name, values in seconds.items()}


@pytest.fixture(scope="module")
def plan(real_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    flags = {"data": real_table, "weights": ("stand-in",), "backbones": ("bert",),
             "results": tmp_path_factory.mktemp("results")}  # fmt: skip
    return make_plan(run_settings({}, flags), Registry.discover())


def epoch_of(plan: Plan, cheap_dropout: bool, first_token_only: bool) -> Callable[[], None]:
    """Return a function that trains the bert stand-in for one epoch on the real train rows."""
    candidate = plan.candidates[0]
    assert isinstance(candidate, BackboneCandidate)
    assert candidate.weights.folder is not None
    assert candidate.weights.build is not None
    module = candidate.weights.build(candidate.weights.folder, 12)
    if not first_token_only:
        module.encoder.encoder.layer[-1].attention.output._forward_pre_hooks.clear()
    targets, settings = plan.protocol.comments.targets, candidate.settings
    device = choose_device("auto")
    bench = Workbench(candidate.backbone, candidate.weights, plan.protocol.comments, device)
    tokens = bench.tokens(settings.max_length)
    trainer = Trainer(module, candidate.backbone.head, tokens, targets, settings, device)
    if not cheap_dropout:
        trainer._dropout = nullcontext  # type: ignore[method-assign]
    rows = plan.protocol.folds[0].train
    loss = LOSSES["bce"](targets[rows], settings)
    optimizer = make_optimizer(trainer._groups, settings, device)
    scheduler = make_scheduler(optimizer, settings, len(rows) * 100)
    rng = np.random.default_rng(0)

    def epoch() -> None:
        trainer._epoch(rows, rng, loss, optimizer, scheduler)
        if device.kind == "cuda":
            torch.cuda.synchronize()

    return epoch


def test_what_each_trick_of_the_loop_saves(plan: Plan) -> None:
    medians = compare(
        {
            "plain": epoch_of(plan, cheap_dropout=False, first_token_only=False),
            "cheap dropout": epoch_of(plan, cheap_dropout=True, first_token_only=False),
            "cheap dropout, first token only": epoch_of(plan, True, True),
        }
    )
    plain = medians["plain"]
    print("\nof plain:", {name: round(value / plain, 3) for name, value in medians.items()})
    assert medians["cheap dropout, first token only"] < plain


@pytest.mark.parametrize(
    ("shape", "peers", "least"),
    [
        (None, ("trainer", "trainer-default", "notebook"),
         {"trainer": 1.6, "trainer-default": 5, "notebook": 15}),
        (Shape(hidden=768, layers=12, heads=12), ("trainer", "notebook"),
         {"trainer": 1.4, "notebook": 15}),
    ],
    ids=["MiniLM", "bert-base"],
)  # fmt: skip
def test_how_much_faster_than_what_a_user_would_take_instead(
    real_table: Path, shape: Shape | None, peers: tuple[str, ...], least: dict[str, float]
) -> None:
    """The same code, settings and rows as: toxbench speed --backbones bert --against ..."""
    pytest.importorskip("accelerate")
    flags = {"data": real_table, "weights": ("stand-in",), "backbones": ("bert",),
             "train": {"epochs": 3}, "split": {"validation_size": 0.0}}  # fmt: skip
    registry = Registry.discover()
    request = SpeedRequest(peers=peers, shape=shape)
    records = list(measure(run_settings({}, flags), request, registry, print))
    render = registry.report_format("plain").item.render
    print("\n\n".join(map(render, terminal_tables(records))))
    found = {r.by: r.times_slower.median for r in records if r.times_slower is not None}
    assert {by: times for by, times in found.items() if times < least[by]} == {}


def test_a_million_rows_are_validated_within_a_minute(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "million.csv"
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("CommentId,Text," + ",".join(f"Is{i}" for i in range(12)) + "\n")
        for start in range(0, 1_000_000, 10_000):
            labels = rng.random((10_000, 12)) < 0.1
            file.writelines(
                f'c{start + i},"comment {start + i}, {"word " * (i % 40)}",'
                + ",".join(map(str, row)) + "\n"
                for i, row in enumerate(labels)
            )  # fmt: skip
    started = time.perf_counter()
    comments = read_comments(path)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n1,000,000 rows x 12 labels: {seconds:.1f} s, process peak {peak:.2f} GiB")
    assert len(comments) == 1_000_000
    assert seconds < 60
    assert peak < 4
