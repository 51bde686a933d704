"""Cells an hour on 1 and 2 workers, and the cost of Ray per cell: ``pytest ... -m bench -s``."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from support import write_table

import toxbench

pytestmark = pytest.mark.bench
ROUNDS, CELLS = 3, 4


def test_cells_an_hour(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare one worker, two workers, and Ray with room for one cell and for two, in turn."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    table = write_table(tmp_path / "table.csv", 400)
    variants: dict[str, dict[str, object]] = {
        "local, 1 worker": {"workers": 1},
        "local, 2 workers": {"workers": 2},
        "ray, 1 cell at once": {"workers": 1, "executor": "ray"},
        "ray, 2 cells at once": {"workers": 2, "executor": "ray"},
    }

    def seconds(name: str, cells: int, number: int) -> float:
        started = time.perf_counter()
        toxbench.run(
            table, backbones=["bert"], baselines=[], weights=f"bert={checkpoint}", seeds=cells,
            train={"epochs": 20, "max_length": 64}, save_models="none",
            results=tmp_path / f"{name}-{cells}-{number}", **variants[name],  # type: ignore[arg-type]
        )  # fmt: skip
        return time.perf_counter() - started

    single: dict[str, list[float]] = {name: [] for name in variants}
    many: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(ROUNDS):
        for name in variants:
            single[name].append(seconds(name, 1, number))
            many[name].append(seconds(name, 1 + CELLS, number))
    print(f"\n{ROUNDS} rounds; start-up and one cell, then seconds of each further cell")
    for name in variants:
        further = [(m - o) / CELLS for m, o in zip(many[name], single[name], strict=True)]
        print(
            f"{name:22} {_spread(single[name])} s; {_spread(further)} s, "
            f"{3600 / median(further):.0f} cells an hour"
        )
        assert median(further) > 0


def _spread(values: list[float], show: Callable[[float], str] = "{:.1f}".format) -> str:
    return f"{show(median(values))} [{show(min(values))}, {show(max(values))}]"
