"""Which of the processes of one run this is, as torchrun tells each of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from toxbench.errors import SettingsError


@dataclass(frozen=True)
class TorchrunEnv:
    """A process among those that torchrun started together; by default it is alone.

    Attributes:
        rank: counted from 0.
        size: how many there are.
        local_rank: among those of this machine, which is the number of its GPU.
        local_size: how many are on this machine.
        machines: how many there are.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    machines: int = 1

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "TorchrunEnv":
        """Read what torchrun sets; a process that it did not start is alone.

        Raises:
            SettingsError: a variable is no whole number, or the rank is none of them.
        """
        if not {"RANK", "WORLD_SIZE"} <= environ.keys():
            return cls()
        size = environ["WORLD_SIZE"]
        said = {
            "RANK": environ["RANK"],
            "WORLD_SIZE": size,
            "LOCAL_RANK": environ.get("LOCAL_RANK", environ["RANK"]),
            "LOCAL_WORLD_SIZE": environ.get("LOCAL_WORLD_SIZE", size),
            "GROUP_WORLD_SIZE": environ.get("GROUP_WORLD_SIZE", "1"),
        }
        if all(word.isascii() and word.isdigit() for word in said.values()):
            place = cls(*map(int, said.values()))
            if place.rank < place.size:
                return place if place.size > 1 else cls()
        words = " ".join(f"{name}={word!r}" for name, word in said.items())
        raise SettingsError(f"torchrun never sets {words}; unset these variables, or use torchrun")

    @property
    def command(self) -> str:
        """What starts toxbench on as many processes."""
        if self.size == 1:
            return "toxbench"
        machines = f"--nnodes {self.machines} ... " if self.machines > 1 else ""
        return f"torchrun {machines}--nproc-per-node {self.local_size} -m toxbench"

    def describe_rank(self, rank: int) -> str:
        """Name one of these processes to a person."""
        return f"process {rank + 1} of {self.size} (rank {rank})"


NOT_DISTRIBUTED = TorchrunEnv()
