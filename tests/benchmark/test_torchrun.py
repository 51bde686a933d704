"""One training by two processes of torchrun: the same numbers, one voice, and an orderly end."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plugin_site import install_plugin
from support import write_checkpoint, write_table

from toxbench.errors import SettingsError
from toxbench.store.cells import CellStore
from toxbench.util.torchrun import NOT_DISTRIBUTED, TorchrunEnv

Command = Callable[..., tuple[int, str]]
ROWS = 66  # 49 of them for training: of seven steps of 8 comments, the last has one
START = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", "distilbert")


class Torchrun:
    """A command that torchrun starts twice, and what becomes of it."""

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*START, "-m", "toxbench", *words], cwd=folder, env=ENVIRONMENT | environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        self.heard = ""

    def until(self, words: str) -> "Torchrun":
        """Read what is said until a line has these words."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.heard += line
            if words in line:
                return self
        raise AssertionError(self.heard)

    def end(self) -> "Torchrun":
        """Wait; keep what was said."""
        self.stdout, rest = self.process.communicate(timeout=120)
        self.heard += rest
        return self

    def pid(self, rank: int) -> int:
        """Find the process of a rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for child in children.read_text().split():
            if f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text().split("\0"):
                return int(child)
        raise AssertionError(f"no rank {rank}")

    @property
    def errors(self) -> list[str]:
        """The lines with which toxbench refuses."""
        return [line for line in self.heard.splitlines() if line.startswith("toxbench: error:")]

    @property
    def codes(self) -> list[int]:
        """The exit codes of the processes that torchrun's own table lists."""
        return [int(code) for code in re.findall(r"exitcode  : (-?\d+)", self.heard)]


def cells(results: Path) -> dict[str, Any]:
    """Return what is stored of each cell, without what is measured by the clock."""
    (folder,) = results.iterdir()
    found = {}
    for record, tensors in CellStore(folder).cells():
        content = record.model_dump(mode="json", exclude={"cost", "environment"})
        content["epochs"] = [epoch | {"seconds": 0} for epoch in content["epochs"]]
        found[f"{record.key.candidate} {record.key.seed}"] = content, dict(tensors)
    return found


def board(results: Path) -> str:
    """Return the leaderboard as it is written, without what is measured by the clock."""
    (path,) = results.glob("*/leaderboard.json")
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    measured = ("seconds", "comments_per_second", "memory", "commit")
    kept = [{k: v for k, v in r.items() if not any(m in k for m in measured)} for r in rows]
    return json.dumps(kept)


@pytest.fixture
def words(checkpoint: Path, distilled: Path, tmp_path: Path) -> Callable[..., list[str]]:
    table = write_table(tmp_path / "table.csv", ROWS)

    def make(results: str, *more: str) -> list[str]:
        return [
            "run", "--data", str(table), "--backbones", "bert", "--results", results,
            "--weights", f"bert={checkpoint}", "--precision", "fp32", "--baselines", "none", *more,
        ]  # fmt: skip

    return make


CONFIG = """
backbones = ["bert", "distilbert"]
baselines = ["tfidf-logreg"]
[train]
epochs = 4
dropout = 0.0
precision = "fp32"
learning_rate = 3e-3
head_learning_rate = 1e-2
[backbone.bert]
batch_size = {bert}
[backbone.distilbert]
batch_size = {distilbert}
accumulation = 2
loss = "weighted-bce"
clip_norm = 0.1
"""


def test_two_processes_do_what_one_does_with_the_doubled_batch(
    checkpoint: Path, distilled: Path, tmp_path: Path, command: Command
) -> None:
    table = write_table(tmp_path / "table.csv", ROWS)
    (tmp_path / "half.toml").write_text(CONFIG.format(bert=4, distilbert=3))
    (tmp_path / "whole.toml").write_text(CONFIG.format(bert=8, distilbert=6))

    def words(share: str, results: str) -> list[str]:
        return [
            "run", "--data", str(table), "--config", f"{share}.toml", "--results", results,
            "--weights", f"bert={checkpoint}", "--weights", f"distilbert={distilled}",
        ]  # fmt: skip

    two = Torchrun(tmp_path, *words("half", "two")).end()
    assert two.process.returncode == 0, two.heard
    assert "2 processes, 4 comments each" in two.heard
    # One of them speaks, and nothing comes from torch.
    assert [two.heard.count(f"[{n}/3] ") for n in (1, 2, 3)] == [1, 1, 1]
    assert two.stdout.count("Leaderboard of table.csv") == 1
    ours = ("toxbench: warning: no pos", "Table", "Split", "Test", "Candidate", "Shows", "Cells",
            "[")  # fmt: skip
    assert [s for s in two.heard.splitlines() if not s.startswith(ours) or "rank" in s] == []
    assert command(*words("whole", "one"))[0] == 0
    assert_alike(cells(tmp_path / "one"), cells(tmp_path / "two"))
    # Either goes on where the other ended.
    assert "1 cell, 1 stored already; 4 epochs" in command(*words("whole", "two"), "--dry-run")[1]


def assert_alike(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    for name, (record, tensors) in one.items():
        other, others = two[name]
        assert (record["key"], record["settings"]) == (other["key"], other["settings"])
        assert (record["best_epoch"], record["micro_batch"]) == (other["best_epoch"], None)
        losses = [[epoch["train_loss"] for epoch in r["epochs"]] for r in (record, other)]
        np.testing.assert_allclose(losses[0], losses[1], atol=1e-4, rtol=0)
        assert not losses[0] or losses[0][0] - losses[0][-1] > 0.02  # it did train
        for part, values in tensors.items():
            np.testing.assert_allclose(values, others[part], atol=1e-3)


BACKBONES = """
import os
import torch
from torch import nn
from toxbench import Backbone, TrainSettings, hookimpl

class Words(nn.Module):
    def __init__(self, kind, labels):
        super().__init__()
        self.kind, self.calls = kind, 0
        self.words = nn.Embedding(1000, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.pooler = nn.Linear(8, 8)
        self.head = nn.Linear(8, labels)
        self.register_buffer("seen", torch.zeros(()))
    def forward(self, input_ids, attention_mask):
        print("a plugin prints")
        hidden = self.words(input_ids).mean(dim=1)
        if self.training:
            self.calls += 1
            self.seen += input_ids.sum()
            for layer in self.layers:
                if self.kind != "drops" or torch.rand(()) < 0.5:
                    hidden = layer(hidden)
            if self.kind == "starves" and len(input_ids) > 2:
                raise torch.OutOfMemoryError("no memory")
            if self.kind == "alone" and os.environ["RANK"] == "1" and self.calls == 3:
                raise ValueError("a bad day")
        logits = self.head(hidden + self.seen * 1e-9)
        if self.kind == "narrow":
            return logits[:, :1]
        return logits * float("nan") if self.kind == "nan" else logits

class Kind(Backbone):
    def build(self, weights, label_count):
        return Words(self.name, label_count)

@hookimpl
def toxbench_backbones():
    settings = TrainSettings(epochs=2, batch_size=4)
    return [Kind(name=name, checkpoint="nobody/nothing", head=("head",), defaults=settings)
            for name in ("drops", "starves", "nan", "narrow", "alone")]
"""


def test_what_fails_in_all_costs_a_cell_and_what_fails_in_one_ends_the_run(
    words: Callable[..., list[str]], checkpoint: Path, tmp_path: Path
) -> None:
    install_plugin(tmp_path / "site", "kinds", kinds=BACKBONES)
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    names = ("nan", "narrow", "starves", "drops")
    folders = ",".join(f"{name}={checkpoint}" for name in (*names, "bert"))
    asked = words("results", "--backbones", ",".join((*names, "bert")), "--weights", folders)
    done = Torchrun(tmp_path, *asked, PYTHONPATH=path).end()
    assert done.codes == [5, 5], done.heard
    assert [error.split(";")[0] for error in done.errors] == [
        "toxbench: error: cell nan seed 0 failed: DivergedError: the training loss of epoch 1 is "
        "nan",
        "toxbench: error: cell narrow seed 0 failed: PluginError: forward returned logits of shape "
        "[4, 1], expected [4, 3] (batch, label)",
        "toxbench: error: 2 of 5 cells failed and have no result",
    ]
    stored = {name: record for name, (record, _) in cells(tmp_path / "results").items()}
    assert stored.keys() == {"starves 0", "drops 0", "bert 0"}
    assert [stored[f"{name} 0"]["micro_batch"] for name in ("starves", "drops")] == [2, None]
    alone = words("results", "--backbones", "alone,bert", "--weights", f"alone={checkpoint}")
    done = Torchrun(tmp_path, *alone, PYTHONPATH=path).end()
    assert set(done.codes) == {75}, done.heard
    (error,) = done.errors
    said, _, again = error.removeprefix("toxbench: error: ").partition("; ")
    assert said == ("process 2 of 2 (rank 1) failed, and not all others did: ValueError: a bad day")
    assert again.startswith("finished work is stored. To resume: torchrun --nproc-per-node 2 -m")


def test_a_process_that_dies_ends_the_run_which_then_goes_on(
    words: Callable[..., list[str]], tmp_path: Path
) -> None:
    asked = ("--seeds", "5", "--epochs", "2", "--batch-size", "4")
    for rank, cell in ((1, "[2/5]"), (0, "[2/")):
        run = Torchrun(tmp_path, *words("results", *asked)).until(cell)
        os.kill(run.pid(rank), signal.SIGKILL)
        assert sorted(run.end().codes) == [-9, 75], run.heard
        command = f"torchrun --nproc-per-node 2 -m toxbench {shlex.join(words('results', *asked))}"
        assert run.errors == [
            f"toxbench: error: process {rank + 1} of 2 (rank {rank}) is gone; finished work is "
            f"stored. To resume: {command}"
        ]
    run = Torchrun(tmp_path, *words("results", *asked)).until("[1/")
    assert "5 cells, 0 stored" not in run.heard
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does; torchrun sends it once more
    assert [e.split(";")[0] for e in run.end().errors] == ["toxbench: error: interrupted"], (
        run.heard
    )
    assert Torchrun(tmp_path, *words("results", *asked)).end().process.returncode == 0
    assert Torchrun(tmp_path, *words("undisturbed", *asked)).end().process.returncode == 0
    assert_same_bytes(tmp_path / "results", tmp_path / "undisturbed")


def assert_same_bytes(results: Path, undisturbed: Path) -> None:
    assert board(results) == board(undisturbed)
    for (one, values), (two, others) in zip(
        cells(results).values(), cells(undisturbed).values(), strict=True
    ):
        assert one == two
        assert all(values[part].tobytes() == others[part].tobytes() for part in values)


def test_processes_that_are_ended_keep_the_state_of_all_and_go_on(
    words: Callable[..., list[str]], tmp_path: Path
) -> None:
    asked = ("--epochs", "60", "--batch-size", "4", "--eval-steps", "45")
    run = Torchrun(tmp_path, *words("results", *asked)).until("step 90:")
    last_epoch = run.heard.splitlines()[-1].partition("; about")[0]
    os.killpg(run.process.pid, signal.SIGTERM)
    run.end()
    assert [error.split(";")[0] for error in run.errors] == ["toxbench: error: terminated"]
    assert len(list((tmp_path / "results").glob("*/.checkpoints/*"))) == 1
    run = Torchrun(tmp_path, *words("results", *asked)).end()
    assert run.process.returncode == 0, run.heard
    assert last_epoch in run.heard  # with its comments a second: not trained again
    assert not list((tmp_path / "results").glob("*/.checkpoints/*"))
    assert Torchrun(tmp_path, *words("undisturbed", *asked)).end().process.returncode == 0
    assert_same_bytes(tmp_path / "results", tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (["run", "--epochs", "many"], 2, "'many' is not a valid integer"),
        (["run", "--workers", "2"], 2, "--workers is for cells in worker processes"),
        (["tune"], 2, "toxbench tune is for one process; start it without torchrun"),
        (["run", "--data", "nowhere.csv"], 3, "nowhere.csv"),
    ],
    ids=["usage", "workers", "tune", "data"],
)
def test_what_cannot_be_run_is_said_once_with_one_exit_code(
    asked: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = Torchrun(tmp_path, *asked).end()
    assert done.codes == [code, code], done.heard
    (error,) = done.errors
    assert said in error
    assert not (tmp_path / "results").exists()


def test_a_place_is_what_torchrun_sets() -> None:
    assert TorchrunEnv.from_environ({}) == NOT_DISTRIBUTED
    assert TorchrunEnv.from_environ({"WORLD_SIZE": "4"}) == NOT_DISTRIBUTED
    assert TorchrunEnv.from_environ({"RANK": "0", "WORLD_SIZE": "1"}) == NOT_DISTRIBUTED
    environ = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    place = TorchrunEnv.from_environ(environ | {"GROUP_WORLD_SIZE": "2"})
    assert (place.rank, place.size, place.local_rank, place.machines) == (3, 4, 1, 2)
    assert place.command == "torchrun --nnodes 2 ... --nproc-per-node 2 -m toxbench"
    for wrong in ({"RANK": "4", "WORLD_SIZE": "4"}, {"RANK": "one", "WORLD_SIZE": "2"}):
        with pytest.raises(SettingsError, match="torchrun never sets RANK="):
            TorchrunEnv.from_environ(wrong)
