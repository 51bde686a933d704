"""A results folder with saved models of three backbones."""

from pathlib import Path

import pytest
from support import write_checkpoint, write_table

import toxbench

SETTINGS = {"epochs": 2, "max_length": 32, "learning_rate": 1e-3, "precision": "fp32"}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with comments.csv (160 rows) and results, computed in fp32."""
    folder = tmp_path_factory.mktemp("trained")
    names = ("bert", "distilbert", "roberta")
    weights = [f"{name}={write_checkpoint(folder / name, name)}" for name in names]
    toxbench.run(
        write_table(folder / "comments.csv", 160),
        backbones=names,
        baselines=["always-negative"],
        weights=["stand-in", *weights],
        results=folder / "results",
        train=SETTINGS,
        split={"validation_size": 0.25},
    )
    return folder


@pytest.fixture
def results(trained: Path) -> Path:
    """Return the results of `trained`; tests must not change them."""
    return trained / "results"
