"""What processes of one training divide and agree on, in two real ones."""

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from toxbench.training.process_group import SINGLE_PROCESS, TorchrunGroup

ASKED = """
import json, os, sys
import numpy as np, torch
import torch.distributed as dist
from toxbench.errors import ToxbenchError
from toxbench.training.process_group import Ranks, connected, from_the_first

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
group, done = Ranks(rank, size), []

def fails_in(one):
    if rank == one:
        raise ValueError("a bad day")
    return "well"

def told(ask, one):
    try:
        return ask(lambda: fails_in(one))
    except (ValueError, ToxbenchError) as error:
        return f"{type(error).__name__}: {error}"

def noise(seed):
    torch.manual_seed(seed)
    group.own_noise(seed)
    return float(torch.rand(()))

store, _, _ = next(iter(dist.rendezvous("env://", rank, size)))
with connected(dist.PrefixStore("test", store), rank, size, "cpu"):
    module = torch.nn.BatchNorm1d(1)
    module.running_mean += rank + 1
    group.same_buffers(module)
    rows = np.array([7, 5, 6])
    seen = []
    def work(some):
        seen.extend(some.tolist())
        return np.stack([some, -some], axis=1).astype(np.float32)
    values = group.divided(rows, np.arange(10), work)
    nothing = group.divided(rows[:0], np.arange(10), work)
    found = {
        "any": [group.any(rank == 1), group.any(False)],
        "agree": [group.agree(rank == 0), group.agree(rank == 1)],
        "sum": group.sum(0.1 + rank),
        "values": values.tolist(), "shapes": [values.shape, nothing.shape], "seen": seen,
        "together": [told(group.together, one) for one in (None, 0, 1)],
        "one by one": [told(group.one_by_one, one) for one in (None, 0, 1)],
        "first": from_the_first({"said by": rank}),
        "mean": float(module.running_mean),
        "noise": noise(3),
    }
with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
    json.dump(found, file)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes got from the other."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "asked.py").write_text(ASKED, encoding="utf-8")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*start, "asked.py", str(folder)], cwd=folder, capture_output=True, text=True, timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_flags_and_sums_are_the_same_in_all(found: list[dict[str, Any]]) -> None:
    for one in found:
        assert one["any"] == [True, False]
        assert one["agree"] == [True, False]
        assert one["sum"] == pytest.approx(1.2, abs=1e-12)
        assert one["first"] == {"said by": 0}
        assert one["mean"] == 1.0


def test_rows_are_divided_from_the_largest_on_and_gathered_in_their_order(
    found: list[dict[str, Any]],
) -> None:
    assert [one["seen"] for one in found] == [[7, 5], [6]]
    for one in found:
        assert one["values"] == [[7, -7], [5, -5], [6, -6]]
        assert one["shapes"] == [[3, 2], [0, 2]]


def test_where_one_fails_all_do(found: list[dict[str, Any]]) -> None:
    first, second = found
    own = "ValueError: a bad day"
    assert first["together"] == ["well", own, f"CompanionError: rank 1 of 2: {own}"]
    assert second["together"] == ["well", f"CompanionError: rank 0 of 2: {own}", own]
    assert [one["one by one"] for one in found] == [one["together"] for one in found]


def test_the_first_draws_as_it_would_alone_and_the_others_differ(
    found: list[dict[str, Any]],
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        SINGLE_PROCESS.seed_rank(3)
        assert found[0]["noise"] == float(torch.rand(()))
    assert found[1]["noise"] != found[0]["noise"]


def test_the_passes_of_a_step_are_dealt_out_and_nobody_stays_away() -> None:
    step = [np.arange(0, 3), np.arange(3, 6), np.arange(6, 7)]
    shares = [TorchrunGroup(rank, 4).share(step) for rank in range(4)]
    assert [[(list(p.rows), p.counted) for p in share] for share in shares] == [
        [([0, 1, 2], 3)], [([3, 4, 5], 3)], [([6], 1)], [([0], 0)]
    ]  # fmt: skip
    assert [len(p.rows) for p in SINGLE_PROCESS.share(step)] == [3, 3, 1]
    assert [TorchrunGroup(0, 3).per_rank_batch(16), SINGLE_PROCESS.per_rank_batch(16)] == [6, 16]
