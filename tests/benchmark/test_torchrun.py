"""Runs by two processes of torchrun: scores, messages, exit codes and resuming."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import Forks
from left_behind import Results, assert_same
from plugin_site import install_plugin
from support import TIMEOUT, write_checkpoint, write_table

from toxbench.errors import SettingsError
from toxbench.store.cells import CellStore
from toxbench.util.processes import NOT_DISTRIBUTED, TorchrunEnv

pytestmark = pytest.mark.slow

Command = Callable[..., tuple[int, str]]
Arguments = Callable[..., list[str]]
Start = Callable[..., "Torchrun"]
ROWS = 66  # 49 of them for training: of seven steps of 8 comments, the last has one


@pytest.fixture(scope="module")
def distilbert_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", "distilbert")


class Torchrun:
    """A toxbench command that torchrun starts in two processes."""

    def __init__(self, forks: Forks, folder: Path, *words: str, **environment: str) -> None:
        environment["OMP_NUM_THREADS"] = "1"
        self.process = forks.stream(*words, cwd=folder, environment=environment, torchrun=True)
        self.stderr = ""

    def read_until(self, text: str) -> "Torchrun":
        """Read stderr until a line contains a text."""
        for line in self.process.stderr:
            self.stderr += line
            if text in line:
                return self
        raise AssertionError(self.stderr)

    def wait(self) -> "Torchrun":
        """Wait until torchrun exits; read the rest of its output."""
        self.stdout, stderr = self.process.communicate(timeout=TIMEOUT)
        self.stderr += stderr
        return self

    def pid(self, rank: int) -> int:
        """Return the process id of a rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        _, *ranks = children.read_text().split()  # the first child forked the others
        return int(ranks[rank])

    @property
    def errors(self) -> list[str]:
        """The lines of toxbench's errors."""
        return [line for line in self.stderr.splitlines() if line.startswith("toxbench: error:")]

    @property
    def exit_codes(self) -> list[int]:
        """The exit codes in torchrun's table of failed processes."""
        return [int(code) for code in re.findall(r"exitcode  : (-?\d+)", self.stderr)]


@pytest.fixture
def torchrun(forks: Forks, tmp_path: Path) -> Start:
    """Start a command by torchrun in the test's folder."""
    return partial(Torchrun, forks, tmp_path)


def read_cells(results: Path) -> dict[str, Any]:
    """Return the record, without measured times, and the probabilities of each stored cell."""
    (folder,) = results.iterdir()
    cells = {}
    for record, tensors in CellStore(folder).cells():
        content = record.model_dump(mode="json", exclude={"cost", "environment"})
        content["epochs"] = [epoch | {"seconds": 0} for epoch in content["epochs"]]
        cells[f"{record.key.candidate} {record.key.seed}"] = content, dict(tensors)
    return cells


@pytest.fixture
def arguments(checkpoint: Path, tmp_path: Path) -> Arguments:
    """Return the arguments of a run that writes to a results folder."""
    table = write_table(tmp_path / "table.csv", ROWS)

    def make(results: str, *options: str) -> list[str]:
        return [
            "run", "--verbose", "--data", str(table), "--backbones", "bert", "--results", results,
            "--weights", f"bert={checkpoint}", "--precision", "fp32", "--baselines", "none",
            *options,
        ]  # fmt: skip

    return make


CONFIG = """
backbones = ["bert", "distilbert"]
baselines = ["tfidf-logreg"]
[train]
epochs = 4
dropout = 0.0
head_init = "random"
precision = "fp32"
learning_rate = 3e-3
head_learning_rate = 1e-2
[backbone.bert]
batch_size = {bert}
[backbone.distilbert]
batch_size = {distilbert}
accumulation = 2
max_length = 12
long_text = "windows"
loss = "weighted-bce"
clip_norm = 0.1
"""


def test_two_processes_match_doubled_batch(
    checkpoint: Path, distilbert_checkpoint: Path, tmp_path: Path, command: Command
) -> None:
    table = write_table(tmp_path / "table.csv", ROWS)
    (tmp_path / "half.toml").write_text(CONFIG.format(bert=4, distilbert=3))
    (tmp_path / "full.toml").write_text(CONFIG.format(bert=8, distilbert=6))

    def run(batch: str, results: str) -> list[str]:
        return [
            "run", "--data", str(table), "--config", f"{batch}.toml", "--results", results,
            "--weights", f"bert={checkpoint}", "--weights", f"distilbert={distilbert_checkpoint}",
        ]  # fmt: skip

    # New interpreters, because torch reads once which warnings it prints.
    start = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    two_processes = subprocess.run(
        [*start, "-m", "toxbench", *run("half", "two-processes")], capture_output=True, text=True,
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert two_processes.returncode == 0, two_processes.stderr
    assert "2 processes, 4 comments each" in two_processes.stderr
    # Only rank 0 reports, and torch prints nothing.
    assert [two_processes.stderr.count(f"[{n}/3] ") for n in (1, 2, 3)] == [1, 1, 1]
    assert two_processes.stdout.count("Leaderboard of table.csv") == 1
    prefixes = ("toxbench: warning: no pos", "Table", "Split", "Test", "Candidate", "Power",
                "Cells", "[")  # fmt: skip
    lines = two_processes.stderr.splitlines()
    assert [line for line in lines if not line.startswith(prefixes) or "rank" in line] == []
    assert command(*run("full", "one-process"))[0] == 0
    assert_close(read_cells(tmp_path / "one-process"), read_cells(tmp_path / "two-processes"))
    # One process can resume the run of two.
    plan = command(*run("full", "two-processes"), "--dry-run")[1]
    assert "1 cell, 1 stored already; 4 epochs" in plan


def assert_close(one_process: dict[str, Any], two_processes: dict[str, Any]) -> None:
    """Check that cells are the same except for rounding."""
    assert one_process.keys() == two_processes.keys()
    for name, (record, probabilities) in one_process.items():
        record_2, probabilities_2 = two_processes[name]
        assert (record["key"], record["settings"]) == (record_2["key"], record_2["settings"])
        assert (len(record["epochs"]), record["micro_batch"]) == (len(record_2["epochs"]), None)
        losses = [[epoch["train_loss"] for epoch in r["epochs"]] for r in (record, record_2)]
        np.testing.assert_allclose(losses[0], losses[1], atol=1e-4, rtol=0)
        assert not losses[0] or losses[0][0] - losses[0][-1] > 0.02  # the model learns
        for part, values in probabilities.items():
            np.testing.assert_allclose(values, probabilities_2[part], atol=1e-3)


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
        self.register_buffer("token_sum", torch.zeros(()))
    def forward(self, input_ids, attention_mask):
        print("a plugin prints")
        hidden = self.words(input_ids).mean(dim=1)
        if self.training:
            self.calls += 1
            self.token_sum += input_ids.sum()
            for layer in self.layers:
                if self.kind != "drops-layers" or torch.rand(()) < 0.5:
                    hidden = layer(hidden)
            if self.kind == "lacks-memory" and len(input_ids) > 2:
                raise torch.OutOfMemoryError("no memory")
            if self.kind == "fails-once" and os.environ["RANK"] == "1" and self.calls == 3:
                raise ValueError("a bad day")
        logits = self.head(hidden + self.token_sum * 1e-9)
        if self.kind == "narrow":
            return logits[:, :1]
        return logits * float("nan") if self.kind == "nan" else logits

class Kind(Backbone):
    def build(self, weights, label_count):
        return Words(self.name, label_count)

@hookimpl
def toxbench_backbones():
    settings = TrainSettings(epochs=2, batch_size=4, head_init="random")
    return [Kind(name=name, checkpoint="no/checkpoint", head=("head",), defaults=settings)
            for name in ("drops-layers", "lacks-memory", "nan", "narrow", "fails-once")]
"""


def test_failure_of_one_rank_ends_run(
    torchrun: Start, arguments: Arguments, checkpoint: Path, tmp_path: Path
) -> None:
    """A failure of all ranks costs only a cell."""
    install_plugin(tmp_path / "site", "kinds", kinds=BACKBONES)
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    names = ("nan", "narrow", "lacks-memory", "drops-layers")
    folders = ",".join(f"{name}={checkpoint}" for name in (*names, "bert"))
    options = ("--backbones", ",".join((*names, "bert")), "--weights", folders)
    run = torchrun(*arguments("results", *options), PYTHONPATH=path).wait()
    assert run.exit_codes == [5, 5], run.stderr
    assert [error.split(";")[0] for error in run.errors] == [
        "toxbench: error: cell nan seed 0 failed: DivergedError: the training loss of epoch 1 is "
        "nan",
        "toxbench: error: cell narrow seed 0 failed: PluginError: forward returned logits of shape "
        "[4, 1], expected [4, 3] (batch, label)",
        "toxbench: error: 2 of 5 cells failed and have no result",
    ]
    stored = {name: record for name, (record, _) in read_cells(tmp_path / "results").items()}
    assert stored.keys() == {"lacks-memory 0", "drops-layers 0", "bert 0"}
    assert stored["lacks-memory 0"]["micro_batch"] == 2
    assert stored["drops-layers 0"]["micro_batch"] is None
    options = ("--backbones", "fails-once,bert", "--weights", f"fails-once={checkpoint}")
    run = torchrun(*arguments("results", *options), PYTHONPATH=path).wait()
    assert set(run.exit_codes) == {75}, run.stderr
    (error,) = run.errors
    reason, _, remedy = error.removeprefix("toxbench: error: ").partition("; ")
    assert reason == "process 2 of 2 (rank 1) failed, and not all others did: ValueError: a bad day"
    resume = "torchrun --nproc-per-node 2 --no-python toxbench run "
    assert remedy.startswith(f"finished work is stored. To resume: {resume}")


def test_killed_rank_ends_run_that_resumes(
    torchrun: Start, arguments: Arguments, tmp_path: Path
) -> None:
    options = ("--seeds", "5", "--epochs", "2", "--batch-size", "4")
    interrupted = arguments("results", *options)
    for rank, cell in ((1, "[2/5]"), (0, "[2/")):
        run = torchrun(*interrupted).read_until(cell)
        os.kill(run.pid(rank), signal.SIGKILL)
        assert sorted(run.wait().exit_codes) == [-9, 75], run.stderr
        command = f"torchrun --nproc-per-node 2 --no-python toxbench {shlex.join(interrupted)}"
        assert run.errors == [
            f"toxbench: error: process {rank + 1} of 2 (rank {rank}) is gone; finished work is "
            f"stored. To resume: {command}"
        ]
    run = torchrun(*interrupted).read_until("epoch 1:")  # both ranks have started
    assert "5 cells, 0 stored" not in run.stderr
    os.killpg(run.process.pid, signal.SIGINT)  # like a terminal; torchrun sends it once more
    errors = [error.split(";")[0] for error in run.wait().errors]
    assert errors == ["toxbench: error: interrupted"], run.stderr
    assert torchrun(*interrupted).wait().process.returncode == 0
    undisturbed = arguments("undisturbed", *options)
    assert torchrun(*undisturbed).wait().process.returncode == 0
    assert_same(Results(tmp_path / "results"), Results(tmp_path / "undisturbed"))


def test_terminated_run_resumes_from_checkpoint(
    torchrun: Start, arguments: Arguments, tmp_path: Path
) -> None:
    options = ("--epochs", "60", "--batch-size", "4", "--eval-steps", "45")
    run = torchrun(*arguments("results", *options)).read_until("step 90:")
    last_epoch = run.stderr.splitlines()[-1].partition("; about")[0]
    os.killpg(run.process.pid, signal.SIGTERM)
    run.wait()
    assert [error.split(";")[0] for error in run.errors] == ["toxbench: error: terminated"]
    assert len(list((tmp_path / "results").glob("*/.checkpoints/*"))) == 1
    run = torchrun(*arguments("results", *options)).wait()
    assert run.process.returncode == 0, run.stderr
    assert last_epoch in run.stderr  # with the same comments per second: not trained again
    assert not list((tmp_path / "results").glob("*/.checkpoints/*"))
    undisturbed = arguments("undisturbed", *options)
    assert torchrun(*undisturbed).wait().process.returncode == 0
    assert_same(Results(tmp_path / "results"), Results(tmp_path / "undisturbed"))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "--epochs", "many"], 2, "'many' is not a valid integer"),
        (["run", "--workers", "2"], 2, "--workers is for cells in worker processes"),
        (["tune"], 2, "toxbench tune is for one process; start it without torchrun"),
        (["run", "--data", "missing.csv"], 3, "missing.csv"),
    ],
    ids=["usage", "workers", "tune", "data"],
)
def test_errors_are_reported_once(
    torchrun: Start, words: list[str], code: int, message: str, tmp_path: Path
) -> None:
    run = torchrun(*words).wait()
    assert run.exit_codes == [code, code], run.stderr
    (error,) = run.errors
    assert message in error
    assert not (tmp_path / "results").exists()


def test_torchrun_env_is_read() -> None:
    assert TorchrunEnv.from_environ({}) == NOT_DISTRIBUTED
    assert TorchrunEnv.from_environ({"WORLD_SIZE": "4"}) == NOT_DISTRIBUTED
    assert TorchrunEnv.from_environ({"RANK": "0", "WORLD_SIZE": "1"}) == NOT_DISTRIBUTED
    environ = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    env = TorchrunEnv.from_environ(environ | {"GROUP_WORLD_SIZE": "2"})
    assert (env.rank, env.size, env.local_rank, env.machines) == (3, 4, 1, 2)
    assert env.command == "torchrun --nnodes 2 ... --nproc-per-node 2 --no-python toxbench"
    for invalid in ({"RANK": "4", "WORLD_SIZE": "4"}, {"RANK": "one", "WORLD_SIZE": "2"}):
        with pytest.raises(SettingsError, match="torchrun never sets RANK="):
            TorchrunEnv.from_environ(invalid)
