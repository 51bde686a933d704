"""A command that torchrun started several times: rank 0 prints, and all processes exit together."""

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
from toxbench.util.processes import STOP_SIGNALS, TerminationSignal, TorchrunEnv
from toxbench.util.text import escape_line

if TYPE_CHECKING:
    from toxbench.executors.torchrun.coordinator import Coordinator

_EXIT_SECONDS = 5.0  # that rank 0 waits for the other ranks after the command
_REPORT_SECONDS = 30.0  # that another rank waits for rank 0 to report the same error


def resume_hint(env: TorchrunEnv, words: Sequence[str]) -> str:
    """Return how to resume a run; ``words`` are those of its command line."""
    return f"finished work is stored. To resume: {env.command} {shlex.join(words)}"


class TorchrunSession:
    """This process among those that torchrun started with the same command line."""

    def __init__(self, env: TorchrunEnv, words: Sequence[str]) -> None:
        """Connect nothing yet; ``words`` are those of the command line."""
        self.env = env
        self._words = words
        self._coordinator: Coordinator | None = None
        self._leave_reason = ""  # published for the other ranks; "" after a normal end
        self._stderr: int | None = None

    @property
    def coordinator(self) -> "Coordinator":
        """The connection to the other ranks, inside of `connect`."""
        assert self._coordinator is not None  # noqa: S101 - see above
        return self._coordinator

    def run(self, run_command: Callable[[], int]) -> int:
        """Run the command and exit together with the other ranks; ranks above 0 print nothing.

        Args:
            run_command: runs the command in `connect`, reports its error, returns the exit code.
        """
        # DistributedDataParallel would warn each time that it looks for unused parameters.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        if self.env.rank > 0:
            self._mute()
        code = run_command()
        for number in STOP_SIGNALS:  # torchrun ends the rest when one has left
            signal.signal(number, signal.SIG_IGN)
        if self._coordinator is None:
            return code
        with suppress(ProcessLostError):
            self._leave(self._coordinator, code)
        return code

    @contextmanager
    def connect(self) -> Iterator[None]:
        """Connect to the other ranks; explain errors that one of them caused.

        Raises:
            SettingsError: the command cannot run in several processes.
            ProcessLostError: a process is gone.
        """
        from toxbench.executors.torchrun.coordinator import LOST_PEER, Coordinator

        try:
            self._coordinator = Coordinator.join(self.env, os.environ, self._report_fatal)
            self._check_command()
            yield
        except click.exceptions.Exit:
            raise
        except ProcessLostError as error:
            self._leave_reason = LOST_PEER
            raise self._with_hint(error) from error
        except TerminationSignal as ended:
            self._leave_reason = f"was {ended}"
            lost = self._coordinator.lost_peer() if self._coordinator else None
            if lost is None or lost.is_secondary:
                raise
            raise self._with_hint(lost) from ended
        except BaseException as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            self._leave_reason = f"has ended: {reason}"
            raise

    def take_device(self, device: str) -> None:
        """Make this rank's device the current one; raises `SettingsError` if there is none."""
        from toxbench.training.device import assign_device

        assign_device(device, self.env)

    def serve(self, registry: Registry) -> int:
        """Compute with rank 0 and return its exit code; raises as `executor.serve`."""
        from toxbench.executors.torchrun.executor import serve

        return serve(self.coordinator, registry)

    def _check_command(self) -> None:
        command = next((word for word in self._words if not word.startswith("-")), "run")
        if command != "run":
            raise SettingsError(
                f"toxbench {command} is for one process; start it without torchrun, "
                "which is for toxbench run"
            )

    def _leave(self, coordinator: "Coordinator", code: int) -> None:
        """Let the other ranks exit, or wait until rank 0 has reported why all have to.

        Raises:
            ProcessLostError: no other process is left.
        """
        from toxbench.executors.torchrun.coordinator import END, SECONDARY_REASONS

        if self.env.rank == 0:
            coordinator.publish(END, str(code))
        coordinator.leave(self._leave_reason)
        if self._leave_reason in SECONDARY_REASONS:
            return
        if self.env.rank == 0:
            coordinator.wait_for_peers(_EXIT_SECONDS)
        elif self._leave_reason:
            coordinator.wait(END, timeout=_REPORT_SECONDS)

    def _with_hint(self, lost: ProcessLostError) -> ProcessLostError:
        """Add how to resume; if rank 0 is lost, the first rank of each machine prints it."""
        if lost.rank == 0 and (self.env.rank == 1 or self.env.local_rank == 0):
            self._unmute()
        return ProcessLostError(f"{lost}; {resume_hint(self.env, self._words)}", lost.rank)

    def _report_fatal(self, lost: ProcessLostError) -> None:
        message = escape_line(str(self._with_hint(lost)))
        echo(f"toxbench: error: {message}", err=True, style="error")

    def _mute(self) -> None:
        """Discard the output; with --debug, only that on stdout."""
        devnull = os.open(os.devnull, os.O_WRONLY)
        self._stderr = os.dup(sys.stderr.fileno())
        os.dup2(devnull, sys.stdout.fileno())
        if "--debug" not in self._words:
            os.dup2(devnull, sys.stderr.fileno())

    def _unmute(self) -> None:
        if self._stderr is not None:
            os.dup2(self._stderr, sys.stderr.fileno())
