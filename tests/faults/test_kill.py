"""A run that is killed at any moment of it leaves nothing that the next one does not put right."""

import csv
import json
import random
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from forks import Forks
from support import write_table

from toxbench.store.cells import CellStore

RANDOM, WITH_WORKERS = 30, 3
# What file is written, which time, and when in writing it. A cell is found by its candidate.
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
    (".leaderboard.cache", 1, "half written"),
]
MEASURED = ("seconds", "comments_per_second", "comments/s", "memory", "commit")


@pytest.fixture
def asked(checkpoint: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "data": str(write_table(tmp_path / "table.csv")),
        "backbones": ["bert"],
        "baselines": ["tfidf-logreg"],
        "weights": f"bert={checkpoint}",
        "seeds": 2,
        "train": {"epochs": 1, "max_length": 16},
    }


class Results:
    """What a run leaves behind, without what is measured by the clock."""

    def __init__(self, results: Path) -> None:
        (folder,) = results.iterdir()
        self.store = CellStore(folder)
        self.folder = folder

    @property
    def files(self) -> set[str]:
        return {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()}

    @property
    def cells(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for record, tensors in self.store.cells():
            content = record.model_dump(mode="json", exclude={"cost", "environment"})
            content["epochs"] = [epoch | {"seconds": 0} for epoch in content["epochs"]]
            found[record.key.stem] = content, {k: v.tobytes() for k, v in tensors.items()}
        return found

    @property
    def tables(self) -> list[object]:
        """The leaderboard as JSON, CSV and Markdown, what is measured blanked."""
        rows = json.loads((self.folder / "leaderboard.json").read_text(encoding="utf-8"))
        rows["rows"] = [blanked(row) for row in rows["rows"]]
        with (self.folder / "leaderboard.csv").open(encoding="utf-8") as file:
            records = [blanked(row) for row in csv.DictReader(file)]
        return [rows, records, without_columns((self.folder / "leaderboard.md").read_text())]

    @property
    def others(self) -> list[bytes]:
        return [(self.folder / n).read_bytes() for n in ("protocol.json", "rows.safetensors")]


def blanked(row: dict[str, Any]) -> dict[str, Any]:
    return {k: "" if any(word in k for word in MEASURED) else v for k, v in row.items()}


def without_columns(text: str) -> list[str]:
    """Blank the measured columns of the first Markdown table, whatever their widths."""
    lines, kept = [], []
    for line in text.splitlines():
        cells = [cell.strip(" -") for cell in line.strip("|").split("|")]
        if "parameters" in cells:
            kept = [n for n, c in enumerate(cells) if not any(w in c for w in MEASURED)]
        is_row = line.startswith("|") and kept and len(cells) > max(kept)
        lines.append(" | ".join(cells[n] for n in kept) if is_row else line)
    return lines


def assert_same(found: Results, undisturbed: Results) -> None:
    assert found.files == undisturbed.files  # so no temporary file, and nothing moved aside
    assert found.cells == undisturbed.cells
    assert found.tables == undisturbed.tables
    assert found.others == undisturbed.others


def processes_with(mark: str) -> list[str]:
    """Return the processes that were started with a mark in their environment, zombies apart."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode("ascii") in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    return found


@pytest.mark.faults(33)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_killed_at_any_moment_and_resumed_is_the_same_as_undisturbed(
    forks: Forks, asked: dict[str, Any], tmp_path: Path
) -> None:
    rng, same, killed = random.Random(33), 0, 0
    results = tmp_path / "undisturbed"
    # Before measuring how long it takes, once for what is cached.
    for _ in range(2):
        shutil.rmtree(results, ignore_errors=True)
        started = time.monotonic()
        assert forks.run(api=asked | {"results": str(results)}).code == 0
        length = time.monotonic() - started
    undisturbed = Results(results)
    assert len(undisturbed.cells) == 3
    assert undisturbed.tables[0]["rows"][0]["micro_f1"] > 0  # type: ignore[index]

    def disturb(name: str, workers: int = 1, **point: Any) -> tuple[bool, Results]:
        """Kill a run, resume it, and return whether it was killed before its end."""
        wanted = asked | {"results": str(tmp_path / name), "workers": workers}
        mark = f"TOXBENCH_KILLED={uuid.uuid4().hex}"
        command = forks.start(
            api=wanted, environment=dict([mark.split("=")]), point=point.get("point")
        )
        if "after" in point:
            time.sleep(point["after"])
            command.kill()
        code = command.wait().code
        deadline = time.monotonic() + 60
        while left := processes_with(mark):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.05)
        again = forks.run(api=asked | {"results": str(tmp_path / name)})
        assert again.code == 0, again.said
        return code == -9, Results(tmp_path / name)

    for number, named in enumerate(POINTS):
        was_killed, found = disturb(f"named-{number}", point=named)
        assert was_killed, f"it never came to {named}"
        assert_same(found, undisturbed)
        same, killed = same + 1, killed + 1
    for number in range(RANDOM):
        workers = 2 if number < WITH_WORKERS else 1
        span = 4 * length if workers > 1 else length  # workers have to import everything first
        was_killed, found = disturb(f"random-{number}", workers, after=rng.uniform(0, span))
        assert_same(found, undisturbed)
        same, killed = same + 1, killed + was_killed
    total = len(POINTS) + RANDOM
    print(f"\n{same} of {total} identical; {killed} of {total} were killed before their end")
    assert killed > 0.7 * total
