"""A run that is killed at any moment is repaired by the next run."""

import itertools
import random
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from forks import Forks
from left_behind import Results, assert_same, processes_of
from support import wait_until, write_table

pytestmark = pytest.mark.slow

RANDOM, WITH_WORKERS = 30, 3
# The file, the number of the write, and the step of the write. Cell files begin with the candidate.
POINTS = [
    (".lock.holder", 1, "before it is made"),
    ("protocol.json", 1, "half written"),
    ("protocol.json", 1, "renamed"),
    ("rows.safetensors", 1, "before the rename"),
    ("bert-", 1, "before it is made"),
    ("bert-", 1, "made"),
    ("bert-", 2, "half written"),
    ("bert-", 2, "written"),
    ("bert-", 1, "before the rename"),
    ("bert-", 2, "renamed"),
    ("tfidf-logreg-", 1, "synced"),
    ("leaderboard.md", 1, "before it is made"),
    ("leaderboard.md", 1, "before the rename"),
    ("leaderboard.csv", 1, "half written"),
    ("leaderboard.json", 1, "renamed"),
]


@pytest.fixture
def arguments(checkpoint: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "data": str(write_table(tmp_path / "table.csv")),
        "backbones": ["bert"],
        "baselines": ["tfidf-logreg"],
        "weights": f"bert={checkpoint}",
        "seeds": 2,
        "train": {"epochs": 1, "max_length": 16},
    }


@pytest.mark.faults(33)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_killed_and_resumed_run_equals_undisturbed(
    forks: Forks, arguments: dict[str, Any], tmp_path: Path
) -> None:
    rng, same, killed = random.Random(33), 0, 0
    results = tmp_path / "undisturbed"
    # Run twice: the first run fills the caches, the second is timed.
    for _ in range(2):
        shutil.rmtree(results, ignore_errors=True)
        started = time.monotonic()
        assert forks.run(api=arguments | {"results": str(results)}).code == 0
        length = time.monotonic() - started
    undisturbed = Results(results)
    assert len(undisturbed.cells) == 3
    assert undisturbed.tables[0]["rows"][0]["micro_f1"] > 0  # type: ignore[index]

    def disturb(name: str, workers: int = 1, **point: Any) -> tuple[bool, Results]:
        """Kill a run, resume it, and return whether it was killed before its end."""
        disturbed = arguments | {"results": str(tmp_path / name), "workers": workers}
        mark = f"TOXBENCH_KILLED={uuid.uuid4().hex}"
        command = forks.start(
            api=disturbed, environment=dict([mark.split("=")]), kill_at=point.get("point")
        )
        if "after" in point:
            time.sleep(point["after"])
            command.kill()
        code = command.wait().code
        wait_until(lambda: not processes_of(command.folder, mark))
        resumed = forks.run(api=arguments | {"results": str(tmp_path / name)})
        assert resumed.code == 0, resumed.err
        return code == -9, Results(tmp_path / name)

    for number, point in enumerate(POINTS):
        was_killed, state = disturb(f"named-{number}", point=point)
        assert was_killed, f"it never came to {point}"
        assert_same(state, undisturbed)
        same, killed = same + 1, killed + 1
    numbers = itertools.count()
    while killed < len(POINTS) + RANDOM:
        number = next(numbers)
        workers = 2 if number < WITH_WORKERS else 1
        was_killed, state = disturb(f"random-{number}", workers, after=rng.uniform(0, length))
        assert_same(state, undisturbed)
        same, killed = same + 1, killed + was_killed
        if not was_killed:
            length *= 0.9  # the machine is faster than when the length was measured
    print(f"\n{same} runs identical; {killed} of them were killed before they finished")
