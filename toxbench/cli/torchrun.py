"""A command that torchrun started several times: one process speaks, and all leave together."""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from toxbench.cli.console import echo
from toxbench.errors import ProcessLostError, SettingsError
from toxbench.plugin.registry import Registry
from toxbench.settings import RunSettings
from toxbench.util.signals import Ended
from toxbench.util.text import escape_line
from toxbench.util.torchrun import TorchrunEnv

if TYPE_CHECKING:
    from toxbench.executors.base import RunnerConfig, TaskCallbacks, Tasks
    from toxbench.executors.torchrun.coordinator import Coordinator

_TO_LEAVE = 5.0  # seconds that the first process waits for the others, when all is done
_TO_SAY = 30.0  # seconds that another one waits for the first to come upon the same error


class TorchrunSession:
    """This process among those that torchrun started with the same words."""

    def __init__(self, place: TorchrunEnv, words: Sequence[str]) -> None:
        """Do nothing yet.

        Args:
            place: of this process.
            words: of the command line.
        """
        self.place = place
        self._words = words
        self._board: Coordinator | None = None
        self._left = ""  # why this process leaves, for the others; empty: in order
        self._stderr: int | None = None

    @property
    def resume_hint(self) -> str:
        """What to do where the run was ended."""
        command = f"{self.place.command} {shlex.join(self._words)}"
        return f"what was finished is stored. To go on: {command}"

    def answer(self, code_of: Callable[[], int]) -> int:
        """Run the command, and leave together with the others; all but the first are silent.

        Args:
            code_of: runs it in `connect`, says what went wrong, and returns the exit code.
        """
        # DistributedDataParallel would warn each time that it looks for unused parameters.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        if self.place.rank > 0:
            self._mute()
        code = code_of()
        for number in (signal.SIGTERM, signal.SIGINT):  # torchrun ends the rest when one has left
            signal.signal(number, signal.SIG_IGN)
        if self._board is None:
            return code
        with suppress(ProcessLostError):
            self._leave(self._board, code)
        return code

    @contextmanager
    def connect(self) -> Iterator[None]:
        """Find the other processes, and say it where one of them is what went wrong.

        Raises:
            SettingsError: it is not a command to be spread.
            ProcessLostError: a process is gone.
        """
        from toxbench.executors.torchrun.coordinator import LOST, Coordinator

        try:
            self._board = Coordinator.join(self.place, os.environ, self._last_words)
            self._refuse_all_but_run()
            yield
        except click.exceptions.Exit:
            raise
        except ProcessLostError as error:
            self._left = LOST
            raise self._explained(error) from error
        except Ended as ended:
            self._left = f"was {ended}"
            lost = self._board.lost() if self._board else None
            if lost is None or lost.follows:
                raise
            raise self._explained(lost) from ended
        except BaseException as error:
            self._left = f"has ended: {' '.join(str(error).split()) or type(error).__name__}"
            raise

    def check(self, settings: RunSettings) -> None:
        """Give this process its device.

        Raises:
            SettingsError: there is none, or something is asked for that only one process can do.
        """
        from toxbench.training.device import assign_device

        asked = {
            "--workers": settings.workers,
            "--cell-timeout": settings.cell_timeout,
            "--executor": settings.executor if settings.executor != "local" else None,
            "--cpus-per-cell": settings.cpus_per_cell,
            "--gpus-per-cell": settings.gpus_per_cell,
        }
        for option, value in asked.items():
            if value is not None:
                raise SettingsError(
                    f"{option} is for cells in processes of their own, but torchrun's processes "
                    f"compute each cell together; leave out {option}, or start without torchrun"
                )
        assign_device(settings.device, self.place)

    @property
    def leads(self) -> bool:
        """Whether this is the first process."""
        return self.place.rank == 0

    def compute(self, setup: "RunnerConfig", tasks: "Tasks", listener: "TaskCallbacks") -> None:
        """Compute cells with the others; raises as `Rank0Executor.compute`."""
        from toxbench.executors.torchrun.executor import Rank0Executor

        Rank0Executor(self._joined_board).compute(setup, tasks, listener)

    def serve(self, registry: Registry) -> int:
        """Compute along with the first process; return the exit code that it says.

        Raises:
            ProcessLostError: a process is gone, or this one failed where the others did not.
        """
        from toxbench.executors.torchrun.executor import WorkerRank

        return WorkerRank(self._joined_board).serve(registry)

    @property
    def _joined_board(self) -> "Coordinator":
        assert self._board is not None  # noqa: S101 - inside of `joined`
        return self._board

    def _refuse_all_but_run(self) -> None:
        command = next((word for word in self._words if not word.startswith("-")), "run")
        if command != "run":
            raise SettingsError(
                f"toxbench {command} is for one process; start it without torchrun, "
                "which is for toxbench run"
            )

    def _leave(self, board: "Coordinator", code: int) -> None:
        """Let the others leave, or wait until the first one has said why all have to.

        Raises:
            ProcessLostError: there is nobody to wait for.
        """
        from toxbench.executors.torchrun.coordinator import END, FOLLOWED

        if self.place.rank == 0:
            board.publish(END, str(code))
        board.leave(self._left)
        if self._left in FOLLOWED:
            return
        if self.place.rank == 0:
            board.wait_for_peers(_TO_LEAVE)
        elif self._left:
            board.wait(END, patience=_TO_SAY)

    def _explained(self, lost: ProcessLostError) -> ProcessLostError:
        """Say how to go on; of the processes that are left, the first of a machine says it."""
        if lost.rank == 0 and (self.place.rank == 1 or self.place.local_rank == 0):
            self._speak_again()
        return ProcessLostError(f"{lost}; {self.resume_hint}", lost.rank)

    def _last_words(self, lost: ProcessLostError) -> None:
        echo(f"toxbench: error: {escape_line(str(self._explained(lost)))}", err=True, style="error")

    def _mute(self) -> None:
        """Write nothing more; with --debug, on stderr."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        self._stderr = os.dup(sys.stderr.fileno())
        os.dup2(nowhere, sys.stdout.fileno())
        if "--debug" not in self._words:
            os.dup2(nowhere, sys.stderr.fileno())

    def _speak_again(self) -> None:
        if self._stderr is not None:
            os.dup2(self._stderr, sys.stderr.fileno())
