"""Averages of probabilities, and the choice of their members on validation rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toxbench.util.arrays import Probabilities, Targets


@dataclass(frozen=True)
class EnsembleChoice:
    """The members of the average over candidates.

    Attributes:
        steps: name of each member in the order of choice, and micro average precision of the
            validation rows of the average up to it; empty if there are no positive validation
            rows or no candidates.
    """

    steps: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str | None:
        """The name of the average; None if it has fewer than two members."""
        members = " + ".join(name for name, _ in self.steps)
        return f"average of {members}" if len(self.steps) > 1 else None


def seeds_average_name(name: str, seeds: int) -> str:
    """Return the name of the average over a candidate's seeds."""
    return f"{name} ({seeds} seeds averaged)"


def average_probabilities(arrays: Sequence[Probabilities]) -> npt.NDArray[np.float32]:
    """Return the mean of at least one array, float32 ``[row, label]``, summed in float64."""
    total = np.zeros(arrays[0].shape, dtype=np.float64)
    for array in arrays:
        total += array
    return (total / len(arrays)).astype(np.float32)


def choose_members(targets: Targets, candidates: Mapping[str, Probabilities]) -> EnsembleChoice:
    """Choose the members of an average by greedy forward selection without replacement.

    Starts with the best candidate and adds the one that raises micro average precision most, until
    none raises it (Caruana et al. 2004, doi:10.1145/1015330.1015432). Among equals, the first name
    in alphabetical order is chosen.

    Args:
        targets: 0/1 of the validation rows, ``[row, label]``.
        candidates: name -> probabilities of the same rows, ``[row, label]``.
    """
    # scikit-learn takes a second to import.
    from toxbench.evaluation.metrics import average_precision

    chosen: list[tuple[str, float]] = []
    members: list[Probabilities] = []
    remaining = sorted(candidates) if targets.any() else []
    while remaining:
        averages = (average_probabilities([*members, candidates[name]]) for name in remaining)
        scores = [average_precision(targets, average) or 0.0 for average in averages]
        best = int(np.argmax(scores))
        if chosen and scores[best] <= chosen[-1][1]:
            break
        chosen.append((remaining[best], scores[best]))
        members.append(candidates[remaining.pop(best)])
    return EnsembleChoice(tuple(chosen))
