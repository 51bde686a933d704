"""Runs on a small table with a tiny checkpoint."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import toxbench

Run = Callable[..., pd.DataFrame]


@pytest.fixture
def run(table: Path, checkpoint: Path, tmp_path: Path) -> Run:
    """Call `toxbench.run` with settings for a short run; keyword arguments override them."""

    def call(**options: object) -> pd.DataFrame:
        defaults: dict[str, object] = {
            "data": table,
            "backbones": ["bert"],
            "adaptation": ["full"],
            "weights": f"stand-in,bert={checkpoint}",
            "results": tmp_path / "results",
            "train": {"epochs": 1, "max_length": 32},
        }
        return toxbench.run(**{**defaults, **options})  # type: ignore[arg-type]

    return call
