"""The contract of a baseline plugin: a cheap reference that every backbone has to beat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Predict: TypeAlias = "Callable[[Sequence[str]], npt.NDArray[np.float64]]"
Fit: TypeAlias = "Callable[[Sequence[str], npt.NDArray[np.uint8]], Predict]"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A reference that learns from texts in seconds and draws nothing at random.

    Attributes:
        name: its row on the leaderboard; letters, digits, ``-``, ``_`` and ``.``.
        fit: ``fit(texts, targets)`` with targets 0/1 of shape ``[row, label]`` returns
            ``predict(texts)``, which returns probabilities of shape ``[row, label]``.
        most_rows: of more train rows than this, ``fit`` gets a random sample of so many, the same
            in every run, and the leaderboard says so; None: it gets all of them.
    """

    name: str
    fit: Fit
    most_rows: int | None = None
