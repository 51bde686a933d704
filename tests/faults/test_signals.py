"""Stop signals, sent to real commands: to one process and to a group with workers."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from forks import Forks
from plugin_site import install_plugin
from support import TIMEOUT, read_json

from toxbench.cli import main as cli_main
from toxbench.util.processes import SignalStop, TerminationSignal, raise_on_termination

pytestmark = pytest.mark.slow

Cli = Callable[..., subprocess.CompletedProcess[str]]
CODES = {
    signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated"),
    signal.SIGHUP: (129, "terminated by a hangup"),
}  # fmt: skip
ROWS = [
    pytest.param(signal.SIGINT, marks=pytest.mark.faults(20)),
    pytest.param(signal.SIGTERM, marks=pytest.mark.faults(21)),
]
HANGUP = pytest.param(signal.SIGHUP, marks=pytest.mark.faults(50))


def read_until(lines: Iterable[str], beginning: str) -> None:
    """Read the output of the command until a line begins with ``beginning``."""
    assert any(line.startswith(beginning) for line in lines)


@pytest.mark.parametrize("number", [*ROWS, HANGUP])
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["in process", "workers"])
def test_printed_resume_command_works(
    cli: Cli, forks: Forks, table: Path, checkpoint: Path, tmp_path: Path, number: int,
    workers: list[str],
) -> None:  # fmt: skip
    words = ["run", "--verbose",
             "--data", str(table), "--backbones", "bert", "--weights", f"bert={checkpoint}",
             "--epochs", "1", "--baselines", "none", *workers]  # fmt: skip
    process = forks.stream(*words, "--seeds", "40", cwd=tmp_path)
    read_until(process.stderr, "[3/40]")
    os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=TIMEOUT)
    code, message = CODES[signal.Signals(number)]
    assert process.returncode == code
    assert "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    assert last.startswith(f"toxbench: error: {message}; finished work is stored. To resume: ")
    resume = shlex.split(last.partition("To resume: ")[2])
    assert resume == ["toxbench", *words, "--seeds", "40"]
    (board,) = (tmp_path / "results").glob("*/leaderboard.json")
    (row,) = read_json(board)["rows"]  # type: ignore[misc]
    stored = len(list(board.parent.glob("cells/*")))
    assert stored == row["seeds"] >= 1
    result = cli(*resume[1:], "--dry-run")
    assert result.returncode == 0
    assert f"40 cells, {stored} stored already" in result.stderr


STUBBORN = """
import time
from toxbench import hookimpl

@hookimpl
def toxbench_cell_finished(result):
    try:
        print("working", flush=True)
        time.sleep(100)
    finally:
        print("cleaning up", flush=True)
        time.sleep(100)
"""


@pytest.mark.parametrize("number", ROWS)
def test_second_signal_ends_at_once(forks: Forks, table: Path, tmp_path: Path, number: int) -> None:
    install_plugin(tmp_path / "site", "stubborn", stubborn=STUBBORN)
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    words = ["run", "--data", str(table), "--backbones", "none", "--baselines", "always-negative"]
    process = forks.stream(*words, cwd=tmp_path, environment={"PYTHONPATH": path})
    for expected in ("working\n", "cleaning up\n"):
        read_until(process.stderr, expected)
        process.send_signal(number)
    _, stderr = process.communicate(timeout=TIMEOUT)
    assert process.returncode == CODES[signal.Signals(number)][0]
    assert "Traceback" not in stderr


@pytest.mark.faults(50)
def test_second_hangup_is_no_second_signal() -> None:
    """A shell and the kernel each send one for the same terminal."""

    def close_terminal_twice() -> None:
        with raise_on_termination():
            try:
                with SignalStop().watching() as should_stop:
                    signal.raise_signal(signal.SIGHUP)
                    signal.raise_signal(signal.SIGHUP)
                    assert should_stop()
            finally:
                signal.raise_signal(signal.SIGHUP)

    with pytest.raises(TerminationSignal) as stop:
        close_terminal_twice()
    assert stop.value.exit_code == 129


@pytest.mark.faults(20)
def test_ignored_ctrl_c_stays_ignored(table: Path, tmp_path: Path) -> None:
    """nohup and a shell's & make background processes ignore it."""
    words = ["run", "--data", str(table), "--backbones", "none", "--folds", "5"]
    command = ["sh", "-c", f"trap '' INT; exec {shlex.join([sys.executable, '-m', 'toxbench'])} "
               + shlex.join(words)]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, text=True, stderr=subprocess.PIPE,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    assert process.stderr is not None
    read_until(process.stderr, "Table")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0


@pytest.mark.faults(21)
def test_signal_wrapped_by_a_library_is_recognized(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrapping(*words: object, **more: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except BaseException as error:
            raise ValueError("wrapped") from error

    monkeypatch.setattr(cli_main.cli, "invoke", wrapping)
    with pytest.raises(SystemExit) as stop:
        cli_main.main(["run"])
    assert stop.value.code == 143
    assert capsys.readouterr().err.startswith("toxbench: error: terminated; finished work")
