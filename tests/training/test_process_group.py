"""Process groups divide work and exchange values; tested with two real processes."""

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from support import TIMEOUT

from toxbench.training.process_group import SINGLE_PROCESS, TorchrunGroup

pytestmark = pytest.mark.slow

SCRIPT = """
import json, os, sys
import numpy as np, torch
import torch.distributed as dist
from toxbench.errors import ToxbenchError
from toxbench.training.process_group import TorchrunGroup, connected, from_the_first

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
group = TorchrunGroup(rank, size)

def work(failing_rank):
    if rank == failing_rank:
        raise ValueError("bad value")
    return "success"

def outcome(run, failing_rank):
    try:
        return run(lambda: work(failing_rank))
    except (ValueError, ToxbenchError) as error:
        return f"{type(error).__name__}: {error}"

def random_number(seed):
    torch.manual_seed(seed)
    group.seed_rank(seed)
    return float(torch.rand(()))

store, _, _ = next(iter(dist.rendezvous("env://", rank, size)))
with connected(dist.PrefixStore("test", store), rank, size, "cpu"):
    module = torch.nn.BatchNorm1d(1)
    module.running_mean += rank + 1
    group.same_buffers(module)
    rows = np.array([7, 5, 6])
    computed = []
    def values_of(share):
        computed.extend(share.tolist())
        return np.stack([share, -share], axis=1).astype(np.float32)
    values = group.scatter_rows(rows, np.arange(10), values_of)
    empty = group.scatter_rows(rows[:0], np.arange(10), values_of)
    answers = {
        "any": [group.any(rank == 1), group.any(False)],
        "flags": [group.broadcast_flag(rank == 0), group.broadcast_flag(rank == 1)],
        "sum": group.sum(0.1 + rank),
        "values": values.tolist(), "shapes": [values.shape, empty.shape], "computed": computed,
        "all": [outcome(group.run_on_all, failing) for failing in (None, 0, 1)],
        "rank0 first": [outcome(group.run_rank0_first, failing) for failing in (None, 0, 1)],
        "first": from_the_first({"rank": rank}),
        "mean": float(module.running_mean),
        "random": random_number(3),
    }
with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
    json.dump(answers, file)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The values that each of two processes received."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    completed = subprocess.run(
        [*torchrun, "script.py", str(folder)], cwd=folder, capture_output=True, text=True,
        timeout=TIMEOUT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_all_processes_get_the_same_values(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        assert answer["any"] == [True, False]
        assert answer["flags"] == [True, False]
        assert answer["sum"] == pytest.approx(1.2, abs=1e-12)
        assert answer["first"] == {"rank": 0}
        assert answer["mean"] == 1.0


def test_rows_are_divided_by_size_and_gathered(answers: list[dict[str, Any]]) -> None:
    assert [answer["computed"] for answer in answers] == [[7, 5], [6]]
    for answer in answers:
        assert answer["values"] == [[7, -7], [5, -5], [6, -6]]
        assert answer["shapes"] == [[3, 2], [0, 2]]


def test_failure_is_raised_in_all_processes(answers: list[dict[str, Any]]) -> None:
    first, second = answers
    error = "ValueError: bad value"
    assert first["all"] == ["success", error, f"CompanionError: rank 1 of 2: {error}"]
    assert second["all"] == ["success", f"CompanionError: rank 0 of 2: {error}", error]
    assert [answer["rank0 first"] for answer in answers] == [first["all"], second["all"]]


def test_only_later_processes_change_their_seed(answers: list[dict[str, Any]]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        SINGLE_PROCESS.seed_rank(3)
        assert answers[0]["random"] == float(torch.rand(()))
    assert answers[1]["random"] != answers[0]["random"]


def test_passes_are_distributed_to_every_process() -> None:
    step = [np.arange(0, 3), np.arange(3, 6), np.arange(6, 7)]
    shares = [TorchrunGroup(rank, 4).share(step) for rank in range(4)]
    assert [[(list(p.rows), p.counted) for p in share] for share in shares] == [
        [([0, 1, 2], 3)], [([3, 4, 5], 3)], [([6], 1)], [([0], 0)]
    ]  # fmt: skip
    assert [len(p.rows) for p in SINGLE_PROCESS.share(step)] == [3, 3, 1]
    assert [TorchrunGroup(0, 3).per_rank_batch(16), SINGLE_PROCESS.per_rank_batch(16)] == [6, 16]
