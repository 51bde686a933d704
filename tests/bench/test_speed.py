"""Measurements, run by hand: ``pytest tests/bench -m bench -s``. Ratios of one run, interleaved."""

import time
from pathlib import Path

import numpy as np
import pytest

from toxbench.data.table import read_comments
from toxbench.layers import run_settings
from toxbench.plugin.registry import Registry
from toxbench.report.speed import terminal_tables
from toxbench.speed.measure import measure
from toxbench.speed.request import Shape, SpeedRequest

pytestmark = pytest.mark.bench


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
