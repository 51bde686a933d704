"""Rank and number of the processes that torchrun starts, from their environment variables."""

from collections.abc import Mapping
from dataclasses import dataclass

from toxbench.errors import SettingsError


@dataclass(frozen=True)
class TorchrunEnv:
    """Position of this process among those of one torchrun; by default a single process.

    Attributes:
        rank: of this process, counted from 0.
        size: number of processes.
        local_rank: rank among the processes of this machine, which is the number of its GPU.
        local_size: number of processes on this machine.
        machines: number of machines.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    machines: int = 1

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "TorchrunEnv":
        """Read torchrun's environment variables; without them, return a single process.

        Raises:
            SettingsError: a variable is not a whole number, or the rank is not below the size.
        """
        if not {"RANK", "WORLD_SIZE"} <= environ.keys():
            return cls()
        size = environ["WORLD_SIZE"]
        variables = {
            "RANK": environ["RANK"],
            "WORLD_SIZE": size,
            "LOCAL_RANK": environ.get("LOCAL_RANK", environ["RANK"]),
            "LOCAL_WORLD_SIZE": environ.get("LOCAL_WORLD_SIZE", size),
            "GROUP_WORLD_SIZE": environ.get("GROUP_WORLD_SIZE", "1"),
        }
        if all(value.isascii() and value.isdigit() for value in variables.values()):
            position = cls(*map(int, variables.values()))
            if position.rank < position.size:
                return position if position.size > 1 else cls()
        assignments = " ".join(f"{name}={value!r}" for name, value in variables.items())
        raise SettingsError(
            f"torchrun never sets {assignments}; unset these variables, or use torchrun"
        )

    @property
    def command(self) -> str:
        """The command that starts toxbench on the same number of processes."""
        if self.size == 1:
            return "toxbench"
        machines = f"--nnodes {self.machines} ... " if self.machines > 1 else ""
        # Not "-m toxbench": that imports from the current folder before anything else.
        return f"torchrun {machines}--nproc-per-node {self.local_size} --no-python toxbench"

    def describe_rank(self, rank: int) -> str:
        """Describe one of the processes for a message, such as ``process 2 of 4 (rank 1)``."""
        return f"process {rank + 1} of {self.size} (rank {rank})"


NOT_DISTRIBUTED = TorchrunEnv()
