"""Every way in which toxbench refuses, with the exit code that the command line answers with."""

import difflib
from collections.abc import Iterable, Sequence


class ToxbenchError(Exception):
    """Something a user can mend. ``problems`` holds a line for each: what, where, what to do."""

    exit_code = 1

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class SettingsError(ToxbenchError):
    """An unknown or impossible option, key, name or value."""

    exit_code = 2


class DataError(ToxbenchError):
    """The table cannot be used as it is."""

    exit_code = 3


class PluginError(ToxbenchError):
    """A plugin that was asked for is missing, ambiguous or breaks its contract."""

    exit_code = 4


class CellsFailedError(ToxbenchError):
    """The run ended, but some of its cells have no result."""

    exit_code = 5


class StorageError(ToxbenchError):
    """The results folder cannot be read or written."""

    exit_code = 6


class NewerVersionError(StorageError):
    """A newer toxbench wrote it: it is left as it is."""


class TryAgainError(ToxbenchError):
    """Something outside is not there just now: the network, a lock that another run holds."""

    exit_code = 75


class ProcessLostError(TryAgainError):
    """Another process of this run is gone.

    Attributes:
        rank: its; None where torchrun itself is gone.
        follows: it was asked to end, or had lost another one.
    """

    def __init__(self, problem: str, rank: int | None, follows: bool = False) -> None:
        super().__init__(problem)
        self.rank = rank
        self.follows = follows


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'bert'?"`` for the closest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
