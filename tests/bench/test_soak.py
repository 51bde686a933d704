"""200 cells in one process: memory stays flat. ``pytest tests/bench/test_soak.py -m bench -s``."""

from pathlib import Path
from statistics import median

import pytest
from support import write_table

import toxbench
from toxbench.store.cells import CellStore

pytestmark = pytest.mark.bench
CELLS, WARM_UP = 200, 20  # the first cells fill caches


@pytest.mark.parametrize("workers", [None, 1], ids=["in process", "worker"])
def test_memory_stays_flat(tmp_path: Path, checkpoint: Path, workers: int | None) -> None:
    toxbench.run(
        write_table(tmp_path / "table.csv"),
        backbones=["bert"],
        baselines=[],
        weights=f"bert={checkpoint}",
        results=tmp_path / "results",
        seeds=CELLS,
        train={"epochs": 1, "max_length": 32},
        workers=workers,
    )
    (folder,) = (tmp_path / "results").iterdir()
    records = sorted(CellStore(folder).records(), key=lambda record: record.key.seed)
    peaks = [record.cost.peak_memory_bytes or 0 for record in records][WARM_UP:]
    quarter = len(peaks) // 4
    first, last = median(peaks[:quarter]), median(peaks[-quarter:])
    print(f"\npeak memory: {first / 1e6:.0f} MB in the first quarter, {last / 1e6:.0f} in the last")
    assert len(peaks) == CELLS - WARM_UP
    assert last < 1.02 * first
