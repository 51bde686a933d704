"""Faulty plugins in one run: each affects only its own cells."""

import os
from pathlib import Path
from textwrap import dedent

import pytest
from forks import CommandResult, Forks
from plugin_site import install_plugin
from support import write_table

from toxbench.records import CellRecord
from toxbench.store.cells import CellStore

pytestmark = pytest.mark.slow

HEAD = """
import torch
from toxbench import Backbone, hookimpl

class Words(torch.nn.Module):
    def __init__(self, label_count):
        super().__init__()
        self.words = torch.nn.EmbeddingBag(1000, 8)
        self.fc = torch.nn.Linear(8, label_count)
    def forward(self, input_ids, attention_mask):
        return self.changed(self.fc(self.words(input_ids)))
    def changed(self, logits):
        return logits

class WordBackbone(Backbone):
    def build(self, weights, label_count):
        self.before()
        return Module(label_count)
    def before(self):
        pass

Module, Kind = Words, WordBackbone

@hookimpl
def toxbench_backbones():
    return [Kind(name=__name__.rpartition("_")[2], checkpoint="example/none", head=("fc",))]
"""


def module(body: str) -> str:
    """Return the source of a plugin whose module changes its logits."""
    return f"{HEAD}\nclass Module(Words):\n    def changed(self, logits):\n        {body}\n"


def build(body: str) -> str:
    """Return the source of a plugin that runs code before it builds its module."""
    return f"{HEAD}\nclass Kind(WordBackbone):\n    def before(self):\n        {body}\n"


MEDDLES = HEAD + dedent("""
    import gc, os, random
    import numpy as np, sklearn.metrics

    def meddle():
        random.seed(1); np.random.seed(1); torch.manual_seed(1)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(7)
        torch.set_grad_enabled(False)
        os.environ["OMP_NUM_THREADS"] = "7"
        sklearn.metrics.f1_score = lambda *a, **k: 1.0
        np.seterr(all="raise")
        for candidate in gc.get_objects():
            if type(candidate).__name__ == "Comments":
                try:
                    candidate.targets[:] = 1
                except ValueError:
                    pass

    meddle()

    class Kind(WordBackbone):
        def before(self):
            meddle()
            torch.set_grad_enabled(True)

    @hookimpl
    def toxbench_epoch_finished(cell, epoch):
        meddle()
        epoch.validation.clear()
    """)
FAULTS = {
    "imports": "import a_module_that_is_not_there\n",
    "misspelt": HEAD + "\n@hookimpl\ndef toxbench_bakbones():\n    return []\n",
    "shape": module("return logits[:, :1]"),
    "type": module("return logits.long()"),
    "nan": module("return logits if self.training else logits * float('nan')"),
    "exits": build("raise SystemExit('bye')"),
    "crashes": build("import ctypes; ctypes.string_at(0)"),
    "hangs": build("import time; time.sleep(1e6)"),
    "hungry": module(
        "if self.training and len(logits) > 4: raise torch.OutOfMemoryError('no memory')\n"
        "        return logits"
    ),
    "starves": module("raise torch.OutOfMemoryError('no memory')"),
    "meddles": MEDDLES,
}
BACKBONES = ["meddles", *FAULTS, "twice", "same", "bert"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    for name, source in FAULTS.items():
        install_plugin(site, f"faulty-{name}", **{name: source})
    for distribution in ("one", "two"):
        install_plugin(site, distribution, twice=HEAD)
        install_plugin(site, f"{distribution}-more", **{f"{distribution}_same": HEAD})
    return site


def run(
    forks: Forks, folder: Path, checkpoint: Path, backbones: list[str], site: Path | None = None
) -> CommandResult:
    """Run backbones on a small table; with a site folder, limit each cell to 30 seconds."""
    table = write_table(folder / "table.csv")
    folders = ",".join(f"{name}={checkpoint}" for name in backbones)
    words = [
        "run", "--verbose", "--data", str(table), "--weights", folders,
        "--backbones", ",".join(backbones), "--results", str(folder / "results"),
        "--epochs", "2", "--max-length", "32", "--precision", "fp32", "--head-init", "random",
        "--adaptation", "full",
    ]  # fmt: skip
    environment = {"OMP_NUM_THREADS": "1"}
    if site is not None:
        words += ["--cell-timeout", "30s"]
        path = [str(site), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    return forks.run(*words, environment=environment)


@pytest.fixture(scope="module")
def result(
    tmp_path_factory: pytest.TempPathFactory, forks: Forks, checkpoint: Path, site: Path
) -> tuple[CommandResult, Path]:
    folder = tmp_path_factory.mktemp("faulty")
    return run(forks, folder, checkpoint, list(dict.fromkeys(BACKBONES)), site), folder


@pytest.fixture
def stderr(result: tuple[CommandResult, Path]) -> str:
    command, _ = result
    assert command.code == 5, command.err
    assert "Traceback" not in command.err
    return command.err


def records(folder: Path) -> dict[str, CellRecord]:
    (store,) = map(CellStore, (folder / "results").iterdir())
    return {record.key.candidate: record for record in store.records()}


@pytest.mark.faults(22)
def test_import_error_does_not_stop_the_run(stderr: str) -> None:
    assert "error: imports cannot be run: plugin 'imports' of faulty-imports 1.0" in stderr
    assert "a_module_that_is_not_there" in stderr


@pytest.mark.faults(23)
def test_duplicate_name_does_not_stop_the_run(stderr: str) -> None:
    assert "error: twice cannot be run: plugin 'twice': the name is claimed by one 1.0" in stderr
    assert "error: same cannot be run: 'same' is claimed by plugin 'one_same'" in stderr


@pytest.mark.faults(24)
def test_misspelt_hook_does_not_stop_the_run(stderr: str) -> None:
    assert "error: misspelt cannot be run: plugin 'misspelt' of faulty-misspelt 1.0" in stderr
    assert "toxbench_bakbones" in stderr


@pytest.mark.faults(25)
@pytest.mark.parametrize(
    ("name", "reason"),
    [("shape", "expected [16, 3]"), ("type", "torch.int64"), ("nan", "NaN in eval mode")],
)
def test_wrong_logits_fail_the_cell(stderr: str, name: str, reason: str) -> None:
    (line,) = [line for line in stderr.splitlines() if f"cell {name} " in line]
    assert reason in line


@pytest.mark.faults(26)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("exits", "SystemExit: bye"),
        ("crashes", "ended by SIGSEGV"),
        ("hangs", "CellTimeout: not done within 30 s (--cell-timeout)"),
    ],
)
def test_ended_or_hung_process_fails_the_cell(stderr: str, name: str, reason: str) -> None:
    (line,) = [line for line in stderr.splitlines() if f"cell {name} " in line]
    assert reason in line


@pytest.mark.faults(22, 23, 24, 25, 26, 27)
def test_correct_cells_are_unaffected_by_faulty_plugins(
    result: tuple[CommandResult, Path], forks: Forks, checkpoint: Path, tmp_path: Path
) -> None:
    command = run(forks, tmp_path, checkpoint, ["bert"])
    assert command.code == 0, command.err
    (folder,), (faulty,) = (tmp_path / "results").iterdir(), (result[1] / "results").iterdir()
    clean = {record.key: (record, tensors) for record, tensors in CellStore(folder).cells()}
    mixed = {record.key: (record, tensors) for record, tensors in CellStore(faulty).cells()}
    assert len(clean) == 3
    for key, (record, tensors) in clean.items():
        mixed_record, mixed_tensors = mixed[key]
        assert (mixed_record.metrics, mixed_record.per_label) == (
            record.metrics,
            record.per_label,
        )
        for part, values in tensors.items():
            assert mixed_tensors[part].tobytes() == values.tobytes(), (key, part)


@pytest.mark.faults(27)
def test_plugin_cannot_change_its_stored_scores(
    result: tuple[CommandResult, Path],
) -> None:
    meddled = records(result[1])["meddles"]
    assert all(epoch.validation for epoch in meddled.epochs)
    assert {scores.label: scores.support for scores in meddled.per_label["0.5"]} == {
        scores.label: scores.support for scores in records(result[1])["bert"].per_label["0.5"]
    }


@pytest.mark.faults(28)
def test_out_of_memory_halves_the_micro_batch(
    result: tuple[CommandResult, Path], stderr: str
) -> None:
    hungry = records(result[1])["hungry"]
    assert hungry.settings is not None
    assert (hungry.settings.batch_size, hungry.micro_batch) == (16, 4)
    assert records(result[1])["bert"].micro_batch is None
    assert "memory ran out, 4 comments a forward pass" in stderr
    assert "cell starves seed 0 failed: OutOfMemoryError: memory ran out" in stderr
