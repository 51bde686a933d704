"""A distribution whose backbone is trained from scratch, with a tokenizer of its own."""

from collections.abc import Callable
from pathlib import Path

import character_cnn
import numpy as np
import pandas as pd
import pytest
from plugin_site import install_distribution
from support import write_table

import toxbench
from toxbench import Backbone
from toxbench.evaluation.thresholds import calibrate
from toxbench.store.cells import find_store
from toxbench.testing import BackboneContract

Command = Callable[..., tuple[int, str]]
WORDS = (
    "run", "--data", "comments.csv", "--backbones", "character-cnn", "--baselines", "none",
    "--adaptation", "full,probe", "--seeds", "1", "--precision", "fp32",
)  # fmt: skip


class TestContract(BackboneContract):
    """The contract of the backbone, which reads nothing from the folder."""

    @pytest.fixture
    def backbone(self) -> Backbone:
        return character_cnn.toxbench_backbones()[0]

    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> Path:
        return tmp_path


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the plugin; return a table next to it."""
    source = Path(character_cnn.__file__).read_text(encoding="utf-8")
    modules = {"character-cnn": ("toxbench_character_cnn", source)}
    install_distribution(tmp_path / "site", "toxbench-character-cnn", modules)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return write_table(tmp_path / "comments.csv")


@pytest.mark.slow
def test_stored_model_repeats_its_predictions(table: Path, command: Command) -> None:
    bench = toxbench.run(
        table, backbones=["character-cnn"], baselines=[], adaptation=["full", "probe"], seeds=1,
        train={"precision": "fp32"}, workers=1, results=table.parent / "results",
    )  # fmt: skip
    (row,) = bench.leaderboard.itertuples()  # there is no probe of a random encoder
    assert row.weights == "random weights (trained from scratch)"
    stored = bench.predictions("character-cnn").pivot(
        index="id", columns="label", values="probability"
    )
    (model,) = find_store(bench.folder.parent).models.records()
    calibrated = calibrate(stored.to_numpy(), model.calibration)
    texts = pd.read_csv(table).set_index("id")["text"][stored.index]
    predicted = bench.predict(list(texts))[[f"{label}_probability" for label in stored]]
    np.testing.assert_allclose(predicted.to_numpy(), calibrated, atol=1e-6)
    assert np.ptp(calibrated[:, 0]) > 0.1  # it learned a word
    code, error = command(*WORDS, "--dry-run")
    assert (code, error.count("character-cnn: 1 cell, 1 stored already")) == (0, 1)
    code, error = command("export", "out")
    assert (code, "CharacterCnn is not a class of transformers" in error) == (4, True)


@pytest.mark.slow
def test_weights_for_module_from_scratch_are_refused(table: Path, command: Command) -> None:
    code, error = command(*WORDS, "--weights", f"character-cnn={table.parent}")
    assert code == 2
    assert "character-cnn is trained from scratch and reads no weights" in error


@pytest.mark.slow
def test_keeping_a_head_from_scratch_is_refused(table: Path, command: Command) -> None:
    code, error = command(*WORDS, "--keep-head", "--dry-run")
    assert code == 2
    assert "character-cnn is trained from scratch: it has no head to keep" in error


def test_missing_checkpoint_needs_code() -> None:
    with pytest.raises(TypeError, match="tiny: checkpoint=None needs a class with build"):
        Backbone(name="tiny", checkpoint=None)
