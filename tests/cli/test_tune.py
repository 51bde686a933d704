"""``toxbench tune`` on the command line: output, streams and exit codes."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from forks import Forks
from support import TIMEOUT, wait_until, write_checkpoint, write_table

from toxbench.cli.main import main

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]
SECRET = "hunter2x"  # noqa: S105
FIXED = (
    "--batch-size", "16", "--max-length", "16", "--layer-decay", "1", "--warmup", "0.1",
    "--weight-decay", "0.01", "--dropout", "0.1", "--loss", "bce", "--head-learning-rate", "1e-3",
    "--head-init", "random",
)  # fmt: skip
SMALL = (*FIXED, "--space", "epochs=1:2", "--space", "learning_rate=1e-4:1e-2:log",
         "--seeds", "1", "--finalists", "1", "--finalist-seeds", "1", "--finalist-folds", "1",
         "--trials", "3")  # fmt: skip


@dataclass(frozen=True)
class Result:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one error line; nothing else may look like an error or a traceback."""
        lines = [line for line in self.err.splitlines() if line.startswith("toxbench: error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        assert "bug" not in lines[0]
        return lines[0]


Toxbench = Callable[..., Result]


@pytest.fixture
def toxbench(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Toxbench:
    """Run a command in this process, which has torch already, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(words)
        output = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Result(stop.value.code, output.out, output.err)

    return run


@pytest.fixture
def source(table: Path, checkpoint: Path) -> tuple[str, ...]:
    """The options that name the table and the backbone of a search."""
    return ("--data", str(table), "--backbones", "bert", "--weights", f"bert={checkpoint}")


@pytest.fixture
def tune(toxbench: Toxbench, source: tuple[str, ...]) -> Toxbench:
    """Search with everything small."""
    return lambda *words: toxbench("tune", *source, *SMALL, *words)


def records(results: Path) -> dict[str, bytes]:
    """Name -> content of each committed trial, finalists included."""
    return {str(p): p.read_bytes() for p in results.glob("*/tuning/*/*/trial-*.json")}


def trials(results: Path) -> list[Path]:
    return sorted(results.glob("*/tuning/*/trials/trial-*.json"))


def test_help_is_light_and_names_every_option(cli: Cli, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from toxbench.cli.main import main\n"
        "try:\n    main(['tune', '--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'pandas', 'sklearn', 'optuna', 'sqlalchemy',"
        " 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False,
                          capture_output=True, text=True, timeout=TIMEOUT)  # fmt: skip
    assert result.returncode == 0, result.stderr
    for option in (
        "--trials", "--budget", "--sampler", "--pruner", "--inner-folds", "--finalists",
        "--finalist-seeds", "--tune-seed", "--storage", "--space", "--importance",
        "--dry-run", "--learning-rate", "--validation-size", "--weights",
    ):  # fmt: skip
        assert option in result.stdout
    assert "tune" in cli("--help").stdout


def test_search_prints_settings_and_run_uses_them(
    tune: Toxbench, toxbench: Toxbench, source: tuple[str, ...], tmp_path: Path
) -> None:
    result = tune()
    assert result.code == 0, result.err
    assert "Tuned settings of bert: 3 trials" in result.out
    assert "bert (tuned)" in result.out
    assert "tuned.toml" in result.out
    assert "test rows are not among them" in result.err
    assert "[bert trial 0 (default settings)]" in result.err
    finalists = tmp_path.glob("results/*/tuning/*/finalists-*/trial-*.json")
    assert result.err.count("[bert trial ") == 3 + len(list(finalists))
    cells = {p.name: p.read_bytes() for p in tmp_path.glob("results/*/cells/*")}
    words = ("--tuned", "--json", "--adaptation", "full")
    both = toxbench("run", *source, *FIXED, *words)
    assert both.code == 0
    rows = json.loads(both.out)["rows"]
    bert = [row["tuned"] for row in rows if row["candidate"] == "bert"]
    assert sorted(bert) == [False, True]
    after = {p.name: p.read_bytes() for p in tmp_path.glob("results/*/cells/*")}
    assert after == cells
    repeated = tune()
    assert repeated.code == 0
    assert "[bert trial " not in repeated.err


def test_winning_default_settings_are_reported(tune: Toxbench, toxbench: Toxbench) -> None:
    result = tune("--trials", "1")
    assert result.code == 0, result.err
    assert "The default settings won: no other finalist scored higher." in result.out
    leaderboard = toxbench("leaderboard", "--full").out
    assert ": the default settings, without an improvement in 1 trial" in leaderboard


def test_json_prints_only_the_leaderboard(tune: Toxbench) -> None:
    result = tune("--json", "--trials", "1")
    assert result.code == 0
    assert result.err == ""
    assert {row["candidate"] for row in json.loads(result.out)["rows"]} >= {"bert", "tfidf-logreg"}


def test_dry_run_prints_the_plan_only(tune: Toxbench, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = tune("--dry-run", "--budget", "30m", "--storage", "sqlite:///elsewhere.sqlite3")
    assert result.code == 0, result.err
    assert result.out == ""
    assert "3 trials or 30m" in result.err
    assert "learning_rate=0.0001:0.01:log" in result.err
    assert "sqlite:///elsewhere.sqlite3" in result.err
    assert sorted(tmp_path.rglob("*")) == before


def test_flag_removes_setting_from_space(toxbench: Toxbench, source: tuple[str, ...]) -> None:
    words = ("tune", *source, "--dry-run")
    assert "epochs=" in toxbench(*words).err
    assert "epochs=" not in toxbench(*words, "--epochs", "2").err


def test_backbones_and_baselines_can_be_none(
    toxbench: Toxbench, tune: Toxbench, table: Path, tmp_path: Path
) -> None:
    result = toxbench("run", "--data", str(table), "--backbones", "none", "--dry-run")
    assert "Candidate bert" not in result.err
    assert toxbench("tune", "--data", str(table), "--backbones", "none").code == 2
    assert tune("--baselines", "none", "--quiet", "--trials", "1").code == 0
    names = [path.name.split("-")[0] for path in tmp_path.glob("results/*/cells/*")]
    assert names == ["bert", "bert"]


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (["--trials", "0"], 2, "trials"),
        (["--budget", "nonsense"], 2, "30m"),
        (["--budget", "-5s"], 2, "budget"),
        (["--budget", "0s"], 2, "budget"),
        (["--budget", "infh"], 2, "budget"),
        (["--budget", "nans"], 2, "budget"),
        (["--inner-folds", "0"], 2, "inner_folds"),
        (["--inner-folds", "9"], 2, "inner_folds"),
        (["--finalists", "0"], 2, "finalists"),
        (["--sampler", "best"], 2, "tpe"),
        (["--pruner", "best"], 2, "median"),
        (["--tune-seed", "-1"], 2, "tune_seed"),
        (["--space", "seed=1:5"], 2, "seed is not a hyperparameter"),
        (["--space", "learning_rat=1e-5:1e-3"], 2, "learning_rate"),
        (["--space", "epochs=3:1"], 2, "epochs"),
        (["--space", "epochs=a:b"], 2, "epochs"),
        (["--space", "nowhere.toml"], 2, "nowhere.toml"),
        (["--storage", "nonsense"], 2, "--storage"),
        (["--storage", f"mysql+pymysql://u:{SECRET}@127.0.0.1/db"], 2, "pymysql"),
        (["--storage", f"postgresql+psycopg://u:{SECRET}@127.0.0.1:x/db"], 2, "--storage"),
        (["--storage", f"postgresql+psycopg://u:{SECRET}@127.0.0.1:1/db"], 75, "does not answer"),
        (["--storage", "sqlite://"], 2, "--storage"),
        (["--backbones", "brt"], 2, "did you mean 'bert'"),
        (["--data", "nowhere.csv"], 3, "nowhere.csv"),
        (["--importance", "--results", "empty"], 6, "toxbench"),
    ],
)
def test_errors_are_one_line_with_code(
    tune: Toxbench, tmp_path: Path, words: list[str], code: int, hint: str
) -> None:
    result = tune(*words)
    assert result.code == code, result.err
    assert hint in result.error
    assert result.out == ""
    assert SECRET not in result.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_too_small_table_is_refused(toxbench: Toxbench, checkpoint: Path, tmp_path: Path) -> None:
    small = write_table(tmp_path / "small.csv", rows=10)
    weights = ("--backbones", "bert", "--weights", f"bert={checkpoint}")
    result = toxbench("tune", "--data", str(small), *weights, *SMALL)
    assert result.code == 3
    assert "too few" in result.error


def test_search_with_only_failures_exits_with_5(tune: Toxbench, tmp_path: Path) -> None:
    words = ("--learning-rate", "1e30", "--space", "learning_rate=1e29:1e31:log")
    result = tune(*words)
    assert result.code == 5
    assert result.error
    assert "bert" in result.err
    assert "bert" not in result.out
    assert not list(tmp_path.glob("results/*/tuning/*/tuned.toml"))
    quiet = tune(*words, "--quiet")
    assert quiet.code == 5
    assert "bert" in quiet.error  # which one, and why


def test_a_killed_search_is_resumed(
    cli: Cli, forks: Forks, source: tuple[str, ...], tmp_path: Path
) -> None:
    """The real command is killed at a random moment after its first trial."""
    words = ["tune", *source, *SMALL, "--space", "epochs=14:20"]
    command = forks.start(*words, cwd=tmp_path)
    try:
        wait_until(lambda: trials(tmp_path / "results"))
        time.sleep(random.Random(11).uniform(0, 0.5))
    finally:
        command.kill()
        command.wait()
    before = records(tmp_path / "results")
    result = cli(*words)
    assert result.returncode == 0, result.stderr
    assert before.items() <= records(tmp_path / "results").items()
    assert len(trials(tmp_path / "results")) == 3
    assert "bert (tuned)" in result.stdout


def test_importance_prints_and_draws_without_training(
    tune: Toxbench, toxbench: Toxbench, tmp_path: Path
) -> None:
    assert tune("--quiet", "--trials", "5").code == 0
    before = records(tmp_path / "results")
    for plot in tmp_path.glob("results/*/tuning/*/*.svg"):
        plot.unlink()
    result = toxbench("tune", "--importance")
    assert result.code == 0, result.err
    assert "learning_rate" in result.out
    assert "epochs" in result.out
    assert records(tmp_path / "results") == before
    plots = list(tmp_path.glob("results/*/tuning/*/importance.svg"))
    assert [str(plot.relative_to(tmp_path)) in result.out for plot in plots] == [True]


def test_importance_without_a_search_is_refused(
    toxbench: Toxbench, source: tuple[str, ...]
) -> None:
    assert toxbench("run", *source, *FIXED, "--epochs", "1", "--quiet").code == 0
    result = toxbench("tune", "--importance")
    assert result.code == 6
    assert "toxbench tune" in result.error


@pytest.mark.parametrize("content", [b"{", None])
def test_damaged_record_is_named_and_recomputed(
    tune: Toxbench, toxbench: Toxbench, tmp_path: Path, content: bytes | None
) -> None:
    assert tune("--quiet", "--trials", "2").code == 0
    path = trials(tmp_path / "results")[1]
    content_before = path.read_bytes()
    path.write_bytes(content_before.replace(b"learning_rate", b"learning_rats") if content is None
                     else content)  # fmt: skip
    result = toxbench("tune", "--importance")
    assert result.code == 6
    assert path.name in result.error
    assert tune("--quiet", "--trials", "2").code == 0
    assert path.read_bytes() == content_before
    assert path.with_name(f"{path.name}.corrupt").is_file()


@pytest.mark.parametrize("place", [".", "*/tuning", "*/tuning/.workers", "*/tuning/*/trials"])
def test_unusable_folder_exits_with_6(tune: Toxbench, tmp_path: Path, place: str) -> None:
    """A file takes the place of the folder, which stops even root."""
    results = tmp_path / "parent" / "results"
    if place == ".":
        results.parent.write_text("a file", encoding="utf-8")
    else:
        assert tune("--quiet", "--trials", "1", "--results", str(results)).code == 0
        folder = next(results.glob(place))
        folder.rename(tmp_path / "aside")
        folder.write_text("a file", encoding="utf-8")
    result = tune("--trials", "1", "--results", str(results))
    assert result.code == 6
    assert str(results.parent) in result.error


def test_read_only_results_exit_with_6(tune: Toxbench, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    results = tmp_path / "results"
    assert tune("--quiet").code == 0
    folders = [results, *(path for path in results.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        result = tune("--trials", "4")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert result.code == 6
    assert "results" in result.error


def test_tuned_without_search_is_refused(
    tune: Toxbench, toxbench: Toxbench, table: Path, tmp_path: Path
) -> None:
    assert tune("--quiet", "--trials", "1").code == 0
    second = write_checkpoint(tmp_path / "second", "bert", seed=1)
    result = toxbench("run", "--data", str(table), "--backbones", "bert", "--weights",
                    f"bert={second}", "--tuned")  # fmt: skip
    assert result.code == 2
    assert "toxbench tune --backbones bert" in result.error
