"""One results folder with two saved models, and one of a plugin's own architecture."""

from pathlib import Path

import pytest
from support import write_checkpoint, write_table

import toxbench

SETTINGS = {"epochs": 2, "max_length": 32, "learning_rate": 1e-3, "precision": "fp32"}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with comments.csv (160 rows) and results: bert, distilbert and roberta, in fp32."""
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
    """The results of `trained`, only for reading."""
    return trained / "results"
