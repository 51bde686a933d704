"""Runs on a small table with a tiny checkpoint."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import toxbench

Run = Callable[..., pd.DataFrame]


@pytest.fixture
def run(table: Path, checkpoint: Path, tmp_path: Path) -> Run:
    """Return the leaderboard of a short run; keyword arguments override its settings."""

    def call(**options: object) -> pd.DataFrame:
        defaults: dict[str, object] = {
            "data": table,
            "backbones": ["bert"],
            "adaptation": ["full"],
            "weights": f"stand-in,bert={checkpoint}",
            "results": tmp_path / "results",
            "train": {"epochs": 1, "max_length": 32},
        }
        return toxbench.run(**{**defaults, **options}).leaderboard  # type: ignore[arg-type]

    return call
