"""The errors that toxbench raises on purpose, each with the exit code of the command line."""

import difflib
import sys
from collections.abc import Iterable, Sequence


class ToxbenchError(Exception):
    """An error that the user can fix.

    Attributes:
        problems: one line for each problem: what is wrong, where, what to do.
    """

    exit_code = 1

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class SettingsError(ToxbenchError):
    """An unknown or impossible option, key, name or value."""

    exit_code = 2


class DataError(ToxbenchError):
    """The table has errors that have to be fixed first."""

    exit_code = 3


class PluginError(ToxbenchError):
    """A requested plugin is missing, ambiguous or breaks its contract."""

    exit_code = 4


class CellsFailedError(ToxbenchError):
    """The run ended, but some of its cells have no result."""

    exit_code = 5


class StorageError(ToxbenchError):
    """The results folder cannot be read or written."""

    exit_code = 6


class NewerVersionError(StorageError):
    """A newer toxbench wrote the file, which is left unchanged."""


class TryAgainError(ToxbenchError):
    """A temporary problem: no network, or another run holds a lock."""

    exit_code = 75


class ProcessLostError(TryAgainError):
    """Another process of this run is gone.

    Attributes:
        rank: of that process; None if torchrun itself is gone.
        is_secondary: that process ended on request, or because it had lost another one.
    """

    def __init__(self, problem: str, rank: int | None, is_secondary: bool = False) -> None:
        super().__init__(problem)
        self.rank = rank
        self.is_secondary = is_secondary


def check_docstrings() -> None:
    """Raise `SettingsError` in ``python -OO``, where transformers cannot be imported."""
    if sys.flags.optimize > 1:
        raise SettingsError("transformers needs docstrings; start Python without -OO")


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return ``"; did you mean 'bert'?"`` with the closest candidate; empty if none is close."""
    matches = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""
